"""A member of a quorum queue on this node, and the sessions that it serves while it leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

from fluffle.broker.base.clock import Clock
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.cluster.hosted_group import EntryOutcome, HostedGroup
from fluffle.broker.cluster.queue_sessions.led_queue import LedQueue
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders
from fluffle.broker.cluster.queues.log_compaction import LogCompaction
from fluffle.broker.cluster.queues.ports import (
    NO_LEADER,
    KnownLeader,
    LeaderCounts,
    QueueClusterView,
    QueueId,
    named,
)
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead_letters import DeadLetterFrom, DeadMessages
from fluffle.broker.queues.engine import QueueExpiry
from fluffle.broker.queues.journal import Damage, QueueDefinition, UnreadableMessages
from fluffle.broker.queues.queue_view import KeptDead, ReadyView
from fluffle.broker.queues.quorum.entries import content_bytes_of
from fluffle.broker.queues.quorum.facts import ConsumerAttached, Key
from fluffle.broker.queues.quorum.leader_services import KnownQueues
from fluffle.broker.queues.quorum.leadership import Leadership, QueueReplica
from fluffle.broker.queues.quorum.messages import Effect, Leader
from fluffle.broker.queues.settings import QueueSettings, SettingsFrom
from fluffle.broker.runtime.timers import QueueTiming
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.config import Member as Voter
from fluffle.raft.group import Position
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.log_store import DamagedLog
from fluffle.raft.ranges import Ranges

ENTRY_BYTES_MIN = 1 << 16
"""An entry is larger than its messages: what else is in it has room in this, and as much again."""

KEPT_RUNS_MAX = 4_096
"""Runs of messages that are dead and kept whose sizes are looked at; the rest counts as much."""

HELD_BYTES_MAX = 1 << 20
"""Bytes of messages that may wait for the disk to become one entry."""


class QuorumServices(NamedTuple):
    """The services of a node that its quorum queues use."""

    dead_letter: DeadLetterFrom
    """Republishes what has died in those that are led here."""
    settings: SettingsFrom
    """Function that gives each queue's settings."""
    traffic: Traffic
    config: QuorumConfig


class QueuesByDefinition(KnownQueues, Protocol):
    """The quorum queues that a node knows of."""

    def settings_of(self, vhost: str, definition: QueueDefinition) -> QueueSettings:
        """Settings of a queue of a virtual host now."""


class LocalMembers(Protocol):
    """The members of quorum queues on one node, as each of them uses what they share."""

    @property
    def cluster(self) -> QueueClusterView: ...

    @property
    def leaders(self) -> LocalLeaders: ...

    @property
    def host(self) -> RaftHost: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def services(self) -> QuorumServices: ...

    @property
    def aging(self) -> QueueTiming: ...

    @property
    def compaction(self) -> LogCompaction: ...

    @property
    def defined(self) -> QueuesByDefinition: ...

    def leader_changed(self, queue: QueueId) -> None:
        """React to a change of a queue's known leader."""


