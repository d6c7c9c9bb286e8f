"""Feeding followers: what runs of the simulator found."""

from functools import partial

import pytest

from fluffle.raft import replicating
from fluffle.raft.messages import AppendRequest
from fluffle.raft.output import Output, Readable, ReadEntries
from fluffle.raft.progress import Flow
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster, Host


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
    assert (peer.flow, peer.in_flight_messages) == (Flow.REPLICATE, 1)
    entries = state.log.slice(peer.next, peer.next + 1, 1_000)
    output = a.do(partial(replicating.on_entries_read, state, peer, entries))
    assert "b" not in output.messages
    cluster.heal()
    cluster.advance(5_000)
    assert cluster.data("b", GROUP) == ["x", "y"]


@pytest.mark.parametrize(("missing", "sent"), [(1, [0]), (2, [0, 1])])
def test_entries_that_a_snapshot_has_deleted_meanwhile_leave_no_gap(
    missing: int, sent: list[int]
) -> None:
    """The snapshot is on disk; the leader has not been told of it yet."""
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
    output = a.do(partial(replicating.on_entries_read, state, peer, entries))
    found = [what for what in output.messages.get("b", []) if isinstance(what, AppendRequest)]
    assert [entry.index - first for what in found[:1] for entry in what.entries] == sent


def test_a_read_that_nobody_could_confirm_is_asked_again_when_somebody_can() -> None:
    """They owe nothing else, so nothing else would be sent to them."""
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
    """It would be found missing, and read again, each turn until the snapshot is told of."""
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
    assert (peer.flow, peer.is_alive) == (Flow.REPLICATE, True)
    a.do(partial(a.group().compact, a.status().applied, Ranges(), b"[]"))
    peer.advance(peer.next - 1)  # as if an answer had made room in its window
    outputs = [a.do(state.touch) for _ in range(3)]
    reads = [read for output in outputs for read in output.reads]
    assert not any(isinstance(read, ReadEntries) for read in reads)
    cluster["b"].start()
    cluster.link_all()
    cluster.advance(5_000)
    assert cluster["b"].status().floor == a.status().floor > 0
