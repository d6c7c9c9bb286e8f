"""From the last lines of torture and of the simulator to the table of docs/safety.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fluffle.broker.torture.checker import NOT_PROMISED, Breach

TITLES = (
    "command", "commit, date", "took", "faults by kind", "work", "lost", "unexpected",
    "other breaches", "listed, not promised", "longest gap",
)  # fmt: skip
SUMMARY = re.compile(
    r"(?P<runs>\d+) runs, (?P<failed>\d+) failed; .*? (?P<simulated>\d+) simulated"
)
NONE = "–"


class Row(NamedTuple):
    """A run in the table, without its first columns; `is_good` is its verdict."""

    command: str
    took_s: float
    faults: str
    work: str
    lost: str
    unexpected: str
    others: str
    listed: str
    gap: str
    is_good: bool


def torture_row(command: str, lines: Sequence[str], took_s: float) -> Row:
    """The row by the last line, as `torture seed=1 … verdict=good`; bad where there is none."""
    last = next((line for line in lines if line.startswith("torture ")), None)
    if last is None:
        return broken(command, took_s)
    values = dict(pair.split("=", 1) for pair in last.split(" ")[1:])
    counts = {breach: int(values[breach.value.replace(" ", "_")]) for breach in Breach}
    named = {Breach.LOST, Breach.UNEXPECTED}
    others = {breach for breach in Breach if breach not in named | NOT_PROMISED}
    return Row(
        command,
        took_s,
        values["faults"].replace(",", ", "),
        f"{int(values['confirmed']):,} confirmed",
        str(counts[Breach.LOST]),
        str(counts[Breach.UNEXPECTED]),
        counted(counts, others),
        counted(counts, NOT_PROMISED),
        f"{values['unavailable_s']} s",
        values["verdict"] == "good",
    )


def simulation_row(command: str, lines: Sequence[str], took_s: float) -> Row:
    """A run that fails says what was broken, and how to see it again, in lines before the last."""
    summary = next((found for line in lines if (found := SUMMARY.match(line))), None)
    if summary is None:
        return broken(command, took_s)
    faults = next((line for line in lines if line.startswith("faults: ")), "faults: ?")
    failed = int(summary["failed"])
    return Row(
        command,
        took_s,
        faults.removeprefix("faults: "),
        f"{int(summary['runs']):,} runs, {int(summary['simulated']):,} simulated s",
        NONE,
        f"{failed} runs failed" if failed else "0",
        NONE,
        NONE,
        NONE,
        is_good=not failed,
    )


def broken(command: str, took_s: float) -> Row:
    """The row of a run that ended without a verdict."""
    what = "no verdict"
    return Row(command, took_s, what, what, what, what, what, what, what, is_good=False)


def counted(counts: dict[Breach, int], which: set[Breach]) -> str:
    found = [f"{counts[breach]} {breach.value}" for breach in Breach if breach in which]
    return ", ".join(each for each in found if not each.startswith("0 ")) or "0"


def table(commit: str, date: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {' | '.join(TITLES)} |"
    yield "|---" * len(TITLES) + "|"
    for row in rows:
        first = (f"`python -m {row.command}`", f"{commit}, {date}", f"{row.took_s / 60:.0f} min")
        yield f"| {' | '.join((*first, *map(str, row[2:-1])))} |"
