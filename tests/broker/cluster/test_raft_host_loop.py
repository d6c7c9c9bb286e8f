"""Hosts in an event loop, on real disks; and one commit for journals and Raft."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest

from fluffle.broker.base.clock import SystemClock
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.group_background import HostLimits
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.metadata_group import GroupOwnerDispatch
from fluffle.broker.cluster.ports import METADATA_GROUP, FrameKind, Links, Machine, TrafficClass
from fluffle.broker.cluster.raft_host import HostIdentity, HostLoop
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.local_journal import LocalJournals
from fluffle.broker.metadata.metadata import LocalReadBarrier
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.group import Position
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.output import ConfigChange, LivenessVerdict, Role
from fluffle.storage.disk import Disk, MemoryDisk, WriteTransaction
from fluffle.storage.layout import Change, Deletion
from fluffle.storage.log import GroupLogs
from fluffle.storage.store import Store, open_store
from tests.broker.cluster.links.link_nodes import SECRET, SWIFT, identity
from tests.simulation.toy import put
from tests.storage.support import ManualWriter
from tests.support import store as stores
from tests.support.deadlines import soon
from tests.support.fakes import Timer
from tests.support.manual_clock import ManualClock
from tests.support.raft_hosts import Network, RecordingOwner, ToyMachine

GROUP = 1_000_000
ORIGIN = Origin("", "q")
"""Elections take a second at most; the rest is for a machine that is busy."""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The logs that each commit appends to."""
    commits: list[set[int]] = []
    begin = GroupLogs.begin

    def note(log: GroupLogs, changes: list[Change], work: WriteTransaction) -> None:
        commits.append({change[0].group for change in changes if not isinstance(change, Deletion)})
        begin(log, changes, work)

    monkeypatch.setattr(GroupLogs, "begin", note)
    return commits


# One commit for all, step by step


class Alone:
    """Node with a local journal and a Raft group, moved by hand."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.clock = ManualClock(now_ms=1_000)
        self.turn = Turn(self.callbacks.append)
        self.store = stores.open_store(MemoryDisk(), self._make_writer)
        self.commits = Commits(self.store, self.turn)
        journals = LocalJournals(self.store.log, self.commits, {})
        self.journal = journals.create(journals.new_groups())
        self.reported = RecordingOwner()
        self.fatal: list[Exception] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.running = self.running_host(Network().join("a"), self.reported)
        self.sequence = 0
        self.running.start()
        self.running.host.create(GROUP, 1, Configuration.initial("a"))
        self.settle()

    def running_host(self, links: Links, owner: RecordingOwner) -> HostLoop:
        return HostLoop(
            HostIdentity("a", 1, Random(1)),
            self.store,
            self.turn,
            links,
            owner,
            clock=CommonTime("a", self.clock, lambda: "a"),
            loop=self,
            on_fatal=self.fatal.append,
            settings=HostLimits(scrub=None),
        )

    # As the event loop

    def call_soon(self, call: Callable[[], None]) -> None:
        self.callbacks.append(call)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append((delay_s, call))
        return Timer(call)

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def run(self) -> None:
        while self.callbacks:
            self.callbacks.pop(0)()

    def settle(self) -> None:
        self.run()
        while self.writer.step():
            self.run()

    def publish(self) -> int:
        """Tell the journal of a message; the number of its log."""
        self.sequence += 1
        self.journal.enqueued([ORIGIN], [b"m" * 50], 50, self.sequence, apart=False)
        return self.journal.groups[0]

    def propose(self, outcomes: list[object]) -> None:
        self.running.host.group(GROUP).propose(put(1, 50), outcomes.append)


def test_journals_and_raft_share_a_commit(written: list[set[int]]) -> None:
    node = Alone()
    written.clear()
    outcomes: list[object] = []
    node.propose(outcomes)
    local = node.publish()
    node.run()
    assert len(written) == 1
    assert local in written[0]
    assert len(written[0]) == 2
    assert outcomes == []
    node.settle()
    assert outcomes == [Position(1, 2)]
    assert node.commits.durable == node.commits.ticket - 1


@pytest.mark.parametrize("is_raft_first", [True, False])
def test_what_comes_while_a_commit_runs_shares_the_next(
    written: list[set[int]], is_raft_first: bool
) -> None:
    """Neither of the two has to wait for every second commit."""
    node = Alone()
    written.clear()
    outcomes: list[object] = []
    local = node.journal.groups[0]
    for _ in range(5):
        if is_raft_first:
            node.propose(outcomes)
            node.run()
        node.publish()
        node.propose(outcomes)
        node.run()
        node.writer.step()
        node.run()
    node.settle()
    assert [local in groups for groups in written[1:5]] == [True] * 4
    assert [len(groups) for groups in written[1:5]] == [2] * 4
    assert len(outcomes) == 5 * (1 + is_raft_first)
    assert node.fatal == []


def test_what_is_proposed_in_front_of_consensus_is_in_this_turn_and_asks_for_no_other() -> None:
    node = Alone()
    outcomes: list[object] = []
    node.running.before.append(lambda: node.propose(outcomes))
    submitted = node.running.host.submitted
    node.turn.touch_consensus()
    node.callbacks.pop(0)()
    assert node.running.host.submitted == submitted + 1
    assert node.callbacks == []


def test_a_host_that_has_stopped_leaves_the_rest_of_the_node_alone() -> None:
    node = Alone()
    outcomes: list[object] = []
    node.propose(outcomes)
    node.run()
    node.running.stop()
    assert len(outcomes) == 1
    node.publish()
    node.settle()
    for _, act in node.timers:
        act()
    node.run()
    assert node.commits.unwritten_bytes == 0
    node.commits.close()
    assert node.fatal == []


def test_frames_of_no_known_kind_are_dropped_with_a_word() -> None:
    reported, links = RecordingOwner(), Network().join("a")
    node = Alone()
    running = node.running_host(links, reported)
    taken: list[tuple[NodeId, bytes]] = []
    running.switch.takers[FrameKind.METADATA] = lambda node, payload: taken.append((node, payload))
    links.on_frame("b", FrameKind.METADATA, b"m")
    links.on_frame("b", FrameKind.SESSION, b"s")
    assert taken == [("b", b"m")]
    assert reported.refusals == [("b", "there is no receiver of frames of kind 2")]


# Three nodes in a loop, on real disks


class Changes:
    """Lets a test wait until something is so."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    def reported(self, answers: list[Any]) -> Callable[[Any], None]:
        """Keeps what it is called with."""

        def keep(answer: object) -> None:
            answers.append(answer)
            self.tell()

        return keep

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with soon():
            while not is_so():
                self._event.clear()
                await self._event.wait()


