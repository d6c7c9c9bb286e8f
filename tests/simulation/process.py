"""One life of a node: the host that daemons run, with every effect at a port.

What is under test is `RaftHost` and everything below it.  Here is what stands around it in a
simulation: ports that lead to the `World`, images that tell of each entry, and an output that is
seen before it is done.  What the groups are for is the business of a `Tenant`.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from fluffle.broker.cluster.host import Ports, RaftHost
from fluffle.broker.cluster.packing import Payload, joined
from fluffle.broker.cluster.ports import FrameKind, Lane, Links, Machine, OnFrame, OnLink
from fluffle.broker.cluster.settings import HostSettings
from fluffle.raft.config import Config, NodeId
from fluffle.raft.log_store import Damaged, LogStore
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ConfigChange, Output, Role, Verdict
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Entry, GroupId, SnapshotMeta
from fluffle.raft.refused import Refused
from fluffle.raft.state import State
from fluffle.raft.tuning import Tuning
from tests.simulation.toy import Toy

NEVER = 1 << 60
SETTINGS = HostSettings(
    slice_bytes=1, snapshot_bytes_min=NEVER, snapshot_node_bytes_max=NEVER, scrub=None
)
"""One read at a time, each after a while.  Snapshots and scrubbing are the workload's."""


ARRAY = 0x90
"""Frames of consensus begin so, or higher, as arrays of msgpack do; others with their kind."""

UNASKED = 0
"""Context of reads whose answer nobody needs."""


class World(Protocol):
    """What a process needs of everything around it."""

    def now_ms(self, node: NodeId) -> int:
        """The node's own clock, which never goes back."""

    def plan_turn(self, process: "Process") -> None:
        """Call `turn` soon."""

    def plan_tick(self, process: "Process", at_ms: int) -> None:
        """Call `wake` when the node's clock says so."""

    def later(self, process: "Process", call: Callable[..., None], *args: Any) -> None:
        """Feed the call to the process after a while: reads, a snapshot."""

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


class Watched(MultiRaft):
    """Consensus whose outputs are seen before they are done."""

    __slots__ = ("_process",)

    def __init__(self, identity: Identity, process: "Process") -> None:
        super().__init__(identity.node, identity.boot, identity.tuning, identity.chance)
        self._process = process

    def output(self) -> Output:
        output = super().output()
        self._process.world.turned(self._process, output)
        return output


class Simulated(Machine, Protocol):
    """The image of one group, as a simulation compares it."""

    @property
    def digest(self) -> int:
        """Equal if and only if the images are."""


class Tenant(Protocol):
    """Whatever a node has its groups for: in and around their images."""

    def make_machine(self, group: GroupId) -> Simulated: ...

    def has_heard(self, group: GroupId, *, is_gone: bool) -> bool:
        """Whether it knows that a group is there, or gone."""

    def configured(self, group: GroupId, config: Config) -> None:
        """A group that it knows has these members, as far as is known."""

    def join(self, group: GroupId, incarnation: int, config: Config) -> None:
        """The node is to be a member; called from within a turn, as the next."""

    def leave(self, group: GroupId) -> None:
        """It is none any more."""

    def unknown(self, node: NodeId, group: GroupId) -> None:
        """See `Owner`."""

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        """A frame that is not of consensus."""

    def link_changed(self, node: NodeId, is_up: bool) -> None:
        """The host has been told."""

    def begin_turn(self) -> None:
        """Whatever consensus is to be asked for in this turn is asked now."""

    def end_turn(self) -> None:
        """What was applied in this turn is applied."""


