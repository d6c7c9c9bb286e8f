"""The members of quorum queues follow what is wanted, one step at a time.

    wanted, no member, alive --> learner --> has caught up: voter
    a member that is not wanted, or has lost what it had --> removed

No member is removed without which those that are there would be no majority of the rest: nothing
could be agreed on any more, not even which others come or go.

The leader of a queue sees to it, and has all know what the group has agreed on.  In the place of a
node that is of the cluster no more comes another, once there is one; maybe of the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from fluffle.broker.base.clock import EventLoop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.hosted_group import EntryOutcome, HostedGroup, ProposalLost
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders, local_leader_of
from fluffle.broker.cluster.queues.placement import choose_added, choose_grown
from fluffle.broker.cluster.queues.ports import QueueClusterView, QueueId, named
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.settings import SettingsFrom, by_arguments
from fluffle.broker.vhosts.queue_changes import redefinition
from fluffle.raft.config import AddLearner, Configuration, NodeId, Promote, Remove
from fluffle.raft.config import Change as Step
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.state import ProgressState

LOOK_S = 0.5
"""Between two looks at a queue that is not on the nodes that are wanted."""

LOOKS_APART_MAX = 64
"""Most ticks between two attempts of a leader to hand over: half a minute."""

LOOKS_MAX = 128
"""Queues that are looked at in one turn when nodes have come or gone: some milliseconds."""

WISH_LOOKS = 20
"""Looks at whether the wanted leader may be asked for: the present one may not serve yet, and the
other may lag.  This is ten seconds."""

UNKNOWN_MAX = 4
"""So many times a node may say that it has no such member: one of an older version may only not
have heard of it yet.  It is asked again after a while, and then more and more rarely: this is some
seconds."""

logger = logging.getLogger(__name__)


class LedGroups:
    """The groups of quorum queues that are led on this node."""

    def __init__(self, leaders: LocalLeaders) -> None:
        self._leaders = leaders

    def led(self, queue: QueueId) -> HostedGroup | None:
        """The group of a queue, while it is led here."""
        served = local_leader_of(self._leaders, queue)
        return served.hosted if isinstance(served, QuorumQueueMember) else None

    def leader(self, queue: QueueId) -> NodeId | None:
        """Leader as the member here knows it; empty: none known.  None: there is no member here."""
        leaders = self._leaders
        return leaders.leader_of(queue).node if queue in leaders.queues else None


class LeadershipHandover:
    """On, by a leader that is to go, or in whose place another is wished for.

    The queue takes nothing during a try, so that after one that came to nothing the next is of
    another, and ever later.
    """

    def __init__(self) -> None:
        self._tries = 0
        self._looks_left = 0
        """Until the next try."""

    def target(self, targets: Sequence[NodeId]) -> NodeId | None:
        """Node to ask at this look, or None."""
        if self._looks_left:
            self._looks_left -= 1
            return None
        target = targets[self._tries % len(targets)]
        self._looks_left = min(2**self._tries, LOOKS_APART_MAX) - 1
        self._tries += 1
        return target


class PreferredLeader(NamedTuple):
    """Wish that a certain member leads."""

    looks_left: int
    handing: LeadershipHandover
    """On to it, while this node leads."""


class MemberUnknown(NamedTuple):
    """The answer of a node that knows no such member."""

    times: int
    """How often it has said that it is not there."""
    progress: tuple[ProgressState, int] | None
    """Progress, as of `Group.progress`, when it said so last."""

    def is_past(self, progress: tuple[ProgressState, int] | None) -> bool:
        """True if the member has answered since: it had only not heard of the queue yet."""
        is_fed = progress is not None and progress[0] is not ProgressState.PROBE
        return is_fed and progress != self.progress


@dataclass(slots=True, eq=False)
class QueueMembership:
    """Membership changes of all queues that are led here."""

    _cluster: QueueClusterView
    _groups: LedGroups
    _loop: EventLoop
    loads: Mapping[NodeId, int]
    """How many members each node is to have."""
    defined: dict[QueueId, tuple[str, QueueDefinition]] = field(default_factory=dict)
    """With their virtual hosts."""
    _settling: set[QueueId] = field(default_factory=set, init=False)
    """Queues whose definition is being changed from here."""
    _looking: set[QueueId] = field(default_factory=set, init=False)
    """Queues that will be checked."""
    _due: dict[QueueId, None] = field(default_factory=dict, init=False)
    """Queues that are checked in this turn and the next ones, because nodes have changed."""
    _handing: dict[QueueId, LeadershipHandover] = field(default_factory=dict, init=False)
    """Queues whose leadership is to move away from this node, until their definition
    changes."""
    _wishes: dict[QueueId, PreferredLeader] = field(default_factory=dict, init=False)
    """Queues that another node is to lead."""
    _unknown: dict[tuple[QueueId, NodeId], MemberUnknown] = field(default_factory=dict, init=False)
    """Members that are not there, as their nodes say, of queues that are led here; until
    anything is changed about them, or they answer after all."""

    def define(self, vhost: str, definition: QueueDefinition) -> None:
        """Record a queue's new definition."""
        self.defined[definition.id] = vhost, definition

    def redefine(self, definition: QueueDefinition) -> None:
        """The same queue is to be in other places."""
        vhost, before = self.defined[definition.id]
        self.defined[definition.id] = vhost, definition
        self._handing.pop(definition.id, None)
        if definition.leader and before.leader != definition.leader:
            is_new = definition.id not in self._wishes
            self._wishes[definition.id] = PreferredLeader(WISH_LOOKS, LeadershipHandover())
            if is_new:
                self._hand_over(definition.id)
        self._look_later(definition.id)

    def vhost_of(self, queue: QueueId) -> str:
        """Virtual host of a defined queue."""
        return self.defined[queue][0]

    def forget(self, queue: QueueId) -> None:
        self.defined.pop(queue, None)
        self._handing.pop(queue, None)
        self._forget_unknown(queue)

    def _forget_unknown(self, queue: QueueId) -> None:
        for key in [key for key in self._unknown if key[0] == queue]:
            del self._unknown[key]

    def look_at_all(self) -> None:
        """Nodes have come or gone: some queues in each turn, all of them from now on."""
        is_looking, self._due = bool(self._due), dict.fromkeys(self.defined)
        if not is_looking and self._due:
            self._look_at_some()

    def _look_at_some(self) -> None:
        for queue in list(islice(self._due, LOOKS_MAX)):
            del self._due[queue]
            self.look(queue)
        if self._due:
            self._loop.call_later(0, self._look_at_some)

    def unknown(self, node: NodeId, queue: QueueId) -> None:
        """A node says that it has no member of this queue."""
        hosted = self._groups.led(queue)
        if hosted is None:
            return
        progress = hosted.raft.progress.get(node)
        before = self._unknown.get((queue, node))
        times = 0 if before is None or before.is_past(progress) else before.times
        self._unknown[queue, node] = MemberUnknown(times + 1, progress)
        self._look_later(queue)

    def leader_changed(self, queue: QueueId) -> None:
        """Handle a change of leader: this node may go on where another has stopped."""
        if self._groups.led(queue) is not None:
            self._look_later(queue)
        else:
            self._forget_unknown(queue)

    # One queue

    def look(self, queue: QueueId) -> None:
        """Take the next step, if one is due."""
        hosted = self._groups.led(queue)
        known = self.defined.get(queue)
        if hosted is None or known is None or queue in self._settling:
            return
        if not self._cluster.incarnations:
            return
        definition = known[1]
        configs = hosted.configs
        active = configs[-1]
        if self._agreed(definition, configs[0]) != definition:
            self._settle(queue)
            return
        self._heed_answers(queue, hosted)
        lost = self._lost(definition)
        due = [
            step
            for step in steps(active, definition.wanted, lost)
            if self._is_possible(step, active, lost)
        ]
        for step in due:
            hosted.change(step, partial(self._on_outcome, queue, step))
        is_leaving = self._give_way(queue, hosted, set(definition.wanted) - lost)
        if due or is_leaving:
            self._look_later(queue)

    def _is_possible(self, step: Step, active: Configuration, lost: Collection[NodeId]) -> bool:
        """True if a step is possible: no leader removes itself or a member that the majority needs,
        and no unreachable node is added."""
        if isinstance(step, AddLearner):
            return step.node in self._cluster.incarnations and self._cluster.is_alive(step.node)
        if isinstance(step, Remove):
            return step.node != self._cluster.node and self._can_do_without(step.node, active, lost)
        return True

    def _can_do_without(
        self, node: NodeId, active: Configuration, lost: Collection[NodeId]
    ) -> bool:
        """True if a majority of the other voters is there: a lost one never comes again."""
        others = [voter.node for voter in active.voters if voter.node != node]
        there = [each for each in others if each not in lost and self._is_there(each)]
        return 2 * len(there) > len(others)

    def _is_there(self, node: NodeId) -> bool:
        return node == self._cluster.node or self._cluster.is_alive(node)

    def _heed_answers(self, queue: QueueId, hosted: HostedGroup) -> None:
        """Members that answer are there, whatever their nodes have said before."""
        for key, said in [*self._unknown.items()]:
            if key[0] == queue and said.is_past(hosted.raft.progress.get(key[1])):
                del self._unknown[key]

    def _lost(self, definition: QueueDefinition) -> set[NodeId]:
        """The nodes whose member is not there any more, though they are."""
        lives = self._cluster.incarnations
        lost = {node for node, life in definition.lives if lives.get(node) != life}
        for (queue, node), said in self._unknown.items():
            if queue == definition.id and said.times > UNKNOWN_MAX:
                lost.add(node)
        return lost

    def _agreed(self, definition: QueueDefinition, committed: Configuration) -> QueueDefinition:
        """Definition of a queue that fits its group and the cluster as they are now."""
        lives = self._cluster.incarnations
        members = tuple(sorted((member.node, member.incarnation) for member in committed.members))
        before = dict(definition.members)
        known = dict(definition.lives)
        of_members = tuple(
            (node, known[node] if before.get(node) == number else lives.get(node, 0))
            for node, number in members
        )
        wanted = self._wanted(definition, lives)
        return definition._replace(members=members, lives=of_members, wanted=wanted)

    def _wanted(
        self, definition: QueueDefinition, lives: Mapping[NodeId, int]
    ) -> tuple[NodeId, ...]:
        """With others in the place of nodes that are gone, as far as there are others."""
        wanted = list(definition.wanted)
        others = [*filter(self._is_there, lives)]
        for node in definition.wanted:
            added = choose_added(wanted, others, self.loads) if node not in lives else None
            if added is not None:
                wanted[wanted.index(node)] = added
        return tuple(sorted(wanted))

    def _settle(self, queue: QueueId) -> None:
        self._settling.add(queue)
        self._cluster.metadata.ensure(partial(self._decide, queue), partial(self._settled, queue))

    def _decide(self, queue: QueueId) -> Change:
        """Have all know it, while this node leads."""
        known, hosted = self.defined.get(queue), self._groups.led(queue)
        if known is None or hosted is None:
            return NOTHING
        vhost, definition = known
        agreed = self._agreed(definition, hosted.configs[0])
        return NOTHING if agreed == definition else redefinition(vhost, agreed)

    def _settled(self, queue: QueueId) -> None:
        self._settling.discard(queue)
        self.look(queue)

    def _on_outcome(self, queue: QueueId, step: Step, outcome: EntryOutcome) -> None:
        """Handle the outcome of a step; a refused one is tried again."""
        if isinstance(outcome, ProposalLost):
            return
        self._unknown.pop((queue, step.node), None)
        event(
            logger, logging.INFO, "queue_members_changed", **self._named(queue),
            node=step.node, step=type(step).__name__,
        )  # fmt: skip

    def _named(self, queue: QueueId) -> dict[str, object]:
        """Name of a queue for the log; only its number if it is gone."""
        return named(queue, *self.defined.get(queue, ("", None)))

    def _look_later(self, queue: QueueId) -> None:
        if queue not in self._looking:
            self._looking.add(queue)
            self._loop.call_later(LOOK_S, partial(self._look_again, queue))

    def _look_again(self, queue: QueueId) -> None:
        self._looking.discard(queue)
        self.look(queue)

    # Who leads

    def _give_way(self, queue: QueueId, hosted: HostedGroup, wanted: Collection[NodeId]) -> bool:
        """A leader that is to go has another lead before: the one that has most of the log.

        Whether it is to go, and there is a member that may come to lead some day.
        """
        if self._cluster.node in wanted:
            return False
        targets = [each for each in self._targets(hosted) if each in wanted]
        target = (
            self._handing.setdefault(queue, LeadershipHandover()).target(targets)
            if targets
            else None
        )
        if target is not None:
            hosted.transfer(target, refused)
        voters = hosted.configs[-1].voters
        return any(each.node in wanted and self._cluster.is_alive(each.node) for each in voters)

    def _hand_over(self, queue: QueueId) -> None:
        """Hand a queue over to the member that is wanted as its leader."""
        wish, known = self._wishes.pop(queue, None), self.defined.get(queue)
        leader = self._groups.leader(queue)
        if wish is None or known is None or leader in (None, known[1].leader):
            return
        hosted, target = self._groups.led(queue), known[1].leader
        if hosted is not None and target in self._targets(hosted) and wish.handing.target([target]):
            hosted.transfer(target, refused)
        if wish.looks_left:
            self._wishes[queue] = wish._replace(looks_left=wish.looks_left - 1)
            self._loop.call_later(LOOK_S, partial(self._hand_over, queue))

    def _targets(self, hosted: HostedGroup) -> list[NodeId]:
        """Members that may lead a group from now on, longest log first.

        A node without room on its disk would hand it back at once.
        """
        return [*filter(self._cluster.may_lead, hosted.raft.transfer_targets)]


