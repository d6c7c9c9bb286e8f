"""Feeding followers: what runs of the simulator found."""

from functools import partial

from fluffle.raft.messages import AppendRequest
from tests.raft.cluster import GROUP, Cluster


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
