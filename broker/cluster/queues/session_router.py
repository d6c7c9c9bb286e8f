"""Router between the sessions of this node, the queues led here, and the other nodes.

    channels --> edges --+--> leaders here  --> consensus
                         |                          |
    frames of others <---+---- what leaders say <---+

What stays on this node is passed on as it is; only what leaves it becomes bytes.
"""

from __future__ import annotations

from fluffle.broker.cluster.links.identity import Boot as LinkBoot
from fluffle.broker.cluster.queue_sessions.codec import decode
from fluffle.broker.cluster.queue_sessions.messages import Boot, ClientFrame
from fluffle.broker.cluster.queues.fault_guard import log_failure
from fluffle.broker.cluster.queues.leader_queries import LeaderQueries
from fluffle.broker.cluster.queues.leader_routes import LeaderRoute, LeaderRoutes
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders, led_here
from fluffle.broker.cluster.queues.ports import (
    LeaderCounts,
    OnCounts,
    OnEvents,
    OnFailure,
    QueueId,
)
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import NodeId

NONCE_BITS = 63
"""As many as a number has in the facts of a queue."""
EARLY_MAX = 256
"""Frames of a node to which there is no link yet: what it asks could not be answered."""


def session_boot(boot: LinkBoot) -> Boot:
    """A life of a node, as streams know it."""
    return Boot(boot.count, int.from_bytes(boot.nonce) >> 8 * len(boot.nonce) - NONCE_BITS)


class SessionRouter:
    """A `SessionDirectory` that passes frames on.  Called from one thread."""

    __slots__ = ("_early", "_queries", "_transport", "boot", "leading", "lines", "peek")

    def __init__(
        self, transport: SessionTransport, *, queue_failed: OnFailure = log_failure
    ) -> None:
        """`queue_failed`: an error has ended the leadership of a queue; it is to end more if this
        raises it."""
        self._transport = transport
        self.boot = transport.boot
        """This life of the node."""
        self._early: dict[NodeId, list[ClientFrame]] = {}
        self.leading = transport.leading = LocalLeaders(transport, queue_failed)
        """The queues that may be led here."""
        self.lines = transport.lines = LeaderRoutes(transport, self.leading.known)
        """The edges of this node."""
        self._queries = LeaderQueries(transport, self.leading, self.lines)
        self.peek = self._queries.peek

    # For channels

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> LeaderRoute:
        return self.lines.open(definition, on_events)

    def close(self, queue: QueueId) -> None:
        self.lines.close(queue)

    def counts_here(self, queue: QueueId) -> LeaderCounts | None:
        served = led_here(self.leading, queue)
        return served.counts if served is not None else None

    def ask_counts(self, queue: QueueId, done: OnCounts, *, in_use: bool = False) -> None:
        self._queries.count(queue, done, in_use=in_use)

    # Who leads

    def redefined(self, definition: QueueDefinition) -> None:
        """A queue has other members."""
        self.lines.redefine(definition)

    def leader_changed(self, queue: QueueId) -> None:
        """What is known here of who leads a queue is otherwise than before."""
        self.lines.changed(queue)
        self._queries.changed(queue)
        self.leading.speak(queue)

    def removed(self, node: NodeId) -> None:
        """It is no node of this cluster any more."""
        self.leading.removed(node)

    # What comes over links

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        transport = self._transport
        boot = transport.cluster.boot_of(node) if is_up else None
        if boot is None:
            if transport.lives.pop(node, None) is not None:
                self.leading.unlinked(node)
                self.lines.unlinked(node)
            return
        transport.lives[node] = boot
        self.leading.linked(node, boot)
        for frame in self._early.pop(node, ()):
            self.leading.take(node, frame)
        self.lines.linked(node)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A frame of a stream.  Raises `BadFrame`."""
        frame = decode(payload)
        if not isinstance(frame, ClientFrame):
            self.lines.hear(frame)
        elif node in self._transport.lives:
            self.leading.take(node, frame)
        else:
            early = self._early.setdefault(node, [])
            if len(early) < EARLY_MAX:
                early.append(frame)

    def receive_question(self, node: NodeId, payload: bytes) -> None:
        """A frame of `LeaderQueries`.  Raises `BadFrame`."""
        self._queries.receive(node, payload)

    # A turn

    def before_consensus(self) -> None:
        """What was asked for goes to leaders; those that are here propose."""
        self.leading.is_pump_coming = self.leading.is_output_coming = True
        for node, frame in self.lines.output():
            self._transport.send(node, frame)
        self.leading.pump()

    def after_consensus(self) -> None:
        """What is known now is told."""
        for node, frame in self.leading.output():
            self._transport.send(node, frame)
