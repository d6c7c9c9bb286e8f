"""Three nodes and one group, moved step by step as hypothesis chooses: what it finds, it shrinks.

Nothing happens by itself here.  Which frame arrives next, or is lost or repeated, when a disk is
done, how much time passes, who dies: each is a choice from what is possible at the moment.  It
begins with a leader; the same checkers look on; at the end everything is delivered, and all must
agree.
"""

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.raft.config import AddLearner, Change, Configuration, Member, NodeId, Promote, Remove
from fluffle.raft.leader import ProposalRefused
from fluffle.raft.log import Entry, GroupId
from fluffle.raft.log_store import LoadedGroups, Persist
from fluffle.raft.output import ConfigChange, Output, Role
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from tests.mutants.mutant import Mutant
from tests.mutants.registry import these
from tests.simulation import toy
from tests.simulation.checks import standard
from tests.simulation.facts import Violation
from tests.simulation.process import Identity, Process
from tests.simulation.watch import Watch
from tests.suite.seeds import machine_settings
from tests.support.raft_memory import DiskImage

NAMES = ("a", "b", "c")
GROUP = 1
SMALL = Tuning(append_bytes_max=100, window_messages=2, snapshot_chunk_bytes=100)


class ManualDisk:
    """Durable when it is said to be.  A `LogStore`."""

    def __init__(self, name: NodeId, durable: Callable[[NodeId, Persist], None]) -> None:
        self.name = name
        self.image = DiskImage()
        self.boot = 0
        self.has_room = self.may_grow = self.takes_entries = True
        self.on_durable: Callable[[int], None] = lambda token: None
        self.waiting: list[Persist] = []
        self._durable = durable

    def load(self) -> LoadedGroups:
        return self.image.load()

    def submit(self, persist: Persist) -> None:
        self.waiting.append(persist)

    def rewrite(self, group: GroupId, index: int, make: Callable[[bytes], bytes]) -> bool:
        """Rewrite nothing, as where everything is in the hot window."""
        del group, index, make
        return False

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        return self.image.read(group, first, stop, bytes_max)

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        return self.image.read_state(group, offset, size)

    def write_one(self) -> int:
        """Make the oldest write durable, and tell nobody; its token."""
        persist = self.waiting.pop(0)
        self.image.apply(persist)
        self._durable(self.name, persist)
        return persist.token


