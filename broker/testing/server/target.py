"""Target of a test server: a broker, or a cluster, which is imported only if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.testing.broker import Broker

__all__ = ["Cluster", "ClusterVhost", "parts_of"]

if TYPE_CHECKING:
    from fluffle.broker.testing.cluster.cluster import Cluster
    from fluffle.broker.testing.cluster.vhost import ClusterVhost
else:  # signatures are read, and name them
    Cluster = ClusterVhost = object


def parts_of(served: Broker | Cluster) -> NodeContext:
    """Return the context of one node, with a majority if any has.  RuntimeError if none runs."""
    return served.node.parts if isinstance(served, Broker) else served.nodes.well().parts