def steps(
    config: Configuration, wanted: Collection[NodeId], lost: Collection[NodeId]
) -> list[Step]:
    """Changes of members in the order to try them: a group takes one at a time."""
    members = {member.node for member in config.members}
    gone = sorted((members - set(wanted)) | (members & set(lost)))  # mutant: D2
    return [
        *(Promote(each.node) for each in config.learners if each.node not in gone),
        *(AddLearner(node) for node in sorted(set(wanted) - members)),
        *(Remove(node) for node in gone if len(members) > 1),
    ]


def refused(_refused: ProposalRefused) -> None:
    """Do nothing about a refusal: the step is tried again later."""


SOON_S = 10
"""Time to wait before missing members are added: a node that came may go again, and others may
come.  As RabbitMQ."""


@dataclass(slots=True, eq=False)
class MembershipReconciliation:
    """Reconciliation of the members of all queues that one node leads.

    Queues are looked at now and then, and soon after a node has come; the leader of each adds
    members.
    """

    _cluster: QueueClusterView
    _groups: LedGroups
    _members: QueueMembership
    _config: QuorumConfig
    _settings: SettingsFrom = by_arguments
    _due_ms: int | None = field(default=None, init=False)
    """When they are looked at next; None until the time is known."""

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
        for queue, known in tuple(self._members.defined.items()):
            if self._groups.led(queue) is not None and self._wanted(*known) is not None:
                decide = partial(self._decide, queue)
                self._cluster.metadata.ensure(decide, ignore_outcome)  # mutant: D5

    def _decide(self, queue: QueueId) -> Change:
        known = self._members.defined.get(queue)
        wanted = self._wanted(*known) if known is not None else None
        if known is None or wanted is None or self._groups.led(queue) is None:
            return NOTHING
        return redefinition(known[0], known[1]._replace(wanted=wanted))

    def _wanted(self, vhost: str, definition: QueueDefinition) -> tuple[NodeId, ...] | None:
        """More members than now; None while one of these is away, or if there are enough."""
        here = [*filter(self._is_here, self._cluster.incarnations)]
        if not set(definition.wanted) <= set(here):
            return None
        said = self._settings(vhost, definition.spec).target_group_size
        size = max(self._config.target_group_size or 0, said or 0)
        wanted = choose_grown(definition.wanted, here, size, self._members.loads)
        return wanted if wanted != definition.wanted else None

    def _is_here(self, node: NodeId) -> bool:
        return node == self._cluster.node or self._cluster.is_alive(node)


def ignore_outcome() -> None:
    """Do nothing: the queue is checked again."""
