"""What makes the queues of a node of a cluster, each type in its way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fluffle.broker.cluster.queues.edge_queue import EdgeQueue
from fluffle.broker.cluster.queues.hosting import Hosting
from fluffle.broker.cluster.queues.hub import StreamHub
from fluffle.broker.cluster.queues.placement import (
    GROUP_SIZE,
    Locator,
    choose_leader,
    choose_members,
    draw_id,
)
from fluffle.broker.cluster.queues.questions import CallLater
from fluffle.broker.cluster.queues.quorum import QuorumManners
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead import DeadLetterFrom
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.making import QueueMaker
from fluffle.broker.queues.served import ServedQueue
from fluffle.protocol.terms import text
from fluffle.raft.config import NodeId

LAST = 1 << 30
"""More members than a node ever has: who is away is chosen if there is nobody else."""


class Reach(NamedTuple):
    """What queues of a cluster are made with."""

    hub: StreamHub
    hosting: Hosting
    nodes: Callable[[], Sequence[NodeId]]
    """Those of the cluster."""
    is_alive: Callable[[NodeId], bool]
    call_later: CallLater


class QuorumQueues:
    """A `QueueMaker` of quorum queues."""

    types = frozenset({QueueType.QUORUM})

    __slots__ = ("_draw_bits", "_loads", "_node", "dead_letter", "group_size", "reach")

    def __init__(
        self,
        node: NodeId,
        draw_bits: Callable[[int], int],
        dead_letter: DeadLetterFrom,
        group_size: int = GROUP_SIZE,
    ) -> None:
        self._node = node
        self._draw_bits = draw_bits
        self.dead_letter = dead_letter
        """Republishes what has died in those that are led here."""
        self.group_size = group_size
        """Where a declare does not say."""
        self.reach: Reach
        """Set before anything is made."""
        self._loads: Counter[NodeId] = Counter()
        """How many queues each node is to have a member of."""

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        nodes = self.reach.nodes()
        size = spec.arguments.get("x-quorum-initial-group-size")
        wanted = int(str(size[1])) if size is not None else self.group_size
        loads = {node: self._loads[node] + LAST * (not self.reach.is_alive(node)) for node in nodes}
        members = choose_members(nodes, self._node, wanted, loads)
        locator = locator_of(spec)
        leads = self.reach.hosting.leads() if locator is Locator.BALANCED else {}
        leader = choose_leader(members, self._node, locator, leads)
        return QueueDefinition(
            spec,
            owner=owner,
            id=draw_id(self._draw_bits, leader, members),
            founders=members,
            members=tuple((node, 1) for node in members),
            leader=leader,
        )

    def make(self, definition: QueueDefinition, vhost: str) -> EdgeQueue:
        reach = self.reach
        self._loads.update(node for node, _incarnation in definition.members)
        reach.hosting.define(definition, vhost)
        return EdgeQueue(definition, vhost, reach.hub, reach.call_later, QuorumManners())

    def reopen(self, definition: QueueDefinition, vhost: str) -> EdgeQueue:
        return self.make(definition, vhost)

    def end(self, queue: ServedQueue) -> None:
        assert isinstance(queue, EdgeQueue)
        self._loads.subtract(node for node, _incarnation in queue.definition.members)
        self.reach.hosting.forget(queue.definition.id)
        queue.end()


class ClusterQueues:
    """A `QueueMaker` that asks the one of the type."""

    __slots__ = ("_makers", "types")

    def __init__(self, *makers: QueueMaker) -> None:
        self._makers = {kind: maker for maker in makers for kind in maker.types}
        self.types = frozenset(self._makers)

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        return self._makers[spec.queue_type].define(spec, owner)

    def make(self, definition: QueueDefinition, vhost: str) -> ServedQueue:
        return self._makers[definition.spec.queue_type].make(definition, vhost)

    def reopen(self, definition: QueueDefinition, vhost: str) -> ServedQueue:
        return self._makers[definition.spec.queue_type].reopen(definition, vhost)

    def end(self, queue: ServedQueue) -> None:
        self._makers[queue.spec.queue_type].end(queue)


def locator_of(spec: QueueSpec) -> Locator:
    """Where the first leader is to be; RabbitMQ's default is here."""
    said = spec.arguments.get("x-queue-leader-locator")
    return Locator(text(said[1])) if said is not None else Locator.CLIENT_LOCAL
