"""Whole nodes of a cluster in one thread: hosts on disks in memory, with links and a clock by hand.

Nothing happens by itself: `settle` lets everything happen that is not a matter of time.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.group_background import HostLimits
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.ports import (
    FrameKind,
    GroupOwner,
    OnFrame,
    OnLink,
    Payload,
    TrafficClass,
)
from fluffle.broker.cluster.raft_host import RaftHost, RaftHostEnvironment
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.log_store import Persist
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ConfigChange, LivenessVerdict, Role
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from tests.simulation.toy import Toy
from tests.support.payloads import joined
from tests.support.raft_memory import DiskImage, MemoryRaftLog

STEPS_MAX = 100_000


class ToyMachine:
    """A `Machine` that tells what it heard."""

    def __init__(self) -> None:
        self.toy = Toy()
        self.calls: list[str] = []
        self.leads: int | None = None
        self.leader: NodeId | None = None
        self.snapshots = 0

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        if meta.index and not state:
            raise ValueError("no state")
        self.calls.append(f"restore {meta.index}")
        self.toy.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        self.calls.append(f"apply {entries[0].index}-{entries[-1].index}")
        self.toy.apply(entries)

    def led(self, term: int) -> None:
        self.calls.append("led")
        self.leads = term

    def followed(self, term: int, leader: NodeId | None) -> None:
        self.calls.append(f"followed {leader}")
        self.leads, self.leader = None, leader

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        self.snapshots += 1
        return self.toy.snapshot()


@dataclass
class RecordingOwner:
    """An `GroupOwner` that remembers."""

    make: Callable[[], ToyMachine] = ToyMachine
    machines: dict[GroupId, ToyMachine] = field(default_factory=dict)
    configs: list[ConfigChange] = field(default_factory=list)
    verdicts: list[LivenessVerdict] = field(default_factory=list)
    knows: bool = True
    """True if it knows all groups."""
    asked: list[tuple[GroupId, Callable[[], None]]] = field(default_factory=list)
    unknowns: list[tuple[NodeId, GroupId]] = field(default_factory=list)
    damages: list[tuple[GroupId, int]] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    """Texts of the damages."""
    misfits: list[tuple[GroupId, str]] = field(default_factory=list)
    refusals: list[tuple[NodeId, str]] = field(default_factory=list)

    def make_machine(self, group: GroupId) -> ToyMachine:
        machine = self.machines[group] = self.make()
        return machine

    def configured(self, change: ConfigChange) -> None:
        self.configs.append(change)

    def judged(self, verdict: LivenessVerdict) -> None:
        self.verdicts.append(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        self.asked.append((group, act))
        if self.knows:
            act()

    def unknown(self, node: NodeId, group: GroupId) -> None:
        self.unknowns.append((node, group))

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        self.damages.append((group, index))
        self.wrongs.append(wrong)

    def given_up(self, group: GroupId, wrong: str) -> None:
        self.misfits.append((group, wrong))

    def refused(self, node: NodeId, reason: str) -> None:
        self.refusals.append((node, reason))


class MemoryLinks:
    """`Links` of one node of a `Network`."""

    def __init__(self, network: Network, name: NodeId) -> None:
        self._network = network
        self._name = name
        self.up: set[NodeId] = set()
        self.on_frame: OnFrame = lambda node, kind, payload: None
        self.on_link: OnLink = lambda node, is_up: None
        self.bulk_waiting: dict[NodeId, int] = {}
        """Bytes that wait by node, as tests set them."""
        self.normal_waiting: dict[NodeId, int] = {}
        """Likewise; nothing more of it is sent then."""

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        has_room = traffic is not TrafficClass.NORMAL or not self.normal_waiting.get(node)
        if node in self.up and has_room:
            self._network.send(self._name, node, (kind, joined(payload), traffic))

    def is_up(self, node: NodeId) -> bool:
        return node in self.up

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        waiting = {TrafficClass.BULK: self.bulk_waiting, TrafficClass.NORMAL: self.normal_waiting}
        return waiting.get(traffic, {}).get(node, 0)


Frame = tuple[FrameKind, bytes, TrafficClass]


class Network:
    """Links between nodes of one thread; what is sent waits until it is delivered."""

    def __init__(self) -> None:
        self.ends: dict[NodeId, MemoryLinks] = {}
        self.frames: deque[tuple[NodeId, NodeId, Frame]] = deque()
        """From, to, what."""
        self.sent: list[tuple[NodeId, NodeId, TrafficClass, bytes]] = []
        self.wake: Callable[[], object] = lambda: None
        """Called when something was sent."""

    def join(self, name: NodeId) -> MemoryLinks:
        end = self.ends[name] = MemoryLinks(self, name)
        return end

    def connect(self, a: NodeId, b: NodeId) -> None:
        for this, other in ((a, b), (b, a)):
            self.ends[this].up.add(other)
        for this, other in ((a, b), (b, a)):
            self.ends[this].on_link(other, True)

    def connect_all(self, name: NodeId) -> None:
        for other in self.ends:
            if other != name and other not in self.ends[name].up:
                self.connect(name, other)

    def cut(self, a: NodeId, b: NodeId) -> None:
        """Cut a link; frames under way are lost."""
        self.frames = deque(frame for frame in self.frames if set(frame[:2]) != {a, b})
        for this, other in ((a, b), (b, a)):
            if this in self.ends and other in self.ends[this].up:
                self.ends[this].up.discard(other)
                self.ends[this].on_link(other, False)

    def leave(self, name: NodeId) -> None:
        """Its process has died."""
        for other in list(self.ends):
            if other != name:
                self.cut(name, other)
        del self.ends[name]

    def send(self, sender: NodeId, receiver: NodeId, frame: Frame) -> None:
        self.frames.append((sender, receiver, frame))
        self.sent.append((sender, receiver, frame[2], frame[1]))
        self.wake()

    def deliver(self) -> bool:
        """The oldest frame; whether there was any."""
        if not self.frames:
            return False
        sender, receiver, (kind, payload, _) = self.frames.popleft()
        self.ends[receiver].on_frame(sender, kind, payload)
        return True


class RecordingRaftLog(MemoryRaftLog):
    """Says what it was asked for."""

    def __init__(self, image: DiskImage) -> None:
        super().__init__(image)
        self.happened: list[str] = []

    def submit(self, persist: Persist) -> None:
        self.happened.append("submit")
        super().submit(persist)

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        self.happened.append("read")
        return super().read(group, first, stop, bytes_max)


class HostClock:
    """The time of a cluster, and what a wall shows."""

    def __init__(self, cluster: HostCluster) -> None:
        self._cluster = cluster
        self.ahead_ms = 0
        """How far that wall is."""

    def now_ms(self) -> int:
        return self._cluster.now_ms

    def wall_ms(self) -> int:
        return 1_000_000 + self._cluster.now_ms + self.ahead_ms


class Node:
    """A machine with a disk; `host` is the process on it.  A `Schedule`."""

    def __init__(self, cluster: HostCluster, name: NodeId) -> None:
        self.cluster = cluster
        self.name = name
        self.image = DiskImage()
        self.boot = 0
        self.is_running = False
        self.fatal: list[Exception] = []
        self.turns = 0
        self.clock = HostClock(cluster)

    def start(self) -> list[GroupId]:
        self.boot += 1
        self._soon: list[Callable[[], None]] = []
        self._wakes: list[int] = []
        self.store = RecordingRaftLog(self.image)
        self.reported = RecordingOwner(self.cluster.make)
        self.links = self.cluster.network.join(self.name)
        self.common_time = CommonTime(self.name, self.clock, lambda: self.cluster.nodes)
        multi = MultiRaft(
            self.name,
            self.boot,
            self.cluster.tuning,
            Random(self.name),
            self.common_time.ping_times_ms,
        )
        owner = self.make_owner()
        ports = RaftHostEnvironment(
            self.store, self.links, self, owner, self.common_time, self.fatal.append
        )
        self.host = RaftHost(multi, ports, self.cluster.settings)
        self.links.on_frame = lambda node, kind, payload: self.host.receive(node, payload)
        self.links.on_link = self.host.link_changed
        self.is_running = True
        self.compose()
        lost = self.host.start()
        self.cluster.network.connect_all(self.name)
        return lost

    def make_owner(self) -> GroupOwner:
        """Make the owner of the groups."""
        return self.reported

    def compose(self) -> None:
        """Make the other parts of the node before it starts."""

    def kill(self) -> None:
        """Kill the node; what was not durable is lost."""
        self.is_running = False
        self.cluster.network.leave(self.name)

    def machine(self, group: GroupId) -> ToyMachine:
        return self.reported.machines[group]

    def snapshot(self, group: GroupId) -> None:
        """Take one in the next turn, if it can be taken."""
        self.host.feed(self._snapshot, group)

    def _snapshot(self, group: GroupId) -> None:
        with contextlib.suppress(ProposalRefused):
            self.host.group(group).snapshot()

    @property
    def is_turn_due(self) -> bool:
        return bool(self._soon)

    # The schedule

    def now_ms(self) -> int:
        return self.cluster.now_ms

    def turn_soon(self) -> None:
        self._soon.append(self.host.turn)

    def work_soon(self) -> None:
        self._soon.append(self.host.work)

    def wake_at(self, at_ms: int) -> None:
        self._wakes.append(at_ms)

    def step(self) -> bool:
        """Do what was asked for; whether there was anything."""
        due = [at_ms for at_ms in self._wakes if at_ms <= self.cluster.now_ms]
        self._wakes = [at_ms for at_ms in self._wakes if at_ms > self.cluster.now_ms]
        for at_ms in due:
            self.host.wake(at_ms)
        soon, self._soon = self._soon, []
        for call in soon:
            self.turns += call == self.host.turn
            call()
        return bool(due or soon)


class HostCluster:
    """Nodes whose disks and network are as fast as `settle` wants."""

    def __init__(
        self,
        names: str = "abc",
        *,
        settings: HostLimits | None = None,
        tuning: Tuning | None = None,
        make: Callable[[], ToyMachine] = ToyMachine,
        make_node: Callable[[HostCluster, NodeId], Node] = Node,
    ) -> None:
        self.now_ms = 1_000
        self.settings = settings or HostLimits(scrub=None)
        self.tuning = tuning or Tuning()
        self.make = make
        self.is_fatal_expected = False
        self.network = Network()
        self.nodes = {name: make_node(self, name) for name in names}
        for node in self.nodes.values():
            node.start()
        self.settle()

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.is_running]

    def create(self, *groups: GroupId) -> None:
        config = Configuration.initial(self.nodes)
        for group in groups:
            for node in self.nodes.values():
                node.host.create(group, 1, config)
        self.settle()
        self.advance(1_000)

    def step(self) -> bool:
        """Everything that waits, once; whether there was anything."""
        has_worked = False
        for node in self.running():
            has_worked |= node.step()
        for _ in range(len(self.network.frames)):
            has_worked |= self.network.deliver()
        for node in self.running():
            node.store.sync()
            has_worked |= node.is_turn_due
        return has_worked

    def settle(self) -> None:
        """Until nothing happens any more, unless time passes."""
        for _ in range(STEPS_MAX):
            if not self.step():
                self._must_be_well()
                return
        raise AssertionError("the cluster does not come to rest")

    def _must_be_well(self) -> None:
        for node in self.nodes.values():
            if node.fatal and not self.is_fatal_expected:
                raise node.fatal[0]

    def advance(self, ms: int, *, step_ms: int = 10) -> None:
        for _ in range(0, ms, step_ms):
            self.now_ms += step_ms
            self.settle()

    def leader(self, group: GroupId) -> Node:
        """The only one."""
        found = [
            node
            for node in self.running()
            if group in node.host and node.host.group(group).status.role is Role.LEADER
        ]
        assert len(found) == 1, f"{[node.name for node in found]} lead {group}"
        return found[0]

    def led(self, group: GroupId) -> HostedGroup:
        return self.leader(group).host.group(group)

    def followers(self, group: GroupId) -> list[Node]:
        leader = self.leader(group)
        return [node for node in self.running() if node is not leader and group in node.host]

    def propose(self, group: GroupId, *payloads: bytes) -> list[object]:
        """The outcomes, after everything has settled."""
        outcomes: list[object] = []
        for payload in payloads:
            self.led(group).propose(payload, outcomes.append)
        self.settle()
        return outcomes
