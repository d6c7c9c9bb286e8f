"""Several lanes of a queue, one for each priority that has come: the highest is served first.

    returned (of quorum queues)  ->  31  ->  30  ->  ...  ->  0

Used like a `ReadyList`.  Which lists have something in them is a number with a bit for each, so
that nothing here costs more for there being many.

In a classic queue each lane has numbers and a log of its own, and what comes back goes to its place
in the lane that its number tells.  In a quorum queue all have the same numbers and the same log,
and what comes back comes before all others.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar, cast

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.byte_count import ByteSum
from fluffle.broker.queues.delayed_ready_list import DelayedReadyList
from fluffle.broker.queues.expiry_times import NEVER_MS, Deadlines, is_instant, spread_over
from fluffle.broker.queues.inherited_counts import InheritedCounts
from fluffle.broker.queues.journal import Damage, Journal, JournalByPriority, PageStore, Recovery
from fluffle.broker.queues.limits import Sizes
from fluffle.broker.queues.priorities import (
    PriorityLevels,
    SequenceNumbers,
    first_of,
    level_of,
    levels_of,
)
from fluffle.broker.queues.queue_stores import QueueStores
from fluffle.broker.queues.queue_view import ReadyMessages
from fluffle.broker.queues.ready_list import NO_MESSAGE, ReadyList
from fluffle.broker.queues.requeue import RequeueByPosition, RequeuedRun
from fluffle.broker.queues.segment import TakenMessages
from fluffle.protocol.columns import PriorityColumn, kinds_of


class PriorityByteCounts:
    """How many bytes wait in some lanes: each of these adds to one sum."""

    __slots__ = ("_ready_lists", "sum")

    def __init__(self, ready_lists: Mapping[int, ReadyList]) -> None:
        self._ready_lists = ready_lists
        self.sum = ByteSum()

    def go_on(self) -> None:
        """As each does."""
        scales = [
            ready_list.scale
            for ready_list in self._ready_lists.values()
            if ready_list.scale is not None
        ]
        for scale in scales:
            scale.go_on()
        self.sum.is_unsure = any(scale.is_unsure for scale in scales)


class PriorityReadyLists:
    """The lanes of one queue."""

    __slots__ = (
        "_carried", "_due_ms", "_filled", "_front", "_in_turn", "_journal", "_levels", "_numbers",
        "_ready_lists", "_sizes", "_spill", "count", "is_timed", "now_ms", "scale",
    )  # fmt: skip

    def __init__(
        self,
        levels: PriorityLevels,
        journal: JournalByPriority | None = None,
        spill: PageStore | None = None,
    ) -> None:
        self._levels = levels
        self._numbers: SequenceNumbers | None = None
        """Of all lanes, if they share them."""
        self._carried: InheritedCounts | None = None
        self._sizes: Sizes | None = None
        self.scale: PriorityByteCounts | None = None
        """None where nobody asks how many bytes wait."""
        self._journal = journal
        self._spill = spill
        self._ready_lists: dict[int, ReadyList] = {}
        """By level, each made when it is first used."""
        self._front: ReadyList | None = None
        """What came back, if that is to be served first: a level above all others."""
        self._filled = 0
        """Bit `i` if there is anything at level `i`."""
        self._due_ms = NEVER_MS
        """Nothing in front of any lane expires before this."""
        self._in_turn: list[ReadyList] = []
        """Those with messages of this turn that have no time to live."""
        self.count = 0
        self.is_timed = False
        self.now_ms = 0

    @classmethod
    def around(
        cls, ready_list: ReadyList, levels: PriorityLevels, journal: JournalByPriority | None
    ) -> PriorityReadyLists:
        """The first message of another priority comes to a quorum queue, in which there was one."""
        ready_lists = cls(levels, journal)
        part = journal.at(levels.missing) if journal is not None else None
        ready_lists._front = ready_lists._ready_lists[levels.highest + 1] = parted(ready_list, part)
        ready_lists._ready_lists[levels.missing] = ready_list
        ready_lists._numbers, ready_lists._carried, ready_lists.now_ms = (
            ready_list.numbers,
            ready_list.carried,
            ready_list.now_ms,
        )
        if ready_list.new_from != NO_MESSAGE:
            ready_lists._in_turn.append(ready_list)
        for level in ready_lists._ready_lists:
            ready_lists._changed(level)
        return ready_lists

    @property
    def damage(self) -> Damage | None:
        """What is next, if it cannot be read."""
        return self._top.damage if self._filled else None

    @property
    def _top(self) -> ReadyList:
        """The lane that is served; there must be something in one."""
        return self._ready_lists[self._filled.bit_length() - 1]

    def _at(self, level: int) -> ReadyList:
        """A lane, which may be new."""
        ready_list = self._ready_lists.get(level)
        if ready_list is None:
            journal = self._journal
            part = journal.at(level) if journal is not None else None
            numbers = self._numbers or SequenceNumbers(first_of(level))
            ready_list = ReadyList(
                part, self._spill, numbers=numbers, carried=self._carried, is_one_of_many=True
            )
            ready_list.weigh_by(self._sizes, self._sum)
            self._ready_lists[level] = ready_list
        return ready_list

    def recover(self, recovery: Recovery) -> None:
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
        """Messages that expire have come into a lane."""
        self.is_timed = True
        self._due_ms = min(self._due_ms, ready_list.due_ms)
        if is_instant(expires_at_ms):
            self._in_turn.append(ready_list)

    def give_back(self, run: RequeuedRun) -> None:
        """Messages that were taken together come back."""
        level = self._levels.highest + 1
        if self._front is None:
            level = level_of(run.sequences[0])
        ready_list = self._at(level)
        ready_list.give_back(run)
        self.count += len(run.sequences)
        self._filled |= 1 << level
        if run.expiries is not None:
            self.is_timed = True
            self._due_ms = min(self._due_ms, ready_list.due_ms)

    # What is next

    def available(self, bytes_max: int) -> int:
        """As of the lane that is served."""
        ready_list = self._top
        ready_list.now_ms = self.now_ms
        return ready_list.available(bytes_max)

    def take(self, count: int) -> TakenMessages:
        """The next messages, all of one lane; `available` must have said that there are some."""
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
        """Take off messages in front of a lane that have expired; None if there are none."""
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
        """When a message in front of a lane expires, or some time before that."""
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

    def weigh_by(self, sizes: Sizes | None) -> None:
        """As of all lanes."""
        self._sizes = sizes
        self.scale = PriorityByteCounts(self._ready_lists) if sizes is not None else None
        for ready_list in self._ready_lists.values():
            ready_list.weigh_by(sizes, self._sum)

    @property
    def _sum(self) -> ByteSum | None:
        return self.scale.sum if self.scale is not None else None

    def ahead(self, count: int) -> list[bytes]:
        """As of the lane that is served."""
        return self._top.ahead(count)

    # All of it

    def _changed(self, level: int) -> None:
        """A lane has been filled beside this."""
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
        """Give up what is damaged in the lane that is served."""
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
        """As of all lanes, in the order in which they are served."""
        levels = sorted(self._ready_lists, reverse=True)
        return [
            stock._replace(priority=level)
            for level in levels
            for stock in self._ready_lists[level].stocks
        ]

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """As of all lanes."""
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
    """What belongs to each message, by level; `kinds` are those that there are, each once."""
    by_level: dict[int, list[T]] = {level: [] for level in kinds}
    add = [by_level[kinds[0]].append] * 256
    for level, of_it in by_level.items():
        add[level] = of_it.append
    for level, value in zip(levels, values, strict=True):
        add[level](value)
    return by_level


AnyReadyList: TypeAlias = ReadyList | PriorityReadyLists | DelayedReadyList


def spread(
    ready_list: AnyReadyList, levels: PriorityLevels, journal: Journal | None
) -> PriorityReadyLists:
    """The lanes of a quorum queue that had one."""
    assert isinstance(ready_list, ReadyList)
    return PriorityReadyLists.around(
        ready_list, levels, journal.by_level if journal is not None else None
    )


def parted(ready_list: ReadyList, journal: Journal | None) -> ReadyList:
    """A lane is one of many from now on, with a part of its journal; who comes back does so to the
    lane that is returned, which is to be served first."""
    front = ReadyList(ready_list._journal, None, ready_list._returned, numbers=ready_list.numbers)
    front.count = sum(len(run.sequences) - run.head for run in ready_list._returned.runs)
    front.is_timed = ready_list.is_timed
    ready_list.count -= front.count
    ready_list._returned, ready_list._journal, ready_list._is_one_of_many = (
        RequeueByPosition(),
        journal,
        True,
    )
    if ready_list._leaving is not None:
        ready_list._leaving.journal = journal
    return front


class InitialReadyList(NamedTuple):
    """With what a queue begins."""

    ready_list: AnyReadyList
    journal: Journal | None
    unspread: PriorityLevels | None
    """The lanes to be made once a message comes whose priority is not that of most."""


def initial_ready_list(spec: QueueSpec, stores: QueueStores) -> InitialReadyList:
    """A queue pays for no lane that it does not need."""
    journal, spill, returned, _delays, calendar, carried = stores
    if calendar is not None:
        return InitialReadyList(calendar, journal, None)
    levels = levels_of(spec)
    if levels is None or spec.queue_type is QueueType.QUORUM:
        return InitialReadyList(
            ReadyList(journal, spill, returned, carried=carried), journal, levels
        )
    by_level = journal.by_level if journal is not None else None
    return InitialReadyList(
        PriorityReadyLists(levels, by_level, spill), cast("Journal | None", by_level), None
    )
