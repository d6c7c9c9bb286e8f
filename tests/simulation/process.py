"""One life of a node: what a daemon's host does around the groups, with every effect at a port.

Whatever comes in gathers, as in an event loop, until the turn that is planned; then the turn is
taken as `docs/raft.md` says: tick, feed everything, output once, and do what it says.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from fluffle.broker.cluster.codec import decode, encode
from fluffle.raft.config import Config, NodeId
from fluffle.raft.log_store import Damaged, LogStore
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import Apply, Output, ReadEntries, ReadState, Restore, Role
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Entry, GroupId
from fluffle.raft.refused import Refused
from fluffle.raft.state import State
from fluffle.raft.tuning import Tuning
from tests.simulation.toy import Toy


class World(Protocol):
    """What a process needs of everything around it."""

    def now_ms(self, node: NodeId) -> int:
        """The node's own clock, which never goes back."""

    def plan_turn(self, process: "Process") -> None:
        """Call `turn` soon."""

    def plan_tick(self, process: "Process", at_ms: int) -> None:
        """Call `wake` when the node's clock says so."""

    def later(self, process: "Process", call: Callable[..., None], *args: Any) -> None:
        """Feed the call to the process after a while: a read, a snapshot, an application."""

    def send(self, sender: NodeId, receiver: NodeId, frame: bytes) -> None: ...

    def turned(self, process: "Process", output: Output) -> None:
        """A turn has ended; its output is about to be done."""

    def applied(self, process: "Process", group: GroupId, entry: Entry, digest: int) -> None:
        """An image has one entry more in it."""

    def took_snapshot(self, group: GroupId, index: int, live: Ranges, state: bytes) -> None:
        """This is the image at this index."""


@dataclass(slots=True)
class Identity:
    """Who a process is."""

    node: NodeId
    boot: int
    tuning: Tuning
    chance: Random


