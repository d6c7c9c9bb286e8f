"""queues.peek and messages.held: ready messages without taking them, and messages held by
clients."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.base.errors import BrokerError, PreconditionFailed, SyntaxFailure
from fluffle.broker.core.client import channel_name
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import (
    Consumer,
    Deferred,
    PeekedMessage,
    PeekRequest,
    QueueHandle,
)
from fluffle.broker.vhosts.vhost import existing_queue
from fluffle.protocol.properties import Properties, decode_properties

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, ListedClient
    from fluffle.broker.queues.queue_api import DeliveryBatch


MESSAGES_MAX = 10_000
BODY_BYTES = 1024
BODY_BYTES_MAX = 1 << 18
OFFSET_MAX = (1 << 53) - 1

T = TypeVar("T")


def peek(
    context: NodeContext,
    *,
    name: str,
    vhost: str,
    count: int = 1,
    offset: int = 0,
    body_bytes: int = BODY_BYTES,
) -> Rows:
    """Messages in the order in which they are handed out."""
    queue = existing_queue(context.vhost(vhost), name)
    check_bounds(count, "count", 1, MESSAGES_MAX)
    check_bounds(offset, "offset", 0, OFFSET_MAX)
    check_bounds(body_bytes, "body_bytes", 0, BODY_BYTES_MAX)
    return rows_of(
        queue, PeekRequest(offset, count, body_bytes), f"queue '{name}' in vhost '{vhost}'"
    )


def check_bounds(number: int, name: str, least: int, most: int) -> None:
    """SyntaxFailure."""
    if not least <= number <= most:
        raise SyntaxFailure(f"'{name}' must be from {least} to {most}")


def rows_of(queue: QueueHandle, view: PeekRequest, where: str) -> Rows:
    """Rows of ready messages: first as many as are shown at once, then those behind as they are by
    then."""
    offset, stop = view.offset, view.offset + view.most
    while offset < stop:
        peeked = yield from answered(queue.peek(view._replace(offset=offset, most=stop - offset)))
        for position, seen in enumerate(peeked.seen, start=offset):
            yield row_of(position, seen)
        if peeked.damage:
            raise PreconditionFailed(f"the next message of {where} cannot be read: {peeked.damage}")
        if not peeked.seen:
            return
        offset += len(peeked.seen)


def answered(asked: T | Deferred[T]) -> Generator[Deferred[None], None, T]:
    """Wait among rows for an answer, and return it.  Raises the error in its place."""
    if not isinstance(asked, Deferred):
        return asked
    come: Deferred[None] = Deferred()
    answers: list[T] = []
    errors: list[BrokerError] = []

    def then(note: Callable[[Any], None]) -> Callable[[Any], None]:
        def on_answer(answer: Any) -> None:
            note(answer)
            come.answer(None)

        return on_answer

    asked.then(then(answers.append), then(errors.append))
    yield come
    for error in errors:
        raise error
    return answers[0]


def row_of(position: int, seen: PeekedMessage) -> Row:
    """Under RabbitMQ's names, as far as it has any."""
    properties = decode_properties(seen.properties)
    payload, encoding = shown_body(seen.body, is_whole=len(seen.body) == seen.size_bytes)
    return {
        "position": position,
        "exchange": seen.exchange,
        "routing_key": seen.routing_key,
        "redelivered": seen.redelivered,
        "acquired_count": seen.acquired,
        "delivery_count": seen.failed,
        "expires_at_ms": None if seen.expires_at_ms == NEVER_MS else seen.expires_at_ms,
        "priority": properties.priority,
        "headers": plain(properties.headers or {}),
        "properties": dict(shown_properties(properties)),
        "payload": payload,
        "payload_encoding": encoding,
        "payload_bytes": seen.size_bytes,
    }


def shown_properties(properties: Properties) -> Mapping[str, object]:
    """Properties that are set and not shown in a column of their own."""
    values = {field.name: getattr(properties, field.name) for field in fields(properties)}
    return {
        name: value
        for name, value in values.items()
        if value is not None and name not in ("headers", "priority")
    }


def shown_body(body: bytes, *, is_whole: bool) -> tuple[str, str]:
    """Body and its encoding as RabbitMQ's management API shows them: a string if UTF-8, else
    base64.

    A character that is cut at the end is left out.
    """
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(body, final=is_whole), "string"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"


SHOWN_MAX = 1000
"""Runs of messages, those held for longest in each channel first."""


def held(context: NodeContext, *, name: str, vhost: str) -> Rows:
    """Messages that one holder was handed at one time, and has not settled."""
    queue = existing_queue(context.vhost(vhost), name)
    since, now_ms = since_of(context, queue), context.runtime.clock.wall_ms()
    return (
        {
            "queue": queue.name,
            "connection": connection.name,
            "channel": channel_name(connection, channel),
            "user": channel.session.user.name,
            **run_row(run, since(run), now_ms),
        }
        for connection, channel, run in islice(runs_of(context, vhost, name), SHOWN_MAX)
    )


def runs_of(
    context: NodeContext, vhost: str, name: str
) -> Iterator[tuple[ListedClient, ClientChannel, DeliveryBatch]]:
    """Yield the unsettled runs of a queue, each with its connection and channel."""
    for connection in context.connections.listed:
        for channel in tuple(connection.channels):
            if channel.session.vhost.name == vhost:
                yield from (
                    (connection, channel, run)
                    for run in channel.unacked.open_runs()
                    if run.holder.queue.name == name and not run.is_settled
                )


def since_of(context: NodeContext, queue: QueueHandle) -> Callable[[DeliveryBatch], int]:
    """Return a function that says since when a run is held; 0 where that is not on record.

    A quorum queue has it in its image, for its next leader.
    """
    hosted = context.cluster_view.groups.get(queue.definition.id)
    if hosted is None:
        return lambda run: run.delivered_at_ms
    from fluffle.broker.cluster.queues.quorum_member import held_since_ms  # noqa: PLC0415  of clusters

    return lambda run: run.delivered_at_ms or held_since_ms(hosted, run.sequences[run.head])


def run_row(run: DeliveryBatch, since_ms: int, now_ms: int) -> Row:
    """Show a run; `held_ms` is None where no timeout counts, so that no time was noted."""
    holder = run.holder
    return {
        "consumer_tag": holder.tag if isinstance(holder, Consumer) else None,
        "messages": len(run.contents) - run.head - len(run.holes or ()),
        "delivery_tag": run.first_tag + run.head,
        "redelivered": run.redelivered,
        "routing_keys": list(dict.fromkeys(routing_keys(run))),
        "held_ms": max(0, now_ms - since_ms) if since_ms else None,
    }


def routing_keys(run: DeliveryBatch) -> Iterator[str]:
    """Yield the routing keys of the first few messages that are held."""
    held = (at for at in range(run.head, len(run.origins)) if run.holds(at))
    for at, _ in zip(held, range(5), strict=False):
        yield run.origins[at].routing_key


READS: Mapping[str, Callable[..., Any]] = {
    "queues.peek": peek,
    "messages.held": held,
}
