"""Tests of a group as its users see it: limits, pages and snapshots."""

from functools import partial

import pytest

from fluffle.raft.leader import ProposalRefused, RefusalReason
from fluffle.raft.messages import PreVoteResponse, VoteResponse
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster
from tests.raft.single import Single, entry


def test_what_waits_for_its_commit_is_bounded() -> None:
    node = Single(tuning=Tuning(uncommitted_bytes_max=1_000))
    node.lead()
    node.accept("b", 1)
    node.group.propose(bytes(5_000))  # one always may be
    with pytest.raises(ProposalRefused) as refused:
        node.group.propose(b"x")
    assert refused.value.reason is RefusalReason.BEHIND
    node.turn()
    node.sync()
    node.accept("b", 2)
    node.group.propose(bytes(100))
    assert node.state.leading is not None
    node.turn()
    node.sync()
    node.accept("b", 3)
    assert node.state.leading.uncommitted_bytes == 0


def test_what_earlier_leaders_left_without_commit_counts_too() -> None:
    """Entries of earlier leaders are in memory like the rest: else each of many leaders in a row
    could fill the limit."""
    node = Single(tuning=Tuning(uncommitted_bytes_max=1_000))
    node.follow("b", 1, entry(1, 1, bytes(500)), entry(2, 1, bytes(500)))
    node.sync()
    node.raft.link_down("b")
    node.turn()
    node.group.campaign()
    node.turn()
    node.receive("c", PreVoteResponse(GROUP, 2, 1, 1, True))
    node.sync()
    node.receive("c", VoteResponse(GROUP, 2, 1, 1, True))
    node.sync()
    with pytest.raises(ProposalRefused) as refused:
        node.group.propose(b"x")
    assert refused.value.reason is RefusalReason.BEHIND
    node.accept("c", 3)
    assert node.state.leading is not None
    assert node.state.leading.uncommitted_bytes == 0
    node.group.propose(b"x")


def test_only_a_leader_takes_proposals_and_a_follower_knows_who() -> None:
    node = Single()
    node.follow("b", 1)
    with pytest.raises(ProposalRefused) as refused:
        node.group.propose(b"x")
    assert (refused.value.reason, refused.value.leader) == (RefusalReason.NOT_LEADER, "b")


def test_a_proposal_tells_where_it_will_be() -> None:
    node = Single()
    node.lead()
    position = node.group.propose(b"x")
    assert (position.term, position.index) == (node.status.term, 2)


def test_entries_are_applied_in_pages() -> None:
    cluster = Cluster(tuning=Tuning(apply_bytes_max=200))
    cluster.create()
    cluster.elect("a")
    pages: list[int] = []
    cluster.on_output = lambda host, output: pages.extend(
        len(apply.entries) for apply in output.applies if host.name == "b"
    )
    cluster.partition("b", "ac")
    cluster.propose(*("x" * 50 for _ in range(20)))
    cluster.settle()
    cluster.heal()
    cluster.advance(2_000)
    assert len(cluster.data("b")) == 20
    assert max(pages) == 1
    assert len(pages) == 20


def test_no_page_before_the_former_was_applied() -> None:
    node = Single()
    node.lead()
    node.accept("b", 1)
    node.state.log.applied = 0
    node.state.log.handed = 1
    node.group.propose(b"x")
    node.turn()
    node.sync()
    node.accept("b", 2)
    assert node.output.applies == []
    node.group.applied(1)
    assert [e.index for apply in node.turn().applies for e in apply.entries] == [2]


def test_a_snapshot_deletes_what_is_not_live_and_nothing_else() -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.propose("2", "3", "4", "5")
    cluster.advance(300)
    a.snapshot(dead=[3])
    cluster.settle()
    assert sorted(a.disk.groups[GROUP].entries) == [2, 4, 5]
    cluster.propose("6", "7")
    cluster.advance(300)
    a.snapshot(dead=[3, 2, 6])
    cluster.settle()
    assert sorted(a.disk.groups[GROUP].entries) == [4, 5, 7]


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_snapshot_is_of_what_was_applied_since_the_last(index: int) -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.propose("2")
    cluster.advance(300)
    a.snapshot()
    cluster.settle()
    cluster.propose("3", "4")
    cluster.advance(300)
    if index == 5:
        cluster.propose("5")
    with pytest.raises(ProposalRefused) as refused:
        a.group().compact(index, Ranges(), b"")
    assert refused.value.reason is RefusalReason.OUT_OF_DATE


def test_a_snapshot_counts_only_once_it_is_on_disk() -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.propose("2", "3")
    cluster.advance(300)
    a.snapshot()
    assert a.status().floor == 0
    with pytest.raises(ProposalRefused):
        a.group().compact(a.status().applied, Ranges(), b"")
    a.sync()
    assert a.status().floor == 3


def test_whoever_is_no_leader_has_no_progress_to_show() -> None:
    node = Single()
    assert node.group.progress == {}
    node.lead()
    assert sorted(node.group.progress) == ["b", "c"]


def test_leadership_can_soon_go_to_who_lacks_little_and_best_to_who_lacks_least() -> None:
    cluster = Cluster(tuning=Tuning(promotion_lag_entries=2))
    cluster.create()
    a = cluster.elect("a")
    cluster.advance(300)
    assert sorted(a.group().transfer_targets) == ["b", "c"]
    assert cluster["b"].group().transfer_targets == []
    cluster.partition("ac", "b")
    for transfer_targets in (["c", "b"], ["c", "b"], ["c"]):
        cluster.propose("x")
        cluster.settle()
        assert a.group().transfer_targets == transfer_targets
    cluster.heal()
    cluster.advance(5_000)
    assert sorted(a.group().transfer_targets) == ["b", "c"]
    a.do(partial(a.raft.link_down, "c"))
    assert a.group().transfer_targets == ["b"]


def test_followers_can_hear_of_commits_at_once() -> None:
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.propose("x")
    cluster.settle()
    assert cluster.data("b") == []
    cluster.advance(10)
    assert cluster.data("b") == ["x"]
    a.group().send_commits_at_once()
    cluster.propose("y")
    cluster.settle()
    assert cluster.data("b") == ["x", "y"]


def test_what_one_snapshot_left_out_cannot_be_live_in_a_later_one() -> None:
    """Its entry is off the disk: whoever needed the snapshot would wait for it for ever."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.propose("two", "three")
    cluster.advance(500)
    index = a.status().applied
    a.do(lambda: a.group().compact(index, Ranges.of((index, index + 1)), b""))
    cluster.propose("four")
    cluster.advance(500)
    with pytest.raises(AssertionError, match="gone"):
        a.group().compact(index + 1, Ranges.of((index - 1, index + 2)), b"")
