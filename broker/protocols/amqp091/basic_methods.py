"""basic.qos, consume, cancel, get, ack, nack, reject and recover, and deliveries to consumers.

Runs of messages become frames, which differ only in their delivery tags and contents, so that what
surrounds these is built once for a consumer and an origin.  A hot file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.access.limits import is_reached
from fluffle.broker.base.errors import (
    NotAllowed,
    NotImplementedHere,
    PreconditionFailed,
)
from fluffle.broker.base.traffic import Deliveries
from fluffle.broker.core.consumer import (
    ConsumerTerms,
    Subscription,
    consumer_started,
    count_got,
    deliver_ready,
    forget_consumer,
    get_message,
    log_timeout,
    requeue,
    start_consumer,
    stop_consumer,
    timeout_error,
)
from fluffle.broker.core.output_buffer import burst_bytes
from fluffle.broker.core.settlement import SETTLED_AT_ONCE
from fluffle.broker.protocols.amqp091.channel import Channel, stop_replies
from fluffle.broker.queues.queue_api import (
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    TimedOutDeliveries,
)
from fluffle.protocol.hot import build_deliveries, build_mixed_deliveries, renumber
from fluffle.protocol.methods import Basic, Method, deliver_prefix, field_table, get_ok_frame, make
from fluffle.protocol.properties import split_content
from fluffle.protocol.reader import Acks
from fluffle.protocol.spec import DIRECT_REPLY_TO
from fluffle.protocol.steps import Steps, Unfinished

if TYPE_CHECKING:
    from fluffle.broker.base.message import Origin
    from fluffle.broker.core.settlement import Stretch
    from fluffle.broker.protocols.amqp091.channel import Channel
    from fluffle.broker.queues.queue_api import (
        DeliveryBatch,
        OverdueDeliveries,
        QueueHandle,
        TimedOutDeliveries,
    )


Envelope: TypeAlias = tuple[bytes, bytes, bytes]
"""Bytes in front of a delivery tag, and behind it on a first and on a later delivery."""

ENVELOPES_MAX = 1024
"""Origins for which a consumer remembers what surrounds a delivery tag."""


class Envelopes:
    """Builds the frames of deliveries for one consumer tag on one channel: a `DeliveryWriter`."""

    __slots__ = ("_channel", "_deliveries", "_envelopes", "_frame_bytes_max", "_tag")

    def __init__(self, channel: Channel, tag: str, deliveries: Deliveries) -> None:
        self._channel = channel
        self._deliveries = deliveries
        """Where what is sent is counted."""
        self._tag = tag
        self._frame_bytes_max = channel.session.frame_bytes_max or 1 << 32
        self._envelopes: dict[Origin, Envelope] = {}

    def send(self, delivery_batch: DeliveryBatch) -> None:
        """Send a run of messages; a bug ends this connection, and not the turn of all."""
        try:
            self._send(delivery_batch)
        except Exception as error:  # noqa: BLE001
            self._channel.session.connection.give_up(error)

    def _send(self, delivery_batch: DeliveryBatch) -> None:
        """Number the messages of a run and add their frames to what the connection writes."""
        channel = self._channel
        output = channel.session.output
        first_tag = channel.unacked.number(delivery_batch)
        contents, content_bytes = delivery_batch.contents, delivery_batch.content_bytes
        if channel.outgoing is not None:
            contents = channel.outgoing.intercepted(contents)
            content_bytes = sum(map(len, contents))
        if (
            content_bytes > self._frame_bytes_max
            and max(map(len, contents)) > self._frame_bytes_max
        ):
            contents = [
                split_content(content, channel.number, self._frame_bytes_max)
                for content in contents
            ]
        elif channel.number != 1:
            contents = renumber(contents, channel.number)
        tail_at = 2 if delivery_batch.redelivered else 1
        origins = delivery_batch.origins
        # Most runs have one origin: because it is faster (benchmarks/micro, build_deliveries).
        if origins.count(origins[0]) == len(origins):
            envelope = self._envelope(origins[0])
            build_deliveries(output.pieces, envelope[0], first_tag, envelope[tail_at], contents)
        else:
            envelopes = list(map(self._envelope, origins))
            prefixes = [envelope[0] for envelope in envelopes]
            tails = [envelope[tail_at] for envelope in envelopes]
            build_mixed_deliveries(output.pieces, prefixes, first_tag, tails, contents)
        output.sent(burst_bytes(delivery_batch))
        deliveries = self._deliveries
        if delivery_batch.holder.no_ack:
            deliveries.consumed_auto_ack += len(contents)
        else:
            deliveries.consumed_manual_ack += len(contents)
        if delivery_batch.redelivered:
            deliveries.redelivered += len(contents)

    def _envelope(self, origin: Origin) -> Envelope:
        """Bytes around the delivery tag of messages of this origin."""
        envelope = self._envelopes.get(origin)
        if envelope is None:
            if origin.may_be_long:  # and there are as many as batches of messages
                return self._made_envelope(origin)
            if len(self._envelopes) >= ENVELOPES_MAX:
                self._envelopes.clear()
            envelope = self._envelopes[origin] = self._made_envelope(origin)
        return envelope

    def _made_envelope(self, origin: Origin) -> Envelope:
        exchange, routing_key = origin.exchange, origin.routing_key
        return deliver_prefix(self._channel.number, self._tag, exchange, routing_key)


class ReplySubscription:
    """The requester of direct reply-to: a holder of messages that no queue has held."""

    __slots__ = ("_envelopes", "_output")

    no_ack = True

    def __init__(self, channel: Channel, tag: str) -> None:
        self._envelopes = Envelopes(channel, tag, channel.session.traffic.replies)
        self._output = channel.session.output

    timeout_ms = None

    @property
    def queue(self) -> QueueHandle:
        raise AssertionError("a message of direct reply-to was settled, and it has no queue")

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._output.reserve(burst_bytes(delivery_batch))
        self._envelopes.send(delivery_batch)

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing is counted: all is settled once it is sent."""

    def settled(self, count: int) -> None:
        raise AssertionError("a message of direct reply-to was settled, and it has no queue")

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError("it holds nothing")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError("it holds nothing")


