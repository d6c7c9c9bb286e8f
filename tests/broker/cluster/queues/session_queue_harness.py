"""A node whose queue is led elsewhere: a real stream and leader in this process, moved by hand.

Frames are bytes.  What is proposed is committed at once, unless a test holds it; another leader
begins with what is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient as StreamEdge
from fluffle.broker.cluster.queues.pending_replies import (
    ClassicErrorTexts,
    Deletions,
    QuorumErrorTexts,
)
from fluffle.broker.cluster.queues.ports import LeaderCounts, OnEvents
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import PeekRequest, PeekResult
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.protocol.methods import Basic, encode_method
from fluffle.protocol.properties import decode_properties
from tests.broker.cluster.queue_sessions.session_harness import GROUP, LeaderWithSessions
from tests.support.edge import Arrival, Client, Edge
from tests.support.payloads import joined

CallSoon = Callable[[Callable[[], None]], None]

BOOT = m.SessionBoot(1, 100)
LEADER = m.SessionBoot(1, 200)
NODE = "near"
STEPS_MAX = 10_000

CAME_BACK = "messages of queue 'q' in vhost '/' have come back and are not settled"


class ManualSessionPort:
    """An `EdgePort`, and the leader at the other end."""

    is_away = False

    def __init__(self, on_events: OnEvents, call_soon: CallSoon) -> None:
        self.session = StreamEdge(GROUP, BOOT)
        self.log: list[bytes] = []
        self.is_committing = True
        self.is_linked = False
        self._on_events = on_events
        self._call_soon = call_soon
        self._is_due = False
        self._term = 0
        self.led: LeaderWithSessions
        self.elect()

    def touch(self) -> None:
        """Schedule a run, as `LeaderRoute` does; acknowledgements alone wait for further output."""
        if self.session.deferrable and not self.session.has_output:
            return
        if not self._is_due:
            self._is_due = True
            self._call_soon(self.run)

    # What happens to the leader

    def elect(self) -> None:
        """Elect another leader, with what is committed."""
        self._term += 1
        image = QueueImage()
        for index, payload in enumerate(self.log, 1):
            image.apply(index, payload)
        self.led = LeaderWithSessions(
            m.Leader("far", LEADER, self._term), image, self.log, now_ms=0
        )
        self.link()

    def link(self) -> None:
        self.is_linked = True
        self.led.sessions.linked(NODE, BOOT)
        self.session.connect(self.led.own)
        self.touch()

    def cut(self) -> None:
        """Cut the links to all members."""
        self.is_linked = False
        self.led.sessions.unlinked(NODE, now_ms=0)
        self.session.connect(None)

    def forget_node(self) -> None:
        """The node is taken for dead, for good: its sessions go."""
        self.led.sessions.removed(NODE)
        self.run()
        self.link()

    def commit(self) -> None:
        """All that is proposed."""
        while self.led.proposals:
            payload, on_outcome = self.led.proposals.popleft()
            self.log.append(payload)
            self.led.image.apply(len(self.log), payload)
            self.led.image.state.check()
            on_outcome(True)
            self.led.turn()

    # Frames

    def run(self) -> None:
        """Let everything arrive, until nothing is under way."""
        self._is_due = False
        for _ in range(STEPS_MAX):
            if not self._step():
                return
        raise AssertionError("it does not come to rest")

    def _step(self) -> bool:
        has_moved = False
        while self.is_linked and (sent := self.session.output()) is not None:
            has_moved = True
            frame = decode(joined(encode(sent[1])))
            assert isinstance(frame, m.ClientFrame)
            self.led.sessions.receive(NODE, frame)
        self.led.turn()
        if self.is_committing:
            self.commit()
        for _node, sending in (
            tuple(self.led.sessions.output(lambda _node: True)) if self.is_linked else ()
        ):
            has_moved = True
            arrived = decode(joined(encode(sending)))
            assert isinstance(arrived, m.LeaderFrame)
            self._on_events(apply_frame(self.session, arrived))
        return has_moved


class ManualSessionDirectory:
    """The session directory of a node with one such queue."""

    def __init__(self, call_soon: CallSoon) -> None:
        self._call_soon = call_soon
        self._on_events: OnEvents
        self.far: ManualSessionPort

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> ManualSessionPort:
        assert definition.id == GROUP
        self._on_events = on_events
        self.far = ManualSessionPort(on_events, self._call_soon)
        return self.far

    def close(self, queue: int) -> None:
        assert queue == GROUP
        self.far.is_linked = False
        self._on_events(self.far.session.deleted())

    def counts_here(self, queue: int) -> LeaderCounts | None:
        """Counts of the queue here: None, for it is led elsewhere."""
        assert queue == GROUP
        return None

    def ask_counts(
        self, queue: int, done: Callable[[LeaderCounts | None], None], *, in_use: bool = False
    ) -> None:
        assert queue == GROUP
        del in_use
        self._call_soon(lambda: done(self._counts()))

    def peek(
        self, queue: int, view: PeekRequest, done: Callable[[PeekResult | None], None]
    ) -> None:
        assert queue == GROUP
        led = self.far.led.leadership
        self._call_soon(lambda: done(led.queue.peek(view) if self.far.is_linked else None))

    def _counts(self) -> LeaderCounts | None:
        queue = self.far.led.leadership.queue
        if not self.far.is_linked:
            return None
        return LeaderCounts(queue.ready_count, queue.in_flight, queue.consumer_count)


class QueueHarness:
    """A node with a queue `q` that is led elsewhere, and clients of it."""

    def __init__(
        self, queue_type: QueueType = QueueType.QUORUM, *, node: Edge | None = None
    ) -> None:
        self.node = node or Edge()
        self.directory = ManualSessionDirectory(self.node.scheduler.call_soon)
        spec = QueueSpec("q", durable=True, queue_type=queue_type)
        is_quorum = queue_type is QueueType.QUORUM
        self.queue = SessionQueue(
            QueueDefinition(spec, id=GROUP),
            "/",
            self.directory,
            self.node.scheduler.call_later,
            QuorumErrorTexts() if is_quorum else ClassicErrorTexts("far", is_durable=True),
            deletions=Deletions(LOCAL_READ_BARRIER, {}),
        )
        self.node.vhost.queues["q"] = self.queue
        self.far = self.directory.far
        self.client = self.node.connect()

    def run(self) -> None:
        self.far.touch()
        self.node.run()

    def counts(self) -> tuple[int, int, int]:
        """Counts that the leader has soon: ready, held, consumers."""
        self.far.session.deferrable = 0
        self.run()
        queue = self.far.led.leadership.queue
        return (queue.ready_count, queue.in_flight, queue.consumer_count)

    def delete(self) -> None:
        """The definition is gone."""
        for consumer in self.node.vhost.queues.pop("q").consumers:
            consumer.sink.cancelled(consumer)
        self.queue.end()
        self.node.run()


def get(client: Client, *, no_ack: bool = False) -> tuple[bytes, Any] | None:
    """A message and how it came."""
    client.send(encode_method(1, Basic.Get(queue="q", no_ack=no_ack)))
    arrival = client.take()
    if isinstance(arrival.method, Basic.GetEmpty):
        return None
    assert isinstance(arrival.method, Basic.GetOk), str(arrival)
    return arrival.body, arrival.method


def get_with_headers(client: Client) -> tuple[bool, Any]:
    client.send(encode_method(1, Basic.Get(queue="q")))
    arrival = client.take()
    assert isinstance(arrival.method, Basic.GetOk)
    return bool(arrival.method.redelivered), headers_of(arrival)


def headers_of(arrival: Arrival) -> Any:
    return decode_properties(arrival.header[12:]).headers
