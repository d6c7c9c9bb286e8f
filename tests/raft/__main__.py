"""Plays scenarios: `python -m tests.raft FILE...`; ends with 1 if one is not as it says."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.raft.scenario import Scenario


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.raft", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="tests/raft/scenarios/")
    failed = 0
    for path in parser.parse_args(arguments).files:
        try:
            Scenario(path.read_text(encoding="utf-8")).play()
            print(f"{path}: as it says")
        except (AssertionError, OSError) as error:
            failed += 1
            print(f"{path}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
