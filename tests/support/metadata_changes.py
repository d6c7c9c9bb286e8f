"""Changes by clients of a node in `metadata_cluster`, and the resulting state of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluffle.broker.base.errors import NotFound
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.journal import Owner
from fluffle.broker.routing import changes as topologies
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts import queue_changes as queues
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.support.metadata_cluster import Node

OWNER = Owner("a", 1, 1, "c")


def to_queue(source: str, queue: str, key: str = "k") -> Binding:
    return Binding(source, queue, DestinationKind.QUEUE, key)


def root(node: Node) -> VirtualHost:
    vhost = node.catalogue.vhosts.get("/")
    if vhost is None:
        raise NotFound("there is no vhost")
    return vhost


def declare(node: Node, name: str = "q", **flags: Any) -> Callable[[], Change]:
    declared = Declaration(name, **flags)
    return lambda: queues.declare_queue(root(node), declared, OWNER)


def delete(node: Node, name: str = "q") -> Callable[[], Change]:
    def decide() -> Change:
        vhost = root(node)
        queue = vhost.queues.get(name)
        return NOTHING if queue is None else queues.delete_queue(vhost, queue)

    return decide


def bind(node: Node, binding: Binding) -> Callable[[], Change]:
    return lambda: queues.bind(root(node), binding, OWNER)


def unbind(node: Node, binding: Binding) -> Callable[[], Change]:
    return lambda: queues.unbind(root(node), binding, OWNER)


def declare_exchange(node: Node, spec: ExchangeSpec) -> Callable[[], Change]:
    return lambda: topologies.declare_exchange(root(node).topology, spec)


def delete_exchange(node: Node, name: str) -> Callable[[], Change]:
    return lambda: topologies.delete_exchange(root(node).topology, name)


def contents(node: Node) -> set[str]:
    """Texts of the state of its parts, one for each fact."""
    found = []
    for vhost in (*node.catalogue.vhosts.values(), *node.catalogue.doomed.values()):
        found.append(f"{vhost.name} {vhost.settings} {vhost.name in node.catalogue.doomed}")
        found += [f"{queue.spec} {queue.owner}" for queue in vhost.queues.values()]
        own = topologies.OWN
        found += [str(spec) for spec in vhost.topology.exchanges() if spec.name not in own]
        found += map(str, vhost.topology.bindings)
    return set(found)
