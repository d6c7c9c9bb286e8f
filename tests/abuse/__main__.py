"""`python -m tests.abuse --seconds 60 --seed 1`: abuse a node, watch it, and pass a verdict.

Storms and calms alternate.  In a calm nothing of the abusers is left open, so that what is then
still resident or open was kept by the node.  Exit code 0 if everything was as it must be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.abuse.kinds import KINDS
from tests.abuse.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--threads", type=int, default=4, help="attacks at the same time")
    parser.add_argument("--storm", type=float, default=8.0, help="seconds between two calms")
    parser.add_argument("--each", action="store_true", help="one kind after the other: its cost")
    parser.add_argument("--kinds", default="", help="those alone whose names begin so: `flood:`")
    asked = parser.parse_args()
    kinds = tuple(name for name in KINDS if name.startswith(asked.kinds))
    if not kinds:
        parser.error(f"there is no kind that begins with {asked.kinds}")
    plan = Plan(
        seconds=asked.seconds,
        seed=asked.seed,
        threads=asked.threads,
        storm_s=asked.storm,
        each=asked.each,
        kinds=kinds,
    )
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), plan, lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
