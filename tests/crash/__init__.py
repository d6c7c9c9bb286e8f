"""Kills a node again and again while clients work, and checks what they saw.

    python -m tests.crash --kills 100 --seed 1

`driver` starts and kills, `roles` are what the clients do, `history` is what they write down, and
`checker` says what of that no honest broker would have done.
"""
