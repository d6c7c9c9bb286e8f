"""What is bound to an x-recent-history exchange gets the messages that it has kept."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from fluffle.broker.protocols.amqp091.properties import read_expiration
from fluffle.broker.queues.queue_api import EnqueueResult, PartialResult, QueueTarget
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.recent_history import HistoryMessage
from fluffle.protocol.properties import decode_properties, priority_of, raw_properties

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel


def replay_history(channel: Channel, binding: Binding) -> None:
    """Put what the source has kept into the queue of a new binding, or where the exchange leads.

    The oldest first.  What answers the binding then vouches for messages that are recorded.
    """
    vhost = channel.session.vhost
    source = vhost.topology.find(binding.source)
    if source is None or source.history is None:
        return
    if binding.destination_kind is DestinationKind.EXCHANGE:
        for message in source.history:
            for target in pass_on(channel, binding.destination, message):
                put(channel, target, [message])
        return
    name = binding.destination
    inlet = vhost.inlets.get(name) or vhost.queues.get(name)
    if inlet is not None:
        for _alike, run in groupby(source.history, key=way_in):
            put(channel, inlet, list(run))


def pass_on(channel: Channel, exchange: str, message: HistoryMessage) -> tuple[QueueTarget, ...]:
    """Where an exchange leads a kept message, having kept it there, too."""
    keys = (message.origin.routing_key, *message.more_routing_keys)
    properties = decode_properties(raw_properties(message.content))
    targets, histories, _ = channel.session.vhost.route(exchange, keys, properties)
    for history in histories:
        history.keep(message)
    return targets


def way_in(message: HistoryMessage) -> tuple[bool, int | None, int | None]:
    """Whether it is persistent, its priority, and for how long it may wait: what those have in
    common that a queue is given together."""
    return message.persistent, priority_of(message.content), lifetime_ms(message)


def lifetime_ms(message: HistoryMessage) -> int | None:
    """It begins anew, as with RabbitMQ."""
    text = decode_properties(raw_properties(message.content)).expiration
    return read_expiration(text) if text is not None else None


def put(channel: Channel, target: QueueTarget, run: list[HistoryMessage]) -> None:
    """Messages with one way in; nobody waits until a queue elsewhere has them, as with RabbitMQ."""
    contents = [message.content for message in run]
    answer = target.enqueue(
        [message.origin for message in run],
        contents,
        sum(map(len, contents)),
        persistent=run[0].persistent,
        expiration_ms=lifetime_ms(run[0]),
    )
    if (answer.taken if isinstance(answer, PartialResult) else answer) is EnqueueResult.RECORDED:
        channel.recorded()
