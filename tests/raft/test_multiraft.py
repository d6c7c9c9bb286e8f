"""All groups of a node together."""

from tests.raft.cluster import Cluster


def test_three_nodes_elect_a_leader_and_agree() -> None:
    cluster = Cluster()
    cluster.create()
    cluster.elect()
    cluster.propose("one", "two", "three")
    cluster.advance(50)
    assert [cluster.data(name) for name in "abc"] == [["one", "two", "three"]] * 3
