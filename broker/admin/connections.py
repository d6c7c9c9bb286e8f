"""connections.*, channels.list and consumers.list: who is there, and out with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.clients import told_channel, told_connection, told_consumer
from fluffle.broker.admin.context import Later, Parts, Row, Rows, Work
from fluffle.broker.admin.permissions import check_exist
from fluffle.broker.admin.queue_statistics import ages_asked
from fluffle.broker.base.errors import ConnectionForced, NotFound, SyntaxFailure
from fluffle.broker.protocols.amqp091.forced_closes import PIECE, part_with
from fluffle.broker.protocols.amqp091.listings import channel_name, whose
from fluffle.broker.runtime.background import in_pieces

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.channel import Channel
    from fluffle.broker.protocols.amqp091.connection import Connection

REASON = "closed by the operator"


def list_connections(
    parts: Parts,
    *,
    name: str | None = None,
    user: str | None = None,
    vhost: str | None = None,
    ages: dict[str, Any] | None = None,
) -> Rows:
    """Those to which all applies that is given, those that have not logged in yet included.

    `ages`: which past is wanted of what has gone over them, as `statistics.ages` has it.
    """
    wanted, past = given(name=name, user=user, vhost=vhost), ages_asked(ages)
    return (
        told_connection(parts, connection, past)
        for connection in parts.connections
        if not wanted or wanted.items() <= whose(connection).items()
    )


def given(**arguments: str | None) -> Row:
    """Those that are."""
    return {name: value for name, value in arguments.items() if value is not None}


def close(
    parts: Parts,
    *,
    reason: str = REASON,
    name: str | None = None,
    user: str | None = None,
    vhost: str | None = None,
    everybody: bool = False,
) -> Later:
    """Close the connections to which all applies that is given; how many there were.

    NotFound when none has that name, or there is no such user or vhost.
    """
    if name is None and user is None and vhost is None and not everybody:
        raise SyntaxFailure("say which connections: by name, user or vhost, or everybody")
    check_exist(parts, user, vhost)
    if name is not None and all(connection.name != name for connection in parts.connections):
        raise NotFound(f"no connection '{name}'")
    wanted = given(name=name, user=user, vhost=vhost)
    return parts.later(close_those(parts, wanted, ConnectionForced(reason)))


def close_those(parts: Parts, wanted: Row, why: ConnectionForced) -> Work:
    """A few in a turn."""
    closed = 0
    for piece in in_pieces(parts.connections, PIECE):
        for connection in piece:
            if wanted.items() <= whose(connection).items():
                part_with(connection, why)
                closed += 1
        yield None
    return {"closed": closed}


def list_channels(
    parts: Parts,
    *,
    name: str | None = None,
    connection: str | None = None,
    vhost: str | None = None,
    ages: dict[str, Any] | None = None,
) -> Rows:
    """Those that are open; of one that is asked for by name more is told: see `told_channel`."""
    past = ages_asked(ages)
    return (
        told_channel(parts, each, channel, past, alone=name is not None)
        for each, channel in channels(parts)
        if name in (None, channel_name(each, channel))
        and connection in (None, each.name)
        and vhost in (None, channel.session.vhost.name)
    )


def channels(parts: Parts) -> Iterator[tuple[Connection, Channel]]:
    """All, each with its connection."""
    for connection in parts.connections:
        for channel in tuple(connection.channels):
            yield connection, channel


def list_consumers(parts: Parts, *, vhost: str | None = None, queue: str | None = None) -> Rows:
    """Those of a virtual host, or all; or of queues of that name."""
    names = {each.name for each in parts.vhosts(vhost)}
    return (
        told_consumer(parts, connection, channel, subscription)
        for connection, channel in channels(parts)
        if channel.session.vhost.name in names
        for subscription in tuple(channel.subscriptions.values())
        if queue in (None, subscription.consumer.queue.name)
    )


READS: Mapping[str, Callable[..., Any]] = {
    "connections.list": list_connections,
    "channels.list": list_channels,
    "consumers.list": list_consumers,
}
CHANGES: Mapping[str, Callable[..., Any]] = {"connections.close": close}
