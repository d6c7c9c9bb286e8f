"""Codec of the entries of a replicated queue's log: the facts of one turn of its leader, as bytes.

    facts      kind:1  version:1  stamp:8  revision:8  facts_bytes:4
               [[number of its kind, field, field, ...], ...]    msgpack; runs: first, step, count
               messages, if there are any

    bodies     kind:1  version:1  count:4  (sequence number:8) x count
               messages

    messages   first:8  count:4  columns_bytes:4  origin_runs:4  origins_bytes:4
               columns    what is not as for most messages
               origins    in runs, as `pack_origins` has them
               ends       for each message:4    where its content ends, counted from the first one
               checks     for each message:4    CRC-32 of its content, begun with that of its origin
               contents   one after the other

    column     kind:1  form:1  values             of all alike, or of each; `COUNTS`: in runs

The first kind is made once, by the leader, and is the same on each wire and each disk.  The second
is what a member makes of one that it has applied long ago, when most of its messages are dead.  A
member reads nothing of messages before they are wanted.  Each has a checksum of its own, beside
that of the whole entry, which is the store's: so what is dead of an entry can be left out later,
and what is left is still known to be what it was.

Decoding believes nothing: bytes that are not exactly an entry raise `InvalidEntry`.  A change
of the form, or a new kind of fact, raises the version.  It is decided on only where
`EntryVersions.version` has come so far: when every member has announced it.  What was decided
so is written so.

The settings of a queue that a fact has are a msgpack map of those that are not the default, named
as in `QueueSettings`.  One that this version does not know is left out, since the version that
knows it wrote it, and so is one whose word it does not know; nothing at all is what the arguments
say alone.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
from functools import partial
from itertools import accumulate, compress, pairwise, repeat
from operator import attrgetter
from struct import Struct, pack, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, NamedTuple, cast, get_args, get_type_hints
from zlib import crc32

import msgpack

from fluffle.broker.base.message import Origin, pack_origins, unpack_origins
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery_counts import Counts, EqualCountsRun
from fluffle.broker.queues.expiry_times import NEVER_MS, Expiries
from fluffle.broker.queues.quorum.facts import (
    KINDS,
    ArrivalsKnown,
    Arrived,
    ConsumerAttached,
    Fact,
    InvalidEntry,
    Remembered,
    RemovalReason,
    RequeueReason,
    SourceGone,
)
from fluffle.broker.queues.settings import DEFAULTS, QueueSettings, settings_of

FIRST_VERSION = 1

DATED_HOLDS = 2
"""The same form: from this version on what is handed out is known to be in hands since the stamp of
its entry, and snapshots say so."""

ARRIVALS = 3
"""From this version on it is said which dead letters of other queues have arrived."""

REMEMBERS = 4
"""From this version on it is said which messages are dropped should they come again."""

CARRIES = 5
"""From this version on messages that have died in another queue go on with their counts."""

VERSION = CARRIES
"""The newest that this fluffle reads and writes."""

SINCE: Mapping[type[Fact], int] = {
    Arrived: ARRIVALS,
    ArrivalsKnown: ARRIVALS,
    SourceGone: ARRIVALS,
    Remembered: REMEMBERS,
}
"""The version of kinds of facts that were not there from the first one on."""

FACTS, BODIES = 1, 2

ENTRY_HEAD = Struct(">BBQQI")

BODIES_HEAD = Struct(">BBI")

SEQUENCE_BYTES = 8

NUMBER_MAX = 2**63 - 1

NUMBER_MIN: Mapping[type[Fact], int] = {ConsumerAttached: -(2**63)}
"""Nothing is below zero but the priorities of consumers."""

MAY_NAME_NONE = frozenset[type[Fact]]({ArrivalsKnown})
"""Kinds of facts whose runs may be none at all."""

MESSAGES_HEAD = Struct(">QIIII")

COLUMN = Struct(">BB")

NUMBER = Struct(">I")

TIME = Struct(">Q")

COUNTED = Struct(">IIII")

PRIORITIES, EXPIRIES, COUNTS = 1, 2, 3

ALL, EACH, RUNS = 0, 1, 2

DEFAULT_PRIORITY = 4
"""Priority of messages that name none, as in RabbitMQ's quorum queues."""

