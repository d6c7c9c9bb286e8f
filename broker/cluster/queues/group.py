"""A member of a quorum queue on this node, and whom it serves while it leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from fluffle.broker.clock import Clock
from fluffle.broker.cluster.fate import Fate
from fluffle.broker.cluster.host import RaftHost
from fluffle.broker.cluster.hosted import HostedGroup
from fluffle.broker.cluster.queues.leading import Leading
from fluffle.broker.cluster.queues.ports import NOBODY, Counts, Known, OnCounts, QueueId
from fluffle.broker.cluster.streams.messages import Boot, Leader
from fluffle.broker.cluster.streams.sessions import Sessions
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead import DeadLetterFrom, DeadMessages
from fluffle.broker.queues.journal import Damage, QueueDefinition, Unreadable
from fluffle.broker.queues.replicated.effects import Effect
from fluffle.broker.queues.replicated.facts import Key
from fluffle.broker.queues.replicated.leadership import Leadership
from fluffle.broker.queues.replicated.member import Member
from fluffle.broker.queues.replicated.surroundings import Surroundings
from fluffle.raft.config import NodeId
from fluffle.raft.group import Position
from fluffle.raft.log_store import Damaged
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Entry, GroupId, SnapshotMeta

ENTRY_BYTES_MIN = 1 << 16
"""An entry is larger than its messages: what else is in it has room in this, and as much again."""

HELD_BYTES_MAX = 1 << 20
"""Of messages that may wait for the disk to be one entry."""


class Place(NamedTuple):
    """The rest of the node."""

    node: NodeId
    boot: Boot
    leading: Leading
    leader_changed: Callable[[QueueId], None]
    """Whoever leads a queue is known otherwise than before."""
    host: Callable[[], RaftHost]
    clock: Clock
    dead_letter: DeadLetterFrom


class QueueGroup:
    """A `Machine`, and `Served`."""

    __slots__ = (
        "_follows", "_is_closed", "_led", "_place", "_proposed_after", "_sessions",
        "_waits_in_term", "definition", "group", "member", "vhost",
    )  # fmt: skip

    def __init__(self, group: GroupId, place: Place) -> None:
        self.group = group
        self.definition: QueueDefinition | None = None
        """None until it is known here; nothing is led before."""
        self.vhost = ""
        """Known with the definition."""
        self._place = place
        self._follows = NOBODY
        self._waits_in_term: int | None = None
        """In which it may lead once the definition is known."""
        self._is_closed = False
        """Whether the log did not take an entry when it was last asked."""
        self._proposed_after = -1
        """What was durable when an entry was proposed last."""
        self._sessions: Sessions | None = None
        self._led: Leadership | None = None
        """Whose those are."""
        self.member = Member(self._spec_of, self._surroundings)

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        """What the queue is, which may change in its members only."""
        self.definition, self.vhost = definition, vhost
        if self._waits_in_term is not None:
            term, self._waits_in_term = self._waits_in_term, None
            self.led(term)

    # `Served`

    @property
    def known(self) -> Known:
        if self.sessions is None:
            return self._follows
        return Known(*self.member.reign, self._place.node)

    @property
    def sessions(self) -> Sessions | None:
        self._look()
        return self._sessions

    def _look(self) -> None:
        """The member begins to lead, and ends, by itself."""
        led = self.member.leadership
        if led is not self._led:
            self._led, self._sessions = led, None if led is None else self._begun(led)
            if self._sessions is not None:
                self._place.leading.greet(self._sessions)  # it may end some, and touch this
            self._place.leader_changed(self.group)

    def _begun(self, led: Leadership) -> Sessions:
        place = self._place
        own = Leader(place.node, place.boot, *self.member.reign)
        return Sessions(self.group, own, self.member.image.state, led, place.clock.now_ms())

    @property
    def counts(self) -> Counts:
        led = self.member.leadership
        assert led is not None
        queue = led.queue
        return Counts(queue.ready_count, queue.in_flight, queue.consumer_count)

    def count(self, done: OnCounts) -> None:
        def confirmed(index: int | None) -> None:
            is_led = index is not None and self.sessions is not None
            done(self.counts if is_led else None)

        self._hosted.read_index(confirmed)

    def pump(self) -> None:
        if (led := self.member.leadership) is not None:
            led.pump()

    def fail(self) -> None:
        self.member.fail()

    def lead_again(self) -> None:
        self._place.leading.guard.run(self.group, self.member.lead_again)
        self._changed()

    # `Machine`

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self.member.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        self.member.apply(entries)
        if self._is_closed:
            self._changed()

    def led(self, term: int) -> None:
        if self.definition is None:
            self._waits_in_term = term
        else:
            self._place.leading.guard.run(self.group, partial(self.member.led, term))
            self._changed()

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._waits_in_term = None
        self.member.followed(term, leader)
        is_other = leader not in (None, self._place.node)
        self._follows = Known(term, 1, leader) if leader and is_other else Known(term)
        self._changed()
        self._place.leader_changed(self.group)

    def snapshot(self) -> tuple[Ranges, bytes]:
        return self.member.snapshot()

    # For the leadership

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            propose=self._propose,
            read_entry=self._read_entry,
            damaged=self._damaged,
            takes=self._takes,
            now_ms=self._place.clock.wall_ms,
            room=self._room,
            touch=self._touched,
            release=self._release,
            ended=self._changed,
            dead_letter=self._dead_letter,
        )

    def _touched(self, _led: Leadership) -> None:
        self._changed()

    def _changed(self) -> None:
        """Something is to be done for it, or whether there is one has changed."""
        self._place.leading.touch(self.group)
        self._look()

    @property
    def _hosted(self) -> HostedGroup:
        return self._place.host().group(self.group)

    def _spec_of(self, _image: bytes) -> QueueSpec:
        assert self.definition is not None
        return self.definition.spec

    def _propose(self, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        self._proposed_after = self._place.host().durable

        def told(fate: Fate) -> None:
            act = partial(on_fate, isinstance(fate, Position))
            self._place.leading.guard.run(self.group, act)

        self._hosted.propose(payload, told)

    def _damaged(self, index: int) -> None:
        self._place.host().feed(self._find_damaged, index)

    def _find_damaged(self, index: int) -> None:
        """From within a turn."""
        if self.group in self._place.host():
            self._hosted.raft.damaged(index)

    def _takes(self, content_bytes: int) -> bool:
        """If not, it is pumped again when something was applied, it leads no more, or in a while:
        where the disk is full nothing is applied, and others make room."""
        if content_bytes < HELD_BYTES_MAX and self._waits_for_disk:
            self._place.leading.hold(self.group)
            return False
        self._is_closed = not self._hosted.raft.takes(ENTRY_BYTES_MIN + 2 * content_bytes)
        if self._is_closed:
            self._place.leading.touch_later(self.group)
        return not self._is_closed

    @property
    def _waits_for_disk(self) -> bool:
        """Whether the commit runs with which its last entry was to be written.

        What is decided meanwhile would wait for the next, here and where its followers are, so all
        of it becomes one entry; while a disk is idle nothing waits.
        """
        host = self._place.host()
        return self._proposed_after == host.durable < host.submitted

    def _room(self, holder: Key) -> int:
        sessions = self.sessions
        return sessions.room(holder) if sessions is not None else 0

    def _dead_letter(self, queue: QueueSpec, dead: DeadMessages) -> None:
        self._place.dead_letter(self.vhost, queue, dead)

    def _release(self, effects: list[Effect]) -> None:
        if (sessions := self.sessions) is not None:
            sessions.release(effects)
            self._place.leading.speak(self.group)

    def _read_entry(self, index: int) -> bytes:
        try:
            return self._place.host().read_entry(self.group, index)
        except Damaged as error:
            place = f"group {self.group}, entry {error.index}"
            raise Unreadable(Damage(place, "it cannot be read")) from error
