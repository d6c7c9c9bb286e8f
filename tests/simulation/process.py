"""Process of a node: the host that daemons run, with every effect at a port.

What is under test is `RaftHost` and everything below it.  Here is what stands around it in a
simulation: ports that lead to the `World`, images that tell of each entry, and an output that is
seen before it is done.  What the groups are for is the business of a `GroupServices`.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from fluffle.broker.cluster.group_background import HostLimits
from fluffle.broker.cluster.ports import (
    ClockExchange,
    FrameKind,
    GroupOwner,
    Links,
    Machine,
    OnFrame,
    OnLink,
    Payload,
    TrafficClass,
)
from fluffle.broker.cluster.raft_host import RaftHost, RaftHostEnvironment
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.failure_detector import TimesOfDay
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.log_store import DamagedLog, LogStore
from fluffle.raft.messages import Message
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ConfigChange, Echo, LivenessVerdict, Output, Role
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import GroupState
from fluffle.raft.tuning import Tuning
from tests.simulation.toy import Toy
from tests.support.payloads import joined

NEVER = 1 << 60
SETTINGS = HostLimits(
    slice_bytes=1, snapshot_bytes_min=NEVER, snapshot_node_bytes_max=NEVER, scrub=None
)
"""Limits with which one read runs at a time, each after a while.  Snapshots and scrubbing are the
workload's."""

UNASKED = 0
"""Context of reads whose answer nobody needs."""


class World(Protocol):
    """Environment of a process: its clock, its links, and those who watch it."""

    def now_ms(self, node: NodeId) -> int:
        """The node's own clock, which never goes back."""

    def plan_turn(self, process: "Process") -> None:
        """Call `turn` soon."""

    def plan_tick(self, process: "Process", at_ms: int) -> None:
        """Call `wake` when the node's clock says so."""

    def later(self, process: "Process", call: Callable[..., None], *args: Any) -> None:
        """Feed the call to the process after a while: reads, a snapshot."""

    def send(
        self,
        sender: NodeId,
        receiver: NodeId,
        kind: FrameKind,
        payload: bytes,
        traffic: TrafficClass,
    ) -> None: ...

    def is_up(self, sender: NodeId, receiver: NodeId) -> bool:
        """State of a link, as of `Links`; so is the next."""

    def waiting_bytes(self, sender: NodeId, receiver: NodeId, traffic: TrafficClass) -> int: ...

    def founded(self, group: GroupId, first: NodeId) -> None:
        """A founder says who is to lead the first term."""

    def turned(self, process: "Process", output: Output) -> None:
        """A turn has ended; its output is about to be done."""

    def applied(self, process: "Process", group: GroupId, entry: Entry, digest: int) -> None:
        """An image has one entry more in it."""

    def took_snapshot(self, group: GroupId, index: int, live: Ranges, state: bytes) -> None:
        """This is the image at this index."""


@dataclass(slots=True)
class Identity:
    """Identity of a process."""

    node: NodeId
    boot: int
    tuning: Tuning
    chance: Random


class ObservedMultiRaft(MultiRaft):
    """Consensus whose outputs are seen before they are done."""

    __slots__ = ("_process",)

    def __init__(self, identity: Identity, process: "Process", times_of_day: TimesOfDay) -> None:
        super().__init__(
            identity.node, identity.boot, identity.tuning, identity.chance, times_of_day
        )
        self._process = process

    def create(
        self, group: GroupId, incarnation: int, config: Configuration, first: NodeId | None = None
    ) -> None:
        super().create(group, incarnation, config, first)
        if first is not None:
            self._process.world.founded(group, first)

    def output(self, unread: Collection[NodeId] = ()) -> Output:
        output = super().output(unread)
        self._process.world.turned(self._process, output)
        return output

    def take_messages(self) -> dict[NodeId, list[Message]]:
        messages = super().take_messages()
        if messages:
            self._process.world.turned(self._process, Output(messages=messages))
        return messages


class DigestedMachine(Machine, Protocol):
    """The image of one group, as a simulation compares it."""

    @property
    def digest(self) -> int:
        """Equal if and only if the images are."""


class GroupServices(Protocol):
    """Whatever a node has its groups for: in and around their images."""

    def make_machine(self, group: GroupId) -> DigestedMachine: ...

    @property
    def owners(self) -> GroupOwner | None:
        """Owner of groups that gets all other events, or None."""

    @property
    def day(self) -> ClockExchange | None:
        """Clock exchange, or None."""

    def start(self) -> list[GroupId]:
        """Load what is on disk: as `RaftHost.start`."""

    def join(self, group: GroupId, incarnation: int, config: Configuration) -> None:
        """The node is to be a member; called from within a turn, as the next."""

    def leave(self, group: GroupId) -> None:
        """Leave a group."""

    def lose(self, groups: list[GroupId]) -> None:
        """Handle groups that the disk cannot read; called once, before the first turn."""

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        """A frame that is not of consensus."""

    def link_changed(self, node: NodeId, is_up: bool) -> None:
        """The host has heard of it."""

    def begin_turn(self) -> None:
        """Whatever consensus is to be asked for in this turn is asked now."""

    def end_turn(self) -> None:
        """Handle the end of a turn, in which entries were applied."""