class ManualWorld:
    """The `World` of three processes: a list of frames, three disks, one clock."""

    def __init__(self) -> None:
        self.frames: list[tuple[NodeId, NodeId, int, FrameKind, bytes]] = []
        """From, to, boot of the receiver, what it is, frame."""
        self.clock_ms = 1_000
        self.disks = {name: ManualDisk(name, self._became_durable) for name in NAMES}
        self.watch = Watch(standard(self.disks))
        self.processes: dict[NodeId, Process] = {}
        self._turns: list[Process] = []
        self.config_index, self.config = 0, Configuration.initial(NAMES)
        """The latest that is known to be committed."""
        self.watch.configured.append(self._configured)

    def start(self, name: NodeId) -> None:
        disk = self.disks[name]
        disk.boot += 1
        identity = Identity(name, disk.boot, SMALL, Random(f"{name} {disk.boot}"))
        process = self.processes[name] = Process(identity, disk, self)
        self.watch.started(name)
        process.start()
        if GROUP not in process.members and self.config.member_on(name) == Member(name, 1):
            process.feed(process.create, GROUP, 1, Configuration.initial(NAMES))
        for other in self.processes.values():
            if other is not process:
                process.link_changed(other.node, is_up=True)
                other.link_changed(name, is_up=True)
        self.take_turns()

    def obey(self, name: NodeId) -> None:
        """Go where one was removed, and come where one was added."""
        process = self.processes.get(name)
        if process is None:
            return
        had, member = process.members.get(GROUP), self.config.member_on(name)
        if had is None and member is not None:
            process.feed(process.create, GROUP, member.incarnation, Configuration())
        is_outdated = member is None or (had is not None and member.incarnation > had)
        if had is not None and is_outdated and not process.leads(GROUP):
            process.feed(process.delete, GROUP)
        self.take_turns()

    def crash(self, name: NodeId, *, kept: int) -> None:
        """Crash; the oldest few of the waiting writes are durable."""
        process, disk = self.processes.pop(name), self.disks[name]
        process.is_alive = False
        for _ in range(min(kept, len(disk.waiting))):
            disk.write_one()
        disk.waiting.clear()
        self.watch.ended(name)
        for other in self.processes.values():
            other.link_changed(name, is_up=False)
        self.take_turns()

    def deliver(self, at: int) -> None:
        sender, receiver, boot, kind, frame = self.frames.pop(at)
        process = self.processes.get(receiver)
        if process is not None and process.boot == boot:
            process.receive(sender, kind, frame)
        self.take_turns()

    def sync(self, name: NodeId) -> None:
        disk = self.disks[name]
        disk.on_durable(disk.write_one())
        self.take_turns()

    def advance(self, ms: int) -> None:
        self.clock_ms += ms
        for process in self.processes.values():
            process.feed(lambda: None)
        self.take_turns()

    def take_turns(self) -> None:
        while self._turns:
            process = self._turns.pop(0)
            if process.is_alive:
                process.turn()

    def _became_durable(self, node: NodeId, persist: Persist) -> None:
        self.watch.became_durable(node, persist)

    def _configured(self, node: NodeId, change: ConfigChange) -> None:
        if change.index > self.config_index:
            self.config_index, self.config = change.index, change.config

    # What processes ask

    def now_ms(self, node: NodeId) -> int:
        return self.clock_ms

    def plan_turn(self, process: Process) -> None:
        self._turns.append(process)

    def plan_tick(self, process: Process, at_ms: int) -> None:
        """Do nothing: time passes by hand and gives each process a turn."""

    def later(self, process: Process, call: Callable[..., None], *args: Any) -> None:
        process.feed(call, *args)

    def send(
        self,
        sender: NodeId,
        receiver: NodeId,
        kind: FrameKind,
        payload: bytes,
        traffic: TrafficClass,
    ) -> None:
        if receiver in self.processes:
            self.frames.append((sender, receiver, self.processes[receiver].boot, kind, payload))

    def is_up(self, sender: NodeId, receiver: NodeId) -> bool:
        """True if one is it decides when a frame arrives."""
        return True

    def waiting_bytes(self, sender: NodeId, receiver: NodeId, traffic: TrafficClass) -> int:
        return 0

    def founded(self, group: GroupId, first: NodeId) -> None:
        self.watch.founded(group, first)

    def turned(self, process: Process, output: Output) -> None:
        self.watch.turned(process, output)

    def applied(self, process: Process, group: GroupId, entry: Entry, digest: int) -> None:
        self.watch.applied_entry(process.node, group, entry, digest)

    def took_snapshot(self, group: GroupId, index: int, live: Ranges, state: bytes) -> None:
        self.watch.took_snapshot(group, index, live, state)


WHO = st.sampled_from(NAMES)
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(AddLearner, WHO), st.builds(Promote, WHO), st.builds(Remove, WHO)
)


def propose(process: Process, payload: bytes) -> None:
    process.multi.group(GROUP).propose(payload)


