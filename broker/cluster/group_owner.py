"""Whose each group on a node is: one holds the definitions, all others are those of queues."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.ports import GroupOwner, Machine
from fluffle.broker.metadata.read_barrier import ReadBarrier
from fluffle.raft.config import NodeId
from fluffle.raft.output import ConfigChange, Verdict
from fluffle.raft.records import GroupId

METADATA_GROUP: GroupId = 1
"""The same in every cluster; no queue has it."""

logger = logging.getLogger(__name__)


class NodesListener(Protocol):
    """Listener for changes of the nodes of the cluster."""

    def judged(self, verdict: Verdict) -> None:
        """As `GroupOwner.judged`."""

    def configured(self) -> None:
        """A configuration of the metadata group is committed."""

    def unknown(self, node: NodeId) -> None:
        """A node says that it does not have the metadata group."""


class GroupOwnerDispatch:
    """A `GroupOwner` that asks the one whose group it is."""

    __slots__ = ("_hosting", "_metadata", "_nodes", "_read_barrier")

    def __init__(
        self,
        metadata: Machine,
        hosting: GroupOwner,
        nodes: NodesListener,
        read_barrier: ReadBarrier,
    ) -> None:
        """`read_barrier`: the knowledge of definitions, and so of the groups of queues."""
        self._metadata = metadata
        self._hosting = hosting
        self._nodes = nodes
        self._read_barrier = read_barrier

    def make_machine(self, group: GroupId) -> Machine:
        return self._metadata if group == METADATA_GROUP else self._hosting.make_machine(group)

    def configured(self, change: ConfigChange) -> None:
        if change.group == METADATA_GROUP:
            self._nodes.configured()
        else:
            self._hosting.configured(change)

    def judged(self, verdict: Verdict) -> None:
        event(
            logger,
            logging.INFO if verdict.is_alive else logging.WARNING,
            "node_alive" if verdict.is_alive else "node_suspected",
            node=verdict.node,
            boot=verdict.boot,
        )
        self._nodes.judged(verdict)
        self._hosting.judged(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        if group == METADATA_GROUP:
            act()
        else:
            self._read_barrier.ask(partial(self._hosting.when_known, group, act))  # mutant: AB1

    def unknown(self, node: NodeId, group: GroupId) -> None:
        if group == METADATA_GROUP:
            self._nodes.unknown(node)
        else:
            self._hosting.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        if group == METADATA_GROUP:
            event(logger, logging.ERROR, "log_damaged", group=group, index=index, wrong=wrong)
        else:
            self._hosting.damaged(group, index, wrong)

    def given_up(self, group: GroupId, wrong: str) -> None:
        if group == METADATA_GROUP:
            event(logger, logging.ERROR, "log_rejected", group=group, wrong=wrong)
        else:
            self._hosting.given_up(group, wrong)

    def refused(self, node: NodeId, reason: str) -> None:
        log_refused(node, reason)


def log_refused(node: NodeId, reason: str) -> None:
    """A frame of a node is not one of ours."""
    event(logger, logging.ERROR, "frame_rejected", node=node, reason=reason)
