"""vhosts: virtual hosts, what is said of them, and whether they may be deleted."""

from __future__ import annotations

from fluffle.broker.access.limits import PROTECTED
from fluffle.broker.admin.context import Row
from fluffle.broker.core.firehose import FIREHOSE
from fluffle.broker.definitions.importer import tags_of
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import TAGS, TEXT, YES_OR_NO, Routes, fields
from fluffle.broker.protocols.http.endpoints.totals import (
    OBJECTS,
    OF_LISTS,
    OF_OBJECTS,
    counts_of_vhosts,
    windows_asked,
)
from fluffle.broker.protocols.http.responses import Created, ListingResponse, bad_request
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import DECLARED_TYPES, DEFAULT_QUEUE_TYPE, QueueType
from fluffle.broker.vhosts.vhost import VirtualHost

routes = Routes()
PROTECTION = "vhosts/{vhost}/deletion/protection"

BODY = fields(
    {},
    {
        "description": TEXT,
        "tags": TAGS,
        "default_queue_type": {"enum": [each.value for each in DECLARED_TYPES]},
        "protected_from_deletion": YES_OR_NO,
        "tracing": YES_OR_NO,
    },
)


@routes.get("vhosts", Right.MANAGEMENT, "Virtual hosts.")
async def list_vhosts(call: Call) -> ListingResponse:
    rows = await rows_of(call)
    return ListingResponse([rows[name] for name in sorted(call.visible_vhosts()) if name in rows])


@routes.get("vhosts/{vhost}", Right.ADMINISTRATOR, "One of them.")
async def show_vhost(call: Call) -> Row:
    return (await rows_of(call))[call.vhost().name]


async def rows_of(call: Call) -> dict[str, Row]:
    """All virtual hosts by name."""
    windows = windows_asked(call, OF_OBJECTS if "vhost" in call.path else OF_LISTS)
    counts = {row.pop("name"): row for row in await counts_of_vhosts(call, windows)}
    states = cluster_states(call)
    return {
        vhost.name: {
            **vhost_row(vhost),
            "cluster_state": states,
            **vhost_counts(counts, vhost.name),
        }
        for vhost in tuple(call.context.catalogue.vhosts.values())
    }


def vhost_counts(counts: dict[str, Row], name: str) -> Row:
    """Counts of messages and bytes; how many clients there are is no field of RabbitMQ's."""
    row = counts.get(name, {})
    return {key: value for key, value in row.items() if key not in OBJECTS}


def vhost_row(vhost: VirtualHost) -> Row:
    metadata = metadata_of(vhost)
    return {
        "name": vhost.name,
        "description": metadata["description"],
        "tags": metadata["tags"],
        "default_queue_type": metadata[DEFAULT_QUEUE_TYPE],
        "protected_from_deletion": metadata.get(PROTECTED, False),
        "metadata": metadata,
        "tracing": FIREHOSE in vhost.tracers,
    }


def metadata_of(vhost: VirtualHost) -> Row:
    """With what RabbitMQ always says."""
    queue_type = QueueType.CLASSIC.value
    return {"description": "", "tags": [], DEFAULT_QUEUE_TYPE: queue_type, **vhost.metadata}


def cluster_states(call: Call) -> Row:
    """State of a virtual host by node: running wherever the node is."""
    context = call.context
    nodes = context.catalogue.nodes.entries or (context.config.node_name,)
    return {
        node: "running" if context.cluster_view.is_alive(node) else "stopped"
        for node in sorted(nodes)
    }


@routes.put("vhosts/{vhost}", Right.ADMINISTRATOR, "Make or change one.", body=BODY)
async def put_vhost(call: Call) -> Created | None:
    """Make one, in which who makes it has all rights; or say something else of it.

    As with RabbitMQ what is not said of description and tags is blank afterwards.
    """
    body, name = call.json(), call.path["vhost"]
    changes = {
        "name": name,
        "description": body.get("description", ""),
        "tags": tags_of(body.get("tags", [])),
        "queue_type": body.get("default_queue_type"),
        "is_protected": body.get("protected_from_deletion"),
    }
    tracing = body.get("tracing")
    if tracing is not None and not isinstance(tracing, bool):
        raise bad_request("'tracing' must be true or false")
    is_new = name not in call.context.catalogue.vhosts
    await call.result("vhosts.add" if is_new else "vhosts.metadata", **changes)
    if is_new:
        every = {"configure": ".*", "write": ".*", "read": ".*"}
        await call.result("permissions.set", user=call.user.name, vhost=name, **every)
    if tracing is not None:
        await call.result("vhosts.trace", name=name, on=tracing)
    return Created() if is_new else None


@routes.delete("vhosts/{vhost}", Right.ADMINISTRATOR, "Delete one.")
async def delete_vhost(call: Call) -> None:
    await call.result("vhosts.delete", name=call.vhost().name)


@routes.post(PROTECTION, Right.ADMINISTRATOR, "Keep it from being deleted.")
async def protect(call: Call) -> None:
    await call.result("vhosts.metadata", name=call.vhost().name, is_protected=True)


@routes.delete(PROTECTION, Right.ADMINISTRATOR, "Let it be deleted again.")
async def unprotect(call: Call) -> None:
    await call.result("vhosts.metadata", name=call.vhost().name, is_protected=False)


@routes.post("vhosts/{vhost}/start/{node}", Right.ADMINISTRATOR, "Start it on a node.")
async def start(call: Call) -> None:
    """RabbitMQ's can fail to start on a node; ours are there with the node.  Refusal."""
    node, vhost = call.path["node"], call.path["vhost"]
    failure = f"Request to node {node} failed with"
    if cluster_states(call).get(node) != "running":
        raise bad_request(f"{failure} nodedown")
    if vhost not in call.context.catalogue.vhosts:
        raise bad_request(f'{failure} {{no_such_vhost,<<"{vhost}">>}}')
