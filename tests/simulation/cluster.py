"""The nodes of a run: machines with a disk and a clock, on which processes come and go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from fluffle.broker.cluster.links.identity import BOOT_NONCE_BYTES
from fluffle.broker.cluster.ports import FrameKind, Links, TrafficClass
from fluffle.raft.config import NodeId
from fluffle.raft.log import Entry, GroupId
from fluffle.raft.log_store import Persist
from fluffle.raft.messages import AppendAccepted, VoteResponse
from fluffle.raft.output import Output
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import GroupState
from fluffle.raft.tuning import Tuning
from tests.simulation.checks import standard
from tests.simulation.checks.bounds import Bounds
from tests.simulation.checks.suspicions import Suspicions
from tests.simulation.disk import Backup, DiskProfile, SimDisk
from tests.simulation.facts import Stored, Violation
from tests.simulation.links import LinkedNetwork
from tests.simulation.network import NetworkProfile, SimNetwork
from tests.simulation.process import GroupServices, Identity, Process
from tests.simulation.registry import Registry
from tests.simulation.virtual_time import MS_US, SECOND_US, VirtualTime
from tests.simulation.watch import Watch
from tests.support.raft_memory import DiskImage


@dataclass(slots=True)
class Machine:
    """Parts of a node that exist without a process."""

    name: NodeId
    disk: SimDisk
    tuning: Tuning
    usual_turn_us: int
    """Mean time from something to do to its being done: load, and slowness of the processor."""
    usual_rate: float = 1.0
    """How fast its clock runs."""
    turn_us: int = 0
    """At present; and so the rate."""
    rate: float = 1.0
    base_ms: float = 0.0
    base_us: int = 0
    """The clock showed `base_ms` at `base_us`."""
    shown_ms: int = 0
    wall_ahead_ms: int = 0
    """How far the clock on the wall is ahead of that; it may be set, forward or back."""
    is_paused: bool = False
    postponed: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    """Calls that its process makes once it is not paused any more."""
    is_hurt: bool = False
    """True if it has lost something for good, and its groups are not yet whole again."""
    is_put_back: bool = False
    """True if its disk is older than what was there, and no node has found out."""
    groups_put_back: set[GroupId] = field(default_factory=set)
    """Groups that were on its disk when that was put back; the copy may lack them."""
    process: Process | None = None

    @property
    def has_damage(self) -> bool:
        """True if something on its disk cannot be read, found out or not."""
        return bool(self.damaged_groups)

    @property
    def damaged_groups(self) -> list[GroupId]:
        return [
            group
            for group, image in self.disk.image.groups.items()
            if image.damaged or image.is_state_damaged or image.is_head_damaged
        ]

    def clock_ms(self, now_us: int) -> int:
        """Never goes back, whatever happens to its rate."""
        ms = int(self.base_ms + (now_us - self.base_us) * self.rate / MS_US)
        self.shown_ms = max(self.shown_ms, ms)
        return self.shown_ms

    def set_clock(self, now_us: int, *, jump_ms: int = 0, rate: float | None = None) -> None:
        """Jump forward, or run at another rate from now on."""
        self.base_ms += (now_us - self.base_us) * self.rate / MS_US + jump_ms
        self.base_us = now_us
        self.rate = self.rate if rate is None else rate

    def when_us(self, at_ms: int) -> int:
        return self.base_us + int((at_ms - self.base_ms) * MS_US / self.rate) + 1


class Cluster:
    """The `World` of its processes."""

    __slots__ = (
        "_chance", "_settle_in", "clockwork", "machines", "names", "network", "on_turn", "registry",
        "vital", "watch",
    )  # fmt: skip

    def __init__(
        self,
        names: Sequence[NodeId],
        clockwork: VirtualTime,
        network: NetworkProfile,
        disks: Callable[[], DiskProfile],
        machines: Callable[[], tuple[Tuning, int, float]],
        *,
        promote: Callable[[Process, Links], GroupServices],
    ) -> None:
        self.clockwork = clockwork
        self.names = tuple(names)
        self._settle_in = promote
        self._chance = clockwork.chance("cluster")
        self.network = self._made_network(network)
        self.machines: dict[NodeId, Machine] = {}
        for name in self.names:
            disk = SimDisk(name, clockwork, disks(), self._became_durable)
            tuning, turn_us, rate = machines()
            self.machines[name] = Machine(name, disk, tuning, turn_us, rate, turn_us, rate)
        disks_by_name = {name: machine.disk for name, machine in self.machines.items()}
        self.watch = Watch(
            [
                *standard(disks_by_name),
                Bounds(self._state_of),
                Suspicions(lambda: clockwork.now_us),
            ]
        )
        for disk in disks_by_name.values():
            disk.on_rewritten = self.watch.entry_rewritten
        self.registry = Registry(self)
        self.watch.configured.append(self.registry.configured)
        self.vital: GroupId | None = None
        """Where this cannot be read a node begins with nothing."""
        self.on_turn = self.watch.turned
        """Called with each turn."""

    def _made_network(self, profile: NetworkProfile) -> SimNetwork | LinkedNetwork:
        around = self.names, self.clockwork, profile, self._deliver, self._link_changed
        if profile.links is None:
            return SimNetwork(*around)
        return LinkedNetwork(*around, when_awake=self.awake)

    # Machines and processes

    def alive(self) -> list[Process]:
        """Processes that run, in the order of their nodes."""
        found = (machine.process for machine in self.machines.values())
        return [process for process in found if process is not None]

    def start(self, name: NodeId) -> None:
        """Begin a life, if none is there."""
        machine = self.machines[name]
        if machine.process is not None:
            return
        disk = machine.disk
        if disk.is_copy():
            self.lose_disk(name, disk.image)  # it says what to do, and that is done
        disk.boot += 1
        disk.begin_life(disk.boot.to_bytes(BOOT_NONCE_BYTES))
        chance = self.clockwork.chance(f"core {name} {disk.boot}")
        identity = Identity(name, disk.boot, machine.tuning, chance)
        machine.process = process = Process(identity, disk, self, self._settle_in)
        disk.on_failed = lambda: self.kill(name, is_silent=False)
        self.registry.started(process)
        self.watch.started(name)
        lost = process.start()
        for group in lost:
            # It must not go on as the member it was: it begins anew, as another incarnation.
            self.registry.burn(name, group)
            self.watch.facts.group_lost(name, group)
        process.services.lose(lost)
        self.network.attach(name, disk.boot)
        if self.vital in lost:
            self.kill(name, is_silent=False)
            self.lose_disk(name, DiskImage())
            self.start(name)

    def kill(self, name: NodeId, *, is_silent: bool) -> None:
        """The process dies at once; silently if nothing is reported, as when the machine dies."""
        machine = self.machines[name]
        if machine.process is None:
            return
        machine.process.is_alive = False
        machine.process = None
        machine.is_paused = False
        machine.postponed.clear()
        machine.disk.lose_power()
        self.watch.ended(name)
        self.network.detach(name, is_silent=is_silent)

    def lose_disk(self, name: NodeId, image: DiskImage) -> None:
        """While no process runs: what is on the disk from now on is older, or nothing.

        Each node's boots are known to all, so the node is recognised as not what it was: it begins
        anew with nothing, and none of its memberships go on.
        """
        machine = self.machines[name]
        machine.is_hurt = True
        defined = (spec.group for spec in self.registry.living() if spec.is_defined)
        stored = self.watch.facts.stored.get(name, {})
        for group in {*stored, *image.groups, *defined, *machine.groups_put_back}:
            self.registry.burn(name, group)
        machine.is_put_back = False
        machine.groups_put_back.clear()
        machine.disk.begin_anew()
        self.watch.facts.disk_lost(name)

    def put_back(
        self, name: NodeId, backup: Backup, stored: dict[GroupId, Stored], *, is_copy: bool
    ) -> None:
        """Make its disk what it was when that was copied, while no process runs.

        Nothing says so: the node itself and the others must find out.
        """
        machine = self.machines[name]
        machine.is_hurt = machine.is_put_back = True
        machine.groups_put_back |= self.watch.facts.stored.get(name, {}).keys()
        machine.disk.put_back(backup, is_copy=is_copy)
        self.watch.facts.disk_put_back(name, stored)

    def found_put_back(self, process: Process) -> None:
        """A process ends, as its disk is not what it was; an operator gives it an empty one."""
        process.is_alive = False
        self.clockwork.after(0, self._replace_disk, process.node)

    def _replace_disk(self, name: NodeId) -> None:
        machine = self.machines[name]
        if machine.is_put_back:
            self.kill(name, is_silent=False)
            self.lose_disk(name, machine.disk.image)
            self.clockwork.after(SECOND_US, self.start, name)

    def pause(self, name: NodeId) -> None:
        if self.machines[name].process is not None:
            self.machines[name].is_paused = True
            self.network.pause(name)

    def resume(self, name: NodeId) -> None:
        machine = self.machines[name]
        if machine.is_paused:
            machine.is_paused = False
            self.network.resume(name)
            postponed, machine.postponed = machine.postponed, []
            for call, args in postponed:
                call(*args)
            if machine.process is not None:
                self.plan_turn(machine.process)

    def awake(self, name: NodeId, call: Callable[..., None], *args: Any) -> None:
        """Have its process do something now, or when it is not paused any more."""
        machine = self.machines[name]
        if machine.is_paused:
            machine.postponed.append((call, args))
        else:
            call(*args)

    # What processes ask of their world

    def now_ms(self, node: NodeId) -> int:
        return self.machines[node].clock_ms(self.clockwork.now_us)

    def plan_turn(self, process: Process) -> None:
        turn_us = self.machines[process.node].turn_us
        self.clockwork.after(int(turn_us * 2 * self._chance.random()), self._turn, process)

    def plan_tick(self, process: Process, at_ms: int) -> None:
        when_us = self.machines[process.node].when_us(at_ms)
        self.clockwork.at(when_us, process.wake, at_ms)

    def later(self, process: Process, call: Callable[..., None], *args: Any) -> None:
        delay_us = int(self._chance.expovariate(1 / (2 * MS_US)))
        self.clockwork.after(delay_us, process.feed, call, *args)

    def send(
        self,
        sender: NodeId,
        receiver: NodeId,
        kind: FrameKind,
        payload: bytes,
        traffic: TrafficClass,
    ) -> None:
        self.network.send(sender, receiver, kind, payload, traffic)

    def is_up(self, sender: NodeId, receiver: NodeId) -> bool:
        return self.network.is_up(sender, receiver)

    def waiting_bytes(self, sender: NodeId, receiver: NodeId, traffic: TrafficClass) -> int:
        return self.network.waiting_bytes(sender, receiver, traffic)

    def founded(self, group: GroupId, first: NodeId) -> None:
        self.watch.founded(group, first)

    def turned(self, process: Process, output: Output) -> None:
        if self.machines[process.node].is_put_back:
            check_silence(process.node, output)
        self.on_turn(process, output)
        for _, group in output.unknown:
            self.registry.look_into(group)

    def applied(self, process: Process, group: GroupId, entry: Entry, digest: int) -> None:
        self.watch.applied_entry(process.node, group, entry, digest)

    def took_snapshot(self, group: GroupId, index: int, live: Ranges, state: bytes) -> None:
        self.watch.took_snapshot(group, index, live, state)

    # What the parts tell, or ask

    def _state_of(self, node: NodeId, group: GroupId) -> GroupState | None:
        process = self.machines[node].process
        return None if process is None else process.state_of(group)

    def _turn(self, process: Process) -> None:
        if process.is_alive and not self.machines[process.node].is_paused:
            process.turn()

    def _deliver(self, sender: NodeId, receiver: NodeId, kind: FrameKind, payload: bytes) -> None:
        process = self.machines[receiver].process
        if process is not None and process.is_alive:
            process.receive(sender, kind, payload)

    def _link_changed(self, node: NodeId, other: NodeId, is_up: bool) -> None:
        process = self.machines[node].process
        if process is not None and process.is_alive:
            process.link_changed(other, is_up)
        accepting = self.machines[other].process
        if is_up and accepting is not None and accepting.is_alive:
            accepting.link_accepted(node)

    def _became_durable(self, node: NodeId, persist: Persist) -> None:
        self.watch.became_durable(node, persist)


def check_silence(node: NodeId, output: Output) -> None:
    """A node whose disk was put back counts for no majority: others have answered it before."""
    for message in chain.from_iterable(output.messages.values()):
        is_vote = isinstance(message, VoteResponse) and message.is_granted
        if is_vote or isinstance(message, AppendAccepted):
            raise Violation(f"put back: {node} says {message}, with a disk that was put back")