class GroupLog:
    """The log of one quorum queue on this node: a `QueueLog`."""

    __slots__ = (
        "_group",
        "_hosted",
        "_members",
        "_owner",
        "_proposed_after",
        "_readers",
        "_readers_as_of",
        "is_closed",
    )

    def __init__(self, owner: QuorumQueueMember, members: LocalMembers) -> None:
        self._owner: QuorumQueueMember | None = owner
        self._group = owner.group
        self._members = members
        self._hosted: HostedGroup | None = None
        self._readers: Mapping[str, int] = EMPTY_DICT
        self._readers_as_of: tuple[Configuration | None, int] = None, 0
        """Configuration and count of link changes by which these are known."""
        self.is_closed = False
        """True if it did not take an entry when it was last asked."""
        self._proposed_after = -1
        """Durable index when an entry was proposed last."""

    def end(self) -> None:
        """End with the member: its group is deleted here, and nothing is proposed any more."""
        self._owner = self._hosted = None

    @property
    def hosted(self) -> HostedGroup:
        """The group, which the host makes once it has its machine."""
        if self._hosted is None:
            self._hosted = self._members.host.group(self._group)
        return self._hosted

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self._proposed_after = self._members.host.durable
        hosted = self._hosted or self.hosted

        def decided(outcome: EntryOutcome) -> None:
            if hosted.is_gone and self._owner is not None:  # deleted here: it has no leader now
                replica = self._owner.replica
                replica.followed(replica.leader_epoch[0], None)
            act = partial(on_outcome, isinstance(outcome, Position))
            self._members.leaders.guard.run(self._group, act)

        hosted.propose(payload, decided)

    def takes(self, content_bytes: int) -> bool:
        """Return whether an entry may be proposed, and have the queue pumped again if not.

        That is in the next turn while a commit runs that has its last entry (`_waits_for_disk`);
        else when something was applied, it leads no more, or in a while: where the disk is full
        nothing is applied, and others make room.
        """
        if content_bytes < HELD_BYTES_MAX and self._waits_for_disk:
            self._members.leaders.hold(self._group)
            self._members.host.is_disk_awaited = True
            return False
        hosted = self._hosted or self.hosted
        self.is_closed = not hosted.raft.takes(ENTRY_BYTES_MIN + 2 * content_bytes)
        if self.is_closed:
            self._members.leaders.touch_later(self._group)
        return not self.is_closed

    @property
    def _waits_for_disk(self) -> bool:
        """True if the commit runs with which its last entry was to be written.

        What is decided meanwhile would wait for the next, here and where its followers are, so all
        of it becomes one entry; while a disk is idle nothing waits.
        """
        host = self._members.host
        return self._proposed_after == host.durable < host.submitted

    def may_grow(self) -> bool:
        return self._members.host.space.may_grow

    def read_entry(self, index: int) -> bytes:
        try:
            return self._members.host.read_entry(self._group, index)
        except DamagedLog as error:
            place = f"group {self._group}, entry {error.index}"
            raise UnreadableMessages(Damage(place, "it cannot be read")) from error

    def damaged(self, index: int) -> None:
        if self._owner is not None:
            self._members.host.feed(self._find_damaged, self.hosted, index)

    @staticmethod
    def _find_damaged(hosted: HostedGroup, index: int) -> None:
        """From within a turn."""
        if not hosted.is_gone:
            hosted.raft.damaged(index)

    def readers(self) -> Mapping[str, int]:
        """A node that comes as another member has announced nothing as that."""
        config = (self._hosted or self.hosted).raft.config
        as_of = config, self._members.leaders.link_changes
        if as_of != self._readers_as_of:
            reads_of = self._members.cluster.reads_of
            self._readers_as_of = as_of
            self._readers = {
                f"{member.node} {member.incarnation}": reads_of(member.node)
                for member in config.members
            }
        return self._readers


