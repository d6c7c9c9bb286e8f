"""The members of quorum queues follow what is wanted, one step at a time.

    wanted, no member, alive --> learner --> has caught up: voter
    a member that is not wanted, or has lost what it had --> removed

Whoever leads a queue sees to it, and has all know what the group has agreed on.  In the place of a
node that is of the cluster no more comes another, once there is one; maybe of the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

from fluffle.broker.cluster.fate import Fate, Lost
from fluffle.broker.cluster.hosted import HostedGroup
from fluffle.broker.cluster.queues.placement import choose_added
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.deciding import redefinition
from fluffle.broker.logs import event
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.changing import Decide
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import AddLearner, Config, NodeId, Promote, Remove
from fluffle.raft.config import Change as Step
from fluffle.raft.refused import Refused

LOOK_S = 0.5
"""Between two looks at a queue that is not on the nodes that are wanted."""

HAND_OVERS_MAX = 20
"""So many times whoever leads is asked to let another lead: it may not serve yet, and the other may
lag.  This is ten seconds."""

UNKNOWN_MAX = 4
"""So many times a node may say that it has no such member, for it may not have heard of it yet.  It
is asked again after a while, and then more and more rarely: this is some seconds."""

logger = logging.getLogger(__name__)


class Ports(NamedTuple):
    """The rest of the node."""

    node: NodeId
    led: Callable[[QueueId], HostedGroup | None]
    """The group of a queue, while it is led here."""
    leader: Callable[[QueueId], NodeId | None]
    """Who leads it, as its member here knows; empty: nobody.  None: there is no member here."""
    lives: Callable[[], Mapping[NodeId, int]]
    """The nodes of the cluster, each with its incarnation there."""
    is_alive: Callable[[NodeId], bool]
    settle: Callable[[Decide, Callable[[], None]], None]
    """Has definitions changed, for as long as it takes."""
    call_later: Callable[[float, Callable[[], None]], object]


class Members:
    """Of all queues, as far as they are led here."""

    __slots__ = (
        "_loads", "_looking", "_ports", "_settling", "_unknown", "_wishes", "defined",
    )  # fmt: skip

    def __init__(self, ports: Ports, loads: Mapping[NodeId, int]) -> None:
        """`loads`: how many members each node is to have."""
        self._ports = ports
        self._loads = loads
        self.defined: dict[QueueId, tuple[str, QueueDefinition]] = {}
        """With their virtual hosts."""
        self._settling: set[QueueId] = set()
        """Those whose definition is being changed from here."""
        self._looking: set[QueueId] = set()
        """Those that are going to be looked at."""
        self._wishes: dict[QueueId, int] = {}
        """Queues that somebody else is to lead: how often that may still be asked for."""
        self._unknown: dict[tuple[QueueId, NodeId], int] = {}
        """Members that are not there, as their nodes say: how often in a row."""

    def define(self, vhost: str, definition: QueueDefinition) -> None:
        """As all know it from now on."""
        self.defined[definition.id] = vhost, definition

    def redefine(self, definition: QueueDefinition) -> None:
        """The same queue is to be in other places."""
        vhost, before = self.defined[definition.id]
        self.defined[definition.id] = vhost, definition
        if definition.leader and before.leader != definition.leader:
            is_new = definition.id not in self._wishes
            self._wishes[definition.id] = HAND_OVERS_MAX
            if is_new:
                self._hand_over(definition.id)
        self._look_later(definition.id)

    def vhost_of(self, queue: QueueId) -> str:
        """Of one that is defined."""
        return self.defined[queue][0]

    def forget(self, queue: QueueId) -> None:
        self.defined.pop(queue, None)
        self._unknown = {key: count for key, count in self._unknown.items() if key[0] != queue}

    def look_at_all(self) -> None:
        """Nodes have come or gone."""
        for queue in list(self.defined):
            self.look(queue)

    def unknown(self, node: NodeId, queue: QueueId) -> None:
        """A node says that it has no member of this queue."""
        if self._ports.led(queue) is not None:
            self._unknown[queue, node] = self._unknown.get((queue, node), 0) + 1
            self._look_later(queue)

    def leader_changed(self, queue: QueueId) -> None:
        """Maybe this node leads it from now on, and goes on where another has stopped."""
        if self._ports.led(queue) is not None:
            self._look_later(queue)

    # One queue

    def look(self, queue: QueueId) -> None:
        """Take the next step, if one is due."""
        hosted = self._ports.led(queue)
        known = self.defined.get(queue)
        if hosted is None or known is None or queue in self._settling or not self._ports.lives():
            return
        definition = known[1]
        configs = hosted.configs
        active = configs[-1]
        if self._agreed(definition, configs[0]) != definition:
            self._settle(queue)
            return
        due = [
            step
            for step in steps(active, definition.wanted, self._lost(definition))
            if self._is_possible(step)
        ]
        for step in due:
            hosted.change(step, partial(self._on_fate, queue, step))
        self._give_way(hosted, active, definition.wanted)
        if due:
            self._look_later(queue)

    def _is_possible(self, step: Step) -> bool:
        """A leader does not remove itself, and nobody is added who is not there."""
        if isinstance(step, AddLearner):
            return step.node in self._ports.lives() and self._ports.is_alive(step.node)
        return step != Remove(self._ports.node)

    def _lost(self, definition: QueueDefinition) -> set[NodeId]:
        """Members that are not there any more, though their nodes are."""
        lives = self._ports.lives()
        lost = {node for node, life in definition.lives if lives.get(node) != life}
        for (queue, node), count in self._unknown.items():
            if queue == definition.id and count > UNKNOWN_MAX:
                lost.add(node)
        return lost

    def _agreed(self, definition: QueueDefinition, committed: Config) -> QueueDefinition:
        """What is to be known of a queue, as its group and the cluster are now."""
        lives = self._ports.lives()
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
        others = [node for node in lives if self._ports.is_alive(node) or node == self._ports.node]
        for node in definition.wanted:
            added = choose_added(wanted, others, self._loads) if node not in lives else None
            if added is not None:
                wanted[wanted.index(node)] = added
        return tuple(sorted(wanted))

    def _settle(self, queue: QueueId) -> None:
        self._settling.add(queue)
        self._ports.settle(partial(self._decide, queue), partial(self._settled, queue))

    def _decide(self, queue: QueueId) -> Change:
        """Have all know it, while this node leads."""
        known, hosted = self.defined.get(queue), self._ports.led(queue)
        if known is None or hosted is None:
            return NOTHING
        vhost, definition = known
        agreed = self._agreed(definition, hosted.configs[0])
        return NOTHING if agreed == definition else redefinition(vhost, agreed)

    def _settled(self, queue: QueueId) -> None:
        self._settling.discard(queue)
        self.look(queue)

    def _on_fate(self, queue: QueueId, step: Step, fate: Fate) -> None:
        """What is refused now is tried again."""
        if isinstance(fate, Lost):
            return
        self._unknown.pop((queue, step.node), None)
        event(
            logger, logging.INFO, "queue_members_changed", queue=queue, node=step.node,
            step=type(step).__name__,
        )  # fmt: skip

    def _look_later(self, queue: QueueId) -> None:
        if queue not in self._looking:
            self._looking.add(queue)
            self._ports.call_later(LOOK_S, partial(self._look_again, queue))

    def _look_again(self, queue: QueueId) -> None:
        self._looking.discard(queue)
        self.look(queue)

    # Who leads

    def _give_way(self, hosted: HostedGroup, config: Config, wanted: Collection[NodeId]) -> None:
        """A leader that is to go has another lead before."""
        if self._ports.node not in wanted:
            for voter in config.voters:
                if voter.node in wanted and self._ports.is_alive(voter.node):
                    hosted.transfer(voter.node, refused)
                    return

    def _hand_over(self, queue: QueueId) -> None:
        """Somebody wants another member to lead."""
        left, known = self._wishes.pop(queue, 0), self.defined.get(queue)
        leader = self._ports.leader(queue)
        if not left or known is None or leader in (None, known[1].leader):
            return
        hosted = self._ports.led(queue)
        if hosted is not None:
            hosted.transfer(known[1].leader, refused)
        self._wishes[queue] = left - 1
        self._ports.call_later(LOOK_S, partial(self._hand_over, queue))


def steps(config: Config, wanted: Collection[NodeId], lost: Collection[NodeId]) -> list[Step]:
    """What is to change, in the order in which to try it: a group takes one at a time."""
    members = {member.node for member in config.members}
    gone = sorted((members - set(wanted)) | (members & set(lost)))
    return [
        *(Promote(each.node) for each in config.learners if each.node not in gone),
        *(AddLearner(node) for node in sorted(set(wanted) - members)),
        *(Remove(node) for node in gone if len(members) > 1),
    ]


def refused(_refused: Refused) -> None:
    """Whoever wants it may ask again."""
