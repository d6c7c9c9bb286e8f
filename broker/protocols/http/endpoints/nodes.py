"""nodes: those of the cluster, how they are and what takes their memory."""

from __future__ import annotations

from math import ceil

from fluffle.broker.admin.context import Row
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.endpoints.totals import windows_asked
from fluffle.broker.protocols.http.responses import Listing, not_found
from fluffle.broker.protocols.http.rights import Right

UNMEASURED = "not_available"
"""What RabbitMQ says of the memory of a node that does not answer."""


async def list_nodes(call: Call) -> Listing:
    windows_asked(call)
    return Listing(await call.rows("nodes.list"))


async def show_node(call: Call) -> Row:
    windows_asked(call)
    return await node_of(call)


async def node_of(call: Call) -> Row:
    """That in the path.  Refusal."""
    for row in await call.rows("nodes.list"):
        if row["name"] == call.path["node"]:
            return row
    raise not_found()


async def memory(call: Call) -> Row:
    """In bytes."""
    return {"memory": await memory_of(call) or UNMEASURED}


async def relative_memory(call: Call) -> Row:
    """In percent, rounded up."""
    parts = await memory_of(call)
    if parts is None:
        return {"memory": UNMEASURED}
    whole = parts.pop("total")["rss"] or 1
    sizes = {name: size for name, size in parts.items() if isinstance(size, int)}
    return {"memory": {"total": 100, **{n: ceil(100 * size / whole) for n, size in sizes.items()}}}


async def memory_of(call: Call) -> Row | None:
    """None of a node that says nothing.  Refusal if there is none of that name."""
    name = (await node_of(call))["name"]
    asked = {"what": "nodes.memory", "node": name}
    for told in await call.rows("everywhere.rows", **asked):
        if "row" in told:
            return dict(told["row"])
    return None


ENDPOINTS = (
    Endpoint("GET", "nodes", Right.MONITORING, list_nodes, "The nodes of the cluster."),
    Endpoint("GET", "nodes/{node}", Right.MONITORING, show_node, "One of them."),
    Endpoint("GET", "nodes/{node}/memory", Right.MONITORING, memory, "What takes its memory."),
    Endpoint(
        "GET",
        "nodes/{node}/memory/relative",
        Right.MONITORING,
        relative_memory,
        "The same in percent.",
    ),
)
