"""Elections: what runs of the simulator found."""

from fluffle.raft.messages import TimeoutNow, VoteRequest
from fluffle.raft.output import Role
from tests.raft.cluster import GROUP, Cluster


def test_whoever_stands_has_forgotten_the_vote_it_was_about_to_send() -> None:
    """Its own vote becomes durable, and would be taken for the one that was waited for."""
    cluster = Cluster()
    cluster.create()
    b = cluster["b"]
    while b.sync():
        pass
    b.do(lambda: b.raft.receive("a", [VoteRequest(GROUP, 5, 1, 1, 0, 0, False)]))
    b.do(lambda: b.raft.receive("c", [TimeoutNow(GROUP, 5, 1, 1)]))
    assert b.status().role is Role.CANDIDATE
    while b.sync():
        pass
    assert [sent for sent in cluster.network if sent[0] == sent[1]] == []
