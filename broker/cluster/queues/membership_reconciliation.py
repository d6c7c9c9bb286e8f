"""Quorum queues that have fewer members than they should get more, if the operator has said so.

That is looked at now and then, and soon after a node has come; whoever leads a queue sees to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fluffle.broker.cluster.queues.membership import MembershipCallbacks
from fluffle.broker.cluster.queues.placement import choose_grown
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.settings import SettingsFrom, by_arguments
from fluffle.broker.vhosts.queue_changes import redefinition
from fluffle.raft.config import NodeId

SOON_S = 10
"""Who has come may go again, and others may come.  As RabbitMQ."""

Defined = Mapping[QueueId, tuple[str, QueueDefinition]]
"""All quorum queues, with their virtual hosts."""


class MembershipReconciliation:
    """Reconciliation of the members of all queues that one node leads."""

    __slots__ = ("_config", "_defined", "_due_ms", "_loads", "_ports", "_settings")

    def __init__(
        self,
        ports: MembershipCallbacks,
        defined: Defined,
        loads: Mapping[NodeId, int],
        config: QuorumConfig,
        settings: SettingsFrom = by_arguments,
    ) -> None:
        """`loads`: how many members each node is to have."""
        self._ports = ports
        self._defined = defined
        self._loads = loads
        self._config = config
        self._settings = settings
        self._due_ms: int | None = None
        """When they are looked at next; None until somebody has said what time it is."""

    def look(self, now_ms: int) -> None:
        """Costs nothing but when it is time."""
        if not self._config.reconciliation:
            return
        if self._due_ms is None or now_ms >= self._due_ms:
            if self._due_ms is not None:
                self._reconcile()
            self._due_ms = now_ms + 1_000 * self._config.reconciliation_interval_s

    def look_soon(self, now_ms: int) -> None:
        """A node has come."""
        soon_ms = now_ms + 1_000 * SOON_S
        self._due_ms = soon_ms if self._due_ms is None else min(self._due_ms, soon_ms)

    def _reconcile(self) -> None:
        for queue, known in tuple(self._defined.items()):
            if self._ports.led(queue) is not None and self._wanted(*known) is not None:
                self._ports.settle(partial(self._decide, queue), ignore_outcome)  # mutant: D5

    def _decide(self, queue: QueueId) -> Change:
        known = self._defined.get(queue)
        wanted = self._wanted(*known) if known is not None else None
        if known is None or wanted is None or self._ports.led(queue) is None:
            return NOTHING
        return redefinition(known[0], known[1]._replace(wanted=wanted))

    def _wanted(self, vhost: str, definition: QueueDefinition) -> tuple[NodeId, ...] | None:
        """More members than now; None while one of these is away, or if there are enough."""
        here = [*filter(self._is_here, self._ports.lives())]
        if not set(definition.wanted) <= set(here):
            return None
        said = self._settings(vhost, definition.spec).target_group_size
        size = max(self._config.target_group_size or 0, said or 0)
        wanted = choose_grown(definition.wanted, here, size, self._loads)
        return wanted if wanted != definition.wanted else None

    def _is_here(self, node: NodeId) -> bool:
        return node == self._ports.node or self._ports.is_alive(node)


def ignore_outcome() -> None:
    """It is looked at again."""
