"""The command line: `python -m tests.safety --seconds 3600 --seeds 2000`.

Tortures three nodes, then runs the simulator with groups and with whole queues, and says in one
table what came of it.  Exit code 0 if nothing was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import randrange

from tests.safety.table import Row, simulation_row, table, torture_row

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.safety", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of torture (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the torture; drawn if not given")
    parser.add_argument("--seeds", type=int, default=200, help="of the simulator (%(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (%(default)s)")
    processors = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=processors, help="at once (%(default)s)")
    asked = parser.parse_args(arguments)
    rows = [*run(asked)]
    for line in table(commit(), time.strftime("%Y-%m-%d", time.gmtime()), rows):
        print(line)
    return 0 if all(row.is_good for row in rows) else 1


def run(asked: argparse.Namespace) -> Iterator[Row]:
    seed = randrange(1_000_000) if asked.seed is None else asked.seed
    torture = f"tests.torture fluffle --seconds {asked.seconds:.0f} --seed {seed}"
    yield torture_row(torture, *said(torture))
    for option in ("", "--queues "):
        seeds = f"--first {asked.first} --seeds {asked.seeds}"
        simulation = f"tests.simulation {option}{seeds} --nodes 3,5"
        yield simulation_row(simulation, *said(f"{simulation} --jobs {asked.jobs}"))


def said(command: str) -> tuple[list[str], float]:
    """The last lines of a module's output, which is shown as it comes; and how long it took."""
    began_s = time.monotonic()
    words = [sys.executable, "-m", *command.split()]
    lines: list[str] = []
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines = [*lines[-9:], line.rstrip("\n")]
    return lines, time.monotonic() - began_s


def commit() -> str:
    """The commit that is tried, with a `+` behind it if it was changed since."""
    name = git("rev-parse", "--short=10", "HEAD") or "unknown"
    return name + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def git(*words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