class Process:
    """Everything in here is lost when the process dies."""

    __slots__ = (
        "_inbox", "_tick_at_ms", "boot", "images", "is_alive", "is_turn_planned", "members",
        "multi", "node", "store", "world",
    )  # fmt: skip

    def __init__(self, identity: Identity, store: LogStore, world: World) -> None:
        self.node = identity.node
        self.boot = identity.boot
        self.store = store
        self.world = world
        self.multi = MultiRaft(identity.node, identity.boot, identity.tuning, identity.chance)
        self.images: dict[GroupId, Toy] = {}
        """Of each group, from its `Restore` on."""
        self.members: dict[GroupId, int] = {}
        """Of each group that is here, the incarnation."""
        self.is_alive = True
        self.is_turn_planned = False
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._tick_at_ms: int | None = None
        store.on_durable = lambda token: self.feed(self.multi.durable, token)

    def start(self) -> list[GroupId]:
        """Load what is on disk; returns the groups whose head is lost, which are not here."""
        loaded = self.store.load()
        self.multi.load(loaded.groups)
        self.members = {found.group: found.incarnation for found in loaded.groups}
        self.feed(_nothing)
        return loaded.lost

    def feed(self, call: Callable[..., None], *args: Any) -> None:
        """Have something done in the next turn."""
        self._inbox.append((call, args))
        if not self.is_turn_planned and self.is_alive:
            self.is_turn_planned = True
            self.world.plan_turn(self)

    def receive(self, sender: NodeId, frame: bytes) -> None:
        self.feed(self._receive, sender, frame)

    def link_changed(self, other: NodeId, is_up: bool) -> None:
        self.feed(self.multi.link_up if is_up else self.multi.link_down, other)

    def wake(self, at_ms: int) -> None:
        """The time of a tick that was planned has come."""
        if self._tick_at_ms == at_ms:
            self._tick_at_ms = None
            self.feed(_nothing)

    def turn(self) -> None:
        self.is_turn_planned = False
        multi, inbox = self.multi, self._inbox
        self._inbox = []
        multi.has_room = self.store.has_room
        multi.tick(self.world.now_ms(self.node))
        for call, args in inbox:
            call(*args)
        output = multi.output()
        self.world.turned(self, output)
        self._do(output)
        deadline_ms = multi.deadline_ms
        if deadline_ms is not None and (self._tick_at_ms is None or deadline_ms < self._tick_at_ms):
            self._tick_at_ms = deadline_ms
            self.world.plan_tick(self, deadline_ms)

    def commit_of(self, group: GroupId) -> int:
        return self.multi.group(group)._state.log.commit

    def state_of(self, group: GroupId) -> State | None:
        """For those who look inside; None if the group is not here."""
        return self.multi.group(group)._state if group in self.members else None

    def leads(self, group: GroupId) -> bool:
        return self.multi.group(group).status.role is Role.LEADER

    def create(self, group: GroupId, incarnation: int, config: Config) -> None:
        """From within a turn."""
        self.members[group] = incarnation
        self.multi.create(group, incarnation, config)

    def delete(self, group: GroupId) -> None:
        """From within a turn."""
        del self.members[group]
        self.images.pop(group, None)
        self.multi.delete(group)

    def compact(self, group: GroupId, index: int, image: tuple[Ranges, bytes]) -> None:
        """From within a turn: a snapshot that was begun some time ago is ready."""
        if group in self.images:
            with contextlib.suppress(Refused):
                self.multi.group(group).compact(index, *image)

    def scrub(self) -> None:
        """From within a turn: read everything that is live, to find damage before it is needed."""
        for group, toy in self.images.items():
            for index in toy.live:
                try:
                    self.store.read(group, index, index + 1, 1)
                except Damaged as damage:
                    self._damaged(group, damage.index)

    def _receive(self, sender: NodeId, frame: bytes) -> None:
        self.multi.receive(sender, decode(frame))

    def _do(self, output: Output) -> None:
        for node, messages in output.messages.items():
            self.world.send(self.node, node, encode(messages))
        if output.persist is not None:
            self.store.submit(output.persist)
        for restore in output.restores:
            self._restore(restore)
        for apply in output.applies:
            self._apply(apply)
        for read in output.reads:
            self.world.later(self, self._read, read)
        for group in output.snapshots_wanted:
            self.snapshot(group)

    def snapshot(self, group: GroupId) -> None:
        """Make a snapshot of an image as it is now, and hand it over a while later."""
        toy = self.images.get(group)
        if toy is not None and toy.applied:
            image = toy.live_ranges(), toy.state()
            self.world.took_snapshot(group, toy.applied, *image)
            self.world.later(self, self.compact, group, toy.applied, image)

    def _restore(self, restore: Restore) -> None:
        meta = restore.snapshot
        try:
            state = self.store.read_state(restore.group, 0, meta.state_bytes)
        except Damaged as damage:
            self.images.pop(restore.group, None)
            self.feed(self._damaged, restore.group, damage.index)
            return
        self.images[restore.group] = Toy.restored(state if meta.index else b"")

    def _apply(self, apply: Apply) -> None:
        toy = self.images.get(apply.group)
        if toy is None:
            return  # its state cannot be read: there will be another
        for entry in apply.entries:
            toy.apply(entry)
            self.world.applied(self, apply.group, entry, toy.digest)
        self.feed(self._applied, apply.group, toy, toy.applied)

    def _applied(self, group: GroupId, toy: Toy, index: int) -> None:
        if self.images.get(group) is toy:
            self.multi.group(group).applied(index)

    def _damaged(self, group: GroupId, index: int) -> None:
        if group in self.members:
            self.multi.group(group).damaged(index)

    def _read(self, read: ReadEntries | ReadState) -> None:
        """From within a turn: what was asked for has come from the disk."""
        if read.group not in self.images:
            return
        group = self.multi.group(read.group)
        try:
            if isinstance(read, ReadState):
                data = self.store.read_state(read.group, read.offset, read.size)
                group.state_read(read.number, data)
            else:
                entries = self.store.read(read.group, read.first, read.stop, read.bytes_max)
                group.entries_read(read.number, entries)
        except Damaged as damage:
            group.damaged(damage.index)


def _nothing() -> None:
    """A turn for the sake of its tick."""
