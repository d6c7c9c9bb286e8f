"""Transport of the sessions of a node: frames to the sessions of other nodes, and to its own.

sessions here ---+--> leaders here    what stays on this node is passed on as it is
                 +--> other nodes     only what leaves it becomes bytes
"""

from __future__ import annotations

from typing import Protocol

from fluffle.broker.base.clock import Clock, EventLoop
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.ports import FrameKind, Links, TrafficClass
from fluffle.broker.cluster.queue_sessions.codec import encode
from fluffle.broker.cluster.queue_sessions.messages import (
    ClientFrame,
    Frame,
    LeaderFrame,
    SessionBoot,
    without_counts,
)
from fluffle.broker.cluster.queues.ports import QueueClusterView
from fluffle.raft.config import NodeId

WAITING_BYTES_MAX = 16 << 20
"""Bytes of a class that may wait when a frame is added: a quarter of what a link takes.  With a
frame as large as messages are by default that is half of it, and the rest is for consensus."""
LOOK_S = 0.01


class TurnOfConsensus(Protocol):
    """The turn of a node, as `Turn` is one."""

    def touch_consensus(self) -> None:
        """Have `before_consensus` and `after_consensus` called, in this turn."""


class LocalReceiver(Protocol):
    """The leaders on this node."""

    def receive(self, node: NodeId, frame: ClientFrame) -> None:
        """Take a frame of a client node, maybe of this one."""


class ReplyReceiver(Protocol):
    """The sessions of this node."""

    def receive(self, frame: LeaderFrame) -> None:
        """Take a frame of a leader, maybe of this node."""


class SessionTransport:
    """Frames from one node to all others, and what its sessions need of the node.

    A link drops what there is no room for, and a session would wait for ever for a frame that is
    lost while its link is up.  So a sender asks first, keeps the frame if too much waits there,
    and is asked for it again when little does.
    """

    def __init__(
        self,
        cluster: QueueClusterView,
        links: Links,
        turn: TurnOfConsensus,
        loop: EventLoop,
        clock: Clock,
    ) -> None:
        self.cluster = cluster
        self.node = cluster.node
        self.boot = cluster.boot
        """This life of the node."""
        self.boots: dict[NodeId, SessionBoot] = {cluster.node: cluster.boot}
        """The nodes to which there is a link, and this one: each in the life in which it is
        there."""
        self.turn = turn
        self.loop = loop
        self.clock = clock
        self.leaders: LocalReceiver
        self.routes: ReplyReceiver
        """Both are set before anything is sent."""
        self._links = links
        self._full: set[NodeId] = set()
        """Nodes for which frames wait; while there are any, a timer runs."""

    def has_room(self, node: NodeId) -> bool:
        """True if something may be sent there now; if not, a turn is taken when it may."""
        if node == self.node:
            return True
        if self._links.waiting_bytes(node, TrafficClass.NORMAL) < WAITING_BYTES_MAX:
            return True
        if not self._full:
            self.loop.call_later(LOOK_S, self._look)
        self._full.add(node)
        return False

    def send(self, node: NodeId, frame: Frame) -> None:
        """Send a frame to a node to which there is a link; it may be lost."""
        if node != self.node:
            if isinstance(frame, ClientFrame) and self.cluster.speaks(node) < COUNTS_SINCE:
                frame = without_counts(frame)
            self._links.send(node, FrameKind.SESSION, encode(frame), traffic=TrafficClass.NORMAL)
        elif isinstance(frame, ClientFrame):
            self.leaders.receive(node, frame)
        else:
            self.routes.receive(frame)

    def query(self, node: NodeId, payload: bytes) -> None:
        """Send a frame of `LeaderQueries`; it may be lost."""
        self._links.send(node, FrameKind.QUESTION, payload, traffic=TrafficClass.NORMAL)

    def _look(self) -> None:
        """Nothing waits for a node to which there is no link any more."""
        free = {
            node
            for node in self._full
            if self._links.waiting_bytes(node, TrafficClass.NORMAL) <= WAITING_BYTES_MAX // 2
        }
        self._full -= free
        if free:
            self.turn.touch_consensus()
        if self._full:
            self.loop.call_later(LOOK_S, self._look)
