"""Followers in doubt: what runs of the simulator found."""

from functools import partial

from fluffle.raft.config import Remove
from fluffle.raft.messages import TimeoutNow
from tests.raft.cluster import GROUP, Cluster


def test_nobody_clings_to_a_leader_whose_node_has_the_group_no_more() -> None:
    """Its node is alive; the others are not told that it has left."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    a.do(partial(a.group().change, Remove("a")))
    last = a.status().last
    for _ in range(100):
        if a.status().commit == last:
            break
        if cluster.network:
            cluster.deliver()
        else:
            assert any(host.sync() for host in cluster.up)
    assert a.status().commit == last
    a.do(partial(a.raft.delete, GROUP))
    cluster.network.clear()
    b = cluster["b"]
    b.do(b.group().campaign)
    cluster.advance(5_000)
    assert cluster.led().name in "bc"


def test_a_leader_that_has_left_hears_that_others_lead() -> None:
    """It asks on and on for a successor, which there is, in a term that nobody tells it."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.partition("a", "bc")
    cluster.advance(300)
    b = cluster["b"]
    b.do(partial(b.raft.receive, "a", [TimeoutNow(GROUP, a.status().term, 1, 1)]))
    cluster.settle()
    assert b.status().term > a.status().term
    cluster.heal()
    b.do(partial(b.raft.receive, "a", [TimeoutNow(GROUP, a.status().term, 1, 1)]))
    cluster.deliver(len(cluster.network) - 1)
    assert a.status().term == b.status().term
