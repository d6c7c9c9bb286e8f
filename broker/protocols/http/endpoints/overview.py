"""whoami, overview, nodes, and what nodes agree on: the user, and the cluster as a whole.

feature-flags, deprecated-features, reset, auth/attempts, shovels and federation-links are
RabbitMQ's: a cluster of ours needs no flags, for what is here is on, and nothing is deprecated.  It
moves nothing from or to other brokers, so that the lists of what does so are empty.
"""

from __future__ import annotations

import sys
from http import HTTPStatus
from json import dumps
from math import ceil
from typing import Any

from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.nodes import exchange_types
from fluffle.broker.base.features import FEATURES
from fluffle.broker.metadata.change import Kind
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Routes, texts
from fluffle.broker.protocols.http.endpoints.totals import objects_and_counts, windows_asked
from fluffle.broker.protocols.http.responses import ListingResponse, Reply, bad_request, not_found
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.statistics.counters import RETAINED_S

routes = Routes()
ATTEMPTS = "auth/attempts/{node}"


@routes.get("whoami", Right.MANAGEMENT, "The user that asks, with his tags.")
async def whoami(call: Call) -> Row:
    """Name and tags."""
    user = call.user
    return {"name": user.name, "tags": list(user.tags), "is_internal_user": True}


CLUSTER_NAME = "cluster_name"
"""The global parameter that RabbitMQ keeps it in."""


@routes.get("overview", Right.MANAGEMENT, "The cluster, and what is going on.")
async def overview(call: Call) -> Row:
    """Overview of the node: versions, totals, rates and listeners."""
    context, config = call.context, call.context.config
    return {
        "management_version": config.product_version,
        "rates_mode": "none" if context.statistics is None else "basic",
        "sample_retention_policies": {"global": [*RETAINED_S]},
        "exchange_types": exchange_types(),
        "product_version": config.product_version,
        "product_name": config.product,
        "rabbitmq_version": config.product_version,
        "fluffle_version": config.version,
        "cluster_name": cluster_name(context),
        "cluster_tags": {},
        "node_tags": {},
        "erlang_version": sys.version.split()[0],
        "erlang_full_version": config.platform,
        "disable_stats": False,
        "default_queue_type": context.catalogue.default_queue_type or QueueType.CLASSIC.value,
        "is_op_policy_updating_enabled": True,
        "enable_queue_totals": False,
        **await objects_and_counts(call, windows_asked(call)),
        "statistics_db_event_queue": 0,
        **(await listener_rows(call) if call.is_monitor else {}),
    }


async def listener_rows(call: Call) -> Row:
    """Rows of the listeners of all nodes, and the node that answers."""
    nodes = await call.rows("nodes.list")
    return {
        "node": call.context.config.node_name,
        "listeners": await call.rows_everywhere("nodes.listeners"),
        "contexts": [
            {**context, "node": row["name"]} for row in nodes for context in row.get("contexts", ())
        ],
    }


def cluster_name(context: NodeContext) -> str:
    """Name that the cluster was given last; at first that of the configuration, or of its only
    node."""
    kept: Row | None = context.catalogue.kept.entries[Kind.GLOBAL_PARAMETER].get((CLUSTER_NAME,))
    if kept is not None:
        return str(kept["value"])
    cluster = context.config.cluster
    return cluster.name if cluster is not None else context.config.node_name


@routes.get("cluster-name", Right.MANAGEMENT, "Its name.")
async def show_cluster_name(call: Call) -> Row:
    return {"name": cluster_name(call.context)}


@routes.put("cluster-name", Right.ADMINISTRATOR, "Name it.", body=texts("name"))
async def set_cluster_name(call: Call) -> None:
    name: Any = call.json("name")["name"]
    if not isinstance(name, str):
        raise bad_request("'name' must be a string")
    await call.result("global_parameters.set", name=CLUSTER_NAME, value=dumps(name))


@routes.get("version", Right.ANYBODY, "The version of RabbitMQ it behaves like.")
async def version(call: Call) -> Reply:
    """RabbitMQ's, that we behave like."""
    return Reply(HTTPStatus.OK, dumps(call.context.config.product_version).encode())


@routes.get("extensions", Right.MANAGEMENT, "Scripts for RabbitMQ's pages.")
async def extensions(_call: Call) -> list[Row]:
    """Scripts for RabbitMQ's pages: there are none."""
    return []