TEXT_ERRORS = "surrogateescape"
"""Names may hold octets that are not UTF-8."""


@dataclass(slots=True)
class Columns:
    """Columns of messages that are enqueued together, besides origins and contents."""

    priority: int = DEFAULT_PRIORITY
    """Priority of all messages, unless `priorities` is given."""
    priorities: bytes = b""
    """Priority of each message, or empty."""
    expires_at_ms: int = 0
    """In queue time, of all of them, unless `expiries` says otherwise; 0: never."""
    expiries: array[int] = field(default_factory=lambda: array("Q"))
    """Expiry of each message, or empty."""
    counts: tuple[EqualCountsRun, ...] = ()
    """Runs of equal delivery counts, by place from 0, rising: of messages that came from another
    queue with counts."""


PLAIN = Columns()
"""Columns of most messages; a shared object that is never changed."""


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


class EntryMessages(NamedTuple):
    """The messages of an entry, read; one number and one origin a content."""

    sequences: Sequence[int]
    origins: list[Origin]
    contents: list[bytes]


@dataclass(slots=True)
class FactBatch:
    """All that one entry says, in order; new messages come first."""

    stamp_ms: int
    """Queue time: never less than in the entry before."""
    revision: int
    """Revision of the specification that the leader decided by."""
    facts: list[Fact]
    enqueued: Enqueued | None = None
    version: int = FIRST_VERSION
    """In which it was written, where it was read."""


def encode(batch: FactBatch, version: int = FIRST_VERSION) -> bytes:
    """Makes an entry of this version, or of the one that what it says needs.

    That one was read by every member when it was decided.  If one that does not read it was added
    since, it must not take the entry for one of its own; nor could it take what is in the log
    already.  Nothing is left out: a message would go on without what was decided of it.
    """
    if batch.enqueued is not None and batch.enqueued.columns.counts:
        version = max(version, CARRIES)
    for fact in batch.facts:
        version = max(version, SINCE.get(type(fact), FIRST_VERSION))
    rows = list(map(row_of, batch.facts))
    facts = msgpack.packb(rows, unicode_errors="surrogateescape")
    head = ENTRY_HEAD.pack(FACTS, version, batch.stamp_ms, batch.revision, len(facts))
    if batch.enqueued is None:
        return head + cast(bytes, facts)
    return b"".join((head, facts, *batch.enqueued.pieces))


def decode(entry: bytes, reads: int = VERSION) -> FactBatch:
    """Decode the facts of an entry, without looking at its messages.  Raises `InvalidEntry`.

    `reads`: the newest version that may be taken for known here.
    """
    version = version_of(entry)
    check_version("an entry", version, reads)
    stamp_ms, revision, facts_at, stop = _frame(entry)
    try:
        rows = msgpack.unpackb(entry[facts_at:stop], unicode_errors="surrogateescape")
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise InvalidEntry(f"facts that are not msgpack: {error}") from error
    if type(rows) is not list:
        raise InvalidEntry("facts that are not a list")
    facts = list(map(fact_of, rows))
    new = look_at_messages(entry, stop) if stop < len(entry) else None
    return FactBatch(stamp_ms, revision, facts, new, version)


def version_of(entry: bytes) -> int:
    """In which an entry is written, if it is one."""
    return entry[1] if len(entry) > 1 else FIRST_VERSION


def check_version(what: str, version: int, reads: int) -> None:
    """Raises `InvalidEntry` for a version that is not known here, or is none."""
    if version > reads:
        raise InvalidEntry(
            f"{what} of version {version}; this fluffle reads up to {reads}: run the one that the "
            "other members run"
        )
    if version < FIRST_VERSION:
        raise InvalidEntry(f"{what} of version {version}, which no node writes")


def _frame(entry: bytes) -> tuple[int, int, int, int]:
    """Stamp, revision, and from where to where the facts are."""
    try:
        kind, _version, stamp_ms, revision, facts_bytes = ENTRY_HEAD.unpack_from(entry)
    except StructError as error:
        raise InvalidEntry(f"an entry of {len(entry)} bytes") from error
    if kind != FACTS:
        raise InvalidEntry(f"an entry of kind {kind}")
    stop = ENTRY_HEAD.size + facts_bytes
    if stop > len(entry):
        raise InvalidEntry(f"{facts_bytes} bytes of facts in an entry of {len(entry)}")
    return stamp_ms, revision, ENTRY_HEAD.size, stop


