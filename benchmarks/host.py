"""`python -m benchmarks.host`: what it costs a node to host Raft groups.

Whole nodes in one thread, with everything but sockets: host, codec, links in memory, and a log in
memory or a real store, whose commits are done at once and by the same thread, so that their
processor time counts.  Figures are processor time, all nodes together, best of several rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from time import process_time_ns
from typing import Protocol

from benchmarks.report import markdown_table
from fluffle.broker.base.clock import SystemClock
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.group_background import HostLimits
from fluffle.broker.cluster.ports import FrameKind, OnFrame, OnLink, Payload, TrafficClass
from fluffle.broker.cluster.raft_host import RaftHost, RaftHostEnvironment
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.log_store import LogStore
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ConfigChange, LivenessVerdict
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from fluffle.storage.disk import Disk, WriteTransaction
from fluffle.storage.environment import open_environment
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Result, Store, commit
from tests.support.payloads import joined
from tests.support.raft_memory import DiskImage, MemoryRaftLog

ROUNDS = 5
BATCHES = 2_000
NAMES = "abc"
IDLE_GROUPS = 10_000


class Synced(Protocol):
    """A log store whose writes become durable on request."""

    @property
    def log(self) -> LogStore: ...

    def sync(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.log = MemoryRaftLog(DiskImage())

    def sync(self) -> None:
        self.log.sync()


class OnDisk:
    """A store on LMDB that is its own writer: a `Writer` that commits on request."""

    def __init__(self, directory: Path) -> None:
        self._disk = open_environment(directory)
        self._work: WriteTransaction | None = None
        self._result: Result | None = None
        self._store = Store(self._disk, self._as_writer, on_fatal=_raise)
        self.log = RaftLog(self._store, flush=lambda: None)

    def _as_writer(self, disk: Disk, wake: Callable[[], None]) -> OnDisk:
        self._wake = wake
        return self

    def start(self, work: WriteTransaction) -> None:
        self._work = work

    def take(self) -> Result | None:
        result, self._result = self._result, None
        return result

    def stop(self) -> None:
        """Nothing ever runs."""

    def sync(self) -> None:
        self._store.flush()
        while self._work is not None:
            work, self._work = self._work, None
            self._result = commit(self._disk, work)
            self._wake()


class Counting:
    """An image of no size."""

    def __init__(self) -> None:
        self.applied = 0
        self.leads = False

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self.applied = meta.index

    def apply(self, entries: Sequence[Entry]) -> None:
        self.applied = entries[-1].index

    def led(self, term: int) -> None:
        self.leads = True

    def followed(self, term: int, leader: NodeId | None) -> None:
        self.leads = False

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        return Ranges(), iter((b"state",))


class Node:
    """Links, schedule and owner of one host."""

    def __init__(self, cluster: Cluster, name: NodeId, disk: Synced) -> None:
        self.name = name
        self.disk = disk
        self.machines: dict[GroupId, Counting] = {}
        self.on_frame: OnFrame = lambda node, kind, payload: None
        self.on_link: OnLink = lambda node, is_up: None
        self._cluster = cluster
        self._soon: deque[Callable[[], None]] = deque()
        self._wake_at_ms: int | None = None
        multi = MultiRaft(name, 1, Tuning(), Random(name))
        day = CommonTime(name, SystemClock(), lambda: {name})
        self.host = RaftHost(
            multi, RaftHostEnvironment(disk.log, self, self, self, day, _raise), HostLimits()
        )
        self.host.start()

    def step(self) -> bool:
        """Do what was asked for, and make it durable; whether there was anything."""
        if self._wake_at_ms is not None and self._wake_at_ms <= self._cluster.now_ms:
            at_ms, self._wake_at_ms = self._wake_at_ms, None
            self.host.wake(at_ms)
        if not self._soon:
            return False
        self._soon.popleft()()
        self.disk.sync()
        return True

    # As links

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        self._cluster.frames.append((self.name, node, joined(payload)))

    def is_up(self, node: NodeId) -> bool:
        return True

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        return 0

    # As schedule

    def now_ms(self) -> int:
        return self._cluster.now_ms

    def turn_soon(self) -> None:
        self._soon.append(self.host.turn)

    def work_soon(self) -> None:
        self._soon.append(self.host.work)

    def wake_at(self, at_ms: int) -> None:
        self._wake_at_ms = at_ms

    # As owner

    def make_machine(self, group: GroupId) -> Counting:
        machine = self.machines[group] = Counting()
        return machine

    def configured(self, change: ConfigChange) -> None: ...

    def judged(self, verdict: LivenessVerdict) -> None: ...

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        del group
        act()

    def unknown(self, node: NodeId, group: GroupId) -> None: ...

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        raise AssertionError(f"group {group} is damaged at {index}: {wrong}")

    def given_up(self, group: GroupId, wrong: str) -> None:
        raise AssertionError(f"group {group} is given up: {wrong}")

    def refused(self, node: NodeId, reason: str) -> None:
        raise AssertionError(f"a frame from {node} was refused: {reason}")


class Cluster:
    """Nodes that hand each other their frames."""

    def __init__(self, count: int, make_disk: Callable[[NodeId], Synced]) -> None:
        self.now_ms = 1_000
        self.frames: deque[tuple[NodeId, NodeId, bytes]] = deque()
        self.nodes = {name: Node(self, name, make_disk(name)) for name in NAMES[:count]}
        for name, node in self.nodes.items():
            for other in self.nodes:
                if other != name:
                    node.host.link_changed(other, is_up=True)
        self.settle()

    def create(self, groups: range) -> None:
        config = Configuration.initial(self.nodes)
        for node in self.nodes.values():
            for group in groups:
                node.host.create(group, 1, config)
        self.settle()
        self.advance(1_000)

    def settle(self) -> None:
        """Until nothing happens any more."""
        nodes = self.nodes
        while True:
            has_worked = False
            for node in nodes.values():
                while node.step():
                    has_worked = True
            while self.frames:
                sender, receiver, frame = self.frames.popleft()
                nodes[receiver].host.receive(sender, frame)
                has_worked = True
            if not has_worked:
                return

    def advance(self, ms: int, *, step_ms: int = 10) -> None:
        for _ in range(0, ms, step_ms):
            self.now_ms += step_ms
            self.settle()

    def leader_of(self, group: GroupId) -> Node:
        return next(node for node in self.nodes.values() if node.machines[group].leads)


def _raise(error: Exception) -> None:
    raise error


def in_memory(name: NodeId) -> Synced:
    return InMemory()


def on_disk(directory: Path) -> Callable[[NodeId], Synced]:
    def make(name: NodeId) -> Synced:
        return OnDisk(Path(tempfile.mkdtemp(prefix=name, dir=directory)))

    return make


def proposing(count: int, depth: int, make_disk: Callable[[NodeId], Synced]) -> float:
    """µs a batch of 1 KiB that is one entry, from the proposal to its applying on all nodes."""
    cluster = Cluster(count, make_disk)
    cluster.create(range(1, 2))
    group, payload = cluster.leader_of(1).host.group(1), bytes(1024)
    outcomes: list[object] = []

    def measure() -> float:
        start = process_time_ns()
        for _ in range(BATCHES // depth):
            cluster.now_ms += 1
            for _ in range(depth):
                group.propose(payload, outcomes.append)
            cluster.settle()
        return (process_time_ns() - start) / 1_000 / BATCHES

    best = min(measure() for _ in range(ROUNDS))
    assert len(outcomes) == ROUNDS * (BATCHES // depth) * depth
    cluster.advance(100)
    assert len({node.machines[1].applied for node in cluster.nodes.values()}) == 1
    return best


def idle_ms(count: int, groups: int) -> float:
    """Milliseconds of processor time that idle nodes need in ten seconds."""
    cluster = Cluster(count, in_memory)
    cluster.create(range(1, groups + 1))
    cluster.advance(20_000, step_ms=50)
    start = process_time_ns()
    cluster.advance(10_000, step_ms=50)
    return (process_time_ns() - start) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        disk = on_disk(Path(directory))
        makers = {"in memory": in_memory, "in a store": disk}
        rows = [
            [f"{depth} a turn, the log {where}"]
            + [f"{proposing(count, depth, make):.1f}" for count in (1, 3)]
            for where, make in makers.items()
            for depth in (1, 10, 100)
        ]
    print(markdown_table(["µs a batch of 1 KiB, all nodes", "1 node", "3 nodes"], rows))
    idle = partial(idle_ms, 3)
    print(
        f"\nthree nodes for ten seconds: {idle(1):.1f} ms with 1 group, {idle(IDLE_GROUPS):.1f} ms "
        f"with {IDLE_GROUPS:,} idle"
    )


if __name__ == "__main__":
    main()
