"""JSON of bodies.  What is read in one turn of the loop has an end to what it may hold."""

from __future__ import annotations

import json
import math
import re
from typing import Any

VALUES_MAX = 25_000
"""What can be read in some ten milliseconds; texts may be long besides."""
SHORT_BYTES = VALUES_MAX * 2
"""In so many there are not more values."""
STRETCH_BYTES_MAX = 1 << 20
"""Without an object that ends, of what is read in a thread: it holds up the loop for so long, which
may be fifty milliseconds."""
NESTED_MAX = 200
"""Arrays and objects within each other: tables may be half as deep, recursion goes far deeper."""
HALF = re.compile(
    rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])"
)
"""Of a character, in an escape: the first without a second behind it, or a second without a first
before it."""
ESCAPED_ESCAPE = rb"\\"


class InvalidJson(ValueError):
    """Error for a body that is no JSON, or holds what cannot be written again."""


class TooManyValues(ValueError):
    """Error for JSON with more values than may be."""


def parsed(body: bytes) -> Any:
    """InvalidJson."""
    try:
        found = json.loads(
            body.decode(), object_hook=release_gil, parse_float=finite, parse_constant=finite
        )
    except (ValueError, RecursionError):
        raise InvalidJson from None
    if HALF.search(body.replace(ESCAPED_ESCAPE, b"..")):
        raise InvalidJson
    opened = body.count(b"[") + body.count(b"{")
    if opened > NESTED_MAX and is_deeper(found, NESTED_MAX):
        raise InvalidJson
    return found


def release_gil(found: dict[str, Any]) -> dict[str, Any]:
    """An object as it is.  Between two of them other threads may run, as they may whenever Python
    is called; the scanner itself, which is C, holds them up."""
    return found


def finite(said: str) -> float:
    """ValueError for what is no number, or too large for one."""
    value = float(said)
    if not math.isfinite(value):
        raise ValueError
    return value


def check_values(body: bytes) -> None:
    """TooManyValues."""
    if len(body) <= SHORT_BYTES:
        return
    plain = body.replace(ESCAPED_ESCAPE, b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * VALUES_MAX:  # of keys, too
        raise TooManyValues
    outside = b"".join(plain.split(b'"')[::2])
    if sum(map(outside.count, (b",", b"[", b"{"))) >= VALUES_MAX:
        raise TooManyValues  # each is behind a comma, or the first of an array or an object


def check_stretches(body: bytes) -> None:
    """TooManyValues where no other thread would run for long while it is read: see `release_gil`.

    A brace in a text is taken for the end of an object.
    """
    at = 0
    while len(body) - at > STRETCH_BYTES_MAX:
        at = body.rfind(b"}", at, at + STRETCH_BYTES_MAX) + 1
        if not at:
            raise TooManyValues


def is_deeper(value: object, most: int) -> bool:
    """Whether there are more than so many arrays and objects within each other."""
    level: list[Any] = [[value]]
    for _ in range(most + 2):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
