"""Members of quorum queues on this node: one of each queue whose definition names the node.

A member's group is deleted when its queue ends.  A founder begins with the configuration that all
founders give; one that came later waits for it to be sent.

What is defined while a start reads its log may be over since: nothing is made of it before `sweep`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from fluffle.broker.base.clock import Clock, EventLoop
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.queues.log_compaction import DEAD_BYTES_MIN, LogCompaction
from fluffle.broker.cluster.queues.membership import QueueMembership
from fluffle.broker.cluster.queues.node_sessions import NodeSessions
from fluffle.broker.cluster.queues.placement import first_leader
from fluffle.broker.cluster.queues.ports import KnownLeader, QueueClusterView, QueueId, named
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember, QuorumServices
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.settings import QueueSettings, SettingsFrom
from fluffle.broker.runtime.background import in_pieces
from fluffle.broker.runtime.timers import QueueTiming
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import GroupId
from fluffle.raft.output import ConfigChange, LivenessVerdict

COLLECT_S = 1.0
"""Time in seconds within which changes are logged together: a node that is lost has led many."""

LINES_MAX = 10
"""If more queues have changed hands, how many is said instead of which."""

SWEPT_MAX = 64
"""Queues that are taken up in one turn after a start: some milliseconds, if all are led here."""

CLUSTER_REVISIONS = 1 << 32
"""Where those of a cluster begin, so that they are higher than any of the node that founded it with
the queues that it had when it was alone: it has counted these one by one."""

logger = logging.getLogger(__name__)

GONE_MAX = 4096
"""Queues of which it is known that they are deleted: the last ones."""


class DefinedQueues:
    """The quorum queues that a node knows of, and the last that were deleted."""

    def __init__(self, settings: SettingsFrom) -> None:
        self.known: dict[QueueId, tuple[QueueDefinition, str]] = {}
        """With their virtual hosts."""
        self.successors: set[QueueId] = set()
        """Queues that are to replace another and serve no client yet."""
        self._gone: dict[QueueId, None] = {}
        """Deleted while this node was there, the last of them."""
        self._settings = settings

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        self.known[definition.id] = definition, vhost

    def forget(self, queue: QueueId) -> None:
        """Forget a deleted queue."""
        self.known.pop(queue, None)
        self.successors.discard(queue)
        self._gone[queue] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]

    def is_there(self, group: QueueId) -> bool:
        """True if a queue is defined."""
        return group in self.known

    def is_gone(self, group: QueueId) -> bool:
        """True if one was, in this life of the node, and is no more."""
        return group in self._gone

    def settings_of(self, vhost: str, definition: QueueDefinition) -> QueueSettings:
        """Settings of a queue of a virtual host now."""
        settings = self._settings(vhost, definition.spec)
        return settings.of_successor if definition.id in self.successors else settings

    def named(self, queue: QueueId) -> dict[str, object]:
        """Fields that name a queue in the log, as far as known."""
        definition, vhost = self.known.get(queue, (None, ""))
        return named(queue, vhost, definition)


@dataclass(slots=True, eq=False)
class LeaderLog:
    """Log of leader changes, as the members on this node hear of them."""

    _named: Callable[[QueueId], Mapping[str, object]]
    """Returns what people call a queue, as fields of a line."""
    _loop: EventLoop
    _last: dict[QueueId, KnownLeader] = field(default_factory=dict, init=False)
    """Last leader of each queue: having none in between is not logged."""
    _changed: dict[QueueId, NodeId] = field(default_factory=dict, init=False)
    """Queues whose change of leader may have to be logged, with the leader before."""

    def heard(self, queue: QueueId, known: KnownLeader) -> None:
        """Record the leader of a queue, as far as it is known.

        The first leader that is heard of here is no news: the queue was just declared, or this node
        just started, and it may have been led by the same all the time.
        """
        if not known.node:
            return
        former, self._last[queue] = self._last.get(queue), known
        if former is not None and former.node != known.node:
            if not self._changed:
                self._loop.call_later(COLLECT_S, self._say)
            self._changed.setdefault(queue, former.node)

    def forget(self, queue: QueueId) -> None:
        """Forget a member that is not here any more."""
        self._last.pop(queue, None)

    def _say(self) -> None:
        news = [
            (queue, known, before)
            for queue, before in self._changed.items()
            if (known := self._last.get(queue)) is not None and known.node != before
        ]
        self._changed = {}
        if len(news) > LINES_MAX:
            event(logger, logging.INFO, "queue_leaders_changed", count=len(news))
            return
        for queue, known, before in news:
            event(
                logger, logging.INFO, "queue_leader_changed", **self._named(queue),
                leader=known.node, former=before, term=known.term,
            )  # fmt: skip


class QuorumMembers:
    """The `GroupOwner` of the groups of queues."""

    def __init__(
        self,
        router: NodeSessions,
        cluster: QueueClusterView,
        clock: Clock,
        loop: EventLoop,
        *,
        aging: QueueTiming,
        services: QuorumServices,
        dead_bytes_min: int = DEAD_BYTES_MIN,
    ) -> None:
        """`clock`: that of the machine, with the time of day that all nodes go by.
        `dead_bytes_min`: of an entry, before it is made smaller."""
        self.router = router
        self.leaders = router.leaders
        self.cluster = cluster
        self.clock = clock
        self.loop = loop
        self.services = services
        self.defined = DefinedQueues(services.settings)
        self.aging = QueueTiming(aging.timers, self._queue_expired)
        self._expired = aging.queue_expired
        self.compaction = LogCompaction(self, dead_bytes_min)
        self.host: RaftHost
        """Set before it starts."""
        self.force_single_member: Callable[[QueueId, int], None]
        """Makes a member here the only one, in this incarnation.  Set before it starts."""
        self.members: QueueMembership | None = None
        """Changes the members of queues; None if nothing does."""
        self.groups: dict[QueueId, QuorumQueueMember] = {}
        """The members on this node."""
        self._coming: dict[QueueId, int] = {}
        """Queues of which this node becomes a member in the next turn, and the incarnation."""
        self._is_current = False
        """True if definitions are what they are for all."""
        self._is_swept = False
        """True if there is a member of each group that is to have one here."""
        self._after_sweep: list[Callable[[], None]] = []
        """Callbacks for when every group has its member here."""
        self._lost: dict[QueueId, int] = {}
        """Queues whose data here cannot be read, with this node's incarnation there: it must not be
        that member again."""
        self._news = LeaderLog(self.defined.named, loop)

    def feed_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have the host do it after so many seconds, unless it has ended by then."""
        self.loop.call_later(seconds, lambda: self.host.feed(call))

    # Definitions

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        """A queue is defined, or defined anew with other members."""
        self.defined.define(definition, vhost)
        if not self._is_current:
            return  # it may be over, or with other members: no member leads here before
        if (group := self.groups.get(definition.id)) is not None:
            group.define(definition, vhost)
        self._reconcile(definition)

    def _reconcile(self, definition: QueueDefinition) -> None:
        """Be the member that this node is to be, and none that it is not any more."""
        queue, node = definition.id, self.cluster.node
        before = self._incarnation_of(queue)
        incarnation = dict(definition.members).get(node, 0)
        if not incarnation and self._lost.pop(queue, None) is not None:
            self._leave(queue)  # what is left may go: no node can take this one for that member
            return
        if before == incarnation:
            return
        is_mine = dict(definition.lives).get(node) == self.cluster.own_incarnation
        is_here = before and queue not in self._coming
        if is_here and is_mine and before < incarnation and len(definition.members) == 1:
            self._force_single_member(definition, incarnation)
            return
        if before:
            self._leave(queue)
        if is_mine and incarnation > max(before, self._lost.get(queue, 0)):
            self._lost.pop(queue, None)
            self._join(definition, incarnation)

    def _force_single_member(self, definition: QueueDefinition, incarnation: int) -> None:
        """Force the member here to be the only one: an operator has given the others up."""
        fields = self.defined.named(definition.id)
        event(logger, logging.WARNING, "queue_forced_single_member", **fields)
        self.force_single_member(definition.id, incarnation)

    def _incarnation_of(self, queue: QueueId) -> int:
        """Incarnation of the member that is here, or is going to be; 0 if none."""
        if queue in self._coming or queue not in self.host:
            return self._coming.get(queue, 0)
        return self.host.group(queue).incarnation

    def _join(self, definition: QueueDefinition, incarnation: int) -> None:
        self._coming[definition.id] = incarnation
        is_founder = incarnation == 1
        founders = definition.founders
        if is_founder:
            config, first = Configuration.initial(founders), first_leader(definition.id, founders)
            self.host.create(definition.id, incarnation, config, first)
        else:
            self.host.create(definition.id, incarnation, Configuration())

    def forget(self, queue: QueueId) -> None:
        """A queue is defined no more: that is the tombstone of its group."""
        self.defined.forget(queue)
        was_lost = self._lost.pop(queue, None) is not None
        if was_lost or self._incarnation_of(queue):
            self._leave(queue)

    def _leave(self, queue: QueueId) -> None:
        """With all that is here of it."""
        member = self._drop(queue)
        self.host.delete(queue)
        if member is not None:
            self.host.feed(member.end)
        if self._coming.pop(queue, None) is not None:
            self.host.feed(self._leave_at_once, queue)

    def _leave_at_once(self, queue: QueueId) -> None:
        """Drop a member that was created and deleted in the same turn."""
        member = self._drop(queue)
        if member is not None:
            member.end()

    def _drop(self, queue: QueueId) -> QuorumQueueMember | None:
        """Forget a member, and return it if it is here."""
        member = self.groups.pop(queue, None)
        self.aging.timers.forget(queue)
        self.router.leaders.queues.pop(queue, None)
        self._news.forget(queue)
        return member

    def sweep(self) -> Iterator[None]:
        """All that is defined is known: groups of other queues are left from earlier.

        Some of it with each step, and all of it once there is none any more.
        """
        self._is_current = True
        for queue in self._lost:
            if queue in self.defined.known:
                members = dict(self.defined.known[queue][0].members)
                self._lost[queue] = members.get(self.cluster.node, 0)
                event(logger, logging.ERROR, "member_lost", **self.defined.named(queue))
        for piece in in_pieces(list(self.defined.known), SWEPT_MAX):
            for queue in piece:
                if queue in self.defined.known:
                    self.define(*self.defined.known[queue])
            yield
        for queue in [*self.groups, *self._lost]:
            if queue not in self.defined.known:
                event(logger, logging.INFO, "group_without_queue", group=queue)
                self.forget(queue)
        self._is_swept = True
        for act in self._after_sweep:
            act()
        self._after_sweep.clear()

    def lose(self, groups: list[GroupId]) -> None:
        """Count as lost the groups that cannot be read from disk."""
        self._lost.update(dict.fromkeys(groups, 0))

    # To lead

    def _queue_expired(
        self, vhost: str, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
    ) -> None:
        """Not from within a turn of the host, from which groups are not deleted."""
        queue_expired = partial(self._expired, vhost, definition, is_queue_expired)
        self.loop.call_later(0.0, queue_expired)

    def leader_changed(self, queue: QueueId) -> None:
        """React to a change of a queue's known leader."""
        self.router.leader_changed(queue)
        self._news.heard(queue, self.router.leaders.leader_of(queue))
        if self.members is not None:
            self.members.leader_changed(queue)

    # An `Owner`

    def make_machine(self, group: GroupId) -> QuorumQueueMember:
        self._coming.pop(group, None)
        made = self.groups[group] = QuorumQueueMember(group, self)
        self.router.leaders.queues[group] = made
        if self._is_current and group in self.defined.known:
            made.define(*self.defined.known[group])
        return made

    def configured(self, change: ConfigChange) -> None:
        """Check a queue whose configuration changed; its leader makes that known to all."""
        if self.members is not None:
            self.members.look(change.group)

    def judged(self, verdict: LivenessVerdict) -> None:
        """Groups see to it themselves, but for members that could not be added."""
        if self.members is not None and verdict.is_alive:
            self.members.look_at_all()

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        """Called once the definition of the group is known here, if there is one: its member comes
        with that, or at the end of a start."""
        del group
        if self._is_swept:
            act()
        else:
            self._after_sweep.append(act)

    def unknown(self, node: NodeId, group: GroupId) -> None:
        """A founder may not have heard of the queue yet, or have lost what it had."""
        if self.members is not None:
            self.members.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        """Log damage of a group, which is repaired from its peers, if it has any."""
        fields = self.defined.named(group) | {"index": index, "reason": wrong}
        event(logger, logging.ERROR, "log_damaged", **fields)

    def given_up(self, group: GroupId, wrong: str) -> None:
        """Log a member that is given up; its log is a copy all the same, and others lead, if there
        are any."""
        event(logger, logging.ERROR, "log_rejected", **self.defined.named(group), reason=wrong)

    def entry_rejected(self, group: GroupId, index: int, wrong: str) -> None:
        """Log an entry whose live messages cannot be served from here."""
        fields = self.defined.named(group) | {"index": index, "reason": wrong}
        event(logger, logging.ERROR, "entry_rejected", **fields)

    def refused(self, node: NodeId, reason: str) -> None:
        """Drop a node's frame and log the reason."""


def sweep_all(hosting: QuorumMembers) -> None:
    """Create all missing members at once, where no client waits meanwhile."""
    for _ in hosting.sweep():
        pass