class _Layout:
    """Layout of one kind of fact: how its fields are written and read."""

    __slots__ = (
        "enums",
        "get",
        "holders_at",
        "kind",
        "lowest",
        "number",
        "numbers_at",
        "runs_at",
        "types",
    )

    def __init__(self, number: int, kind: type[Fact]) -> None:
        hints = list(get_type_hints(kind).values())
        self.number = number
        self.kind = kind
        self.get = attrgetter(*(field.name for field in fields(kind)))
        self.types = [_type_on_wire(hint) for hint in hints]
        self.numbers_at = [at for at, kind in enumerate(self.types) if kind is int]
        self.runs_at = hints.index(list[range]) if list[range] in hints else None
        self.holders_at = hints.index(list[int]) if list[int] in hints else None
        self.enums = [
            (at, hint) for at, hint in enumerate(hints) if hint in (RemovalReason, RequeueReason)
        ]
        self.lowest = NUMBER_MIN.get(kind, 0)

    def row(self, fact: Fact) -> list[Any]:
        """A number that `fact` refuses must not be written: no member could go on behind it."""
        values = self.get(fact)
        if len(self.types) == 1:
            values = (values,)
        for at in self.numbers_at:
            assert self.lowest <= values[at] <= NUMBER_MAX, f"no member could read {fact}"
        row = [self.number, *values]
        if self.runs_at is not None:
            row[self.runs_at + 1] = _pack_runs(row[self.runs_at + 1])
        return row

    def fact(self, values: list[Any]) -> Fact:
        """Raises `InvalidEntry`."""
        if list(map(type, values)) != self.types:
            raise InvalidEntry(f"the fields of a {self.kind.__name__} are others")
        for at in self.numbers_at:
            if not self.lowest <= values[at] <= NUMBER_MAX:
                raise InvalidEntry(f"a {self.kind.__name__} with a number that none is")
        for at, enumeration in self.enums:
            if values[at] >= len(enumeration):
                raise InvalidEntry(f"a {self.kind.__name__} of an unknown sort: {values[at]}")
            values[at] = enumeration(values[at])
        if self.runs_at is not None:
            runs = _unpack_runs(values[self.runs_at])
            if not runs and self.kind not in MAY_NAME_NONE:
                raise InvalidEntry("runs that are not three numbers each")
            values[self.runs_at] = runs
        if self.holders_at is not None:
            _check_holders(values[self.holders_at])
        return self.kind(*values)


def _type_on_wire(hint: Any) -> type:
    if hint in (list[range], list[int]):
        return list
    return int if issubclass(hint, IntEnum) else cast(type, hint)


_LAYOUTS = {kind: _Layout(number, kind) for number, kind in KINDS.items()}

_BY_NUMBER = {layout.number: layout for layout in _LAYOUTS.values()}


def row_of(fact: Fact) -> list[Any]:
    """A fact as a list for msgpack."""
    return _LAYOUTS[type(fact)].row(fact)


def fact_of(row: object) -> Fact:
    """The fact that `row_of` made a list of.  Raises `InvalidEntry`."""
    if type(row) is not list or not row or type(row[0]) is not int:
        raise InvalidEntry("a fact that is not a list with a number")
    layout = _BY_NUMBER.get(row[0])
    if layout is None:
        raise InvalidEntry(f"no fact has the number {row[0]}")
    return layout.fact(row[1:])


def _pack_runs(runs: list[range]) -> list[int]:
    return [number for run in runs for number in (run.start, run.step, len(run))]


def _unpack_runs(numbers: list[Any]) -> list[range]:
    if len(numbers) % 3 or set(map(type, numbers)) - {int}:
        raise InvalidEntry("runs that are not three numbers each")
    runs = []
    three_at_a_time = [iter(numbers)] * 3
    for first, step, count in zip(*three_at_a_time, strict=True):
        if first < 1 or step < 1 or count < 1 or first + step * count > NUMBER_MAX:
            raise InvalidEntry(f"a run of {count} messages from {first} on by steps of {step}")
        runs.append(range(first, first + step * count, step))
    return runs