class Toys:
    """A tenant that has nothing but toys."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    def make_machine(self, group: GroupId) -> Simulated:
        return Toy()

    def has_heard(self, group: GroupId, *, is_gone: bool) -> bool:
        return True

    def configured(self, group: GroupId, config: Config) -> None: ...

    def join(self, group: GroupId, incarnation: int, config: Config) -> None:
        self._process.create(group, incarnation, config)

    def leave(self, group: GroupId) -> None:
        self._process.delete(group)

    def unknown(self, node: NodeId, group: GroupId) -> None: ...

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        raise AssertionError(f"toys send nothing, {node} has sent {payload!r}")

    def link_changed(self, node: NodeId, is_up: bool) -> None: ...

    def begin_turn(self) -> None: ...

    def end_turn(self) -> None: ...


class Image:
    """The `Machine` of one group, which tells of each entry."""

    __slots__ = ("_group", "_process", "applied", "machine")

    def __init__(self, process: "Process", group: GroupId, machine: Simulated) -> None:
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

    def snapshot(self) -> tuple[Ranges, bytes]:
        image = self.machine.snapshot()
        if self.applied:
            self._process.world.took_snapshot(self._group, self.applied, *image)
        return image

    def live(self) -> list[int]:
        """Indexes that are still needed."""
        return [index for first, stop in self.machine.snapshot()[0] for index in range(first, stop)]


class Around:
    """All ports of the host but the disk: the world decides on time, order and what arrives."""

    __slots__ = ("_process", "on_frame", "on_link")

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.on_frame: OnFrame = _never
        self.on_link: OnLink = _never

    # As links: whether one is up the network decides when a frame arrives

    def send(self, node: NodeId, kind: FrameKind, payload: Payload, *, lane: Lane) -> None:
        own, payload = self._process.node, joined(payload)
        if kind is FrameKind.CONSENSUS:
            self._process.world.send(own, node, payload)
        elif node != own:  # to which there is no link
            self._process.world.send(own, node, bytes((kind,)) + payload)

    def is_up(self, node: NodeId) -> bool:
        return True

    def waiting_bytes(self, node: NodeId, lane: Lane) -> int:
        return 0

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

    # As owner: the registry knows the groups, and whoever watches sees all outputs

    def make_machine(self, group: GroupId) -> Image:
        return Image(self._process, group, self._process.tenant.make_machine(group))

    def configured(self, change: ConfigChange) -> None: ...

    def judged(self, verdict: Verdict) -> None: ...

    def unknown(self, node: NodeId, group: GroupId) -> None:
        self._process.tenant.unknown(node, group)

    def damaged(self, group: GroupId, index: int, wrong: str) -> None: ...

    def given_up(self, group: GroupId, wrong: str) -> None:
        raise AssertionError(f"{self._process.node} gives group {group} up: {wrong}")

    def refused(self, node: NodeId, reason: str) -> None:
        raise AssertionError(f"{self._process.node} refuses a frame of {node}: {reason}")


class Process:
    """Everything in here is lost when the process dies."""

    __slots__ = ("boot", "host", "is_alive", "multi", "node", "store", "tenant", "world")

    def __init__(
        self,
        identity: Identity,
        store: LogStore,
        world: World,
        settle_in: Callable[["Process", Links], Tenant] = lambda process, _links: Toys(process),
    ) -> None:
        self.node = identity.node
        self.boot = identity.boot
        self.store = store
        self.world = world
        self.multi = Watched(identity, self)
        self.is_alive = True
        around = Around(self)
        self.host = RaftHost(self.multi, Ports(store, around, around, around, _raise), SETTINGS)
        self.tenant = settle_in(self, around)

    def start(self) -> list[GroupId]:
        """Load what is on disk; returns the groups whose head is lost, which are not here."""
        return self.host.start()

    def feed(self, call: Callable[..., object], *args: Any) -> None:
        """Have something done in the next turn."""
        self.host.feed(call, *args)

    def receive(self, sender: NodeId, frame: bytes) -> None:
        if frame[0] >= ARRAY:
            self.host.receive(sender, frame)
        else:
            self.tenant.receive(sender, FrameKind(frame[0]), frame[1:])

    def link_changed(self, other: NodeId, is_up: bool) -> None:
        self.host.link_changed(other, is_up)
        self.tenant.link_changed(other, is_up)

    def wake(self, at_ms: int) -> None:
        """The time of a tick that was planned has come."""
        self.host.wake(at_ms)

    def turn(self) -> None:
        self.tenant.begin_turn()
        self.host.turn()
        self.tenant.end_turn()

    # For those who look inside, or act on it, from within a turn

    @property
    def members(self) -> dict[GroupId, int]:
        """Of each group that is here, the incarnation."""
        return {group: hosted.incarnation for group, hosted in self.host.groups.items()}

    @property
    def images(self) -> dict[GroupId, Image]:
        """Of each group that has one: from its restoring on, if its state could be read."""
        images = {}
        for group, hosted in self.host.groups.items():
            if hosted.is_restored:
                assert isinstance(hosted.machine, Image)
                images[group] = hosted.machine
        return images

    def commit_of(self, group: GroupId) -> int:
        return self.multi.group(group)._state.log.commit

    def state_of(self, group: GroupId) -> State | None:
        """None if the group is not here."""
        return self.multi.group(group)._state if group in self.host else None

    def leads(self, group: GroupId) -> bool:
        return self.multi.group(group).status.role is Role.LEADER

    def ask_around(self, group: GroupId) -> None:
        """A leader that was deposed, and has not heard of it, hears of it by a read."""
        self.multi.group(group).read_index(UNASKED)

    def create(self, group: GroupId, incarnation: int, config: Config) -> None:
        self.host._create(group, incarnation, config)

    def delete(self, group: GroupId) -> None:
        self.host._delete(group)

    def snapshot(self, group: GroupId) -> None:
        """Make a snapshot of an image as it is now, and hand it over a while later."""
        image = self.images.get(group)
        if image is not None and image.applied:
            self.world.later(self, self.compact, group, image.applied, image.snapshot())

    def compact(self, group: GroupId, index: int, image: tuple[Ranges, bytes]) -> None:
        """A snapshot that was begun some time ago is ready."""
        if group in self.images:
            with contextlib.suppress(Refused):
                self.multi.group(group).compact(index, *image)

    def scrub(self) -> None:
        """Read everything that is live, to find damage before it is needed."""
        for group, image in self.images.items():
            for index in image.live():
                try:
                    self.store.read(group, index, index + 1, 1)
                except Damaged as damage:
                    self.host._damaged(group, damage.index)


def _raise(error: Exception) -> None:
    raise error


def _never(*_: object) -> None:
    """Frames and link changes come by `Process.receive` and `link_changed`."""