class NotingMachine(ToyMachine):
    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self._changes = changes

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        super().restore(meta, state)
        self._changes.tell()

    def apply(self, entries: Sequence[Entry]) -> None:
        super().apply(entries)
        self._changes.tell()

    def led(self, term: int) -> None:
        super().led(term)
        self._changes.tell()


class Joined(Protocol):
    """Connection between the nodes of a test."""

    def join(self, name: NodeId) -> Links: ...

    def connect_all(self, name: NodeId) -> None: ...

    async def left(self, name: NodeId) -> None: ...


class LoopNetwork(Network):
    """Delivers a frame with each round of the loop."""

    async def left(self, name: NodeId) -> None:
        self.leave(name)

    def send(
        self, sender: NodeId, receiver: NodeId, frame: tuple[FrameKind, bytes, TrafficClass]
    ) -> None:
        super().send(sender, receiver, frame)
        asyncio.get_running_loop().call_soon(self.deliver)


class TcpNetwork:
    """The links of daemons, over sockets of this machine."""

    def __init__(self) -> None:
        self._ends: dict[NodeId, tuple[ClusterLinks, ListenAddress]] = {}
        self._boots = Counter[NodeId]()

    def join(self, name: NodeId) -> Links:
        self._boots[name] += 1
        links = ClusterLinks(
            identity(name, self._boots[name]), SECRET, limits=SWIFT, chance=Random(name)
        )
        links.on_frame, links.on_link = _not_yet, _not_yet
        self._ends[name] = links, links.listen("127.0.0.1", 0)
        return links

    def connect_all(self, name: NodeId) -> None:
        links, address = self._ends[name]
        for other, (theirs, their_address) in self._ends.items():
            if other != name:
                links.set_peer(other, their_address.host, their_address.port)
                theirs.set_peer(name, address.host, address.port)

    async def left(self, name: NodeId) -> None:
        await self._ends.pop(name)[0].stop()


def _not_yet(*_: object) -> None:
    raise AssertionError("nothing comes before the host has taken its place")