class Machine(RuleBasedStateMachine):
    """The rules are the choices; the invariants are in the checkers, which raise."""

    def __init__(self) -> None:
        super().__init__()
        self.world = ManualWorld()
        self.puts = 0
        for name in NAMES:
            self.world.start(name)
        for _ in range(10):
            self.world.advance(50)
            self.drain()

    @precondition(lambda self: self.world.frames)
    @rule(at=st.integers(0, 50))
    def deliver(self, at: int) -> None:
        self.world.deliver(at % len(self.world.frames))

    @precondition(lambda self: self.world.frames)
    @rule(count=st.integers(1, 20))
    def deliver_some(self, count: int) -> None:
        for _ in range(min(count, len(self.world.frames))):
            self.world.deliver(0)

    @precondition(lambda self: self.world.frames)
    @rule(at=st.integers(0, 50))
    def lose(self, at: int) -> None:
        self.world.frames.pop(at % len(self.world.frames))

    @precondition(lambda self: 0 < len(self.world.frames) < 50)
    @rule(at=st.integers(0, 50))
    def repeat(self, at: int) -> None:
        self.world.frames.append(self.world.frames[at % len(self.world.frames)])

    @rule(who=WHO)
    def sync(self, who: NodeId) -> None:
        if self.world.disks[who].waiting and who in self.world.processes:
            self.world.sync(who)

    @rule(ms=st.sampled_from([5, 50, 250, 450, 1_100]))
    def advance(self, ms: int) -> None:
        self.world.advance(ms)

    @rule(who=WHO, kept=st.integers(0, 3))
    def crash(self, who: NodeId, kept: int) -> None:
        if who in self.world.processes:
            self.world.crash(who, kept=kept)

    @rule(who=WHO)
    def start(self, who: NodeId) -> None:
        if who not in self.world.processes:
            self.world.start(who)

    @rule(who=WHO, count=st.integers(1, 4))
    def publish(self, who: NodeId, count: int) -> None:
        for _ in range(count):
            self.puts += 1
            self.ask(
                who, lambda process: process.multi.group(GROUP).propose(toy.put(self.puts, 20))
            )

    @rule(who=WHO, keep=st.integers(0, 5))
    def settle(self, who: NodeId, keep: int) -> None:
        def act(process: Process) -> None:
            live = process.images[GROUP].live()
            process.multi.group(GROUP).propose(toy.settle([i for i in live if i % 6 != keep]))

        self.ask(who, act)

    @rule(who=WHO)
    def compact(self, who: NodeId) -> None:
        self.ask(who, lambda process: process.snapshot(GROUP))

    @rule(who=WHO, whom=WHO)
    def transfer(self, who: NodeId, whom: NodeId) -> None:
        self.ask(who, lambda process: process.multi.group(GROUP).transfer(whom))

    @rule(who=WHO)
    def campaign(self, who: NodeId) -> None:
        self.ask(who, lambda process: process.multi.group(GROUP).campaign())

    @rule(who=WHO, change=CHANGES)
    def change(self, who: NodeId, change: Change) -> None:
        self.ask(who, lambda process: process.multi.group(GROUP).change(change))

    @rule(who=WHO)
    def obey(self, who: NodeId) -> None:
        self.world.obey(who)

    def ask(self, who: NodeId, act: Callable[[Process], object]) -> None:
        process = self.world.processes.get(who)
        if process is None:
            return

        def guarded() -> None:
            if GROUP in process.images:
                with contextlib.suppress(ProposalRefused):
                    act(process)

        process.feed(guarded)
        self.world.take_turns()

    @invariant()
    def logs_are_shorter_than_what_is_under_way(self) -> None:
        """A guard on the test itself: no storm of messages."""
        assert len(self.world.frames) < 5_000

    def teardown(self) -> None:
        """Run every node and deliver everything: a leader, and one image for all its members."""
        world = self.world
        for name in NAMES:
            if name not in world.processes:
                world.start(name)
        for _ in range(300):
            world.advance(50)
            self.drain()
            for name in NAMES:
                world.obey(name)
        facts = world.watch.facts
        members = [member.node for member in world.config.members]
        replicas = {name: facts.replicas[name][GROUP] for name in members}
        assert any(replica.role is Role.LEADER for replica in replicas.values())
        assert {r.applied for r in replicas.values()} == {facts.group(GROUP).commit}, replicas

    @rule()
    def drain(self) -> None:
        """Deliver and write until nothing is left to do without time passing."""
        world = self.world
        while True:
            busy = [name for name in NAMES if world.disks[name].waiting]
            if world.frames:
                world.deliver(0)
            elif busy:
                world.sync(busy[0])
            else:
                return


Machine.TestCase.settings = machine_settings(
    examples=60,
    stateful_step_count=60,
    suppress_health_check=list(HealthCheck),
)
HUNT = settings(
    Machine.TestCase.settings,
    max_examples=500,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    report_multiple_bugs=False,
)
"""To find something is enough: what is found need not be made small."""

TestMachine = Machine.TestCase


@these("M1", "M3", "M10", "M26")
def test_the_machine_finds_mistakes(mutant: Mutant) -> None:
    with mutant.in_place(), pytest.raises((Violation, AssertionError)):
        run_state_machine_as_test(Machine, settings=HUNT)
