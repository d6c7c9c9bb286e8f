"""Direct consumers, which take messages without a client: `get` and `consume` of a `Vhost`.

Such a consumer has no connection and no channel: it is a holder of the queue's own, as that of a
basic.get, and what it holds lasts until it is settled, has been held for too long, or the virtual
host goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.admin.messages import shown_properties
from fluffle.broker.base.errors import ResourceLocked
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Deferred, DeliveryBatch, Outcome
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.testing.messages import HeldMessage, SettleOnce
from fluffle.broker.testing.timeline import (
    Actor,
    RoutedMessage,
    StepKind,
    Timeline,
    TraceStep,
    listed,
    origin_of,
)
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import body_of, decode_properties, raw_properties

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.queues.queue_api import OverdueDeliveries, QueueHandle, TimedOutDeliveries


TEST = Actor("the test")


def published(timeline: Timeline, message: RoutedMessage, queues: Sequence[str]) -> None:
    exchange, routing_key, content = message
    timeline.published(TEST, message, queues)
    where = f"to exchange {exchange!r} with key {routing_key!r}"
    to = " and ".join(map(repr, queues))
    timeline.note(TEST, f"publishes {listed([body_of(content)])} {where}: it goes to {to}")


def taken(timeline: Timeline, delivery_batch: DeliveryBatch) -> None:
    """Note one message that the test has taken."""
    (origin,), (content,), (sequence,) = (
        delivery_batch.origins,
        delivery_batch.contents,
        delivery_batch.sequences,
    )
    queue, again = (
        delivery_batch.holder.queue.name,
        "redelivered" if delivery_batch.redelivered else "",
    )
    step = TraceStep(StepKind.DELIVERED, timeline.at_ms, TEST, detail=again)
    message = origin.exchange, origin.routing_key, content
    timeline.delivered(queue, sequence, message, step, origin_of(content))
    suffix = f", {again}" if again else ""
    timeline.note(TEST, f"takes {listed([body_of(content)])} of queue {queue!r}{suffix}")


class DirectConsumer(NamedTuple):
    """Consumer without a client: the virtual host, its turn and its timeline."""

    vhost: VirtualHost
    turn: Turn
    timeline: Timeline
    """Has what is taken in it, as what clients are given."""


class DirectHolder:
    """The holder of one message: see `Holder`."""

    no_ack = False
    timeout_ms = None

    def __init__(self, queue: QueueHandle, consumer: DirectConsumer) -> None:
        self.queue = queue
        self._consumer = consumer

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Give the messages to the caller."""

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """There is room for one, and for no more."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        for delivery_batch in late.delivery_batches:
            settle(delivery_batch, self._consumer, Outcome.TIMED_OUT)

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        """A test that held it for so long knows."""


async def take(consumer: DirectConsumer, name: str, count: int, within: float) -> list[HeldMessage]:
    """So many messages of a queue, as they come.

    AssertionError if they do not within so many seconds; those that did go back.  ResourceLocked.
    """
    __tracebackhide__ = True
    found: list[HeldMessage] = []
    try:
        async with asyncio.timeout(within):
            await collect(found, consumer, name, count)
    except TimeoutError:
        what = "gave" if name in consumer.vhost.queues else "is not there, and so gave"
        raise AssertionError(
            f"queue '{name}' {what} {len(found)} of {count} messages within {within} s"
        ) from None
    return found


async def collect(
    found: list[HeldMessage], consumer: DirectConsumer, name: str, count: int
) -> None:
    """Until so many are found; what there is may be another after each turn.

    Whatever ends it before, the end of the test, too: what was found goes back.
    """
    changed = asyncio.Event()
    consumer.turn.watchers.add(changed.set)
    try:
        while len(found) < count:
            changed.clear()
            if not await has_taken(found, consumer, name):
                await changed.wait()
    except BaseException:
        for message in found:
            message.reject(requeue=True)
        raise
    finally:
        consumer.turn.watchers.discard(changed.set)


async def has_taken(found: list[HeldMessage], consumer: DirectConsumer, name: str) -> bool:
    """Find the next message of a queue, if there are both.  ResourceLocked."""
    queue = consumer.vhost.queues.get(name)
    if queue is None:
        return False
    if queue.spec.queue_type is QueueType.QUORUM and queue.spec.single_active_consumer:
        raise ResourceLocked(
            f"queue '{name}' in vhost '{consumer.vhost.name}' has a single active consumer, and "
            "nobody else takes from it"
        )
    got = queue.get(DirectHolder(queue, consumer))
    if isinstance(got, Deferred):
        return await has_later_taken(found, got, consumer)
    if got is not None:
        found.append(taken_of(got, consumer))
    return got is not None


async def has_later_taken(
    found: list[HeldMessage], later: Deferred[DeliveryBatch | None], consumer: DirectConsumer
) -> bool:
    """Wait for messages; what comes when no caller waits any more is requeued."""
    come: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answered(delivery_batch: DeliveryBatch | None) -> None:
        if come.done():
            if delivery_batch is not None:
                settle(delivery_batch, consumer, Outcome.UNSENT)
            return
        if (
            delivery_batch is not None
        ):  # now, for it is not kept in memory, and the waiting task may be cancelled
            found.append(taken_of(delivery_batch, consumer))
        come.set_result(delivery_batch is not None)

    def failed(error: BrokerError) -> None:
        if not come.done():
            come.set_exception(error)

    later.then(answered, failed)
    return await come


def taken_of(delivery_batch: DeliveryBatch, consumer: DirectConsumer) -> HeldMessage:
    taken(consumer.timeline, delivery_batch)
    (origin,), (content,) = delivery_batch.origins, delivery_batch.contents
    properties = decode_properties(raw_properties(content))
    shown = dict(shown_properties(properties))
    if properties.priority is not None:
        shown["priority"] = properties.priority
    return HeldMessage(
        body_of(content),
        origin.exchange,
        origin.routing_key,
        plain(properties.headers or {}),
        shown,
        delivery_batch.redelivered,
        SettleOnce(partial(settle, delivery_batch, consumer)),
    )


def settle(delivery_batch: DeliveryBatch, consumer: DirectConsumer, outcome: Outcome) -> None:
    """Settle a message once; afterwards in vain."""
    queue = delivery_batch.holder.queue
    for start, stop in delivery_batch.settle(0, 1):
        if consumer.vhost.has(queue):
            consumer.timeline.settled(TEST, queue.name, delivery_batch.sequences, outcome)
        queue.settle(delivery_batch, start, stop, outcome)
    look_again(consumer.turn)


def look_again(turn: Turn) -> None:
    """Have waiting tasks look, as after what a client sends."""
    if turn.begin():
        turn.end()
