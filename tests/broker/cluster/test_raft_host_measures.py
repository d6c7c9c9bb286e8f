"""Measurements of a host: how long a commit takes, and how often leaders change."""

from __future__ import annotations

import pytest

from tests.simulation.toy import put
from tests.support.raft_hosts import HostCluster

GROUP = 7


@pytest.fixture
def cluster() -> HostCluster:
    cluster = HostCluster()
    cluster.create(GROUP)
    return cluster


def test_a_leader_knows_how_long_a_commit_has_taken(cluster: HostCluster) -> None:
    leader = cluster.leader(GROUP)
    hosted = leader.host.group(GROUP)
    assert hosted.commit_ms is None
    hosted.propose(put(1, 0), lambda _outcome: None)
    leader.step()
    hosted.propose(put(2, 0), lambda _outcome: None)
    leader.step()
    cluster.now_ms += 30
    cluster.settle()
    assert hosted.commit_ms == 30, "of the first; the second came while that was measured"
    assert [node.host.group(GROUP).commit_ms for node in cluster.followers(GROUP)] == [None, None]
    cluster.propose(GROUP, put(3, 0))
    assert hosted.commit_ms == 0


def test_another_leader_is_counted_by_all_who_hear_of_it(cluster: HostCluster) -> None:
    assert {node.host.leader_changes for node in cluster.running()} == {1}
    leader = cluster.leader(GROUP)
    successor = cluster.followers(GROUP)[0]
    leader.host.group(GROUP).transfer(successor.name, lambda _refused: None)
    cluster.settle()
    assert cluster.leader(GROUP) is successor
    assert {node.host.leader_changes for node in cluster.running()} == {2}
    assert leader.host.group(GROUP).commit_ms is None
