"""What the broker itself publishes: copies of messages, and events."""

from __future__ import annotations

from collections.abc import Iterable

from fluffle.broker.routing.history import Kept
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.properties import (
    DELIVERY_MODE_PERSISTENT,
    Properties,
    build_content,
    encode_properties,
)


def publish_own(
    vhost: VirtualHost, exchange: str, messages: Iterable[tuple[str, Properties, bytes]]
) -> None:
    """Put messages (routing key, properties, body) where an exchange leads.

    At most once: nobody is told whether they have been taken, and what leads nowhere is gone.
    """
    for routing_key, properties, body in messages:
        queues, histories = vhost.way(exchange, (routing_key,), properties)
        if not (queues or histories):
            continue
        origin = vhost.origin(exchange, routing_key)
        content = build_content(encode_properties(properties), body)
        persistent = properties.delivery_mode == DELIVERY_MODE_PERSISTENT
        for history in histories:
            history.keep(Kept(origin, content, (), persistent))
        for queue in queues:
            queue.enqueue([origin], [content], len(content), persistent=persistent)
