"""Connections that declare exclusive queues, and end before these come true, meanwhile, or behind.

What a channel does about a declaration that takes its time, and what ends with a connection, is as
in the daemon.  Invariant, once all is at rest: no exclusive queue is there without its connection,
and no connection without what it was answered is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fluffle.broker.core.connections import Owners, delete_late
from fluffle.broker.definitions.ended_queues import EndedQueues, ended_before, remove_ended
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.queues.arguments import Declaration, QueueType
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.simulation.facts import Violation
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster
    from tests.simulation.queues.queue_node import QueueNode

NAMES_MAX = 6
"""Few, so that some are declared while an earlier one of that name goes."""

LASTS_S = (0.0, 0.002, 0.02, 0.2, 2.0)
"""How long a connection is open, about: shorter and longer than a definition takes."""


def is_quorum(definition: QueueDefinition) -> bool:
    """True if it has a group."""
    return definition.spec.queue_type is QueueType.QUORUM


@dataclass(eq=False)
class Connection:
    """A client of one node, with one exclusive queue."""

    owner: Owner
    queue: str
    is_open: bool = True
    is_reported: bool = False
    """True if it has heard that its queue is there."""


@dataclass
class NodeConnections:
    """All of them in one life of a node, and what the node does about what they leave."""

    queue_node: QueueNode
    owners: Owners = field(init=False)
    open: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        queue_node, process = self.queue_node, self.queue_node.process
        self.owners = Owners(process.node, process.boot)
        queue_node.catalogue.transient_listeners.append(
            partial(delete_late, self.owners, queue_node.metadata)
        )
        around: Any = SimpleNamespace(
            name=process.node,
            metadata=queue_node.metadata,
            absent=queue_node.absent,
            peer_views=queue_node.peer_views,
        )
        call_later: Any = queue_node.call_later
        self._leftovers = EndedQueues(queue_node.catalogue, around, call_later)

    def enter(self) -> None:
        """Act as `Clustered.enter` does: what earlier lives have left goes first."""
        process, queue_node = self.queue_node.process, self.queue_node
        is_ended = ended_before(process.node, process.boot)
        remove_ended(
            queue_node.catalogue, queue_node.applied_barrier, is_ended, self._leftovers.watch
        )

    def declare(self, queue: str, lasts_s: float, *, is_bound: bool) -> None:
        """A client comes, declares a queue, and may bind it once it is there."""
        connection = Connection(self.owners.of("client"), queue)
        self.open.append(connection)
        self.queue_node.call_later(lasts_s, partial(self.end, connection))
        declared = Declaration(queue, exclusive=True)

        def decide(vhost: VirtualHost) -> Change:
            if not connection.is_open:
                return NOTHING
            return queue_changes.declare_queue(vhost, declared, connection.owner)

        def done() -> None:
            if connection.is_open:
                connection.is_reported = True
                if is_bound:
                    self._bind(connection)

        self.queue_node.defining.change(decide, done)

    def _bind(self, connection: Connection) -> None:
        binding = Binding("amq.topic", connection.queue, DestinationKind.QUEUE, "k")

        def decide(vhost: VirtualHost) -> Change:
            if not connection.is_open:
                return NOTHING
            return queue_changes.bind(vhost, binding, connection.owner)

        self.queue_node.defining.change(decide)

    def end(self, connection: Connection) -> None:
        """Act as `Connection.end_session` does."""
        if not connection.is_open:
            return
        connection.is_open = False
        self.open.remove(connection)
        self.owners.end(connection.owner)
        vhost = self.queue_node.defining.vhost
        if vhost is not None:
            self.queue_node.metadata.ensure(
                partial(queue_changes.delete_owned, vhost, connection.owner)
            )

    def owns(self, definition: QueueDefinition) -> bool:
        """True if the connection is open for which a queue is."""
        return any(connection.owner == definition.owner for connection in self.open)

    def check(self) -> None:
        """Check that what a client has heard of is there as long as it is itself."""
        vhost = self.queue_node.defining.vhost
        queues = vhost.queues if vhost is not None else {}
        for connection in self.open:
            queue = queues.get(connection.queue)
            if connection.is_reported and (queue is None or queue.owner != connection.owner):
                raise Violation(f"exclusive: {connection} has lost its queue")


class Connections:
    """Connections of all nodes in one run."""

    def __init__(self, queue_cluster: QueueCluster, chance: Random) -> None:
        self._queue_cluster = queue_cluster
        self._chance = chance
        self._rate = chance.choice((0.0, 0.5, 2.0, 5.0))
        """How many come, each second."""

    def begin(self, workload: Workload) -> None:
        self._workload = workload
        if self._rate:
            self._come_later()

    def _come_later(self) -> None:
        wait_us = int(self._chance.expovariate(self._rate) * SECOND_US)
        self._queue_cluster.cluster.clockwork.after(wait_us, self._come)

    def _come(self) -> None:
        if self._workload.is_stopped:
            return
        if queue_nodes := self._queue_cluster.open_nodes():
            chance = self._chance
            queue = f"own{chance.randrange(NAMES_MAX)}"
            lasts_s = 2 * chance.random() * chance.choice(LASTS_S)
            is_bound = chance.random() < 0.5
            queue_node = chance.choice(queue_nodes)
            queue_node.connections.declare(queue, lasts_s, is_bound=is_bound)
        self._come_later()

    def unfinished(self) -> str | None:
        """Some end, and then no exclusive queue is left whose connection has ended."""
        queue_nodes = {
            (each.process.node, each.process.boot): each
            for each in self._queue_cluster.queue_nodes()
        }
        for queue_node in queue_nodes.values():
            queue_node.connections.check()
        for queue_node in queue_nodes.values():
            vhost = queue_node.defining.vhost
            for queue in vhost.queues.values() if vhost is not None else ():
                owner = queue.owner
                if owner is None:
                    continue
                home = queue_nodes.get((owner.node, owner.boot))
                if home is None or not home.connections.owns(queue.definition):
                    return (
                        f"exclusive queue {queue.name!r} on {queue_node.process.node} is nobody's"
                    )
        return None
