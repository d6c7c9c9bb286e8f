"""Frames of sessions to other nodes, as far as the links there take them.

A link drops what there is no room for, and a stream would wait for ever for a frame that is lost
while its link is up.  So whoever has something for a node asks first, keeps it if too much waits
there, and is asked for it again when little does.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.cluster.msgpack_parts import Payload
from fluffle.broker.cluster.ports import FrameKind, Links, TrafficClass
from fluffle.raft.config import NodeId

WAITING_BYTES_MAX = 16 << 20
"""In a lane, when a frame is put behind it: a quarter of what a lane takes.  With a frame as large
as messages are by default that is half of it, and the rest is for consensus."""
LOOK_S = 0.01


class SessionTransport:
    """Frames from one node to all others."""

    __slots__ = ("_call_later", "_full", "_links", "_node", "_touch")

    def __init__(
        self,
        node: NodeId,
        links: Links,
        call_later: Callable[[float, Callable[[], None]], object],
        touch: Callable[[], None],
    ) -> None:
        """`touch`: a turn is to be taken, for there is room again."""
        self._node = node
        self._links = links
        self._call_later = call_later
        self._touch = touch
        self._full: set[NodeId] = set()
        """Nodes for which somebody has something; while there are any, a timer runs."""

    def has_room(self, node: NodeId) -> bool:
        """Whether something may be sent there now; if not, `touch` is called when it may."""
        if node == self._node or self._waiting(node) < WAITING_BYTES_MAX:
            return True
        if not self._full:
            self._call_later(LOOK_S, self._look)
        self._full.add(node)
        return False

    def send(self, node: NodeId, payload: Payload) -> None:
        """A frame."""
        self._links.send(node, FrameKind.STREAM, payload, lane=TrafficClass.NORMAL)

    def _waiting(self, node: NodeId) -> int:
        return self._links.waiting_bytes(node, TrafficClass.NORMAL)

    def _look(self) -> None:
        """Nothing waits for a node to which there is no link any more."""
        free = {node for node in self._full if self._waiting(node) <= WAITING_BYTES_MAX // 2}
        self._full -= free
        if free:
            self._touch()
        if self._full:
            self._call_later(LOOK_S, self._look)
