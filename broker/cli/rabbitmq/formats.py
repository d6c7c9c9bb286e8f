"""How verbs print: tab-separated tables, tables with lines, CSV and JSON, as RabbitMQ has them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from fluffle.broker.cli.client import Row
from fluffle.broker.cli.rabbitmq.verb import Output, Report, RowTable

FORMATS = ("table", "pretty_table", "csv", "json", "json_stream", "erlang", "string", "report")
"""The last three print what `table` prints: they are of Erlang, or for people."""

FOR_PROGRAMS = frozenset({"csv", "json", "json_stream"})
"""Nothing else is printed beside these."""


def printed(output: Output, format_name: str, *, has_header: bool) -> Iterator[str]:
    """Yield the lines of what has come of a verb."""
    if isinstance(output, RowTable):
        name = "pretty_table" if output.is_pretty and format_name == "table" else format_name
        yield from LISTS.get(name, table)(output, has_header and output.has_header)
    elif isinstance(output, Report):
        if format_name in ("json", "json_stream"):
            content = output.content
            yield compact({"message": "\n".join(output.lines)} if content is None else content)
        else:
            yield from output.lines


def table(listed: RowTable, has_header: bool) -> Iterator[str]:  # noqa: FBT001 - as all formats
    """Yield cells between tabs; nothing at all without rows."""
    is_first = True
    for row in listed.rows:
        if is_first and has_header:
            yield "\t".join(listed.columns)
        is_first = False
        yield "\t".join(cell(row.get(name)) for name in listed.columns)
    if is_first and listed.has_blank_line:
        yield ""


def pretty_table(listed: RowTable, has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield cells in boxes."""
    rows = [[cell(row.get(name)) for name in listed.columns] for row in listed.rows]
    if not rows:
        return
    shown = [list(listed.columns), *rows] if has_header else rows
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["─" * (width + 2) for width in widths]
    yield f"┌{'┬'.join(lines)}┐"
    for number, row in enumerate(shown):
        if number:
            yield f"├{'┼'.join(lines)}┤"
        cells = (f" {text.ljust(width)} " for text, width in zip(row, widths, strict=True))
        yield f"│{'│'.join(cells)}│"
    yield f"└{'┴'.join(lines)}┘"


def csv_lines(listed: RowTable, has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Text in quotation marks, numbers without."""
    is_first = True
    for row in listed.rows:
        if is_first and has_header:
            yield csv_line(list(listed.columns))
        is_first = False
        yield csv_line([csv_cell(row.get(name)) for name in listed.columns])


def csv_line(cells: Sequence[object]) -> str:
    output = io.StringIO()
    csv.writer(output, quoting=csv.QUOTE_NONNUMERIC, lineterminator="").writerow(cells)
    return output.getvalue()


def csv_cell(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else cell(value)


def json_array(listed: RowTable, _has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield an array with a line a row; nothing before the first answer, which may be a failure."""
    rows = iter(listed.rows)
    first = list(islice(rows, 1))
    yield "["
    comma = ""
    for row in chain(first, rows):
        yield comma + compact(chosen(row, listed.columns))
        comma = ","
    yield "]"


def json_stream(listed: RowTable, _has_header: bool) -> Iterator[str]:  # noqa: FBT001
    """Yield an object a line."""
    for row in listed.rows:
        yield compact(chosen(row, listed.columns))


def compact(content: Any) -> str:
    """Format as JSON without spaces."""
    return json.dumps(content, separators=(",", ":"))


LISTS: Mapping[str, Callable[[RowTable, bool], Iterator[str]]] = {
    "table": table,
    "pretty_table": pretty_table,
    "csv": csv_lines,
    "json": json_array,
    "json_stream": json_stream,
}


def chosen(row: Row, columns: Sequence[str]) -> Row:
    """Return these columns of a row; what is not known is an empty text, as RabbitMQ has it."""
    found = {name: row.get(name) for name in columns}
    return {name: "" if value is None else value for name, value in found.items()}


def cell(value: Any) -> str:
    """Return a value in a table: what a client chose does not write to the terminal of an
    operator."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value if value.isprintable() else value.encode("unicode_escape").decode()
        case list():
            return f"[{', '.join(map(cell, value))}]"
        case dict():
            pairs = (f'{{"{cell(name)}",{term(each)}}}' for name, each in value.items())
            return f"[{', '.join(pairs)}]"
    return str(value)


def term(value: Any) -> str:
    """Return a value inside a table of arguments: text in quotation marks."""
    return json.dumps(value) if isinstance(value, str) else cell(value)
