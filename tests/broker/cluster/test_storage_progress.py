"""A disk that was put back, with the very files that it had, is known by what others know of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.codec import BadFrame, pack
from fluffle.broker.cluster.data_directory import accept_moved
from fluffle.broker.cluster.links.identity import Boots
from fluffle.broker.cluster.storage_progress import (
    ROWS_KEPT,
    Beginnings,
    DiskPutBack,
    DurableCommit,
    StorageProgress,
)
from fluffle.broker.node import NodeFailed
from tests.broker.cluster.queues.test_membership import drained
from tests.broker.cluster.queues.test_quorum_queues import Scene, publish
from tests.broker.cluster.test_data_directory import copied, put_back
from tests.broker.cluster.test_membership import let_in, only_by_hand
from tests.support.cluster_nodes import ClusterNode, make_cluster, running_cluster, until

pytestmark = pytest.mark.usefixtures("hasty")


class Disk:
    """The disk of a node that has come so far."""

    def __init__(self, commit_number: int) -> None:
        self.commit_number = commit_number


class Memory:
    """The memory of other disks, in a dictionary."""

    def __init__(self) -> None:
        self.by_node: dict[str, list[DurableCommit]] = {}
        self.beginnings: dict[str, Beginnings] = {}

    @property
    def known(self) -> Iterator[str]:
        return iter(self.by_node)

    def reached(self, node: str) -> Sequence[DurableCommit]:
        return self.by_node.get(node, ())

    def began(self, node: str) -> Beginnings:
        return self.beginnings.get(node, Beginnings())

    def has_reached(
        self, node: str, rows: Sequence[DurableCommit], began: Beginnings | None = None
    ) -> None:
        self.by_node[node] = [*rows]
        self.beginnings[node] = began or self.began(node)


class End:
    """A node: what it sends, and whether it has ended."""

    def __init__(self, name: str, lives: Boots, commit: int, incarnation: int = 1) -> None:
        self.name = name
        self.sent: list[tuple[str, bytes]] = []
        self.ended: list[DiskPutBack] = []
        self.memory, self.disk = Memory(), Disk(commit)
        self.progress = StorageProgress(
            name,
            lives,
            self.disk,
            self.memory,
            incarnation=lambda: incarnation,
            send=lambda node, payload: self.sent.append((node, payload)),
            on_put_back=self.ended.append,
        )

    def met_by(self, other: End) -> None:
        """Over a new link each sends all that it knows."""
        other.sent.clear()
        other.progress.link_changed(self.name, True)
        self.hear(other)

    def hear(self, other: End) -> None:
        """Take the frames that the other has sent since."""
        for node, payload in other.sent:
            if node == self.name:
                self.progress.receive(other.name, payload)
        other.sent = [(node, payload) for node, payload in other.sent if node != self.name]


def lives(*began: int) -> Boots:
    life = Boots(0, ())
    for count, number in enumerate(began, start=1):
        life = life.followed_by(count.to_bytes(16), began=number)
    return life


def test_who_has_less_than_another_knows_of_ends() -> None:
    b = End("b", lives(0), 70)
    b.met_by(End("a", lives(0, 10), 50))
    assert b.memory.by_node == {"a": [DurableCommit(1, 2, 50)]}
    for began in (50, 51):
        again = End("a", lives(0, 10, began), 90)
        again.met_by(b)
        assert again.ended == []
    less = End("a", lives(0, 10, 49), 90)
    less.met_by(b)
    (said,) = less.ended
    assert "'b' knows of its commit 50, made in start 2, and start 3 began with commit 49" in str(
        said
    )
    assert "fluffle data restored" in str(said)


def test_it_is_found_out_in_any_later_life() -> None:
    b = End("b", lives(0), 70)
    b.met_by(End("a", lives(0), 50))
    later = End("a", lives(0, 40, 60, 80), 90)
    later.met_by(b)
    assert later.ended


def test_a_life_that_the_disk_lacks_is_found_out_by_who_has_only_heard_of_it() -> None:
    """At its first word to a node that has heard of that life, and never met it."""
    c = End("c", lives(0), 8)
    c.memory.has_reached("a", [DurableCommit(1, 3, 50)])
    for began in ((0,), (0, 10), (0, 10, 20)):
        older = End("a", lives(*began), 49)
        older.met_by(c)
        assert older.ended
    c.memory.has_reached("a", [DurableCommit(1, 3, 51)])
    for commit in (51, 52):
        same = End("a", lives(0, 10, 50), commit)
        same.met_by(c)
        assert same.ended == []


def test_what_is_known_is_passed_on() -> None:
    """So that it is found out by who has never heard of it from the node itself."""
    b, c = End("b", lives(0), 70), End("c", lives(0), 8)
    c.met_by(b)
    b.met_by(End("a", lives(0), 50))
    b.progress.look()
    c.hear(b)
    less = End("a", lives(0, 49), 49)
    less.met_by(c)
    assert less.ended


def test_who_was_let_in_anew_has_nothing_of_before() -> None:
    b = End("b", lives(0), 70)
    b.met_by(End("a", lives(0, 10), 50))
    fresh = End("a", lives(0, 1, 2, 3), 5, incarnation=2)
    fresh.met_by(b)
    assert fresh.ended == []
    b.met_by(fresh)
    assert b.memory.reached("a") == [DurableCommit(2, 4, 5)]
    late = End("c", lives(0), 9)
    late.memory.has_reached("a", [DurableCommit(1, 2, 50)])
    b.met_by(late)
    assert b.memory.reached("a") == [DurableCommit(2, 4, 5)]
    nobody_yet = End("a", lives(0), 1, incarnation=0)
    nobody_yet.met_by(b)
    assert nobody_yet.ended == []
    b.met_by(nobody_yet)
    assert b.memory.reached("a") == [DurableCommit(2, 4, 5)]


def test_who_begins_as_a_member_has_all_that_was_known_of_that_one() -> None:
    """The node hears of it before it knows which member it is."""
    b = End("b", lives(0), 70)
    b.met_by(End("a", lives(0), 50, incarnation=2))
    for incarnation, began, is_let_in in ((3, 49, True), (2, 50, True), (2, 49, False)):
        again = End("a", lives(0, began), began + 1, incarnation=0)
        again.met_by(b)
        assert again.ended == []
        assert again.progress.may_begin_as(incarnation) is is_let_in
        assert bool(again.ended) is not is_let_in


def test_what_is_known_already_is_not_reported_again() -> None:
    a, b = End("a", lives(0), 50), End("b", lives(0), 70)
    b.met_by(a)
    a.progress.look()
    assert a.sent == []
    a.disk.commit_number = 51
    a.progress.look()
    assert len(a.sent) == 1
    a.progress.link_changed("b", False)
    a.disk.commit_number = 52
    a.sent.clear()
    a.progress.look()
    assert a.sent == []


def test_who_lets_in_less_than_was_known_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    b = End("b", lives(0), 70)
    b.met_by(End("a", lives(0), 50))
    b.met_by(End("a", lives(0, 20), 21))
    (record,) = caplog.records
    said = getattr(record, FIELDS_ATTRIBUTE)
    assert record.getMessage() == "disk_rolled_back"
    assert (said["node"], said["known"], said["found"]) == ("a", 50, 20)
    assert b.memory.reached("a") == [DurableCommit(1, 1, 50), DurableCommit(1, 2, 21)]


def test_who_was_put_back_and_has_gone_far_since_is_found_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The node speaks first, and has made more commits than it had before."""
    caplog.set_level(logging.WARNING)
    b, c = End("b", lives(0), 70), End("c", lives(0), 8)
    b.met_by(End("a", lives(0), 50))
    for later in ((0, 49), (0, 49, 55), (0, 49, 55, 60)):
        again = End("a", lives(*later), 90)
        b.met_by(again)
        again.disk.commit_number = 91
        again.progress.look()
        b.hear(again)
        if len(later) == 2:
            c.met_by(again)  # which knows nothing of before
        b.met_by(c)
        assert b.memory.reached("a")[0] == DurableCommit(1, 1, 50)
        again.met_by(b)
        assert again.ended
    said = [getattr(record, FIELDS_ATTRIBUTE) for record in caplog.records]
    assert [(each["known"], each["found"]) for each in said] == [(50, 49)] * 3
    anew = End("a", lives(0), 3, incarnation=2)
    b.met_by(anew)
    assert b.memory.reached("a") == [DurableCommit(2, 1, 3)]


