"""Members of queues on one node, and the sessions of those that it leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fluffle.broker.cluster.fate import Lost
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.cluster.streams.sessions import Sessions, not_leading
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import Damage, Unreadable
from fluffle.broker.queues.replicated.effects import Effect
from fluffle.broker.queues.replicated.leadership import Leadership, Surroundings
from fluffle.broker.queues.replicated.member import Member
from fluffle.raft.config import NodeId
from fluffle.raft.log_store import Damaged
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Entry, GroupId, SnapshotMeta
from tests.simulation.process import Process

READ_MAX = 1 << 30
LED = Callable[[GroupId, m.Leader], None]


@dataclass(slots=True)
class Served:
    """One leadership."""

    leadership: Leadership
    sessions: Sessions
    own: m.Leader


class Leading:
    """Everything of queue groups on a node but its edges."""

    def __init__(self, process: Process, boot: m.Boot, on_leader: LED) -> None:
        """`on_leader` hears who leads a group, as soon as it is known here."""
        self._process = process
        self._boot = boot
        self._on_leader = on_leader
        self.members: dict[GroupId, Seat] = {}
        self.served: dict[GroupId, Served] = {}
        self.boots: dict[NodeId, m.Boot] = {process.node: boot}
        """Of this node, and of those to which there is a link."""
        self.is_touched = False

    @property
    def now_ms(self) -> int:
        return self._process.world.now_ms(self._process.node)

    def make_machine(self, group: GroupId) -> Seat:
        around = Surroundings(
            propose=partial(self._propose, group),
            read_entry=partial(self._read_entry, group),
            damaged=partial(self._damaged, group),
            takes=partial(self._takes, group),
            now_ms=lambda: self.now_ms,
            room=partial(self._room, group),
            touch=lambda _led: self.touch(),
            release=partial(self._release, group),
            ended=self.touch,
        )
        seat = self.members[group] = Seat(Member(lambda _spec: QueueSpec("q"), around), group, self)
        return seat

    def touch(self) -> None:
        self.is_touched = True
        self._process.feed(_nothing)

    # What leaderships ask for

    def _room(self, group: GroupId, key: int) -> int:
        return self.served[group].sessions.room(key)

    def _release(self, group: GroupId, effects: list[Effect]) -> None:
        self.served[group].sessions.release(effects)

    def _propose(self, group: GroupId, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        hosted = self._process.host.group(group)
        hosted.propose(payload, lambda fate: on_fate(not isinstance(fate, Lost)))

    def _read_entry(self, group: GroupId, index: int) -> bytes:
        try:
            return self._process.store.read(group, index, index + 1, READ_MAX)[0].payload
        except Damaged as damage:
            raise Unreadable(Damage(f"entry {index}", str(damage))) from damage

    def _damaged(self, group: GroupId, index: int) -> None:
        self._process.feed(self._process.host._damaged, group, index)

    def _takes(self, group: GroupId, _content_bytes: int) -> bool:
        state = self._process.state_of(group)
        return (
            self._process.store.has_room
            and state is not None
            and state.leading is not None
            and state.leading.transfer is None
            and state.leading.uncommitted_bytes < state.node.tuning.uncommitted_bytes_max
        )

    # Turns

    def pump(self) -> None:
        self.is_touched = False
        for group in list(self.members):
            served = self._current(group)
            if served is not None:
                served.leadership.pump()

    def _current(self, group: GroupId) -> Served | None:
        """The leadership of a group, with its sessions."""
        seat = self.members[group]
        leadership, served = seat.member.leadership, self.served.get(group)
        if group not in self._process.host or leadership is None:
            self.served.pop(group, None)
            return None
        if served is None or served.leadership is not leadership:
            own = m.Leader(self._process.node, self._boot, *seat.member.reign)
            state = seat.member.image.state
            sessions = Sessions(group, own, state, leadership, self.now_ms)
            for node, boot in self.boots.items():
                sessions.linked(node, boot)
            served = self.served[group] = Served(leadership, sessions, own)
            self._on_leader(group, own)
        return served

    def tick(self) -> None:
        for served in self.served.values():
            served.sessions.tick(self.now_ms)
        self.touch()

    # Frames and links

    def take(self, node: NodeId, frame: m.EdgeFrame) -> m.LeaderFrame | None:
        """Of an edge; the answer, if it is the wrong node that was asked."""
        served = self._current(frame.group) if frame.group in self.members else None
        if served is not None:
            served.sessions.take(node, frame)
            self.touch()
            return None
        seat = self.members.get(frame.group)
        term, leader = seat.followed_ if seat is not None else (0, None)
        return not_leading(frame, m.Leader(leader or "", self._boot, term))

    def output(self) -> Iterator[tuple[GroupId, str, m.LeaderFrame]]:
        """To edges, here and elsewhere."""
        for group in list(self.members):
            served = self._current(group)
            if served is not None:
                for node, frame in served.sessions.output():
                    yield group, node, frame

    def linked(self, node: NodeId, boot: m.Boot) -> None:
        self.boots[node] = boot
        for served in self.served.values():
            served.sessions.linked(node, boot)
        self.touch()

    def unlinked(self, node: NodeId) -> None:
        self.boots.pop(node, None)
        for served in self.served.values():
            served.sessions.unlinked(node, self.now_ms)

    def followed(self, group: GroupId, term: int, leader: NodeId | None) -> None:
        """Somebody else leads, as far as its member here knows."""
        if leader is not None and leader != self._process.node and leader in self.boots:
            self._on_leader(group, m.Leader(leader, self.boots[leader], term))


class Seat:
    """A member, which tells who leads."""

    def __init__(self, member: Member, group: GroupId, leading: Leading) -> None:
        self.member = member
        self.followed_: tuple[int, NodeId | None] = 0, None
        self._group = group
        self._leading = leading

    @property
    def digest(self) -> int:
        return int.from_bytes(self.member.image.digest()[:8])

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self.member.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        self.member.apply(entries)

    def led(self, term: int) -> None:
        self.member.led(term)
        self._leading.touch()

    def followed(self, term: int, leader: NodeId | None) -> None:
        self.member.followed(term, leader)
        self.followed_ = term, leader
        self._leading.followed(self._group, term, leader)

    def snapshot(self) -> tuple[Ranges, bytes]:
        return self.member.snapshot()


def _nothing() -> None:
    """A turn."""
