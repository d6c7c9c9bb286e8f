"""Leadership when disks are full, on disks in memory, and when a node is drained."""

from __future__ import annotations

from functools import partial

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.leadership_transfer import DiskFullHandover, unpacked
from fluffle.broker.cluster.node_monitor import AbsentNodes
from fluffle.raft.config import NodeId
from fluffle.raft.output import LivenessVerdict
from tests.broker.cluster.queues.test_membership import is_led_as_wanted
from tests.broker.cluster.queues.test_quorum_queues import Scene, scene
from tests.simulation.toy import put
from tests.support.cluster_nodes import make_calm, until
from tests.support.frames import FakeSender
from tests.support.raft_hosts import HostCluster

__all__ = ["scene"]

GROUP = 7


class DiskScene:
    """Three nodes, their groups, and what each says of its disk."""

    def __init__(self, groups: int = 1) -> None:
        self.cluster = HostCluster()
        self.rooms: dict[NodeId, DiskFullHandover] = {}
        for node in self.cluster.running():
            name = node.name
            others = [other for other in "abc" if other != name]
            absent = AbsentNodes(name, lambda: 0, lambda _node: False)
            for other in others:
                absent.judged(LivenessVerdict(other, is_alive=True, boot=1))
            sender = FakeSender(name, self._deliver, others)
            self.rooms[name] = DiskFullHandover(name, node.host, absent, sender)
        self.groups = range(GROUP, GROUP + groups)
        for group in self.groups:
            self.cluster.create(group)

    def _deliver(self, frame: tuple[NodeId, NodeId, bytes]) -> None:
        source, target, payload = frame
        self.rooms[target].receive(source, payload)

    def fill(self, name: NodeId, *, takes_entries: bool = True) -> None:
        store = self.cluster.nodes[name].store
        store.has_room = False
        store.may_grow = store.takes_entries = takes_entries
        self.look()

    def free(self, name: NodeId) -> None:
        store = self.cluster.nodes[name].store
        store.has_room = store.may_grow = store.takes_entries = True
        self.look()

    def look(self) -> None:
        """Check the room of each node, as is done regularly."""
        for room in self.rooms.values():
            room.look()
        self.cluster.settle()

    def leaders(self) -> dict[int, NodeId]:
        return {group: self.cluster.leader(group).name for group in self.groups}

    def has(self, name: NodeId) -> list[int]:
        """The entries in its image."""
        return list(self.cluster.nodes[name].machine(GROUP).toy.live)


def test_who_has_no_room_leads_nothing_and_leads_again_when_it_has() -> None:
    scene = DiskScene(groups=12)
    before = scene.leaders()
    (full, *_others) = set(before.values())
    scene.fill(full)
    meanwhile = scene.leaders()
    assert full not in meanwhile.values()
    led = sum(leader == full for leader in before.values())
    assert scene.rooms[full].handed_over == led > 0
    assert {g: n for g, n in meanwhile.items() if before[g] != full} == {
        g: n for g, n in before.items() if n != full
    }, "the others stay where they are"
    scene.cluster.propose(GROUP, put(1, 0))
    scene.free(full)
    scene.look()
    assert scene.leaders() == before


def test_who_has_no_room_either_is_not_asked() -> None:
    scene = DiskScene()
    leader = scene.leaders()[GROUP]
    second, third = sorted({*"abc"} - {leader})
    scene.fill(second)
    scene.fill(leader)
    assert scene.leaders()[GROUP] == third
    scene.fill(third)
    assert scene.leaders()[GROUP] == third, "it is nowhere better"
    scene.free(second)
    scene.look()
    assert scene.leaders()[GROUP] == second


