"""Consumers of a client, and messages that it gets one by one, whatever its protocol.

    sink = Subscription(channel, "tag", output, writer)
    attached = start_consumer(channel, queue, sink, ConsumerTerms("tag", prefetch=10))
    consumer_started(channel, "tag", arguments)   # now, or once `attached` is answered
    ...                                           # the queue gives batches to `sink.deliver`, and
    first = channel.unacked.number(batch)         # the writer numbers and writes each
    stretches, unknown = channel.unacked.take(first, first)   # its client acknowledges one
    settlements.settle(stretches, Outcome.ACKED)  # `settlement` has the rest
    left = stop_consumer(channel, "tag")          # it is handed out nothing more
    forget_consumer(channel, "tag")               # now, or once `left` is answered

A channel is what has consumers with tags of their own: that of AMQP, or all of a client.  A sink is
any `ClientSink`; a `Subscription` is one that writes to the client's output at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import (
    PreconditionFailed,
    QueueCrashed,
    ResourceLocked,
)
from fluffle.broker.base.logs import event
from fluffle.broker.core.client import ObservedChannel
from fluffle.broker.core.output_buffer import burst_bytes
from fluffle.broker.queues.arguments import QueueType, consumer_arguments
from fluffle.broker.queues.queue_api import (
    Consumer,
    Deferred,
    DeliveryBatch,
    DirectWriter,
    Holder,
    Outcome,
    OverdueDeliveries,
    QueueHandle,
    SharedCredit,
    Sink,
    TimedOutDeliveries,
)
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import SessionChannel
    from fluffle.broker.core.observer import ChannelObserver
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.publisher import Publisher
    from fluffle.broker.core.session import Session
    from fluffle.broker.core.settlement import Unacked

logger = logging.getLogger(__name__)

SettledOf: TypeAlias = Callable[[DeliveryBatch], Iterable[tuple[int, int]]]
"""Messages of a batch that were settled, but not for their queue: from where to where."""


class ClientSink(Sink, Protocol):
    """Sink of a client's consumer, which it has from its start until `end`."""

    consumer: Consumer
    arguments: FieldTable
    """With which it was started; only where an observer may want them."""

    def end(self) -> None:
        """Let the consumer go, and send it nothing more."""


S = TypeVar("S", bound=ClientSink)


class DeliveryChannel(ObservedChannel, Protocol):
    """Channel of a client that is given messages."""

    @property
    def session(self) -> Session: ...


class ConsumerChannel(DeliveryChannel, Protocol[S]):
    """Channel of a client that has consumers."""

    shared_credit: SharedCredit
    """Room that they share."""
    subscriptions: dict[str, S]
    """Where their messages go, by their tags."""

    def credit_of(self, queue: QueueHandle) -> SharedCredit:
        """Room that a consumer of this queue shares with others.  BrokerError if it may not."""


class DeliveryWriter(Protocol):
    """Writes messages to a client as its protocol has them, for one consumer."""

    def send(self, delivery_batch: DeliveryBatch, /) -> None:
        """Add messages to the output of the client, and count them.  Raises nothing."""


class SubscriptionChannel(ConsumerChannel["Subscription"], Protocol):
    """Channel of a client whose consumers are each a `Subscription`."""

    observer: ChannelObserver | None

    @property
    def publisher(self) -> Publisher:
        """The publisher under whose name tracers see it."""

    @property
    def unacked(self) -> Unacked:
        """Ledger of what it was given."""

    @property
    def loses_consumers(self) -> bool:
        """True if it goes on when it has held messages of a consumer for too long."""

    def consumer_lost(self, tag: str) -> None:
        """A consumer has ended that its client did not stop."""

    def requeue_timed_out(self, late: OverdueDeliveries) -> TimedOutDeliveries:
        """Put back messages that its client has held for too long."""

    def refuse(self, error: BrokerError) -> None:
        """Close it for something that its client did not ask for, unless it has ended."""


