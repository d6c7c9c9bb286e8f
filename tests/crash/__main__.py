"""The command line: `python -m tests.crash --kills 100 --seed 1`."""

import argparse
import sys
import tempfile
from pathlib import Path
from random import randrange

from tests.crash.driver import Driver


def main() -> int:
    """Kill, say what came of it; 1 if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=randrange(1_000_000))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fluffle-crash-") as folder:
        driver = Driver(Path(folder), options.seed)
        outcome = driver.kill_again_and_again(
            options.kills, lambda line: print(f"\r{line}", end="", file=sys.stderr, flush=True)
        )
    print(file=sys.stderr)
    print(outcome)
    return 0 if outcome.report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
