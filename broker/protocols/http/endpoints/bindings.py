"""bindings: what leads where."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from fluffle.broker.admin.context import Row
from fluffle.broker.admin.topology import binding_row, bindings_in
from fluffle.broker.core.topology import without_line_breaks
from fluffle.broker.definitions.values import plain
from fluffle.broker.protocols.http.amqp_json import arguments, short
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import ARGUMENTS, Endpoint
from fluffle.broker.protocols.http.objects import binding_object, exchange_name, properties_key
from fluffle.broker.protocols.http.pagination import LISTED
from fluffle.broker.protocols.http.responses import Created, Listing, not_found
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.runtime.background import in_pieces

LOOKED_AT_ONCE = 2000
"""Bindings, in a turn of the loop."""

BINDING = {
    "type": "object",
    "properties": {"routing_key": {"type": ["string", "null"]}, "arguments": ARGUMENTS},
}


async def list_all(call: Call) -> Listing:
    """Of the virtual hosts that he may look at."""
    rows = call.visible(await call.rows("bindings.list"))
    return Listing([binding_object(row) for row in rows])


async def list_of_vhost(call: Call) -> Listing:
    return await list_with(call)


async def list_with(call: Call, **ends: str) -> Listing:
    """Of the virtual host in the path, those with these ends."""
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    return Listing([binding_object(row) for row in rows if ends.items() <= row.items()])


class BindingKind(NamedTuple):
    """Kind of bindings: to queues, or to exchanges."""

    letter: str
    """In paths."""
    of: DestinationKind


KINDS = (BindingKind("q", DestinationKind.QUEUE), BindingKind("e", DestinationKind.EXCHANGE))


def ends_in(call: Call, kind: BindingKind) -> tuple[str, str]:
    """Source and destination in the path."""
    source, destination = exchange_name(call.path["source"]), call.path["destination"]
    is_exchange = kind.of is DestinationKind.EXCHANGE
    return source, exchange_name(destination) if is_exchange else destination


async def between(call: Call, kind: BindingKind) -> list[Binding]:
    """Those of the two ends in the path."""
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


async def existing(call: Call, kind: BindingKind) -> Binding:
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
    return properties_key(binding.routing_key, plain(binding.arguments))


def object_of(call: Call, binding: Binding) -> Row:
    return binding_object(binding_row(call.vhost(), binding))


async def list_between(kind: BindingKind, call: Call) -> Listing:
    return Listing([object_of(call, each) for each in await between(call, kind)])


async def show(kind: BindingKind, call: Call) -> Row:
    return object_of(call, await existing(call, kind))


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
    binding = await existing(call, kind)
    with call.declarations() as channel:
        await channel.unbind(binding)


def endpoints_of(kind: BindingKind) -> tuple[Endpoint, ...]:
    """Of bindings to queues, or to exchanges."""
    path, to = f"bindings/{{vhost}}/e/{{source}}/{kind.letter}/{{destination}}", kind.of.value
    one = f"{path}/{{props}}"
    summaries = {
        "list": f"The bindings of an exchange to the {to} of a name.",
        "bind": f"Bind a {to} to an exchange." if to == "queue" else "Bind two exchanges.",
        "show": f"One binding to a {to}, by its properties_key.",
        "unbind": f"Delete a binding to a {to}.",
    }
    return (
        Endpoint("GET", path, Right.VHOST, partial(list_between, kind), summaries["list"], LISTED),
        Endpoint("POST", path, Right.VHOST, partial(bind, kind), summaries["bind"], body=BINDING),
        Endpoint("GET", one, Right.VHOST, partial(show, kind), summaries["show"]),
        Endpoint("DELETE", one, Right.VHOST, partial(unbind, kind), summaries["unbind"]),
    )


ENDPOINTS = (
    Endpoint("GET", "bindings", Right.MANAGEMENT, list_all, "All bindings.", LISTED),
    Endpoint(
        "GET",
        "bindings/{vhost}",
        Right.VHOST,
        list_of_vhost,
        "The bindings of a virtual host.",
        LISTED,
    ),
    *(each for kind in KINDS for each in endpoints_of(kind)),
)
