"""Consumers of a client that is of no protocol: started, served, settled, stopped and ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.base.errors import AccessRefused, NotImplementedHere
from fluffle.broker.core import topology
from fluffle.broker.core.consumer import (
    ConsumerTerms,
    consumer_lost,
    consumer_started,
    deliver_ready,
    end_consumers,
    forget_consumer,
    start_consumer,
    stop_consumer,
)
from fluffle.broker.core.settlement import Settlements
from fluffle.broker.metadata.metadata import ignore_done, never
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    Outcome,
    QueueHandle,
    SharedCredit,
)
from fluffle.protocol.properties import Properties, body_of, build_content, encode_properties
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import FieldTable
from tests.support.edge import Edge
from tests.support.observers import NodeRecorder
from tests.support.sessions import session_of


class FakeSink:
    """A `ClientSink` that numbers what it is given, and keeps the bodies."""

    def __init__(self, channel: FakeChannel) -> None:
        self._channel = channel
        self.consumer: Consumer
        self.arguments: FieldTable = {}
        self.bodies: list[bytes] = []
        self.is_ended = False
        self.lost_tags: list[str] = []

    def room(self, consumer: Consumer) -> int:
        del consumer
        return 100

    def reserve(self, delivery_batch: DeliveryBatch) -> None: ...

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._channel.settlements.unacked.number(delivery_batch)
        self.bodies += map(body_of, delivery_batch.contents)

    def cancelled(self, consumer: Consumer) -> None:
        if consumer_lost(self._channel, consumer.tag):
            self.lost_tags.append(consumer.tag)

    def overdue(self, consumer: Consumer, late: object) -> None:
        raise AssertionError("nothing is held for too long")

    def timed_out(self, consumer: Consumer, lost: object) -> None:
        raise AssertionError("nothing is held for too long")

    def activity_changed(self, consumer: Consumer) -> None: ...

    def end(self) -> None:
        self.is_ended = True
        del self.consumer


class FakeChannel:
    """Whatever has consumers: a `ConsumerChannel` of a client without a socket."""

    number = 1
    confirms = None

    def __init__(self, edge: Edge) -> None:
        self.session = session_of(edge)
        self.settlements = Settlements(self.session)
        self.shared_credit = SharedCredit()
        self.subscriptions: dict[str, FakeSink] = {}

    def credit_of(self, queue: QueueHandle) -> SharedCredit:
        del queue
        return self.shared_credit

    def start(self, tag: str = "c", queue: str = "q", **terms: int) -> FakeSink:
        sink = FakeSink(self)
        found = topology.readable_queue(self.session, queue)
        asked = ConsumerTerms(
            tag,
            no_ack=bool(terms.get("no_ack")),
            exclusive=bool(terms.get("exclusive")),
            prefetch=terms.get("prefetch", 0),
        )
        assert start_consumer(self, found, sink, asked) is None
        consumer_started(self, tag, {"x-name": ("S", tag.encode())})
        return sink

    def stop(self, tag: str = "c") -> None:
        assert stop_consumer(self, tag) is None
        forget_consumer(self, tag)

    def settle(self, first: int, last: int, outcome: Outcome = Outcome.ACKED) -> None:
        stretches, unknown = self.settlements.unacked.take(first, last)
        assert unknown is None
        self.settlements.settle(stretches, outcome)


class SeenConsumers(NodeRecorder):
    """An `Observer` of the consumers of a node."""

    def __init__(self) -> None:
        super().__init__(None)
        self.seen: list[tuple[str, str]] = []

    def consumer_started(self, channel: object, consumer: Consumer, arguments: FieldTable) -> None:
        self.seen.append(("started", consumer.tag))
        assert arguments == {"x-name": ("S", consumer.tag.encode())}

    def consumer_ended(self, channel: object, consumer: Consumer) -> None:
        self.seen.append(("ended", consumer.tag))


@pytest.fixture
def edge() -> Edge:
    return Edge()


@pytest.fixture
def observer(edge: Edge) -> SeenConsumers:
    observer = SeenConsumers()
    edge.services = replace(edge.services, observers=(observer,))
    return observer


@pytest.fixture
def channel(edge: Edge, observer: SeenConsumers) -> FakeChannel:
    declare(edge)
    return FakeChannel(edge)


def declare(edge: Edge, name: str = "q", *, auto_delete: bool = False) -> None:
    session = session_of(edge)
    declared = Declaration(name, auto_delete=auto_delete)
    request = topology.QueueDeclaration(session, topology.named(session, declared))
    session.metadata.change(request.decide, ignore_done, never)


def publish(edge: Edge, *bodies: bytes, queue: str = "q") -> None:
    """Put messages into a queue; what consumers get is delivered with the turn."""
    origin = edge.vhost.origin("", queue)
    contents = [build_content(encode_properties(Properties()), body) for body in bodies]
    edge.vhost.queues[queue].enqueue(
        [origin] * len(bodies), contents, sum(map(len, contents)), persistent=False
    )
    edge.run()


def test_what_is_published_comes_to_the_sink_and_is_settled(
    edge: Edge, channel: FakeChannel
) -> None:
    sink = channel.start()
    publish(edge, b"1", b"2", b"3")
    assert (sink.bodies, sink.consumer.in_flight) == ([b"1", b"2", b"3"], 3)
    channel.settle(1, 2)
    queue = edge.vhost.queues["q"]
    assert (queue.in_flight, len(channel.settlements.unacked)) == (1, 1)
    channel.settle(3, 3, Outcome.NACK_REQUEUED)
    edge.run()
    assert sink.bodies[3:] == [b"3"]


def test_no_more_than_the_prefetch_is_given(edge: Edge, channel: FakeChannel) -> None:
    sink = channel.start(prefetch=2)
    publish(edge, b"1", b"2", b"3")
    assert sink.bodies == [b"1", b"2"]
    channel.settle(1, 1)
    edge.run()
    assert sink.bodies == [b"1", b"2", b"3"]


def test_nothing_is_settled_that_needs_no_acknowledgement(edge: Edge, channel: FakeChannel) -> None:
    sink = channel.start(no_ack=True)
    publish(edge, b"1")
    assert (sink.bodies, len(channel.settlements.unacked)) == ([b"1"], 0)


def test_one_that_is_stopped_gets_what_was_published_before(
    edge: Edge, channel: FakeChannel, observer: SeenConsumers
) -> None:
    sink = channel.start()
    queue = edge.vhost.queues["q"]
    queue.enqueue(
        [edge.vhost.origin("", "q")],
        [build_content(encode_properties(Properties()), b"before")],
        1,
        persistent=False,
    )
    channel.stop()
    publish(edge, b"behind")
    assert (sink.bodies, sink.is_ended, channel.subscriptions) == ([b"before"], True, {})
    assert (queue.ready_count, queue.consumer_count) == (1, 0)
    assert observer.seen == [("started", "c"), ("ended", "c")]
    channel.stop()  # once more, and nobody hears of it
    assert len(observer.seen) == 2


def test_the_last_to_be_stopped_takes_a_queue_with_it_that_wants_that(edge: Edge) -> None:
    declare(edge, auto_delete=True)
    channel = FakeChannel(edge)
    channel.start()
    channel.stop()
    assert "q" not in edge.vhost.queues


def test_an_end_stops_all_and_gives_back_what_they_hold(
    edge: Edge, channel: FakeChannel, observer: SeenConsumers
) -> None:
    sinks = [channel.start(tag, prefetch=1) for tag in "ab"]
    publish(edge, b"1", b"2", b"3")
    end_consumers(channel)
    whole(channel.settlements.settle_all(Outcome.LOST))
    queue = edge.vhost.queues["q"]
    assert [sink.is_ended for sink in sinks] == [True, True]
    assert (queue.ready_count, queue.in_flight, queue.consumer_count) == (3, 0, 0)
    assert [name for name, _tag in observer.seen] == ["started", "started", "ended", "ended"]


def test_a_queue_that_goes_ends_its_consumers(
    edge: Edge, channel: FakeChannel, observer: SeenConsumers
) -> None:
    sink = channel.start()
    edge.editor.inside("/").delete_queue(edge.vhost.queues["q"])
    assert (sink.lost_tags, sink.is_ended, channel.subscriptions) == (["c"], True, {})
    assert observer.seen == [("started", "c"), ("ended", "c")]


def test_two_do_not_meet_if_one_is_exclusive(edge: Edge, channel: FakeChannel) -> None:
    channel.start(exclusive=True)
    with pytest.raises(AccessRefused):
        FakeChannel(edge).start()
    assert list(channel.subscriptions) == ["c"]


def test_consumers_share_the_credit_of_their_channel(edge: Edge, channel: FakeChannel) -> None:
    channel.shared_credit.limit = 2
    sinks = [channel.start(tag) for tag in "ab"]
    publish(edge, b"1", b"2", b"3")
    assert sum(len(sink.bodies) for sink in sinks) == 2
    end_consumers(channel)
    deliver_ready(channel)
    assert edge.vhost.queues["q"].ready_count == 1


class RefusingChannel(FakeChannel):
    """A channel whose protocol does not let consumers share what they shall."""

    def credit_of(self, queue: QueueHandle) -> SharedCredit:
        raise NotImplementedHere(f"not of '{queue.name}'")


def test_who_may_not_share_room_does_not_consume(edge: Edge, observer: SeenConsumers) -> None:
    declare(edge)
    channel = RefusingChannel(edge)
    with pytest.raises(NotImplementedHere, match="not of 'q'"):
        channel.start()
    assert (edge.vhost.queues["q"].consumer_count, observer.seen) == (0, [])
    assert channel.subscriptions == {}
