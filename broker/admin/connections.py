"""connections.*, channels.list and consumers.list: who is there, and out with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.clients import full_channel_row, full_connection_row, full_consumer_row
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows, Work
from fluffle.broker.admin.statistics import ages_asked
from fluffle.broker.admin.users import check_exist
from fluffle.broker.base.errors import ConnectionForced, NotFound, SyntaxFailure
from fluffle.broker.core.client import channel_name
from fluffle.broker.core.forced_closes import PIECE, close_connection
from fluffle.broker.core.listings import whose
from fluffle.broker.runtime.background import in_pieces

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, ClientConnection

REASON = "closed by the operator"


def list_connections(
    context: NodeContext,
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
        full_connection_row(context, connection, past)
        for connection in context.connections
        if not wanted or wanted.items() <= whose(connection).items()
    )


def given(**arguments: str | None) -> Row:
    """Those that are."""
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

    NotFound when none has that name, or there is no such user or vhost.
    """
    if name is None and user is None and vhost is None and not everybody:
        raise SyntaxFailure("say which connections: by name, user or vhost, or everybody")
    check_exist(context, user, vhost)
    if name is not None and all(connection.name != name for connection in context.connections):
        raise NotFound(f"no connection '{name}'")
    wanted = given(name=name, user=user, vhost=vhost)
    return context.later(close_those(context, wanted, ConnectionForced(reason)))


def close_those(context: NodeContext, wanted: Row, why: ConnectionForced) -> Work:
    """A few in a turn."""
    closed = 0
    for piece in in_pieces(context.connections, PIECE):
        for connection in piece:
            if wanted.items() <= whose(connection).items():
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
        and connection in (None, each.name)
        and vhost in (None, channel.session.vhost.name)
    )


def channels(context: NodeContext) -> Iterator[tuple[ClientConnection, ClientChannel]]:
    """All, each with its connection."""
    for connection in context.connections:
        for channel in tuple(connection.channels):
            yield connection, channel


def list_consumers(
    context: NodeContext, *, vhost: str | None = None, queue: str | None = None
) -> Rows:
    """Those of a virtual host, or all; or of queues of that name."""
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
    "channels.list": list_channels,
    "consumers.list": list_consumers,
}
CHANGES: Mapping[str, Callable[..., Any]] = {"connections.close": close}
