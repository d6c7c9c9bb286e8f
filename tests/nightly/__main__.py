"""The nightly run: `python -m tests.nightly`, or `make nightly`.

Runs its parts one after the other, all of them whatever fails, and writes to `build/nightly`: a log
of each, `report.md`, and `failed_seeds.toml` with the seeds that failed, to be copied into
`tests/regressions.toml`.  All chance follows from one number, which is printed first.  Exit code 0
if nothing was found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.nightly import coverage_table
from tests.nightly.parts import INTERPRETER, Order, Part, parts_of
from tests.suite.failed import KEPT, entry
from tests.suite.seeds import SEED, night_seed
from tests.suite.selection import ROOT

FAILED_RUN = re.compile(r"^seed (?P<seed>\d+) with (?P<nodes>\d+) nodes: ")
SIMULATED = {
    "groups": "simulation/test_seeds.py::test_a_seed_that_failed_once",
    "queues": "simulation/test_seeds.py::test_a_seed_about_queues_that_failed_once",
}
"""Parts, and the tests that take their seeds once they have failed."""
MEASURED = ROOT / "build" / "nightly" / "coverage"
"""Coverage data of all processes of a night: `data_file` in pyproject.toml."""
NAMES = [part.name for part in parts_of(Order(0))]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a part."""

    part: Part
    status: int
    took_s: float
    last: str
    """Line that it printed."""

    def row(self) -> str:
        verdict = "good" if self.status == 0 else f"**failed**, {self.status}"
        return (
            f"| {self.part.name} | {verdict} | {self.took_s:.0f} s | {self.last} "
            f"| `{self.part.command}` |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    seed = night_seed() if asked.seed is None else asked.seed
    order = Order(seed, asked.seeds, asked.queue_seeds, asked.torture, asked.abuse, asked.jobs)
    print(f"{SEED}={order.seed}", flush=True)
    KEPT.unlink(missing_ok=True)
    shutil.rmtree(MEASURED, ignore_errors=True)
    parts = [part for part in parts_of(order) if not asked.parts or part.name in asked.parts]
    results = []
    for part in parts:
        print(f"{part.name}: {part.about}: {part.command}", flush=True)
        results.append(run(part, asked.folder))
        print(f"{results[-1].row()}", flush=True)
    (asked.folder / "report.md").write_text(
        "\n".join([*report(order, results, asked.folder), ""]), encoding="utf-8"
    )
    return 0 if all(result.status == 0 for result in results) else 1


def run(part: Part, folder: Path) -> Result:
    """Run it to its end, with its output in a log; and keep the seeds that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    log = folder / f"{part.name}.log"
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(
            [INTERPRETER, *part.words],
            cwd=ROOT,
            env=os.environ | dict(part.environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines if part.name in SIMULATED else ():
        if found := FAILED_RUN.match(line):
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(entry(SIMULATED[part.name], int(found["seed"]), int(found["nodes"])))
    last = next((line.strip("= ") for line in reversed(lines) if line.strip()), "")
    return Result(part, status, time.monotonic() - began_s, last)


def report(order: Order, results: Sequence[Result], folder: Path) -> Iterator[str]:
    """Lines of the page."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    yield from (f"# Nightly run of {date}", "", f"`make nightly SEED={order.seed}` repeats it.", "")
    yield from ("| part | | took | last line | command |", "|---|---|--:|---|---|")
    yield from (result.row() for result in results)
    if KEPT.exists():
        kept = KEPT.read_text(encoding="utf-8").strip()
        yield from ("", "## Seeds that failed", "", "```toml", kept, "```")
    if any(result.part.name == "coverage" for result in results):
        yield from ("", "## Coverage of the fast tests", "")
        yield from coverage_table.table(coverage_table.measured(folder))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.nightly",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Order(0)
    add = made.add_argument
    add("parts", nargs="*", type=part, metavar="PART", help=f"some of {', '.join(NAMES)}")
    add("--seed", type=int, help="the number that all others follow from; drawn if not given")
    add("--seeds", type=int, default=usual.seeds, help="of the simulator (%(default)s)")
    add("--queue-seeds", type=int, default=usual.queue_seeds, help="with queues (%(default)s)")
    add("--torture", type=int, default=usual.torture_s, help="seconds (%(default)s)")
    add("--abuse", type=int, default=usual.abuse_s, help="seconds (%(default)s)")
    add("--jobs", type=int, default=usual.processes, help="processes at once (%(default)s)")
    add("--folder", type=Path, default=KEPT.parent, help="of the report (%(default)s)")
    return made


def part(text: str) -> str:
    """A name that there is."""
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"there is no part {text}; there are {', '.join(NAMES)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
