"""Streams to a queue that lives on one node, over links that come and go."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queues.classic_queues import ClassicQueueHost
from fluffle.broker.cluster.queues.leader_routes import AWAY_S, AWAY_S_MAX
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.messages import Leader, SessionBoot
from fluffle.broker.runtime.commits import CommitWaiter
from tests.broker.cluster.queues.classic_queue_harness import ObservedQueue
from tests.support.queue_host import FakeQueueHost
from tests.support.queue_nodes import NONCE, QueueCluster

AWAY_MS = round(AWAY_S * 1_000)
CUT_OFF_MS = round(AWAY_S_MAX * 1_000)


class HomeCluster(QueueCluster):
    """With a queue that lives on a, and has no journal."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = 1 << 40
        self.definition = QueueDefinition(QueueSpec("q"), id=self.queue, home="a")
        self.begin()
        for name in self.nodes:
            self.open(name)
        self.hosts.settle()

    def begin(self) -> None:
        """A life of the home."""
        node = self.nodes["a"]
        self.engine = ObservedQueue(
            self.definition.spec, FakeQueueHost(self._pump), definition=self.definition
        )
        self.engine.model = self.model
        classic_host = ClassicQueueHost(
            self.engine,
            Leader("a", SessionBoot(node.boot, NONCE), node.boot),
            vhost="/",
            commits=NoCommits(),
            on_unused=lambda _queue: None,
            on_output=lambda: node.node_sessions.leaders.touch_output(self.queue),
        )
        node.node_sessions.leaders.queues[self.queue] = classic_host
        node.node_sessions.leaders.begin_sessions(self.queue, classic_host.sessions)

    def _pump(self, queue: Queue) -> None:
        def pump() -> None:
            for delivery_batch in queue.pump():
                delivery_batch.holder.deliver(delivery_batch)

        self.nodes["a"]._soon.append(pump)

    def kill(self) -> None:
        """Kill the node; its host goes on, and reports that."""
        self.nodes["a"].kill()
        for name in "bc":
            self.nodes[name].refusing.add("a")

    def restart(self) -> None:
        """Restart the home node after it was killed."""
        for name in "bc":
            self.nodes[name].refusing.discard("a")
        self.nodes["a"].start()
        self.begin()
        self.open("a")


class NoCommits:
    """The `CommitLog` of a node on which nothing is ever durable."""

    def wait(self, _waiter: CommitWaiter, _ticket: int) -> None:
        raise AssertionError("nothing here is ever durable")


@pytest.fixture
def cluster() -> HomeCluster:
    return HomeCluster()


def in_hands(cluster: HomeCluster, name: str) -> int:
    return sum(len(token.run) for token in cluster.clients[name].in_hands())


def test_any_node_serves_any_client_at_once(cluster: HomeCluster) -> None:
    cluster.ask("b").publish(4)
    cluster.hosts.settle()
    cluster.ask("c").attach(credit=3, no_ack=False, prefetch=3)
    cluster.hosts.settle()
    assert (in_hands(cluster, "c"), cluster.engine.ready_count) == (3, 1)
    client = cluster.ask("c")
    client.settle(client.in_hands(), Outcome.ACKED)
    cluster.hosts.settle()
    assert (in_hands(cluster, "c"), cluster.engine.ready_count) == (1, 0)
    assert len(cluster.model.confirmed) == 4
    assert cluster.hosts.now_ms == 1_000, "no time has passed"


def test_counts_are_those_of_the_home(cluster: HomeCluster) -> None:
    cluster.ask("b").publish(3)
    cluster.ask("c").attach(credit=1, no_ack=False, prefetch=1)
    cluster.hosts.settle()
    reported: list[object] = []
    for node in cluster.nodes.values():
        node.node_sessions.ask_counts(cluster.queue, reported.append)
    cluster.hosts.settle()
    assert reported == [(2, 1, 1, 0)] * 3