class QuorumLeaderServices:
    """The `LeaderServices` of one quorum queue, by its member on this node."""

    __slots__ = ("_member", "_members", "log")

    def __init__(self, member: QuorumQueueMember, log: GroupLog, members: LocalMembers) -> None:
        self._member = member
        self._members = members
        self.log = log

    @property
    def group(self) -> GroupId:
        return self._member.group

    @property
    def spec(self) -> QueueSpec:
        assert self._member.definition is not None
        return self._member.definition.spec

    @property
    def clock(self) -> Clock:
        return self._members.clock

    @property
    def queues(self) -> KnownQueues:
        return self._members.defined

    @property
    def dead_letter_confirm_timeout_ms(self) -> int:
        return self._members.services.config.dead_letter_timeout_s * 1_000

    @property
    def consumer_timeout_ms(self) -> int | None:
        return self._members.services.config.consumer_timeout_ms

    def room(self, holder: Key) -> int:
        sessions = self._member.sessions
        return sessions.room(holder) if sessions is not None else 0

    def release(self, effects: list[Effect]) -> None:
        if (sessions := self._member.sessions) is not None:
            sessions.release(effects)
            self._members.leaders.touch_output(self._member.group)

    def touch(self) -> None:
        self._member._changed()

    def ended(self) -> None:
        self._member._changed()

    def wake(self, delay_ms: int) -> None:
        self._members.aging.timers.wake(self._member.group, delay_ms, self._members.leaders.touch)

    def queue_expired(self) -> None:
        """If another leads by now, it knows better whether the queue is used."""
        led, definition = self._member.replica.leadership, self._member.definition
        assert led is not None
        assert definition is not None
        vhost = self._member.vhost

        def confirmed(index: int | None) -> None:
            if index is None and led.queue.queue_expiry is not None:
                led.queue.queue_expiry.used()
            elif not led.is_over:
                self._members.aging.queue_expired(vhost, definition, lambda: led.is_queue_expired)

        self.log.hosted.read_index(confirmed)

    def dead_letter(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        dead.hasten = self._hasten_dead
        self._members.services.dead_letter(self._member.vhost, queue, settings, dead)

    def _hasten_dead(self) -> None:
        if (led := self._member.replica.leadership) is not None:
            led.outbox.hasten()

    def dropped_duplicates(self, count: int) -> None:
        self._members.services.traffic.dropped_duplicates(QueueType.QUORUM, count)


class QuorumQueueMember:
    """A `Machine`, and a `HostedQueue`, of one quorum queue."""

    __slots__ = (
        "_follows", "_led", "_log", "_members", "_sessions", "_waits_in_term", "definition",
        "group", "replica", "vhost",
    )  # fmt: skip

    def __init__(self, group: GroupId, members: LocalMembers) -> None:
        self.group = group
        self.definition: QueueDefinition | None = None
        """None until it is known here; nothing is led before."""
        self.vhost = ""
        """The virtual host of the queue; known with the definition."""
        self._members = members
        self._follows = NO_LEADER
        self._waits_in_term: int | None = None
        """In which it may lead once the definition is known."""
        self._log = GroupLog(self, members)
        self._sessions: SessionServer | None = None
        self._led: Leadership | None = None
        """Leadership that these belong to."""
        reads = members.cluster.reads_of(members.cluster.node)
        self.replica = QueueReplica(QuorumLeaderServices(self, self._log, members), reads=reads)

    def end(self) -> None:
        """End with the group, which is deleted here, and lead back to nothing: no cycle is left to
        the collector."""
        if self._sessions is not None:
            self._sessions.end()
        self._led = self._sessions = None
        self.replica.end()
        self._log.end()

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        """Set the definition of the queue, of which only the members may change."""
        self.definition, self.vhost = definition, vhost
        if self._waits_in_term is not None:
            term, self._waits_in_term = self._waits_in_term, None
            self.led(term)

    # As a `HostedQueue`

    @property
    def node(self) -> NodeId:
        """The one that this is on."""
        return self._members.cluster.node

    @property
    def hosted(self) -> HostedGroup:
        """The group of the queue."""
        return self._log.hosted

    @property
    def named(self) -> dict[str, object]:
        return named(self.group, self.vhost, self.definition)

    @property
    def known(self) -> KnownLeader:
        if self.sessions is None:
            return self._follows
        return KnownLeader(*self.replica.leader_epoch, self._members.cluster.node)

    @property
    def sessions(self) -> SessionServer | None:
        if self.replica.leadership is not self._led:
            self._follow_leadership()
        return self._sessions

    def _follow_leadership(self) -> None:
        """The member begins to lead, and ends, by itself."""
        led = self.replica.leadership
        if led is not self._led:
            former = self._sessions
            self._led, self._sessions = led, None if led is None else self._begun(led)
            if former is not None:
                if led is None:
                    self._notify_clients_of_end(former)
                former.end()
            if self._sessions is not None:
                # It may end some, and touch this.
                self._members.leaders.begin_sessions(self.group, self._sessions)
                self.renew_settings()  # mutant: R17d
            self._members.leader_changed(self.group)

    def renew_settings(self) -> None:
        """If it leads, it goes by what definitions say now, which may not be what is on record."""
        if self._led is not None and self.definition is not None:
            settings = self._members.defined.settings_of(self.vhost, self.definition)
            self._led.change_settings(self._members.cluster.revision, settings)

    def _notify_clients_of_end(self, former: SessionServer) -> None:
        """Send client nodes the notice that this leads no more, and which node does if known."""
        follows = self._follows
        hint = Leader(follows.node, self._members.cluster.boot, follows.term, follows.leadership)
        self._members.leaders.leader_notices += former.leader_notices(hint)

    def _begun(self, led: LedQueue) -> SessionServer:
        cluster, now_ms = self._members.cluster, self._members.clock.now_ms()
        own = Leader(cluster.node, cluster.boot, *self.replica.leader_epoch)
        return SessionServer(self.group, own, self.replica.image.state, led, now_ms)

    @property
    def counts(self) -> LeaderCounts:
        led = self.replica.leadership
        assert led is not None
        queue = led.queue
        consumers = queue.consumer_count
        if queue.spec.single_active_consumer:  # RabbitMQ counts those that are served
            consumers = min(1, consumers)
        apart = queue.delays.count + led.outbox.count
        return LeaderCounts(queue.ready_count, queue.in_flight, consumers, apart)

    @property
    def ready_view(self) -> ReadyView:
        """Ready messages on record: the engine may have more by now that come to nothing."""
        led = self.replica.leadership
        assert led is not None
        return led.queue.ready_view._replace(below=self.replica.image.state.next_sequence)

    @property
    def kept_dead(self) -> KeptDead:
        led = self.replica.leadership
        assert led is not None
        count, state = led.outbox.count, self.replica.image.state
        if not count:
            return KeptDead()
        looked_at = [*islice(state.pending.within(0, state.next_sequence), KEPT_RUNS_MAX)]
        looked_at_count = sum(map(len, looked_at)) or 1
        size_bytes = sum(content_bytes_of(state.entries, run) for run in looked_at)
        return KeptDead(count, size_bytes * count // looked_at_count)

    def confirm(self, done: Callable[[bool], None]) -> None:
        def confirmed(index: int | None) -> None:
            done(index is not None and self.sessions is not None)

        self.hosted.read_index(confirmed)

    @property
    def queue_expiry(self) -> QueueExpiry | None:
        """None: a quorum queue is not used by another declare, as in RabbitMQ."""
        return None

    def pump(self) -> None:
        if (led := self.replica.leadership) is not None:
            led.pump()

    def fail(self) -> None:
        self.replica.fail()

    def lead_again(self) -> None:
        self._members.leaders.guard.run(self.group, self.replica.lead_again)
        self._changed()

    # `Machine`

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self.replica.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        messages = self.replica.image.state.entries
        before = messages.buried_bytes
        self.replica.apply(entries)
        if messages.buried_bytes > before:
            self._members.host.snapshots.freed(self.group, messages.buried_bytes - before)
        if self._log.is_closed:
            self._changed()

    def led(self, term: int) -> None:
        if self.definition is None:
            self._waits_in_term = term
        else:
            self._members.leaders.guard.run(self.group, partial(self.replica.led, term))
            self._changed()

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._waits_in_term = None
        is_other = leader not in (None, self._members.cluster.node)
        self._follows = KnownLeader(term, 1, leader) if leader and is_other else KnownLeader(term)
        self.replica.followed(term, leader)
        self._changed()
        self._members.leader_changed(self.group)

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        self._members.compaction.note(self.group, self.replica.image)
        return self.replica.snapshot()

    # For the leadership

    def _changed(self) -> None:
        """Schedule the member: it has work, or its leadership has changed."""
        self._members.leaders.touch(self.group)
        self._follow_leadership()


def counts_kept(hosted: HostedGroup) -> tuple[int, int, int] | None:
    """Messages that are ready, unacknowledged, or apart as `LeaderCounts` says, as the member on
    this node knows them.

    None unless it is a voter that was led before, and if its log is damaged, or may have more in it
    than this node knows to be committed.
    """
    status = hosted.status
    if not hosted.is_restored or not 0 < hosted.applied >= status.last or status.is_quarantined:
        return None
    assert isinstance(hosted.machine, QuorumQueueMember)
    if not status.config.is_voter(Voter(hosted.machine.node, hosted.incarnation)):
        return None
    state = hosted.machine.replica.image.state
    return state.waiting_count, state.held_count, state.delayed.count + state.pending.count


def held_since_ms(hosted: HostedGroup, message: int) -> int:
    """Since when a holder has a message in hands, in queue time; 0 if that is not written down."""
    assert isinstance(hosted.machine, QuorumQueueMember)
    if not hosted.is_restored:
        return 0
    holders, alone = hosted.machine.replica.image.state.holders, range(message, message + 1)
    found = (hold.since_ms for each in holders.values() for _run, hold in each.held.found(alone))
    return next(found, 0)


def active_tag_kept(hosted: HostedGroup) -> str | None:
    """The tag of the single active consumer, as the member on this node knows it."""
    assert isinstance(hosted.machine, QuorumQueueMember)
    if not hosted.is_restored:
        return None
    state = hosted.machine.replica.image.state
    active = state.holders.get(state.sac_active)
    attached = active.attached if active is not None else None
    return attached.tag if isinstance(attached, ConsumerAttached) else None
