"""Factory of quorum queues: what channels of this node use of each, and where its members are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from fluffle.broker.cluster.queues.membership import (
    LedGroups,
    MembershipReconciliation,
    QueueMembership,
)
from fluffle.broker.cluster.queues.pending_replies import Deletions, QuorumErrorTexts
from fluffle.broker.cluster.queues.placement import (
    COUNTED_MAX,
    LeaderLocator,
    choose_leader,
    choose_members,
    draw_id,
    draw_leader,
)
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember, QuorumServices
from fluffle.broker.cluster.queues.quorum_members import QuorumMembers
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.protocol.terms import text
from fluffle.raft.config import NodeId

ERROR_TEXTS = QuorumErrorTexts()

LAST = 1 << 30
"""Load greater than any node's: an unreachable node is chosen only if there is no other."""


LocatorByPolicy: TypeAlias = Callable[[str, QueueSpec], str | None]
"""Function that gives a policy's queue-leader-locator: virtual host name, specification."""


def no_locator(_vhost: str, _spec: QueueSpec) -> str | None:
    """Where there are no policies."""
    return None


class QuorumQueues:
    """A `QueueFactory` of quorum queues."""

    def __init__(
        self, node: NodeId, draw_bits: Callable[[int], int], services: QuorumServices
    ) -> None:
        self._node = node
        self._draw_bits = draw_bits
        self.services = services
        self.locator_by_policy: LocatorByPolicy = no_locator
        """Leader locator that policies set for queues declared now."""
        self._hosting: QuorumMembers
        self._deletions: Deletions
        self._members: QueueMembership
        self.reconciling: MembershipReconciliation
        self._loads: Counter[NodeId] = Counter()
        """How many queues each node is to have a member of."""

    def connect(self, hosting: QuorumMembers, deletions: Deletions) -> None:
        """Before anything is made."""
        self._hosting = hosting
        self._deletions = deletions
        cluster, groups = hosting.cluster, LedGroups(hosting.leaders)
        self._members = members = QueueMembership(cluster, groups, hosting.loop, self._loads)
        hosting.members = members
        self.reconciling = MembershipReconciliation(
            cluster, groups, members, self.services.config, self.services.settings
        )

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        cluster = self._hosting.cluster
        lives = cluster.incarnations
        size = spec.arguments.get("x-quorum-initial-group-size")
        wanted = int(str(size[1])) if size is not None else self.services.config.initial_group_size
        loads = {node: self._loads[node] + LAST * (not cluster.is_alive(node)) for node in lives}
        members = choose_members(list(lives), self._node, wanted, loads)
        leader = self._leader(self._locator(spec, vhost), members)
        return QueueDefinition(
            spec,
            owner=owner,
            id=draw_id(self._draw_bits, leader, members),
            founders=members,
            members=tuple((node, 1) for node in members),
            lives=tuple((node, lives[node]) for node in members),
            wanted=members,
            leader=leader,
        )

    def _locator(self, spec: QueueSpec, vhost: str) -> LeaderLocator:
        """Leader locator of a queue: by policy, else by argument, else by configuration, as in
        RabbitMQ."""
        said = spec.arguments.get("x-queue-leader-locator")
        by_argument = text(said[1]) if said is not None else self.services.config.leader_locator
        return LeaderLocator.of(self.locator_by_policy(vhost, spec) or by_argument)

    def _leader(self, locator: LeaderLocator, members: Sequence[NodeId]) -> NodeId:
        """Member that leads first: one that runs, if there is any."""
        cluster, node = self._hosting.cluster, self._node
        here = [each for each in members if each == node or cluster.is_alive(each)] or members
        if locator is LeaderLocator.CLIENT_LOCAL:
            return choose_leader(here, node, locator, {})
        if len(self._members.defined) >= COUNTED_MAX:
            return draw_leader(self._draw_bits, here)
        return choose_leader(here, node, locator, leader_counts(self._hosting))

    def make(self, definition: QueueDefinition, vhost: str) -> SessionQueue:
        self._members.define(vhost, definition)
        self._hosting.define(definition, vhost)
        return self._made(definition, vhost)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> SessionQueue:
        """Make a successor with the members that it keeps until it is defined under a name."""
        self._hosting.defined.successors.add(definition.id)
        self._hosting.define(definition, vhost)
        return self._made(definition, vhost)

    def _made(self, definition: QueueDefinition, vhost: str) -> SessionQueue:
        hosting = self._hosting
        self._loads.update(definition.wanted)
        return SessionQueue(
            definition, vhost, hosting.router, hosting.loop.call_later, ERROR_TEXTS,
            deletions=self._deletions,
        )  # fmt: skip

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        assert isinstance(successor, SessionQueue)
        successor.definition = definition
        self._members.define(vhost, definition)
        self._hosting.defined.successors.discard(definition.id)
        self._hosting.define(definition, vhost)
        self.renew_settings(successor, vhost)

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        raise AssertionError(f"queue '{queue.name}' stays what it is, and is no '{successor.name}'")

    def reopen(self, definition: QueueDefinition, vhost: str) -> SessionQueue:
        return self.make(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        assert isinstance(queue, SessionQueue)
        self._loads.subtract(queue.definition.wanted)
        self._loads.update(definition.wanted)
        queue.definition = definition
        self._hosting.define(definition, self._members.vhost_of(definition.id))
        self._hosting.router.redefined(definition)
        self._members.redefine(definition)

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        del vhost
        group = self._hosting.router.leaders.queues.get(queue.definition.id)
        if isinstance(group, QuorumQueueMember):
            group.renew_settings()  # mutant: R17e

    def end(self, queue: QueueHandle) -> None:
        assert isinstance(queue, SessionQueue)
        self._loads.subtract(queue.definition.wanted)
        self._members.forget(queue.definition.id)
        self._hosting.forget(queue.definition.id)
        queue.end()

    def nodes_changed(self) -> None:
        """Some have come or gone."""
        self._members.look_at_all()


def leader_counts(hosting: QuorumMembers) -> Counter[NodeId]:
    """How many queues each node leads, or is to lead as far as is known.  Looks at all."""
    known = {queue: member.known.node for queue, member in hosting.groups.items()}
    return Counter(
        known.get(queue) or definition.leader
        for queue, (definition, _vhost) in hosting.defined.known.items()
    )
