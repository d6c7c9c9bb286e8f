"""Connections, channels and consumers as RabbitMQ's management has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.admin.context import Parts, Row
from fluffle.broker.definitions.values import plain
from fluffle.broker.observability.statistics.sample_window import Ages
from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.protocols.amqp091.encryption import NOT_ENCRYPTED, encryption_row
from fluffle.broker.protocols.amqp091.listings import (
    channel_name,
    channel_row,
    connection_row,
    consumer_row,
)
from fluffle.broker.protocols.amqp091.subscription import Subscription
from fluffle.broker.queues.arguments import QueueSpec, QueueType

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.connection import Connection

APART = ("publishes", "deliveries")
"""What of a channel is told by exchange and by queue: of one that is asked for alone."""


def told_connection(parts: Parts, connection: Connection, ages: Ages) -> Row:
    """With what has gone over it, where that is counted."""
    row = connection_row(connection)
    tls, statistics = connection.tls, parts.statistics
    return {
        **row,
        "user_who_performed_action": row["user"],
        "client_properties": plain(connection.handshake.client_properties),
        **(NOT_ENCRYPTED if tls is None else encryption_row(tls, connection.certificate)),
        **({} if statistics is None else statistics.of_connection(connection, ages)),
    }


def told_channel(
    parts: Parts, connection: Connection, channel: Channel, ages: Ages, *, alone: bool = False
) -> Row:
    """`alone`: also by exchange and by queue, and with its consumers."""
    row, statistics = channel_row(connection, channel), parts.statistics
    transaction = channel.transaction
    counts = {} if statistics is None else statistics.of_channel(channel, ages)
    if not alone:
        counts = {name: value for name, value in counts.items() if name not in APART}
    return {
        **row,
        "user_who_performed_action": row["user"],
        "connection_details": ends(connection),
        "state": "flow" if connection.state == "flow" else "running",
        "messages_uncommitted": transaction.message_count if transaction else 0,
        "acks_uncommitted": transaction.settled_count if transaction else 0,
        "pending_raft_commands": len(channel.far),
        **counts,
        **({"consumer_details": consumers_of(parts, connection, channel)} if alone else {}),
    }


def consumers_of(parts: Parts, connection: Connection, channel: Channel) -> list[Row]:
    """Those of a channel."""
    subscriptions = tuple(channel.subscriptions.values())
    return [told_consumer(parts, connection, channel, each) for each in subscriptions]


def told_consumer(
    parts: Parts, connection: Connection, channel: Channel, subscription: Subscription
) -> Row:
    """Where it is, and what it has been promised."""
    consumer = subscription.consumer
    row = consumer_row(connection, channel, consumer)
    timeout_ms = consumer.timeout_ms
    if timeout_ms is None:
        timeout_ms = consumer_timeout_ms(parts, row["vhost"], consumer.queue.spec)
    return {
        **row,
        "arguments": plain(subscription.arguments),
        "queue": {"name": row["queue_name"], "vhost": row["vhost"]},
        "channel_details": channel_details(parts, connection, channel),
        "consumer_timeout": timeout_ms,
    }


def channel_details(parts: Parts, connection: Connection, channel: Channel) -> Row:
    """Which channel it is, and whose."""
    return {
        "name": channel_name(connection, channel),
        "number": channel.number,
        "node": parts.config.node_name,
        "user": channel.session.user.name,
        "connection_name": connection.name,
        "peer_host": connection.ends[0][0],
        "peer_port": connection.ends[0][1],
    }


def consumer_timeout_ms(parts: Parts, vhost: str, spec: QueueSpec) -> int | None:
    """For how long a queue lets a client hold a message; None: for ever."""
    said = parts.catalogue.policies.settings_of(vhost, spec).consumer_timeout_ms
    if said is not None or spec.queue_type is not QueueType.QUORUM:
        return said
    return parts.config.quorum.consumer_timeout_ms


def ends(connection: Connection) -> Row:
    """Whose channel it is."""
    (peer_host, peer_port), _here = connection.ends
    return {"name": connection.name, "peer_host": peer_host, "peer_port": peer_port}
