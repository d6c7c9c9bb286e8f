"""Sessions of a node with queues, wherever those are led, and the leaders on the node.

Frames between sessions and leaders go through `SessionTransport`.
"""

from __future__ import annotations

from functools import partial

from fluffle.broker.cluster.links.identity import Boot as LinkBoot
from fluffle.broker.cluster.queues.leader_routes import LeaderRoute, LeaderRoutes
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders, local_leader_of, log_failure
from fluffle.broker.cluster.queues.ports import (
    LeaderCounts,
    OnCounts,
    OnEvents,
    OnFailure,
    QueueId,
)
from fluffle.broker.cluster.queues.queue_queries import LeaderQueries
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.raft.config import NodeId

NONCE_BITS = 63
"""Bits of a nonce, as of any number in the facts of a queue."""


def session_boot(boot: LinkBoot) -> SessionBoot:
    """The boot of a node, as sessions name it."""
    return SessionBoot(boot.count, int.from_bytes(boot.nonce) >> 8 * len(boot.nonce) - NONCE_BITS)


class NodeSessions:
    """The sessions of one node and the leaders on it; for channels a `SessionDirectory`.

    Called from one thread.
    """

    def __init__(
        self, transport: SessionTransport, *, queue_failed: OnFailure = log_failure
    ) -> None:
        """`queue_failed`: an error has ended the leadership of a queue; it is to end more if this
        raises it."""
        self.transport = transport
        self.boot = transport.boot
        """The boot of this node."""
        self.leaders = transport.leaders = LocalLeaders(transport, queue_failed)
        """The queues that may be led here."""
        self.routes = transport.routes = LeaderRoutes(transport, self.leaders.leader_of)
        """Routes of the sessions of this node."""
        self.before_consensus = partial(self.leaders.pump, self.routes.send)
        """Has `LocalLeaders.pump` send requests to leaders by `LeaderRoutes.send`; those on this
        node propose what has come of them."""
        self.after_consensus = self.leaders.send
        """Sends replies to what consensus has decided."""
        self._queries = LeaderQueries(transport, self.leaders, self.routes)
        self.peek = self._queries.peek

    # For channels

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> LeaderRoute:
        return self.routes.open(definition, on_events)

    def close(self, queue: QueueId) -> None:
        self.routes.close(queue)

    def counts_here(self, queue: QueueId) -> LeaderCounts | None:
        served = local_leader_of(self.leaders, queue)
        return served.counts if served is not None else None

    def ask_counts(self, queue: QueueId, done: OnCounts, *, in_use: bool = False) -> None:
        self._queries.count(queue, done, in_use=in_use)

    # Leaders and members

    def redefined(self, definition: QueueDefinition) -> None:
        """Take up a new definition of a queue: it may have other members."""
        self.routes.redefine(definition)

    def leader_changed(self, queue: QueueId) -> None:
        """Turn to another leader of a queue, which this node has come to know."""
        self.routes.changed(queue)
        self._queries.changed(queue)
        self.leaders.touch_output(queue)

    def removed(self, node: NodeId) -> None:
        """End what concerns a node that left the cluster."""
        self.leaders.removed(node)

    def receive_question(self, node: NodeId, payload: bytes) -> None:
        """Take a frame of `LeaderQueries` from another node.  Raises `BadFrame`."""
        self._queries.receive(node, payload)
