"""Connections, channels and consumers as RabbitMQ's management has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.core.client import Client, channel_name
from fluffle.broker.core.listings import (
    channel_row,
    connection_row,
    consumer_row,
)
from fluffle.broker.definitions.values import plain
from fluffle.broker.observability.statistics.report import SampleWindows
from fluffle.broker.process.encryption import NOT_ENCRYPTED, encryption_row
from fluffle.broker.queues.arguments import QueueSpec, QueueType

if TYPE_CHECKING:
    from fluffle.broker.core.client import (
        Client,
        ClientChannel,
        ClientConnection,
        ClientConsumer,
        SessionChannel,
    )

ONE_CHANNEL_ONLY = ("publishes", "deliveries")
"""What of a channel is told by exchange and by queue: of one that is asked for alone."""


def full_connection_row(
    context: NodeContext, connection: ClientConnection, windows: SampleWindows
) -> Row:
    """With what has gone over it, where that is counted."""
    row = connection_row(context.config.node_name, connection)
    tls, statistics = connection.tls, context.statistics
    return {
        **row,
        "user_who_performed_action": row["user"],
        "client_properties": plain(connection.handshake.client_properties),
        **(NOT_ENCRYPTED if tls is None else encryption_row(tls, connection.certificate)),
        **({} if statistics is None else statistics.of_connection(connection, windows)),
    }


def full_channel_row(
    context: NodeContext,
    connection: ClientConnection,
    channel: ClientChannel,
    windows: SampleWindows,
    *,
    alone: bool = False,
) -> Row:
    """`alone`: also by exchange and by queue, and with its consumers."""
    row, statistics = channel_row(context.config.node_name, connection, channel), context.statistics
    transaction = channel.transaction
    counts = {} if statistics is None else statistics.of_channel(channel, windows)
    if not alone:
        counts = {name: value for name, value in counts.items() if name not in ONE_CHANNEL_ONLY}
    return {
        **row,
        "user_who_performed_action": row["user"],
        "connection_details": connection_details(connection),
        "state": "flow" if connection.state == "flow" else "running",
        "messages_uncommitted": transaction.message_count if transaction else 0,
        "acks_uncommitted": transaction.settled_count if transaction else 0,
        "pending_raft_commands": len(channel.settlements.pending),
        **counts,
        **({"consumer_details": consumers_of(context, connection, channel)} if alone else {}),
    }


def consumers_of(
    context: NodeContext, connection: ClientConnection, channel: ClientChannel
) -> list[Row]:
    """Those of a channel."""
    subscriptions = tuple(channel.subscriptions.values())
    return [full_consumer_row(context, connection, channel, each) for each in subscriptions]


def full_consumer_row(
    context: NodeContext,
    connection: ClientConnection,
    channel: ClientChannel,
    subscription: ClientConsumer,
) -> Row:
    """Where it is, and what it has been promised."""
    consumer = subscription.consumer
    row = consumer_row(connection, channel, consumer)
    timeout_ms = consumer.timeout_ms
    if timeout_ms is None:
        timeout_ms = consumer_timeout_ms(context, row["vhost"], consumer.queue.spec)
    return {
        **row,
        "arguments": plain(subscription.arguments),
        "queue": {"name": row["queue_name"], "vhost": row["vhost"]},
        "channel_details": channel_details(context, connection, channel),
        "consumer_timeout": timeout_ms,
    }


def channel_details(context: NodeContext, client: Client, channel: SessionChannel) -> Row:
    """Which channel it is, and whose."""
    return {
        "name": channel_name(client, channel),
        "number": channel.number,
        "node": context.config.node_name,
        "user": channel.session.user.name,
        "connection_name": client.name,
        "peer_host": client.ends[0][0],
        "peer_port": client.ends[0][1],
    }


def consumer_timeout_ms(context: NodeContext, vhost: str, spec: QueueSpec) -> int | None:
    """For how long a queue lets a client hold a message; None: for ever."""
    said = context.catalogue.policies.settings_of(vhost, spec).consumer_timeout_ms
    if said is not None or spec.queue_type is not QueueType.QUORUM:
        return said
    return context.config.quorum.consumer_timeout_ms


def connection_details(connection: ClientConnection) -> Row:
    """Whose channel it is."""
    (peer_host, peer_port), _here = connection.ends
    return {"name": connection.name, "peer_host": peer_host, "peer_port": peer_port}
