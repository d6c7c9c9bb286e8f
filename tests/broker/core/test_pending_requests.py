"""Requests of a client while definitions take their time, as in a cluster.

A channel does not act on what came behind a declaration until that has come true; the others do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from fluffle.broker.base.errors import BrokerError, InternalError
from fluffle.broker.core import pending_requests
from fluffle.broker.metadata.change import Facts
from fluffle.broker.metadata.metadata import Apply, Decide
from fluffle.broker.protocols.amqp091 import topology_methods
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Method,
    Queue,
    encode_method,
    make,
)
from tests.support.edge import Client, Edge, publish_frames
from tests.support.metadata import ManualMetadata


class Harness:
    """A node in whose cluster nothing is committed before `commit`."""

    def __init__(self, *, announces: bool = False) -> None:
        self.edge = Edge(make_metadata=ManualMetadata, announces=announces)
        self.edge.count()
        metadata = self.edge.services.metadata
        assert isinstance(metadata, ManualMetadata)
        self.metadata = metadata
        self.client = self.edge.connect()

    def send(self, *methods: Method, channel: int = 1) -> None:
        self.client.send(*(encode_method(channel, method) for method in methods))

    def commit(self) -> None:
        self.metadata.commit()
        self.edge.run()

    def settle(self) -> None:
        """Commit until nothing is under way."""
        while len(self.metadata):
            self.commit()

    def declare(self, name: str = "q", channel: int = 1) -> None:
        """A queue that is there at once."""
        self.send(make(Queue.Declare, queue=name), channel=channel)
        self.settle()
        self.client.expect(Queue.DeclareOk, channel)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_declaration_is_answered_when_it_has_come_true(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q"))
    harness.client.expect_nothing()
    assert "q" not in harness.edge.vhost.queues
    harness.commit()
    assert harness.client.expect(Queue.DeclareOk).queue == "q"
    harness.send(make(Queue.Declare, queue="q"))
    harness.client.expect(Queue.DeclareOk)  # it is there already


def test_what_came_behind_it_waits_and_finds_it(harness: Harness) -> None:
    harness.client.send(
        encode_method(1, make(Exchange.Declare, exchange="x", exchange_type="fanout")),
        encode_method(1, make(Queue.Declare, queue="q")),
        encode_method(1, make(Queue.Bind, queue="", exchange="x")),
        publish_frames(b"1", exchange="x"),
        encode_method(1, Basic.Get(queue="q")),
    )
    for name in ("Exchange.DeclareOk", "Queue.DeclareOk", "Queue.BindOk"):
        harness.client.expect_nothing()
        harness.commit()
        if name != "Queue.BindOk":
            assert harness.client.names() == [name]
    assert harness.client.names() == ["Queue.BindOk", "Basic.GetOk"]


def test_what_comes_later_waits_as_well(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q", nowait=True))
    harness.client.publish(b"1")
    harness.send(make(Queue.Declare, queue="q", passive=True))
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.expect(Queue.DeclareOk).message_count == 1


def test_other_channels_and_connections_go_on(harness: Harness) -> None:
    harness.declare("r")
    harness.client.open_channel(2)
    harness.client.confirm_select(2)
    other = harness.edge.connect()
    harness.client.send(
        encode_method(1, make(Queue.Declare, queue="q")),
        publish_frames(b"1", "r", channel=2),
        encode_method(2, Basic.Get(queue="r")),
    )
    assert harness.client.names() == ["Basic.GetOk", "Basic.Ack"]
    assert other.ready_count("r") == 0
    harness.commit()
    assert harness.client.names() == ["Queue.DeclareOk"]


def test_two_channels_wait_each_for_its_own(harness: Harness) -> None:
    harness.client.open_channel(2)
    for channel, name in ((1, "a"), (2, "b")):
        harness.client.send(
            encode_method(channel, make(Queue.Declare, queue=name)),
            encode_method(channel, make(Queue.Declare, queue=name, passive=True)),
        )
    for channel in (1, 2):
        harness.client.expect_nothing()
        harness.commit()
        for _ in range(2):
            harness.client.expect(Queue.DeclareOk, channel)


def test_of_two_who_declare_the_same_both_have_it(harness: Harness) -> None:
    other = harness.edge.connect()
    harness.send(make(Queue.Declare, queue="q"))
    other.send(encode_method(1, make(Queue.Declare, queue="q")))
    harness.commit()
    harness.commit()
    assert harness.metadata.stale_count == 1
    assert [harness.client.names(), other.names()] == [["Queue.DeclareOk"]] * 2


class ReportedLater(ManualMetadata):
    """Metadata that answer only when the other nodes have applied the change, too."""

    def __init__(self, apply: Apply, facts: Facts) -> None:
        super().__init__(apply, facts)
        self.unanswered: list[Callable[[], None]] = []

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        super().change(decide, partial(self.unanswered.append, done), failed)

    def answer(self) -> None:
        while self.unanswered:
            self.unanswered.pop(0)()


def test_a_queue_that_is_deleted_before_its_declare_is_answered_was_there() -> None:
    edge = Edge(make_metadata=ReportedLater)
    metadata = edge.services.metadata
    assert isinstance(metadata, ReportedLater)
    client, other = edge.connect(), edge.connect()

    def settle() -> None:
        while len(metadata):
            metadata.commit()
        edge.run()

    client.send(encode_method(1, make(Queue.Declare, queue="q")))
    settle()
    metadata.answer()
    edge.run()
    client.expect(Queue.DeclareOk)
    client.send(encode_method(1, make(Queue.Declare, queue="q")))
    other.send(encode_method(1, make(Queue.Delete, queue="q")))
    settle()
    assert not edge.vhost.queues
    metadata.answer()
    edge.run()
    ok = client.expect(Queue.DeclareOk)
    assert (ok.queue, ok.message_count, ok.consumer_count) == ("q", 0, 0)


def test_who_declares_something_else_in_between_is_refused(harness: Harness) -> None:
    """And what came behind on his channel does not count, until he opens it anew."""
    other = harness.edge.connect()
    harness.send(make(Queue.Declare, queue="q"))
    other.send(
        encode_method(1, make(Queue.Declare, queue="q", durable=True)),
        encode_method(1, make(Queue.Declare, queue="never")),
        encode_method(1, Channel.CloseOk()),
        encode_method(1, Channel.Open()),
    )
    other.expect_nothing()
    harness.settle()
    close = other.expect_channel_closed(406, "inequivalent arg 'durable' for queue 'q'")
    assert (close.class_id, close.method_id) == (50, 10)
    other.expect(Channel.OpenOk)
    assert list(harness.edge.vhost.queues) == ["q"]


def test_a_deletion_in_between_is_found_out(harness: Harness) -> None:
    harness.declare("q")
    other = harness.edge.connect()
    other.send(encode_method(1, make(Queue.Delete, queue="q")))
    harness.send(make(Queue.Bind, queue="q", exchange="amq.fanout"))
    harness.settle()
    other.expect(Queue.DeleteOk)
    harness.client.expect_channel_closed(404, "no queue 'q' in vhost '/'")


def test_consumers_are_cancelled_behind_the_answer(harness: Harness) -> None:
    harness.declare("q")
    harness.client.consume("q")
    harness.send(make(Queue.Delete, queue="q"))
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Queue.DeleteOk", "Basic.Cancel"]


def test_the_end_of_a_connection_waits_for_all_its_channels(harness: Harness) -> None:
    harness.client.open_channel(2)
    close = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    harness.client.send(
        encode_method(1, make(Queue.Declare, queue="a", nowait=True)),
        encode_method(2, make(Queue.Declare, queue="b", nowait=True)),
        encode_method(0, close),
    )
    harness.client.expect_nothing()
    harness.commit()
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.names() == ["Connection.CloseOk"]
    assert list(harness.edge.vhost.queues) == ["a", "b"]


def test_what_was_the_connections_own_goes_before_it_hears_of_its_end(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    harness.settle()
    harness.client.expect(Queue.DeclareOk)
    close = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    harness.send(close, channel=0)
    harness.client.expect_nothing()
    harness.commit()
    assert harness.edge.vhost.queues == {}
    assert harness.client.names() == ["Connection.CloseOk"]


def test_who_closes_a_connection_hears_that_its_own_may_not_have_gone(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    harness.settle()
    harness.client.expect(Queue.DeclareOk)
    close = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    harness.send(close, channel=0)
    assert harness.metadata.late is not None
    harness.metadata.late(InternalError("the operation timed out"))
    harness.edge.run()
    harness.client.expect_closed(541, "the operation timed out")


def test_who_hangs_up_meanwhile_is_not_answered(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    harness.settle()
    close = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    harness.send(close, channel=0)
    harness.client.transport.lose()
    harness.settle()
    assert harness.edge.vhost.queues == {}


def test_an_exclusive_queue_that_comes_too_late_goes_again(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    harness.client.transport.lose()
    harness.commit()
    assert list(harness.edge.vhost.queues) == ["q"]
    harness.settle()
    assert harness.edge.vhost.queues == {}
    statistics = harness.edge.statistics
    assert not statistics.observer.connections, "its end was counted, and once"


def test_the_end_of_a_connection_is_announced_once_however_late_its_queue_comes() -> None:
    harness = Harness(announces=True)
    harness.settle()
    events = harness.edge.connect()
    for method in (
        make(Queue.Declare, queue="events"),
        make(
            Queue.Bind, queue="events", exchange="amq.rabbitmq.event",
            routing_key="connection.closed",
        ),
    ):  # fmt: skip
        events.send(encode_method(1, method))
        harness.settle()
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    harness.client.transport.lose()
    harness.settle()
    assert harness.edge.vhost.queues["events"].ready_count == 1


def test_an_exclusive_queue_that_comes_after_its_client_was_given_up_goes_again(
    harness: Harness,
) -> None:
    harness.edge.count()
    harness.client = harness.edge.connect()
    harness.client.open_channel(2)
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    harness.send(make(Queue.Declare, queue="r", exclusive=True), channel=2)
    harness.metadata.give_up()
    harness.edge.run()
    harness.client.expect_closed(541, "the operation timed out")
    harness.client.transport.lose()
    harness.commit()
    assert list(harness.edge.vhost.queues) == ["q"]
    harness.settle()
    assert harness.edge.vhost.queues == {}


def test_what_is_bound_to_such_a_queue_goes_with_it(harness: Harness) -> None:
    harness.send(
        make(Queue.Declare, queue="q", exclusive=True, nowait=True),
        make(Queue.Bind, queue="q", exchange="amq.topic", routing_key="k", nowait=True),
    )
    harness.commit()
    harness.client.transport.lose()
    harness.settle()
    topology = harness.edge.vhost.topology
    assert harness.edge.vhost.queues == {}
    assert not list(topology.bindings_to(DestinationKind.QUEUE, "q"))


def test_a_connection_that_goes_on_keeps_the_exclusive_queue_that_came_late(
    harness: Harness,
) -> None:
    harness.send(make(Queue.Declare, queue="q", exclusive=True))
    channels = harness.client.connection.open_channels
    assert channels is not None
    channels._end(1)
    harness.settle()
    assert list(harness.edge.vhost.queues) == ["q"]


def test_what_nobody_waits_for_is_not_decided_anew(harness: Harness) -> None:
    other = harness.edge.connect()
    other.send(encode_method(1, make(Queue.Declare, queue="q")))
    harness.send(make(Queue.Declare, queue="q", durable=True))
    harness.client.transport.lose()
    harness.settle()
    assert harness.metadata.stale_count == 1
    assert not harness.edge.vhost.queues["q"].spec.durable


def test_a_channel_that_is_gone_takes_no_queue_of_its_connection_along(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="mine", exclusive=True))
    harness.settle()
    harness.send(make(Queue.Declare, queue="q"))
    channels = harness.client.connection.open_channels
    assert channels is not None
    channels._end(1)
    harness.settle()
    assert list(harness.edge.vhost.queues) == ["mine", "q"]


def test_a_violation_does_not_wait(harness: Harness) -> None:
    harness.client.send(encode_method(1, make(Queue.Declare, queue="q")), b"\x07garbage")
    harness.client.expect_closed(501)
    harness.settle()
    harness.client.expect_nothing()


def test_a_bug_behind_a_wait_ends_one_connection(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_flags: object) -> None:
        raise RuntimeError("a bug")

    other = harness.edge.connect()
    harness.send(make(Queue.Declare, queue="q"))
    with monkeypatch.context() as patch:
        patch.setattr(topology_methods, "answer_declare", fail)
        harness.commit()
    harness.client.expect_closed(541, "the broker failed")
    assert other.ready_count("q") == 0


def test_who_sends_much_behind_a_declaration_is_not_read(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_requests, "KEPT_BYTES_MAX", 10_000)
    harness.client.open_channel(2)
    harness.send(make(Queue.Declare, queue="q", nowait=True))
    for number in range(30):
        harness.client.publish(bytes([number]) * 1_000)
    assert not harness.client.transport.is_reading()
    harness.send(make(Queue.Declare, queue="q", passive=True), channel=2)
    harness.client.expect_nothing()
    harness.commit()
    assert harness.client.transport.is_reading()
    assert harness.client.expect(Queue.DeclareOk, 2).message_count == 30


def test_who_waits_is_not_read_when_all_together_have_sent_much(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are; each by itself has sent little."""
    monkeypatch.setattr(pending_requests, "ALL_KEPT_BYTES_MAX", 10_000)
    clients = [harness.edge.connect() for _ in range(30)]
    for number, client in enumerate(clients):
        client.send(encode_method(1, make(Queue.Declare, queue=f"q{number}", nowait=True)))
    for _ in range(5):
        for number, client in enumerate(clients):
            client.publish(b"x" * 1_000, queue=f"q{number}")
    deferred = harness.edge.services.connections.deferred
    assert 10_000 < deferred.total < 10_000 + 2_000 * len(clients)
    assert not any(client.transport.is_reading() for client in clients)
    clients.pop().transport.lose()
    harness.settle()
    assert all(client.transport.is_reading() for client in clients)
    assert deferred.total == 0
    for number, client in enumerate(clients):
        assert client.ready_count(f"q{number}") == 5


def test_a_transaction_and_a_confirm_wait_in_order(harness: Harness) -> None:
    client: Client = harness.client
    client.confirm_select()
    client.send(
        encode_method(1, make(Queue.Declare, queue="q")),
        publish_frames(b"1", mandatory=True),
        encode_method(1, Confirm.Select()),
    )
    client.expect_nothing()
    harness.commit()
    assert client.names() == ["Queue.DeclareOk", "Confirm.SelectOk", "Basic.Ack"]
