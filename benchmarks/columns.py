"""Figures of several contenders, a column for each: as a table, as a record, and by a command."""

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks import load, report
from benchmarks.brokers import NotAvailable
from benchmarks.compare import RESULTS, pick
from benchmarks.machine import machine_class
from benchmarks.measurement import Measurement
from benchmarks.results import here_and_now, may_record
from benchmarks.scenarios import Contender

Found = Mapping[str, Sequence[Measurement]]
"""Measurements by the name of the contender."""


def text(
    found: Found,
    contenders: Mapping[str, Contender],
    command: str,
    conditions: Mapping[str, str],
) -> str:
    """The figures as markdown, without a title; a dash for what was not measured of somebody."""
    machine = machine_class()
    columns = [{row.what: row.shown() for row in rows} for rows in found.values()]
    subjects = dict.fromkeys(what for column in columns for what in column)
    titles = [contenders[name].title for name in found]
    rows = [[what, *(column.get(what, "–") for column in columns)] for what in subjects]
    return (
        f"`{command}` on {conditions['date']}, commit {conditions['commit']}.  {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB; {conditions['python']}.\n\n"
        f"{report.markdown_table(['what', *titles], rows)}"
    )


def record(
    name: str,
    found: Found,
    contenders: Mapping[str, Contender],
    command: str,
    out: Path | None,
) -> None:
    """Into the repository, or both record and table into `out`; `name` is that of the section."""
    conditions = here_and_now()
    contents = {
        "conditions": {**conditions, "command": command, "machine": machine_class()},
        "measurements": {who: [row._asdict() for row in rows] for who, rows in found.items()},
    }
    folder = out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{conditions['date']}-{conditions['commit']}.json"
    file.write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n")
    page = (out or report.DOCS) / "performance.md"
    report.update_section(page, name, text(found, contenders, command, conditions))


class Measure(Protocol):
    """Measures subjects of contenders, by their names; a quick run does less of everything."""

    def __call__(self, names: list[str], contenders: list[str], *, is_quick: bool) -> Found: ...


def main(
    name: str,
    about: str | None,
    contenders: Mapping[str, Contender],
    subjects: Collection[str],
    measure: Measure,
) -> int:
    """Command line of `python -m benchmarks.<name>`; whole runs of a clean tree are recorded."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--subjects", default=",".join(subjects), help="%(default)s")
    parser.add_argument("--only", default=",".join(contenders), help="%(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write record and table there")
    chosen = parser.parse_args()
    pick(parser, "subject", chosen.subjects, subjects)
    pick(parser, "contender", chosen.only, contenders)
    names, only = chosen.subjects.split(","), chosen.only.split(",")
    is_whole = names == list(subjects) and only == list(contenders)
    complete = is_whole and not (chosen.quick or chosen.out) and may_record()
    try:
        load.build()
        found = measure(names, only, is_quick=chosen.quick)
    except NotAvailable as missing:
        print(missing, file=sys.stderr)
        return 2
    command = f"python -m benchmarks.{name}{' --quick' * chosen.quick}"
    if chosen.out or complete:
        record(name, found, contenders, command, chosen.out)
    return 0
