"""The nodes of the cluster as one process has to do with them: as `Cluster` without links."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.membership import MetadataMembership
from fluffle.broker.cluster.metadata_group import ReplicatedMetadata
from fluffle.broker.cluster.ports import METADATA_GROUP, FrameSender
from fluffle.broker.cluster.queues.node_sessions import NodeSessions
from fluffle.broker.cluster.storage_progress import StorageProgress
from fluffle.broker.metadata.nodes import NodeRegistry
from fluffle.raft.config import Configuration, NodeId
from tests.simulation.process import Process


class PeerNodes:
    """Names of the other nodes, and those whom their news concern."""

    def __init__(
        self,
        process: Process,
        metadata: ReplicatedMetadata,
        registry: NodeRegistry,
        *,
        sender: FrameSender,
        soon: Callable[[Callable[[], None]], object],
        hang_up: Callable[[NodeId], None],
        progress: StorageProgress,
    ) -> None:
        """`sender`: to the `MetadataMembership` of another node.  `hang_up`: a link is gone."""
        self._process = process
        self._registry = registry
        self._soon = soon
        self._hang_up = hang_up
        self._known: dict[NodeId, int] = {}
        """The others, each with what was drawn when it was let in."""
        self.has_entered = False
        """Until then what is applied may be old, and nobody is forgotten."""
        self.membership = MetadataMembership(
            process.host, metadata, registry, sender, _raise, progress
        )
        self.node_sessions: NodeSessions
        self.day: CommonTime
        """Set before it starts."""
        registry.listeners.append(self._changed)

    @property
    def config(self) -> Configuration:
        """The members of the group of definitions, as far as this node knows."""
        host = self._process.host
        return (
            host.group(METADATA_GROUP).status.config if METADATA_GROUP in host else Configuration()
        )

    def lives(self) -> Mapping[NodeId, int]:
        """The nodes of the cluster, each in its incarnation there: none that is on its way out."""
        nodes = self._registry.entries
        return {
            member.node: member.incarnation
            for member in self.config.members
            if member.node in nodes
        }

    def enter(self) -> None:
        """All know this node in its life."""
        self.has_entered = True
        self._changed()

    def _changed(self) -> None:
        self._soon(self.membership.look)
        nodes, own = self._registry.entries, self._process.node
        ids = {node: known.id for node, known in nodes.items() if node != own}
        if self.has_entered:
            for node, id_ in self._known.items():
                if ids.get(node) != id_:
                    self._forget(node)
            self._known = ids
        else:
            self._known = ids | self._known

    def _forget(self, node: NodeId) -> None:
        """Forget a node: a new one of that name starts anew."""
        self._process.host.feed(self._process.multi.forget_node, node)
        self.day.forget(node)
        self.node_sessions.removed(node)
        self._hang_up(node)


def _raise(error: Exception) -> None:
    raise error
