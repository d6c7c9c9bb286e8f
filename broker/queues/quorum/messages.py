"""The messages of an entry as bytes, of which a member reads nothing before somebody wants them.

    messages   first:8  count:4  columns_bytes:4  origin_runs:4  origins_bytes:4
               columns    what is not as for most messages
               origins    in runs, as in `queues/origin_runs`
               ends       for each message:4    where its content ends, counted from the first one
               checks     for each message:4    CRC-32 of its content, begun with that of its origin
               contents   one after the other

    column     kind:1  form:1  values             of all alike, or of each; `COUNTS`: in runs

Each message has a checksum of its own, beside that of the whole entry, which is the store's: so
what is dead of an entry can be left out later, and what is left is still known to be what it was.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, compress, pairwise, repeat
from struct import Struct, pack, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception
from typing import NamedTuple
from zlib import crc32

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import Counts, EqualCountsRun
from fluffle.broker.queues.expiry_times import NEVER_MS, Expiries
from fluffle.broker.queues.origin_codec import pack_origins, unpack_origins
from fluffle.broker.queues.quorum.errors import InvalidEntry

HEAD = Struct(">QIIII")
COLUMN = Struct(">BB")
NUMBER = Struct(">I")
TIME = Struct(">Q")
COUNTED = Struct(">IIII")

PRIORITIES, EXPIRIES, COUNTS = 1, 2, 3
ALL, EACH, RUNS = 0, 1, 2

DEFAULT_PRIORITY = 4
"""Of a message that names none, as in RabbitMQ's quorum queues."""


@dataclass(slots=True)
class Columns:
    """Columns of messages that are enqueued together, besides origins and contents."""

    priority: int = DEFAULT_PRIORITY
    """Of all of them, unless `priorities` says otherwise."""
    priorities: bytes = b""
    """One for each, or empty."""
    expires_at_ms: int = 0
    """In queue time, of all of them, unless `expiries` says otherwise; 0: never."""
    expiries: array[int] = field(default_factory=lambda: array("Q"))
    """One for each, or empty."""
    counts: tuple[EqualCountsRun, ...] = ()
    """By place, from 0, rising: of those that have come from another queue with counts."""


PLAIN = Columns()
"""Of most messages.  Nobody changes it."""


@dataclass(slots=True)
class Enqueued:
    """New messages, at the end of the queue: the first fact of its entry, and one an entry."""

    first: int
    """Sequence number of the first."""
    count: int
    content_bytes: int
    columns: Columns
    pieces: list[bytes | memoryview]
    """All of it, to be joined.  Nothing is copied before an entry is made of it."""


class Stored(NamedTuple):
    """The messages of an entry, read; one number and one origin a content."""

    sequences: Sequence[int]
    origins: list[Origin]
    contents: list[bytes]


def columns_of(
    priorities: Sequence[int] = (),
    expiries_ms: Sequence[int] = (),
    counts: Sequence[EqualCountsRun] = (),
) -> Columns:
    """Columns in their shortest form.  One value for each message; none at all if not given."""
    columns = Columns(counts=tuple(counts))
    if priorities:
        columns.priority = priorities[0]
        if priorities.count(priorities[0]) < len(priorities):  # mutant: IM46
            columns.priority, columns.priorities = DEFAULT_PRIORITY, bytes(priorities)
    if expiries_ms:
        columns.expires_at_ms = expiries_ms[0]
        if expiries_ms.count(expiries_ms[0]) < len(expiries_ms):  # mutant: IM47
            columns.expires_at_ms, columns.expiries = 0, array("Q", expiries_ms)
    return columns


def times_of(expiries: Expiries | None) -> Sequence[int]:
    """When messages expire, as `columns_of` is told; they are not changed any more then."""
    if expiries is None:
        return ()
    if expiries.count(NEVER_MS):
        return [0 if time == NEVER_MS else time for time in expiries]
    return expiries


def enqueued(
    first: int, origins: Sequence[Origin], contents: Sequence[bytes], columns: Columns = PLAIN
) -> Enqueued:
    """What a leader makes of one message or more, once, for all members.  One origin a content."""
    front, content_bytes = _packed(first, origins, contents, _pack_columns(columns))
    return Enqueued(first, len(contents), content_bytes, columns, [*front, *contents])


