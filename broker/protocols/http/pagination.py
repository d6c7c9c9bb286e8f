"""Some rows of a list, in an order, with some of their columns: RabbitMQ's query parameters.

    ?page=1&page_size=100&name=ord&use_regex=true&sort=messages&sort_reverse=true
    ?columns=name,message_stats.publish_details.rate

Without `page` the answer is a bare list.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from heapq import merge
from typing import Any, TypeAlias, TypeVar

from fluffle.broker.admin.context import Row
from fluffle.broker.admin.local_client import in_time
from fluffle.broker.patterns.patterns import UnusablePattern, compiled_once
from fluffle.broker.protocols.http.responses import ListingResponse, bad_request, unlike
from fluffle.broker.runtime.background import in_pieces

T = TypeVar("T")
Key: TypeAlias = tuple[Any, ...]

PAGE_SIZE = 100
PAGE_SIZE_MAX = 500
AT_ONCE = 100
"""Rows that are looked at in one turn of the loop."""
SEARCHED_AT_ONCE = 4
"""Names searched in one turn with an expression that may take tens of milliseconds for a long
name."""
COMPLETED_AT_ONCE = 50
SORTED_AT_ONCE = 1000
YES = "true"
CASELESS = "(?i)"
INVALID = "Pagination parameters are invalid"
COLUMNS = {"columns": "paths of columns between commas: what is wanted of each row"}
"""Query parameters of single objects, and …."""
LISTED = {
    "page": "a number from 1: the answer is an object with this page of the list",
    "page_size": f"how many rows a page has, {PAGE_SIZE} unless said, {PAGE_SIZE_MAX} at most",
    "name": "with `page`: those whose name has this text in it",
    "use_regex": "true: `name` is a regular expression",
    "pagination": "has no effect beside `page`",
    "sort": "the path of a column, as `message_stats.publish`",
    "sort_reverse": "true: the largest first",
    **COLUMNS,
}
"""… of each list."""


async def listed(listing: ListingResponse, query: Mapping[str, str]) -> Row | list[Row]:
    """Page of the rows that the query asks for, made a few rows a turn.  Refusal."""
    page = query.get("page")
    found = listing.rows if page is None else await named(listing.rows, query)
    path = query.get("sort", "").split(".")
    is_late = path[0] and found and path[0] not in found[0]
    if is_late:
        found = await completed(listing, found)
    found = await ordered(found, path, is_reversed=query.get("sort_reverse") == YES)
    items = found if page is None else page_of(found, query)
    if not is_late:
        items = await completed(listing, items)
    columns = columns_of(query)
    if columns:
        items = [projected(row, columns) async for row in in_turns(items)]
    return items if page is None else paged(items, found, listing.rows, query)


def shown(row: Row, query: Mapping[str, str]) -> Row:
    """Columns of one object that the query asks for."""
    columns = columns_of(query)
    return projected(row, columns) if columns else row


def columns_of(query: Mapping[str, str]) -> list[list[str]]:
    """Paths; none if everything is wanted."""
    return [path.split(".") for path in query.get("columns", "").split(",") if path]


async def in_turns(items: Sequence[T], at_once: int = AT_ONCE) -> AsyncIterator[T]:
    """All of them; others have their turn now and then."""
    for number, item in enumerate(items):
        if number % at_once == at_once - 1:
            await asyncio.sleep(0)
        yield item


async def completed(listing: ListingResponse, rows: list[Row]) -> list[Row]:
    """With what else is wanted of them."""
    if listing.complete is None:
        return rows
    found: list[Row] = []
    for piece in in_pieces(rows, COMPLETED_AT_ONCE):
        found += await listing.complete(piece)
        await asyncio.sleep(0)
    return found


async def named(rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    """Rows whose name has the text in it, or fits the pattern, of `name`.  TimeoutError."""
    name = query.get("name", "")
    if not name:
        return rows
    if query.get("use_regex") != YES:
        fits = containing(name.lower())
        return [row async for row in in_turns(rows) if fits(str(row.get("name", "")))]
    fits = pattern(name)
    return await fitting(rows, lambda row: fits(str(row.get("name", ""))))


async def fitting(items: Sequence[T], fits: Callable[[T], bool], what: str = "name") -> list[T]:
    """Items that an expression matches; `what` names the client's parameter."""
    async with in_time(what):
        return [item async for item in in_turns(items, SEARCHED_AT_ONCE) if fits(item)]


def containing(wanted: str) -> Callable[[str], bool]:
    return lambda name: wanted in name.lower()


def pattern(said: str) -> Callable[[str], bool]:
    """Refusal."""
    try:
        finds = compiled_once(f"{CASELESS}{said}")
    except UnusablePattern:
        raise bad_request(INVALID) from None
    return lambda name: finds(name.encode(errors="surrogateescape"))


async def ordered(rows: list[Row], path: Sequence[str], *, is_reversed: bool) -> list[Row]:
    """Rows sorted by a column, those without it first; else by virtual host and name.

    In runs that are merged: one sort of many rows would take too long.
    """
    key: Callable[[Row], Key]
    if path[0]:
        key = partial(key_at, path)
    elif rows and "name" in rows[0]:
        key = by_name
    else:
        return rows[::-1] if is_reversed else rows
    runs: list[list[tuple[Key, int]]] = []
    for some in in_pieces(enumerate(rows), SORTED_AT_ONCE):
        runs.append(sorted((key(row), at) for at, row in some))
        await asyncio.sleep(0)
    found: list[Row] = []
    for piece in in_pieces(merge(*runs), SORTED_AT_ONCE):
        found += [rows[at] for _key, at in piece]
        await asyncio.sleep(0)
    return found[::-1] if is_reversed else found


def by_name(row: Row) -> Key:
    return str(row.get("vhost", "")), str(row["name"])


def key_at(path: Sequence[str], row: Row) -> Key:
    return sort_key(value_at(row, path))


def sort_key(value: object) -> tuple[int, float, str]:
    """Key that orders values of all types: none, numbers, everything else as text."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, value, ""
    return 2, 0.0, str(value)


def page_of(found: list[Row], query: Mapping[str, str]) -> list[Row]:
    """Refusal for a page that is not there."""
    page, size = number(query, "page", 1), number(query, "page_size", PAGE_SIZE)
    if page < 1 or not 0 < size <= PAGE_SIZE_MAX:
        given = size if query.get("page_size") else "undefined"
        reason = f"Invalid pagination parameters: page number {page}, page size {given}"
        raise unlike("invalid_pagination_parameters", reason)
    if page > max(1, math.ceil(len(found) / size)):
        reason = f"Page out of range, page: {page} page size: {size}, len: {len(found)}"
        raise unlike("page_out_of_range", reason)
    return found[(page - 1) * size : page * size]


def paged(
    items: list[Row], found: Sequence[Row], rows: Sequence[Row], query: Mapping[str, str]
) -> Row:
    """A page, and how many there are."""
    size = number(query, "page_size", PAGE_SIZE)
    return {
        "filtered_count": len(found),
        "item_count": len(items),
        "items": items,
        "page": number(query, "page", 1),
        "page_count": math.ceil(len(found) / size),
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
    """Value at the end of a path of keys; None if it ends before."""
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
