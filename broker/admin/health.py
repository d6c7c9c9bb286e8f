"""How a node is, what is low, what it is needed for, and how its member of a quorum queue stands.

status, ping, node.certificates, node.ciphers, alarms.list, queues.critical and queues.raft.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.access.limits import LimitedResource
from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.admin.members import quorum_queue, quorum_queues
from fluffle.broker.admin.queues import voters_of
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.raft.config import majority_of

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import ClusterService
    from fluffle.raft.group import Status

NO_SNAPSHOT = -1
"""The index of the snapshot of a member that has none."""

DEFINITIONS = "definitions"
"""The name of the metadata group in lists, as RabbitMQ names its metadata store."""


def list_alarms(context: NodeContext) -> Rows:
    """Yield the resource alarms of this node, and those that other nodes have reported."""
    for resource in context.alarms.raised:
        yield {"node": context.config.node_name, "resource": resource}
    for node, resources in sorted(context.alarms.elsewhere.items()):
        for resource in sorted(resources):
            yield {"node": node, "resource": resource}


def list_critical(context: NodeContext) -> Rows:
    """Yield each group that would lose its majority if this node stopped now; none for a node that
    is alone, since an operator knows that."""
    cluster = context.cluster
    if cluster is None or len(context.catalogue.nodes.entries) == 1:
        return
    voters = (voter.node for voter in cluster.metadata_config.voters)
    if is_critical(cluster, voters):
        yield critical_row("", DEFINITIONS)
    for vhost, definition in quorum_queues(context):
        if is_critical(cluster, voters_of(context.cluster_view, definition)):
            yield critical_row(vhost, definition.spec.name)


def is_critical(cluster: ClusterService, voters: Iterable[str]) -> bool:
    """Return whether this node is a voter, and the other voters that run are no majority."""
    nodes = list(voters)
    others = sum(node != cluster.name and cluster.absent.is_alive(node) for node in nodes)
    return cluster.name in nodes and others < majority_of(len(nodes))


def critical_row(vhost: str, name: str) -> Row:
    """Return the row of one group, with RabbitMQ's names."""
    is_queue = name != DEFINITIONS or bool(vhost)
    readable = f"queue '{name}' in vhost '{vhost}'" if is_queue else name
    return {
        "name": name,
        "readable_name": readable,
        "virtual_host": vhost,
        "type": "quorum" if is_queue else name,
    }


def list_ciphers(_parts: NodeContext) -> Rows:
    """Rows of the ciphers that TLS clients may choose, by OpenSSL's names."""
    import ssl  # noqa: PLC0415  only if it is asked for

    return ({"name": each["name"]} for each in ssl.create_default_context().get_ciphers())


def list_certificates(context: NodeContext) -> Rows:
    """The certificates for clients in the files of this node, and when they end."""
    from fluffle.broker.process.certificates import ends_in  # noqa: PLC0415  only if it is asked for

    files = context.config.tls_cert, context.config.tls_ca
    return (
        {"node": context.config.node_name, "file": str(file), "ends_at": int(end.timestamp())}
        for file in files
        if file is not None
        for end in ends_in(file)
    )


def status(context: NodeContext) -> Row:
    """Row of all that is known without a search."""
    config, usage, marks = context.config, context.access.usage, context.alarms.watermarks
    return {
        "node": config.node_name,
        "version": config.version,
        "product": config.product,
        "product_version": config.product_version,
        "platform": config.platform,
        "pid": os.getpid(),
        "uptime_s": (context.runtime.clock.now_ms() - context.started_ms) // 1000,
        "cluster": context.cluster and cluster_row(context, context.cluster),
        "data_dir": str(config.data_dir.absolute()),
        "addresses": {name: list(address) for name, address in context.addresses.items()},
        "maintenance": context.maintenance is not None and context.maintenance.is_draining,
        "alarms": list(context.alarms.raised),
        "memory_bytes": context.runtime.measures.resident_bytes(),
        "memory_bytes_max": marks.memory_bytes_max,
        "disk_free_bytes": context.runtime.measures.free_bytes(),
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


def cluster_row(context: NodeContext, cluster: ClusterService) -> Row:
    """How much of it is there, as this node sees it."""
    nodes = context.catalogue.nodes.entries
    awaited = None if cluster.join.is_over else cluster.join.awaited
    here = [node for node in nodes if node == cluster.name or cluster.absent.is_alive(node)]
    return {
        "name": cluster.config.name,
        "has_entered": cluster.join.is_over,
        "nodes": len(nodes),
        "running": len(here),
        "leader": cluster.leader,
        "awaited": awaited and awaited._asdict(),
        "hindered": link_problems(nodes, cluster),
    }


def link_problems(nodes: Iterable[str], cluster: ClusterService) -> list[Row]:
    """List the refused links to other nodes, each with its reason and advice."""
    found = (cluster.links.split, *(cluster.links.hindrance(node) for node in nodes))
    return [each._asdict() for each in found if each is not None and each.advice]


def ping(_parts: NodeContext) -> Row:
    """Answer with nothing, at once: an answer is all that a caller needs."""
    return {}


def raft(context: NodeContext, *, name: str, vhost: str) -> Rows:
    """Return one row, or none if this node has no member of the queue."""
    definition = quorum_queue(context, name, vhost)
    hosted = context.cluster_view.groups.get(definition.id)
    if hosted is not None:
        status = hosted.status
        yield raft_row(context, status.role.value, status)
    elif context.cluster is None:  # it leads without a log
        yield raft_row(context, "leader", None)


def raft_row(context: NodeContext, role: str, status: Status | None) -> Row:
    """Return the row of a member on this node."""
    node = context.config.node_name
    return {
        "Node Name": node,
        "Raft State": role.replace("-", "_"),
        "Membership": membership(context, status),
        "Last Log Index": None if status is None else status.last,
        "Last Written": None if status is None else status.durable,
        "Last Applied": None if status is None else status.applied,
        "Commit Index": None if status is None else status.commit,
        "Snapshot Index": NO_SNAPSHOT if status is None else status.floor or NO_SNAPSHOT,
        "Term": None if status is None else status.term,
        "Machine Version": VERSION,
    }


def membership(context: NodeContext, status: Status | None) -> str:
    """Kind of this node's membership in the metadata group: voter or promotable."""
    member = context.cluster_view.known(context.config.node_name)
    is_voter = status is None or member in {voter.node for voter in status.config.voters}
    return "voter" if is_voter else "promotable"


READS: Mapping[str, Callable[..., Any]] = {
    "alarms.list": list_alarms,
    "node.certificates": list_certificates,
    "node.ciphers": list_ciphers,
    "queues.critical": list_critical,
    "queues.raft": raft,
    "ping": ping,
    "status": status,
}
