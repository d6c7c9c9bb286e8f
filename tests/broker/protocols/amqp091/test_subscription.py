"""Runs become frames, or go back: what was handed out is sent or still somebody's."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.protocol import hot
from fluffle.protocol.methods import Basic, encode_method, make
from tests.broker.queues.queue_harness import ORIGIN
from tests.support.definitions import engine_of
from tests.support.edge import Client, Edge


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run of deliveries that is built be a bug."""
    build = hot.build_deliveries
    calls = 0

    def build_or_fail(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug")
        build(*arguments)

    monkeypatch.setattr(
        "fluffle.broker.protocols.amqp091.basic_methods.build_deliveries", build_or_fail
    )


def consume_twice(client: Client, *, no_ack: bool) -> None:
    """Two consumers of one channel; the second with `no_ack`."""
    client.declare()
    client.consume(tag="first")
    client.consume(tag="second", no_ack=no_ack)


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_delivery_that_fails_loses_nothing(monkeypatch: pytest.MonkeyPatch, no_ack: bool) -> None:
    """Both runs were handed out in one round, and the first one's failure ends both consumers."""
    edge = Edge()
    victim, other = edge.connect(), edge.connect()
    consume_twice(victim, no_ack=no_ack)
    queue = engine_of(edge.vhost, "q")
    bodies = [b"%d" % number for number in range(10)]
    fail_once(monkeypatch)
    other.publish(*bodies)
    victim.expect_closed(541, "INTERNAL_ERROR")
    assert (queue.ready_count, queue.in_flight, queue.consumer_count) == (10, 0, 0)
    other.consume(no_ack=True)
    assert other.bodies() == bodies


def test_what_was_handed_to_a_consumer_that_was_cancelled_goes_back() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.consume()
    queue = engine_of(edge.vhost, "q")
    queue.enqueue([ORIGIN] * 2, [b"1", b"2"], 2)
    delivery_batches = list(queue.pump())
    client.feed(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    for delivery_batch in delivery_batches:
        delivery_batch.holder.deliver(delivery_batch)
    edge.run()
    assert client.names() == ["Basic.CancelOk"]
    assert (queue.ready_count, queue.in_flight) == (2, 0)
