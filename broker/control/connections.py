"""connections.*, channels.list and consumers.list: who is there, and out with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.chores import in_pieces
from fluffle.broker.control.parts import Later, Parts, Row, Rows, Work
from fluffle.broker.control.permissions import check_exist
from fluffle.broker.errors import ConnectionForced, NotFound, SyntaxFailure
from fluffle.broker.server.consequences import PIECE, part_with
from fluffle.broker.server.describing import channel_row, connection_row, consumer_row

REASON = "closed by the operator"


def list_connections(parts: Parts) -> Rows:
    """All of them, those that have not logged in yet included."""
    return map(connection_row, parts.connections)


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
    asked = {"name": name, "user": user, "vhost": vhost}
    wanted = {key: value for key, value in asked.items() if value is not None}
    return parts.later(close_those(parts, wanted, ConnectionForced(reason)))


def close_those(parts: Parts, wanted: Row, why: ConnectionForced) -> Work:
    """A few in a turn."""
    closed = 0
    for piece in in_pieces(parts.connections, PIECE):
        for connection in piece:
            if wanted.items() <= connection_row(connection).items():
                part_with(connection, why)
                closed += 1
        yield None
    return {"closed": closed}


def list_channels(parts: Parts) -> Rows:
    """Those that are open."""
    return (
        channel_row(connection, channel)
        for connection in parts.connections
        for channel in tuple(connection.channels)
    )


def list_consumers(parts: Parts, *, vhost: str | None = None) -> Rows:
    """Those of a virtual host, or all."""
    names = {each.name for each in parts.vhosts(vhost)}
    return (
        consumer_row(connection, channel, subscription.consumer)
        for connection in parts.connections
        for channel in tuple(connection.channels)
        if channel.session.vhost.name in names
        for subscription in tuple(channel.subscriptions.values())
    )


READS: Mapping[str, Callable[..., Any]] = {
    "connections.list": list_connections,
    "channels.list": list_channels,
    "consumers.list": list_consumers,
}
CHANGES: Mapping[str, Callable[..., Any]] = {"connections.close": close}
