"""A property of many messages at once: their contents are laid one behind the other, and what
stands at the same place in each of them is one slice of that.

Such a column costs a nanosecond for each message, where asking one after the other costs fifty.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from fluffle.protocol.properties import FLAG_EXPIRATION, FLAG_PRIORITY, place_and_flags_of, place_of

FEW = 4
"""Fewer are asked one after the other."""

MANY = 32
"""Of so many it is worth while to look at each octet of a text."""

HEAD_BYTES_MAX = 2048
"""Where more stands in front of a value, it is sooner found in each than copied."""

LAID_OUT_BYTES_MAX = 512
"""Of longer contents only the beginning is copied."""

ALL_OCTETS = bytes(range(256))


class PriorityColumn(NamedTuple):
    """Priorities of several messages, one octet each."""

    octets: bytes
    content_bytes: int
    """How long each content is; 0 if they differ, or it was not measured."""


def priorities_of(contents: list[bytes]) -> PriorityColumn | None:
    """Return the priorities of several canonical contents with well-formed properties, if they name
    some; None if they do not.  Either all of them do or none does."""
    at, length_octets = place_and_flags_of(contents[0], FLAG_PRIORITY)
    if not at:
        return None
    count = len(contents)
    if count == 1:
        return PriorityColumn(contents[0][at : at + 1], len(contents[0]))
    if count >= FEW and at < HEAD_BYTES_MAX:
        laid_out, stride = lay_out(contents, at + 1)
        if not differing(laid_out, stride, length_octets, count):
            return PriorityColumn(laid_out[at::stride], stride if stride > at + 1 else 0)
    octets = bytes([content[place_of(content, FLAG_PRIORITY)] for content in contents])
    return PriorityColumn(octets, 0)


def read_expirations(contents: list[bytes], read: Callable[[bytes], int]) -> list[int]:
    """Return what `read` makes of the expirations of several canonical contents with well-formed
    properties, which all have one: of equal ones once if they are few."""
    count = len(contents)
    if count < FEW:
        return read_each([*map(expiration_of, contents)], read)
    at, length_octets = place_and_flags_of(contents[0], FLAG_EXPIRATION)
    if at >= HEAD_BYTES_MAX:
        return read_each([*map(expiration_of, contents)], read)
    start, stop = at + 1, at + 1 + contents[0][at]
    laid_out, stride = lay_out(contents, stop)
    if differing(laid_out, stride, [*length_octets, at], count):
        return read_each([*map(expiration_of, contents)], read)
    places = differing(laid_out, stride, range(start, stop), count) if count >= MANY else []
    if len(places) == 1:
        return read_column(laid_out, stride, places[0], slice(start, stop), read)
    return read_each([*map(itemgetter(slice(start, stop)), contents)], read)


def read_each(texts: list[bytes], read: Callable[[bytes], int]) -> list[int]:
    """Read each of several texts with `read`."""
    kinds = {*texts}
    if 2 * len(kinds) > len(texts):
        return [*map(read, texts)]
    found = {kind: read(kind) for kind in kinds}
    return [*map(found.__getitem__, texts)]


def read_column(
    laid_out: bytes, stride: int, place: int, part: slice, read: Callable[[bytes], int]
) -> list[int]:
    """Return what `read` makes of a part of all that was laid out, which differs in that octet
    alone."""
    before, behind = laid_out[part.start : place], laid_out[place + 1 : part.stop]
    column = laid_out[place::stride]
    found = {octet: read(before + bytes((octet,)) + behind) for octet in kinds_of(column)}
    return [*map(found.__getitem__, column)]


def expiration_of(content: bytes) -> bytes:
    """Return the expiration of canonical content, which must name one."""
    at = place_of(content, FLAG_EXPIRATION)
    return content[at + 1 : at + 1 + content[at]]


def lay_out(contents: list[bytes], head_bytes: int) -> tuple[bytes, int]:
    """Contents one behind the other, and how far one begins behind the one before; no more of each
    than so much at its beginning, if they are long or not equally long.

    One that ends before stands in no such order.  But then it has other flags than the first, or
    another length of a value; and what tells that does, since it is in front of where they part.
    """
    stride = len(contents[0])
    if stride <= LAID_OUT_BYTES_MAX and len({*map(len, contents)}) == 1:
        return b"".join(contents), stride
    return b"".join(map(itemgetter(slice(head_bytes)), contents)), head_bytes


def differing(laid_out: bytes, stride: int, places: Iterable[int], count: int) -> list[int]:
    """Return which of these octets are not the same in all of so many that were laid out."""
    return [
        place for place in places if laid_out[place::stride] != laid_out[place : place + 1] * count
    ]


def kinds_of(octets: bytes) -> bytes:
    """Return the octets there are, each once, rising."""
    return ALL_OCTETS.translate(None, ALL_OCTETS.translate(None, octets))
