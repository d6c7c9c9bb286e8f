"""Snapshot of a queue's image: the state that its log has made, packed, and read again.

    snapshot   version:1  zlib of the canonical form; the newest version of the entries in it
    canonical  msgpack, a list: the head, and a list of rows for each table (`canonical_form`)

Equal states have equal canonical forms, whatever way they came about; snapshots need not be equal,
for there are several versions of zlib.  Columns of entries are big-endian integers: of those that
rise the differences, of the others only one if all are alike.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Callable, Iterable
from itertools import accumulate, chain
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, TypeVar, cast

import msgpack

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.deduplication_window import KEY, DeduplicationWindow, window_of
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.quorum.entries import (
    COLUMNS,
    LiveEntries,
    PerMessageValues,
    new_rows,
)
from fluffle.broker.queues.quorum.entry_codec import (
    ARRIVALS,
    DATED_HOLDS,
    REMEMBERS,
    TEXT_ERRORS,
    VERSION,
    check_version,
    fact_of,
    row_of,
)
from fluffle.broker.queues.quorum.facts import (
    ConsumerAttached,
    GetterAttached,
    InvalidEntry,
    RemovalReason,
    SessionId,
)
from fluffle.broker.queues.quorum.runs import MarkedRuns
from fluffle.broker.queues.quorum.state import (
    AttachedHolder,
    Delayed,
    Hold,
    QueueImage,
    QueueState,
    SessionRow,
    Source,
    UnrepublishedDead,
)
from fluffle.raft.ranges import NO_RANGES, Ranges

TABLES = 9
"""Number of tables of a snapshot of the first version."""

RISING = ("firsts", "indexes")

COMPRESSION_LEVEL = 1

ZLIB_HEAD = b"\x78\x01"
"""Head of a zlib stream with a window of 32 KiB, fast compression: RFC 1950."""

UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, zlib.error)
"""Exceptions that reading a malformed snapshot raises; those of msgpack are ValueErrors."""

Row = list[Any]

Mark = TypeVar("Mark", bound=tuple[Any, ...])


def restored_image(taken: bytes, reads: int = VERSION) -> QueueImage:
    """The image that a snapshot was taken of.  Raises `InvalidEntry`."""
    return QueueImage(restored_state(taken, reads), reads=reads, version=taken[0])


def take_snapshot(image: QueueImage) -> tuple[Ranges, bytes]:
    """Indexes of live entries, and the packed state: all that is needed of the log up to here."""
    # mutant: R8
    return image.state.entries.live_indexes(), packed_state(image.state, image.version)


def packed_state(state: QueueState, version: int) -> bytes:
    """A snapshot of what entries up to this version have made."""
    keys_bytes = 0
    if version >= REMEMBERS and state.window is not None:
        keys_bytes = len(state.window) * KEY.size
    return bytes((version,)) + _compressed(canonical_form(state, version), keys_bytes)


def _compressed(data: bytes, keys_bytes: int) -> bytes:
    """Compress `data`, but copy its last `keys_bytes` octets: digests do not compress, and trying
    took up to ten milliseconds for each 25,000."""
    if not keys_bytes:
        return zlib.compress(data, COMPRESSION_LEVEL)
    at = len(data) - keys_bytes
    front = zlib.compressobj(COMPRESSION_LEVEL, wbits=-zlib.MAX_WBITS)
    keys = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
    return b"".join((
        ZLIB_HEAD, front.compress(data[:at]), front.flush(zlib.Z_FULL_FLUSH),
        keys.compress(data[at:]), keys.flush(), zlib.adler32(data).to_bytes(4, "big"),
    ))  # fmt: skip


def restored_state(snapshot: bytes, reads: int) -> QueueState:
    """Unpack the state of a snapshot.  Raises `InvalidEntry`, also for an unknown version."""
    version = snapshot[0] if snapshot else 0
    check_version("a snapshot", version, reads)
    try:
        tables = msgpack.unpackb(zlib.decompress(snapshot[1:]), unicode_errors=TEXT_ERRORS)
        state = _load(tables, version)
    except UNREADABLE as error:
        raise InvalidEntry(f"a snapshot cannot be read: {error!r}") from error
    state.check()
    return state


def canonical_form(state: QueueState, version: int) -> bytes:
    """The canonical form."""
    tables = [
        _dump_head(state),
        [[member, version] for member, version in sorted(state.versions.items())],
        _dump_entries(state.entries),
        [[first, stop, *counts] for first, stop, counts in state.delivery_counts.runs],
        _dump_marked(state.requeued, lambda counts: [*counts]),
        _dump_marked(state.delayed, lambda delayed: [delayed.ready_at_ms, *delayed.counts]),
        _dump_marked(state.pending, lambda dead: [dead.reason, dead.time_ms, *dead.counts]),
        [_dump_holder(holder, version) for holder in state.holders.values()],
        [_dump_session(key, session) for key, session in state.sessions.items()],
    ]
    if version >= ARRIVALS:
        sources = sorted(state.sources.items())
        tables.append([[group, term, arrived.to_bytes()] for group, (term, arrived) in sources])
    if version >= REMEMBERS:
        tables.append([state.window.packed()] if state.window is not None else [])
    return cast(bytes, msgpack.packb(tables, unicode_errors=TEXT_ERRORS))


def _load(tables: object, version: int) -> QueueState:
    count = TABLES + (version >= ARRIVALS) + (version >= REMEMBERS)
    rows = _row(tables, *[list] * count)
    head, versions, entries, delivery_counts, requeued, delayed, pending, holders, sessions = rows[
        :TABLES
    ]
    state = _load_head(head)
    for row in versions:
        member, read = _row(row, str, int)
        state.versions[member] = read
    state.entries = _load_entries(entries)
    for row in delivery_counts:
        first, stop, *counts = _row(row, *[int] * 4)
        before = state.delivery_counts.stop
        if not max(before, 1) <= first < stop <= state.next_sequence:
            raise ValueError(f"counts from {first} to {stop} behind {before}")
        state.delivery_counts.put(first, stop, Counts(*counts))  # mutant: IM42
    state.requeued = _load_marked(requeued, 2, Counts._make)
    state.delayed = _load_marked(delayed, 3, lambda mark: Delayed(mark[0], Counts(*mark[1:])))
    state.pending = _load_marked(  # mutant: IM40
        pending,
        4,
        lambda mark: UnrepublishedDead(RemovalReason(mark[0]), mark[1], Counts(*mark[2:])),
    )
    for row in sessions:
        _load_session(state, row)
    for row in holders:
        _load_holder(state, row, version)
    for row in chain.from_iterable(rows[TABLES : TABLES + 1]):
        key, term, arrived = _row(row, int, int, bytes)
        if state.sources is EMPTY_DICT:
            state.sources = {}
        state.sources[key] = Source(term, Ranges.from_bytes(arrived))
    for row in rows[TABLES + 1 :]:
        state.window = _load_window(row)
    return state


def _load_window(row: Row) -> DeduplicationWindow | None:
    if not row:
        return None
    (packed,) = _row(row, bytes)
    try:
        return window_of(packed)
    except StructError as error:
        raise ValueError(f"keys that are none: {error}") from error


def _row(values: object, *types: type) -> Row:
    """A list of values of these types, none of its integers below zero.  Raises `ValueError`."""
    if type(values) is not list or tuple(map(type, values)) != types:
        raise ValueError(f"not a row of {[kind.__name__ for kind in types]}")
    if any(type(value) is int and value < 0 for value in values):
        raise ValueError("a number below zero")
    return values


def _dump_head(state: QueueState) -> Row:
    return [
        state.index,
        state.queue_time_ms,
        state.revision,
        state.next_sequence,
        state.next_key,
        state.sac_active,
        state.spec,
        state.gone,
    ]


def _load_head(row: Row) -> QueueState:
    *numbers, spec, gone = _row(row, *[int] * 6, bytes, list)
    index, queue_time_ms, revision, next_sequence, next_key, sac_active = numbers
    return QueueState(
        index=index,
        queue_time_ms=queue_time_ms,
        revision=revision,
        next_sequence=next_sequence,
        next_key=next_key,
        sac_active=sac_active,  # mutant: IM41
        spec=spec,
        gone=_row(gone, *[int] * len(RemovalReason)),
    )


def _dump_entries(entries: LiveEntries) -> Row:
    rows = entries.live_rows()
    columns = [
        _differences(_packed(column)) if name in RISING else _once(_packed(column), len(column))
        for name, column in rows.items()
    ]
    bits = [
        [first, ready.to_bytes((ready.bit_length() + 7) // 8, "big")]
        for first, ready in sorted(entries.ready_bits.items())
    ]
    each = [
        [first, own.priorities, _packed(own.expiries)]
        for first, own in sorted(entries.each.items())
    ]
    return [columns, bits, each]


def _load_entries(row: Row) -> LiveEntries:
    columns, bits, each = _row(row, list, list, list)
    entries, rows = LiveEntries(), new_rows()
    for (name, code), data in zip(
        COLUMNS.items(), _row(columns, *[bytes] * len(COLUMNS)), strict=True
    ):
        column = _unpacked(code, data)
        if name not in RISING and len(column) == 1:
            column *= len(rows[RISING[0]])
        rows[name] = column
    for name in RISING:
        rows[name] = array(COLUMNS[name], accumulate(rows[name]))
    if any(rows.values()):
        entries.rows = rows
    for item in bits:
        first, ready = _row(item, int, bytes)
        if entries.ready_bits is EMPTY_DICT:
            entries.ready_bits = {}
        entries.ready_bits[first] = int.from_bytes(ready, "big")
    for item in each:
        first, priorities, expiries = _row(item, int, bytes, bytes)
        if entries.each is EMPTY_DICT:
            entries.each = {}
        entries.each[first] = PerMessageValues(priorities, _unpacked("Q", expiries))
    entries.restore()
    return entries


def _differences(numbers: bytes) -> bytes:
    """Differences of rising numbers, each from the one before, all as 8 octets.

    Nothing is borrowed between them, so it is one subtraction of two long ones.
    """
    size = len(numbers)
    before = int.from_bytes(numbers[:-8], "big")
    return (int.from_bytes(numbers, "big") - before).to_bytes(size, "big")


def _once(numbers: bytes, count: int) -> bytes:
    """Numbers, or the first of them if all are alike."""
    first = numbers[: len(numbers) // count] if count else b""
    return first if first * count == numbers else numbers


def _packed(column: array[int]) -> bytes:
    if sys.byteorder == "little":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _unpacked(code: str, data: bytes) -> array[int]:
    column = array(code, data)
    if sys.byteorder == "little":
        column.byteswap()
    return column


def _dump_marked(marked: MarkedRuns[Mark], values: Callable[[Mark], Iterable[int]]) -> list[Row]:
    return [[run.start, run.step, len(run), *values(mark)] for run, mark in marked]


def _load_marked(rows: list[object], width: int, mark: Callable[[Row], Mark]) -> MarkedRuns[Mark]:
    marked: MarkedRuns[Mark] = MarkedRuns()
    for row in rows:
        first, step, count, *values = _row(row, *[int] * (3 + width))
        if not count:
            raise ValueError("a run of no messages")
        marked.put(range(first, first + step * count, step), mark(values))
    return marked


def _dump_holder(holder: AttachedHolder, version: int) -> Row:
    """Since when messages are held is not said before the version in which that is known."""
    if version < DATED_HOLDS:
        held = _dump_marked(holder.held, lambda hold: [*hold.counts])
    else:
        held = _dump_marked(holder.held, lambda hold: [*hold.counts, hold.since_ms])
    return [row_of(holder.attached), holder.is_detached, held]


def _load_holder(state: QueueState, row: object, version: int) -> None:
    attached, is_detached, held = _row(row, list, bool, list)
    fact = fact_of(attached)
    if not isinstance(fact, ConsumerAttached | GetterAttached) or fact.key >= state.next_key:
        raise ValueError(f"{fact} is no holder of messages")
    state.session(fact.session)
    if version < DATED_HOLDS:
        holds = _load_marked(held, 2, lambda mark: Hold(Counts(*mark), 0))
    else:
        holds = _load_marked(held, 3, lambda mark: Hold(Counts(*mark[:2]), mark[2]))
    if state.holders is EMPTY_DICT:
        state.holders = {}
    state.holders[fact.key] = AttachedHolder(fact, is_detached, holds)  # mutant: IM39


def _dump_session(key: int, session: SessionRow) -> Row:
    # mutant: IM38
    answers = [number for answer in sorted(session.answers.items()) for number in answer]
    return [key, *session.id, session.next, session.rejected.to_bytes(), answers]  # mutant: M32


def _load_session(state: QueueState, row: object) -> None:
    key, node, *numbers, next_number, rejected, answers = _row(
        row, int, str, int, int, int, int, bytes, list
    )
    if key >= state.next_key:
        raise ValueError(f"session {key}, where {state.next_key} is the next key")
    _row(answers, *[int] * len(answers))
    if state.sessions is EMPTY_DICT:
        state.sessions = {}
    state.sessions[key] = SessionRow(
        SessionId(node, *numbers),
        next_number,
        Ranges.from_bytes(rejected) or NO_RANGES,
        dict(zip(answers[::2], answers[1::2], strict=True)),
    )