def _check_holders(holders: list[Any]) -> None:
    if set(map(type, holders)) != {int} or min(holders) < 1:
        raise InvalidEntry("holders that are not keys")


def read_messages(entry: bytes) -> EntryMessages:
    """The messages of an entry, or what is left of it.  Raises `InvalidEntry`.

    That its version is known was seen when it was applied, or with the snapshot that covers it.
    """
    at, sequences = _messages_in(entry)
    stored = unpack_messages(entry, at, sequences)
    if sequences and len(stored.contents) != len(sequences):
        raise InvalidEntry(f"{len(stored.contents)} messages of {len(sequences)}")
    return stored


def pick_messages(entry: bytes, wanted: Sequence[int]) -> EntryMessages:
    """Read the messages with numbers `wanted` of an entry; the others cost little.  Raises
    `InvalidEntry`."""
    at, sequences = _messages_in(entry)
    return unpack_some(entry, at, wanted, sequences)


def slim(entry: bytes, live: Iterable[range]) -> bytes:
    """Return the entry without the messages not in `live`; some must be.  Raises `InvalidEntry`.

    What it makes holds messages and no facts: good enough for an entry that is not applied again.
    """
    stored = read_messages(entry)
    wanted = {sequence for run in live for sequence in run}  # mutant: R19
    keep = [sequence in wanted for sequence in stored.sequences]  # mutant: IM44
    kept = [sequence for sequence in stored.sequences if sequence in wanted]  # mutant: IM45
    if not kept:
        raise InvalidEntry("no live message is in an entry that should have some")
    head = BODIES_HEAD.pack(BODIES, version_of(entry), len(kept)) + pack(f">{len(kept)}Q", *kept)
    return b"".join((head, *pack_kept(stored, keep)))


def _messages_in(entry: bytes) -> tuple[int, Sequence[int]]:
    """Where the messages of an entry begin, and which these are, if they are not consecutive.
    Raises `InvalidEntry`."""
    if entry[:1] != bytes((BODIES,)):
        return _frame(entry)[-1], ()
    try:
        _kind, _version, count = BODIES_HEAD.unpack_from(entry)
        sequences = unpack_from(f">{count}Q", entry, BODIES_HEAD.size)
    except StructError as error:
        raise InvalidEntry(f"what is left of an entry ends too soon: {error}") from error
    return BODIES_HEAD.size + SEQUENCE_BYTES * count, sequences


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
    """When messages expire, as `columns_of` takes it; they are not changed any more then."""
    if expiries is None:
        return ()
    if expiries.count(NEVER_MS):
        return [0 if time == NEVER_MS else time for time in expiries]
    return expiries


def pack_enqueued(
    first: int, origins: Sequence[Origin], contents: Sequence[bytes], columns: Columns = PLAIN
) -> Enqueued:
    """Pack messages once, as the leader sends them to all members.  One origin a content."""
    front, content_bytes = _packed(first, origins, contents, _pack_columns(columns))
    return Enqueued(first, len(contents), content_bytes, columns, [*front, *contents])


