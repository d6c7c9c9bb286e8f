"""The members of the metadata group follow the registry of nodes, one step at a time.

    in the registry, no member, alive --> learner --> has caught up: voter
    a member, not in the registry     --> removed

The leader sees to it.  A node that is let in has no part of the group yet, or what is left of a
founding that came to nothing; it says so to the leader, which answers as which member it may begin.
A node that has more than that of a former one is refused: its queues would speak for members that
the cluster has given up, with what its disk happens to hold.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.errors import NodeMustStop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.hosted_group import EntryOutcome, ProposalLost
from fluffle.broker.cluster.metadata_group import ReplicatedMetadata
from fluffle.broker.cluster.ports import METADATA_GROUP, FrameSender
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.broker.cluster.storage_progress import StorageProgress
from fluffle.broker.metadata.nodes import NodeRegistry
from fluffle.raft.config import AddLearner, Change, Configuration, Member, NodeId, Promote, Remove

INCARNATION_BYTES = 8

FORMER = (
    "the data directory holds the data of a node of this name that the cluster was told to forget; "
    "start with an empty --data-dir: the node joins anew"
)

logger = logging.getLogger(__name__)


class NodeRemoved(NodeMustStop):
    """This node is none of the cluster any more, and must end."""


@dataclass(slots=True, eq=False)
class MetadataMembership:
    """Membership of the metadata group as one node keeps it, as leader and as a node to be
    admitted.
    """

    _host: RaftHost
    _metadata: ReplicatedMetadata
    _registry: NodeRegistry
    _sender: FrameSender
    """Sends to the `receive` of another node; it may be lost."""
    _on_fatal: Callable[[Exception], None]
    """Called when this node must end."""
    _progress: StorageProgress
    _leaving: dict[NodeId, list[Callable[[], None]]] = field(default_factory=dict, init=False)
    """Callbacks for when a node has left."""
    _incarnation: int = field(default=0, init=False)
    """Incarnation in which this node was last allowed to start."""

    # As the leader

    def look(self) -> None:
        """Take the next step, if one is due; what is refused now is tried again with the next."""
        if self._metadata.leads and self._registry.entries:
            group = self._host.group(METADATA_GROUP)
            for step in steps(group.status.config, self._registry.entries):
                group.change(step, on_outcome_of(step))

    def configured(self) -> None:
        """A configuration is committed."""
        self.look()
        for node in [node for node in self._leaving if self.has_left(node)]:
            for done in self._leaving.pop(node):
                call_listener(done)

    def has_left(self, node: NodeId) -> bool:
        """True if a node is no member, and will not be one again as the one that it was.

        Before, no node may come under its name: with an empty disk it would count as it did before.
        """
        configs = self._host.group(METADATA_GROUP).configs
        return all(config.member_on(node) is None for config in configs)

    def when_left(self, node: NodeId, done: Callable[[], None]) -> None:
        """Call `done` once it has."""
        if self.has_left(node):
            done()
        else:
            self._leaving.setdefault(node, []).append(done)

    def unknown(self, node: NodeId) -> None:
        """A node says that it is not there as the member that it is for us."""
        committed = self._host.group(METADATA_GROUP).configs[0]
        member = committed.member_on(node)
        if self._metadata.leads and member is not None:  # mutant: N2
            self._sender.send(node, member.incarnation.to_bytes(INCARNATION_BYTES, "big"))

    # As the node that is let in

    def receive(self, node: NodeId, payload: bytes) -> None:
        """The leader says as which member this node may begin: with nothing.

        A founding that came to nothing is of no use: the others have founded the cluster.
        """
        incarnation = int.from_bytes(payload, "big")
        if len(payload) != INCARNATION_BYTES or incarnation <= max(self._incarnation, 1):
            return  # a founder begins with the founders: see `formation`
        if METADATA_GROUP in self._host:
            if self._host.group(METADATA_GROUP).incarnation >= incarnation:
                return
            if begun_as(self._host):
                self._on_fatal(NodeRemoved(FORMER))
                return
            self._host.delete(METADATA_GROUP)
        if not self._progress.may_begin_as(incarnation):
            return  # it ends
        self._incarnation = incarnation
        self._host.create(METADATA_GROUP, incarnation, Configuration())
        event(logger, logging.INFO, "joining", leader=node, incarnation=incarnation)


class HostIncarnations:
    """The `Incarnations` of the metadata group, as the Raft host of this node has it."""

    def __init__(self) -> None:
        self.host: RaftHost
        """Set before there are links."""

    def ours(self) -> int:
        return begun_as(self.host)

    def is_former(self, node: NodeId, incarnation: int) -> bool:
        return is_former(self.host, node, incarnation)


def created_as(host: RaftHost) -> int:
    """Incarnation as which this node may vote in the group, with or without data of it; 0 if
    none."""
    return host.group(METADATA_GROUP).incarnation if METADATA_GROUP in host else 0


def begun_as(host: RaftHost) -> int:
    """Incarnation of the group's data on this node; 0 if it has none yet."""
    if METADATA_GROUP not in host:
        return 0
    hosted = host.group(METADATA_GROUP)
    return hosted.incarnation if hosted.status.last else 0


def is_former(host: RaftHost, node: NodeId, incarnation: int) -> bool:
    """True if that member was removed, or may have been: `node` comes with data of then.

    Who has just started knows of a removal, but not whether it is committed.
    """
    return METADATA_GROUP in host and any(
        0 < incarnation <= config.top_incarnation
        and Member(node, incarnation) not in config.members
        for config in host.group(METADATA_GROUP).configs
    )


def steps(config: Configuration, nodes: Collection[NodeId]) -> list[Change]:
    """Changes of the configuration in the order to try them: the group takes one at a time."""
    members = {member.node for member in config.members}
    return [
        *(Remove(node) for node in sorted(members - set(nodes))),  # mutant: N1
        *(Promote(learner.node) for learner in config.learners if learner.node in nodes),
        *(AddLearner(node) for node in sorted(set(nodes) - members)),
    ]


def on_outcome_of(step: Change) -> Callable[[EntryOutcome], None]:
    """Says what was done."""

    def on_outcome(outcome: EntryOutcome) -> None:
        if not isinstance(outcome, ProposalLost):
            event(
                logger, logging.INFO, "membership_changed", node=step.node,
                step=type(step).__name__,
            )  # fmt: skip

    return on_outcome
