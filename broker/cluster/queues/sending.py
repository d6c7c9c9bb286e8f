"""Frames of streams to other nodes, as far as the links there take them.

A link drops what there is no room for, and a stream would wait for ever for a frame that is lost
while its link is up.  So nothing is sent to a node for which too much waits, until little does;
then it is as if there were a new link to it, and both ends say again what has not arrived.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.cluster.packing import Payload, size_of
from fluffle.broker.cluster.ports import FrameKind, Lane, Links
from fluffle.raft.config import NodeId

WAITING_BYTES_MAX = 32 << 20
"""Half of what waits in a lane at most: the rest is for consensus.  One frame may be larger."""
LOOK_S = 0.01


class Sending:
    """To all other nodes."""

    __slots__ = ("_again", "_call_later", "_held_back", "_links")

    def __init__(
        self,
        links: Links,
        call_later: Callable[[float, Callable[[], None]], object],
        again: Callable[[NodeId], None],
    ) -> None:
        """`again`: what was sent to a node may be lost, and is to be said once more."""
        self._links = links
        self._call_later = call_later
        self._again = again
        self._held_back: set[NodeId] = set()

    def send(self, node: NodeId, encoded: Callable[[], Payload]) -> None:
        """A frame, which becomes bytes only if it goes."""
        if node in self._held_back:
            return
        payload = encoded()
        waiting = self._links.waiting_bytes(node, Lane.NORMAL)
        if waiting and waiting + size_of(payload) > WAITING_BYTES_MAX:
            if not self._held_back:
                self._call_later(LOOK_S, self._look)
            self._held_back.add(node)
        else:
            self._links.send(node, FrameKind.STREAM, payload, lane=Lane.NORMAL)

    def forget(self, node: NodeId) -> None:
        """Its link is another, or down."""
        self._held_back.discard(node)

    def _look(self) -> None:
        for node in list(self._held_back):
            if self._links.waiting_bytes(node, Lane.NORMAL) <= WAITING_BYTES_MAX // 2:
                self._held_back.discard(node)
                self._again(node)
        if self._held_back:
            self._call_later(LOOK_S, self._look)