def _packed(
    first: int, origins: Sequence[Origin], contents: Sequence[bytes], columns: bytes
) -> tuple[list[bytes], int]:
    """Bytes in front of the contents, and the contents' length."""
    count = len(contents)
    origin_pieces = pack_origins(origins)
    names = b"".join(origin_pieces)
    ends = list(accumulate(map(len, contents)))
    checks = map(crc32, contents, _seeds(origins))
    pieces = [
        MESSAGES_HEAD.pack(first, count, len(columns), len(origin_pieces), len(names)),
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


def look_at_messages(data: bytes, at: int) -> Enqueued:
    """Read the head of the messages at `at`, which end where `data` does: the part that all members
    need.

    It costs the same however many they are.  Raises `InvalidEntry`.
    """
    try:
        first, count, columns_bytes, _runs, origins_bytes = MESSAGES_HEAD.unpack_from(data, at)
        columns_at = at + MESSAGES_HEAD.size
        ends_at = columns_at + columns_bytes + origins_bytes
        content_bytes = NUMBER.unpack_from(data, ends_at + NUMBER.size * (count - 1))[0]
        columns = _unpack_columns(data, columns_at, columns_at + columns_bytes, count)
    except (StructError, ValueError, LookupError) as error:
        raise InvalidEntry(f"the messages of an entry cannot be found: {error!r}") from error
    if not count or ends_at + 2 * NUMBER.size * count + content_bytes != len(data):
        raise InvalidEntry(f"{len(data) - at} bytes are not {count} messages of {content_bytes}")
    return Enqueued(first, count, content_bytes, columns, [memoryview(data)[at:]])


def unpack_messages(data: bytes, at: int, sequences: Sequence[int] = ()) -> EntryMessages:
    """Unpack all messages at `at`, with their numbers if not consecutive.  Raises
    `InvalidEntry`."""
    try:
        first, count, columns_bytes, runs, origins_bytes = MESSAGES_HEAD.unpack_from(data, at)
        at += MESSAGES_HEAD.size + columns_bytes
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
    return EntryMessages(sequences or range(first, first + count), origins, contents)


def unpack_some(
    data: bytes, at: int, wanted: Sequence[int], sequences: Sequence[int] = ()
) -> EntryMessages:
    """Unpack the messages with numbers `wanted` alone; the others are not looked at.  Raises
    `InvalidEntry`."""
    try:
        first, count, columns_bytes, runs, origins_bytes = MESSAGES_HEAD.unpack_from(data, at)
        at += MESSAGES_HEAD.size + columns_bytes
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
    return EntryMessages(wanted, origins, contents)


def _places(sequences: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Raises `ValueError` for what is not there."""
    if isinstance(sequences, range):
        return list(map(sequences.index, wanted))
    places = [bisect_left(sequences, number) for number in wanted]
    if [sequences[place] for place in places] != [*wanted]:
        raise ValueError(f"not all of {wanted} are in it")
    return places


def _numbers(data: bytes, at: int, count: int, wanted: int) -> Callable[[int], int]:
    """Function that gives the numbers at each place behind `at`, where each content ends and then
    its checksum; all are decoded at once unless few are wanted."""
    if 64 * wanted < count:
        return partial(_number, data, at)
    numbers = array("I", data[at : at + 2 * NUMBER.size * count])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.__getitem__


def _number(data: bytes, at: int, place: int) -> int:
    return int(NUMBER.unpack_from(data, at + NUMBER.size * place)[0])


def pack_kept(stored: EntryMessages, keep: Sequence[bool]) -> list[bytes]:
    """Pack the messages that are kept, without their columns; the caller joins the pieces."""
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

SETTING_TYPES: Mapping[str, tuple[type, ...]] = {
    name: get_args(hint) or (hint,) for name, hint in get_type_hints(QueueSettings).items()
}
"""Types of the values of each setting."""


def encode_settings(settings: QueueSettings) -> bytes:
    said = {
        field.name: value
        for field in fields(QueueSettings)
        if (value := getattr(settings, field.name)) != getattr(DEFAULTS, field.name)
    }
    packed: bytes = msgpack.packb(said, default=str, unicode_errors=TEXT_ERRORS)
    return packed


def settings_on_record(encoded: bytes, spec: QueueSpec) -> QueueSettings:
    """Settings on record.  Raises `InvalidEntry` for malformed ones."""
    if not encoded:
        return settings_of(spec)
    try:
        said = msgpack.unpackb(encoded, unicode_errors=TEXT_ERRORS)
        known = {
            name: setting_of(name, each) for name, each in said.items() if is_known(name, each)
        }
        return QueueSettings(**known)
    except (ValueError, TypeError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise InvalidEntry(f"settings that are none: {error}") from error


def is_known(name: str, value: object) -> bool:
    """True unless it takes a later version to know the setting, or the word that it is set to."""
    (kind, *_) = SETTING_TYPES.get(name, (None,))
    if kind is None:
        return False
    return not (issubclass(kind, StrEnum) and isinstance(value, str)) or value in tuple(kind)


def setting_of(name: str, value: Any) -> Any:
    """ValueError for what the setting cannot be."""
    (kind, *_) = SETTING_TYPES[name]
    if issubclass(kind, StrEnum):
        return kind(value)
    if type(value) not in SETTING_TYPES[name]:
        raise ValueError(f"{name} is {value!r}")
    return value