class ChannelGetter:
    """The holder of what one basic.get takes: no prefetch limits it."""

    __slots__ = ("_channel", "no_ack", "queue")

    timeout_ms = None

    def __init__(self, channel: Channel, queue: QueueHandle, *, no_ack: bool) -> None:
        self._channel = channel
        self.queue = queue
        self.no_ack = no_ack

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Answer with the message, and with how many are left."""
        channel = self._channel
        session = channel.session
        tracer = session.vhost.tracer
        if tracer is not None:
            first_tag = channel.unacked.next_tag
            tracer.delivered(channel.publisher.traced, delivery_batch, first_tag)
        channel.vouch()
        frame = get_ok_frame(
            channel.number,
            channel.unacked.number(delivery_batch),
            redelivered=delivery_batch.redelivered,
            exchange=delivery_batch.origins[0].exchange,
            routing_key=delivery_batch.origins[0].routing_key,
            message_count=self.queue.ready_count,
        )
        session.output.add(frame)
        contents = delivery_batch.contents
        if channel.outgoing is not None:
            contents = channel.outgoing.intercepted(contents)
        session.output.add(split_content(contents[0], channel.number, session.frame_bytes_max))
        session.output.reserve(burst_bytes(delivery_batch))
        session.output.sent(burst_bytes(delivery_batch))

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """The channel's ledger is all that counts these."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        self.timed_out(self._channel.requeue_timed_out(late))

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        log_timeout(self._channel, self.queue, lost)
        self._channel.refuse(timeout_error(self._channel, lost))


def on_qos(channel: Channel, method: Method) -> None:
    """RabbitMQ's meaning: per consumer that starts later, or (global) shared and at once."""
    assert isinstance(method, Basic.Qos)
    if method.prefetch_size:
        raise NotImplementedHere(f"prefetch_size!=0 ({method.prefetch_size})")
    channel.reply(make(Basic.QosOk))
    if method.global_:
        deliver_ready(channel)  # mutant: CO2
        channel.shared_credit.limit = method.prefetch_count
        channel.shared_credit.wake()
    else:
        channel.prefetch = method.prefetch_count


def on_consume(channel: Channel, method: Method) -> None:
    assert isinstance(method, Basic.Consume)
    if method.queue == DIRECT_REPLY_TO:
        consume_replies(channel, method)
        return
    tag = new_tag(channel, method.consumer_tag)
    queue = channel.readable_queue(method.queue)
    terms = ConsumerTerms(
        tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch=channel.prefetch,
        arguments=field_table(method.arguments),
    )
    session = channel.session
    frames = Envelopes(channel, tag, session.deliveries_from(queue))
    sink = Subscription(channel, tag, session.output, frames)
    attached = start_consumer(channel, queue, sink, terms)
    undo = partial(forget_consumer, channel, tag)
    channel.ask(method, attached, partial(consuming, channel, tag, method), undo=undo)


def consuming(channel: Channel, tag: str, method: Basic.Consume, _attached: None) -> None:
    """A consumer takes part; nothing has been delivered to it."""
    if channel.session.observers:
        consumer_started(channel, tag, field_table(method.arguments))
    if not method.nowait:
        channel.reply(make(Basic.ConsumeOk, consumer_tag=tag))


def new_tag(channel: Channel, tag: str) -> str:
    """The consumer tag that was asked for, or a generated one.  NotAllowed when it is taken, or
    there are all the consumers that there may be."""
    if tag and (tag in channel.subscriptions or tag == channel.reply_tag):
        raise NotAllowed(f"attempt to reuse consumer tag '{tag}'")
    limit = channel.session.limits.consumers_max
    if is_reached(limit, len(channel.subscriptions)):
        raise NotAllowed(f"reached maximum ({limit}) of consumers per channel")
    return tag or f"amq.ctag-{channel.session.random_name()}"


