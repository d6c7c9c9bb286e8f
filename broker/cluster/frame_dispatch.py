"""Dispatch of frames by kind: links know no kinds, and receivers see only their own.

Frames of a kind that nobody takes come from a node of a later version, and are dropped with a word
to `refused`; so is what whoever takes them calls a `BadFrame`.
"""

from collections.abc import Callable

from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.ports import FrameKind, Links, OnLink
from fluffle.raft.config import NodeId

OnPayload = Callable[[NodeId, bytes], None]


def accept_all(_node: NodeId, _kind: FrameKind) -> bool:
    """Where there is one cluster."""
    return True


class FrameDispatch:
    """Takes the two hooks of a node's links, and passes on."""

    __slots__ = ("_refused", "link_listeners", "may_hear", "takers")

    def __init__(self, links: Links, refused: Callable[[NodeId, str], None]) -> None:
        self._refused = refused
        self.takers: dict[FrameKind, OnPayload] = {}
        """Whoever takes a kind adds itself before the links open."""
        self.link_listeners: list[OnLink] = []
        """Told in this order."""
        self.may_hear: Callable[[NodeId, FrameKind], bool] = accept_all
        """Whether a frame of a node is for this one: two that help to found different clusters
        have nothing to say to each other's groups."""
        links.on_frame = self._on_frame
        links.on_link = self._on_link

    def _on_frame(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        taker = self.takers.get(kind)
        if not self.may_hear(node, kind):
            return
        if taker is None:
            self._refused(node, f"nobody takes frames of kind {kind:d}")
        else:
            try:
                taker(node, payload)
            except BadFrame as bad:
                self._refused(node, str(bad))

    def _on_link(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        for listener in self.link_listeners:
            listener(node, is_up)
