"""A sender of frames between nodes whose frames a test passes on by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fluffle.raft.config import NodeId


class FakeSender:
    """A `FrameSender` of one node: `put` is given each frame, with who sends it and to whom."""

    def __init__(
        self,
        name: NodeId,
        put: Callable[[tuple[NodeId, NodeId, bytes]], object],
        others: Collection[NodeId] = (),
        *,
        hindered: dict[NodeId, str] | None = None,
    ) -> None:
        self._name = name
        self._put = put
        self._others = others
        """In the order in which all are sent something."""
        self.hindered = {} if hindered is None else hindered
        """Reasons by node why it cannot be sent anything."""
        self.is_understood = True
        """True if the others are of a version that knows these frames."""

    @property
    def reached(self) -> list[NodeId]:
        return [node for node in self._others if node not in self.hindered]

    def hindrance(self, node: NodeId) -> str:
        return self.hindered.get(node, "")

    def understands(self, node: NodeId) -> bool:
        del node
        return self.is_understood

    def send(self, node: NodeId, payload: bytes) -> None:
        if self.is_understood:
            self._put((self._name, node, payload))

    def send_all(self, payload: bytes) -> None:
        for node in self._others:
            self.send(node, payload)
