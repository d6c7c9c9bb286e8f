"""A link that is slower than those who use it: each queue gets its share, nothing goes twice."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.ports import FrameKind, OnFrame, OnLink, Payload, TrafficClass
from fluffle.broker.cluster.queue_sessions.codec import decode
from fluffle.broker.cluster.queue_sessions.events import Event, MessagesDelivered, PublishConfirmed
from fluffle.broker.cluster.queue_sessions.session_client import AttachTerms, SessionRequests
from fluffle.broker.cluster.queues.classic_queues import ClassicQueueHost
from fluffle.broker.cluster.queues.leader_routes import LeaderRoute
from fluffle.broker.cluster.queues.node_sessions import NodeSessions
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.messages import Leader, Publish, SessionBoot
from fluffle.broker.runtime.commits import CommitWaiter
from tests.support.cluster_view import FakeClusterView
from tests.support.fakes import Timer
from tests.support.manual_clock import ManualClock
from tests.support.payloads import joined
from tests.support.queue_host import FakeQueueHost

BODY = bytes(16 << 10)
BATCH = 64
QUEUES = 20
STEP_MS = 10
STEP_BYTES = 1 << 20
"""Bytes that a link takes in a step."""
BOOTS = {"a": SessionBoot(1, 11), "b": SessionBoot(1, 22)}


class NoCommits:
    """The `CommitLog` of a node on which nothing is durable, so nobody waits."""

    def wait(self, waiter: CommitWaiter, ticket: int) -> None:
        raise AssertionError(f"{waiter} waits for {ticket}")


class SlowLinks:
    """From one node to the other."""

    on_frame: OnFrame
    on_link: OnLink

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.sent_bytes = 0
        self._spent_bytes = 0

    def send(self, node: str, kind: FrameKind, payload: Payload, *, traffic: TrafficClass) -> None:
        assert (kind, traffic) == (FrameKind.SESSION, TrafficClass.NORMAL)
        self.waiting.append(joined(payload))

    def is_up(self, node: str) -> bool:
        return bool(node)

    def waiting_bytes(self, node: str, traffic: TrafficClass) -> int:
        return sum(map(len, self.waiting))

    def drain(self, budget_bytes: int, receive: Callable[[bytes], None]) -> None:
        """Deliver what comes out at the other end within a step."""
        self._spent_bytes += budget_bytes
        while self.waiting and len(self.waiting[0]) <= self._spent_bytes:
            payload = self.waiting.popleft()
            self._spent_bytes -= len(payload)
            self.sent_bytes += len(payload)
            receive(payload)
        if not self.waiting:
            self._spent_bytes = 0


class ViewOfOther(FakeClusterView):
    """View of the cluster from one of two nodes, with the boot and version of the other."""

    def __init__(self, nodes: TwoNodes, name: str, other: SessionBoot) -> None:
        super().__init__(name, BOOTS[name])
        self.nodes = nodes
        self.other = other

    def boot_of(self, _node: str) -> SessionBoot:
        return self.other

    def speaks(self, _node: str) -> int:
        return self.nodes.speaks


class TwoNodes:
    """Clients at a, and queues that live on b."""

    def __init__(self, speaks: int = COUNTS_SINCE) -> None:
        self.clock = ManualClock(wall_ms=10**9)
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.speaks = speaks
        """Version of links that both speak."""
        self.links = {"a": SlowLinks(), "b": SlowLinks()}
        self.node_sessions = {
            "a": self._new_node_sessions("a", "b"),
            "b": self._new_node_sessions("b", "a"),
        }
        self.confirmed: Counter[int] = Counter()
        self.delivered: Counter[int] = Counter()
        self.queues: list[Queue] = []
        self.lines = [self._queue(number) for number in range(QUEUES)]
        for name, other in ("ab", "ba"):
            self.node_sessions[name].transport.link_changed(other, True)

    def _new_node_sessions(self, name: str, other: str) -> NodeSessions:
        view = ViewOfOther(self, name, BOOTS[other])
        return NodeSessions(SessionTransport(view, self.links[name], self, self, self.clock))

    def touch_consensus(self) -> None:
        """Turns are taken by hand."""

    def call_soon(self, act: Callable[[], None]) -> None:
        self.call_later(0.0, act)

    def call_later(self, delay_s: float, act: Callable[[], None]) -> Timer:
        self.timers.append((self.clock.now_ms() + round(1_000 * delay_s), act))
        return Timer(act)

    def _queue(self, number: int) -> LeaderRoute:
        definition = QueueDefinition(QueueSpec(f"q{number}"), id=100 + number, home="b")
        queue = Queue(definition.spec, FakeQueueHost(), definition=definition)
        self.queues.append(queue)
        leaders = self.node_sessions["b"].leaders
        leader = Leader("b", BOOTS["b"], 1)
        classic_host = ClassicQueueHost(
            queue, leader, vhost="/", commits=NoCommits(), on_unused=lambda _queue: None,
            on_output=lambda: leaders.touch_output(definition.id),
        )  # fmt: skip
        leaders.queues[definition.id] = classic_host
        leaders.begin_sessions(definition.id, classic_host.sessions)

        def reported(events: list[Event]) -> None:
            for event in events:
                if isinstance(event, PublishConfirmed):
                    self.confirmed[number] += event.count
                elif isinstance(event, MessagesDelivered):
                    self.delivered[number] += len(event.deliver.contents)

        return self.node_sessions["a"].open(definition, reported)

    def step(self) -> None:
        """A turn of each, and what the links take meanwhile."""
        self.clock.advance(STEP_MS)
        now_ms = self.clock.now_ms()
        due = [act for at_ms, act in self.timers if at_ms <= now_ms]
        self.timers = [timer for timer in self.timers if timer[0] > now_ms]
        for act in due:
            act()
        for name, other in ("ab", "ba"):
            self.node_sessions[name].before_consensus()
            self.node_sessions[name].after_consensus()
            self.links[name].drain(
                STEP_BYTES, partial(self.node_sessions[other].transport.receive, name)
            )


def test_each_queue_gets_its_share_of_a_link_that_is_full() -> None:
    nodes = TwoNodes()
    asking = [SessionRequests(line.session) for line in nodes.lines]
    origin = Origin("", "k")
    for _ in range(200):
        for line, asked, queue in zip(nodes.lines, asking, nodes.queues, strict=True):
            while not line.session.is_full:
                asked.publish([origin] * BATCH, [BODY] * BATCH)
                line.touch()
            queue.purge()
        nodes.step()
    confirmed = sum(nodes.confirmed.values())
    share = confirmed / QUEUES
    assert confirmed > 10_000
    assert all(nodes.confirmed[number] > share / 2 for number in range(QUEUES)), nodes.confirmed
    under_way = sum(map(len, nodes.links["a"].waiting)) + 2 * QUEUES * BATCH * len(BODY)
    assert nodes.links["a"].sent_bytes < confirmed * len(BODY) * 1.05 + under_way


@pytest.mark.parametrize(
    ("speaks", "reported"), [(COUNTS_SINCE, Counts(3, 1)), (COUNTS_SINCE - 1, NEW)]
)
def test_who_speaks_an_earlier_version_is_notified_of_no_counts(
    speaks: int, reported: Counts
) -> None:
    nodes = TwoNodes(speaks)
    asking = SessionRequests(nodes.lines[0].session)
    asking.publish([Origin("", "k")], [b"body"], counts=Counts(3, 1))
    nodes.lines[0].touch()
    nodes.node_sessions["a"].before_consensus()
    frames = [decode(payload) for payload in nodes.links["a"].waiting]
    assert [
        each.counts for frame in frames for each in frame.messages if isinstance(each, Publish)
    ] == [reported]
    nodes.step()
    nodes.step()
    assert nodes.queues[0].ready_count == 1


def test_consumers_of_all_queues_get_their_share() -> None:
    nodes = TwoNodes()
    origin = Origin("", "k")
    for line in nodes.lines:
        SessionRequests(line.session).attach(0, AttachTerms("t", no_ack=True), credit=100_000)
        line.touch()
    for _ in range(200):
        for queue in nodes.queues:
            if queue.ready_count < 4 * BATCH:
                queue.enqueue([origin] * BATCH, [BODY] * BATCH, BATCH * len(BODY))
            for delivery_batch in queue.pump():
                delivery_batch.holder.deliver(delivery_batch)
        nodes.step()
    share = sum(nodes.delivered.values()) / QUEUES
    assert share > 500
    assert all(nodes.delivered[number] > share / 2 for number in range(QUEUES)), nodes.delivered
