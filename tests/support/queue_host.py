"""Hosts of queues for tests of the engine: nothing happens there but what a test says."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.queues.dead_letters import RepublishDeadLetters
from fluffle.broker.queues.deduplication import DuplicateFilter, FilterFactory
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import Enqueue
from fluffle.broker.queues.queue_api import STOPPED_CLOCK, DeliveryBatch, QueueClock, deliver_all
from fluffle.broker.queues.settings import DeduplicationCache

Act = Callable[[Queue], None]


def ignore(_queue: object) -> None:
    """Where nobody looks."""


def forgetful(cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
    """The filter of a queue without time or disk, where nobody counts."""
    return DuplicateFilter(
        cache,
        DeduplicationWindow(),
        enqueue,
        time=STOPPED_CLOCK,
        on_duplicates=ignore,
        record=None,
    )


class FakeTurn:
    """A `QueueTurn` that calls a function with each queue that is touched."""

    def __init__(self, touched: Act = ignore) -> None:
        self.touch_queue = self.touch_queue_last = touched


class FakeQueueHost:
    """A `QueueHost` that calls the functions it is given."""

    bury = None

    def __init__(
        self,
        touched: Act = ignore,
        time: QueueClock = STOPPED_CLOCK,
        *,
        deliver: Callable[[list[DeliveryBatch]], None] = deliver_all,
        dead_letter: RepublishDeadLetters | None = None,
        on_crash: Act = ignore,
        on_queue_expired: Act = ignore,
        duplicate_filter: FilterFactory = forgetful,
        consumer_timeout_ms: int | None = None,
    ) -> None:
        self.turn = FakeTurn(touched)
        self.time = time
        self.dead_letter = dead_letter
        self.consumer_timeout_ms = consumer_timeout_ms
        self._deliver = deliver
        self._on_crash = on_crash
        self._on_queue_expired = on_queue_expired
        self._duplicate_filter = duplicate_filter

    def other_counted_messages(self) -> int:
        return 0

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        return self._duplicate_filter(cache, enqueue)

    def deliver_early(self, delivery_batches: list[DeliveryBatch]) -> None:
        self._deliver(delivery_batches)

    def on_crash(self, queue: Queue) -> None:
        self._on_crash(queue)

    def on_queue_expired(self, queue: Queue) -> None:
        self._on_queue_expired(queue)