def consume_replies(channel: Channel, method: Basic.Consume) -> None:
    """Become a requester of direct reply-to."""
    tag = new_tag(channel, method.consumer_tag)
    if not method.no_ack:
        raise PreconditionFailed("reply consumer cannot acknowledge")
    if channel.reply_tag:
        raise PreconditionFailed("reply consumer already set")
    replies = channel.session.replies
    name = replies.new_name(channel.session.random_name())
    channel.reply_tag, channel.publisher.reply_to = tag, name
    replies.add(name, ReplySubscription(channel, tag), channel.session.inbox)
    if not method.nowait:
        channel.reply(make(Basic.ConsumeOk, consumer_tag=tag))


def on_cancel(channel: Channel, method: Method) -> None:
    """Deliver nothing more than what is on its way; an unknown tag is answered all the same."""
    assert isinstance(method, Basic.Cancel)
    tag = method.consumer_tag or ""
    left = stop_consumer(channel, tag)
    if tag and tag == channel.reply_tag:
        stop_replies(channel)
    channel.ask(method, left, partial(cancelled, channel, tag, nowait=method.nowait))


def cancelled(channel: Channel, tag: str, _left: None, *, nowait: bool) -> None:
    """Nothing more comes for a consumer, if there was one of this tag."""
    forget_consumer(channel, tag)
    if not nowait:
        channel.reply(make(Basic.CancelOk, consumer_tag=tag))


def on_cancel_ok(channel: Channel, method: Method) -> None:
    """A client may answer a basic.cancel from the server; nothing depends on it."""


def on_get(channel: Channel, method: Method) -> None:
    assert isinstance(method, Basic.Get)
    queue = channel.readable_queue(method.queue)
    getter = ChannelGetter(channel, queue, no_ack=method.no_ack)
    got = get_message(getter, channel.session.vhost.name)
    channel.ask(method, got, partial(answer_get, channel, queue), requeue)


def answer_get(channel: Channel, queue: QueueHandle, delivery_batch: DeliveryBatch | None) -> None:
    """Send a client what it has got of a queue."""
    count_got(channel.session, queue, delivery_batch)
    if delivery_batch is None:
        channel.reply(make(Basic.GetEmpty))
    else:
        delivery_batch.holder.deliver(delivery_batch)
    if channel.observer is not None:
        channel.observer.got(queue, delivery_batch)


def ack_tags(channel: Channel, acks: Acks) -> None:
    """A run of single acks, or one with multiple."""
    settle_tags(channel, acks, Outcome.ACKED)


def on_nack(channel: Channel, method: Method) -> None:
    assert isinstance(method, Basic.Nack)
    tag = method.delivery_tag or 0
    settle_tags(
        channel,
        Acks(channel.number, tag, tag, method.multiple),
        Outcome.NACK_REQUEUED if method.requeue else Outcome.REJECTED,
    )


def on_reject(channel: Channel, method: Method) -> None:
    assert isinstance(method, Basic.Reject)
    tag = method.delivery_tag or 0
    settle_tags(
        channel,
        Acks(channel.number, tag, tag, multiple=False),
        Outcome.REJECT_REQUEUED if method.requeue else Outcome.REJECTED,
    )


def settle_tags(channel: Channel, tags: Acks, outcome: Outcome) -> None:
    """Settle what is known of `tags`; PreconditionFailed for the first that is not."""
    if tags.multiple:
        stretches, unknown_tag = channel.unacked.take_up_to(tags.last, SETTLED_AT_ONCE)
    else:
        stretches, unknown_tag = channel.unacked.take(tags.first, tags.last)
    settle_taken(channel, stretches, outcome)
    if unknown_tag is not None:
        raise PreconditionFailed(f"unknown delivery tag {unknown_tag}")
    if channel.unacked.rest:
        raise Unfinished(settle_rest_of_tags(channel, outcome))


def settle_taken(channel: Channel, stretches: list[Stretch], outcome: Outcome) -> None:
    """Settle what the ledger has let go, now or at the commit."""
    if channel.transaction is None:
        channel.settlements.settle(stretches, outcome)
    else:
        channel.transaction.settle(stretches, outcome)


def settle_rest_of_tags(channel: Channel, outcome: Outcome) -> Steps[None]:
    while channel.unacked.rest:
        yield
        settle_taken(channel, channel.unacked.take_rest(SETTLED_AT_ONCE), outcome)


def on_recover(channel: Channel, method: Method) -> None:
    raise Unfinished(recover(channel, method))


def on_recover_async(channel: Channel, method: Method) -> None:
    raise Unfinished(recover(channel, method))


def recover(channel: Channel, method: Method) -> Steps[None]:
    """Give back everything unacknowledged on the channel; RabbitMQ knows no other way."""
    if not method["requeue"]:
        raise NotImplementedHere("requeue=false")
    yield from channel.settlements.settle_all(Outcome.NACK_REQUEUED)
    if isinstance(method, Basic.Recover):
        channel.reply(make(Basic.RecoverOk))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    Basic.Qos: on_qos,
    Basic.Consume: on_consume,
    Basic.Cancel: on_cancel,
    Basic.CancelOk: on_cancel_ok,
    Basic.Get: on_get,
    Basic.Nack: on_nack,
    Basic.Reject: on_reject,
    Basic.Recover: on_recover,
    Basic.RecoverAsync: on_recover_async,
}