@routes.get("auth", Right.ANYBODY, "How users may log in.")
async def oauth(_call: Call) -> Row:
    """Settings of OAuth, which is not supported."""
    return {"oauth_enabled": False}


UNMEASURED = "not_available"
"""Value of RabbitMQ for the memory of a node that does not answer."""


@routes.get("nodes", Right.MONITORING, "The nodes of the cluster.")
async def list_nodes(call: Call) -> ListingResponse:
    windows_asked(call)
    return ListingResponse(await call.rows("nodes.list"))


@routes.get("nodes/{node}", Right.MONITORING, "One of them.")
async def show_node(call: Call) -> Row:
    windows_asked(call)
    return await node_of(call)


async def node_of(call: Call) -> Row:
    """Node in the path.  Refusal."""
    for row in await call.rows("nodes.list"):
        if row["name"] == call.path["node"]:
            return row
    raise not_found()


@routes.get("nodes/{node}/memory", Right.MONITORING, "What takes its memory.")
async def memory(call: Call) -> Row:
    """In bytes."""
    return {"memory": await memory_of(call) or UNMEASURED}


@routes.get("nodes/{node}/memory/relative", Right.MONITORING, "The same in percent.")
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
    for answer in await call.rows("everywhere.rows", **asked):
        if "row" in answer:
            return dict(answer["row"])
    return None


@routes.get("feature-flags", Right.MANAGEMENT, "What there is.")
async def feature_flags(_call: Call) -> ListingResponse:
    return ListingResponse(
        [
            {
                "name": name,
                "desc": description,
                "doc_url": "",
                "state": "enabled",
                "stability": "required",
                "provided_by": "fluffle",
            }
            for name, description in FEATURES.items()
        ]
    )


@routes.put("feature-flags/{name}/enable", Right.ADMINISTRATOR, "Nothing: all of them are enabled.")
async def enable(call: Call) -> None:
    """Confirm that a feature flag is on; all are.  Refusal for what there is not."""
    if call.path["name"] not in FEATURES:
        raise bad_request("unsupported")


@routes.get("deprecated-features", Right.MANAGEMENT, "What will go.")
@routes.get("deprecated-features/used", Right.MANAGEMENT, "And is used.")
async def deprecated(_call: Call) -> ListingResponse:
    return ListingResponse([])


@routes.delete("reset", Right.ADMINISTRATOR, "Nothing: counts are of now.")
@routes.delete("reset/{node}", Right.ADMINISTRATOR, "The same of a node.")
async def reset(call: Call) -> None:
    """RabbitMQ forgets its statistics; ours are of this moment, so there is nothing to forget."""
    if "node" in call.path:
        await node_of(call)


@routes.get(ATTEMPTS, Right.MONITORING, "How many have logged in.")
async def attempts(call: Call) -> ListingResponse:
    """How many have logged in by each protocol, and could not, since a node has started."""
    name = (await node_of(call))["name"]
    answers = await call.rows("everywhere.rows", what="statistics.logins", node=name)
    return ListingResponse([each["row"] for each in answers if "row" in each])


@routes.get(f"{ATTEMPTS}/source", Right.MONITORING, "The same by address.")
async def attempts_by_source(call: Call) -> list[Row]:
    """Empty list: attempts are not counted by address, as is RabbitMQ's default."""
    await node_of(call)
    return []


@routes.delete(ATTEMPTS, Right.MONITORING, "Nothing: they are counters.")
@routes.delete(f"{ATTEMPTS}/source", Right.MONITORING, "Nothing, likewise.")
async def forget_attempts(call: Call) -> None:
    """Counters only grow here, since metrics are made of them."""
    await node_of(call)


@routes.get("shovels", Right.MONITORING, "None: there are no shovels.")
@routes.get("shovels/{vhost}", Right.MONITORING, "None in a virtual host.")
@routes.get("federation-links", Right.MONITORING, "None: nothing is federated.")
@routes.get("federation-links/{vhost}", Right.MONITORING, "None in a virtual host.")
async def movers(call: Call) -> ListingResponse:
    """Empty list: there are no shovels and no links.  Refusal for a virtual host that is not
    there."""
    if "vhost" in call.path:
        call.vhost()
    return ListingResponse([])
