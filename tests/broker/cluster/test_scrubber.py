"""Damage at rest: found by reading, at a bounded rate, and mended from other members."""

from itertools import pairwise

from fluffle.broker.cluster.host_limits import HostLimits, ScrubLimits
from fluffle.broker.cluster.scrubber import first_hole
from fluffle.raft.records import DATA, Entry
from tests.simulation.toy import put, settle
from tests.support.raft_hosts import HostCluster

GROUP = 7
SCRUB = ScrubLimits(piece_bytes=500, pause_ms=50, rest_ms=4_000)


def backlog(scrub: ScrubLimits = SCRUB) -> HostCluster:
    """Three nodes with twenty live entries, every third of the log dead, below their floors."""
    cluster = HostCluster(settings=HostLimits(scrub=scrub))
    cluster.create(GROUP)
    cluster.propose(GROUP, *(put(number, 80) for number in range(30)))
    cluster.propose(GROUP, settle(range(2, 32, 3)))
    cluster.advance(100)
    for node in cluster.running():
        node.snapshot(GROUP)
    cluster.settle()
    assert cluster.led(GROUP).status.floor == 32
    return cluster


def test_a_damaged_entry_is_found_and_mended() -> None:
    cluster = backlog()
    hurt = cluster.followers(GROUP)[0]
    hurt.image.groups[GROUP].damaged.add(18)
    cluster.advance(5_000)
    assert hurt.told.damages == [(GROUP, 18)]
    assert hurt.image.groups[GROUP].damaged == set()
    assert not hurt.host.group(GROUP).status.is_quarantined


def test_a_missing_entry_is_found() -> None:
    cluster = backlog()
    hurt = cluster.followers(GROUP)[0]
    del hurt.image.groups[GROUP].entries[18]
    cluster.advance(5_000)
    assert hurt.told.damages == [(GROUP, 18)]
    assert 18 in hurt.image.groups[GROUP].entries


def test_a_damaged_state_is_found_and_mended() -> None:
    cluster = backlog()
    hurt = cluster.followers(GROUP)[0]
    hurt.image.groups[GROUP].is_state_damaged = True
    cluster.advance(5_000)
    assert hurt.told.damages == [(GROUP, 32)]
    assert not hurt.image.groups[GROUP].is_state_damaged


def test_nothing_is_found_where_nothing_is_wrong_though_snapshots_come_and_go() -> None:
    cluster = backlog(ScrubLimits(piece_bytes=100, pause_ms=10, rest_ms=10))
    for number in range(100):
        cluster.propose(GROUP, put(1_000 + number, 80), settle(range(3, 10 + number)))
        for node in cluster.running():
            node.snapshot(GROUP)
        cluster.advance(30)
    assert [node.told.damages for node in cluster.running()] == [[], [], []]
    assert sum(node.store.happened.count("read") for node in cluster.running()) > 300


def test_a_backlog_is_read_to_its_end_though_snapshots_come_more_often() -> None:
    cluster = backlog(ScrubLimits(piece_bytes=500, pause_ms=50, rest_ms=50))
    hurt = cluster.followers(GROUP)[0]
    hurt.image.groups[GROUP].damaged.add(30)
    for number in range(40):
        cluster.propose(GROUP, put(1_000 + number, 80))
        for node in cluster.running():
            node.snapshot(GROUP)
        cluster.advance(60)
    assert hurt.told.damages == [(GROUP, 30)]


def test_it_reads_in_pieces_with_pauses_and_rests_after_a_round() -> None:
    cluster = backlog()
    node = cluster.nodes["a"]
    node.store.happened.clear()
    read_at: list[int] = []
    for _ in range(1_500):
        cluster.advance(10)
        reads = node.store.happened.count("read")
        assert reads - len(read_at) <= 1
        if reads > len(read_at):
            read_at.append(cluster.now_ms)
    pauses = [after - before for before, after in pairwise(read_at)]
    assert len(read_at) > 2 * 20 * 80 // SCRUB.piece_bytes
    assert min(pauses) >= SCRUB.pause_ms
    assert sum(pause >= SCRUB.rest_ms for pause in pauses) in (2, 3)


def test_holes() -> None:
    entries = [Entry(index, 1, DATA, b"") for index in (4, 5, 7)]
    assert first_hole(entries, 4) == 6
    assert first_hole(entries, 3) == 3
    assert first_hole(entries[:2], 4) is None
    assert first_hole([], 4) == 4
