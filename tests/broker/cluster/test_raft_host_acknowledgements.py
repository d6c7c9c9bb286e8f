"""Answers of followers are heard before the turn, and take one only if something follows."""

import pytest

from fluffle.broker.cluster.codec import encode
from fluffle.raft.group import Position
from fluffle.raft.messages import AppendAccepted, LeaderQuery
from fluffle.raft.state import ProgressState
from tests.simulation.toy import put
from tests.support.payloads import joined
from tests.support.raft_hosts import HostCluster

GROUP = 7


@pytest.fixture
def cluster() -> HostCluster:
    cluster = HostCluster()
    cluster.create(GROUP)
    return cluster


def test_only_what_a_commit_needs_of_three_disks_takes_a_turn(cluster: HostCluster) -> None:
    leader, outcomes = cluster.leader(GROUP), list[object]()
    leader.host.group(GROUP).propose(put(1, 0), outcomes.append)
    leader.step()
    while cluster.network.deliver():
        pass
    for follower in cluster.followers(GROUP):
        follower.step()
        follower.store.sync()
        follower.step()
    assert cluster.network.deliver()
    assert not leader.is_turn_due, "one of three has it"
    leader.store.sync()
    assert leader.is_turn_due
    leader.step()
    assert outcomes == [Position(1, 2)]
    assert cluster.network.deliver()
    assert not leader.is_turn_due, "two of three had it before"
    cluster.advance(1_000)
    assert leader.host.group(GROUP).raft.progress == dict.fromkeys(
        (node.name for node in cluster.followers(GROUP)), (ProgressState.REPLICATE, 2)
    )


def test_a_follower_acknowledges_what_is_on_disk_without_a_turn(cluster: HostCluster) -> None:
    leader, outcomes = cluster.leader(GROUP), list[object]()
    leader.host.group(GROUP).propose(put(1, 0), outcomes.append)
    leader.step()
    leader.store.sync()
    while cluster.network.deliver():
        pass
    follower, other = cluster.followers(GROUP)
    follower.step()
    assert not cluster.network.deliver(), "nothing of it is on disk"
    follower.store.sync()
    assert not follower.is_turn_due
    while cluster.network.deliver():
        pass
    leader.step()
    assert outcomes == [Position(1, 2)], f"{other.name} is not needed"


def test_an_answer_behind_other_frames_waits_for_its_turn(cluster: HostCluster) -> None:
    node = cluster.leader(GROUP)
    node.host.receive("c", joined(encode([LeaderQuery(GROUP, 1, 1, 1)])))
    term = node.host.group(GROUP).status.term
    node.host.receive("c", joined(encode([AppendAccepted(GROUP, term + 1, 1, 1, 1, 1, 1, 1)])))
    assert node.host.group(GROUP).status.term == term
    node.step()
    assert node.host.group(GROUP).status.term == term + 1


def test_what_hears_an_answer_and_fails_ends_the_node(cluster: HostCluster) -> None:
    """A peer that says of more than there is that it has it: no node of ours does."""
    cluster.is_fatal_expected = True
    node = cluster.leader(GROUP)
    status = node.host.group(GROUP).status
    beyond = status.last + 1
    answer = AppendAccepted(GROUP, status.term, 1, 1, beyond, beyond, 0, 1 << 30)
    node.host.receive("c", joined(encode([answer])))
    assert len(node.fatal) == 1