class LoopNode:
    """A node on a directory."""

    def __init__(self, name: NodeId, directory: Path, network: Joined, changes: Changes) -> None:
        self.name = name
        self._directory = directory / name
        self._directory.mkdir()
        self._network = network
        self._changes = changes
        self._boot = 0
        self.fatal: list[Exception] = []
        self.is_running = False

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._boot += 1
        self.turn = Turn(loop.call_soon, self.fatal.append)
        self.store: Store = open_store(
            self._directory, call_soon=loop.call_soon_threadsafe, on_fatal=self.fatal.append
        )
        self.commits = Commits(self.store, self.turn)
        self.reported = RecordingOwner(lambda: NotingMachine(self._changes))
        links = self._network.join(self.name)
        self.running = HostLoop(
            HostIdentity(self.name, self._boot, Random(self.name)),
            self.store,
            self.turn,
            links,
            self.reported,
            clock=CommonTime(self.name, SystemClock(), lambda: "abc"),
            loop=loop,
            on_fatal=self.fatal.append,
        )
        assert self.running.start() == []
        self.is_running = True
        self._network.connect_all(self.name)

    async def stop(self) -> None:
        """The process ends; what was submitted is written, as it may be."""
        self.is_running = False
        await self._network.left(self.name)
        self.running.stop()
        self.commits.close()

    @property
    def machine(self) -> ToyMachine:
        return self.reported.machines[GROUP]

    @property
    def leads(self) -> bool:
        return self.is_running and self.machine.leads is not None


class Three:
    """Three nodes with one group."""

    def __init__(self, directory: Path, network: Joined) -> None:
        self.changes = Changes()
        self.nodes = {name: LoopNode(name, directory, network, self.changes) for name in "abc"}

    def running(self) -> list[LoopNode]:
        return [node for node in self.nodes.values() if node.is_running]

    async def leader(self) -> LoopNode:
        await self.changes.until(lambda: any(node.leads for node in self.running()))
        return next(node for node in self.running() if node.leads)

    async def propose(self, count: int, first: int) -> None:
        """Until each is applied, at whoever leads."""
        leader = await self.leader()
        outcomes: list[object] = []
        reported = self.changes.reported(outcomes)
        for number in range(first, first + count):
            leader.running.host.group(GROUP).propose(put(number, 100), reported)
        await self.changes.until(lambda: len(outcomes) == count)
        assert all(isinstance(outcome, Position) for outcome in outcomes), outcomes

    async def agree(self, live: int) -> None:
        """Until all that run have the same image."""

        def is_agreed() -> bool:
            toys = [node.machine.toy for node in self.running()]
            return len({toy.digest for toy in toys}) == 1 and len(toys[0].live) == live

        await self.changes.until(is_agreed)


@asynccontextmanager
async def three(
    directory: Path, make_network: Callable[[], Joined] = LoopNetwork
) -> AsyncIterator[Three]:
    nodes = Three(directory, make_network())
    for node in nodes.nodes.values():
        node.start()
    for node in nodes.nodes.values():
        node.running.host.create(GROUP, 1, Configuration.initial("abc"))
    await asyncio.sleep(0)
    await nodes.changes.until(lambda: all(GROUP in n.reported.machines for n in nodes.running()))
    yield nodes
    for node in nodes.running():
        await node.stop()
    assert [node.fatal for node in nodes.nodes.values()] == [[], [], []]


@pytest.mark.parametrize("network", [LoopNetwork, TcpNetwork])
async def test_three_nodes_elect_replicate_and_survive_restarts(
    tmp_path: Path, network: Callable[[], Joined]
) -> None:
    async with three(tmp_path, network) as nodes:
        await nodes.propose(50, first=0)
        await nodes.agree(50)
        leader = await nodes.leader()
        await leader.stop()
        await nodes.propose(50, first=50)
        leader.start()
        await nodes.agree(100)
        for node in nodes.running():
            await node.stop()
        for node in nodes.nodes.values():
            node.start()
        await nodes.propose(10, first=100)
        await nodes.agree(110)
        statuses = [node.running.host.group(GROUP).status for node in nodes.running()]
        assert [status.role for status in statuses].count(Role.LEADER) == 1
        assert {status.commit for status in statuses} == {statuses[0].commit}


async def test_a_read_is_answered_in_a_loop(tmp_path: Path) -> None:
    async with three(tmp_path) as nodes:
        await nodes.propose(3, first=0)
        reported: list[int | None] = []
        leader = await nodes.leader()
        leader.running.host.group(GROUP).read_index(nodes.changes.reported(reported))
        await nodes.changes.until(lambda: reported != [])
        assert reported[0] is not None
        assert reported[0] >= 4


