"""Rows as people read them, or as JSON, both while they come; and how far long work is.

Names are what clients chose: control characters are escaped, so that no client writes to the
terminal of an operator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self, TypeAlias

import click

Row: TypeAlias = dict[str, Any]

MEASURED_ROWS = 1000
"""Columns are as wide as these need; what is wider further down stands out."""

GAP = "  "
ALL = "all"


def shown(value: object) -> str:
    """Return a value in a cell of a table."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return value if value.isprintable() else value.encode("unicode_escape").decode()
        case list() if all(isinstance(each, str) for each in value):
            return ", ".join(map(shown, value))
        case dict() if not value:
            return ""
        case list() | dict():
            return json.dumps(value)
    return str(value)


def counted(count: int, one: str, more: str) -> str:
    """Format a count with its noun and verb."""
    return f"1 queue {one}" if count == 1 else f"{count or 'no'} queues {more}"


def table(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """Lines with aligned cells, the names of the columns on top."""
    rest = iter(rows)
    measured = list(islice(rest, MEASURED_ROWS))
    are_numbers = [all(type(row.get(name)) is int for row in measured) for name in columns]
    first = [[shown(row.get(name)) for name in columns] for row in measured]
    widths = [max(map(len, column)) for column in zip(columns, *first, strict=True)]
    aligns = [str.rjust if are else str.ljust for are in are_numbers]
    later = ([shown(row.get(name)) for name in columns] for row in rest)
    for cells in chain([columns], first, later):
        line = (
            align(cell, width) for align, cell, width in zip(aligns, cells, widths, strict=True)
        )
        yield GAP.join(line).rstrip()


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield one array, one line a row."""
    yield "["
    last: str | None = None
    for row in rows:
        if last is not None:
            yield f"{last},"
        last = json.dumps(row)
    if last is not None:
        yield last
    yield "]"


def pairs(row: Row) -> Iterator[str]:
    """Yield one row as lines of name and value."""
    width = max(map(len, row))
    for name, value in row.items():
        yield f"{name.ljust(width)}{GAP}{shown(value)}".rstrip()


WIDTH = 30
ERASE_LINE = "\r\x1b[K"


class ProgressBar:
    """A bar on standard error, gone at the end; nothing where that is no terminal."""

    def __init__(self, unit: str) -> None:
        """`unit` is done to those that are counted: moved, imported."""
        self._unit = unit
        self._is_shown = sys.stderr.isatty()
        self._percent = -1

    def at(self, done: int, total: int) -> None:
        """Show that so many of so many are done."""
        percent = min(100, 100 * done // total) if total else 100
        if not self._is_shown or percent == self._percent:
            return
        self._percent = percent
        filled = WIDTH * percent // 100
        bar = "#" * filled + "." * (WIDTH - filled)
        text = f"{ERASE_LINE}[{bar}] {percent:3} %  {done} of {total} {self._unit}"
        click.echo(text, nl=False, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._percent >= 0:
            click.echo(ERASE_LINE, nl=False, err=True)
