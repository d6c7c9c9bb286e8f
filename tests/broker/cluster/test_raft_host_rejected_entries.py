"""Entries that an image rejects: damage is repaired, and other faults end only their group."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.raft.log import Entry, SnapshotMeta
from fluffle.raft.output import Role
from tests.simulation.toy import put
from tests.support.raft_hosts import HostCluster, ToyMachine

GROUP = 7

POISON = b"Poison"


class Picky(ToyMachine):
    """Does not take some entry."""

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.payload == POISON:
                raise ValueError(f"entry {entry.index} is poison")
        super().apply(entries)


def poisoned(names: str) -> HostCluster:
    """Some nodes do not take what is committed."""
    cluster = HostCluster()
    for name in names:
        cluster.nodes[name].reported.make = Picky
    cluster.create(GROUP)
    group = cluster.led(GROUP)
    for payload in (put(1, 0), POISON):
        group.propose(payload, lambda outcome: None)
    cluster.advance(20_000)
    return cluster


def test_what_does_not_fit_is_received_again_once_and_said_once() -> None:
    probe = HostCluster()
    probe.create(GROUP)
    leader = probe.leader(GROUP).name
    follower = next(name for name in "abc" if name != leader)
    cluster = poisoned(follower)
    node = cluster.nodes[follower]
    assert node.reported.wrongs == ["entry 3 is poison"]
    assert node.reported.misfits == [(GROUP, "entry 3 is poison")]
    assert node.turns < 2_000
    status = node.host.group(GROUP).status
    assert not status.is_quarantined, "its log is as good as any"
    assert status.role is not Role.LEADER
    assert list(cluster.leader(GROUP).machine(GROUP).toy.live) == [2, 3]


def test_who_cannot_apply_what_is_committed_does_not_lead() -> None:
    """Though nobody else can be asked: it could not serve anybody."""
    cluster = poisoned("ab")
    assert cluster.leader(GROUP).name == "c"
    cluster.nodes["c"].kill()
    cluster.advance(20_000)
    for name in "ab":
        node = cluster.nodes[name]
        assert node.machine(GROUP).leads is None
        assert len(node.reported.misfits) == 1
        assert node.turns < 5_000
    assert all(node.host.group(GROUP).status.role is not Role.LEADER for node in cluster.running())


def test_an_entry_that_nobody_can_apply_ends_nothing_but_its_group() -> None:
    cluster = poisoned("abc")
    for node in cluster.running():
        assert node.reported.misfits in ([], [(GROUP, "entry 3 is poison")])
        assert len(node.reported.wrongs) == 1
        assert node.turns < 5_000
        assert node.fatal == []


def test_a_snapshot_that_is_further_on_brings_an_image_back() -> None:
    cluster = poisoned("a")
    node = cluster.nodes["a"]
    assert node.reported.misfits
    assert cluster.leader(GROUP) is not node
    for name in "bc":
        cluster.network.cut("a", name)
    cluster.propose(GROUP, put(3, 0))
    for name in "bc":
        cluster.nodes[name].snapshot(GROUP)
    cluster.advance(1_000)
    for name in "bc":
        cluster.network.connect("a", name)
    cluster.advance(5_000)
    digests = {each.machine(GROUP).toy.digest for each in cluster.running()}
    assert len(digests) == 1


def test_an_image_that_cannot_begin_waits_for_a_snapshot() -> None:
    """Nothing is at index 0 that could be damaged, and no peer is asked for it."""

    class Late(ToyMachine):
        def restore(self, meta: SnapshotMeta, state: bytes) -> None:
            if not meta.index:
                raise ValueError("not with nothing")
            super().restore(meta, state)

    cluster = HostCluster()
    node = cluster.nodes["c"]
    node.reported.make = Late
    cluster.create(GROUP)
    assert (node.reported.damages, node.reported.misfits) == ([], [(GROUP, "not with nothing")])
    cluster.propose(GROUP, put(1, 0), put(2, 0))
    node.kill()
    for each in cluster.running():
        each.snapshot(GROUP)
    cluster.advance(100)
    node.image.groups[GROUP].damaged.add(1)
    node.start()
    node.reported.make = Late
    cluster.advance(5_000)
    assert all(not each.reported.refusals for each in cluster.nodes.values())
    assert list(node.machine(GROUP).toy.live) == [2, 3]
