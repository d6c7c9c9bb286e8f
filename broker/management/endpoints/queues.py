"""queues: what there is, and what is in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fluffle.broker.control.parts import Row
from fluffle.broker.management.call import Call
from fluffle.broker.management.listing import LISTED, YES
from fluffle.broker.management.objects import (
    QUEUE_OR_NULL,
    binding_object,
    queue_basics,
    queue_object,
    queue_totals,
)
from fluffle.broker.management.replies import Listing
from fluffle.broker.management.rights import Right
from fluffle.broker.management.table import Endpoint

TOTALS = {
    **LISTED,
    "disable_stats": "true: what queues are, without what is in them",
    "enable_queue_totals": "true: how many messages are in them all the same",
}


async def list_all(call: Call) -> Listing:
    """Of the virtual hosts that he may look at."""
    return shown(call, call.visible(await call.rows("queues.list")))


async def list_of_vhost(call: Call) -> Listing:
    return shown(call, await call.rows("queues.list", vhost=call.vhost().name))


def shown(call: Call, rows: Iterable[Row]) -> Listing:
    """As much of each as is wanted."""
    return Listing([*map(form_of(call), rows)])


def form_of(call: Call) -> Callable[[Row], Row]:
    """What is made of a row."""
    if call.query.get("disable_stats") != YES:
        return queue_object
    return queue_totals if call.query.get("enable_queue_totals") == YES else queue_basics


async def show(call: Call) -> Row:
    """One, with who takes from it."""
    row = await call.result("queues.show", vhost=call.vhost().name, name=call.path["name"])
    return {**dict.fromkeys(QUEUE_OR_NULL), **queue_object(row)}


async def list_bindings(call: Call) -> Listing:
    """What leads to it."""
    name = (await show(call))["name"]
    rows = await call.rows("bindings.list", vhost=call.vhost().name)
    return Listing(
        [
            binding_object(row)
            for row in rows
            if row["destination_kind"] == "queue" and row["destination_name"] == name
        ]
    )


ENDPOINTS = (
    Endpoint("GET", "queues", Right.MANAGEMENT, list_all, "All queues.", TOTALS),
    Endpoint("GET", "queues/detailed", Right.MANAGEMENT, list_all, "All queues.", TOTALS),
    Endpoint(
        "GET",
        "queues/{vhost}",
        Right.VHOST_VISIBLE,
        list_of_vhost,
        "The queues of a virtual host.",
        TOTALS,
    ),
    Endpoint("GET", "queues/{vhost}/{name}", Right.VHOST_VISIBLE, show, "One queue."),
    Endpoint(
        "GET",
        "queues/{vhost}/{name}/bindings",
        Right.VHOST_VISIBLE,
        list_bindings,
        "The bindings that lead to it.",
        LISTED,
    ),
)
