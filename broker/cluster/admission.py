"""Admission: a node that knows the secret and has no data is let in when it asks, by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.base.logs import event
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.nodes import NodeRegistry, admit
from fluffle.raft.config import NodeId

logger = logging.getLogger(__name__)


class Admission:
    """The nodes that this one lets in, one change of the registry each."""

    __slots__ = ("_draw", "_going", "_metadata", "_refused", "_registry", "_what_is_left")

    def __init__(
        self,
        registry: NodeRegistry,
        metadata: Metadata,
        what_is_left: Callable[[NodeId], bool],
        draw: Callable[[], int],
    ) -> None:
        """`what_is_left`: whether a former node of a name still counts anywhere; `draw`: see
        `RegisteredNode.id`."""
        self._registry = registry
        self._metadata = metadata
        self._what_is_left = what_is_left
        self._draw = draw
        self._going: set[NodeId] = set()
        """The nodes whose change has been asked for, and has no outcome yet."""
        self._refused: dict[NodeId, str] = {}
        """Why it was not done, as it was logged last."""

    def admit(self, node: NodeId, address: ListenAddress) -> None:
        """Have it let in; it asks again if that comes to nothing."""
        if node in self._going:
            return
        self._going.add(node)

        def done() -> None:
            self._going.discard(node)
            if node in self._registry.entries:
                self._refused.pop(node, None)
                event(logger, logging.INFO, "node_admitted", node=node, address=address)

        def failed(error: BrokerError) -> None:
            self._going.discard(node)
            if self._refused.get(node) != error.explanation:
                self._refused[node] = error.explanation
                event(
                    logger, logging.WARNING, "node_not_admitted", node=node, address=address,
                    reason=error.explanation,
                )  # fmt: skip

        self._metadata.change(lambda: self._decide(node, address), done, failed)

    def _decide(self, node: NodeId, address: ListenAddress) -> Change:
        """Several may be asked by one node at once."""
        nodes = self._registry.entries
        if node in nodes:
            return NOTHING
        if self._what_is_left(node):
            raise PreconditionFailed(f"what is left of a former node '{node}' is being removed")
        return admit(nodes, node, address, self._draw())
