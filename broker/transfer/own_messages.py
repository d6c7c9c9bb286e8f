"""Messages that the broker itself publishes: copies of messages, and events."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.routing.recent_history import HistoryMessage
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import (
    DELIVERY_MODE_PERSISTENT,
    Properties,
    build_content,
    encode_properties,
)


def whatever_waits(_queue: PublishTarget) -> bool:
    """Accept every queue."""
    return True


def while_it_has_room(queue: PublishTarget) -> bool:
    """Accept a queue unless so much waits for it that clients are held back."""
    return not queue.is_full


def publish_own(
    vhost: VirtualHost,
    exchange: str,
    messages: Iterable[tuple[str, Properties, bytes]],
    is_given: Callable[[PublishTarget], bool] = whatever_waits,
) -> None:
    """Put messages (routing key, properties, body) where an exchange leads.

    At most once: no answer is awaited, and what leads nowhere is gone.
    """
    for routing_key, properties, body in messages:
        queues, histories, _ = vhost.route(exchange, (routing_key,), properties)
        if not (queues or histories):
            continue
        origin = vhost.origin(exchange, routing_key)
        content = build_content(encode_properties(properties), body)
        persistent = properties.delivery_mode == DELIVERY_MODE_PERSISTENT
        for history in histories:
            history.keep(HistoryMessage(origin, content, (), persistent))
        for queue in filter(is_given, queues):
            queue.enqueue([origin], [content], len(content), persistent=persistent)
