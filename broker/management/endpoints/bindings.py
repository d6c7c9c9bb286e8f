"""bindings: what leads where."""

from __future__ import annotations

from urllib.parse import unquote_plus

from fluffle.broker.control.parts import Row
from fluffle.broker.management.call import Call
from fluffle.broker.management.listing import LISTED
from fluffle.broker.management.objects import binding_object, bindings_between, exchange_name
from fluffle.broker.management.replies import Listing, not_found
from fluffle.broker.management.rights import Right
from fluffle.broker.management.table import Endpoint, Handler

KINDS = {"q": "queue", "e": "exchange"}
"""How a path calls what bindings lead to."""


async def list_all(call: Call) -> Listing:
    """Of the virtual hosts that he may look at."""
    rows = call.visible(await call.rows("bindings.list"))
    return Listing([binding_object(row) for row in rows])


async def list_of_vhost(call: Call) -> Listing:
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    return Listing([binding_object(row) for row in rows])


async def between(call: Call, kind: str) -> list[Row]:
    """Those of the two ends in the path."""
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    source, destination = exchange_name(call.path["source"]), call.path["destination"]
    if kind == "exchange":
        destination = exchange_name(destination)
    return [found for _row, found in bindings_between(rows, source, kind, destination)]


async def existing(call: Call, kind: str) -> Row:
    """That in the path.  Refusal."""
    props = call.path["props"]
    every = await between(call, kind)
    for read in (str, unquote_plus):  # clients quote the key once more, or forget to
        for binding in every:
            if read(binding["properties_key"]) == props:
                return binding
    raise not_found()


def lister(kind: str) -> Handler:
    async def list_between(call: Call) -> Listing:
        return Listing(await between(call, kind))

    return list_between


def shower(kind: str) -> Handler:
    async def show(call: Call) -> Row:
        return await existing(call, kind)

    return show


def endpoints_of(letter: str, kind: str) -> tuple[Endpoint, ...]:
    """Of bindings to queues, or to exchanges."""
    path = f"bindings/{{vhost}}/e/{{source}}/{letter}/{{destination}}"
    return (
        Endpoint(
            "GET",
            path,
            Right.VHOST_VISIBLE,
            lister(kind),
            f"The bindings of an exchange to {kind}s of a name.",
            LISTED,
        ),
        Endpoint("GET", f"{path}/{{props}}", Right.VHOST_VISIBLE, shower(kind), "One binding."),
    )


ENDPOINTS = (
    Endpoint("GET", "bindings", Right.MANAGEMENT, list_all, "All bindings.", LISTED),
    Endpoint(
        "GET",
        "bindings/{vhost}",
        Right.VHOST_VISIBLE,
        list_of_vhost,
        "The bindings of a virtual host.",
        LISTED,
    ),
    *(each for letter, kind in KINDS.items() for each in endpoints_of(letter, kind)),
)
