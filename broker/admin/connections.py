"""connections.*, channels.list, consumers.list: clients by RabbitMQ's columns, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows, Work
from fluffle.broker.admin.statistics import ages_asked, channel_details
from fluffle.broker.admin.users import check_exist
from fluffle.broker.base.errors import ConnectionForced, NotFound, PreconditionFailed, SyntaxFailure
from fluffle.broker.core.client import (
    WITHOUT_CHANNELS,
    channel_name,
    channel_row,
    client_fields,
    connection_row,
    consumer_row,
)
from fluffle.broker.core.connections import FORCED_CLOSES_AT_ONCE, close_connection
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.process.encryption import NOT_ENCRYPTED, encryption_row
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.runtime.background import in_pieces
from fluffle.broker.statistics.report import SampleWindows

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, ClientConsumer, ListedClient

REASON = "closed by the operator"

ONE_CHANNEL_ONLY = ("publishes", "deliveries")
"""Counts of a channel by exchange and by queue: only of one that is asked for alone."""


def full_connection_row(
    context: NodeContext, connection: ListedClient, windows: SampleWindows
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
    connection: ListedClient,
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
    context: NodeContext, connection: ListedClient, channel: ClientChannel
) -> list[Row]:
    """List the consumers of a channel."""
    subscriptions = tuple(channel.subscriptions.values())
    return [full_consumer_row(context, connection, channel, each) for each in subscriptions]


def full_consumer_row(
    context: NodeContext,
    connection: ListedClient,
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


def consumer_timeout_ms(context: NodeContext, vhost: str, spec: QueueSpec) -> int | None:
    """Return how long a queue lets a client hold a message; None: for ever."""
    said = context.catalogue.policies.settings_of(vhost, spec).consumer_timeout_ms
    if said is not None or spec.queue_type is not QueueType.QUORUM:
        return said
    return context.config.quorum.consumer_timeout_ms


def connection_details(connection: ListedClient) -> Row:
    """Columns of a channel that name its connection."""
    (peer_host, peer_port), _here = connection.ends
    return {"name": connection.name, "peer_host": peer_host, "peer_port": peer_port}


def list_connections(
    context: NodeContext,
    *,
    name: str | None = None,
    user: str | None = None,
    vhost: str | None = None,
    ages: dict[str, Any] | None = None,
) -> Rows:
    """Rows of the connections that match all given filters, those before login included.

    `ages`: which past is wanted of what has gone over them, as `statistics.ages` has it.
    """
    wanted, past = given(name=name, user=user, vhost=vhost), ages_asked(ages)
    return (
        full_connection_row(context, connection, past)
        for connection in context.connections.listed
        if not wanted or wanted.items() <= client_fields(connection).items()
    )


def list_of_protocol(context: NodeContext, *, protocol: str) -> Rows:
    """List connections whose protocol has a name that begins with `protocol`, with the fields that
    only this protocol has."""
    past = ages_asked(None)
    for connection in context.connections:
        if connection.session is not None and connection.protocol.startswith(protocol):
            row = full_connection_row(context, connection, past)
            yield {**row, **traffic_of(connection), **connection.protocol_row}


def traffic_of(connection: ListedClient) -> Row:
    """Return octets and packets of a connection by RabbitMQ's names, also without rates."""
    return {
        "recv_oct": connection.read_bytes,
        "recv_cnt": connection.reads,
        "send_oct": connection.written_bytes,
        "send_cnt": connection.writes,
        "send_pend": connection.unwritten_bytes,
    }


def list_sessions(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """List sessions that this node keeps for clients, connected or away: of one virtual host, or of
    all.  NotFound."""
    names = {each.name for each in context.vhosts(vhost)}
    return (
        {"node": context.config.node_name, **row}
        for keeper in tuple(context.connections.session_keepers)
        for row in keeper.session_rows()
        if row["vhost"] in names
    )


def given(**arguments: str | None) -> Row:
    """Arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def close(
    context: NodeContext,
    *,
    reason: str = REASON,
    name: str | None = None,
    user: str | None = None,
    vhost: str | None = None,
    everybody: bool = False,
) -> DeferredRow:
    """Close the connections to which all applies that is given; how many there were.

    NotFound when none has that name, or there is no such user or vhost; PreconditionFailed for the
    name of a request, which is listed with them and ends when it is answered.
    """
    if name is None and user is None and vhost is None and not everybody:
        raise SyntaxFailure("say which connections: by name, user or vhost, or everybody")
    check_exist(context, user, vhost)
    if name is not None and all(connection.name != name for connection in context.connections):
        if any(request.name == name for request in context.connections.requests):
            raise PreconditionFailed(
                f"connection '{name}' is a request of the management API, which ends by itself"
            )
        raise NotFound(f"no connection '{name}'")
    wanted = given(name=name, user=user, vhost=vhost)
    return context.later(close_those(context, wanted, ConnectionForced(reason)))


def close_those(context: NodeContext, wanted: Row, why: ConnectionForced) -> Work:
    """A few in a turn."""
    closed = 0
    for piece in in_pieces(context.connections, FORCED_CLOSES_AT_ONCE):
        for connection in piece:
            if wanted.items() <= client_fields(connection).items():
                close_connection(connection, why)
                closed += 1
        yield None
    return {"closed": closed}


def list_channels(
    context: NodeContext,
    *,
    name: str | None = None,
    connection: str | None = None,
    vhost: str | None = None,
    ages: dict[str, Any] | None = None,
) -> Rows:
    """Yield a row for each open channel; one that is named has more columns: `full_channel_row`."""
    past = ages_asked(ages)
    return (
        full_channel_row(context, each, channel, past, alone=name is not None)
        for each, channel in channels(context)
        if name in (None, channel_name(each, channel))
        and channel.number != WITHOUT_CHANNELS
        and connection in (None, each.name)
        and vhost in (None, channel.session.vhost.name)
    )


def channels(context: NodeContext) -> Iterator[tuple[ListedClient, ClientChannel]]:
    """All, each with its connection."""
    for connection in context.connections.listed:
        for channel in tuple(connection.channels):
            yield connection, channel


def list_consumers(
    context: NodeContext, *, vhost: str | None = None, queue: str | None = None
) -> Rows:
    """Rows of the consumers of a virtual host, or of all; or of the queues with that name."""
    names = {each.name for each in context.vhosts(vhost)}
    return (
        full_consumer_row(context, connection, channel, subscription)
        for connection, channel in channels(context)
        if channel.session.vhost.name in names
        for subscription in tuple(channel.subscriptions.values())
        if queue in (None, subscription.consumer.queue.name)
    )


READS: Mapping[str, Callable[..., Any]] = {
    "connections.list": list_connections,
    "connections.of_protocol": list_of_protocol,
    "sessions.list": list_sessions,
    "channels.list": list_channels,
    "consumers.list": list_consumers,
}
CHANGES: Mapping[str, Callable[..., Any]] = {"connections.close": close}
