"""status: what this node is, how it is, and how much there is on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.access.limits import Counted
from fluffle.broker.admin.context import Parts, Row
from fluffle.broker.alarms.disk import free_bytes
from fluffle.broker.alarms.memory import resident_bytes

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster


def status(parts: Parts) -> Row:
    """Everything that can be told without a search."""
    config, usage, marks = parts.config, parts.access.usage, parts.alarms.watermarks
    return {
        "node": config.node_name,
        "version": config.version,
        "product": config.product,
        "product_version": config.product_version,
        "platform": config.platform,
        "pid": os.getpid(),
        "uptime_s": (parts.clock.now_ms() - parts.started_ms) // 1000,
        "cluster": parts.cluster and cluster_row(parts, parts.cluster),
        "data_dir": str(config.data_dir.absolute()),
        "addresses": {name: list(address) for name, address in parts.addresses.items()},
        "maintenance": parts.maintenance is not None and parts.maintenance.is_draining,
        "alarms": list(parts.alarms.raised),
        "memory_bytes": resident_bytes(),
        "memory_bytes_max": marks.memory_bytes_max,
        "disk_free_bytes": free_bytes(config.data_dir),
        "disk_free_bytes_min": marks.disk_free_bytes_min,
        "vhosts": len(parts.catalogue.vhosts),
        "users": len(parts.access.users),
        "queues": sum(len(vhost.queues) for vhost in parts.vhosts(None)),
        "queues_crashed": sum(
            queue.damage is not None
            for vhost in parts.vhosts(None)
            for queue in vhost.queues.values()
        ),
        "connections": len(parts.connections),
        "channels": usage.here[Counted.CHANNELS_OF_USER].total(),
    }


def cluster_row(parts: Parts, cluster: Cluster) -> Row:
    """How much of it is there, as this node sees it."""
    nodes = parts.catalogue.nodes.entries
    awaited = None if cluster.entering.is_over else cluster.entering.awaited
    here = [node for node in nodes if node == cluster.name or cluster.absent.is_alive(node)]
    return {
        "name": cluster.config.name,
        "has_entered": cluster.entering.is_over,
        "nodes": len(nodes),
        "running": len(here),
        "leader": cluster.leader,
        "awaited": awaited and awaited._asdict(),
        "hindered": hindered(nodes, cluster),
    }


def hindered(nodes: Iterable[str], cluster: Cluster) -> list[Row]:
    """Why there is no link to others, and what helps, as far as somebody has refused it."""
    found = (cluster.links.split, *(cluster.links.hindrance(node) for node in nodes))
    return [each._asdict() for each in found if each is not None and each.advice]


def ping(_parts: Parts) -> Row:
    """Nothing, at once: that somebody answers is all it says."""
    return {}


READS: Mapping[str, Callable[..., Any]] = {"ping": ping, "status": status}
