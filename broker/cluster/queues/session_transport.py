"""Transport of session frames: within this node as objects, to other nodes as bytes on links.

A frame of a client node is for `LocalLeaders`, a frame of a leader is for `LeaderRoutes`.
"""

from __future__ import annotations

from typing import Protocol

from fluffle.broker.base.clock import Clock, EventLoop
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.ports import FrameKind, Links, TrafficClass
from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queues.ports import QueueClusterView
from fluffle.broker.queues.quorum.messages import (
    ClientFrame,
    Frame,
    LeaderFrame,
    SessionBoot,
    without_counts,
)
from fluffle.raft.config import NodeId

WAITING_BYTES_MAX = 16 << 20
"""Bytes of a class that may wait when a frame is added: a quarter of what a link takes.  With a
frame as large as messages are by default that is half of it, and the rest is for consensus."""
LOOK_S = 0.01
"""Between two looks at links that were full."""
EARLY_MAX = 256
"""Frames kept of a node to which there is no link yet: its requests could not be answered."""


class ConsensusTurn(Protocol):
    """The part of a node's turn in which its Raft groups work, as `Turn` has it."""

    def touch_consensus(self) -> None:
        """Have `NodeSessions.before_consensus` and `after_consensus` called in this turn."""


class LeaderFrames(Protocol):
    """Receiver of frames for the leaders on this node: `LocalLeaders`."""

    def linked(self, node: NodeId, boot: SessionBoot) -> None:
        """Handle a link to a node, in this boot of it."""

    def unlinked(self, node: NodeId) -> None:
        """Handle that there is no link to a node any more."""

    def receive(self, node: NodeId, frame: ClientFrame) -> None:
        """Take a frame of a client node, maybe of this one."""


class SessionFrames(Protocol):
    """Receiver of frames for the sessions of this node: `LeaderRoutes`."""

    def linked(self, node: NodeId) -> None:
        """Handle a new link to a node: what was sent over an earlier one may be lost."""

    def unlinked(self, node: NodeId) -> None:
        """Handle that there is no link to a node any more."""

    def receive(self, frame: LeaderFrame) -> None:
        """Take a frame of a leader, maybe of this node."""


class SessionTransport:
    """Transport of frames between the sessions of one node, the leaders on it and all other nodes.

        channels --> `LeaderRoutes` --+--> leaders here  --> consensus
                                      |                          |
        frames of other nodes <-------+------ replies <----------+

    What stays on this node is passed on as it is; only what leaves it becomes bytes.

    A link drops what there is no room for, and a session would wait for ever for a frame that is
    lost while its link is up.  So a sender asks first, keeps the frame if too much waits there,
    and is asked for it again when little does.
    """

    def __init__(
        self,
        cluster: QueueClusterView,
        links: Links,
        turn: ConsensusTurn,
        loop: EventLoop,
        clock: Clock,
    ) -> None:
        self.cluster = cluster
        self.node = cluster.node
        self.boot = cluster.boot
        """This boot of the node."""
        self.boots: dict[NodeId, SessionBoot] = {cluster.node: cluster.boot}
        """Boots of this node and of all nodes to which there is a link."""
        self.uncounted: set[NodeId] = set()
        """Linked nodes that speak a version of links without delivery counts."""
        self.turn = turn
        self.loop = loop
        self.clock = clock
        self.leaders: LeaderFrames
        self.routes: SessionFrames
        """Both are set before anything is sent."""
        self._links = links
        self._full: set[NodeId] = set()
        """Nodes for which frames wait; while there are any, a timer runs."""
        self._early: dict[NodeId, list[ClientFrame]] = {}

    def has_room(self, node: NodeId) -> bool:
        """True if a frame may be sent to a node now; if not, a turn is taken once it may."""
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
            if node in self.uncounted and isinstance(frame, ClientFrame):
                frame = without_counts(frame)
            self._links.send(node, FrameKind.SESSION, encode(frame), traffic=TrafficClass.NORMAL)
        elif isinstance(frame, ClientFrame):
            self.leaders.receive(node, frame)
        else:
            self.routes.receive(frame)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """Take a frame of a session from another node.  Raises `BadFrame`."""
        frame = decode(payload)
        if not isinstance(frame, ClientFrame):
            self.routes.receive(frame)
        elif node in self.boots:
            self.leaders.receive(node, frame)
        else:
            early = self._early.setdefault(node, [])
            if len(early) < EARLY_MAX:
                early.append(frame)

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        boot = self.cluster.boot_of(node) if is_up else None
        if boot is None:
            if self.boots.pop(node, None) is not None:
                self.leaders.unlinked(node)
                self.routes.unlinked(node)
            return
        self.boots[node] = boot
        if self.cluster.speaks(node) < COUNTS_SINCE:
            self.uncounted.add(node)
        else:
            self.uncounted.discard(node)
        self.leaders.linked(node, boot)
        for frame in self._early.pop(node, ()):
            self.leaders.receive(node, frame)
        self.routes.linked(node)

    def query(self, node: NodeId, payload: bytes) -> None:
        """Send a frame of `LeaderQueries`; it may be lost."""
        self._links.send(node, FrameKind.QUESTION, payload, traffic=TrafficClass.NORMAL)

    def _look(self) -> None:
        """Take a turn if links have room again; where there is no link, no bytes wait."""
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
