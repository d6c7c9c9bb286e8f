"""Whose turn it is: the consumers of one queue, by priority and then in turn.

A consumer that has no room is parked, so that a turn costs nothing for those that are full;
whoever makes room for it (a settlement, a drained socket) wakes it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.arguments import QueueSpec, QueueType

if TYPE_CHECKING:
    from fluffle.broker.queues.delivery import DeliveryBatch, OverdueDeliveries, TimedOutDeliveries
    from fluffle.broker.queues.queue_api import QueueHandle


UNLIMITED = 1 << 62


class SharedCredit:
    """The limit that all consumers of one channel share (basic.qos with global).

    They may be of several queues, none of which must starve: room that comes back is offered to
    all, and first to the consumer that has taken nothing for longest.
    """

    __slots__ = ("_takers", "_takes", "in_flight", "limit")

    def __init__(self) -> None:
        self.limit = 0
        """How many messages may be unsettled at once; 0 means no limit."""
        self.in_flight = 0
        self._takers: dict[Consumer, int] = EMPTY_DICT
        """The consumers that have asked for room under a limit, and when each has taken last."""
        self._takes = 0
        """How often one has: their time."""

    @property
    def is_full(self) -> bool:
        return 0 < self.limit <= self.in_flight

    def room(self, consumer: Consumer) -> int:
        """How many messages `consumer` may take; at 0 it is woken when there is room."""
        if not self.limit:
            return UNLIMITED
        if consumer not in self._takers:
            if self._takers is EMPTY_DICT:
                self._takers = {}
            self._takers[consumer] = 0
        return max(self.limit - self.in_flight, 0)

    def took(self, consumer: Consumer, count: int) -> None:
        """`consumer` has taken messages, of which `count` are to be settled."""
        self.in_flight += count
        if consumer in self._takers:
            self._takes += 1
            self._takers[consumer] = self._takes

    def settled(self, count: int) -> None:
        """Make room, and offer it if there was none."""
        was_full = self.is_full
        self.in_flight -= count
        if was_full:
            self.wake()

    def wake(self) -> None:
        """There may be room, which whoever is woken may take at once."""
        for consumer in sorted(self._takers, key=self._takers.__getitem__):
            if self.is_full:
                break
            consumer.queue.wake(consumer)

    def forget(self, consumer: Consumer) -> None:
        """A consumer has ended."""
        self._takers.pop(consumer, None)


class Sink(Protocol):
    """The place where the client of a consumer is, as a queue needs it."""

    def room(self, consumer: Consumer) -> int:
        """How many messages it takes now.  A sink that answers 0 wakes the consumer later."""

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """A run is handed out and will be delivered: from now on it takes its room."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Take a run of messages; `delivery_batch.holder` is the consumer they are for."""

    def cancelled(self, consumer: Consumer) -> None:
        """The queue is gone, and this consumer with it."""

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        """It has had these for too long: see `Holder`."""

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        """These have been taken from it, and it is served no more."""

    def activity_changed(self, consumer: Consumer) -> None:
        """It alone is served from now on, or another is: see `Consumer.is_active`."""


class Consumer:
    """Consumer of one basic.consume, as the queue sees it."""

    __slots__ = (
        "exclusive",
        "in_flight",
        "is_active",
        "no_ack",
        "parked",
        "prefetch",
        "priority",
        "queue",
        "shared",
        "sink",
        "tag",
        "timeout_ms",
    )

    def __init__(
        self,
        tag: str,
        queue: QueueHandle,
        sink: Sink,
        *,
        shared: SharedCredit,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        timeout_ms: int | None = None,
    ) -> None:
        self.tag = tag
        self.queue = queue
        self.sink = sink
        self.shared = shared
        self.prefetch = prefetch
        """How many of its messages may be unsettled at once; 0 means no limit."""
        self.priority = priority
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.timeout_ms = timeout_ms
        """See `Holder`."""
        self.in_flight = 0
        """Invariant: 0 for a consumer with no_ack."""
        self.parked = False
        self.is_active = True
        """Whether it is served: not while another is the single active consumer of its queue."""

    @property
    def is_single_step(self) -> bool:
        """Whether what it takes lessens the room of others, so that it must go one by one."""
        return self.shared.limit > 0 and not self.no_ack

    @property
    def has_room(self) -> bool:
        """Whether it would take a message now, as far as is known without asking its sink."""
        shared = self.shared
        if self.parked or not self.is_active:
            return False
        return not shared.is_full and (self.no_ack or not 0 < self.prefetch <= self.in_flight)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Pass on a run that the queue has handed out."""
        self.sink.deliver(delivery_batch)

    def room(self) -> int:
        """How many messages can be handed to it now."""
        room = self.shared.room(self)
        if self.no_ack:  # what it takes needs no room, and yet it gets nothing while there is none
            return self.sink.room(self) if room > 0 else 0
        if self.prefetch:
            room = min(room, self.prefetch - self.in_flight)
        return min(room, self.sink.room(self)) if room > 0 else 0

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Account for messages that are handed to it."""
        count = 0 if self.no_ack else len(delivery_batch.contents)
        self.in_flight += count
        self.shared.took(self, count)
        self.sink.reserve(delivery_batch)

    def settled(self, count: int) -> None:
        """Count messages of its own that are settled, which may make room."""
        self.in_flight -= count
        self.shared.settled(count)
        if self.parked:
            self.queue.wake(self)

    def overdue(self, late: OverdueDeliveries) -> None:
        self.sink.overdue(self, late)

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        self.sink.timed_out(self, lost)


Turn: TypeAlias = "OrderedDict[Consumer, None]"
"""Consumers in the order in which they are served.  Not a dict: taking the first of one again and
again means stepping over all that were there before it."""


class ConsumerSchedule:
    """The consumers of one queue that may have room, and in which order they are served."""

    __slots__ = ("_by_priority", "_parked", "_priorities")

    active = None
    """Nobody is served alone."""

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
        """Whether a consumer may have room."""
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
        """All there are: priority, negated, and who came before whom."""
        self._places: dict[Consumer, tuple[int, int]] = {}
        """The same two numbers."""
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Consumer]:
        return (consumer for *_place, consumer in self._line)

    @property
    def any_awake(self) -> bool:
        """Whether the active one may have room."""
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
            self.active.parked = False  # it may have given way to who is gone
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
        """Whether the first of the line is to be active.  Who is to give way is parked, so that it
        is looked again with each message that it settles."""
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
    """Who is served, of the consumers that such a queue will have."""
    if not spec.single_active_consumer:
        return ConsumerSchedule()
    return SingleActive(gives_way=spec.queue_type is QueueType.QUORUM)
