"""Snapshots on their way: what has arrived is never sent again."""

from collections.abc import Callable

import pytest

from fluffle.raft.messages import SnapshotChunk, SnapshotOffer, SnapshotProgress
from fluffle.raft.output import Output, ReadEntries, ReadState
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host

TUNING = Tuning(snapshot_chunk_bytes=40, snapshot_window=2)
COUNT = 20


def behind(tuning: Tuning = TUNING) -> tuple[Cluster, Host]:
    """a leads, b has everything, c is down and needs a snapshot."""
    cluster = Cluster(tuning=tuning)
    cluster.create()
    cluster.elect("a")
    cluster["c"].crash()
    for host in cluster.up:
        host.do(lambda host=host: host.raft.link_down("c"))  # type: ignore[misc]
    cluster.propose(*(f"{at:020}" for at in range(COUNT)))
    cluster.advance(500)
    for name in "ab":
        cluster[name].snapshot()
    cluster.settle()
    return cluster, cluster["c"]


def bring_back(cluster: Cluster, host: Host) -> None:
    host.start()
    for other in cluster.up:
        if other is not host:
            other.do(lambda other=other: other.raft.link_up(host.name))  # type: ignore[misc]
            host.do(lambda other=other: host.raft.link_up(other.name))  # type: ignore[misc]


def run_until(cluster: Cluster, is_there: Callable[[], bool]) -> None:
    for _ in range(5_000):
        if is_there():
            return
        if cluster.network:
            cluster.deliver()
        elif not any(host.sync() for host in cluster.up):
            cluster.now_ms += 10
            for host in cluster.up:
                host.do()
    raise AssertionError("it never came to that")


def sent_entries(cluster: Cluster) -> list[int]:
    """Indexes of live entries that go to c from here on; appended to."""
    found: list[int] = []

    def see(host: Host, output: Output) -> None:
        for message in output.messages.get("c", []):
            if isinstance(message, SnapshotChunk):
                found.extend(entry.index for entry in message.entries)

    cluster.on_output = see
    return found


def staged(host: Host) -> list[int]:
    pieces = host.disk.groups[GROUP].staged
    return [entry.index for piece in pieces for entry in piece.entries]


def test_a_snapshot_brings_everything() -> None:
    cluster, c = behind()
    found = sent_entries(cluster)
    bring_back(cluster, c)
    cluster.advance(1_000)
    assert cluster.data("c") == cluster.data("a")
    assert found == list(range(2, COUNT + 2))
    assert sorted(c.disk.groups[GROUP].entries) == list(range(2, COUNT + 2))
    assert c.disk.groups[GROUP].staged == []


def test_it_goes_on_where_it_was_after_a_restart_of_the_follower() -> None:
    cluster, c = behind()
    bring_back(cluster, c)
    run_until(cluster, lambda: len(staged(c)) >= 8)
    has = staged(c)
    c.crash()
    cluster.network.clear()
    for host in cluster.up:
        host.do(lambda host=host: host.raft.link_down("c"))  # type: ignore[misc]
    found = sent_entries(cluster)
    bring_back(cluster, c)
    cluster.advance(2_000)
    assert cluster.data("c") == cluster.data("a")
    assert set(found).isdisjoint(has)


def test_it_goes_on_with_another_leader() -> None:
    cluster, c = behind()
    bring_back(cluster, c)
    run_until(cluster, lambda: len(staged(c)) >= 8)
    has = staged(c)
    cluster["a"].crash()
    found = sent_entries(cluster)
    for host in cluster.up:
        host.do(lambda host=host: host.raft.link_down("a"))  # type: ignore[misc]
    cluster.advance(3_000)
    assert cluster.led().name == "b"
    assert cluster.data("c") == cluster.data("b")
    assert set(found).isdisjoint(has)


def test_what_has_arrived_is_of_use_for_a_newer_snapshot() -> None:
    cluster, c = behind()
    bring_back(cluster, c)
    run_until(cluster, lambda: len(staged(c)) >= 8)
    has = staged(c)
    found = sent_entries(cluster)
    a = cluster["a"]
    a.do(lambda: a.group().propose(b"more"))
    run_until(cluster, lambda: a.status().applied == COUNT + 2)
    if c.status().floor == 0:
        a.snapshot(dead=[3])
    cluster.advance(2_000)
    assert cluster.data("c") == cluster.data("a")
    assert set(found).isdisjoint(has[:-4]), "only what was on its way may go twice"


