"""Single active consumer (x-single-active-consumer): which consumer is served, and which is next.

    waiting --> active --> gone; with a quorum queue also back to waiting, once it holds nothing,
                           if somebody of a higher priority waits

Whoever comes first is active.  The next is of the highest priority among those that wait, and has
waited longest.  A quorum queue hands nothing more to its active consumer while somebody of a higher
priority waits: RabbitMQ calls it quiescing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import Consumer, ConsumerSchedule


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
