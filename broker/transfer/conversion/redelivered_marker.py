"""Who takes messages from a new queue and gives them back, so that it knows that they were handed
out before: `redelivered` must not lie."""

from __future__ import annotations

from fluffle.broker.queues.consumer_timeout import OverdueDeliveries, TimedOutDeliveries
from fluffle.broker.queues.consumers import Consumer, SharedCredit
from fluffle.broker.queues.delivery import DeliveryBatch, Outcome
from fluffle.broker.queues.queue_api import Deferred, QueueHandle
from fluffle.broker.queues.timer_port import NEVER_MS

AHEAD = 4096
"""So many messages may come at once."""


class RedeliveredMarker:
    """A `Sink`, and its consumer: nobody else uses the queue."""

    __slots__ = ("_consumer", "_handouts", "_queue", "is_cancelled")

    def __init__(self, queue: QueueHandle) -> None:
        self._queue = queue
        self._handouts: list[DeliveryBatch] = []
        self.is_cancelled = False
        self._consumer = Consumer(
            "fluffle.seen", queue, self, shared=SharedCredit(), timeout_ms=NEVER_MS
        )

    def begin(self) -> Deferred[None] | None:
        return self._queue.attach(self._consumer)

    @property
    def count(self) -> int:
        """Messages that it holds."""
        return sum(len(delivery_batch.contents) for delivery_batch in self._handouts)

    def end(self) -> Deferred[None] | None:
        """All goes back, in order, as if nobody had been sent it."""
        for delivery_batch in self._handouts:
            self._queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT)
        self._queue.detach(self._consumer)
        return self._queue.settling

    # A `Sink`

    def room(self, consumer: Consumer) -> int:
        del consumer
        return AHEAD

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """Contents are forgotten at once."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._handouts.append(delivery_batch)

    def cancelled(self, consumer: Consumer) -> None:
        del consumer
        self.is_cancelled = True

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{consumer.tag} may hold {late} for ever")

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        del consumer, lost
        self.is_cancelled = True

    def activity_changed(self, consumer: Consumer) -> None:
        """It alone is served, always."""
