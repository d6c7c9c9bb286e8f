"""status: what this node is, how it is, and how much there is on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.access.limits import LimitedResource
from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.alarms.disk import free_bytes
from fluffle.broker.alarms.memory import resident_bytes

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster


def status(context: NodeContext) -> Row:
    """Everything that can be told without a search."""
    config, usage, marks = context.config, context.access.usage, context.alarms.watermarks
    return {
        "node": config.node_name,
        "version": config.version,
        "product": config.product,
        "product_version": config.product_version,
        "platform": config.platform,
        "pid": os.getpid(),
        "uptime_s": (context.clock.now_ms() - context.started_ms) // 1000,
        "cluster": context.cluster and cluster_row(context, context.cluster),
        "data_dir": str(config.data_dir.absolute()),
        "addresses": {name: list(address) for name, address in context.addresses.items()},
        "maintenance": context.maintenance is not None and context.maintenance.is_draining,
        "alarms": list(context.alarms.raised),
        "memory_bytes": resident_bytes(),
        "memory_bytes_max": marks.memory_bytes_max,
        "disk_free_bytes": free_bytes(config.data_dir),
        "disk_free_bytes_min": marks.disk_free_bytes_min,
        "vhosts": len(context.catalogue.vhosts),
        "users": len(context.access.users),
        "queues": sum(len(vhost.queues) for vhost in context.vhosts(None)),
        "queues_crashed": sum(
            queue.damage is not None
            for vhost in context.vhosts(None)
            for queue in vhost.queues.values()
        ),
        "connections": len(context.connections),
        "channels": usage.here[LimitedResource.CHANNELS_OF_USER].total(),
    }


def cluster_row(context: NodeContext, cluster: Cluster) -> Row:
    """How much of it is there, as this node sees it."""
    nodes = context.catalogue.nodes.entries
    awaited = None if cluster.entering.is_over else cluster.entering.awaited
    here = [node for node in nodes if node == cluster.name or cluster.absent.is_alive(node)]
    return {
        "name": cluster.config.name,
        "has_entered": cluster.entering.is_over,
        "nodes": len(nodes),
        "running": len(here),
        "leader": cluster.leader,
        "awaited": awaited and awaited._asdict(),
        "hindered": link_problems(nodes, cluster),
    }


def link_problems(nodes: Iterable[str], cluster: Cluster) -> list[Row]:
    """Why there is no link to others, and what helps, as far as somebody has refused it."""
    found = (cluster.links.split, *(cluster.links.hindrance(node) for node in nodes))
    return [each._asdict() for each in found if each is not None and each.advice]


def ping(_parts: NodeContext) -> Row:
    """Nothing, at once: that somebody answers is all it says."""
    return {}


READS: Mapping[str, Callable[..., Any]] = {"ping": ping, "status": status}
