"""Kills a process that commits, again and again, and looks what is left.

Each workload, of queues and of Raft groups, has several lives on one disk, for each of so many
seeds.  What fails names its seed, and the exit code is 1.  `test_crash.py` does it with a few.
"""

import argparse
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from fluffle.storage.environment import open_environment
from tests.storage import raft_workload, workload

ROOT = Path(__file__).parent.parent.parent
WORKLOADS = [workload, raft_workload]
LIVES = 3
COMMITS_MAX = 60
"""How many commits a life may have seen when it ends."""


def command(load: ModuleType, directory: Path, seed: int, commits: int, first: int) -> list[str]:
    """A process that does `commits` commits of a plan, from behind the `first` ones on."""
    arguments = [str(directory), *map(str, (seed, commits, first))]
    return [sys.executable, "-m", f"tests.storage.{load.__name__.rpartition('.')[2]}", *arguments]


def states(load: ModuleType, seed: int, commits: int) -> list[Any]:
    """Contents of a store after 0, 1, 2 ... commits."""
    return [load.NOTHING, *(state for _, state in islice(load.plan(seed), commits))]


def kill(load: ModuleType, directory: Path, seed: int) -> None:
    """Several lives on one disk, each killed at random; each must leave what was durable."""
    random, first = Random(seed), 0
    for life in range(LIVES):
        reported = live_until_killed(load, directory, seed, first, random.randint(1, COMMITS_MAX))
        expected = states(load, seed, reported + 1)
        found = load.held(open_environment(directory))
        assert found in expected[reported:], (
            f"seed {seed}, life {life}, {reported} commits reported"
        )
        first = reported + expected[reported:].index(found)


def live_until_killed(
    load: ModuleType, directory: Path, seed: int, first: int, commits: int
) -> int:
    """Kill a process once it has reported so many commits; how many it has reported in the end."""
    arguments = command(load, directory, seed, 10_000, first)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        lines = list(islice(process.stdout, 1 + commits))
        process.kill()
        lines += process.stdout.readlines()
    reported = int(lines[-1])
    assert reported >= first + commits
    return reported


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.storage.kills", description=__doc__)
    count_help = f"so many seeds, {LIVES} kills each, for each workload (%(default)s)"
    parser.add_argument("count", type=int, nargs="?", default=100, help=count_help)
    parser.add_argument("seed", type=int, nargs="?", default=1, help="the first (%(default)s)")
    options = parser.parse_args()
    count, first_seed = options.count, options.seed
    if count < 1:
        parser.error(f"COUNT is 1 at least, not {count}")
    for load in WORKLOADS:
        for seed in range(first_seed, first_seed + count):
            with tempfile.TemporaryDirectory() as directory:
                kill(load, Path(directory), seed)
        print(f"{load.__name__}: {count * LIVES} kills, nothing was lost")


if __name__ == "__main__":
    main()
