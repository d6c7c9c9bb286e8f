"""Reports of client nodes that are due to time alone, and before their node stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluffle.broker.cluster.queues.leader_routes import REPORT_S, LeaderRoute, LeaderRoutes
from fluffle.broker.cluster.queues.ports import KnownLeader
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.raft.config import NodeId
from tests.broker.cluster.queues.test_node_sessions import cluster
from tests.support.cluster_view import FakeClusterView, NoLinks
from tests.support.fakes import Timer
from tests.support.manual_clock import ManualClock
from tests.support.queue_nodes import QueueCluster

__all__ = ["cluster"]

OWN, OTHER = m.SessionBoot(1, 100), m.SessionBoot(1, 200)
HOLDER = 7


class RecordedTransport(SessionTransport):
    """A transport that keeps what sessions of this node ask for."""

    asked: list[m.ClientFrame]

    def send(self, node: NodeId, frame: m.Frame) -> None:
        assert isinstance(frame, m.ClientFrame), node
        self.asked.append(frame)


class Desk:
    """The lines of a node with one queue, which another leads: whatever they ask for is by hand."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.is_touched = False
        self.lives = {"a": OWN, "b": OTHER}
        self.transport = RecordedTransport(
            FakeClusterView("a", OWN), NoLinks(), self, self, ManualClock()
        )
        self.transport.boots = self.lives
        self.routes = LeaderRoutes(self.transport, lambda _queue: KnownLeader(1, 1, "b"))
        definition = QueueDefinition(QueueSpec("q"), id=1, members=(("b", 1), ("c", 1)))
        self.route: LeaderRoute = self.routes.open(definition, lambda _events: None)

    def touch_consensus(self) -> None:
        self.is_touched = True

    def call_soon(self, act: Callable[[], None]) -> None:
        self.call_later(0.0, act)

    def call_later(self, delay_s: float, act: Callable[[], None]) -> Timer:
        self.timers.append((delay_s, act))
        return Timer(act)

    def ack(self, sequence: int) -> None:
        self.route.session.settle(
            Outcome.ACKED, [m.Token(HOLDER, 0, range(sequence, sequence + 1))]
        )
        self.route.touch()

    def open_at_home(self, home: NodeId) -> LeaderRoute:
        """Another queue, which that node alone leads."""
        definition = QueueDefinition(QueueSpec("at home"), id=2, home=home)
        return self.routes.open(definition, lambda _events: None)

    def unlink(self, node: NodeId) -> None:
        del self.lives[node]
        self.routes.unlinked(node)

    def turn(self) -> list[range]:
        """Acknowledged runs sent in this turn, if one was asked for."""
        is_touched, self.is_touched = self.is_touched, False
        asked = self.transport.asked = []
        if is_touched:
            self.routes.send()
        settled = [each for frame in asked for each in frame.messages if type(each) is m.Settle]
        return [token.run for each in settled for token in each.tokens]

    def wait(self, delay_s: float) -> None:
        """Run the timers with this delay."""
        due = [timer for timer in self.timers if timer[0] == delay_s]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _delay_s, act in due:
            act()


@pytest.fixture
def desk() -> Desk:
    """Harness whose client node talks to the leader."""
    desk = Desk()
    desk.ack(1)
    assert desk.turn() == [range(1, 2)]
    return desk


def test_what_was_put_off_is_said_after_a_while(desk: Desk) -> None:
    """Again and again."""
    for first in (2, 4):
        desk.ack(first)
        desk.ack(first + 1)
        assert desk.turn() == []
        desk.wait(REPORT_S)
        assert desk.turn() == [range(first, first + 2)]
        desk.wait(REPORT_S)
        assert desk.turn() == [], "it is said once"


def test_what_was_put_off_is_said_at_once_before_a_stop(desk: Desk) -> None:
    answers: list[str] = []
    desk.ack(2)
    assert desk.turn() == []
    desk.routes.rest(lambda: answers.append("rest"))
    assert desk.turn() == [range(2, 3)]
    assert not answers, "it has no outcome yet"


@pytest.mark.parametrize("end", ["unlinked", "closed"])
def test_who_waits_for_rest_hears_of_every_end_of_what_is_pending(desk: Desk, end: str) -> None:
    """Also where no leader says a word."""
    answers: list[str] = []
    desk.routes.rest(lambda: answers.append("rest"))
    desk.turn()
    assert not answers
    if end == "closed":
        desk.routes.close(1)
    else:
        desk.unlink("b")
    desk.turn()
    assert answers == ["rest"]


def test_who_waits_for_rest_hears_of_a_home_in_a_later_life(desk: Desk) -> None:
    route = desk.open_at_home("b")
    route.session.settle(Outcome.ACKED, [m.Token(HOLDER, 0, range(1, 2))])
    route.touch()
    desk.turn()
    desk.routes.close(1)
    answers: list[str] = []
    desk.routes.rest(lambda: answers.append("rest"))
    desk.turn()
    assert not answers
    desk.lives["b"] = m.SessionBoot(2, 200)
    desk.routes.linked("b")
    desk.turn()
    assert answers == ["rest"]


def acknowledging(cluster: QueueCluster, name: str) -> None:
    """A client there has acknowledged something, and has not been heard."""
    cluster.ask("a").publish(3)
    cluster.ask(name).attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.settle()
    client = cluster.ask(name)
    client.settle(client.in_hands(), Outcome.ACKED)
    cluster.hosts.settle()
    assert not cluster.model.gone


@pytest.mark.parametrize("name", "abc")
def test_nothing_is_pending_at_rest(cluster: QueueCluster, name: str) -> None:
    acknowledging(cluster, name)
    answers: list[int] = []
    routes = cluster.nodes[name].node_sessions.routes
    routes.rest(lambda: answers.append(len(cluster.model.gone)))
    assert not answers
    cluster.hosts.settle()
    assert answers == [3], "once it is so, without any time"
    routes.rest(lambda: answers.append(0))
    assert answers == [3, 0], "at once if there is nothing"


def test_nobody_waits_for_a_leader_that_is_not_there(cluster: QueueCluster) -> None:
    for name in "ac":
        cluster.hosts.network.cut("b", name)
    cluster.hosts.settle()
    cluster.ask("b").publish(1)
    answers: list[str] = []
    cluster.nodes["b"].node_sessions.routes.rest(lambda: answers.append("rest"))
    assert answers == ["rest"]


def test_a_leader_that_is_not_known_yet_is_waited_for(cluster: QueueCluster) -> None:
    acknowledging(cluster, "a")
    refused: list[object] = []
    cluster.nodes["a"].host.group(cluster.queue).transfer("c", refused.append)
    answers: list[int] = []
    routes = cluster.nodes["a"].node_sessions.routes
    cluster.routes["a"].session.connect(None)
    routes.rest(lambda: answers.append(len(cluster.model.gone)))
    assert not answers
    cluster.hosts.advance(1_000)
    assert (cluster.leader(), answers, refused) == ("c", [3], [])