def _packed(
    first: int, origins: Sequence[Origin], contents: Sequence[bytes], columns: bytes
) -> tuple[list[bytes], int]:
    """Everything in front of the contents, and how long these are."""
    count = len(contents)
    origin_pieces = pack_origins(origins)
    names = b"".join(origin_pieces)
    ends = list(accumulate(map(len, contents)))
    checks = map(crc32, contents, _seeds(origins))
    pieces = [
        HEAD.pack(first, count, len(columns), len(origin_pieces), len(names)),
        columns,
        names,
        pack(f">{2 * count}I", *ends, *checks),
    ]
    return pieces, ends[-1]


def _seeds(origins: Sequence[Origin]) -> repeat[int] | list[int]:
    """Where the checksum of each content begins."""
    first = origins[0]
    if origins.count(first) == len(origins):
        return repeat(_seed(first))
    known: dict[Origin, int] = {}
    for origin in origins:
        if origin not in known:
            known[origin] = _seed(origin)
    return [known[origin] for origin in origins]


def _seed(origin: Origin) -> int:
    names = f"{origin.exchange}\0{origin.routing_key}\0{origin.past:d}"
    return crc32(names.encode(errors="surrogateescape"))


def look_at(data: bytes, at: int) -> Enqueued:
    """What of the messages at `at`, which end where `data` does, all members must know.

    It costs the same however many they are.  Raises `InvalidEntry`.
    """
    try:
        first, count, columns_bytes, _runs, origins_bytes = HEAD.unpack_from(data, at)
        columns_at = at + HEAD.size
        ends_at = columns_at + columns_bytes + origins_bytes
        content_bytes = NUMBER.unpack_from(data, ends_at + NUMBER.size * (count - 1))[0]
        columns = _unpack_columns(data, columns_at, columns_at + columns_bytes, count)
    except (StructError, ValueError, LookupError) as error:
        raise InvalidEntry(f"the messages of an entry cannot be found: {error!r}") from error
    if not count or ends_at + 2 * NUMBER.size * count + content_bytes != len(data):
        raise InvalidEntry(f"{len(data) - at} bytes are not {count} messages of {content_bytes}")
    return Enqueued(first, count, content_bytes, columns, [memoryview(data)[at:]])


def read(data: bytes, at: int, sequences: Sequence[int] = ()) -> Stored:
    """Everything of the messages at `at`; whose, if not consecutive.  Raises `InvalidEntry`."""
    try:
        first, count, columns_bytes, runs, origins_bytes = HEAD.unpack_from(data, at)
        at += HEAD.size + columns_bytes
        if count * NUMBER.size > len(data):
            raise ValueError(f"{count} messages in {len(data)} bytes")
        origins, stop = unpack_origins(data, at, runs, count)
        numbers = unpack_from(f">{2 * count}I", data, stop)
    except (StructError, ValueError) as error:
        raise InvalidEntry(f"the messages of an entry cannot be read: {error}") from error
    if stop != at + origins_bytes:
        raise InvalidEntry(f"origins of {stop - at} bytes should have {origins_bytes}")
    begin = stop + 2 * NUMBER.size * count
    ends, checks = numbers[:count], numbers[count:]
    contents = [data[begin + low : begin + high] for low, high in pairwise((0, *ends))]
    if not contents or begin + ends[-1] != len(data):
        raise InvalidEntry(f"{len(data) - begin} bytes of contents should be another number")
    if tuple(map(crc32, contents, _seeds(origins))) != checks:
        raise InvalidEntry("the content of a message is not what it was")
    return Stored(sequences or range(first, first + count), origins, contents)


def pick(data: bytes, at: int, wanted: Sequence[int], sequences: Sequence[int] = ()) -> Stored:
    """As `read`, of some of the messages, by their numbers: the others are not looked at, and cost
    nothing.  Raises `InvalidEntry`."""
    try:
        first, count, columns_bytes, runs, origins_bytes = HEAD.unpack_from(data, at)
        at += HEAD.size + columns_bytes
        numbers_at = at + origins_bytes
        begin = numbers_at + 2 * NUMBER.size * count
        origins, stop = unpack_origins(data, at, runs, count)
        if stop != numbers_at or begin + _number(data, numbers_at, count - 1) != len(data):
            raise ValueError("parts that do not fit each other")
        places = _places(sequences or range(first, first + count), wanted)
        number = _numbers(data, numbers_at, count, len(places))
        lows = [number(place - 1) if place else 0 for place in places]
        contents = [
            data[begin + low : begin + number(place)]
            for low, place in zip(lows, places, strict=True)
        ]
        checks = [number(count + place) for place in places]
        origins = [origins[place] for place in places]
        if list(map(crc32, contents, _seeds(origins))) != checks:
            raise ValueError("the content of a message is not what it was")
    except (StructError, ValueError, LookupError) as error:
        raise InvalidEntry(f"messages of an entry cannot be read: {error!r}") from error
    return Stored(wanted, origins, contents)


