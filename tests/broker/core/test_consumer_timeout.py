"""Clients that hold messages for too long: what they hear, and what becomes of the messages."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.base.traffic import AMQP_091
from fluffle.protocol.methods import Basic, Channel, Queue, Tx, encode_method, make, pamqp_table
from fluffle.protocol.wire import PlainValue, to_table
from tests.support.edge import CAPABILITIES, Client, Edge

TIMEOUT_S = 5.0
TEXT = (
    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: "
    "5000 ms. This timeout value can be configured, see consumers doc guide to learn more"
)


def declare(client: Client, name: str, **arguments: PlainValue) -> None:
    table = to_table({key.replace("_", "-"): value for key, value in arguments.items()})
    client.send(encode_method(1, make(Queue.Declare, queue=name, arguments=pamqp_table(table))))
    client.expect(Queue.DeclareOk)


def consume(client: Client, tag: str = "tag", **arguments: PlainValue) -> None:
    table = to_table({key.replace("_", "-"): value for key, value in arguments.items()})
    client.send(
        encode_method(
            1,
            make(Basic.Consume, queue="q", consumer_tag=tag, arguments=pamqp_table(table)),
        )
    )
    client.expect(Basic.ConsumeOk)


def ack(client: Client, tag: int, *, multiple: bool = False) -> None:
    client.send(encode_method(1, make(Basic.Ack, delivery_tag=tag, multiple=multiple)))


@pytest.fixture
def edge() -> Edge:
    return Edge()


@pytest.fixture
def client(edge: Edge) -> Client:
    client = edge.connect()
    declare(client, "q", x_consumer_timeout=5_000)
    return client


def test_the_consumer_of_a_client_that_understands_it_is_cancelled(
    edge: Edge, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    queue = edge.vhost.queues["q"]
    client.publish(b"a", b"b")
    consume(client)
    client.expect(Basic.Deliver)
    client.expect(Basic.Deliver)
    edge.advance(TIMEOUT_S - 0.01)
    assert queue.queue_counts == (0, 2, 1, 0)
    with caplog.at_level(logging.WARNING):
        edge.advance(0.02)
    cancel = client.expect(Basic.Cancel)
    assert (cancel.consumer_tag, cancel.nowait) == ("tag", True)
    assert queue.queue_counts == (2, 0, 0, 0)
    (record,) = [each for each in caplog.records if each.getMessage() == "consumer_timed_out"]
    fields = record.fluffle_fields  # type: ignore[attr-defined]
    assert fields.pop("connection")
    assert fields == {
        "channel": 1, "consumer_tag": "tag", "vhost": "/", "queue": "q", "messages": 2, "first": 1,
        "held_ms": 5_000, "timeout_ms": 5_000,
    }  # fmt: skip
    assert edge.services.runtime.traffic.of(AMQP_091).from_queues.timed_out == 2


def test_what_it_acknowledges_then_is_swallowed_and_it_may_consume_again(
    edge: Edge, client: Client
) -> None:
    client.publish(b"a")
    consume(client)
    client.expect(Basic.Deliver)
    edge.advance(TIMEOUT_S + 0.01)
    client.expect(Basic.Cancel)
    ack(client, 1)
    assert edge.vhost.queues["q"].queue_counts == (1, 0, 0, 0)
    consume(client)
    assert client.expect(Basic.Deliver).redelivered
    ack(client, 2)
    assert edge.vhost.queues["q"].queue_counts == (0, 0, 1, 0)


def test_the_time_that_a_consumer_asks_for_counts_in_any_queue(edge: Edge) -> None:
    client = edge.connect()
    declare(client, "q")
    client.publish(b"a")
    consume(client, x_consumer_timeout=1_000)
    client.expect(Basic.Deliver)
    edge.advance(1.01)
    client.expect(Basic.Cancel)


def test_without_any_it_may_take_as_long_as_it_likes(edge: Edge) -> None:
    client = edge.connect()
    declare(client, "q")
    client.publish(b"a")
    consume(client)
    client.expect(Basic.Deliver)
    edge.advance(1_000_000)
    assert edge.vhost.queues["q"].queue_counts == (0, 1, 1, 0)


def test_the_channel_of_one_that_does_not_is_closed(edge: Edge) -> None:
    client = edge.connect(capabilities=set(CAPABILITIES) - {"consumer_cancel_notify"})
    declare(client, "q", x_consumer_timeout=5_000)
    client.publish(b"a")
    consume(client)
    client.expect(Basic.Deliver)
    edge.advance(TIMEOUT_S + 0.01)
    close = client.expect(Channel.Close)
    assert (close.reply_code, close.reply_text) == (406, TEXT)
    assert (close.class_id, close.method_id) == (0, 0)
    assert edge.vhost.queues["q"].queue_counts == (1, 0, 0, 0)


def test_so_is_that_of_one_that_got_a_message(edge: Edge, client: Client) -> None:
    client.publish(b"a")
    client.send(encode_method(1, make(Basic.Get, queue="q")))
    client.expect(Basic.GetOk)
    edge.advance(TIMEOUT_S + 0.01)
    assert client.expect(Channel.Close).reply_text == TEXT
    assert edge.vhost.queues["q"].queue_counts == (1, 0, 0, 0)


def test_so_is_that_of_one_that_has_cancelled_its_consumer(edge: Edge, client: Client) -> None:
    client.publish(b"a")
    consume(client)
    client.expect(Basic.Deliver)
    client.send(encode_method(1, make(Basic.Cancel, consumer_tag="tag")))
    client.expect(Basic.CancelOk)
    edge.advance(TIMEOUT_S + 0.01)
    assert client.expect(Channel.Close).reply_text == TEXT


def test_what_is_acknowledged_in_a_transaction_is_in_hands_until_its_commit(
    edge: Edge, client: Client
) -> None:
    client.publish(b"a", b"b")
    client.send(encode_method(1, make(Tx.Select)))
    client.expect(Tx.SelectOk)
    consume(client)
    client.expect(Basic.Deliver)
    client.expect(Basic.Deliver)
    ack(client, 1)
    edge.advance(TIMEOUT_S + 0.01)
    client.expect(Basic.Cancel)
    assert edge.vhost.queues["q"].queue_counts == (2, 0, 0, 0)
    client.send(encode_method(1, make(Tx.Commit)))
    client.expect(Tx.CommitOk)
    assert edge.vhost.queues["q"].queue_counts == (2, 0, 0, 0)


def test_a_queue_that_goes_with_its_last_consumer_goes(edge: Edge) -> None:
    client = edge.connect()
    table = pamqp_table(to_table({"x-consumer-timeout": 5_000}))
    client.send(encode_method(1, make(Queue.Declare, queue="q", auto_delete=True, arguments=table)))
    client.expect(Queue.DeclareOk)
    client.publish(b"a")
    consume(client)
    client.expect(Basic.Deliver)
    edge.advance(TIMEOUT_S + 0.01)
    client.expect(Basic.Cancel)
    assert "q" not in edge.vhost.queues