def test_who_never_knew_a_life_does_not_hide_that_it_is_gone() -> None:
    """News of the later boot from a third node is kept beside the earlier one."""
    b, c = End("b", lives(0), 70), End("c", lives(0), 8)
    b.met_by(End("a", lives(0), 50))
    again = End("a", lives(0, 47), 60)
    c.met_by(again)
    b.met_by(c)
    assert b.memory.reached("a") == [DurableCommit(1, 1, 50), DurableCommit(1, 2, 60)]
    started_anew = End("b", lives(0, 70), 80)
    started_anew.memory = b.memory
    started_anew.progress.memory = b.memory
    again.met_by(started_anew)
    assert again.ended
    passed_on = End("a", lives(0, 47), 60)
    c.met_by(started_anew)
    passed_on.met_by(c)
    assert passed_on.ended, "c knows by now"


def test_of_lives_that_a_node_has_all_of_the_last_is_remembered() -> None:
    """Should it be put back to before its last start, others hear of it that do not know that."""
    b, c = End("b", lives(0), 70), End("c", lives(0), 8)
    for count in range(1, 20):
        b.met_by(End("a", lives(*range(0, count * 10, 10)), count * 10))
        assert len(b.memory.reached("a")) <= 2
    assert b.memory.reached("a") == [DurableCommit(1, 18, 180), DurableCommit(1, 19, 190)]
    older = End("a", lives(*range(0, 180, 10), 179), 500)
    c.met_by(older)
    b.met_by(c)
    c.met_by(b)
    older.met_by(c)
    assert older.ended


