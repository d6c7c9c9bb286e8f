"""`python -m benchmarks.micro`: the three functions of `protocol/hot.py`, by body size.

The figure is the best of several rounds: what the function costs when nothing disturbs it.
"""

from benchmarks.micro.hot import BENCHES, BODY_BYTES
from benchmarks.report import markdown_table


def main() -> None:
    head = ["ns per message", *(f"{size:,} B" for size in BODY_BYTES)]
    rows = [
        [name, *(f"{measure(size):.0f}" for size in BODY_BYTES)]
        for name, measure in BENCHES.items()
    ]
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