def test_what_was_read_while_a_newer_snapshot_took_its_place_is_not_sent() -> None:
    """The disk may have the newer one before we hear of it, and then it is that which was read."""
    cluster, c = behind(Tuning(snapshot_hold_ms=0))
    a = cluster["a"]
    late: list[ReadState] = []

    def see(host: Host, output: Output) -> None:
        if host is a:
            late.extend(read for read in output.reads if isinstance(read, ReadState))
            output.reads = [read for read in output.reads if isinstance(read, ReadEntries)]

    cluster.on_output = see
    bring_back(cluster, c)
    run_until(cluster, lambda: bool(late))
    a.do(lambda: a.group().propose(b"more"))
    run_until(cluster, lambda: a.status().applied == COUNT + 2)
    a.snapshot()
    data = a.disk.groups[GROUP].state[: late[0].size]
    output = a.do(lambda: a.group().state_read(late[0].number, data))
    assert not any(isinstance(m, SnapshotChunk) for m in output.messages.get("c", []))
    while a.sync():
        pass
    cluster.on_output = lambda host, output: None
    cluster.advance(2_000)
    assert cluster.data("c") == cluster.data("a")


@pytest.mark.parametrize("dies", [False, True])
def test_entries_that_come_while_it_is_being_installed_stay(*, dies: bool) -> None:
    """From another leader, which asks where it is; or they die with it."""
    cluster, c = behind()
    bring_back(cluster, c)
    run_until(cluster, lambda: any(w.install for p in c.disk.submitted for w in p.writes))
    a, b = cluster["a"], cluster["b"]
    a.do(lambda: a.group().transfer("b"))
    for step in range(200):
        if step == 100:
            b.do(lambda: b.group().propose(b"one"))
        if cluster.network:
            cluster.deliver()
        else:
            a.sync()
            b.sync()
    assert c.status().last == COUNT + 2, "the first entry of b"
    assert (c.status().durable, c.disk.groups[GROUP].floor) == (0, 0)
    if dies:
        c.crash()
        bring_back(cluster, c)
    cluster.advance(3_000)
    assert cluster.data("c") == cluster.data("a")
    assert cluster.data("c")[-1] == "one"
    assert c.disk.groups[GROUP].last == COUNT + 3


def test_chunks_are_few_at_a_time() -> None:
    cluster, c = behind()
    bring_back(cluster, c)
    most = 0
    for _ in range(300):
        under_way = sum(isinstance(message, SnapshotChunk) for *_, message in cluster.network)
        most = max(most, under_way)
        if cluster.network:
            cluster.deliver()
        elif not any(host.sync() for host in cluster.up):
            break
    assert most == TUNING.snapshot_window


def test_lost_chunks_are_sent_again() -> None:
    cluster, c = behind()
    bring_back(cluster, c)
    lost = 0
    for _ in range(3_000):
        if lost < 5 and cluster.drop(SnapshotChunk):
            lost += 1
        if cluster.network:
            cluster.deliver()
        elif not any(host.sync() for host in cluster.up):
            cluster.now_ms += 20
            for host in cluster.up:
                host.do()
        if cluster.data("c") == cluster.data("a"):
            break
    assert lost == 5
    assert cluster.data("c") == cluster.data("a")


def test_an_answer_that_is_ahead_of_what_was_sent_moves_the_sender_on() -> None:
    """After a new offer an old answer may come before the one to it: then it began too early."""
    cluster, c = behind()
    bring_back(cluster, c)
    run_until(cluster, lambda: len(staged(c)) >= 8)
    cluster.network.clear()
    a = cluster["a"]
    a.do(lambda: a.raft.link_down("c"))
    a.do(lambda: a.raft.link_up("c"))
    run_until(cluster, lambda: any(isinstance(m, SnapshotOffer) for *_, m in cluster.network))
    _, _, offer = next(sent for sent in cluster.network if isinstance(sent[2], SnapshotOffer))
    assert isinstance(offer, SnapshotOffer)
    old = SnapshotProgress(
        GROUP, offer.term, 1, 1, offer.index, offer.index_term, offer.state_crc, 3, 0, offer.round
    )  # fmt: skip
    chunks: list[SnapshotChunk] = []

    def see(host: Host, output: Output) -> None:
        chunks.extend(m for m in output.messages.get("c", []) if isinstance(m, SnapshotChunk))

    cluster.on_output = see
    a.do(lambda: a.raft.receive("c", [old]))
    cluster.advance(2_000)
    assert cluster.data("c") == cluster.data("a")
    for chunk in chunks:
        indexes = [entry.index for entry in chunk.entries]
        assert all(chunk.entries_from <= index <= chunk.entries_through for index in indexes)
