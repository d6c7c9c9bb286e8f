"""Consumers, named by their tags or by the queues that they alone consume from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.core.listings import consumer_row
from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.protocols.amqp091.subscription import Subscription
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    OverdueDeliveries,
    Sink,
    TimedOutDeliveries,
)
from fluffle.broker.testing.faults.fault_scope import FaultScope
from fluffle.broker.testing.faults.redelivery import give_back


class FoundConsumer(NamedTuple):
    """A consumer, and where it is."""

    connection: Connection
    channel: Channel
    subscription: Subscription

    @property
    def consumer(self) -> Consumer:
        return self.subscription.consumer

    @property
    def row(self) -> Row:
        return consumer_row(self.connection, self.channel, self.consumer)


def find(scope: FaultScope, name: str) -> FoundConsumer:
    """NotFound; PreconditionFailed if there are several."""
    everybody = [
        FoundConsumer(tap.connection, channel, subscription)
        for tap in scope.taps()
        for channel in tap.connection.channels
        for subscription in channel.subscriptions.values()
    ]
    found = [each for each in everybody if name in (each.consumer.tag, each.consumer.queue.name)]
    if not found:
        there = ", ".join(repr(each.consumer.tag) for each in everybody) or "none"
        raise NotFound(f"no consumer '{name}', but: {there}")
    if len(found) > 1:
        tags = ", ".join(repr(each.consumer.tag) for each in found)
        raise PreconditionFailed(f"'{name}' means several consumers: {tags}")
    return found[0]


class FrozenSink:
    """A `Sink` that takes nothing: what has been handed out before goes on to the other."""

    __slots__ = ("sink",)

    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def room(self, _consumer: Consumer) -> int:
        return 0

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self.sink.reserve(delivery_batch)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self.sink.deliver(delivery_batch)

    def cancelled(self, consumer: Consumer) -> None:
        self.sink.cancelled(consumer)

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        self.sink.overdue(consumer, late)

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        self.sink.timed_out(consumer, lost)

    def activity_changed(self, consumer: Consumer) -> None:
        self.sink.activity_changed(consumer)


def show(scope: FaultScope, *, consumer: str) -> Row:
    """Where it is and what it holds, as `fluffle` shows it."""
    return find(scope, consumer).row


def cancel(scope: FaultScope, *, consumer: str) -> Row:
    """End it as if its queue had moved: a client that understands that hears basic.cancel.

    What it holds stays unacknowledged.
    """
    found = find(scope, consumer)
    end_consumer(found.channel, found.subscription)
    return {}


def end_consumer(channel: Channel, subscription: Subscription) -> None:
    channel.session.detach(subscription.consumer)
    subscription.cancelled(subscription.consumer)


def freeze(scope: FaultScope, *, consumer: str) -> Row:
    """Deliver nothing more to it."""
    consumer_ = find(scope, consumer).consumer
    sink = consumer_.sink
    if isinstance(sink, FrozenSink):
        return {}
    consumer_.sink = FrozenSink(sink)
    if not isinstance(consumer_.queue, Queue):
        consumer_.parked = True  # else it need not be woken, and its leader must know
        consumer_.queue.wake(consumer_)

    def end() -> None:
        consumer_.sink = sink
        if consumer_.parked:
            consumer_.queue.wake(consumer_)

    what = f"consumer '{consumer_.tag}' of queue '{consumer_.queue.name}' is frozen"
    scope.begin(consumer_, what, end)
    return {}


def thaw(scope: FaultScope, *, consumer: str) -> Row:
    """Deliver to it again."""
    scope.end(find(scope, consumer).consumer)
    return {}


def redeliver(scope: FaultScope, *, consumer: str) -> Row:
    """Deliver again what it holds; how many messages that are.

    So a quorum queue of a cluster does when it has not heard for a while of the node where the
    consumer is.  That client does not know of it: what it still acknowledges counts for nothing.
    """
    found = find(scope, consumer)
    count = give_back(found.channel, lambda delivery_batch: delivery_batch.holder is found.consumer)
    return {"messages": count}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "consumers.show": show,
    "consumers.cancel": cancel,
    "consumers.freeze": freeze,
    "consumers.thaw": thaw,
    "consumers.redeliver": redeliver,
}
