"""Messages that go back to their queue while a client still has them in hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.queues.queue_api import (
    DeliveryBatch,
    Holder,
    Outcome,
    OverdueDeliveries,
    QueueHandle,
    TimedOutDeliveries,
)


class FormerHolder:
    """Holds what its queue has given to others: a `Holder`, and of the queue what settles."""

    __slots__ = ("name",)

    no_ack = False
    timeout_ms = None

    def __init__(self, name: str) -> None:
        self.name = name
        """That of the queue: the timeline tells where an acknowledgement was in vain."""

    @property
    def queue(self) -> QueueHandle:
        return cast(QueueHandle, self)

    def deliver_ready(self) -> None:
        """Do nothing: this consumer is sent nothing new."""

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        """Do nothing: the outcome does not matter any more."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("this consumer is sent nothing")

    def took(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("this consumer is sent nothing")

    def settled(self, count: int) -> None:
        """Do nothing: no delivery waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError("it holds nothing")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError("it holds nothing")


def give_back(channel: Channel, is_meant: Callable[[DeliveryBatch], bool]) -> int:
    """Have queues hand out again what is unacknowledged on a channel; how many messages.

    `is_meant` is asked of each run, which goes back whole; its tags stay known to the channel.
    """
    runs = channel.unacked.open_runs()
    meant = [run for run in runs if not isinstance(run.holder, FormerHolder) and is_meant(run)]
    count = 0
    for delivery_batch in meant:
        for start, stop in tuple(delivery_batch.unsettled()):
            delivery_batch.holder.queue.settle(delivery_batch, start, stop, Outcome.SUSPECTED)
            count += stop - start
        delivery_batch.holder = cast(Holder, FormerHolder(delivery_batch.holder.queue.name))
    return count
