"""Operator of the cluster: a node whose disk is lost is forgotten, and let in again after a while.

lost --> dismissed, by a fact --> no member anywhere --> admitted, by a fact --> a member anew
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.definitions.ended_queues import count_on
from fluffle.raft.config import NodeId
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster
    from tests.simulation.queues.queue_node import QueueNode

LOOK_S = 0.5
SHORTEST_S, LONGEST_S = 0.2, 8.0
"""Times for which a node stays away: others may be made members in its place, or not."""


class Operator:
    """Operator of the cluster of a run."""

    def __init__(self, queue_cluster: QueueCluster, chance: Random) -> None:
        self._queue_cluster = queue_cluster
        self._chance = chance
        self._away_until_us: dict[NodeId, int] = {}
        self.forgotten = 0
        """How often a node was."""

    def begin(self, workload: Workload) -> None:
        self._workload = workload
        self._look()

    def _look(self) -> None:
        """While members stay where they are nobody goes, but at the end all are to be there."""
        if self._workload.is_stopped or not self._workload.is_steady:
            for node in self.missing:
                self._care_for(node)
        self._queue_cluster.cluster.clockwork.after(int(LOOK_S * SECOND_US), self._look)

    @property
    def missing(self) -> list[NodeId]:
        """Nodes that have lost what they had, or were forgotten."""
        spec = self._queue_cluster.cluster.registry.groups[METADATA_GROUP]
        members = {member.node: member for member in spec.config.members}
        return [
            node
            for node in self._queue_cluster.cluster.names
            if node not in members or members[node] in spec.burnt or node not in spec.wanted
        ]

    def _care_for(self, node: NodeId) -> None:
        queue_nodes = [
            each for each in self._queue_cluster.open_nodes() if each.process.node != node
        ]
        if not queue_nodes:
            return
        queue_node, now_us = (
            self._chance.choice(queue_nodes),
            self._queue_cluster.cluster.clockwork.now_us,
        )
        if node in queue_node.catalogue.nodes.entries:
            if self._is_lost(node):
                self._dismiss(queue_node, node, now_us)
        elif now_us >= self._away_until_us.get(node, 0) and self._has_left(queue_node, node):
            queue_node.defining.admit(node, ListenAddress(node, 1), self._chance.getrandbits(62))

    def _is_lost(self, node: NodeId) -> bool:
        """True if a node that was let in again is no member yet, or one without its disk."""
        spec = self._queue_cluster.cluster.registry.groups[METADATA_GROUP]
        return spec.config.member_on(node) in spec.burnt

    def _dismiss(self, queue_node: QueueNode, node: NodeId, now_us: int) -> None:
        away_s = self._chance.choice((SHORTEST_S, 1.0, LONGEST_S))
        self._away_until_us[node] = now_us + int(away_s * SECOND_US)
        self.forgotten += 1
        queue_node.defining.dismiss(node)

    def _has_left(self, queue_node: QueueNode, node: NodeId) -> bool:
        """True if the node has left, as `fluffle cluster add` asks."""
        membership = queue_node.peer_nodes.membership
        return membership.has_left(node) and not count_on(queue_node.catalogue, node)
