"""The factory of a node's quorum queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from fluffle.broker.base.clock import CallLater
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.queues.deletions import Deletions
from fluffle.broker.cluster.queues.error_texts import QuorumErrorTexts
from fluffle.broker.cluster.queues.membership import (
    MembershipCallbacks,
    MembershipReconciliation,
    QueueMembership,
)
from fluffle.broker.cluster.queues.placement import (
    COUNTED_MAX,
    LeaderLocator,
    choose_leader,
    choose_members,
    draw_id,
    draw_leader,
)
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.cluster.queues.quorum_members import QuorumMembers
from fluffle.broker.cluster.queues.remote_queue import RemoteQueue
from fluffle.broker.cluster.queues.session_router import SessionRouter
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.metadata.metadata import Decide
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letter_port import DeadLetterFrom
from fluffle.broker.queues.deduplication import OnDuplicates, ignore_duplicates
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.settings import SettingsFrom, by_arguments
from fluffle.protocol.terms import text
from fluffle.raft.config import NodeId

MANNERS = QuorumErrorTexts()

LAST = 1 << 30
"""More members than a node ever has: who is away is chosen if there is nobody else."""


LocatorByPolicy: TypeAlias = Callable[[str, QueueSpec], str | None]
"""What the policy of a queue of a virtual host says of its first leader."""


def no_locator(_vhost: str, _spec: QueueSpec) -> str | None:
    """Where there are no policies."""
    return None


class QuorumQueuesEnvironment(NamedTuple):
    """The parts of a node that its quorum queues are made with."""

    hub: SessionRouter
    hosting: QuorumMembers
    lives: Callable[[], Mapping[NodeId, int]]
    """The nodes of the cluster, each with its incarnation there."""
    is_alive: Callable[[NodeId], bool]
    """Whether another node is believed to be."""
    may_lead: Callable[[NodeId], bool]
    """Whether it is, and its disk has room."""
    settle: Callable[[Decide, Callable[[], None]], None]
    """Has definitions changed, for as long as it takes."""
    call_later: CallLater
    deletions: Deletions


class QuorumQueues:
    """A `QueueFactory` of quorum queues."""

    __slots__ = (
        "_draw_bits", "_loads", "_members", "_node", "_reach", "config", "dead_letter",
        "locator_by_policy", "on_duplicates", "reconciling", "settings",
    )  # fmt: skip

    def __init__(
        self,
        node: NodeId,
        draw_bits: Callable[[int], int],
        dead_letter: DeadLetterFrom,
        config: QuorumConfig,
        settings: SettingsFrom = by_arguments,
        *,
        on_duplicates: OnDuplicates = ignore_duplicates,
    ) -> None:
        self._node = node
        self._draw_bits = draw_bits
        self.dead_letter = dead_letter
        """Republishes what has died in those that are led here."""
        self.settings = settings
        """By what each is to go."""
        self.on_duplicates = on_duplicates
        self.config = config
        self.locator_by_policy: LocatorByPolicy = no_locator
        """Who is to lead first what is declared now."""
        self._reach: QuorumQueuesEnvironment
        self._members: QueueMembership
        self.reconciling: MembershipReconciliation
        self._loads: Counter[NodeId] = Counter()
        """How many queues each node is to have a member of."""

    @property
    def dead_letter_patience_ms(self) -> int:
        """How long a queue may say nothing of what has died and must arrive there."""
        return self.config.dead_letter_timeout_s * 1_000

    def connect(self, reach: QuorumQueuesEnvironment) -> None:
        """Before anything is made."""
        self._reach = reach
        leading, host = reach.hub.leading, reach.hosting

        def led(queue: QueueId) -> HostedGroup | None:
            served = leading.queues.get(queue)
            is_led = served is not None and served.sessions is not None
            return host.host.group(queue) if is_led else None

        def leader(queue: QueueId) -> NodeId | None:
            return leading.known(queue).node if queue in leading.queues else None

        ports = MembershipCallbacks(
            self._node, led, leader, reach.lives, reach.is_alive, reach.may_lead, reach.settle,
            reach.call_later,
        )  # fmt: skip
        self._members = reach.hosting.members = QueueMembership(ports, self._loads)
        self.reconciling = MembershipReconciliation(
            ports, self._members.defined, self._loads, self.config, self.settings
        )

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        reach = self._reach
        lives = reach.lives()
        size = spec.arguments.get("x-quorum-initial-group-size")
        wanted = int(str(size[1])) if size is not None else self.config.initial_group_size
        loads = {node: self._loads[node] + LAST * (not reach.is_alive(node)) for node in lives}
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
        """As RabbitMQ has it, a policy says it before an argument does, and the operator last."""
        said = spec.arguments.get("x-queue-leader-locator")
        by_argument = text(said[1]) if said is not None else self.config.leader_locator
        return LeaderLocator.of(self.locator_by_policy(vhost, spec) or by_argument)

    def _leader(self, locator: LeaderLocator, members: Sequence[NodeId]) -> NodeId:
        """Who leads first: one that runs, if there is any."""
        reach, node = self._reach, self._node
        here = [each for each in members if each == node or reach.is_alive(each)] or members
        if locator is LeaderLocator.CLIENT_LOCAL:
            return choose_leader(here, node, locator, {})
        if len(self._members.defined) >= COUNTED_MAX:
            return draw_leader(self._draw_bits, here)
        return choose_leader(here, node, locator, reach.hosting.leads())

    def make(self, definition: QueueDefinition, vhost: str) -> RemoteQueue:
        self._members.define(vhost, definition)
        self._reach.hosting.define(definition, vhost)
        return self._made(definition, vhost)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> RemoteQueue:
        """Its members are those that it begins with until it is defined under a name."""
        self._reach.hosting.successors.add(definition.id)
        self._reach.hosting.define(definition, vhost)
        return self._made(definition, vhost)

    def _made(self, definition: QueueDefinition, vhost: str) -> RemoteQueue:
        reach = self._reach
        self._loads.update(definition.wanted)
        return RemoteQueue(
            definition, vhost, reach.hub, reach.call_later, MANNERS, deletions=reach.deletions
        )

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        assert isinstance(successor, RemoteQueue)
        successor.definition = definition
        self._members.define(vhost, definition)
        self._reach.hosting.successors.discard(definition.id)
        self._reach.hosting.define(definition, vhost)
        self.renew(successor, vhost)

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        raise AssertionError(f"queue '{queue.name}' stays what it is, and is no '{successor.name}'")

    def reopen(self, definition: QueueDefinition, vhost: str) -> RemoteQueue:
        return self.make(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        assert isinstance(queue, RemoteQueue)
        self._loads.subtract(queue.definition.wanted)
        self._loads.update(definition.wanted)
        queue.definition = definition
        self._reach.hosting.define(definition, self._members.vhost_of(definition.id))
        self._reach.hub.redefined(definition)
        self._members.redefine(definition)

    def renew(self, queue: QueueHandle, vhost: str) -> None:
        del vhost
        group = self._reach.hub.leading.queues.get(queue.definition.id)
        if isinstance(group, QuorumQueueMember):
            group.renew()  # mutant: R17e

    def end(self, queue: QueueHandle) -> None:
        assert isinstance(queue, RemoteQueue)
        self._loads.subtract(queue.definition.wanted)
        self._members.forget(queue.definition.id)
        self._reach.hosting.forget(queue.definition.id)
        queue.end()

    def nodes_changed(self) -> None:
        """Some have come or gone."""
        self._members.look_at_all()
