"""Connections, channels and consumers for those who look at them, by RabbitMQ's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluffle.broker.core.client import channel_name
from fluffle.broker.queues.queue_api import Consumer

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, ListedClient


def whose(connection: ListedClient) -> dict[str, str]:
    """What it is looked for by, which is far less than the row."""
    session, user = connection.session, connection.handshake.user
    return {
        "name": connection.name,
        "user": user.name if user else "",
        "vhost": session.vhost.name if session else "",
    }


def connection_row(node: str, connection: ListedClient) -> dict[str, Any]:
    """What a connection is and what it is doing; before the login it has no user."""
    (peer_host, peer_port), (host, port) = connection.ends
    handshake = connection.handshake
    return {
        **whose(connection),
        "node": node,
        "user_provided_name": handshake.client_name,
        "state": connection.state,
        "channels": sum(1 for _channel in connection.channels),
        "peer_host": peer_host,
        "peer_port": peer_port,
        "host": host,
        "port": port,
        "ssl": connection.is_encrypted,
        "type": connection.kind,
        "protocol": connection.protocol,
        "auth_mechanism": handshake.mechanism,
        "connected_at": handshake.connected_at_ms,
        "timeout": connection.heartbeat_s,
        "channel_max": handshake.channels_max,
        "frame_max": handshake.frame_bytes_max,
    }


def channel_row(node: str, connection: ListedClient, channel: ClientChannel) -> dict[str, Any]:
    """What a channel is for, and what is unsettled on it."""
    return {
        "name": channel_name(connection, channel),
        "node": node,
        "connection": connection.name,
        "number": channel.number,
        "user": channel.session.user.name,
        "vhost": channel.session.vhost.name,
        "transactional": channel.transaction is not None,
        "confirm": channel.confirms is not None,
        "consumer_count": len(channel.subscriptions),
        "messages_unacknowledged": len(channel.unacked),
        "messages_unconfirmed": channel.confirms.open_count if channel.confirms else 0,
        "prefetch_count": channel.prefetch,
        "global_prefetch_count": channel.shared_credit.limit,
    }


def consumer_row(
    connection: ListedClient, channel: ClientChannel, consumer: Consumer
) -> dict[str, Any]:
    """What a consumer takes from where."""
    return {
        "vhost": channel.session.vhost.name,
        "queue_name": consumer.queue.name,
        "consumer_tag": consumer.tag,
        "channel": channel_name(connection, channel),
        "ack_required": not consumer.no_ack,
        "exclusive": consumer.exclusive,
        "priority": consumer.priority,
        "active": consumer.is_active,
        "activity_status": activity_of(consumer),
        "prefetch_count": consumer.prefetch,
        "messages_unacknowledged": consumer.in_flight,
    }


def activity_of(consumer: Consumer) -> str:
    """Whether a consumer is served, in RabbitMQ's words."""
    if not consumer.queue.spec.single_active_consumer:
        return "up"
    return "single_active" if consumer.is_active else "waiting"
