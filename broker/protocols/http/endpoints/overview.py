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
from fluffle.broker.observability.statistics.counters import RETAINED_S
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint import Endpoint, texts
from fluffle.broker.protocols.http.endpoints.totals import objects_and_counts, windows_asked
from fluffle.broker.protocols.http.responses import ListingResponse, Reply, bad_request, not_found
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import QueueType


async def whoami(call: Call) -> Row:
    """Name and tags."""
    user = call.user
    return {"name": user.name, "tags": list(user.tags), "is_internal_user": True}


CLUSTER_NAME = "cluster_name"
"""The global parameter that RabbitMQ keeps it in."""


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


async def show_cluster_name(call: Call) -> Row:
    return {"name": cluster_name(call.context)}


async def set_cluster_name(call: Call) -> None:
    name: Any = call.json("name")["name"]
    if not isinstance(name, str):
        raise bad_request("'name' must be a string")
    await call.result("global_parameters.set", name=CLUSTER_NAME, value=dumps(name))


async def version(call: Call) -> Reply:
    """RabbitMQ's, that we behave like."""
    return Reply(HTTPStatus.OK, dumps(call.context.config.product_version).encode())


async def extensions(_call: Call) -> list[Row]:
    """Scripts for RabbitMQ's pages: there are none."""
    return []


async def oauth(_call: Call) -> Row:
    """Settings of OAuth, which is not supported."""
    return {"oauth_enabled": False}


ENDPOINTS = (
    Endpoint("GET", "whoami", Right.MANAGEMENT, whoami, "The user that asks, with his tags."),
    Endpoint("GET", "overview", Right.MANAGEMENT, overview, "The cluster, and what is going on."),
    Endpoint("GET", "cluster-name", Right.MANAGEMENT, show_cluster_name, "Its name."),
    Endpoint(
        "PUT",
        "cluster-name",
        Right.ADMINISTRATOR,
        set_cluster_name,
        "Name it.",
        body=texts("name"),
    ),
    Endpoint("GET", "version", Right.ANYBODY, version, "The version of RabbitMQ it behaves like."),
    Endpoint("GET", "extensions", Right.MANAGEMENT, extensions, "Scripts for RabbitMQ's pages."),
    Endpoint("GET", "auth", Right.ANYBODY, oauth, "How users may log in."),
)


UNMEASURED = "not_available"
"""Value of RabbitMQ for the memory of a node that does not answer."""


async def list_nodes(call: Call) -> ListingResponse:
    windows_asked(call)
    return ListingResponse(await call.rows("nodes.list"))


async def show_node(call: Call) -> Row:
    windows_asked(call)
    return await node_of(call)


async def node_of(call: Call) -> Row:
    """Node in the path.  Refusal."""
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
    for answer in await call.rows("everywhere.rows", **asked):
        if "row" in answer:
            return dict(answer["row"])
    return None


NODE_ENDPOINTS = (
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


async def enable(call: Call) -> None:
    """Confirm that a feature flag is on; all are.  Refusal for what there is not."""
    if call.path["name"] not in FEATURES:
        raise bad_request("unsupported")


async def deprecated(_call: Call) -> ListingResponse:
    return ListingResponse([])


async def reset(call: Call) -> None:
    """RabbitMQ forgets its statistics; ours are of this moment, so there is nothing to forget."""
    if "node" in call.path:
        await node_of(call)


async def attempts(call: Call) -> ListingResponse:
    """How many have logged in by each protocol, and could not, since a node has started."""
    name = (await node_of(call))["name"]
    answers = await call.rows("everywhere.rows", what="statistics.logins", node=name)
    return ListingResponse([each["row"] for each in answers if "row" in each])


async def attempts_by_source(call: Call) -> list[Row]:
    """Empty list: attempts are not counted by address, as is RabbitMQ's default."""
    await node_of(call)
    return []


async def forget_attempts(call: Call) -> None:
    """Counters only grow here, since metrics are made of them."""
    await node_of(call)


async def movers(call: Call) -> ListingResponse:
    """Empty list: there are no shovels and no links.  Refusal for a virtual host that is not
    there."""
    if "vhost" in call.path:
        call.vhost()
    return ListingResponse([])


ATTEMPTS = "auth/attempts/{node}"
FEATURE_ENDPOINTS = (
    Endpoint("GET", "feature-flags", Right.MANAGEMENT, feature_flags, "What there is."),
    Endpoint(
        "PUT",
        "feature-flags/{name}/enable",
        Right.ADMINISTRATOR,
        enable,
        "Nothing: all of them are enabled.",
    ),
    Endpoint("GET", "deprecated-features", Right.MANAGEMENT, deprecated, "What will go."),
    Endpoint("GET", "deprecated-features/used", Right.MANAGEMENT, deprecated, "And is used."),
    Endpoint("DELETE", "reset", Right.ADMINISTRATOR, reset, "Nothing: counts are of now."),
    Endpoint("DELETE", "reset/{node}", Right.ADMINISTRATOR, reset, "The same of a node."),
    Endpoint("GET", ATTEMPTS, Right.MONITORING, attempts, "How many have logged in."),
    Endpoint("DELETE", ATTEMPTS, Right.MONITORING, forget_attempts, "Nothing: they are counters."),
    Endpoint(
        "GET", f"{ATTEMPTS}/source", Right.MONITORING, attempts_by_source, "The same by address."
    ),
    Endpoint(
        "DELETE", f"{ATTEMPTS}/source", Right.MONITORING, forget_attempts, "Nothing, likewise."
    ),
    Endpoint("GET", "shovels", Right.MONITORING, movers, "None: there are no shovels."),
    Endpoint("GET", "shovels/{vhost}", Right.MONITORING, movers, "None in a virtual host."),
    Endpoint("GET", "federation-links", Right.MONITORING, movers, "None: nothing is federated."),
    Endpoint(
        "GET", "federation-links/{vhost}", Right.MONITORING, movers, "None in a virtual host."
    ),
)
