"""exchanges: what there is, and what leads to and from each."""

from __future__ import annotations

from functools import partial

from fluffle.broker.admin.context import Row
from fluffle.broker.core.topology import (
    declare_exchange,
    delete_exchange,
    without_line_breaks,
)
from fluffle.broker.protocols.http.amqp_json import (
    arguments,
    boolean,
    payload_of,
    raw_properties,
    short,
    text_in,
)
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import ARGUMENTS, MESSAGE_BODY_BYTES_MAX, Endpoint
from fluffle.broker.protocols.http.endpoints.bindings import list_with
from fluffle.broker.protocols.http.endpoints.totals import AGES, by_channel, with_counts
from fluffle.broker.protocols.http.objects import exchange_name, exchange_object
from fluffle.broker.protocols.http.pagination import LISTED, YES
from fluffle.broker.protocols.http.responses import (
    Created,
    Listing,
    not_found,
    not_there,
    publish_refusal,
    unavailable,
)
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.routing.exchange import ExchangeSpec

NO_EXCHANGE = "exchange_not_found"
STATISTICS = "exchanges.statistics"
PUBLISHES = "exchanges.publishes"
COUNTED = {**LISTED, **AGES}

EXCHANGE = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "default": "direct"},
        "durable": {"type": "boolean", "default": False},
        "auto_delete": {"type": "boolean", "default": False},
        "internal": {"type": "boolean", "default": False},
        "arguments": ARGUMENTS,
    },
}
MESSAGE = {
    "type": "object",
    "required": ["routing_key", "payload", "payload_encoding", "properties"],
    "properties": {
        "routing_key": {"type": "string"},
        "payload": {"type": "string"},
        "payload_encoding": {"enum": ["string", "base64"]},
        "properties": ARGUMENTS,
    },
}


async def list_all(call: Call) -> Listing:
    """Of the virtual hosts that he may look at."""
    rows = call.visible(await call.rows("exchanges.list"))
    return Listing(rows, partial(formed, call))


async def list_of_vhost(call: Call) -> Listing:
    rows = await call.rows("exchanges.list", vhost=call.vhost().name)
    return Listing(rows, partial(formed, call))


async def formed(call: Call, rows: list[Row]) -> list[Row]:
    """With what has happened to each, unless that is not wanted."""
    found = [*map(exchange_object, rows)]
    if call.query.get("disable_stats") == YES:
        return found
    return await with_counts(call, STATISTICS, found)


async def show(call: Call) -> Row:
    """One, with what its clients have done."""
    (row,) = await formed(call, [await existing_row(call)])
    if call.query.get("disable_stats") == YES:
        return row
    return {**row, "incoming": await by_channel(call, PUBLISHES, row["vhost"], row["name"])}


async def existing(call: Call) -> Row:
    """That in the path.  Refusal."""
    return exchange_object(await existing_row(call))


async def existing_row(call: Call) -> Row:
    """As the control socket tells it.  Refusal."""
    name = exchange_name(call.path["name"])
    for row in await call.rows("exchanges.list", vhost=call.vhost().name):
        if row["name"] == name:
            return row
    raise not_found()


async def list_from(call: Call) -> Listing:
    """Bindings of which it is the source."""
    return await list_with(call, source_name=(await existing(call))["name"])


async def list_to(call: Call) -> Listing:
    """Bindings that lead to it."""
    name = (await existing(call))["name"]
    return await list_with(call, destination_kind="exchange", destination_name=name)


async def put(call: Call) -> Created | None:
    """Have one, or find that it is as is wanted."""
    name, vhost = short(call.path["name"], "exchange"), call.vhost_to_change()
    body = call.json()
    is_there = vhost.topology.find(exchange_name(name)) is not None
    spec = ExchangeSpec(
        name=without_line_breaks(exchange_name(name)),
        type=text_in(body.get("type", "direct"), "type"),
        durable=boolean(body, "durable"),
        auto_delete=boolean(body, "auto_delete"),
        internal=boolean(body, "internal"),
        arguments=arguments(body),
    )
    with call.declarations() as channel:
        await channel.change("Exchange.Declare", partial(declare_exchange, channel.session, spec))
    return None if is_there else Created()


async def delete(call: Call) -> None:
    name = (await existing(call))["name"]
    if_unused = call.query.get("if-unused") == YES
    with call.declarations() as channel:
        decide = partial(delete_exchange, channel.session, name, if_unused=if_unused)
        await channel.change("Exchange.Delete", decide)


async def publish_message(call: Call) -> Row:
    """Put a message into it; whether that led to a queue."""
    vhost, exchange = call.vhost_to_change(NO_EXCHANGE), exchange_name(call.path["name"])
    if exchange and vhost.topology.find(exchange) is None:
        raise not_there(NO_EXCHANGE)
    body = call.json("routing_key", "properties", "payload", "payload_encoding")
    routing_key = short(body["routing_key"], "routing_key")
    payload = payload_of(body["payload"], body["payload_encoding"])
    properties = raw_properties(body["properties"])
    if low := call.context.alarms.reason:
        raise unavailable(f"blocked {low}: nothing is published until the alarm is over")
    async with call.messages(publish_refusal) as channel:
        return {"routed": await channel.publish(exchange, routing_key, properties, payload)}


ENDPOINTS = (
    Endpoint("GET", "exchanges", Right.MANAGEMENT, list_all, "All exchanges.", COUNTED),
    Endpoint(
        "GET",
        "exchanges/{vhost}",
        Right.VHOST,
        list_of_vhost,
        "The exchanges of a virtual host.",
        COUNTED,
    ),
    Endpoint("GET", "exchanges/{vhost}/{name}", Right.VHOST, show, "One exchange."),
    Endpoint(
        "GET",
        "exchanges/{vhost}/{name}/bindings/source",
        Right.VHOST,
        list_from,
        "The bindings of which it is the source.",
        LISTED,
    ),
    Endpoint(
        "GET",
        "exchanges/{vhost}/{name}/bindings/destination",
        Right.VHOST,
        list_to,
        "The bindings that lead to it.",
        LISTED,
    ),
    Endpoint(
        "PUT",
        "exchanges/{vhost}/{name}",
        Right.VHOST,
        put,
        "Declare an exchange; 204 if it is there and alike.",
        body=EXCHANGE,
    ),
    Endpoint(
        "DELETE",
        "exchanges/{vhost}/{name}",
        Right.VHOST,
        delete,
        "Delete an exchange.",
        {"if-unused": "true: not if there are bindings from it"},
    ),
    Endpoint(
        "POST",
        "exchanges/{vhost}/{name}/publish",
        Right.VHOST,
        publish_message,
        "Publish a message, and wait until it is safe.",
        body=MESSAGE,
        body_bytes_max=MESSAGE_BODY_BYTES_MAX,
    ),
)
