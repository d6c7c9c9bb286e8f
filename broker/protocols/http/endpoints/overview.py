"""whoami, overview, cluster-name, version, extensions: the user, and the cluster as a whole."""

from __future__ import annotations

import sys
from http import HTTPStatus
from json import dumps
from typing import Any

from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.nodes import exchange_types
from fluffle.broker.metadata.facts import Kind
from fluffle.broker.observability.statistics.counts import RETAINED_S
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint, texts
from fluffle.broker.protocols.http.endpoints.totals import objects_and_counts, windows_asked
from fluffle.broker.protocols.http.responses import Reply, bad_request
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.queues.arguments import QueueType


async def whoami(call: Call) -> Row:
    """Name and tags."""
    user = call.user
    return {"name": user.name, "tags": list(user.tags), "is_internal_user": True}


CLUSTER_NAME = "cluster_name"
"""The global parameter that RabbitMQ keeps it in."""


async def overview(call: Call) -> Row:
    """What it is, how much there is of what, and what is going on."""
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
    """Which node has been asked, and where which of them takes connections."""
    nodes = await call.rows("nodes.list")
    return {
        "node": call.context.config.node_name,
        "listeners": await call.rows_everywhere("nodes.listeners"),
        "contexts": [
            {**context, "node": row["name"]} for row in nodes for context in row.get("contexts", ())
        ],
    }


def cluster_name(context: NodeContext) -> str:
    """That which it was given last; at first that of the configuration, or of its only node."""
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
    """Whether tokens of an OAuth server are taken."""
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
