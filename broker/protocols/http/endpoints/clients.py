"""connections, channels and consumers of all nodes, and how connections are closed.

Who does not monitor is shown his own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Routes
from fluffle.broker.protocols.http.endpoints.totals import past_asked
from fluffle.broker.protocols.http.pagination import LISTED, YES
from fluffle.broker.protocols.http.responses import (
    ListingResponse,
    Refusal,
    not_authorized,
    not_found,
)
from fluffle.broker.protocols.http.rights import Right

routes = Routes()

REASON = "Closed via management plugin"
"""Reply text of RabbitMQ for a connection closed without a reason."""

REASON_HEADER = "X-Reason"

NOT_OWN = "User not authorised to access object"

CONSUMER = (
    "arguments", "ack_required", "active", "activity_status", "channel_details", "consumer_tag",
    "consumer_timeout", "exclusive", "prefetch_count", "queue",
)  # fmt: skip
BARE_CONNECTION = ("name", "vhost", "user", "node")
"""Columns of a connection without what it does."""

AGES = {
    **LISTED,
    "disable_stats": "true: who they are, without what they do",
    "data_rates_age": "how much of the past is wanted of what goes over connections, in seconds",
    "data_rates_incr": "a sample each so many seconds",
    "msg_rates_age": "how much of the past is wanted of what channels do, in seconds",
    "msg_rates_incr": "a sample each so many seconds",
}


def visible_rows(call: Call, rows: Iterable[Row]) -> list[Row]:
    """Rows that the user may see: his own, or everyone's if he monitors."""
    return [row for row in rows if call.is_monitor or row["user"] == call.user.name]


def not_own() -> Refusal:
    return not_authorized(NOT_OWN)


# Connections


async def connections(call: Call, **wanted: Any) -> list[Row]:
    """Rows of the connections of all nodes that have logged in and match the filters."""
    rows = await call.rows_everywhere("connections.list", ages=past_asked(call), **wanted)
    return [row for row in rows if row["user"]]


@routes.get(
    "connections", Right.MANAGEMENT, "All connections; his own if he does not monitor.", AGES
)
async def list_connections(call: Call) -> ListingResponse:
    rows = visible_rows(call, await connections(call))
    if call.query.get("disable_stats") == YES:
        rows = [bare(row) for row in rows]
    return ListingResponse(rows)


def bare(row: Row) -> Row:
    return {name: row[name] for name in BARE_CONNECTION}


@routes.get("vhosts/{vhost}/connections", Right.MANAGEMENT, "Connections to a virtual host.", AGES)
async def list_connections_of_vhost(call: Call) -> ListingResponse:
    return ListingResponse(visible_rows(call, await connections(call, vhost=call.vhost().name)))


@routes.get("connections/{name}", Right.MANAGEMENT, "One connection.", AGES)
async def connection(call: Call) -> Row:
    """Connection in the path, if the user may see it.  Refusal."""
    return one(call, await connections(call, name=call.path["name"]))


def one(call: Call, rows: Sequence[Row]) -> Row:
    """Row of one object that was looked for by name.  Refusal."""
    if not rows:
        raise not_found()
    found = visible_rows(call, rows)
    if not found:
        raise not_own()
    return found[0]


@routes.delete(
    "connections/{name}", Right.MANAGEMENT, "Close a connection; the header X-Reason says why."
)
async def close_connection(call: Call) -> None:
    """Whichever node it is at."""
    rows = await connections(call, name=call.path["name"])
    if not rows:
        raise not_found()
    if not any(may_close(call, row["user"]) for row in rows):
        raise not_own()
    owned_by = {} if call.is_administrator else {"user": call.user.name}
    await close(call, name=rows[0]["name"], **owned_by)


def may_close(call: Call, user: str) -> bool:
    """True if the connection is the user's own, or he administers."""
    return call.is_administrator or user == call.user.name


async def close(call: Call, **wanted: str) -> None:
    reason = call.headers.get(REASON_HEADER, REASON)
    await call.rows_everywhere("connections.close", reason=reason, **wanted)


