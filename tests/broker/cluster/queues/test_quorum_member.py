"""A member of a quorum queue: x-expires, which only one that still leads may tell, and deletion."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from tests.support.queue_nodes import QueueCluster

EXPIRES_MS = 60_000


@pytest.fixture
def cluster() -> QueueCluster:
    made = QueueCluster()
    made.declare(expires=EXPIRES_MS)
    made.hosts.settle()
    return made


def reported(cluster: QueueCluster) -> dict[str, list[str]]:
    """Queues reported as unused, by node."""
    return {name: node.queue_expired for name, node in cluster.nodes.items() if node.queue_expired}


def test_its_leader_says_once_that_nobody_uses_it(cluster: QueueCluster) -> None:
    cluster.ask("b").publish(3)
    cluster.hosts.advance(EXPIRES_MS - 100, step_ms=100)
    assert reported(cluster) == {}
    cluster.hosts.advance(2 * EXPIRES_MS, step_ms=100)
    assert reported(cluster) == {"a": ["q"]}


def test_consumers_and_gets_are_uses_and_counts_are_not(cluster: QueueCluster) -> None:
    consumer = cluster.ask("b").attach(credit=1, no_ack=False, prefetch=1)
    cluster.hosts.advance(2 * EXPIRES_MS, step_ms=200)
    assert reported(cluster) == {}
    cluster.ask("b").detach(consumer)
    cluster.hosts.advance(EXPIRES_MS - 1_000, step_ms=200)
    cluster.ask("c").get(1, no_ack=True)
    cluster.hosts.advance(EXPIRES_MS - 1_000, step_ms=200)
    cluster.nodes["c"].node_sessions.ask_counts(cluster.queue, lambda _counts: None, in_use=True)
    assert reported(cluster) == {}
    cluster.hosts.advance(2_000, step_ms=200)
    assert reported(cluster) == {"a": ["q"]}


def test_the_next_leader_begins_anew(cluster: QueueCluster) -> None:
    cluster.hosts.advance(EXPIRES_MS - 5_000, step_ms=200)
    cluster.nodes["a"].kill()
    cluster.hosts.advance(EXPIRES_MS - 1_000, step_ms=200)
    assert cluster.leader() in ("b", "c")
    assert reported(cluster) == {}
    cluster.hosts.advance(EXPIRES_MS, step_ms=200)
    assert list(reported(cluster)) == [cluster.leader()]


def test_a_leader_that_was_cut_off_does_not_say_so(cluster: QueueCluster) -> None:
    cluster.hosts.advance(EXPIRES_MS - 1_000, step_ms=200)
    for name in "bc":
        cluster.hosts.network.cut("a", name)
    cluster.hosts.advance(EXPIRES_MS - 5_000, step_ms=200)
    assert reported(cluster) == {}


@pytest.fixture
def born() -> QueueCluster:
    """Cluster with a queue that is to replace another."""
    made = QueueCluster()
    made.declare(expires=EXPIRES_MS)
    for node in made.nodes.values():
        node.hosting.defined.successors.add(made.queue)
    made.hosts.settle()
    return made


def promote(cluster: QueueCluster) -> None:
    for node in cluster.nodes.values():
        node.hosting.defined.successors.discard(cluster.queue)
        group = node.node_sessions.leaders.queues[cluster.queue]
        assert isinstance(group, QuorumQueueMember)
        group.renew_settings()


def test_the_time_of_an_heir_begins_when_it_takes_its_place(born: QueueCluster) -> None:
    born.hosts.advance(EXPIRES_MS - 5_000, step_ms=200)
    promote(born)
    born.hosts.advance(EXPIRES_MS - 1_000, step_ms=200)
    assert reported(born) == {}
    born.hosts.advance(2_000, step_ms=200)
    assert reported(born) == {"a": ["q"]}


def test_an_heir_is_not_disused_however_long_it_waits(born: QueueCluster) -> None:
    born.hosts.advance(2 * EXPIRES_MS, step_ms=200)
    assert reported(born) == {}
    promote(born)
    born.hosts.advance(EXPIRES_MS + 1_000, step_ms=200)
    assert reported(born) == {"a": ["q"]}


def test_a_queue_that_is_deleted_is_not_led_anew() -> None:
    cluster = QueueCluster()
    cluster.declare()
    cluster.hosts.settle()
    node = cluster.nodes["a"]
    group = node.node_sessions.leaders.queues[cluster.queue]
    assert isinstance(group, QuorumQueueMember)
    for other in "bc":
        cluster.hosts.network.cut("a", other)
    cluster.ask("a").publish(1)
    cluster.hosts.advance(5, step_ms=1)
    led = group.replica.leadership
    assert led is not None
    assert group.replica._under_way, "nobody commits it"
    node.host.delete(cluster.queue)
    cluster.hosts.advance(5, step_ms=1)
    assert led.is_over
    assert group.replica.leadership is None


def test_what_comes_late_finds_an_ended_member_without_work() -> None:
    """The outcome of an entry that was proposed before the deletion, or is behind it; a damage that
    a reader finds; the time to lead again after an error."""
    cluster = QueueCluster()
    cluster.declare()
    cluster.hosts.settle()
    node = cluster.nodes["a"]
    member = node.hosting.groups[cluster.queue]
    led, log = member.replica.leadership, member.replica._services
    assert led is not None
    assert log is not None
    for other in "bc":
        cluster.hosts.network.cut("a", other)
    cluster.ask("a").publish(1)
    cluster.hosts.advance(5, step_ms=1)
    assert member.replica._under_way == 1
    node.hosting.forget(cluster.queue)
    session, *_others = led.sessions.ids()
    led.purge(led.sessions.open(session), 2)
    led.pump()
    assert member.replica._under_way == 2
    cluster.hosts.advance(5, step_ms=1)
    assert (led.is_over, member.replica._under_way) == (True, 0)
    log.log.damaged(1)
    member.lead_again()
    cluster.hosts.advance(5, step_ms=1)
    assert (member.replica.leadership, member.sessions) == (None, None)