def _places(sequences: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Raises `ValueError` for what is not there."""
    if isinstance(sequences, range):
        return list(map(sequences.index, wanted))
    places = [bisect_left(sequences, number) for number in wanted]
    if [sequences[place] for place in places] != [*wanted]:
        raise ValueError(f"not all of {wanted} are in it")
    return places


def _numbers(data: bytes, at: int, count: int, wanted: int) -> Callable[[int], int]:
    """What stands at each place behind `at`, where each content ends and then its checksum: read
    together unless few are wanted."""
    if 64 * wanted < count:
        return partial(_number, data, at)
    numbers = array("I", data[at : at + 2 * NUMBER.size * count])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.__getitem__


def _number(data: bytes, at: int, place: int) -> int:
    return int(NUMBER.unpack_from(data, at + NUMBER.size * place)[0])


def packed_again(stored: Stored, keep: Sequence[bool]) -> list[bytes]:
    """Those messages that are kept, to be joined, without their columns."""
    origins = list(compress(stored.origins, keep))
    contents = list(compress(stored.contents, keep))
    pieces, _content_bytes = _packed(stored.sequences[0], origins, contents, b"")
    return [*pieces, *contents]


def _pack_columns(columns: Columns) -> bytes:
    if columns is PLAIN:
        return b""
    pieces: list[bytes] = []
    if columns.priorities:
        pieces += (COLUMN.pack(PRIORITIES, EACH), columns.priorities)
    elif columns.priority != DEFAULT_PRIORITY:
        pieces += (COLUMN.pack(PRIORITIES, ALL), bytes((columns.priority,)))
    if columns.expiries:
        pieces += (
            COLUMN.pack(EXPIRIES, EACH),
            pack(f">{len(columns.expiries)}Q", *columns.expiries),
        )
    elif columns.expires_at_ms:
        pieces += (COLUMN.pack(EXPIRIES, ALL), TIME.pack(columns.expires_at_ms))
    if columns.counts:
        pieces += (COLUMN.pack(COUNTS, RUNS), NUMBER.pack(len(columns.counts)))
        pieces += (COUNTED.pack(first, stop, *of) for first, stop, of in columns.counts)
    return b"".join(pieces)


def _unpack_columns(data: bytes, at: int, stop: int, count: int) -> Columns:
    """Raises `ValueError` or `struct.error`."""
    if at == stop:
        return PLAIN
    columns = Columns()
    while at < stop:
        kind, form = COLUMN.unpack_from(data, at)
        at = _READERS[kind, form](columns, data, at + COLUMN.size, count)
    if at != stop:
        raise ValueError("columns end within one")
    return columns


def _read_priority(columns: Columns, data: bytes, at: int, _count: int) -> int:
    columns.priority = data[at]
    return at + 1


def _read_priorities(columns: Columns, data: bytes, at: int, count: int) -> int:
    columns.priorities = data[at : at + count]
    return at + count


def _read_expiry(columns: Columns, data: bytes, at: int, _count: int) -> int:
    columns.expires_at_ms = TIME.unpack_from(data, at)[0]
    return at + TIME.size


def _read_expiries(columns: Columns, data: bytes, at: int, count: int) -> int:
    columns.expiries = array("Q", unpack_from(f">{count}Q", data, at))
    return at + TIME.size * count


def _read_counts(columns: Columns, data: bytes, at: int, count: int) -> int:
    begin = at + NUMBER.size
    rows_count: int = NUMBER.unpack_from(data, at)[0]
    stop = begin + rows_count * COUNTED.size
    if stop > len(data):
        raise ValueError("counts end beyond the entry")
    rows = COUNTED.iter_unpack(memoryview(data)[begin:stop])
    columns.counts = tuple(EqualCountsRun(first, stop, Counts(*of)) for first, stop, *of in rows)
    bounds = [0, *(bound for run in columns.counts for bound in run[:2]), count]
    if any(low > high for low, high in pairwise(bounds)):
        raise ValueError("counts of messages that are not there")
    return stop


_READERS = {
    (PRIORITIES, ALL): _read_priority,
    (PRIORITIES, EACH): _read_priorities,
    (EXPIRIES, ALL): _read_expiry,
    (EXPIRIES, EACH): _read_expiries,
    (COUNTS, RUNS): _read_counts,
}