def test_no_more_lives_are_remembered_than_are_needed() -> None:
    """News of many later boots does not hide the one that the node lacks."""
    b, c = End("b", lives(0), 70), End("c", lives(0), 8)
    b.met_by(End("a", lives(0), 50))
    for count in range(100):
        again = End("a", lives(0, 45, *range(60, 60 + count)), 60 + count)
        c.met_by(again)
        b.met_by(c)
        assert len(b.memory.reached("a")) <= 1 + ROWS_KEPT
        assert len(c.memory.reached("a")) <= 1 + ROWS_KEPT
    assert b.memory.reached("a")[0] == DurableCommit(1, 1, 50)
    assert b.memory.reached("a")[-1] == DurableCommit(1, 101, 159)
    last = End("a", lives(0, 45, *range(60, 159)), 159)
    last.met_by(b)
    assert last.ended


def test_beginnings_before_a_gap_are_not_remembered() -> None:
    """Earlier ones were left out when they were sent."""
    began = Beginnings(1, 5, (10, 20)).with_other(Beginnings(1, 8, (40, 50)))
    assert began == Beginnings(1, 8, (40, 50))
    assert began.with_other(Beginnings(1, 6, (20, 30))) == Beginnings(1, 8, (20, 30, 40, 50))
    assert began.with_other(Beginnings(1, 7, (39,))) == Beginnings(1, 8, (39, 50)), "the least"
    assert began.with_other(Beginnings(2, 1, (3,))) == Beginnings(2, 1, (3,))
    assert Beginnings(2, 1, (3,)).with_other(began) == Beginnings(2, 1, (3,))


def test_what_began_too_long_ago_is_not_spoken_of() -> None:
    b = End("b", lives(0), 70)
    b.met_by(End("a", lives(*range(100)), 100))
    assert b.memory.reached("a") == [DurableCommit(1, 100, 100)]
    b.met_by(End("a", Boots(101, (b"",)), 101))
    assert b.memory.reached("a")[-1] == DurableCommit(1, 101, 101), "it does not know when it began"


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        pack(1),
        pack("a"),
        pack(("a", 1, 2)),
        pack(("a", 1, 2, "3")),
        b"\x05",
        pack(("a", 1, 2, ["3"])),
        pack(("a", 1, [2], [3])),
        pack(("a", 1, 2, 3, 4)),
    ],
)
def test_what_is_no_frame_of_ours_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        End("b", lives(0), 70).progress.receive("a", payload)