class Subscription:
    """Consumer of a client that writes what it is given to the client's output: a `ClientSink`."""

    __slots__ = ("_channel", "_is_timed_out", "_output", "_tag", "_writer", "arguments", "consumer")

    def __init__(
        self, channel: SubscriptionChannel, tag: str, output: OutputBuffer, writer: DeliveryWriter
    ) -> None:
        self._channel = channel
        self._tag = tag
        self._output = output
        self._writer = writer
        self._is_timed_out = False
        """True if that has ended it."""
        self.arguments: FieldTable = EMPTY_DICT
        self.consumer: Consumer
        """Until `end`."""

    def end(self) -> None:
        """Let the consumer go, which has this: it may be held by messages that it was handed."""
        self._output.forget(self.consumer)
        del self.consumer

    def room(self, consumer: Consumer) -> int:
        return self._output.room(consumer)

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self._output.reserve(burst_bytes(delivery_batch))

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Send a run, or give it back when this consumer has ended since it was handed out."""
        channel = self._channel
        if self._is_open:
            tracer = channel.session.vhost.tracer
            if tracer is not None:
                tracer.delivered(channel.publisher.traced, delivery_batch, channel.unacked.next_tag)
            self._writer.send(delivery_batch)
            if channel.observer is not None:
                channel.observer.delivered(delivery_batch)
        else:
            self._output.unreserve(burst_bytes(delivery_batch))
            delivery_batch.holder.queue.settle(
                delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT
            )

    def cancelled(self, consumer: Consumer) -> None:
        """Notify the client that its queue is deleted, or may not be read any more."""
        if consumer_lost(self._channel, self._tag):
            self._channel.consumer_lost(consumer.tag)

    @property
    def _is_open(self) -> bool:
        return self._channel.subscriptions.get(self._tag) is self

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        """End a consumer in this process that held messages for too long, as if its client had
        cancelled it."""
        channel = self._channel
        lost = channel.requeue_timed_out(late)
        if self._is_open and channel.loses_consumers:
            channel.session.detach(consumer)
        self.timed_out(consumer, lost)

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        channel = self._channel
        log_timeout(channel, consumer.queue, lost, consumer.tag)
        if self._is_open and channel.loses_consumers:
            self._is_timed_out = True
            self.cancelled(consumer)
        elif not self._is_timed_out:
            channel.refuse(timeout_error(channel, lost))

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: clients are not notified."""


@dataclass(frozen=True, slots=True)
class ConsumerTerms:
    """Terms on which a client consumes."""

    tag: str
    no_ack: bool = False
    exclusive: bool = False
    prefetch: int = 0
    """How many messages it may have unsettled at once; 0 is no limit."""
    arguments: FieldTable = field(default_factory=dict)
    direct: DirectWriter | None = None
    """Where messages may go that need no place in the queue; only for queues of QoS 0 of MQTT."""
    epoch: int = 0
    """See `Consumer`."""


def start_consumer(
    channel: ConsumerChannel[S], queue: QueueHandle, sink: S, terms: ConsumerTerms
) -> Deferred[None] | None:
    """Have a client consume from a queue that it may read.  None if it does so now; else the answer
    of a queue that is led elsewhere.

    QueueCrashed for a queue with damage, PreconditionFailed for arguments, AccessRefused where one
    of two consumers is exclusive, and what `credit_of` raises.
    """
    session = channel.session
    check_running(queue, session.vhost.name)
    arguments = consumer_arguments(terms.arguments, queue.spec, session.vhost.name)
    sink.consumer = Consumer(
        terms.tag,
        queue,
        sink,
        shared=channel.credit_of(queue),
        prefetch=terms.prefetch,
        priority=arguments.priority,
        no_ack=terms.no_ack,
        exclusive=terms.exclusive,
        timeout_ms=arguments.timeout_ms,
        direct=terms.direct,
        epoch=terms.epoch,
    )
    attached = session.vhost.attach(sink.consumer)
    channel.subscriptions[terms.tag] = sink  # if this ends before, so does its attachment
    return attached


def consumer_started(channel: ConsumerChannel[S], tag: str, arguments: FieldTable) -> None:
    """Notify observers of a consumer that takes part; nothing has been delivered to it."""
    observers, sink = channel.session.observers, channel.subscriptions.get(tag)
    if observers and sink is not None:
        sink.arguments = arguments
        for observer in observers:
            observer.consumer_started(channel, sink.consumer, arguments)


def stop_consumer(channel: ConsumerChannel[S], tag: str) -> Deferred[None] | None:
    """Have nothing more handed out to a consumer but what was published before, if there is one of
    this tag.  None if that is so now; else the answer of a queue that is led elsewhere."""
    sink = channel.subscriptions.get(tag)
    if sink is None:
        return None
    consumer = sink.consumer
    consumer.queue.deliver_ready()  # mutant: CO1
    channel.session.detach(consumer)
    notify_ended(channel, consumer)
    return consumer.queue.settling


def forget_consumer(channel: ConsumerChannel[S], tag: str) -> None:
    """Have no consumer of this tag any more, if there is one."""
    sink = channel.subscriptions.pop(tag, None)
    if sink is not None:
        let_go(channel, sink)


def consumer_lost(channel: ConsumerChannel[S], tag: str) -> bool:
    """Have no consumer of this tag any more, which its queue has ended; whether there was one."""
    sink = channel.subscriptions.pop(tag, None)
    if sink is None:
        return False
    notify_ended(channel, let_go(channel, sink))
    return True


def end_consumers(channel: ConsumerChannel[S]) -> None:
    """Stop all consumers of a channel that ends."""
    sinks = tuple(channel.subscriptions.values())
    channel.subscriptions.clear()
    for sink in sinks:
        consumer = let_go(channel, sink)
        channel.session.detach(consumer)
        notify_ended(channel, consumer)


