"""Several lanes of a queue, one for each priority that has come: the highest is served first.

    returned (of quorum queues)  ->  31  ->  30  ->  ...  ->  0

It is used like a `Lane`.  Which lanes have something in them is a number with a bit for each, so
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
from fluffle.broker.queues.byte_count import Sum
from fluffle.broker.queues.delayed_ready_list import CalendarLane
from fluffle.broker.queues.expiry_times import Deadlines, is_instant, spread_over
from fluffle.broker.queues.inherited_counts import Carried
from fluffle.broker.queues.journal import ByLevel, Damage, Journal, Recovery, Spill
from fluffle.broker.queues.limits import Sizes
from fluffle.broker.queues.priorities import Levels, Numbers, first_of, level_of, levels_of
from fluffle.broker.queues.queue_context import Stores
from fluffle.broker.queues.queue_view import Stock
from fluffle.broker.queues.ready_list import NO_MESSAGE, Lane
from fluffle.broker.queues.requeue import ByAge, Returned
from fluffle.broker.queues.segment import Taken
from fluffle.broker.queues.timer_port import NEVER_MS
from fluffle.protocol.columns import PriorityColumn, kinds_of


class Scales:
    """How many bytes wait in some lanes: each of these adds to one sum."""

    __slots__ = ("_lanes", "sum")

    def __init__(self, lanes: Mapping[int, Lane]) -> None:
        self._lanes = lanes
        self.sum = Sum()

    def go_on(self) -> None:
        """As each does."""
        scales = [lane.scale for lane in self._lanes.values() if lane.scale is not None]
        for scale in scales:
            scale.go_on()
        self.sum.is_unsure = any(scale.is_unsure for scale in scales)


class Lanes:
    """The lanes of one queue."""

    __slots__ = (
        "_carried", "_due_ms", "_filled", "_front", "_in_turn", "_journal", "_lanes", "_levels",
        "_numbers", "_sizes", "_spill", "count", "is_timed", "now_ms", "scale",
    )  # fmt: skip

    def __init__(
        self, levels: Levels, journal: ByLevel | None = None, spill: Spill | None = None
    ) -> None:
        self._levels = levels
        self._numbers: Numbers | None = None
        """Of all lanes, if they share them."""
        self._carried: Carried | None = None
        self._sizes: Sizes | None = None
        self.scale: Scales | None = None
        """None where nobody asks how many bytes wait."""
        self._journal = journal
        self._spill = spill
        self._lanes: dict[int, Lane] = {}
        """By level, each made when it is first used."""
        self._front: Lane | None = None
        """What came back, if that is to be served first: a level above all others."""
        self._filled = 0
        """Bit `i` if there is anything at level `i`."""
        self._due_ms = NEVER_MS
        """Nothing in front of any lane expires before this."""
        self._in_turn: list[Lane] = []
        """Those with messages of this turn that have no time to live."""
        self.count = 0
        self.is_timed = False
        self.now_ms = 0

    @classmethod
    def around(cls, lane: Lane, levels: Levels, journal: ByLevel | None) -> Lanes:
        """The first message of another priority comes to a quorum queue, in which there was one."""
        lanes = cls(levels, journal)
        part = journal.at(levels.missing) if journal is not None else None
        lanes._front = lanes._lanes[levels.highest + 1] = parted(lane, part)
        lanes._lanes[levels.missing] = lane
        lanes._numbers, lanes._carried, lanes.now_ms = lane.numbers, lane.carried, lane.now_ms
        if lane.new_from != NO_MESSAGE:
            lanes._in_turn.append(lane)
        for level in lanes._lanes:
            lanes._changed(level)
        return lanes

    @property
    def damage(self) -> Damage | None:
        """What is next, if it cannot be read."""
        return self._top.damage if self._filled else None

    @property
    def _top(self) -> Lane:
        """The lane that is served; there must be something in one."""
        return self._lanes[self._filled.bit_length() - 1]

    def _at(self, level: int) -> Lane:
        """A lane, which may be new."""
        lane = self._lanes.get(level)
        if lane is None:
            journal = self._journal
            part = journal.at(level) if journal is not None else None
            numbers = self._numbers or Numbers(first_of(level))
            lane = Lane(
                part, self._spill, numbers=numbers, carried=self._carried, is_one_of_many=True
            )
            lane.weigh_by(self._sizes, self._sum)
            self._lanes[level] = lane
        return lane

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
            lane = self._lanes.get(level) or self._at(level)
            lane.put(
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
                self._timed(lane, own_expires_at_ms)

    def _timed(self, lane: Lane, expires_at_ms: Deadlines) -> None:
        """Messages that expire have come into a lane."""
        self.is_timed = True
        self._due_ms = min(self._due_ms, lane.due_ms)
        if is_instant(expires_at_ms):
            self._in_turn.append(lane)

    def give_back(self, run: Returned) -> None:
        """Messages that were taken together come back."""
        level = self._levels.highest + 1
        if self._front is None:
            level = level_of(run.sequences[0])
        lane = self._at(level)
        lane.give_back(run)
        self.count += len(run.sequences)
        self._filled |= 1 << level
        if run.expiries is not None:
            self.is_timed = True
            self._due_ms = min(self._due_ms, lane.due_ms)

    # What is next

    def available(self, bytes_max: int) -> int:
        """As of the lane that is served."""
        lane = self._top
        lane.now_ms = self.now_ms
        return lane.available(bytes_max)

    def take(self, count: int) -> Taken:
        """The next messages, all of one lane; `available` must have said that there are some."""
        level = self._filled.bit_length() - 1  # mutant: P4
        return self._took(level, self._lanes[level].take(count))

    def _took(self, level: int, taken: Taken) -> Taken:
        lane = self._lanes[level]
        self.count -= taken.count
        if not lane.count:
            self._filled ^= 1 << level
        elif self.is_timed:
            self._due_ms = min(self._due_ms, lane.due_ms)
        return taken

    def expire(self, *, are_read: bool) -> Taken | None:
        """Take off messages in front of a lane that have expired; None if there are none."""
        if self._due_ms > self.now_ms:
            return None
        filled, due_ms = self._filled, NEVER_MS
        while filled:
            level = filled.bit_length() - 1
            filled ^= 1 << level
            lane = self._lanes[level]
            lane.now_ms = self.now_ms
            taken = lane.expire(are_read=are_read)
            if taken is not None:
                return self._took(level, taken)
            if lane.damage is None:
                due_ms = min(due_ms, lane.due_ms)
        self._due_ms = due_ms
        return None

    @property
    def due_ms(self) -> int:
        """When a message in front of a lane expires, or some time before that."""
        return self._due_ms

    @property
    def new_from(self) -> int:
        """`NO_MESSAGE`, if no message has come in this turn that has no time to live."""
        return min((lane.new_from for lane in self._in_turn), default=NO_MESSAGE)

    @new_from.setter
    def new_from(self, sequence: int) -> None:
        """`NO_MESSAGE`: the turn has ended."""
        for lane in self._in_turn:
            lane.new_from = sequence
        self._in_turn.clear()

    def weigh_by(self, sizes: Sizes | None) -> None:
        """As of all lanes."""
        self._sizes = sizes
        self.scale = Scales(self._lanes) if sizes is not None else None
        for lane in self._lanes.values():
            lane.weigh_by(sizes, self._sum)

    @property
    def _sum(self) -> Sum | None:
        return self.scale.sum if self.scale is not None else None

    def ahead(self, count: int) -> list[bytes]:
        """As of the lane that is served."""
        return self._top.ahead(count)

    # All of it

    def _changed(self, level: int) -> None:
        """A lane has been filled beside this."""
        lane = self._lanes[level]
        self.count += lane.count
        self._filled |= (lane.count > 0) << level
        self.is_timed |= lane.is_timed
        if lane.is_timed:
            self._due_ms = min(self._due_ms, lane.due_ms)

    def clear(self) -> int:
        """Forget every message; how many there were."""
        dropped = sum(lane.clear() for lane in self._lanes.values())
        self.count = self._filled = 0
        self.is_timed, self._due_ms = False, NEVER_MS
        return dropped

    def drop_damaged(self) -> int:
        """Give up what is damaged in the lane that is served."""
        level = self._filled.bit_length() - 1
        lane = self._lanes[level]
        dropped = lane.drop_damaged()
        self.count -= dropped
        self._due_ms = min(self._due_ms, lane.due_ms)
        if not lane.count:
            self._filled ^= 1 << level
        return dropped

    def shed(self) -> bool:
        """Memory is short: what is served last leaves it first.  As `Lane.shed`."""
        return all(self._lanes[level].shed() for level in sorted(self._lanes))

    @property
    def stocks(self) -> list[Stock]:
        """As of all lanes, in the order in which they are served."""
        levels = sorted(self._lanes, reverse=True)
        return [
            stock._replace(priority=level)
            for level in levels
            for stock in self._lanes[level].stocks
        ]

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """As of all lanes."""
        return [unseen for lane in self._lanes.values() for unseen in lane.unseen]


T = TypeVar("T")

Lot: TypeAlias = tuple[int, list[Origin], list[bytes], int, int | None, Deadlines]
"""Messages of one level: which that is, and as `Lane.put` is given them."""


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


AnyLane: TypeAlias = Lane | Lanes | CalendarLane


def spread(lane: AnyLane, levels: Levels, journal: Journal | None) -> Lanes:
    """The lanes of a quorum queue that had one."""
    assert isinstance(lane, Lane)
    return Lanes.around(lane, levels, journal.by_level if journal is not None else None)


def parted(lane: Lane, journal: Journal | None) -> Lane:
    """A lane is one of many from now on, with a part of its journal; who comes back does so to the
    lane that is returned, which is to be served first."""
    front = Lane(lane._journal, None, lane._returned, numbers=lane.numbers)
    front.count = sum(len(run.sequences) - run.head for run in lane._returned.runs)
    front.is_timed = lane.is_timed
    lane.count -= front.count
    lane._returned, lane._journal, lane._is_one_of_many = ByAge(), journal, True
    if lane._leaving is not None:
        lane._leaving.journal = journal
    return front


class Begun(NamedTuple):
    """With what a queue begins."""

    lane: AnyLane
    journal: Journal | None
    unspread: Levels | None
    """The lanes to be made once a message comes whose priority is not that of most."""


def begin(spec: QueueSpec, stores: Stores) -> Begun:
    """A queue pays for no lane that it does not need."""
    journal, spill, returned, _delays, calendar, carried = stores
    if calendar is not None:
        return Begun(calendar, journal, None)
    levels = levels_of(spec)
    if levels is None or spec.queue_type is QueueType.QUORUM:
        return Begun(Lane(journal, spill, returned, carried=carried), journal, levels)
    by_level = journal.by_level if journal is not None else None
    return Begun(Lanes(levels, by_level, spill), cast("Journal | None", by_level), None)
