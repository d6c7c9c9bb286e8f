"""messages.held: who has messages of a queue in hands, and for how long.

Each node knows of its own clients: `everywhere.rows` asks all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.protocols.amqp091.listings import channel_name
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.vhosts.vhost import existing_queue

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel
    from fluffle.broker.protocols.amqp091.connection import Connection
    from fluffle.broker.queues.delivery import DeliveryBatch
    from fluffle.broker.queues.queue_api import QueueHandle

SHOWN_MAX = 1000
"""Runs of messages, those held for longest in each channel first."""


def held(context: NodeContext, *, name: str, vhost: str) -> Rows:
    """Messages that one holder was handed at one time, and has not settled."""
    queue = existing_queue(context.vhost(vhost), name)
    since, now_ms = since_of(context, queue), context.clock.wall_ms()
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
) -> Iterator[tuple[Connection, Channel, DeliveryBatch]]:
    """Those of the queue, with whose they are; what is settled while they are shown is left out."""
    for connection in context.connections:
        for channel in tuple(connection.channels):
            if channel.session.vhost.name == vhost:
                yield from (
                    (connection, channel, run)
                    for run in channel.unacked.open_runs()
                    if run.holder.queue.name == name and not run.is_settled
                )


def since_of(context: NodeContext, queue: QueueHandle) -> Callable[[DeliveryBatch], int]:
    """Since when a run is held; 0 where that is not on record.

    A quorum queue has it in its image, for whoever leads it next.
    """
    hosted = context.company.groups.get(queue.definition.id)
    if hosted is None:
        return lambda run: run.delivered_at_ms
    from fluffle.broker.cluster.queues.quorum_member import held_since_ms  # noqa: PLC0415  of clusters

    return lambda run: run.delivered_at_ms or held_since_ms(hosted, run.sequences[run.head])


def run_row(run: DeliveryBatch, since_ms: int, now_ms: int) -> Row:
    """`held_ms`: None where no timeout counts, so that nobody has noted it."""
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
    """Of the first few that are held."""
    held = (at for at in range(run.head, len(run.origins)) if run.holds(at))
    for at, _ in zip(held, range(5), strict=False):
        yield run.origins[at].routing_key


READS: Mapping[str, Callable[..., Any]] = {"messages.held": held}
