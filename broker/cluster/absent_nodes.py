"""Which nodes are away, and which of these do not come back as they were.

Suspected is not gone: a node that cannot be reached may go on serving its clients.  It is *dead*
if its host says that it does not run, or if nobody has seen it for long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from fluffle.raft.config import NodeId
from fluffle.raft.output import Verdict

DEAD_AFTER_MS = 60_000
"""As RabbitMQ's consumer_disconnected_timeout."""


class AbsentNodes:
    """Nodes of the cluster to which there is no link, and what is known of each."""

    __slots__ = ("_alive", "_away_since_ms", "_began_ms", "_is_nobody_there", "_node", "_now_ms")

    def __init__(
        self, node: NodeId, now_ms: Callable[[], int], is_nobody_there: Callable[[NodeId], bool]
    ) -> None:
        """`node` is this one; `is_nobody_there`: whether the host of a node has said so last."""
        self._node = node
        self._now_ms = now_ms
        self._is_nobody_there = is_nobody_there
        self._began_ms = now_ms()
        self._alive: set[NodeId] = set()
        self._away_since_ms: dict[NodeId, int] = {}

    def judged(self, verdict: Verdict) -> None:
        """Of a node that was never heard of it is not known whether it was ever there."""
        if verdict.is_alive:
            self._alive.add(verdict.node)
            self._away_since_ms.pop(verdict.node, None)
        else:
            self._alive.discard(verdict.node)
            self._away_since_ms.setdefault(verdict.node, self._now_ms())

    @property
    def alive(self) -> Collection[NodeId]:
        """Those that are believed to be."""
        return self._alive

    def is_alive(self, node: NodeId) -> bool:
        """Whether it is believed to be."""
        return node in self._alive

    def is_dead(self, node: NodeId) -> bool:
        """Whether nothing that ends with its process is of any use any more.

        A node sends no pings to itself, so this one is not among those that are seen.
        """
        if node == self._node or node in self._alive:
            return False
        since_ms = self._away_since_ms.get(node, self._began_ms)
        return self._is_nobody_there(node) or self._now_ms() - since_ms >= DEAD_AFTER_MS
