"""The members of quorum queues on this node: which there are, and how each leads.

A definition that names this node makes a member, and its end deletes the group.  A founder begins
with the configuration that all founders give; who came later waits to be told.

What is defined while a start reads its log may be over since: nothing is made of it before `sweep`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.clock import Clock
from fluffle.broker.cluster.host import RaftHost
from fluffle.broker.cluster.queues.group import Place, QueueGroup
from fluffle.broker.cluster.queues.hub import StreamHub
from fluffle.broker.cluster.queues.members import Members
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.streams.messages import Boot
from fluffle.broker.logs import event
from fluffle.broker.queues.dead import DeadLetterFrom
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Config, NodeId
from fluffle.raft.output import ConfigChange, Verdict
from fluffle.raft.records import GroupId

CAMPAIGN_S = 0.002
CAMPAIGNS_MAX = 50
"""A founder that is to lead may be the first that has heard of its queue: it tries again after
this, so often."""

logger = logging.getLogger(__name__)


class Surroundings(NamedTuple):
    """The rest of the node."""

    node: NodeId
    boot: Boot
    hub: StreamHub
    clock: Clock
    call_later: Callable[[float, Callable[[], None]], object]
    """After so many seconds."""
    life: Callable[[], int]
    """The incarnation of this node in the cluster."""
    dead_letter: DeadLetterFrom


class Hosting:
    """The `Owner` of the groups of queues."""

    __slots__ = (
        "_around", "_campaigns", "_coming", "_definitions", "_groups", "_is_current", "_lost",
        "_place", "_trying", "go_on_alone", "host", "members",
    )  # fmt: skip

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        hub = around.hub
        self._place = Place(
            node=around.node,
            boot=around.boot,
            leading=hub.leading,
            leader_changed=self._leader_changed,
            host=lambda: self.host,
            clock=around.clock,
            dead_letter=around.dead_letter,
        )
        self.host: RaftHost
        """Set before it starts."""
        self.go_on_alone: Callable[[QueueId, int], None]
        """Has a member that is here be the only one, in this incarnation.  Set before it starts."""
        self.members: Members | None = None
        """Who changes them; None if nobody does."""
        self._groups: dict[QueueId, QueueGroup] = {}
        self._definitions: dict[QueueId, tuple[QueueDefinition, str]] = {}
        """Of all quorum queues, wherever they are, with their virtual hosts."""
        self._campaigns: dict[QueueId, int] = {}
        """Those that this node is to lead and does not yet: how often it may try."""
        self._trying: set[QueueId] = set()
        """Those for which it tries again soon."""
        self._coming: dict[QueueId, int] = {}
        """Those of which this node is a member with the next turn, and in which incarnation."""
        self._is_current = False
        """Whether definitions are what they are for all."""
        self._lost: dict[QueueId, int] = {}
        """Those whose data here cannot be read, and the incarnation that this node has had there:
        it must not be that member again."""

    # Definitions

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        """A queue is defined, or defined anew with other members."""
        self._definitions[definition.id] = definition, vhost
        if not self._is_current:
            return  # it may be over, or with other members: nobody leads here before
        if (group := self._groups.get(definition.id)) is not None:
            group.define(definition, vhost)
        self._settle(definition)

    def _settle(self, definition: QueueDefinition) -> None:
        """Be the member that this node is to be, and none that it is not any more."""
        queue, node = definition.id, self._around.node
        before = self._incarnation_of(queue)
        incarnation = dict(definition.members).get(node, 0)
        if before == incarnation:
            return
        is_mine = dict(definition.lives).get(node) == self._around.life()
        is_here = before and queue not in self._coming
        if is_here and is_mine and before < incarnation and len(definition.members) == 1:
            self._go_on_alone(definition, incarnation)
            return
        if before:
            self._leave(queue)
        if is_mine and incarnation > max(before, self._lost.get(queue, 0)):
            self._join(definition, incarnation)

    def _go_on_alone(self, definition: QueueDefinition, incarnation: int) -> None:
        """Nobody joins a group that nobody is in: an operator has given the others up."""
        name = definition.spec.name
        event(logger, logging.WARNING, "queue_goes_on_alone", group=definition.id, queue=name)
        self.go_on_alone(definition.id, incarnation)

    def _incarnation_of(self, queue: QueueId) -> int:
        """As which member this node is here, or is going to be; 0 if it is none."""
        if queue in self._coming or queue not in self.host:
            return self._coming.get(queue, 0)
        return self.host.group(queue).incarnation

    def _join(self, definition: QueueDefinition, incarnation: int) -> None:
        self._coming[definition.id] = incarnation
        is_founder = incarnation == 1
        config = Config.initial(definition.founders) if is_founder else Config()
        self.host.create(definition.id, incarnation, config)
        if is_founder and definition.leader == self._around.node:
            self._campaigns[definition.id] = CAMPAIGNS_MAX
            self.host.feed(self._campaign, definition.id)

    def forget(self, queue: QueueId) -> None:
        """A queue is defined no more: that is the tombstone of its group."""
        self._definitions.pop(queue, None)
        was_lost = self._lost.pop(queue, None) is not None
        if was_lost or self._incarnation_of(queue):
            self._leave(queue)

    def _leave(self, queue: QueueId) -> None:
        """With all that is here of it."""
        self._campaigns.pop(queue, None)
        self._drop(queue)
        self.host.delete(queue)
        if self._coming.pop(queue, None) is not None:
            self.host.feed(self._drop, queue)

    def _drop(self, queue: QueueId) -> None:
        self._groups.pop(queue, None)
        self._around.hub.leading.queues.pop(queue, None)

    def sweep(self) -> None:
        """All that is defined is known: groups of other queues are left from earlier."""
        self._is_current = True
        for queue in self._lost:
            if queue in self._definitions:
                members = dict(self._definitions[queue][0].members)
                self._lost[queue] = members.get(self._around.node, 0)
                event(logger, logging.ERROR, "member_lost", **self._named(queue))
        for definition, vhost in list(self._definitions.values()):
            self.define(definition, vhost)
        for queue in [*self._groups, *self._lost]:
            if queue not in self._definitions:
                event(logger, logging.INFO, "group_without_queue", group=queue)
                self.forget(queue)

    def lose(self, groups: list[GroupId]) -> None:
        """What the disk has of these cannot be read."""
        self._lost.update(dict.fromkeys(groups, 0))

    def _named(self, queue: QueueId) -> dict[str, object]:
        """What people call it, as far as that is known."""
        if queue not in self._definitions:
            return {"group": queue}
        definition, vhost = self._definitions[queue]
        return {"vhost": vhost, "queue": definition.spec.name, "group": queue}

    def leads(self) -> Counter[NodeId]:
        """How many queues each node leads, or is to lead as far as is known.  Looks at all."""
        known = {queue: group.known.node for queue, group in self._groups.items()}
        return Counter(
            known.get(queue) or definition.leader
            for queue, (definition, _vhost) in self._definitions.items()
        )

    # To lead

    def _leader_changed(self, queue: QueueId) -> None:
        self._around.hub.leader_changed(queue)
        if self.members is not None:
            self.members.leader_changed(queue)

    def _campaign(self, queue: QueueId) -> None:
        """From within a turn: stand, or ask again for votes, unless somebody has won."""
        self._trying.discard(queue)
        tries = self._campaigns.get(queue, 0)
        group = self._groups.get(queue)
        if group is None or not tries or group.known.node:
            self._campaigns.pop(queue, None)
            return
        self._campaigns[queue] = tries - 1
        self.host.group(queue).raft.campaign(is_first=True)

    def _try_again(self, queue: QueueId) -> None:
        """Soon, and once, however many have said that they do not know the queue."""
        if queue not in self._trying:
            self._trying.add(queue)
            self._around.call_later(CAMPAIGN_S, lambda: self.host.feed(self._campaign, queue))

    # An `Owner`

    def make_machine(self, group: GroupId) -> QueueGroup:
        self._coming.pop(group, None)
        made = self._groups[group] = QueueGroup(group, self._place)
        self._around.hub.leading.queues[group] = made
        if self._is_current and group in self._definitions:
            made.define(*self._definitions[group])
        return made

    def configured(self, change: ConfigChange) -> None:
        """Whoever leads has all know it."""
        if self.members is not None:
            self.members.look(change.group)

    def judged(self, verdict: Verdict) -> None:
        """Groups see to it themselves, but for members that could not be added."""
        if self.members is not None and verdict.is_alive:
            self.members.look_at_all()

    def unknown(self, node: NodeId, group: GroupId) -> None:
        """A founder may not have heard of the queue yet, or have lost what it had."""
        if group in self._campaigns:
            self._try_again(group)
        elif self.members is not None:
            self.members.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        """It is repaired from its peers, if it has any."""
        told = self._named(group) | {"index": index, "wrong": wrong}
        event(logger, logging.ERROR, "log_damaged", **told)

    def given_up(self, group: GroupId, wrong: str) -> None:
        """Its log is a copy all the same, and others lead, if there are any."""
        event(logger, logging.ERROR, "log_misfit", **self._named(group), wrong=wrong)

    def refused(self, node: NodeId, reason: str) -> None:
        """It is dropped, and said."""
