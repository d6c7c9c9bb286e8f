"""`.venv/bin/python -m tests.simulation.formation FIRST LAST`: seeds, one line for each that
fails."""

import argparse
import logging
import sys

from tests.simulation.facts import Violation
from tests.simulation.formation.formation_cluster import run


def main() -> int:
    """Run the seeds; 1 for the shell if any of them has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.formation",
        description="Clusters that are founded, grow and shrink under faults; a seed says it all.",
    )
    parser.add_argument("first", metavar="FIRST", type=int, help="the first seed")
    parser.add_argument("last", metavar="LAST", type=int, help="the last one, which is run, too")
    seeds = parser.parse_args()
    if seeds.last < seeds.first:
        parser.error("LAST is less than FIRST: there is nothing to run")
    logging.disable(logging.CRITICAL)
    failed = founded = grown = 0
    for seed in range(seeds.first, seeds.last + 1):
        try:
            cluster = run(seed)
        except Violation as violation:
            failed += 1
            print(f"seed {seed}: {violation}", flush=True)
        else:
            founded += len(cluster.registered)
            grown += bool(cluster.joining)
    runs = seeds.last - seeds.first + 1
    print(f"{runs} runs, {failed} failed; {founded} founded, {grown} have grown")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