def test_what_has_no_place_is_dropped_and_comes_again() -> None:
    """A follower whose disk is nearly full does without; it does not stand for elections."""
    scene = DiskScene()
    full = scene.leaders()[GROUP]
    scene.fill(full, takes_entries=False)
    scene.cluster.propose(GROUP, put(1, 0), put(2, 0))
    scene.cluster.advance(5_000)
    leader = scene.leaders()[GROUP]
    assert leader != full
    term = scene.cluster.nodes[leader].host.group(GROUP).status.term
    assert len(scene.has(leader)) == 2
    assert scene.has(full) == []
    scene.cluster.advance(60_000)
    assert scene.cluster.nodes[leader].host.group(GROUP).status.term == term
    scene.free(full)
    assert scene.leaders()[GROUP] == leader, "not while it lacks anything"
    scene.cluster.advance(5_000)
    assert scene.has(full) == scene.has(leader)
    scene.look()
    assert scene.leaders()[GROUP] == full


def test_a_majority_without_room_commits_nothing_and_goes_on_later() -> None:
    scene = DiskScene()
    leader = scene.leaders()[GROUP]
    followers = {*"abc"} - {leader}
    for name in followers:
        scene.fill(name, takes_entries=False)
    outcomes = scene.cluster.propose(GROUP, put(1, 0))
    scene.cluster.advance(10_000)
    assert outcomes == []
    for name in followers:
        scene.free(name)
    scene.cluster.advance(5_000)
    assert len(outcomes) == 1
    assert all(len(scene.has(name)) == 1 for name in "abc")


def test_who_is_needed_takes_what_makes_room_and_is_notified() -> None:
    """Once there is no majority with room without it."""
    scene = DiskScene()
    leader = scene.leaders()[GROUP]
    second, third = sorted({*"abc"} - {leader})
    needed: list[NodeId] = []
    for name, room in scene.rooms.items():
        room.on_needed = partial(needed.append, name)
    scene.fill(second)
    scene.cluster.nodes[second].store.may_grow = False
    scene.look()
    scene.cluster.propose(GROUP, put(1, 0))
    assert (needed, scene.has(second)) == ([], []), "the others do without it"
    scene.fill(third)
    scene.cluster.nodes[third].store.may_grow = False
    scene.look()
    scene.cluster.advance(5_000)
    assert sorted(needed) == [second, third]
    assert all(len(scene.has(name)) == 1 for name in "abc")
    scene.cluster.propose(GROUP, put(2, 0))
    scene.cluster.advance(1_000)
    assert all(len(scene.has(name)) == 2 for name in "abc")
    scene.free(third)
    scene.look()
    scene.fill(third)
    assert needed[2:] in ([second, third], [third, second]), "once more"


def test_who_comes_is_notified() -> None:
    scene = DiskScene()
    leader = scene.leaders()[GROUP]
    second, third = sorted({*"abc"} - {leader})
    scene.fill(second)
    scene.rooms[leader].link_changed(second, is_up=False)
    assert scene.rooms[leader].may_lead(second)
    scene.rooms[second].link_changed(leader, is_up=True)
    assert not scene.rooms[leader].may_lead(second)
    assert scene.rooms[leader].may_lead(third)


NUMBERS = st.integers(-(2**63), 2**64 - 1)


@given(st.binary() | st.lists(NUMBERS | st.text() | st.none()).map(msgpack.packb))
def test_anything_else_is_no_frame(payload: bytes) -> None:
    try:
        has_room, groups = unpacked(payload)
    except BadFrame:
        return
    assert msgpack.unpackb(payload) == [int(has_room), *groups]


@pytest.mark.parametrize("row", [[], [2], [1, "7"], [True], 1])
def test_rows_that_are_none(row: object) -> None:
    with pytest.raises(BadFrame):
        unpacked(msgpack.packb(row))