def let_go(channel: ConsumerChannel[S], sink: S) -> Consumer:
    """End the sink of a consumer, and its part in what is shared; the consumer."""
    consumer = sink.consumer
    channel.shared_credit.forget(consumer)
    sink.end()
    return consumer


def notify_ended(channel: DeliveryChannel, consumer: Consumer) -> None:
    """Notify observers that a consumer has ended."""
    for observer in channel.session.observers:
        observer.consumer_ended(channel, consumer)


def deliver_ready(channel: ConsumerChannel[S]) -> None:
    """Hand out to its consumers what was published before what its client asks for now."""
    for sink in tuple(channel.subscriptions.values()):
        sink.consumer.queue.deliver_ready()


# Messages held for too long: with RabbitMQ 4.3, too, a client that understands basic.cancel loses
# its consumer and no more; of another, and of one that got its messages with basic.get, the channel
# is closed.


def none_settled(_delivery_batch: DeliveryBatch) -> Iterable[tuple[int, int]]:
    """Where a client settles in no transaction."""
    return ()


def requeue_timed_out(
    late: OverdueDeliveries, settled_of: SettledOf = none_settled
) -> TimedOutDeliveries:
    """Put back messages that are in a client's hands as far as their queue knows, though they may
    have been settled in a transaction."""
    count, firsts = 0, []
    for delivery_batch in late.delivery_batches:
        for start, stop in (*delivery_batch.unsettled(), *settled_of(delivery_batch)):
            count += stop - start
            firsts.append(delivery_batch.sequences[start])
            delivery_batch.holder.queue.settle(delivery_batch, start, stop, Outcome.TIMED_OUT)
    return TimedOutDeliveries(count, min(firsts, default=0), late.held_ms, late.timeout_ms)


def log_timeout(
    channel: DeliveryChannel,
    queue: QueueHandle,
    lost: TimedOutDeliveries,
    consumer_tag: str | None = None,
) -> None:
    """Log what the consumer held, and for how long, and count it."""
    session = channel.session
    session.deliveries_from(queue).timed_out += lost.messages
    event(
        logger,
        logging.WARNING,
        "consumer_timed_out",
        connection=session.name,
        channel=channel.number,
        consumer_tag=consumer_tag,
        vhost=session.vhost.name,
        queue=queue.name,
        messages=lost.messages,
        first=lost.first,
        held_ms=lost.held_ms,
        timeout_ms=lost.timeout_ms,
    )


def timeout_error(channel: SessionChannel, lost: TimedOutDeliveries) -> PreconditionFailed:
    """The error for which a channel ends, and all that its client holds comes back."""
    return PreconditionFailed(
        f"delivery acknowledgement on channel {channel.number} timed out. Timeout value used: "
        f"{lost.timeout_ms} ms. This timeout value can be configured, see consumers doc guide to "
        "learn more"
    )


# Single messages that a client gets from a queue


def get_message(
    holder: Holder, vhost_name: str
) -> DeliveryBatch | Deferred[DeliveryBatch | None] | None:
    """Hand out the next message of a queue to the holder, if there is one.

    ResourceLocked for a quorum queue with a single active consumer; QueueCrashed.
    """
    queue = holder.queue
    if queue.spec.queue_type is QueueType.QUORUM and queue.spec.single_active_consumer:
        raise ResourceLocked(
            f"cannot obtain access to locked {described(queue, vhost_name)}. basic.get operations "
            "are not supported by quorum queues with single active consumer"
        )
    got = queue.get(holder) if queue.damage is None else None
    check_running(queue, vhost_name)  # it may have come upon damage only now
    return got


def check_running(queue: QueueHandle, vhost_name: str) -> None:
    """QueueCrashed for a queue that came upon damage."""
    if queue.damage is not None:
        raise QueueCrashed(described(queue, vhost_name))


def described(queue: QueueHandle, vhost_name: str) -> str:
    """Name of a queue in errors for clients."""
    return f"queue '{queue.name}' in vhost '{vhost_name}'"


def count_got(session: Session, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
    """Count a message that a client was given of what it asked, or that there was none."""
    if delivery_batch is None:
        session.deliveries_from(queue).get_empty += 1
        return
    deliveries = session.deliveries_from(delivery_batch.holder.queue)
    if delivery_batch.holder.no_ack:
        deliveries.got_auto_ack += 1
    else:
        deliveries.got_manual_ack += 1
    deliveries.redelivered += delivery_batch.redelivered


def requeue(delivery_batch: DeliveryBatch | None) -> None:
    """Requeue a message whose receiver is gone."""
    if delivery_batch is not None:
        queue = delivery_batch.holder.queue
        queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT)
