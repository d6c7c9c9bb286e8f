"""alarms.list and queues.critical: what is low, and what would stand still without this node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fluffle.broker.admin.context import NodeContext, Row, Rows
from fluffle.broker.admin.members import quorum_queues
from fluffle.broker.admin.queues import voters_of
from fluffle.raft.quorum import majority_of

if TYPE_CHECKING:
    from fluffle.broker.cluster.cluster import Cluster

DEFINITIONS = "definitions"
"""What the nodes agree on besides queues; RabbitMQ names its metadata store likewise."""


def list_alarms(context: NodeContext) -> Rows:
    """What is low here, and on other nodes as far as they have said."""
    for resource in context.alarms.raised:
        yield {"node": context.config.node_name, "resource": resource}
    for node, resources in sorted(context.alarms.elsewhere.items()):
        for resource in sorted(resources):
            yield {"node": node, "resource": resource}


def list_critical(context: NodeContext) -> Rows:
    """What would have no majority any more if this node stopped now; nothing of a node that is
    alone, since that is known."""
    cluster = context.cluster
    if cluster is None or len(context.catalogue.nodes.entries) == 1:
        return
    voters = (voter.node for voter in cluster.metadata_config.voters)
    if is_critical(cluster, voters):
        yield critical_row("", DEFINITIONS)
    for vhost, definition in quorum_queues(context):
        if is_critical(cluster, voters_of(context.company, definition)):
            yield critical_row(vhost, definition.spec.name)


def is_critical(cluster: Cluster, voters: Iterable[str]) -> bool:
    """Whether this node is one of those that are there, and each of them is needed."""
    nodes = list(voters)
    others = sum(node != cluster.name and cluster.absent.is_alive(node) for node in nodes)
    return cluster.name in nodes and others < majority_of(len(nodes))


def critical_row(vhost: str, name: str) -> Row:
    """By RabbitMQ's names."""
    is_queue = name != DEFINITIONS or bool(vhost)
    readable = f"queue '{name}' in vhost '{vhost}'" if is_queue else name
    return {
        "name": name,
        "readable_name": readable,
        "virtual_host": vhost,
        "type": "quorum" if is_queue else name,
    }


def list_ciphers(_parts: NodeContext) -> Rows:
    """What clients with TLS may choose of, as OpenSSL calls it."""
    import ssl  # noqa: PLC0415  only if it is asked for

    return ({"name": each["name"]} for each in ssl.create_default_context().get_ciphers())


def list_certificates(context: NodeContext) -> Rows:
    """The certificates for clients in the files of this node, and when they end."""
    from fluffle.broker.process.certificate_expiry import ends_in  # noqa: PLC0415  only if it is asked for

    files = context.config.tls_cert, context.config.tls_ca
    return (
        {"node": context.config.node_name, "file": str(file), "ends_at": int(end.timestamp())}
        for file in files
        if file is not None
        for end in ends_in(file)
    )


READS: Mapping[str, Callable[..., Any]] = {
    "alarms.list": list_alarms,
    "node.certificates": list_certificates,
    "node.ciphers": list_ciphers,
    "queues.critical": list_critical,
}