def test_clients_are_notified_when_the_home_is_down(cluster: HomeCluster) -> None:
    cluster.ask("b").attach(credit=3, no_ack=False, prefetch=0)
    cluster.ask("c").publish(2)
    cluster.hosts.settle()
    cluster.kill()
    cluster.ask("c").publish(1)
    cluster.hosts.advance(AWAY_MS - 50)
    assert not cluster.routes["b"].is_away
    cluster.hosts.advance(100)
    assert cluster.routes["b"].is_away
    b, c = (cluster.clients[name].heard[-1] for name in "bc")
    assert isinstance(b, happened.ConsumerCancelled)
    assert isinstance(c, happened.PublishRejected)
    assert cluster.clients["b"].consumers == []


def test_a_home_that_comes_back_serves_those_who_come_then(cluster: HomeCluster) -> None:
    cluster.ask("b").attach(credit=3, no_ack=False, prefetch=0)
    cluster.ask("c").publish(2)
    cluster.hosts.settle()
    cluster.kill()
    cluster.hosts.advance(AWAY_MS + 50)
    cluster.restart()
    cluster.hosts.advance(3_000, step_ms=50)
    assert not cluster.routes["b"].is_away
    heard = len(cluster.clients["c"].heard)
    cluster.ask("c").publish(1)
    cluster.hosts.settle()
    assert [type(each) for each in cluster.clients["c"].heard[heard:]] == [
        happened.PublishConfirmed
    ]
    assert cluster.engine.ready_count == 1


def test_a_home_that_starts_again_at_once_has_lost_what_it_was_asked(cluster: HomeCluster) -> None:
    """Requests without an answer must not be repeated in the new boot: the old one may have done
    them."""
    cluster.ask("b").attach(credit=3, no_ack=False, prefetch=0)
    cluster.hosts.settle()
    cluster.kill()
    cluster.ask("c").publish(1)
    cluster.restart()
    cluster.hosts.advance(AWAY_MS + 50)
    assert cluster.clients["b"].consumers == []
    assert [type(each) for each in cluster.clients["c"].heard] == [happened.PublishRejected]
    assert cluster.engine.ready_count == 0


def test_a_link_that_is_back_in_time_takes_nothing_from_anybody(cluster: HomeCluster) -> None:
    cluster.ask("b").attach(credit=3, no_ack=False, prefetch=0)
    cluster.ask("c").publish(5)
    cluster.hosts.settle()
    cluster.hosts.network.cut("a", "b")
    cluster.hosts.advance(CUT_OFF_MS - 100, step_ms=50)
    cluster.hosts.network.connect("a", "b")
    cluster.hosts.advance(3_000, step_ms=50)
    assert in_hands(cluster, "b") == 3
    assert cluster.engine.ready_count == 2
    assert not cluster.routes["b"].is_away


def test_a_home_that_was_only_cut_off_takes_back_what_was_out(cluster: HomeCluster) -> None:
    cluster.ask("b").attach(credit=3, no_ack=False, prefetch=0)
    cluster.ask("c").publish(5)
    cluster.hosts.settle()
    cluster.hosts.network.cut("a", "b")
    cluster.hosts.advance(CUT_OFF_MS + 600, step_ms=50)
    assert (in_hands(cluster, "b"), cluster.clients["b"].consumers) == (0, [])
    cluster.hosts.network.connect("a", "b")
    cluster.hosts.advance(2_000, step_ms=50)
    cluster.ask("b").publish(1)
    cluster.hosts.settle()
    assert (cluster.engine.ready_count, cluster.engine.in_flight) == (6, 0)
    assert cluster.engine.consumer_count == 0


def test_it_does_so_though_nobody_asks_it_for_anything(cluster: HomeCluster) -> None:
    """Once; and who never had anything there does not talk to it."""
    cluster.ask("b").attach(credit=3, no_ack=False, prefetch=0)
    cluster.ask("b").publish(5)
    cluster.hosts.settle()
    for name in "bc":
        cluster.hosts.network.cut("a", name)
    cluster.hosts.advance(CUT_OFF_MS + 600, step_ms=50)
    for name in "bc":
        cluster.hosts.network.connect("a", name)
    cluster.hosts.advance(2_000, step_ms=50)
    assert (cluster.engine.ready_count, cluster.engine.in_flight) == (5, 0)
    b, c = (cluster.routes[name].session for name in "bc")
    assert (b.is_remembered, b.counter) == (False, 2)
    assert c.opening == 0
