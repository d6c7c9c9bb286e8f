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
    dead_letter: DeadLetterFrom


class Hosting:
    """The `Owner` of the groups of queues."""

    __slots__ = (
        "_around", "_campaigns", "_coming", "_definitions", "_groups", "_is_current", "_lost",
        "_place", "host",
    )  # fmt: skip

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        hub = around.hub
        self._place = Place(
            node=around.node,
            boot=around.boot,
            leading=hub.leading,
            leader_changed=hub.leader_changed,
            host=lambda: self.host,
            clock=around.clock,
            dead_letter=around.dead_letter,
        )
        self.host: RaftHost
        """Set before it starts."""
        self._groups: dict[QueueId, QueueGroup] = {}
        self._definitions: dict[QueueId, tuple[QueueDefinition, str]] = {}
        """Of all quorum queues, wherever they are, with their virtual hosts."""
        self._campaigns: dict[QueueId, int] = {}
        """Those that this node is to lead and does not yet: how often it may try."""
        self._coming: set[QueueId] = set()
        """Those of which this node is a member with the next turn."""
        self._is_current = False
        """Whether definitions are what they are for all."""
        self._lost: set[QueueId] = set()
        """Those whose data here cannot be read: this node must not be the member that it was."""

    # Definitions

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        """A queue is defined, or defined anew with other members."""
        self._definitions[definition.id] = definition, vhost
        group = self._groups.get(definition.id)
        if group is not None:
            group.define(definition, vhost)
        elif self._is_current and definition.id not in self.host:
            self._join(definition)

    def _join(self, definition: QueueDefinition) -> None:
        """Be a member, if this node is to be one."""
        incarnation = dict(definition.members).get(self._around.node)
        if incarnation is None or definition.id in self._lost | self._coming:
            return
        self._coming.add(definition.id)
        is_founder = incarnation == 1
        config = Config.initial(definition.founders) if is_founder else Config()
        self.host.create(definition.id, incarnation, config)
        if is_founder and definition.leader == self._around.node:
            self._campaigns[definition.id] = CAMPAIGNS_MAX
            self.host.feed(self._campaign, definition.id)

    def forget(self, queue: QueueId) -> None:
        """A queue is defined no more: that is the tombstone of its group."""
        self._definitions.pop(queue, None)
        self._campaigns.pop(queue, None)
        is_on_disk = self._drop(queue) or queue in self.host or queue in self._lost
        self._lost.discard(queue)
        if is_on_disk:
            self.host.delete(queue)
        elif queue in self._coming:
            self.host.delete(queue)
            self.host.feed(self._drop, queue)

    def _drop(self, queue: QueueId) -> bool:
        """Whether there was a member."""
        self._around.hub.leading.queues.pop(queue, None)
        return self._groups.pop(queue, None) is not None

    def sweep(self) -> None:
        """All that is defined is known: groups of other queues are left from earlier."""
        self._is_current = True
        for definition, vhost in list(self._definitions.values()):
            self.define(definition, vhost)
        for queue in list(self._groups):
            if queue not in self._definitions:
                event(logger, logging.INFO, "group_without_queue", group=queue)
                self.forget(queue)

    def lose(self, groups: list[GroupId]) -> None:
        """What the disk has of these cannot be read."""
        self._lost.update(groups)

    def leads(self) -> Counter[NodeId]:
        """How many queues each node leads, of those with a member here.  Looks at all of them."""
        return Counter(group.known.node for group in self._groups.values())

    # To lead

    def _campaign(self, queue: QueueId) -> None:
        """From within a turn."""
        tries = self._campaigns.get(queue, 0)
        group = self._groups.get(queue)
        if group is None or not tries or group.known.node:
            self._campaigns.pop(queue, None)
            return
        self._campaigns[queue] = tries - 1
        self.host.group(queue).raft.campaign()

    # An `Owner`

    def make_machine(self, group: GroupId) -> QueueGroup:
        self._coming.discard(group)
        made = self._groups[group] = QueueGroup(group, self._place)
        self._around.hub.leading.queues[group] = made
        if group in self._definitions:
            made.define(*self._definitions[group])
        return made

    def configured(self, change: ConfigChange) -> None:
        """Who changes the members of a queue defines it anew then."""

    def judged(self, verdict: Verdict) -> None:
        """Groups see to it themselves."""

    def unknown(self, node: NodeId, group: GroupId) -> None:
        """A founder may not have heard of the queue yet."""
        if group in self._campaigns:
            self._around.call_later(CAMPAIGN_S, lambda: self.host.feed(self._campaign, group))

    def damaged(self, group: GroupId, index: int) -> None:
        """It is repaired from its peers."""

    def refused(self, node: NodeId, reason: str) -> None:
        """It is dropped, and said."""
