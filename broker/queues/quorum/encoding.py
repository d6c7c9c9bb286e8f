"""An entry of a replicated queue's log: the facts of one turn of its leader, as bytes.

    facts     kind:1  version:1  stamp:8  revision:8  facts_bytes:4
              [[number of its kind, field, field, ...], ...]    msgpack; runs: first, step, count
              messages, if there are any: see `messages`

    bodies    kind:1  version:1  count:4  (sequence number:8) x count
              messages

The first is made once, by the leader, and is the same on each wire and each disk.  The second is
what a member makes of one that it has applied long ago, when most of its messages are dead.

Decoding believes nothing: bytes that are not exactly an entry raise `InvalidEntry`.  A change
of the form, or a new kind of fact, raises the version.  It is decided on only where
`EntryVersions.version` has come so far: when every member has announced it.  What was decided
so is written so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from struct import Struct, pack, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, cast, get_type_hints

import msgpack

from fluffle.broker.queues.quorum import messages
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.facts import (
    KINDS,
    ArrivalsKnown,
    Arrived,
    ConsumerAttached,
    Fact,
    Reason,
    Remembered,
    RequeueReason,
    SourceGone,
)
from fluffle.broker.queues.quorum.messages import Enqueued, Stored

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
HEAD = Struct(">BBQQI")
BODIES_HEAD = Struct(">BBI")
SEQUENCE_BYTES = 8

NUMBER_MAX = 2**63 - 1
NUMBER_MIN: Mapping[type[Fact], int] = {ConsumerAttached: -(2**63)}
"""Nothing is below zero but the priorities of consumers."""

MAY_NAME_NONE = frozenset[type[Fact]]({ArrivalsKnown})
"""Kinds of facts whose runs may be none at all."""


@dataclass(slots=True)
class FactBatch:
    """All that one entry says, in order; new messages come first."""

    stamp_ms: int
    """Queue time: never less than in the entry before."""
    revision: int
    """Of the specification that the leader decided by."""
    facts: list[Fact]
    enqueued: Enqueued | None = None
    version: int = FIRST_VERSION
    """In which it was written, where it was read."""


class _Layout:
    """RequeueReason the fields of one kind of fact are written and read."""

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
            (at, hint) for at, hint in enumerate(hints) if hint in (Reason, RequeueReason)
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
    head = HEAD.pack(FACTS, version, batch.stamp_ms, batch.revision, len(facts))
    if batch.enqueued is None:
        return head + cast(bytes, facts)
    return b"".join((head, facts, *batch.enqueued.pieces))


def decode(entry: bytes, reads: int = VERSION) -> FactBatch:
    """What an entry says; what its messages are is not looked at.  Raises `InvalidEntry`.

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
    new = messages.look_at(entry, stop) if stop < len(entry) else None
    return FactBatch(stamp_ms, revision, facts, new, version)


def version_of(entry: bytes) -> int:
    """In which an entry is written, if it is one."""
    return entry[1] if len(entry) > 1 else FIRST_VERSION


def read_messages(entry: bytes) -> Stored:
    """The messages of an entry, or what is left of it.  Raises `InvalidEntry`.

    That its version is known was seen when it was applied, or with the snapshot that covers it.
    """
    at, sequences = _messages_in(entry)
    stored = messages.read(entry, at, sequences)
    if sequences and len(stored.contents) != len(sequences):
        raise InvalidEntry(f"{len(stored.contents)} messages of {len(sequences)}")
    return stored


def pick_messages(entry: bytes, wanted: Sequence[int]) -> Stored:
    """As `read_messages`, of some that are in it: it costs little for the others.  Raises
    `InvalidEntry`."""
    at, sequences = _messages_in(entry)
    return messages.pick(entry, at, wanted, sequences)


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
    return b"".join((head, *messages.packed_again(stored, keep)))


def _frame(entry: bytes) -> tuple[int, int, int, int]:
    """Stamp, revision, and from where to where the facts are."""
    try:
        kind, _version, stamp_ms, revision, facts_bytes = HEAD.unpack_from(entry)
    except StructError as error:
        raise InvalidEntry(f"an entry of {len(entry)} bytes") from error
    if kind != FACTS:
        raise InvalidEntry(f"an entry of kind {kind}")
    stop = HEAD.size + facts_bytes
    if stop > len(entry):
        raise InvalidEntry(f"{facts_bytes} bytes of facts in an entry of {len(entry)}")
    return stamp_ms, revision, HEAD.size, stop


def check_version(what: str, version: int, reads: int) -> None:
    """Raises `InvalidEntry` for a version that is not known here, or is none."""
    if version > reads:
        raise InvalidEntry(
            f"{what} of version {version}; this fluffle reads up to {reads}: run the one that the "
            "other members run"
        )
    if version < FIRST_VERSION:
        raise InvalidEntry(f"{what} of version {version}, which nobody writes")


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
