"""Queues that are deleted and declared anew, and what is published where that is not known yet.

Invariant: no message is said to be taken that is in no queue, though another queue of the name of
the one that it was published to had been answered for before, and is there.

Some node hears nothing from who orders the definitions while a queue is replaced.  Its clients find
the queue before, and publish to that.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.metadata.change import Kind
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.protocol.wire import FieldTable
from fluffle.raft.config import NodeId
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation
from tests.simulation.queues.node_registration import VHOST
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster
    from tests.simulation.queues.queue_node import QueueNode

NAME = "successor"
ARGUMENTS: FieldTable = {"x-queue-type": ("S", b"quorum")}
RATES = (0.0, 0.0, 0.2, 1.0)
"""How often a second it is replaced."""
DARK_US = (SECOND_US // 5, 2 * SECOND_US, 4 * SECOND_US)
"""Times in which a node hears nothing: shorter and longer than others wait for it."""


class RedeclaredQueues:
    """Redeclared queues of one run."""

    def __init__(self, queue_cluster: QueueCluster) -> None:
        self._queue_cluster = queue_cluster
        self._chance = queue_cluster.cluster.clockwork.chance("successions")
        self._rate = self._chance.choice(RATES)
        self._workload: Workload
        self._since_us: dict[GroupId, int] = {}
        """When a client heard that a queue is there."""
        self.replaced = 0
        """Messages that were refused, for they came too late for one queue."""

    @property
    def now_us(self) -> int:
        return self._queue_cluster.cluster.clockwork.now_us

    def begin(self, workload: Workload) -> None:
        self._workload = workload
        if self._rate:
            self._again()

    def _again(self) -> None:
        if self._workload.is_stopped:
            return
        queue_nodes = self._queue_cluster.open_nodes()
        if queue_nodes:
            self._replace(self._chance.choice(queue_nodes))
        delay_us = int(self._chance.expovariate(self._rate) * SECOND_US)
        self._queue_cluster.cluster.clockwork.after(delay_us, self._again)

    # A queue in the place of another

    def _replace(self, queue_node: QueueNode) -> None:
        dark = self._darkened()
        declare = partial(
            queue_node.defining.declare, NAME, ARGUMENTS, partial(self._is_there, dark)
        )
        queue_node.defining.delete(NAME, declare)

    def _darkened(self) -> NodeId | None:
        """Some node that is to hear late of what is defined, if that is allowed now."""
        leader, network = self._workload.leader(METADATA_GROUP), self._queue_cluster.cluster.network
        if leader is None or self._workload.is_steady:
            return None
        node = self._chance.choice(sorted(self._queue_cluster.cluster.names))
        if node != leader.node:
            network.cut(leader.node, node)
            dark_us = self._chance.choice(DARK_US)
            self._queue_cluster.cluster.clockwork.after(dark_us, network.mend, leader.node, node)
        return node

    def _is_there(self, dark: NodeId | None, group: GroupId) -> None:
        """Note that it was answered: clients of other nodes publish at once."""
        self.answered(group)
        self._queue_cluster.cluster.clockwork.after(1, self._publish, dark)

    def _publish(self, dark: NodeId | None) -> None:
        if self._workload.is_stopped:
            return
        for queue_node in self._queue_cluster.open_nodes():
            vhost = queue_node.defining.vhost
            found = vhost.queues.get(NAME) if vhost is not None else None
            client = queue_node.clients.get(found.definition.id) if found is not None else None
            if client is None or client.session.is_full:
                continue
            if queue_node.process.node == dark or self._chance.random() < 0.5:
                client.publish(1)
                client.port.touch()

    # What must be so

    def answered(self, group: GroupId) -> None:
        """Check a reply that says that a queue exists."""
        self._since_us.setdefault(group, self.now_us)

    def on_outcome(self, queue: QueueDefinition, asked_us: int, *, is_accepted: bool) -> None:
        """A message of which nothing was known when its queue was deleted."""
        self.replaced += not is_accepted
        if is_accepted:
            self._queue_cluster.cluster.clockwork.after(1, self._is_gone, queue, asked_us)

    def _is_gone(self, queue: QueueDefinition, asked_us: int) -> None:
        """Once everybody sees what is committed.  Violation if it was for another queue."""
        known = self._queue_cluster.definitions.find((Kind.QUEUE, (VHOST, queue.spec.name)))
        there = known.value if known is not None else None
        if not isinstance(there, QueueDefinition) or there.id == queue.id:
            return
        if self._since_us.get(there.id, inf) < asked_us:
            raise Violation(
                f"a message of {asked_us} was confirmed and is gone with {queue.id}: it was for "
                f"{there.id}, which had been answered at {self._since_us[there.id]}"
            )
