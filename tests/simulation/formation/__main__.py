"""`python -m tests.simulation.formation FIRST LAST`: seeds, one line for each that fails."""

import logging
import sys

from tests.simulation.facts import Violation
from tests.simulation.formation.world import run


def main(first: int, last: int) -> int:
    """How many have failed, at most 1 for the shell."""
    logging.disable(logging.CRITICAL)
    failed = founded = grown = 0
    for seed in range(first, last + 1):
        try:
            world = run(seed)
        except Violation as violation:
            failed += 1
            print(f"seed {seed}: {violation}", flush=True)
        else:
            founded += len(world.registered)
            grown += bool(world.joining)
    print(f"{last - first + 1} runs, {failed} failed; {founded} founded, {grown} have grown")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