def test_no_snapshot_is_written_where_there_is_room_for_votes_only() -> None:
    """Not even one that a follower needs."""
    cluster = DiskScene().cluster
    cluster.propose(GROUP, *(put(number, 10) for number in range(5)))
    cluster.advance(100)
    hurt, leader = cluster.followers(GROUP)[0], cluster.leader(GROUP)
    hurt.snapshot(GROUP)
    cluster.settle()
    hurt.kill()
    hurt.image.groups[GROUP].is_state_damaged = True
    stores = [node.store for node in cluster.running()]
    for store in stores:
        store.has_room = store.may_grow = store.takes_entries = False
    hurt.start()
    cluster.advance(5_000)
    assert cluster.led(GROUP).status.floor == 0
    assert all(node.machine(GROUP).snapshots == 0 for node in cluster.running())
    for store in stores:
        store.takes_entries = True
    cluster.advance(5_000)
    assert leader.machine(GROUP).snapshots > 0
    assert cluster.led(GROUP).status.floor > 0
    assert not hurt.host.group(GROUP).status.is_quarantined


def test_who_is_set_aside_leads_nothing_and_has_it_again_afterwards() -> None:
    scene = DiskScene(groups=12)
    before = scene.leaders()
    aside, *_others = set(before.values())
    room = scene.rooms[aside]
    room.set_aside()
    scene.cluster.settle()
    scene.look()
    assert aside not in scene.leaders().values()
    for other in scene.rooms.values():
        assert other.is_set_aside(aside)
        assert other is room or not other.may_lead(aside)
    scene.cluster.propose(GROUP, put(1, 0))
    scene.cluster.advance(5_000)
    assert scene.has(aside) == scene.has(scene.leaders()[GROUP]) != [], "it takes entries as before"
    room.take_back()
    scene.cluster.settle()
    scene.look()
    assert scene.leaders() == before
    assert not any(other.is_set_aside(aside) for other in scene.rooms.values())


def test_who_has_forgotten_it_with_a_link_is_notified_again() -> None:
    """Its end of the link was dialled anew, and the other end has noticed nothing."""
    scene = DiskScene()
    scene.rooms["a"].set_aside()
    scene.fill("b")
    for name in "ab":
        scene.rooms["c"].link_changed(name, is_up=True)
        assert scene.rooms["c"].may_lead(name)
    scene.look()
    assert not any(scene.rooms["c"].may_lead(name) for name in "ab")
    assert scene.rooms["c"].is_set_aside("a")


def test_who_is_set_aside_has_room_for_what_a_full_node_cannot_take() -> None:
    scene = DiskScene()
    aside, full, _other = sorted("abc")
    scene.rooms[aside].set_aside()
    scene.fill(full)
    assert not scene.cluster.nodes[full].host.space.is_needed


@pytest.fixture
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


async def maintained(scene: Scene, asked: str) -> set[str]:
    rows = [row async for row in scene.nodes[asked].listed("cluster.status")]
    return {row["node"] for row in rows if row["maintenance"]}


@pytest.mark.usefixtures("_calm")
async def test_others_lead_what_a_drained_node_led_until_it_is_revived(scene: Scene) -> None:
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    drained = scene.nodes["a"]
    assert await drained.ask("node.drain") == {"closed": 1}
    await until(lambda: scene.nodes["b"].cluster.room.is_set_aside("a"))
    await until(lambda: scene.leader() in ("b", "c"))
    assert await maintained(scene, "a") == await maintained(scene, "b") == {"a"}
    assert await drained.ask("node.revive") == {}
    await until(lambda: not scene.nodes["b"].cluster.room.is_set_aside("a"))
    await scene.is_led_by("a")


@pytest.mark.usefixtures("_calm")
async def test_what_a_majority_needs_is_critical(scene: Scene) -> None:
    await scene.declare("a")
    await is_led_as_wanted(scene)

    async def critical(name: str) -> list[str]:
        return [row["name"] async for row in scene.nodes[name].listed("queues.critical")]

    assert await critical("a") == []
    await scene.nodes["c"].stop()
    await until(lambda: not scene.nodes["a"].cluster.absent.is_alive("c"))
    assert await critical("a") == ["definitions", "q"]
