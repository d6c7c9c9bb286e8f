"""Consumers of one queue: which is served next, and which has held messages for too long.

They are served by priority and then in turn.  A consumer that has no room is parked, so that a turn
costs nothing for those that are full; what makes room for it (a settlement, a drained socket)
wakes it.

The time of a delivery begins when it is handed out, and nothing is kept of it here but one entry,
until its last message is settled.  No holder is looked at before the first delivery may be due.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterator
from operator import attrgetter
from typing import TypeAlias

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    DeliverySource,
    Holder,
    OverdueDeliveries,
    QueueClock,
)

GAP_MS = 50
"""Between two looks at all holders."""

SWEEP_MIN = 64
"""Deliveries of one holder beyond which the ended ones before the first open one are removed."""

Turn: TypeAlias = "OrderedDict[Consumer, None]"
"""Consumers in the order in which they are served.  Not a dict: taking the first of one again and
again means stepping over all that were there before it."""


class ConsumerSchedule:
    """The consumers of one queue that may have room, and in which order they are served."""

    __slots__ = ("_by_priority", "_parked", "_priorities")

    active = None
    """Always None: no consumer is served alone."""

    def __init__(self) -> None:
        self._by_priority: dict[int, Turn] = EMPTY_DICT
        self._priorities: list[int] = []
        """Negated, so that the highest priority comes first."""
        self._parked: dict[Consumer, None] = EMPTY_DICT

    def __len__(self) -> int:
        return len(self._parked) + sum(map(len, self._by_priority.values()))

    def __iter__(self) -> Iterator[Consumer]:
        yield from self._parked
        for turn in self._by_priority.values():
            yield from turn

    @property
    def any_awake(self) -> bool:
        """True if a consumer may have room."""
        return len(self._priorities) > 0

    def add(self, consumer: Consumer) -> None:
        """Put a consumer at the end of the turn of its priority."""
        turn = self._by_priority.get(consumer.priority)
        if turn is None:
            if self._by_priority is EMPTY_DICT:
                self._by_priority, self._parked = {}, {}
            turn = self._by_priority[consumer.priority] = OrderedDict()
            insort(self._priorities, -consumer.priority)
        turn[consumer] = None

    def remove(self, consumer: Consumer) -> None:
        """Take a consumer out, wherever it stands."""
        if consumer.parked:
            consumer.parked = False
            del self._parked[consumer]
            return
        del self._by_priority[consumer.priority][consumer]
        self._drop_if_empty(consumer.priority)

    def wake(self, consumer: Consumer) -> None:
        """Let a parked consumer take part again, after those that have been waiting."""
        consumer.parked = False
        del self._parked[consumer]
        self.add(consumer)

    def next_with_room(self, count: int) -> list[tuple[Consumer, int]]:
        """Up to `count` consumers of the highest priority that has any, each with its room.

        They move to the end of their turn.  One whose limit is shared comes alone and with room
        for one, unless it is the only one; those before it come with room for one, too.
        """
        while self._priorities:
            turn = self._by_priority[-self._priorities[0]]
            found = self._from_turn(turn, count)
            if found:
                return found
            self._drop_if_empty(-self._priorities[0])
        return []

    def _from_turn(self, turn: Turn, count: int) -> list[tuple[Consumer, int]]:
        found: list[tuple[Consumer, int]] = []
        for _ in range(len(turn)):
            if len(found) == count:
                break
            consumer = next(iter(turn))
            if found and consumer.is_single_step:
                return [(other, 1) for other, _room in found]
            room = consumer.room()
            if room <= 0:
                del turn[consumer]
                consumer.parked = True
                self._parked[consumer] = None
                continue
            turn.move_to_end(consumer)
            if consumer.is_single_step:
                return [(consumer, 1 if len(turn) > 1 else room)]
            found.append((consumer, room))
        return found

    def _drop_if_empty(self, priority: int) -> None:
        if not self._by_priority[priority]:
            del self._by_priority[priority]
            self._priorities.remove(-priority)


class SingleActive:
    """Schedule of a queue with a single active consumer, in the place of a `ConsumerSchedule`."""

    __slots__ = ("_arrived", "_gives_way", "_line", "_places", "active")

    def __init__(self, *, gives_way: bool) -> None:
        """`gives_way`: whether an active consumer makes room for one of a higher priority."""
        self.active: Consumer | None = None
        self._gives_way = gives_way
        self._line: list[tuple[int, int, Consumer]] = []
        """All there are: priority, negated, and the order in which they came."""
        self._places: dict[Consumer, tuple[int, int]] = {}
        """The same two numbers."""
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Consumer]:
        return (consumer for *_place, consumer in self._line)

    @property
    def any_awake(self) -> bool:
        """True if the active one may have room."""
        return self.active is not None and not self.active.parked

    def add(self, consumer: Consumer) -> None:
        """A consumer waits, unless it is to be active."""
        self._arrived += 1
        place = self._places[consumer] = -consumer.priority, self._arrived
        insort(self._line, (*place, consumer))
        consumer.is_active = False
        self._look()

    def remove(self, consumer: Consumer) -> None:
        """A consumer is gone, and the next is active if it was."""
        at = bisect_left(self._line, self._places.pop(consumer))
        del self._line[at]
        consumer.parked = False
        if consumer is self.active:
            self._activate(self._line[0][-1] if self._line else None)
        if self.active is not None:
            self.active.parked = False  # it may have given way to one that is gone
        self._look()

    def wake(self, consumer: Consumer) -> None:
        """A parked consumer may have room again, or holds nothing any more."""
        consumer.parked = False
        self._look()

    def next_with_room(self, _count: int) -> list[tuple[Consumer, int]]:
        """The active consumer with its room, if it has any."""
        active = self.active
        if active is None or active.parked:
            return []
        room = active.room()
        active.parked = room <= 0
        return [(active, room)] if room > 0 else []

    def _look(self) -> None:
        """Make the first consumer of the line active if it should be.  An active one that must give
        way is parked, so that each message it settles brings another look."""
        if not self._line:
            return
        first, active = self._line[0][-1], self.active
        if active is None:
            self._activate(first)
        elif self._gives_way and first.priority > active.priority:
            active.parked = active.in_flight > 0  # mutant: R12c
            if not active.parked:
                self._activate(first)

    def _activate(self, consumer: Consumer | None) -> None:
        before, self.active = self.active, consumer
        for each in (before, consumer):
            if each is not None:
                each.is_active = each is consumer
                each.sink.activity_changed(each)


def schedule_of(spec: QueueSpec) -> ConsumerSchedule | SingleActive:
    """Schedule for the consumers of a queue with this specification."""
    if not spec.single_active_consumer:
        return ConsumerSchedule()
    return SingleActive(gives_way=spec.queue_type is QueueType.QUORUM)


class HeldDeliveries:
    """Delivery batches of one holder in the order of their deliveries, as far as that is on
    record."""

    __slots__ = ("_sweep_at", "runs")

    def __init__(self) -> None:
        self.runs: deque[DeliveryBatch] = deque()
        self._sweep_at = SWEEP_MIN

    def add(self, delivery_batch: DeliveryBatch) -> None:
        is_in_order = (
            not self.runs or self.runs[-1].delivered_at_ms <= delivery_batch.delivered_at_ms
        )
        self.runs.append(delivery_batch)
        if not is_in_order:  # mutant: WA9
            self.runs = deque(sorted(self.runs, key=attrgetter("delivered_at_ms")))
        if len(self.runs) >= self._sweep_at:
            self.runs = deque(run for run in self.runs if run.left)  # mutant: WA10
            self._sweep_at = max(SWEEP_MIN, 2 * len(self.runs))

    def drop_ended(self) -> None:
        """Forget the hand-outs at the front of which nothing is held any more."""
        while self.runs and not self.runs[0].left:
            self.runs.popleft()

    def take_until(self, delivered_at_ms: int) -> list[DeliveryBatch]:
        """Remove and return the hand-outs made up to `delivered_at_ms` of which something is still
        held."""
        late = []
        while self.runs and self.runs[0].delivered_at_ms <= delivered_at_ms:  # mutant: WA11 WA12
            late.append(self.runs.popleft())
        return [run for run in late if run.left]  # mutant: WA13


class ConsumerTimeouts:
    """Timeouts of the consumers of one queue, which each call names: neither keeps the other
    alive."""

    __slots__ = ("_default_ms", "_held", "_time", "_timeout_ms", "due_ms")

    def __init__(self, time: QueueClock, default_ms: int | None) -> None:
        """Make the timeouts; `default_ms`: time for which messages may be held by default; None:
        for ever."""
        self._timeout_ms = self._default_ms = default_ms
        """Timeout of holders that have none of their own."""
        self._time = time
        self._held: dict[Holder, HeldDeliveries] = EMPTY_DICT
        """Held deliveries by holder.  Invariant: none without runs."""
        self.due_ms = NEVER_MS
        """When something may have been held for too long: its queue is woken then."""

    def _timeout_of(self, holder: Holder) -> int:
        own = holder.timeout_ms
        timeout_ms = own if own is not None else self._timeout_ms  # mutant: WA14
        return NEVER_MS if timeout_ms is None else timeout_ms

    def handed(self, queue: DeliverySource, delivery_batch: DeliveryBatch) -> None:
        """Record when messages were delivered to a consumer that acknowledges: now, if the run does
        not say."""
        holder = delivery_batch.holder
        timeout_ms = self._timeout_of(holder)
        if timeout_ms == NEVER_MS:
            delivery_batch.delivered_at_ms = 0
            return
        delivery_batch.delivered_at_ms = (
            delivery_batch.delivered_at_ms or self._time.now_ms()
        )  # mutant: WA15
        if (held := self._held.get(holder)) is None:
            if self._held is EMPTY_DICT:
                self._held = {}
            held = self._held[holder] = HeldDeliveries()
        held.add(delivery_batch)
        self._ask(queue, delivery_batch.delivered_at_ms + timeout_ms)  # mutant: WA16

    def settled(self, delivery_batch: DeliveryBatch, count: int) -> bool:
        """Some of a run is in hands no more; False if none of it was, for it had been there too
        long."""
        if not delivery_batch.left:
            return False
        delivery_batch.left -= count  # mutant: WA17
        held = None if delivery_batch.left else self._held.get(delivery_batch.holder)
        if held is not None:
            held.drop_ended()
            if not held.runs:  # mutant: WA18
                del self._held[delivery_batch.holder]
        return True

    def go_by(self, queue: DeliverySource, timeout_ms: int | None) -> None:
        """Set the timeout of holders that have none of their own; None: the default given at
        construction."""
        timeout_ms = timeout_ms if timeout_ms is not None else self._default_ms  # mutant: WA19
        if timeout_ms == self._timeout_ms:
            return
        self._timeout_ms, self.due_ms = timeout_ms, NEVER_MS
        self._ask_again(queue, 0)  # mutant: WA20

    def look(self, queue: DeliverySource) -> None:
        """Report deliveries that were held for too long; each run once.

        Who looks too soon asks again: it was woken for something else, or by another clock.
        """
        if self.due_ms == NEVER_MS:
            return
        if (now_ms := self._time.now_ms()) < self.due_ms:
            self._time.wake(queue, self.due_ms)
            return
        for holder, late in self._take(queue, now_ms):
            holder.overdue(late)

    def _take(self, queue: DeliverySource, now_ms: int) -> list[tuple[Holder, OverdueDeliveries]]:
        self.due_ms, taken = NEVER_MS, []
        for holder, held in list(self._held.items()):
            timeout_ms = self._timeout_of(holder)
            late = held.take_until(now_ms - timeout_ms)  # mutant: H2 WA21
            held.drop_ended()
            if not held.runs:
                del self._held[holder]
            if late:
                # mutant: WA22
                taken.append(
                    (holder, OverdueDeliveries(late, now_ms - late[0].delivered_at_ms, timeout_ms))
                )
        self._ask_again(queue, now_ms + GAP_MS)  # mutant: WA23 WA24
        return taken

    def _ask_again(self, queue: DeliverySource, at_least_ms: int) -> None:
        for holder, held in self._held.items():
            due_ms = held.runs[0].delivered_at_ms + self._timeout_of(holder)  # mutant: WA25
            self._ask(queue, max(at_least_ms, due_ms))

    def _ask(self, queue: DeliverySource, due_ms: int) -> None:
        if due_ms < self.due_ms:
            self.due_ms = due_ms
            self._time.wake(queue, due_ms)
