"""Figures of several contenders, a column for each: as a table, and as a record."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.compare import RESULTS
from benchmarks.machine import machine_class
from benchmarks.measurement import Measurement
from benchmarks.results import here_and_now
from benchmarks.scenarios import Contender

Found = Mapping[str, Sequence[Measurement]]
"""By the name of the contender."""


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
