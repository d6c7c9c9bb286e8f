"""exchanges: what there is, and what leads to and from each."""

from __future__ import annotations

from fluffle.broker.control.parts import Row
from fluffle.broker.management.call import Call
from fluffle.broker.management.listing import LISTED
from fluffle.broker.management.objects import binding_object, exchange_name, exchange_object
from fluffle.broker.management.replies import Listing, not_found
from fluffle.broker.management.rights import Right
from fluffle.broker.management.table import Endpoint


async def list_all(call: Call) -> Listing:
    """Of the virtual hosts that he may look at."""
    rows = call.visible(await call.rows("exchanges.list"))
    return Listing([exchange_object(row) for row in rows])


async def list_of_vhost(call: Call) -> Listing:
    rows = await call.rows("exchanges.list", vhost=call.vhost().name)
    return Listing([exchange_object(row) for row in rows])


async def show(call: Call) -> Row:
    """One, with what its clients have done."""
    return await existing(call)


async def existing(call: Call) -> Row:
    """That in the path.  Refusal."""
    name = exchange_name(call.path["name"])
    for row in await call.rows("exchanges.list", vhost=call.vhost().name):
        if row["name"] == name:
            return exchange_object(row)
    raise not_found()


async def list_from(call: Call) -> Listing:
    """Bindings of which it is the source."""
    name = (await existing(call))["name"]
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    return Listing([binding_object(row) for row in rows if row["source_name"] == name])


async def list_to(call: Call) -> Listing:
    """Bindings that lead to it."""
    name = (await existing(call))["name"]
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    return Listing(
        [
            binding_object(row)
            for row in rows
            if row["destination_kind"] == "exchange" and row["destination_name"] == name
        ]
    )


ENDPOINTS = (
    Endpoint("GET", "exchanges", Right.MANAGEMENT, list_all, "All exchanges.", LISTED),
    Endpoint(
        "GET",
        "exchanges/{vhost}",
        Right.VHOST_VISIBLE,
        list_of_vhost,
        "The exchanges of a virtual host.",
        LISTED,
    ),
    Endpoint("GET", "exchanges/{vhost}/{name}", Right.VHOST_VISIBLE, show, "One exchange."),
    Endpoint(
        "GET",
        "exchanges/{vhost}/{name}/bindings/source",
        Right.VHOST_VISIBLE,
        list_from,
        "The bindings of which it is the source.",
        LISTED,
    ),
    Endpoint(
        "GET",
        "exchanges/{vhost}/{name}/bindings/destination",
        Right.VHOST_VISIBLE,
        list_to,
        "The bindings that lead to it.",
        LISTED,
    ),
)
