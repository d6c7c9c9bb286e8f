"""How edges find who leads their queue: by what they hear, and by asking."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.ports import FrameKind
from fluffle.broker.cluster.queue_sessions.codec import decode
from fluffle.broker.cluster.queues import quorum_members
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.cluster.queues.test_node_sessions import cluster, consuming_at, contents
from tests.support.queue_nodes import QueueCluster
from tests.support.raft_hosts import Frame

__all__ = ["cluster"]


def test_a_node_without_a_member_finds_the_leader() -> None:
    cluster = QueueCluster("abcd")
    cluster.declare(leader="b")
    cluster.hosts.settle()
    cluster.ask("d").publish(2)
    cluster.hosts.advance(100)
    assert len(cluster.model.confirmed) == 2
    cluster.nodes["b"].kill()
    cluster.hosts.advance(3_000)
    cluster.ask("d").publish(2)
    cluster.hosts.advance(3_000)
    assert len(cluster.model.confirmed) == 4


def test_who_is_sent_to_a_node_that_leads_no_more_asks_others() -> None:
    cluster = QueueCluster("abcd")
    cluster.declare(leader="b")
    cluster.hosts.settle()
    cluster.ask("d").publish(1)
    cluster.hosts.advance(100)
    cluster.nodes["b"].hosting.forget(cluster.queue)
    cluster.hosts.advance(3_000)
    cluster.ask("d").publish(1)
    cluster.hosts.advance(3_000)
    assert len(cluster.model.confirmed) == 2
    assert cluster.routes["d"].session.opening < 10


def test_a_consumer_without_a_member_near_it_hears_of_a_leader_that_took_over() -> None:
    cluster = QueueCluster("abcd")
    cluster.declare(leader="b")
    cluster.hosts.settle()
    consuming_at(cluster, "d")
    refused: list[object] = []
    cluster.nodes["b"].host.group(cluster.queue).transfer("c", refused.append)
    cluster.hosts.advance(1_000)
    assert (cluster.leader(), refused) == ("c", [])
    cluster.ask("a").publish(2)
    cluster.hosts.advance(1_000)
    assert contents(cluster, "d") == 2


def test_a_consumer_hears_of_a_leader_that_is_no_member_yet_as_far_as_its_node_knows() -> None:
    cluster = QueueCluster("abcd")
    cluster.declare(leader="a")
    cluster.hosts.settle()
    before = cluster.definition._replace(members=(("a", 1), ("b", 1)))
    cluster.nodes["d"].node_sessions.redefined(before)
    consuming_at(cluster, "d")
    refused: list[object] = []
    cluster.nodes["a"].host.group(cluster.queue).transfer("c", refused.append)
    cluster.hosts.advance(1_000)
    cluster.nodes["d"].node_sessions.redefined(cluster.definition)
    assert (cluster.leader(), refused) == ("c", [])
    cluster.ask("a").publish(2)
    cluster.hosts.advance(1_000)
    assert contents(cluster, "d") == 2


@pytest.mark.parametrize(("speaks", "within_ms"), [("a", 1_000), ("", 15_000)])
def test_who_waits_for_messages_finds_a_leader_that_it_has_not_heard_of(
    speaks: str, within_ms: int
) -> None:
    """The leader is learnt from the one before, or by asking that one now and then."""
    cluster = QueueCluster("abcd")
    cluster.declare("abc")
    cluster.hosts.settle()
    consuming_at(cluster, "d")
    network, send = cluster.hosts.network, cluster.hosts.network.send
    silent = {*"abc"} - {*speaks}

    def lossy(sender: str, receiver: str, frame: Frame) -> None:
        """Lose the replies of silent nodes about who leads."""
        is_reported = (
            frame[0] is FrameKind.SESSION and receiver == "d" and not decode(frame[1]).term
        )
        if not (is_reported and sender in silent):
            send(sender, receiver, frame)

    network.send = lossy  # type: ignore[method-assign]
    refused: list[object] = []
    cluster.nodes["a"].host.group(cluster.queue).transfer("b", refused.append)
    cluster.hosts.advance(1_000)
    assert (cluster.leader(), refused) == ("b", [])
    silent.clear()
    cluster.ask("b").publish(2)
    cluster.hosts.advance(within_ms)
    assert contents(cluster, "d") == 2


def test_a_consumer_hears_of_a_leader_that_begins_anew_in_its_term(cluster: QueueCluster) -> None:
    consuming_at(cluster, "c")
    group = cluster.nodes["a"].node_sessions.leaders.queues[cluster.queue]
    assert isinstance(group, QuorumQueueMember)
    member = group.replica
    before = member.leader_epoch
    leadership = member.leadership
    assert leadership is not None
    store = cluster.nodes["a"].store
    store.has_room = store.takes_entries = False
    leadership.change_settings(1, QueueSettings(max_length=5))
    cluster.hosts.settle()
    leadership.pump()
    cluster.hosts.settle()
    store.has_room = store.takes_entries = True
    cluster.hosts.advance(100)
    assert member.leader_epoch == (before[0], before[1] + 1)
    cluster.ask("a").publish(2)
    cluster.hosts.advance(1_000)
    assert contents(cluster, "c") == 2


def test_a_queue_is_gone_only_where_it_is_known_that_it_was_there(
    cluster: QueueCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum_members, "GONE_MAX", 2)
    for queue in (7, 8):
        cluster.nodes["c"].hosting.forget(queue)
    is_gone = cluster.nodes["c"].hosting.defined.is_gone
    is_there = cluster.nodes["c"].hosting.defined.is_there
    assert [is_gone(9), is_there(9)] == [False, False], "it may have yet to be heard of"
    assert [is_gone(cluster.queue), is_there(cluster.queue)] == [False, True]
    cluster.nodes["c"].hosting.forget(cluster.queue)
    assert [is_gone(cluster.queue), is_there(cluster.queue)] == [True, False]
    assert [is_gone(queue) for queue in (7, 8)] == [False, True], "of the last ones it is known"
