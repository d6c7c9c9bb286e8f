"""Whose each group on a node is: one holds the definitions, all others are those of queues."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fluffle.broker.cluster.ports import Machine, Owner
from fluffle.broker.logs import event
from fluffle.raft.config import NodeId
from fluffle.raft.output import ConfigChange, Verdict
from fluffle.raft.records import GroupId

METADATA_GROUP: GroupId = 1
"""The same in every cluster; no queue has it."""

logger = logging.getLogger(__name__)


class Owners:
    """An `Owner` that asks the one whose group it is."""

    __slots__ = ("_hosting", "_metadata", "_on_verdict")

    def __init__(
        self, metadata: Machine, hosting: Owner, on_verdict: Callable[[Verdict], None]
    ) -> None:
        """`on_verdict` hears of verdicts besides."""
        self._metadata = metadata
        self._hosting = hosting
        self._on_verdict = on_verdict

    def make_machine(self, group: GroupId) -> Machine:
        return self._metadata if group == METADATA_GROUP else self._hosting.make_machine(group)

    def configured(self, change: ConfigChange) -> None:
        if change.group != METADATA_GROUP:
            self._hosting.configured(change)

    def judged(self, verdict: Verdict) -> None:
        event(
            logger,
            logging.INFO if verdict.is_alive else logging.WARNING,
            "node_alive" if verdict.is_alive else "node_suspected",
            node=verdict.node,
            boot=verdict.boot,
        )
        self._on_verdict(verdict)
        self._hosting.judged(verdict)

    def unknown(self, node: NodeId, group: GroupId) -> None:
        if group != METADATA_GROUP:
            self._hosting.unknown(node, group)

    def damaged(self, group: GroupId, index: int) -> None:
        event(logger, logging.ERROR, "log_damaged", group=group, index=index)
        if group != METADATA_GROUP:
            self._hosting.damaged(group, index)

    def refused(self, node: NodeId, reason: str) -> None:
        log_refused(node, reason)


def log_refused(node: NodeId, reason: str) -> None:
    """A frame of a node is not one of ours."""
    event(logger, logging.ERROR, "frame_refused", node=node, reason=reason)
