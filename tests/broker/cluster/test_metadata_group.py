"""Definitions on top of real consensus: hosts with disks in memory, elections, partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from fluffle.broker.access.access import Access
from fluffle.broker.cluster.metadata_group import HostedMetadataLog, ReplicatedMetadata
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.cluster.raft_host import FrameDispatch
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhosts import queue_changes as queues
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.support.definition_digest import digest_of
from tests.support.fakes import Timer
from tests.support.frames import FakeSender
from tests.support.metadata_cluster import Outcome
from tests.support.queue_host import FakeTurn
from tests.support.raft_hosts import HostCluster, Node, ToyMachine

GROUP = 1


class Member:
    """The definitions on one node."""

    def __init__(self, cluster: HostCluster, node: Node) -> None:
        self.node = node
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.catalogue = Catalogue(
            Access(), {}, lambda vhost: VirtualHost(vhost, LocalQueues(FakeTurn()))
        )

        self.metadata = ReplicatedMetadata(
            node.name,
            node.boot,
            self.catalogue.apply,
            sender=self._sender(FrameKind.METADATA, TrafficClass.NORMAL),
            read_sender=self._sender(FrameKind.READ_INDEX, TrafficClass.URGENT),
            loop=self,
            clock=node.clock,
        )
        self.metadata.log = HostedMetadataLog(node.host)
        switch = FrameDispatch(node.links, node.reported.refused)
        switch.takers = {
            FrameKind.CONSENSUS: node.host.receive,
            FrameKind.METADATA: self.metadata.receive,
            FrameKind.READ_INDEX: self.metadata.reads.receive,
        }
        switch.link_listeners = [node.host.link_changed, self.metadata.link_changed]

    def _sender(self, kind: FrameKind, traffic: TrafficClass) -> FakeSender:
        links = self.node.links
        return FakeSender(
            self.node.name,
            lambda frame: links.send(frame[1], kind, frame[2], traffic=traffic),
        )

    # As the event loop

    def call_soon(self, call: Callable[[], None]) -> None:
        self.node._soon.append(call)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        self.timers.append((self.node.cluster.now_ms + delay_s * 1_000, call))
        return timer

    def declare(self, name: str) -> Outcome:
        outcome = Outcome()
        vhost = self.catalogue.vhosts["/"]
        self.metadata.change(
            lambda: queues.declare_queue(vhost, Declaration(name, durable=True), None),
            outcome.done,
            outcome.failed,
        )
        return outcome

    def fire(self, now_ms: int) -> None:
        due = [act for at_ms, act in self.timers if at_ms <= now_ms]
        self.timers = [timer for timer in self.timers if timer[0] > now_ms]
        for act in due:
            act()


class Harness:
    """Three nodes with the metadata group, and a virtual host."""

    def __init__(self) -> None:
        self.cluster = HostCluster()
        self.members: dict[str, Member] = {}
        for name, node in self.cluster.nodes.items():
            self._equip(name, node)
        self.cluster.create(GROUP)
        first = self.members["a"]
        first.metadata.ensure(lambda: set_vhost(first.catalogue, "/"))
        self.advance(100)

    def _equip(self, name: str, node: Node) -> None:
        member = self.members[name] = Member(self.cluster, node)
        node.reported.make = lambda: cast(ToyMachine, member.metadata)

    def advance(self, ms: int) -> None:
        for _ in range(0, ms, 100):
            self.cluster.advance(100)
            for member in self.members.values():
                if member.node.is_running:
                    member.fire(self.cluster.now_ms)
        self.cluster.settle()

    @property
    def leader(self) -> str:
        return self.cluster.leader(GROUP).name

    def others(self, name: str) -> list[str]:
        return [other for other in self.members if other != name]

    def queues(self) -> dict[str, list[str]]:
        return {
            name: sorted(member.catalogue.vhosts["/"].queues)
            for name, member in self.members.items()
            if member.node.is_running
        }


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_who_asks_on_any_node_is_answered(harness: Harness) -> None:
    outcomes = [member.declare(name) for name, member in harness.members.items()]
    harness.advance(100)
    assert [outcome.heard for outcome in outcomes] == [["done"]] * 3
    assert harness.queues() == {name: ["a", "b", "c"] for name in "abc"}


def test_what_is_asked_for_at_once_is_few_entries(harness: Harness) -> None:
    before = harness.cluster.led(GROUP).applied
    follower = harness.members[harness.others(harness.leader)[0]]
    outcomes = [follower.declare(str(number)) for number in range(100)]
    harness.advance(100)
    assert all(outcome.heard == ["done"] for outcome in outcomes)
    assert harness.cluster.led(GROUP).applied == before + 1


def test_a_change_outlives_its_leader(harness: Harness) -> None:
    first = harness.leader
    asker = harness.members[harness.others(first)[0]]
    outcome = asker.declare("q")
    harness.cluster.nodes[first].kill()
    harness.advance(3_000)
    assert outcome.heard == ["done"]
    assert set(harness.queues()) == set(harness.others(first))
    assert all(found == ["q"] for found in harness.queues().values())


def test_a_minority_says_so_in_time_and_the_majority_goes_on(harness: Harness) -> None:
    alone = harness.leader
    for other in harness.others(alone):
        harness.cluster.network.cut(alone, other)
    lost = harness.members[alone].declare("lost")
    harness.advance(3_000)
    kept = harness.members[harness.others(alone)[0]].declare("kept")
    harness.advance(29_000)
    assert kept.heard == ["done"]
    assert lost.heard[0].startswith("INTERNAL_ERROR - the operation timed out")
    for other in harness.others(alone):
        harness.cluster.network.connect(alone, other)
    harness.advance(3_000)
    assert len({digest_of(member.metadata.state) for member in harness.members.values()}) == 1
    assert "kept" in harness.queues()[alone]


def test_who_was_away_for_long_catches_up_by_a_snapshot(harness: Harness) -> None:
    away = harness.others(harness.leader)[0]
    for other in harness.others(away):
        harness.cluster.network.cut(away, other)
    for number in range(10):
        harness.members[harness.leader].declare(str(number))
        harness.advance(100)
    for name in harness.others(away):
        harness.cluster.nodes[name].snapshot(GROUP)
    harness.advance(1_000)
    for other in harness.others(away):
        harness.cluster.network.connect(away, other)
    waiting = harness.members[away].declare("mine")
    harness.advance(3_000)
    assert waiting.heard == ["done"]
    assert len(set(map(tuple, harness.queues().values()))) == 1
    assert len(harness.queues()[away]) == 11