async def test_local_journals_and_raft_share_commits_under_load(
    tmp_path: Path, written: list[set[int]]
) -> None:
    async with three(tmp_path) as nodes:
        leader = await nodes.leader()
        journals = LocalJournals(leader.store.log, leader.commits, {})
        journal = journals.create(journals.new_groups())
        written.clear()
        for number in range(20):
            journal.enqueued([ORIGIN], [b"m" * 50], 50, number + 1, apart=False)
            await nodes.propose(1, first=number)
        local = journal.groups[0]
        assert any(local in groups and len(groups) > 1 for groups in written)
        await nodes.agree(20)


QUEUE: GroupId = 7


class Noting:
    """An `Owner`, and `Nodes`, that writes down what it hears."""

    def __init__(self) -> None:
        self.reported: list[object] = []
        self.made = ToyMachine()

    def make_machine(self, group: GroupId) -> Machine:
        self.reported.append(group)
        return self.made

    def configured(self, change: ConfigChange | None = None) -> None:
        self.reported.append(change and change.group)

    def judged(self, verdict: LivenessVerdict) -> None:
        self.reported.append(verdict)

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        self.reported.append(group)
        act()

    def unknown(self, node: NodeId, group: GroupId | None = None) -> None:
        self.reported.append((node, group))

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        self.reported.append((group, index, wrong))

    def given_up(self, group: GroupId, wrong: str) -> None:
        self.reported.append((group, wrong))

    def refused(self, node: NodeId, reason: str) -> None:
        self.reported.append((node, reason))


class HeldBarrier(LocalReadBarrier):
    """A `ReadBarrier` that confirms when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def ask(
        self, done: Callable[[], None], failed: Callable[[BrokerError], None] | None = None
    ) -> None:
        assert failed is None, "who asks waits however long it takes"
        self.asked.append(done)


class Harness:
    def __init__(self) -> None:
        self.metadata, self.hosting, self.nodes = ToyMachine(), Noting(), Noting()
        self.barrier = HeldBarrier()
        self.owners = GroupOwnerDispatch(self.metadata, self.hosting, self.nodes, self.barrier)


def test_each_group_has_the_machine_of_its_owner() -> None:
    harness = Harness()
    assert harness.owners.make_machine(METADATA_GROUP) is harness.metadata
    assert harness.owners.make_machine(QUEUE) is harness.hosting.made


def test_what_happens_to_a_group_is_reported_to_its_owner() -> None:
    harness = Harness()
    for group in (METADATA_GROUP, QUEUE):
        harness.owners.configured(ConfigChange(group, 1, Configuration()))
        harness.owners.unknown("b", group)
    assert harness.nodes.reported == [None, ("b", None)]
    assert harness.hosting.reported == [QUEUE, ("b", QUEUE)]


def test_damage_of_definitions_is_said_here_and_that_of_a_queue_by_who_knows_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness = Harness()
    for group in (METADATA_GROUP, QUEUE):
        harness.owners.damaged(group, 3, "checksum")
        harness.owners.given_up(group, "misfit")
    assert [(each.levelno, getattr(each, FIELDS_ATTRIBUTE)) for each in caplog.records] == [
        (logging.ERROR, {"group": METADATA_GROUP, "index": 3, "reason": "checksum"}),
        (logging.ERROR, {"group": METADATA_GROUP, "reason": "misfit"}),
    ]
    assert harness.hosting.reported == [(QUEUE, 3, "checksum"), (QUEUE, "misfit")]


def test_all_hear_of_a_node() -> None:
    harness = Harness()
    verdict = LivenessVerdict("b", is_alive=False, boot=1)
    harness.owners.judged(verdict)
    assert harness.nodes.reported == harness.hosting.reported == [verdict]


def test_who_does_not_know_all_queues_does_not_know_which_are_not_there() -> None:
    harness, known = Harness(), list[GroupId]()
    harness.owners.when_known(METADATA_GROUP, lambda: known.append(METADATA_GROUP))
    assert known == [METADATA_GROUP]
    harness.owners.when_known(QUEUE, lambda: known.append(QUEUE))
    assert (known, harness.hosting.reported) == ([METADATA_GROUP], [])
    for confirmed in harness.barrier.asked:
        confirmed()
    assert (known, harness.hosting.reported) == ([METADATA_GROUP, QUEUE], [QUEUE])
