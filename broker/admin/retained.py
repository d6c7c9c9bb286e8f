"""Commands retained.*: list, show and remove retained messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.admin.context import NodeContext, Result, Row, Rows, Work
from fluffle.broker.admin.messages import shown_body, shown_properties
from fluffle.broker.base.errors import NotFound
from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.definitions.retained import forget_retained, remove_retained
from fluffle.broker.metadata.change import Change
from fluffle.protocol.properties import body_of, body_size, decode_properties, raw_properties


def list_retained(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """List retained messages of one virtual host, or of all, without payloads."""
    return (
        row_of(each.name, topic, message)
        for each in context.vhosts(vhost)
        for topic, message in each.retained
    )


def row_of(vhost: str, topic: str, message: RetainedMessage) -> Row:
    expires_at_ms = message.expires_at_ms
    return {
        "vhost": vhost,
        "topic": topic,
        "user": message.user,
        "stored_at_ms": message.stored_at_ms,
        "expires_at_ms": None if expires_at_ms == NEVER_EXPIRES_MS else expires_at_ms,
        "payload_bytes": body_size(message.content),
    }


def show(context: NodeContext, *, topic: str, vhost: str) -> Row:
    """Return the retained message of a topic with properties and payload.  NotFound."""
    message = found(context, vhost, topic)
    properties = decode_properties(raw_properties(message.content))
    payload, encoding = shown_body(body_of(message.content), is_whole=True)
    return {
        **row_of(vhost, topic, message),
        "headers": plain(properties.headers or {}),
        "properties": dict(shown_properties(properties)),
        "payload": payload,
        "payload_encoding": encoding,
    }


def found(context: NodeContext, vhost: str, topic: str) -> RetainedMessage:
    """The message of a topic.  NotFound."""
    message = context.vhost(vhost).retained.find(topic)
    if message is None:
        raise NotFound(f"nothing is retained under '{topic}' in vhost '{vhost}'")
    return message


def clear(context: NodeContext, *, topic: str, vhost: str) -> Result:
    """Remove one of them.  NotFound."""

    def decide() -> Change:
        found(context, vhost, topic)
        return remove_retained(context.catalogue, vhost, [topic])

    return context.change(decide)


def clear_all(context: NodeContext, *, vhost: str) -> Result:
    """Remove all of a virtual host that there are now; how many.  NotFound."""
    context.vhost(vhost)
    return context.later(clearing(context, vhost))


def clearing(context: NodeContext, name: str) -> Work:
    """At the pace of the disk."""
    vhost = context.vhost(name)
    count = vhost.retained.count
    for decide in forget_retained(context.catalogue, vhost):
        context.metadata.ensure(decide)
        yield context.runtime.commits.ticket
    return {"messages": count}


READS: Mapping[str, Callable[..., Any]] = {"retained.list": list_retained, "retained.show": show}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "retained.clear": clear,
    "retained.clear_all": clear_all,
}
