"""exchanges and bindings: what there is, what leads where, and messages that are published."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from fluffle.broker.admin.context import Row
from fluffle.broker.admin.topology import binding_row, bindings_in
from fluffle.broker.core.topology import (
    declare_exchange,
    delete_exchange,
    without_line_breaks,
)
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import ARGUMENTS, MESSAGE_BODY_BYTES_MAX, Routes
from fluffle.broker.protocols.http.endpoints.totals import AGES, by_channel, with_counts
from fluffle.broker.protocols.http.objects import (
    arguments,
    binding_object,
    boolean,
    exchange_name,
    exchange_object,
    payload_of,
    properties_key,
    raw_properties,
    short,
    text_in,
)
from fluffle.broker.protocols.http.pagination import LISTED, YES
from fluffle.broker.protocols.http.responses import (
    Created,
    ListingResponse,
    not_found,
    not_there,
    publish_refusal,
    unavailable,
)
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.topic_filter import shown_arguments
from fluffle.broker.runtime.background import in_pieces

routes = Routes()

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


@routes.get("exchanges", Right.MANAGEMENT, "All exchanges.", COUNTED)
async def list_all(call: Call) -> ListingResponse:
    """Rows of exchanges in the virtual hosts that the user may see."""
    rows = call.visible(await call.rows("exchanges.list"))
    return ListingResponse(rows, partial(formed, call))


@routes.get("exchanges/{vhost}", Right.VHOST, "The exchanges of a virtual host.", COUNTED)
async def list_of_vhost(call: Call) -> ListingResponse:
    rows = await call.rows("exchanges.list", vhost=call.vhost().name)
    return ListingResponse(rows, partial(formed, call))


async def formed(call: Call, rows: list[Row]) -> list[Row]:
    """With what has happened to each, unless that is not wanted."""
    found = [*map(exchange_object, rows)]
    if call.query.get("disable_stats") == YES:
        return found
    return await with_counts(call, STATISTICS, found)


@routes.get("exchanges/{vhost}/{name}", Right.VHOST, "One exchange.")
async def show(call: Call) -> Row:
    """Row of one exchange, with its publishes by channel."""
    (row,) = await formed(call, [await existing_row(call)])
    if call.query.get("disable_stats") == YES:
        return row
    return {**row, "incoming": await by_channel(call, PUBLISHES, row["vhost"], row["name"])}


async def existing(call: Call) -> Row:
    """Exchange in the path.  Refusal."""
    return exchange_object(await existing_row(call))


async def existing_row(call: Call) -> Row:
    """Row of the exchange in the path.  Refusal."""
    name = exchange_name(call.path["name"])
    for row in await call.rows("exchanges.list", vhost=call.vhost().name):
        if row["name"] == name:
            return row
    raise not_found()


@routes.get(
    "exchanges/{vhost}/{name}/bindings/source",
    Right.VHOST,
    "The bindings of which it is the source.",
    LISTED,
)
async def list_from(call: Call) -> ListingResponse:
    """Bindings of which it is the source."""
    return await bindings_with(call, source_name=(await existing(call))["name"])


@routes.get(
    "exchanges/{vhost}/{name}/bindings/destination",
    Right.VHOST,
    "The bindings that lead to it.",
    LISTED,
)
async def list_to(call: Call) -> ListingResponse:
    """Bindings that lead to it."""
    name = (await existing(call))["name"]
    return await bindings_with(call, destination_kind="exchange", destination_name=name)


@routes.put(
    "exchanges/{vhost}/{name}",
    Right.VHOST,
    "Declare an exchange; 204 if it is there and alike.",
    body=EXCHANGE,
)
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


@routes.delete(
    "exchanges/{vhost}/{name}",
    Right.VHOST,
    "Delete an exchange.",
    query={"if-unused": "true: not if there are bindings from it"},
)
async def delete(call: Call) -> None:
    name = (await existing(call))["name"]
    if_unused = call.query.get("if-unused") == YES
    with call.declarations() as channel:
        decide = partial(delete_exchange, channel.session, name, if_unused=if_unused)
        await channel.change("Exchange.Delete", decide)


@routes.post(
    "exchanges/{vhost}/{name}/publish",
    Right.VHOST,
    "Publish a message, and wait until it is safe.",
    body=MESSAGE,
    body_bytes_max=MESSAGE_BODY_BYTES_MAX,
)
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


LOOKED_AT_ONCE = 2000
"""Bindings, in a turn of the loop."""

BINDING = {
    "type": "object",
    "properties": {"routing_key": {"type": ["string", "null"]}, "arguments": ARGUMENTS},
}


@routes.get("bindings", Right.MANAGEMENT, "All bindings.", LISTED)
async def list_bindings(call: Call) -> ListingResponse:
    """Rows of bindings in the virtual hosts that the user may see."""
    rows = call.visible(await call.rows("bindings.list"))
    return ListingResponse([binding_object(row) for row in rows])


@routes.get("bindings/{vhost}", Right.VHOST, "The bindings of a virtual host.", LISTED)
async def list_bindings_of_vhost(call: Call) -> ListingResponse:
    return await bindings_with(call)


async def bindings_with(call: Call, **ends: str) -> ListingResponse:
    """Rows of bindings of the virtual host in the path with these ends."""
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    return ListingResponse([binding_object(row) for row in rows if ends.items() <= row.items()])


class BindingKind(NamedTuple):
    """Kind of bindings: to queues, or to exchanges."""

    letter: str
    """In paths."""
    of: DestinationKind


def ends_in(call: Call, kind: BindingKind) -> tuple[str, str]:
    """Source and destination in the path."""
    source, destination = exchange_name(call.path["source"]), call.path["destination"]
    is_exchange = kind.of is DestinationKind.EXCHANGE
    return source, exchange_name(destination) if is_exchange else destination


async def between(call: Call, kind: BindingKind) -> list[Binding]:
    """Bindings between the two ends in the path."""
    wanted = *ends_in(call, kind), kind.of
    found: list[Binding] = []
    for piece in in_pieces(bindings_in(call.vhost()), LOOKED_AT_ONCE):
        found += (
            each
            for each in piece
            if (each.source, each.destination, each.destination_kind) == wanted
        )
        await asyncio.sleep(0)
    return found


async def existing_binding(call: Call, kind: BindingKind) -> Binding:
    """That in the path: clients quote the key once more, or forget to, or quote a blank of it as
    `%20`.  Refusal."""
    props = call.path["props"]
    every = [(key_of(each), each) for each in await between(call, kind)]
    for read, said in ((str, props), (unquote_plus, unquote_plus(props)), (unquote_plus, props)):
        for key, binding in every:
            if read(key) == said:
                return binding
    raise not_found()


def key_of(binding: Binding) -> str:
    return properties_key(binding.routing_key, plain(shown_arguments(binding)))


def object_of(call: Call, binding: Binding) -> Row:
    return binding_object(binding_row(call.vhost(), binding))


async def list_between(kind: BindingKind, call: Call) -> ListingResponse:
    return ListingResponse([object_of(call, each) for each in await between(call, kind)])


async def show_binding(kind: BindingKind, call: Call) -> Row:
    return object_of(call, await existing_binding(call, kind))


async def bind(kind: BindingKind, call: Call) -> Created:
    """Have one more."""
    call.vhost_to_change()
    source, destination = ends_in(call, kind)
    short(source, "source")
    short(destination, "destination")
    body = call.json()
    said = body.get("routing_key")
    routing_key = "" if said is None else short(said, "routing_key")
    source, destination = without_line_breaks(source), without_line_breaks(destination)
    binding = Binding(source, destination, kind.of, routing_key, arguments(body))
    with call.declarations() as channel:
        await channel.bind(binding)
    return Created(f"{quote(call.path['destination'], safe='')}/{quote(key_of(binding), safe='')}")


async def unbind(kind: BindingKind, call: Call) -> None:
    binding = await existing_binding(call, kind)
    with call.declarations() as channel:
        await channel.unbind(binding)


def add_binding_routes(kind: BindingKind) -> None:
    """Add the endpoints for bindings to queues, or to exchanges."""
    path, to = f"bindings/{{vhost}}/e/{{source}}/{kind.letter}/{{destination}}", kind.of.value
    one = f"{path}/{{props}}"
    listed = f"The bindings of an exchange to the {to} of a name."
    routes.get(path, Right.VHOST, listed, LISTED)(partial(list_between, kind))
    made = f"Bind a {to} to an exchange." if to == "queue" else "Bind two exchanges."
    routes.post(path, Right.VHOST, made, body=BINDING)(partial(bind, kind))
    shown = f"One binding to a {to}, by its properties_key."
    routes.get(one, Right.VHOST, shown)(partial(show_binding, kind))
    routes.delete(one, Right.VHOST, f"Delete a binding to a {to}.")(partial(unbind, kind))


add_binding_routes(BindingKind("q", DestinationKind.QUEUE))
add_binding_routes(BindingKind("e", DestinationKind.EXCHANGE))