@routes.get("connections/username/{user}", Right.MANAGEMENT, "Connections of a user.", AGES)
async def list_connections_of_user(call: Call) -> ListingResponse:
    user = call.path["user"]
    if not (call.is_monitor or user == call.user.name):
        raise not_own()
    return ListingResponse([bare(row) for row in await connections(call, user=user)])


@routes.delete(
    "connections/username/{user}",
    Right.MANAGEMENT,
    "Close all connections of a user; the header X-Reason says why.",
)
async def close_connections_of_user(call: Call) -> None:
    user = call.path["user"]
    if not may_close(call, user):
        raise not_own()
    if user in call.context.access.users:
        await close(call, user=user)


@routes.get("connections/{name}/sessions", Right.MANAGEMENT, "404: sessions are of AMQP 1.0.", AGES)
async def list_sessions(call: Call) -> ListingResponse:
    """Refuse AMQP 1.0 sessions, which are not supported: RabbitMQ finds none of the other
    protocols, either."""
    raise not_found()


@routes.get(
    "mqtt/sessions", Right.MANAGEMENT, "All sessions of MQTT clients, connected or away.", AGES
)
@routes.get("mqtt/sessions/{vhost}", Right.MANAGEMENT, "Those in a virtual host.", AGES)
async def list_kept_sessions(call: Call) -> ListingResponse:
    """Rows of MQTT sessions: of clients that are connected, and of those that may come back."""
    vhost = {"vhost": call.vhost().name} if "vhost" in call.path else {}
    rows = visible_rows(call, await call.rows_everywhere("sessions.list", **vhost))
    return ListingResponse([{**row, "name": row["client_id"]} for row in rows])


# Channels


async def channels(call: Call, **wanted: Any) -> list[Row]:
    rows = await call.rows_everywhere("channels.list", ages=past_asked(call), **wanted)
    return [{name: row[name] for name in row if name != "connection"} for row in rows]


@routes.get("channels", Right.MANAGEMENT, "All channels; his own if he does not monitor.", AGES)
async def list_channels(call: Call) -> ListingResponse:
    return ListingResponse(visible_rows(call, await channels(call)))


@routes.get("vhosts/{vhost}/channels", Right.MANAGEMENT, "Channels in a virtual host.", AGES)
async def list_channels_of_vhost(call: Call) -> ListingResponse:
    return ListingResponse(visible_rows(call, await channels(call, vhost=call.vhost().name)))


@routes.get("connections/{name}/channels", Right.MANAGEMENT, "Channels of a connection.", AGES)
async def list_channels_of_connection(call: Call) -> ListingResponse:
    name = (await connection(call))["name"]
    return ListingResponse(visible_rows(call, await channels(call, connection=name)))


@routes.get("channels/{name}", Right.MANAGEMENT, "One channel.", AGES)
async def channel(call: Call) -> Row:
    """Row of one channel, with its consumers and its statistics by exchange and queue."""
    row = one(call, await channels(call, name=call.path["name"]))
    return {**row, "consumer_details": [*map(consumer_object, row["consumer_details"])]}


# Consumers


def consumer_object(row: Row) -> Row:
    return {name: row[name] for name in CONSUMER}


async def consumers(call: Call, **wanted: Any) -> list[Row]:
    rows = visible_consumers(call, await call.rows_everywhere("consumers.list", **wanted))
    return [*map(consumer_object, rows)]


def visible_consumers(call: Call, rows: Iterable[Row]) -> list[Row]:
    return [
        row for row in rows if call.is_monitor or row["channel_details"]["user"] == call.user.name
    ]


@routes.get("consumers", Right.MANAGEMENT, "All consumers; his own if he does not monitor.", AGES)
async def list_consumers(call: Call) -> ListingResponse:
    return ListingResponse(await consumers(call))


@routes.get("consumers/{vhost}", Right.MANAGEMENT, "Consumers in a virtual host.", AGES)
async def list_consumers_of_vhost(call: Call) -> ListingResponse:
    return ListingResponse(await consumers(call, vhost=call.vhost().name))
