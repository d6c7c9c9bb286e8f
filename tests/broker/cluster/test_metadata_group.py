"""Definitions on top of real consensus: hosts with disks in memory, elections, partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from fluffle.broker.access.access import Access
from fluffle.broker.cluster.host_loop import FrameDispatch
from fluffle.broker.cluster.metadata_group import MetadataCallbacks, ReplicatedMetadata
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhosts import queue_changes as queues
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import NodeId
from tests.support.digests import digest_of
from tests.support.hosts import HostCluster, Node, ToyMachine
from tests.support.metadata_cluster import Outcome, nobody_is_served

GROUP = 1


class Member:
    """The definitions on one node."""

    def __init__(self, cluster: HostCluster, node: Node) -> None:
        self.node = node
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.catalogue = Catalogue(
            Access(), {}, lambda vhost: VirtualHost(vhost, LocalQueues(nobody_is_served))
        )

        def soon(act: Callable[[], None]) -> None:
            node._soon.append(act)

        def send(to: NodeId, payload: bytes) -> None:
            node.links.send(to, FrameKind.METADATA, payload, lane=TrafficClass.NORMAL)

        def send_read(to: NodeId, payload: bytes) -> bool:
            node.links.send(to, FrameKind.READ_INDEX, payload, lane=TrafficClass.URGENT)
            return True

        ports = MetadataCallbacks(
            propose=lambda payload, on_fate: node.host.group(GROUP).propose(payload, on_fate),
            send=send,
            call_soon=soon,
            call_later=lambda s, act: self.timers.append((cluster.now_ms + s * 1_000, act)),
            now_ms=node.now_ms,
            may_grow=lambda: node.host.space.may_grow,
            read_index=lambda done: node.host.group(GROUP).read_index(done),
            send_read=send_read,
        )
        self.metadata = ReplicatedMetadata(node.name, node.boot, self.catalogue.apply, ports)
        switch = FrameDispatch(node.links, node.told.refused)
        switch.takers = {
            FrameKind.CONSENSUS: node.host.receive,
            FrameKind.METADATA: self.metadata.receive,
            FrameKind.READ_INDEX: self.metadata.reads.receive,
        }
        switch.link_listeners = [node.host.link_changed, self.metadata.link_changed]

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


class Rig:
    """Three nodes with the metadata group, and a virtual host."""

    def __init__(self) -> None:
        self.cluster = HostCluster()
        self.members: dict[str, Member] = {}
        for name, node in self.cluster.nodes.items():
            self._equip(name, node)
        self.cluster.create(GROUP)
        first = self.members["a"]
        first.metadata.settle(lambda: set_vhost(first.catalogue, "/"))
        self.advance(100)

    def _equip(self, name: str, node: Node) -> None:
        member = self.members[name] = Member(self.cluster, node)
        node.told.make = lambda: cast(ToyMachine, member.metadata)

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
def rig() -> Rig:
    return Rig()


def test_who_asks_on_any_node_is_answered(rig: Rig) -> None:
    outcomes = [member.declare(name) for name, member in rig.members.items()]
    rig.advance(100)
    assert [outcome.heard for outcome in outcomes] == [["done"]] * 3
    assert rig.queues() == {name: ["a", "b", "c"] for name in "abc"}


def test_what_is_asked_for_at_once_is_few_entries(rig: Rig) -> None:
    before = rig.cluster.led(GROUP).applied
    follower = rig.members[rig.others(rig.leader)[0]]
    outcomes = [follower.declare(str(number)) for number in range(100)]
    rig.advance(100)
    assert all(outcome.heard == ["done"] for outcome in outcomes)
    assert rig.cluster.led(GROUP).applied == before + 1


def test_a_change_outlives_its_leader(rig: Rig) -> None:
    first = rig.leader
    asker = rig.members[rig.others(first)[0]]
    outcome = asker.declare("q")
    rig.cluster.nodes[first].kill()
    rig.advance(3_000)
    assert outcome.heard == ["done"]
    assert set(rig.queues()) == set(rig.others(first))
    assert all(found == ["q"] for found in rig.queues().values())


def test_a_minority_says_so_in_time_and_the_majority_goes_on(rig: Rig) -> None:
    alone = rig.leader
    for other in rig.others(alone):
        rig.cluster.network.cut(alone, other)
    lost = rig.members[alone].declare("lost")
    rig.advance(3_000)
    kept = rig.members[rig.others(alone)[0]].declare("kept")
    rig.advance(29_000)
    assert kept.heard == ["done"]
    assert lost.heard[0].startswith("INTERNAL_ERROR - the operation timed out")
    for other in rig.others(alone):
        rig.cluster.network.connect(alone, other)
    rig.advance(3_000)
    assert len({digest_of(member.metadata.state) for member in rig.members.values()}) == 1
    assert "kept" in rig.queues()[alone]


def test_who_was_away_for_long_catches_up_by_a_snapshot(rig: Rig) -> None:
    away = rig.others(rig.leader)[0]
    for other in rig.others(away):
        rig.cluster.network.cut(away, other)
    for number in range(10):
        rig.members[rig.leader].declare(str(number))
        rig.advance(100)
    for name in rig.others(away):
        rig.cluster.nodes[name].snapshot(GROUP)
    rig.advance(1_000)
    for other in rig.others(away):
        rig.cluster.network.connect(away, other)
    waiting = rig.members[away].declare("mine")
    rig.advance(3_000)
    assert waiting.heard == ["done"]
    assert len(set(map(tuple, rig.queues().values()))) == 1
    assert len(rig.queues()[away]) == 11