class Toys:
    """Services of a node that has groups of toys alone."""

    owners = day = None

    def __init__(self, process: "Process") -> None:
        self._process = process

    def make_machine(self, group: GroupId) -> DigestedMachine:
        return Toy()

    def start(self) -> list[GroupId]:
        return self._process.host.start()

    def join(self, group: GroupId, incarnation: int, config: Configuration) -> None:
        """The founders of every second group have agreed on who leads first."""
        voters = config.voters if group % 2 == 0 else ()
        first = voters[group // 2 % len(voters)].node if voters else None
        self._process.create(group, incarnation, config, first)

    def leave(self, group: GroupId) -> None:
        self._process.delete(group)

    def lose(self, groups: list[GroupId]) -> None:
        """Leave the groups lost: this node never becomes the same member again: see
        `Registry.burn`."""
        for group in groups:
            self._process.delete(group)

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        raise AssertionError(f"toys send nothing, {node} has sent {payload!r}")

    def link_changed(self, node: NodeId, is_up: bool) -> None: ...

    def begin_turn(self) -> None: ...

    def end_turn(self) -> None: ...


class Image:
    """The `Machine` of one group, which tells of each entry."""

    __slots__ = ("_group", "_process", "applied", "machine")

    def __init__(self, process: "Process", group: GroupId, machine: DigestedMachine) -> None:
        self._process = process
        self._group = group
        self.machine = machine
        self.applied = 0
        """Index of the last entry in it."""

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self.machine.restore(meta, state)
        self.applied = meta.index

    def apply(self, entries: Sequence[Entry]) -> None:
        process = self._process
        for entry in entries:
            self.machine.apply([entry])
            self.applied = entry.index
            process.world.applied(process, self._group, entry, self.machine.digest)

    def led(self, term: int) -> None:
        self.machine.led(term)

    def followed(self, term: int, leader: NodeId | None) -> None:
        self.machine.followed(term, leader)

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        live, pieces = self.machine.snapshot()
        return live, self._watched(self.applied, live, pieces)

    def _watched(self, index: int, live: Ranges, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pieces of the state; once all are made, the world looks at it."""
        made: list[bytes] = []
        for piece in pieces:
            made.append(piece)
            yield piece
        if index:
            self._process.world.took_snapshot(self._group, index, live, b"".join(made))

    def live(self) -> list[int]:
        """Indexes that are still needed."""
        return [index for first, stop in self.machine.snapshot()[0] for index in range(first, stop)]


class HostEnvironment:
    """All ports of the host but the disk: the world decides on time, order and what arrives."""

    __slots__ = ("_process", "on_frame", "on_link")

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.on_frame: OnFrame = _never
        self.on_link: OnLink = _never

    # As links

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        own = self._process.node
        if node != own:  # to which there is no link
            self._process.world.send(own, node, kind, joined(payload), traffic)

    def is_up(self, node: NodeId) -> bool:
        own = self._process.node
        return node != own and self._process.world.is_up(own, node)

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        own = self._process.node
        return self._process.world.waiting_bytes(own, node, traffic) if node != own else 0

    # As schedule

    def now_ms(self) -> int:
        return self._process.world.now_ms(self._process.node)

    def turn_soon(self) -> None:
        if self._process.is_alive:
            self._process.world.plan_turn(self._process)

    def work_soon(self) -> None:
        self._process.world.later(self._process, self._process.host.work)

    def wake_at(self, at_ms: int) -> None:
        self._process.world.plan_tick(self._process, at_ms)

    # As day

    def ping_times_ms(self, now_ms: int) -> tuple[int, int]:
        day = self._process.services.day
        return (0, 0) if day is None else day.ping_times_ms(now_ms)

    def heard(self, echo: Echo) -> None:
        day = self._process.services.day
        if day is not None:
            day.heard(echo)

    # As owner: whoever watches sees all outputs

    def make_machine(self, group: GroupId) -> Image:
        return Image(self._process, group, self._process.services.make_machine(group))

    @property
    def _owners(self) -> GroupOwner | None:
        return self._process.services.owners

    def configured(self, change: ConfigChange) -> None:
        if self._owners is not None:
            self._owners.configured(change)

    def judged(self, verdict: LivenessVerdict) -> None:
        if self._owners is not None:
            self._owners.judged(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        if self._owners is not None:
            self._owners.when_known(group, act)
        else:
            act()

    def unknown(self, node: NodeId, group: GroupId) -> None:
        if self._owners is not None:
            self._owners.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        if self._owners is not None:
            self._owners.damaged(group, index, wrong)

    def given_up(self, group: GroupId, wrong: str) -> None:
        raise AssertionError(f"{self._process.node} gives group {group} up: {wrong}")

    def refused(self, node: NodeId, reason: str) -> None:
        raise AssertionError(f"{self._process.node} refuses a frame of {node}: {reason}")


class Process:
    """Everything in here is lost when the process dies."""

    __slots__ = ("boot", "host", "is_alive", "multi", "node", "services", "store", "world")

    def __init__(
        self,
        identity: Identity,
        store: LogStore,
        world: World,
        promote: Callable[["Process", Links], GroupServices] = lambda process, _links: Toys(
            process
        ),
    ) -> None:
        self.node = identity.node
        self.boot = identity.boot
        self.store = store
        self.world = world
        around = HostEnvironment(self)
        self.multi = ObservedMultiRaft(identity, self, around.ping_times_ms)
        self.is_alive = True
        self.host = RaftHost(
            self.multi, RaftHostEnvironment(store, around, around, around, around, _raise), SETTINGS
        )
        self.services = promote(self, around)

    def start(self) -> list[GroupId]:
        """Load what is on disk; returns the groups whose head is lost, which are not here."""
        return self.services.start()

    def feed(self, call: Callable[..., object], *args: Any) -> None:
        """Have something done in the next turn."""
        self.host.feed(call, *args)

    def receive(self, sender: NodeId, kind: FrameKind, payload: bytes) -> None:
        if kind is FrameKind.CONSENSUS:
            self.host.receive(sender, payload)
        else:
            self.services.receive(sender, kind, payload)

    def link_changed(self, other: NodeId, is_up: bool) -> None:
        self.host.link_changed(other, is_up)
        self.services.link_changed(other, is_up)

    def link_accepted(self, other: NodeId) -> None:
        """The other node has dialled this one."""
        self.host.feed(self.multi.scheduler.add_link_news, other)

    def wake(self, at_ms: int) -> None:
        """The time of a tick that was planned has come."""
        self.host.wake(at_ms)

    def turn(self) -> None:
        self.services.begin_turn()
        self.host.turn()
        self.services.end_turn()

    # For those who look inside, or act on it, from within a turn

    @property
    def members(self) -> dict[GroupId, int]:
        """Incarnation of each group that is here."""
        return {group: hosted.incarnation for group, hosted in self.host.groups.items()}

    @property
    def images(self) -> dict[GroupId, Image]:
        """Images of groups that have one: from its restoring on, if its state could be read."""
        images = {}
        for group, hosted in self.host.groups.items():
            if hosted.is_restored:
                assert isinstance(hosted.machine, Image)
                images[group] = hosted.machine
        return images

    def commit_of(self, group: GroupId) -> int:
        return self.multi.group(group)._state.log.commit

    def is_left(self, group: GroupId) -> bool:
        """True if it was touched, and has its turn only in the next one."""
        return self.multi.group(group)._state in self.multi._node.dirty

    def state_of(self, group: GroupId) -> GroupState | None:
        """None if the group is not here."""
        return self.multi.group(group)._state if group in self.host else None

    def leads(self, group: GroupId) -> bool:
        return self.multi.group(group).status.role is Role.LEADER

    def ask_around(self, group: GroupId) -> None:
        """A leader that was deposed, and has not heard of it, hears of it by a read."""
        self.multi.group(group).read_index(UNASKED)

    def create(
        self, group: GroupId, incarnation: int, config: Configuration, first: NodeId | None = None
    ) -> None:
        self.host._create(group, incarnation, config, first)

    def delete(self, group: GroupId) -> None:
        self.host._delete(group)

    def snapshot(self, group: GroupId) -> None:
        """Make a snapshot of an image as it is now, and hand it over a while later."""
        image = self.images.get(group)
        if image is not None and image.applied:
            live, pieces = image.snapshot()
            taken = live, b"".join(pieces)
            self.world.later(self, self.compact, group, image.applied, taken)

    def compact(self, group: GroupId, index: int, image: tuple[Ranges, bytes]) -> None:
        """A snapshot that was begun some time ago is ready."""
        if group in self.images:
            with contextlib.suppress(ProposalRefused):
                self.multi.group(group).compact(index, *image)

    def scrub(self) -> None:
        """Read everything that is live, to find damage before it is needed."""
        for group, image in self.images.items():
            for index in image.live():
                try:
                    self.store.read(group, index, index + 1, 1)
                except DamagedLog as damage:
                    self.host._damaged(group, damage.index)


def _raise(error: Exception) -> None:
    raise error


def _never(*_: object) -> None:
    """Frames and link changes come by `Process.receive` and `link_changed`."""
