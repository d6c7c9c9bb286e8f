"""Connections of clients: who is there, and what goes wrong with them.

A connection is named by its name, by the one that its client has given it, or by `next`: then the
next client that comes, to whichever virtual host, has it so from its first byte on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import ConnectionForced, SyntaxFailure
from fluffle.broker.core.forced_closes import close_connection
from fluffle.broker.core.listings import channel_row, connection_row, consumer_row
from fluffle.broker.definitions.values import plain
from fluffle.broker.testing.faults.fault_scope import NEXT, REASON, FaultScope
from fluffle.broker.testing.faults.frames import HEADER_BYTES, START_OK, frames_of
from fluffle.broker.testing.faults.tapped_transport import TappedConnection
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.methods import Connection, decode_method, field_table


def client_properties(data: bytes) -> dict[str, Any]:
    """Of connection.start-ok, in what a client has sent from the protocol header on."""
    for frame in frames_of(data[HEADER_BYTES:]):
        if frame.method == START_OK:
            try:
                method = decode_method(frame.payload)
            except ProtocolError:
                return {}  # the connection says what is wrong with it
            assert isinstance(method, Connection.StartOk)
            return plain(field_table(method.client_properties))
    return {}


def list_connections(scope: FaultScope) -> Row:
    """Those that are open, with their channels and consumers, as `fluffle` shows them."""
    return {"connections": [row_of(tap) for tap in scope.taps()]}


def row_of(tap: TappedConnection) -> Row:
    connection, node = tap.connection, tap.connection.services.owners.node
    channels = tuple(connection.channels)
    return {
        **connection_row(node, connection),
        "client_properties": client_properties(tap.introduction),
        "channels": [channel_row(node, connection, channel) for channel in channels],
        "consumers": [
            consumer_row(connection, channel, subscription.consumer)
            for channel in channels
            for subscription in channel.subscriptions.values()
        ],
        "frozen": tap.is_frozen,
    }


def close(scope: FaultScope, *, connection: str, text: str = REASON) -> Row:
    """As an operator would: connection.close with 320 CONNECTION_FORCED and this text."""
    close_connection(scope.tap(connection).connection, ConnectionForced(text))
    return {}


def reset(scope: FaultScope, *, connection: str) -> Row:
    """No goodbye: the client is told by TCP that there is nobody any more."""
    return on(scope, connection, "is reset", TappedConnection.reset)


def freeze(scope: FaultScope, *, connection: str) -> Row:
    """Read and write nothing; the socket stays open, and heartbeats stop."""
    return on(scope, connection, "is frozen", partial(freeze_tap, scope))


def freeze_tap(scope: FaultScope, tap: TappedConnection) -> None:
    """Until that ends, or its client is gone."""
    tap.freeze(scope)
    what = f"connection '{tap.connection.name}' is frozen"
    scope.begin(tap, what, partial(tap.thaw, scope))
    tap.when_lost.append(partial(scope.end, tap))


def thaw(scope: FaultScope, *, connection: str) -> Row:
    """Go on where it stopped."""
    scope.end(scope.tap(connection))
    return {}


def cut_after(scope: FaultScope, *, connection: str, bytes: int, sent_by: str = "broker") -> Row:
    """Cut it once so many more bytes have passed, though that is in the midst of a frame.

    Those that are counted are sent by the `broker` or by the `client`.
    """
    if sent_by not in ("broker", "client") or bytes < 0:
        raise SyntaxFailure("'sent_by' must be broker or client, and 'bytes' not negative")
    what = f"is cut after {bytes} bytes of the {sent_by}"
    return on(
        scope, connection, what, partial(TappedConnection.cut_after, count=bytes, sent_by=sent_by)
    )


def on(scope: FaultScope, name: str, what: str, plan: Callable[[TappedConnection], None]) -> Row:
    """Do it to a connection, or to the next."""
    if name != NEXT:
        plan(scope.tap(name))
        return {}
    plans = scope.acceptor.plans

    def come(tap: TappedConnection) -> None:
        scope.end(come)
        plan(tap)

    def drop() -> None:
        if come in plans:
            plans.remove(come)

    plans.append(come)
    scope.begin(come, f"connection {len(plans)} from now {what}", drop)
    return {}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "connections.list": list_connections,
    "connections.close": close,
    "connections.reset": reset,
    "connections.freeze": freeze,
    "connections.thaw": thaw,
    "connections.cut_after": cut_after,
}
