"""Ready lists of a queue by priority, one for each that has come: the highest is served first.

    requeued (of quorum queues)  ->  31  ->  30  ->  ...  ->  0

Used like a `ReadyList`.  Which lists have something in them is a number with a bit for each, so
that nothing here costs more for there being many.

In a classic queue each list has numbers and a log of its own, and what comes back goes to its place
in the list that its number says.  In a quorum queue all have the same numbers and the same log,
and what comes back comes before all others.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, TypeAlias, TypeVar

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.byte_count import ByteSum, Sizes
from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.delivery_counts import DeliveryCountIndex
from fluffle.broker.queues.expiry_times import NEVER_MS, Deadlines, is_instant, spread_over
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    JournalByPriority,
    PageStore,
    RecoveredContent,
)
from fluffle.broker.queues.queue_view import ReadyMessages
from fluffle.broker.queues.ready_list import NO_MESSAGE, ReadyList, SequenceNumbers
from fluffle.broker.queues.requeue import RequeueByPosition, RequeuedBatch
from fluffle.broker.queues.segment import TakenMessages
from fluffle.protocol.properties import PriorityColumn, kinds_of, priorities_of

LEVEL_BITS = 54
"""Bits of a sequence number within one ready list of a classic queue; the bits above them hold the
level."""

CLASSIC_HIGHEST_MIN = 1
"""RabbitMQ 4.0.5 distinguishes two where x-max-priority is 0."""


class PriorityLevels(NamedTuple):
    """From 0 up to the highest."""

    highest: int
    """Highest priority; greater ones count as this."""
    missing: int
    """Priority of messages that name none."""

    def of(self, contents: list[bytes]) -> int | PriorityColumn:
        """Where each of some messages waits, or where all of them do."""
        named = priorities_of(contents)  # mutant: P1
        if named is None:
            return self.missing
        octets = named.octets
        if octets.count(octets[0]) == len(octets):
            return min(octets[0], self.highest)
        return PriorityColumn(octets.translate(_capped(self.highest)), named.content_bytes)


QUORUM_LEVELS = PriorityLevels(highest=31, missing=4)
"""RabbitMQ 4.3: rabbit_fifo.  4.0 has two, of which the higher begins at 5."""


@cache
def _capped(highest: int) -> bytes:
    """Table for `bytes.translate` that caps priorities at `highest`."""
    return bytes(min(priority, highest) for priority in range(256))


def levels_of(spec: QueueSpec) -> PriorityLevels | None:
    """None if all messages of such a queue are alike."""
    if spec.queue_type is QueueType.QUORUM:
        return QUORUM_LEVELS
    if spec.max_priority is None:
        return None
    return PriorityLevels(max(spec.max_priority, CLASSIC_HIGHEST_MIN), missing=0)


def first_of(level: int) -> int:
    """The lowest sequence number of a ready list of a classic queue."""
    return (level << LEVEL_BITS) + 1


def level_of(sequence: int) -> int:
    """In which ready list of a classic queue the message with this number is."""
    return sequence >> LEVEL_BITS


class PriorityByteCounts:
    """How many bytes wait in some ready lists: each of these adds to one sum."""

    __slots__ = ("_ready_lists", "sum")

    def __init__(self, ready_lists: Mapping[int, ReadyList]) -> None:
        self._ready_lists = ready_lists
        self.sum = ByteSum()

    def go_on(self) -> None:
        """Resume counting in every ready list."""
        scales = [
            ready_list.byte_count
            for ready_list in self._ready_lists.values()
            if ready_list.byte_count is not None
        ]
        for byte_count in scales:
            byte_count.go_on()
        self.sum.is_unsure = any(byte_count.is_unsure for byte_count in scales)


@dataclass(slots=True, eq=False)
class PriorityReadyList:
    """The ready lists of one queue."""

    _levels: PriorityLevels
    _journal: JournalByPriority | None = None
    _spill: PageStore | None = None
    _numbers: SequenceNumbers | None = field(default=None, init=False)
    """Counter of sequence numbers that all ready lists share, or None if each has its own."""
    _delivery_counts: DeliveryCountIndex | None = field(default=None, init=False)
    _sizes: Sizes | None = field(default=None, init=False)
    byte_count: PriorityByteCounts | None = None
    """Byte counts, or None where bytes are not counted."""
    _ready_lists: dict[int, ReadyList] = field(default_factory=dict, init=False)
    """Ready lists by level, each made when it is first used."""
    _front: ReadyList | None = field(default=None, init=False)
    """Ready list of requeued messages if they are served first: a level above all others."""
    _filled: int = field(default=0, init=False)
    """Bit `i` if there is anything at level `i`."""
    _due_ms: int = field(default=NEVER_MS, init=False)
    """Nothing in front of any ready list expires before this."""
    _in_turn: list[ReadyList] = field(default_factory=list, init=False)
    """Ready lists with messages of this turn that have no time to live."""
    count: int = 0
    is_timed: bool = False
    now_ms: int = 0

    @classmethod
    def around(
        cls, ready_list: ReadyList, levels: PriorityLevels, journal: JournalByPriority | None
    ) -> PriorityReadyList:
        """The first message of another priority comes to a quorum queue, in which there was one."""
        ready_lists = cls(levels, journal)
        part = journal.at(levels.missing) if journal is not None else None
        ready_lists._front = ready_lists._ready_lists[levels.highest + 1] = parted(ready_list, part)
        ready_lists._ready_lists[levels.missing] = ready_list
        ready_lists._numbers, ready_lists._delivery_counts, ready_lists.now_ms = (
            ready_list.numbers,
            ready_list.delivery_counts,
            ready_list.now_ms,
        )
        if ready_list.new_from != NO_MESSAGE:
            ready_lists._in_turn.append(ready_list)
        for level in ready_lists._ready_lists:
            ready_lists._changed(level)
        return ready_lists

    @property
    def damage(self) -> Damage | None:
        """Damage of the next message, or None if it can be read."""
        return self._top.damage if self._filled else None

    @property
    def _top(self) -> ReadyList:
        """The ready list that is served; there must be something in one."""
        return self._ready_lists[self._filled.bit_length() - 1]

    def _at(self, level: int) -> ReadyList:
        """A ready list, which may be new."""
        ready_list = self._ready_lists.get(level)
        if ready_list is None:
            journal = self._journal
            part = journal.at(level) if journal is not None else None
            numbers = self._numbers or SequenceNumbers(first_of(level))
            ready_list = ReadyList(
                part,
                self._spill,
                numbers=numbers,
                delivery_counts=self._delivery_counts,
                is_one_of_many=True,
            )
            ready_list.count_bytes_by(self._sizes, self._sum)
            self._ready_lists[level] = ready_list
        return ready_list

    def recover(self, recovery: RecoveredContent) -> None:
        """Begin with what the journal holds; there must be nothing yet."""
        assert self._journal is not None
        if self._front is not None:
            recovery.stored = []  # they are in the parts
            self._front.recover(recovery)
            self._changed(self._levels.highest + 1)
        for level, of_level in self._journal.recover_all().items():
            self._at(level).recover(of_level)
            self._changed(level)

    # What comes

    def put(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        is_recorded: bool,
        expires_at_ms: Deadlines,
        size_bytes: int | None = None,
    ) -> None:
        """Messages come in that all name a priority or do not."""
        levels, lots = self._levels.of(contents), list[Lot]()
        if isinstance(levels, int):
            lots.append((levels, origins, contents, content_bytes, size_bytes, expires_at_ms))
        else:
            lots = apart(levels, origins, contents, expires_at_ms)
        for level, of_each, own, own_bytes, own_size_bytes, own_expires_at_ms in lots:
            ready_list = self._ready_lists.get(level) or self._at(level)
            ready_list.put(
                of_each,
                own,
                own_bytes,
                is_recorded=is_recorded,
                expires_at_ms=own_expires_at_ms,
                size_bytes=own_size_bytes,
            )
            self.count += len(own)
            self._filled |= 1 << level
            if own_expires_at_ms:
                self._timed(ready_list, own_expires_at_ms)

    def _timed(self, ready_list: ReadyList, expires_at_ms: Deadlines) -> None:
        """Messages that expire have come into a ready list."""
        self.is_timed = True
        self._due_ms = min(self._due_ms, ready_list.due_ms)
        if is_instant(expires_at_ms):
            self._in_turn.append(ready_list)

    def give_back(self, batch: RequeuedBatch) -> None:
        """Messages that were taken together come back."""
        level = self._levels.highest + 1
        if self._front is None:
            level = level_of(batch.sequences[0])
        ready_list = self._at(level)
        ready_list.give_back(batch)
        self.count += len(batch.sequences)
        self._filled |= 1 << level
        if batch.expiries is not None:
            self.is_timed = True
            self._due_ms = min(self._due_ms, ready_list.due_ms)

    # What is next

    def available(self, bytes_max: int) -> int:
        """Number of messages available within `bytes_max` in the ready list served next."""
        ready_list = self._top
        ready_list.now_ms = self.now_ms
        return ready_list.available(bytes_max)

    def take(self, count: int) -> TakenMessages:
        """The next messages, all of one list; `available` must have said that there are some."""
        level = self._filled.bit_length() - 1  # mutant: P4
        return self._took(level, self._ready_lists[level].take(count))

    def _took(self, level: int, taken: TakenMessages) -> TakenMessages:
        ready_list = self._ready_lists[level]
        self.count -= taken.count
        if not ready_list.count:
            self._filled ^= 1 << level
        elif self.is_timed:
            self._due_ms = min(self._due_ms, ready_list.due_ms)
        return taken

    def expire(self, *, are_read: bool) -> TakenMessages | None:
        """Take off messages in front of a ready list that have expired; None if there are none."""
        if self._due_ms > self.now_ms:
            return None
        filled, due_ms = self._filled, NEVER_MS
        while filled:
            level = filled.bit_length() - 1
            filled ^= 1 << level
            ready_list = self._ready_lists[level]
            ready_list.now_ms = self.now_ms
            taken = ready_list.expire(are_read=are_read)
            if taken is not None:
                return self._took(level, taken)
            if ready_list.damage is None:
                due_ms = min(due_ms, ready_list.due_ms)
        self._due_ms = due_ms
        return None

    @property
    def due_ms(self) -> int:
        """When a message in front of a ready list expires, or some time before that."""
        return self._due_ms

    @property
    def new_from(self) -> int:
        """`NO_MESSAGE`, if no message has come in this turn that has no time to live."""
        return min((ready_list.new_from for ready_list in self._in_turn), default=NO_MESSAGE)

    @new_from.setter
    def new_from(self, sequence: int) -> None:
        """`NO_MESSAGE`: the turn has ended."""
        for ready_list in self._in_turn:
            ready_list.new_from = sequence
        self._in_turn.clear()

    def count_bytes_by(self, sizes: Sizes | None) -> None:
        """Count the bytes of every ready list by `sizes`; None: do not count."""
        self._sizes = sizes
        self.byte_count = PriorityByteCounts(self._ready_lists) if sizes is not None else None
        for ready_list in self._ready_lists.values():
            ready_list.count_bytes_by(sizes, self._sum)

    @property
    def _sum(self) -> ByteSum | None:
        return self.byte_count.sum if self.byte_count is not None else None

    def ahead(self, count: int) -> list[bytes]:
        """Contents of the next `count` messages of the ready list served next."""
        return self._top.ahead(count)

    # All of it

    def _changed(self, level: int) -> None:
        """A ready list has been filled beside this."""
        ready_list = self._ready_lists[level]
        self.count += ready_list.count
        self._filled |= (ready_list.count > 0) << level
        self.is_timed |= ready_list.is_timed
        if ready_list.is_timed:
            self._due_ms = min(self._due_ms, ready_list.due_ms)

    def clear(self) -> int:
        """Forget every message; how many there were."""
        dropped = sum(ready_list.clear() for ready_list in self._ready_lists.values())
        self.count = self._filled = 0
        self.is_timed, self._due_ms = False, NEVER_MS
        return dropped

    def drop_damaged(self) -> int:
        """Give up what is damaged in the ready list that is served."""
        level = self._filled.bit_length() - 1
        ready_list = self._ready_lists[level]
        dropped = ready_list.drop_damaged()
        self.count -= dropped
        self._due_ms = min(self._due_ms, ready_list.due_ms)
        if not ready_list.count:
            self._filled ^= 1 << level
        return dropped

    def shed(self) -> bool:
        """Memory is short: what is served last leaves it first.  As `ReadyList.shed`."""
        return all(self._ready_lists[level].shed() for level in sorted(self._ready_lists))

    @property
    def stocks(self) -> list[ReadyMessages]:
        """Ready messages of all ready lists, in the order in which they are served."""
        levels = sorted(self._ready_lists, reverse=True)
        return [
            stock._replace(priority=level)
            for level in levels
            for stock in self._ready_lists[level].stocks
        ]

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """First sequence number never delivered, for each ready list."""
        return [unseen for ready_list in self._ready_lists.values() for unseen in ready_list.unseen]


T = TypeVar("T")

Lot: TypeAlias = tuple[int, list[Origin], list[bytes], int, int | None, Deadlines]
"""Messages of one level: which that is, and as `ReadyList.put` is given them."""


def apart(
    found: PriorityColumn, origins: list[Origin], contents: list[bytes], expires_at_ms: Deadlines
) -> list[Lot]:
    """Messages by level, those of each in order."""
    levels, each_bytes = found
    kinds = kinds_of(levels)
    owns = dealt(levels, kinds, contents)
    are_one = origins.count(origins[0]) == len(origins)
    of_each = {} if are_one else dealt(levels, kinds, origins)
    times = {} if isinstance(expires_at_ms, int) else dealt(levels, kinds, expires_at_ms.expiries)
    lots = list[Lot]()
    for level, own in owns.items():
        own_origins = [origins[0]] * len(own) if are_one else of_each[level]
        own_expires_at_ms = spread_over(array("Q", times[level])) if times else expires_at_ms
        own_bytes = each_bytes * len(own) or sum(map(len, own))
        lots.append((level, own_origins, own, own_bytes, None, own_expires_at_ms))
    return lots


def dealt(levels: bytes, kinds: bytes, values: Sequence[T]) -> dict[int, list[T]]:
    """Group values by the level of their message; `kinds` are the levels that occur, each once."""
    by_level: dict[int, list[T]] = {level: [] for level in kinds}
    add = [by_level[kinds[0]].append] * 256
    for level, of_it in by_level.items():
        add[level] = of_it.append
    for level, value in zip(levels, values, strict=True):
        add[level](value)
    return by_level


AnyReadyList: TypeAlias = ReadyList | PriorityReadyList | DelayedReadyList


def spread(
    ready_list: AnyReadyList, levels: PriorityLevels, journal: Journal | None
) -> PriorityReadyList:
    """The ready lists of a quorum queue that had one."""
    assert isinstance(ready_list, ReadyList)
    return PriorityReadyList.around(
        ready_list, levels, journal.by_level if journal is not None else None
    )


def parted(ready_list: ReadyList, journal: Journal | None) -> ReadyList:
    """Make a ready list one of many, with a part of its journal; messages that come back go to the
    list that is returned, which is to be served first."""
    front = ReadyList(ready_list._journal, None, ready_list._requeued, numbers=ready_list.numbers)
    front.count = sum(len(run.sequences) - run.head for run in ready_list._requeued.batches)
    front.is_timed = ready_list.is_timed
    ready_list.count -= front.count
    ready_list._requeued, ready_list._journal, ready_list._is_one_of_many = (
        RequeueByPosition(),
        journal,
        True,
    )
    if ready_list._leaving is not None:
        ready_list._leaving.journal = journal
    return front
