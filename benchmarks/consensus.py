"""`python -m benchmarks.consensus`: what consensus itself costs, without network and disk.

Whole clusters in one thread: messages are handed over as they are, and every write is durable at
the end of the turn.  Figures are processor time, all members together, best of several rounds; the
memory is that of Python objects, as tracemalloc counts it.
"""

from __future__ import annotations

import argparse
import gc
import tracemalloc
from collections.abc import Callable
from functools import partial
from random import Random
from time import process_time_ns

from benchmarks.report import markdown_table
from fluffle.broker.cluster.codec import decode, encode
from fluffle.raft.config import Configuration
from fluffle.raft.log import DATA, Entry
from fluffle.raft.messages import AppendRequest, Message
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import Output, Role
from fluffle.raft.tuning import Tuning
from tests.support.payloads import joined

ROUNDS = 5
BATCHES = 2_000
NAMES = "abcde"


class Cluster:
    """Nodes that hand each other their messages, turn by turn."""

    def __init__(self, count: int) -> None:
        self.now_ms = 1_000
        self.nodes = {name: MultiRaft(name, 1, Tuning(), Random(name)) for name in NAMES[:count]}
        self.waiting: dict[str, list[tuple[str, list[Message]]]] = {name: [] for name in self.nodes}
        for name, node in self.nodes.items():
            node.tick(self.now_ms)
            for other in self.nodes:
                if other != name:
                    node.link_up(other)
            self.end_turn(name)

    def create(self, groups: range) -> None:
        config = Configuration.initial(self.nodes)
        for name, node in self.nodes.items():
            node.tick(self.now_ms)
            for group in groups:
                node.create(group, 1, config)
            self.end_turn(name)

    def end_turn(self, name: str) -> None:
        """Do what a turn leaves behind, at once."""
        node = self.nodes[name]
        output: Output = node.output()
        while True:
            for target, messages in output.messages.items():
                self.waiting[target].append((name, messages))
            for apply in output.applies:
                node.group(apply.group).applied(apply.entries[-1].index)
            if output.persist is not None:
                node.durable(output.persist.token)
            if output.persist is None and not output.applies:
                return
            output = node.output()

    def settle(self) -> None:
        """Until no message is under way."""
        while any(self.waiting.values()):
            for name, node in self.nodes.items():
                arrived, self.waiting[name] = self.waiting[name], []
                if arrived:
                    node.tick(self.now_ms)
                    for source, messages in arrived:
                        node.receive(source, messages)
                    self.end_turn(name)

    def advance(self, ms: int, *, step_ms: int = 10) -> None:
        for _ in range(0, ms, step_ms):
            self.now_ms += step_ms
            for name, node in self.nodes.items():
                node.tick(self.now_ms)
                self.end_turn(name)
            self.settle()

    def leader_of(self, group: int) -> str:
        return next(
            name
            for name, node in self.nodes.items()
            if node.group(group).status.role is Role.LEADER
        )


def ready(count: int, groups: int) -> Cluster:
    """A cluster whose groups have leaders and are asleep."""
    cluster = Cluster(count)
    cluster.settle()
    cluster.create(range(1, groups + 1))
    cluster.settle()
    cluster.advance(1_000)
    return cluster


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(ROUNDS))


def proposing(count: int, depth: int) -> Callable[[], float]:
    """µs a batch of 1 KiB that is one entry, from the proposal to its applying on all members.

    `depth`: so many are proposed in one turn.
    """
    cluster = ready(count, 1)
    leader = cluster.leader_of(1)
    group, payload = cluster.nodes[leader].group(1), bytes(1024)

    def measure() -> float:
        start = process_time_ns()
        for _ in range(BATCHES // depth):
            cluster.now_ms += 1
            cluster.nodes[leader].tick(cluster.now_ms)
            for _ in range(depth):
                group.propose(payload)
            cluster.end_turn(leader)
            cluster.settle()
        return (process_time_ns() - start) / 1_000 / BATCHES

    return measure


def idle_bytes(groups: int, members: int) -> float:
    """Bytes of one idle group on one node."""
    cluster = ready(members, 1)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    cluster.create(range(2, groups + 2))
    cluster.settle()
    cluster.advance(1_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / groups / members


def idle_cpu(groups: int) -> tuple[float, float]:
    """Milliseconds of processor time that three nodes need in ten seconds, without and with."""
    used = []
    for count in (1, groups):
        cluster = ready(3, count)
        start = process_time_ns()
        cluster.advance(10_000, step_ms=250)
        used.append((process_time_ns() - start) / 1e6)
    return used[0], used[1]


def election_ms(groups: int) -> float:
    """Processor time of two nodes to elect leaders for all groups of a third that is gone."""
    cluster = ready(3, groups)
    cluster.waiting.pop("a")
    gone = cluster.nodes.pop("a")
    assert gone is not None
    cluster.waiting["a"] = []
    start = process_time_ns()
    for name, node in cluster.nodes.items():
        node.link_down("a")
        cluster.end_turn(name)
    for _ in range(100):
        cluster.now_ms += 10
        for name, node in cluster.nodes.items():
            node.tick(cluster.now_ms)
            cluster.end_turn(name)
        cluster.waiting["a"].clear()
        cluster.settle()
    assert all(cluster.leader_of(group) for group in range(1, groups + 1))
    return (process_time_ns() - start) / 1e6


def wire(entries: int, size: int) -> tuple[int, float, float]:
    """An append of one batch of so many messages: bytes, µs to encode, µs to decode."""
    entry = Entry(2, 1, DATA, bytes(entries * size))
    message = AppendRequest(1, 1, 1, 1, 1, 1, 1, 1, [entry])
    frame = joined(encode([message]))

    def timed(act: Callable[[], object]) -> float:
        start = process_time_ns()
        for _ in range(200):
            act()
        return (process_time_ns() - start) / 200_000

    return (
        len(frame),
        best(partial(timed, partial(encode, [message]))),
        best(partial(timed, partial(decode, frame))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consensus", description=__doc__)
    parser.parse_args()
    rows = [
        [
            f"{depth} a turn",
            *(f"{best(proposing(count, depth)):.1f}" for count in (1, 3, 5)),
        ]
        for depth in (1, 10, 100)
    ]
    print(markdown_table(["µs a batch of 1 KiB, all members", "1", "3", "5"], rows))
    three, five = idle_bytes(2_000, 3), idle_bytes(2_000, 5)
    print(f"\nan idle group: {three:,.0f} B on each of three nodes, {five:,.0f} B of five")
    one, many = idle_cpu(10_000)
    print(f"three nodes for ten seconds: {one:.1f} ms with 1 group, {many:.1f} ms with 10,000 idle")
    print(f"a node with a third of 3,000 groups dies: {election_ms(3_000):.0f} ms to elect anew")
    rows = []
    for entries in (1, 100, 1_000):
        for size in (100, 1_024):
            length, to_bytes, back = wire(entries, size)
            times = (f"{to_bytes:.1f}", f"{back:.1f}")
            rows.append([f"{entries:,} x {size:,} B", f"{length:,}", *times])
    print("\n" + markdown_table(["append of", "bytes", "µs to encode", "µs to decode"], rows))


if __name__ == "__main__":
    main()
