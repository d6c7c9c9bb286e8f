"""The command that looks for mutants: `python -m tests.mutants --help`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tests.mutants import tables
from tests.mutants.hunt import Wanted, hunts
from tests.mutants.registry import ALL, FAMILIES
from tests.mutants.verdict import Verdict
from tests.simulation.mutation import SEEDS_MAX, SUBJECTS, failure_of_the_original

ABOUT = """
Puts known mistakes into the code, one at a time, and has the tests that must see them look: seeds
of the simulator, or tests of their own.  Ends with 1 if one escapes.  Writes the table of each
family that was wanted as a whole.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    wanted = wanted_of(options)
    if options.list:
        for family, mutant in wanted:
            print(f"{mutant.number:6} {family:10} {mutant.where:60} {mutant.mistake}")
        return 0
    for family in SUBJECTS.keys() & {family for family, _ in wanted}:
        say(f"{family}: the original first, {2 * SEEDS_MAX} runs")
        if failure := failure_of_the_original(family, options.jobs):
            print(f"{family}: the original fails, so nothing is shown: {failure}")
            return 1
    return report(wanted, options.jobs)


def report(wanted: Sequence[Wanted], processors: int) -> int:
    """Look for mutants, a line each, and write the tables."""
    verdicts: list[Verdict] = []
    began = time.perf_counter()
    say(f"mutants: {len(wanted)}, a line when one is found or has escaped")
    for verdict in hunts(wanted, processors):
        verdicts.append(verdict)
        runs = f"{verdict.runs:3} runs" if verdict.runs else "   tests"
        found = (verdict.failure or "ESCAPED")[:110]
        print(f"{verdict.mutant.number:6} {verdict.family:10} {runs}  {found}", flush=True)
    escaped = sorted(verdict.mutant.number for verdict in verdicts if verdict.failure is None)
    took_s = time.perf_counter() - began
    print(f"{len(verdicts)} mutants, {len(escaped)} escaped {escaped}, in {took_s:.0f} s")
    for path in tables.write(verdicts):
        say(f"wrote {path.name} in {path.parent}")
    return 1 if escaped else 0


def say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def wanted_of(options: argparse.Namespace) -> list[Wanted]:
    """All that the command line names, once for each family that must find it."""
    return [
        (name, mutant)
        for name, family in FAMILIES.items()
        for mutant in family.mutants
        if not options.family or name in options.family
        if not options.numbers or mutant.number in options.numbers
    ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.mutants", description=ABOUT)
    add = made.add_argument
    add("numbers", nargs="*", type=number, metavar="NUMBER", help="some only, as M6 R4a")
    add("--family", action="append", choices=FAMILIES, help="those of a family; may be repeated")
    add("--list", action="store_true", help="print number, family, place and mistake of each")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (%(default)s)")
    return made


def number(text: str) -> str:
    """The number of a mutant that there is."""
    if text not in ALL:
        raise argparse.ArgumentTypeError(f"there is no mutant {text}; --list prints all")
    return text


if __name__ == "__main__":
    sys.exit(main())
