"""Feeding followers: what runs of the simulator found."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.raft import replication
from fluffle.raft.config import majority_of
from fluffle.raft.messages import AppendRequest, SnapshotOffer
from fluffle.raft.output import Output, Readable, ReadEntries
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import Progress, ProgressState
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host

SLOW_TO_RETRY = Tuning(retry_ms=60_000, retry_ms_max=60_000)


def peer_of(leader: Host, node: str) -> Progress:
    leading = leader.group()._state.leading
    assert leading is not None
    return leading.peers[node]


def test_a_question_that_was_lost_and_is_of_no_use_any_more_is_not_waited_for() -> None:
    """The follower owed nothing when it was time to ask again; later it does."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    a.do(partial(a.raft.link_down, "b"))
    a.do(partial(a.raft.link_up, "b"))
    cluster.advance(1_000)
    a.do(partial(a.group().read_index, 1))
    assert [what for _, node, what in cluster.network if node == "b"] != []
    cluster.network = [
        sent for sent in cluster.network if sent[1] != "b" or not isinstance(sent[2], AppendRequest)
    ]
    cluster.advance(3_000)
    cluster.propose("x")
    cluster.advance(5_000)
    assert cluster.data("b", GROUP) == ["x"]


@pytest.mark.parametrize("lost", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("links", [1, 20])
def test_what_was_lost_with_a_link_is_asked_for_over_the_next(
    lost: tuple[str, str], links: int
) -> None:
    """At once, whichever end has dialled, and however many links were lost before."""
    cluster = Cluster(tuning=SLOW_TO_RETRY)
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    cluster.cut = {lost}
    cluster.propose("x")
    for _ in range(links):
        a.do(partial(a.raft.link_up, "b"))
        cluster.settle()
    assert peer_of(a, "b").match < a.status().commit
    cluster.heal()
    a.do(partial(a.raft.scheduler.add_link_news, "b"))
    cluster.settle()
    assert peer_of(a, "b").match == a.status().commit
    assert cluster.data("b", GROUP) == ["x"]


def test_what_was_lost_with_a_link_that_was_dialled_here_is_sent_over_the_next() -> None:
    cluster = Cluster(tuning=SLOW_TO_RETRY)
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    cluster.cut = {("a", "b")}
    cluster.propose("x")
    cluster.heal()
    a.do(partial(a.raft.link_up, "b"))
    cluster.settle()
    assert peer_of(a, "b").match == a.status().commit


def test_a_snapshot_goes_on_at_once_over_a_new_link() -> None:
    cluster = Cluster(tuning=SLOW_TO_RETRY)
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    cluster["b"].crash()
    cluster.propose("x")
    cluster.settle()
    a.snapshot()
    cluster.settle()
    cluster["b"].start()
    a.do(partial(a.raft.link_down, "b"))
    cluster.link_all()
    while not cluster.drop(SnapshotOffer):
        cluster.deliver()
    assert peer_of(a, "b").flow is ProgressState.SNAPSHOT
    a.do(partial(a.raft.scheduler.add_link_news, "b"))
    cluster.settle()
    assert cluster.data("b", GROUP) == ["x"]


def test_nothing_is_sent_over_a_new_link_to_whom_nothing_is_owed() -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.propose("x")
    cluster.advance(1_000)
    output = a.do(partial(a.raft.scheduler.add_link_news, "b"))
    assert not output.messages
    assert not a.raft.scheduler.news


def test_what_was_read_is_not_sent_past_the_window() -> None:
    """Between asking the disk and its answer the window may have filled."""
    cluster = Cluster(tuning=Tuning(window_messages=1))
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    cluster.partition("ac", "b")
    cluster.propose("x", "y")
    state = a.group()._state
    assert state.leading is not None
    peer = state.leading.peers["b"]
    assert (peer.flow, peer.in_flight_messages) == (ProgressState.REPLICATE, 1)
    entries = state.log.slice(peer.next, peer.next + 1, 1_000)
    output = a.do(partial(replication.on_entries_read, state, peer, entries))
    assert "b" not in output.messages
    cluster.heal()
    cluster.advance(5_000)
    assert cluster.data("b", GROUP) == ["x", "y"]


@pytest.mark.parametrize(("missing", "sent"), [(1, [0]), (2, [0, 1])])
def test_entries_that_a_snapshot_has_deleted_meanwhile_leave_no_gap(
    missing: int, sent: list[int]
) -> None:
    """The snapshot is on disk; the leader has not heard of it yet."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    cluster.partition("ac", "b")
    state = a.group()._state
    assert state.leading is not None
    peer = state.leading.peers["b"]
    first = peer.next
    cluster.propose("x", "y", "z")
    entries = state.log.slice(first, first + 3, 1_000)
    peer.next = first
    del entries[missing]
    output = a.do(partial(replication.on_entries_read, state, peer, entries))
    found = [what for what in output.messages.get("b", []) if isinstance(what, AppendRequest)]
    assert [entry.index - first for what in found[:1] for entry in what.entries] == sent


def test_a_read_that_nobody_could_confirm_is_asked_again_when_somebody_can() -> None:
    """Followers owe nothing else, so nothing else would be sent to them."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    found: list[Readable] = []

    def see(host: Host, output: Output) -> None:
        found.extend(output.readable)

    cluster.on_output = see
    for node in "bc":
        a.do(partial(a.raft.link_down, node))
    a.do(partial(a.group().read_index, 7))
    a.do(partial(a.raft.link_up, "b"))
    cluster.advance(300)
    assert found == [Readable(GROUP, 7, a.status().commit)]
    assert a.status().role.value == "leader"


def test_nothing_is_read_for_a_follower_while_a_snapshot_may_be_taking_it_off_the_disk() -> None:
    """Missing entries would be read again in each turn until the snapshot is reported."""
    cluster = Cluster(tuning=Tuning(cached_bytes=0, window_messages=1))
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(1_000)
    cluster["b"].crash()
    cluster.propose("x", "y", "z")
    cluster.advance(100)
    state = a.group()._state
    assert state.leading is not None
    peer = state.leading.peers["b"]
    assert (peer.flow, peer.is_alive) == (ProgressState.REPLICATE, True)
    a.do(partial(a.group().compact, a.status().applied, Ranges(), b"[]"))
    peer.advance(peer.next - 1)  # as if an answer had made room in its window
    outputs = [a.do(state.touch) for _ in range(3)]
    reads = [read for output in outputs for read in output.reads]
    assert not any(isinstance(read, ReadEntries) for read in reads)
    cluster["b"].start()
    cluster.link_all()
    cluster.advance(5_000)
    assert cluster["b"].status().floor == a.status().floor > 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7))
def test_the_committed_index_is_the_greatest_that_a_majority_holds(held: list[int]) -> None:
    index = replication.committed_index(held)
    assert sum(other >= index for other in held) >= majority_of(len(held))
    assert sum(other >= index + 1 for other in held) < majority_of(len(held))
