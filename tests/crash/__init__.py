"""Kills a node again and again while clients work, and checks what they saw.

    python -m tests.crash --kills 100 --seed 1

`driver` starts and kills, `roles` are what the clients do; the clients themselves, what they write
down, and who says what of that no honest broker would have done, are those of `fluffle torture`.
"""