def names_of_put_back(caplog: pytest.LogCaptureFixture) -> set[str]:
    """The nodes that others have said to be put back."""
    said = [each for each in caplog.records if each.getMessage() == "disk_rolled_back"]
    return {getattr(each, FIELDS_ATTRIBUTE)["node"] for each in said}


def knows(node: ClusterNode, other: ClusterNode) -> bool:
    """True if a node knows all that the disk of another has made durable."""
    memory, disk = node.cluster.progress.memory, other.cluster.progress.disk
    return any(row.commit >= disk.commit_number for row in memory.reached(other.name))


@pytest.mark.parametrize("who_knows", ["b", "b, started anew", "c, by way of b"])
async def test_a_disk_that_was_put_back_within_a_life_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, who_knows: str
) -> None:
    """Its files are those that it had: nothing but the memory of the others tells."""
    caplog.set_level(logging.WARNING)
    async with running_cluster(tmp_path) as nodes, AsyncExitStack() as stack:
        a, b, c = nodes
        scene = Scene(nodes, stack)
        await scene.declare("a")
        await nodes.agree()
        copied(a, tmp_path / "copy")
        if who_knows == "b":
            await c.kill()
        bodies = [b"%d" % number for number in range(200)]
        await publish(await scene.channel("a"), *bodies)
        await until(lambda: all(knows(node, a) for node in nodes.running[1:]))
        await a.kill()
        if who_knows != "b":
            await b.stop()
        if who_knows == "b, started anew":
            await c.stop()
            b.begin()
        put_back(tmp_path / "copy", a)
        accept_moved(a.config.data_dir)
        with pytest.raises(NodeFailed, match="this node was put back to an earlier state"):
            await a.start()
        a.forget_process()
        for node in (b, c):
            if not node.is_running:
                node.begin()
        for node in (b, c):
            await node.started()
        assert await drained(scene, "b", len(bodies)) == bodies
        # That which hears of it first may end before it has said a word.
        assert names_of_put_back(caplog) <= {"a"}, "the others say which one it is"


@pytest.mark.parametrize("name", ["c", "d"])
async def test_a_disk_that_was_put_back_to_before_its_node_was_a_member_ends(
    tmp_path: Path, name: str
) -> None:
    """The disk remembers the boot in which the node founded or joined the cluster, but has nothing
    of it: as a member it would vote again, and lack what it has acknowledged."""
    nodes = await make_cluster(tmp_path)
    try:
        fourth = nodes.grow("d")
        only_by_hand(nodes)
        restored = nodes[name]
        restored.begin()
        await until(lambda: "cluster" in restored.node.addresses)
        copied(restored, tmp_path / "copy")
        for node in nodes.nodes.values():
            if node not in (restored, fourth):
                node.begin()
        await asyncio.gather(*(nodes[each].started() for each in "abc"))
        if restored is fourth:
            await let_in(nodes, "d", by="b")
            await fourth.started()
        await nodes.agree()
        others = [node for node in nodes.running if node is not restored]
        await until(lambda: all(knows(node, restored) for node in others))
        await restored.kill()
        put_back(tmp_path / "copy", restored)
        accept_moved(restored.config.data_dir)
        with pytest.raises(NodeFailed, match="this node was put back to an earlier state"):
            await restored.start()
        restored.forget_process()
    finally:
        await nodes.stop()


async def test_a_node_that_was_killed_has_what_the_others_know(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as nodes, AsyncExitStack() as stack:
        scene = Scene(nodes, stack)
        await scene.declare("a")
        for number in range(3):
            await publish(await scene.channel("b"), *[b"%d" % number] * 50)
            await nodes["a"].kill()
            await nodes["a"].start()
            await nodes.meet()
