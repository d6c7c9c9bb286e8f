"""Consumers of a client: how they start, stop and end, whatever its protocol.

    attached = start_consumer(channel, queue, sink, ConsumerTerms("tag", prefetch=10))
    consumer_started(channel, "tag", arguments)   # now, or once `attached` is answered
    ...                                           # the queue gives messages to the sink
    left = stop_consumer(channel, "tag")          # it is handed out nothing more
    forget_consumer(channel, "tag")               # now, or once `left` is answered

A channel is what has consumers with tags of their own: that of AMQP, or all of a client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from fluffle.broker.base.errors import NotImplementedHere
from fluffle.broker.core.client import ObservedChannel
from fluffle.broker.core.queue_get import check_running, described
from fluffle.broker.queues.arguments import QueueType, consumer_arguments
from fluffle.broker.queues.queue_api import Consumer, SharedCredit, Sink
from fluffle.protocol.types import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.queues.queue_api import Deferred, QueueHandle


class ClientSink(Sink, Protocol):
    """Sink of a client's consumer, which it has from its start until `end`."""

    consumer: Consumer
    arguments: FieldTable
    """With which it was started; only where an observer may want them."""

    def end(self) -> None:
        """Let the consumer go, and send it nothing more."""


S = TypeVar("S", bound=ClientSink)


class ConsumerChannel(ObservedChannel, Protocol[S]):
    """Channel of a client that has consumers."""

    shared_credit: SharedCredit
    """Room that they share."""
    subscriptions: dict[str, S]
    """Where their messages go, by their tags."""


@dataclass(frozen=True, slots=True)
class ConsumerTerms:
    """Terms on which a client consumes."""

    tag: str
    no_ack: bool = False
    exclusive: bool = False
    prefetch: int = 0
    """How many messages it may have unsettled at once; 0 is no limit."""
    arguments: FieldTable = field(default_factory=dict)


def start_consumer(
    channel: ConsumerChannel[S], queue: QueueHandle, sink: S, terms: ConsumerTerms
) -> Deferred[None] | None:
    """Have a client consume from a queue that it may read.  None if it does so now; else the answer
    of a queue that is led elsewhere.

    NotFound for a queue with damage, NotImplementedHere for shared credit that it knows nothing of,
    PreconditionFailed for arguments, AccessRefused where one of two consumers is exclusive.
    """
    session, credit = channel.session, channel.shared_credit
    check_running(queue, session.vhost.name)
    arguments = consumer_arguments(terms.arguments, queue.spec, session.vhost.name)
    is_apart = queue.spec.queue_type is QueueType.QUORUM and not session.quorum_global_qos
    if is_apart and credit.limit:
        where = described(queue, session.vhost.name)
        raise NotImplementedHere(f"{where} does not support global qos")
    sink.consumer = Consumer(
        terms.tag,
        queue,
        sink,
        shared=SharedCredit() if is_apart else credit,
        prefetch=terms.prefetch,
        priority=arguments.priority,
        no_ack=terms.no_ack,
        exclusive=terms.exclusive,
        timeout_ms=arguments.timeout_ms,
    )
    attached = session.vhost.attach(sink.consumer)
    channel.subscriptions[terms.tag] = sink  # if this ends before, so does its attachment
    return attached


def consumer_started(channel: ConsumerChannel[S], tag: str, arguments: FieldTable) -> None:
    """Tell observers of a consumer that takes part; nothing has been delivered to it."""
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
    tell_ended(channel, consumer)
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
    tell_ended(channel, let_go(channel, sink))
    return True


def end_consumers(channel: ConsumerChannel[S]) -> None:
    """Stop all consumers of a channel that ends."""
    sinks = tuple(channel.subscriptions.values())
    channel.subscriptions.clear()
    for sink in sinks:
        consumer = let_go(channel, sink)
        channel.session.detach(consumer)
        tell_ended(channel, consumer)


def let_go(channel: ConsumerChannel[S], sink: S) -> Consumer:
    """End the sink of a consumer, and its part in what is shared; the consumer."""
    consumer = sink.consumer
    channel.shared_credit.forget(consumer)
    sink.end()
    return consumer


def tell_ended(channel: ObservedChannel, consumer: Consumer) -> None:
    """Tell observers that a consumer has ended."""
    for observer in channel.session.observers:
        observer.consumer_ended(channel, consumer)


def deliver_ready(channel: ConsumerChannel[S]) -> None:
    """Hand out to its consumers what was published before what its client asks for now."""
    for sink in tuple(channel.subscriptions.values()):
        sink.consumer.queue.deliver_ready()
