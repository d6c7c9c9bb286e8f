"""Some rows of a list, in an order, with some of their columns: RabbitMQ's query parameters.

    ?page=1&page_size=100&name=ord&use_regex=true&sort=messages&sort_reverse=true
    ?columns=name,message_stats.publish_details.rate

Without `page` the answer is a bare list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fluffle.broker.access.patterns import UnusablePattern, compiled
from fluffle.broker.control.parts import Row
from fluffle.broker.management.replies import bad_request, unlike

PAGE_SIZE = 100
PAGE_SIZE_MAX = 500
YES = "true"
CASELESS = "(?i)"
INVALID = "Pagination parameters are invalid"
LISTED = {
    "page": "a number from 1: the answer is an object with this page of the list",
    "page_size": f"how many rows a page has, {PAGE_SIZE} unless said, {PAGE_SIZE_MAX} at most",
    "name": "with `page`: those whose name has this text in it",
    "use_regex": "true: `name` is a regular expression",
    "pagination": "has no effect beside `page`",
    "sort": "the path of a column, as `message_stats.publish`",
    "sort_reverse": "true: the largest first",
    "columns": "paths of columns between commas: what is wanted of each row",
}
"""What may be asked of each list."""


def listed(rows: Sequence[Row], query: Mapping[str, str]) -> Row | list[Row]:
    """What of the rows is asked for.  Refusal."""
    page = query.get("page")
    found = rows if page is None else named(rows, query)
    columns = [path.split(".") for path in query.get("columns", "").split(",") if path]
    found = ordered(found, query)
    if page is None:
        return [projected(row, columns) for row in found] if columns else list(found)
    return paged(rows, found, columns, query)


def named(rows: Sequence[Row], query: Mapping[str, str]) -> Sequence[Row]:
    """Rows whose name has the text in it, or fits the pattern, of `name`."""
    name = query.get("name", "")
    if not name:
        return rows
    if query.get("use_regex") != YES:
        wanted = name.lower()
        return [row for row in rows if wanted in str(row.get("name", "")).lower()]
    try:
        finds = compiled(f"{CASELESS}{name}")
    except UnusablePattern:
        raise bad_request(INVALID) from None
    return [row for row in rows if finds(str(row.get("name", "")).encode(errors="surrogateescape"))]


def ordered(rows: Sequence[Row], query: Mapping[str, str]) -> Sequence[Row]:
    """By a column, which may be a path; rows without it come first."""
    column = query.get("sort", "")
    if not column:
        return rows
    path = column.split(".")
    is_reversed = query.get("sort_reverse") == YES
    return sorted(rows, key=lambda row: sort_key(value_at(row, path)), reverse=is_reversed)


def sort_key(value: object) -> tuple[int, float, str]:
    """So that values of all types have an order: none, numbers, everything else as text."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def paged(
    rows: Sequence[Row],
    found: Sequence[Row],
    columns: Sequence[Sequence[str]],
    query: Mapping[str, str],
) -> Row:
    """One page, and how many there are.  Refusal for a page that is not there."""
    page, size = number(query, "page", 1), number(query, "page_size", PAGE_SIZE)
    if page < 1 or not 0 < size <= PAGE_SIZE_MAX:
        given = size if query.get("page_size") else "undefined"
        reason = f"Invalid pagination parameters: page number {page}, page size {given}"
        raise unlike("invalid_pagination_parameters", reason)
    pages = math.ceil(len(found) / size)
    if page > max(1, pages):
        reason = f"Page out of range, page: {page} page size: {size}, len: {len(found)}"
        raise unlike("page_out_of_range", reason)
    items = found[(page - 1) * size : page * size]
    return {
        "filtered_count": len(found),
        "item_count": len(items),
        "items": [projected(row, columns) for row in items] if columns else list(items),
        "page": page,
        "page_count": pages,
        "page_size": size,
        "total_count": len(rows),
    }


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of the query.  Refusal."""
    text = query.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise bad_request(INVALID) from None


def value_at(row: Any, path: Sequence[str]) -> Any:
    """What is at the end of a path of keys; None if it ends before."""
    for key in path:
        if not isinstance(row, Mapping):
            return None
        row = row.get(key)
    return row


def projected(row: Row, columns: Sequence[Sequence[str]]) -> Row:
    """The columns that it has, each where it was."""
    found: Row = {}
    for path in columns:
        value = value_at(row, path)
        if value is None:
            continue
        inner = found
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return found
