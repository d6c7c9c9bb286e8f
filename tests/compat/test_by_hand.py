"""Rows for which RabbitMQ 4.0.5 is no oracle: what clients see of 4.3, written down by hand.

7.6: `rabbit_fifo.erl` in the sources of 4.3.
7.7: https://www.rabbitmq.com/docs/quorum-queues on delayed retry.
7.8: `consumer_timeouts.md` in the sources of 4.3.
8.3: https://www.rabbitmq.com/docs/quorum-queues on priorities: 32, of which 4 is that of most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}


@pytest.fixture
def channel(amqp: BlockingVhost) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(f"{amqp.url}?heartbeat=0")) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def declare(channel: BlockingChannel, **said: Any) -> None:
    arguments = {f"x-{name.replace('_', '-')}": value for name, value in said.items()}
    channel.queue_declare("q", durable=True, arguments=QUORUM | arguments)


def publish(channel: BlockingChannel, body: bytes, priority: int | None = None) -> None:
    channel.basic_publish("", "q", body, pika.BasicProperties(priority=priority))


def taken(channel: BlockingChannel, queue: str = "q") -> tuple[int, bool, dict[str, Any]]:
    """The next message: its delivery tag, whether it came back, and its headers."""
    method, properties, _body = channel.basic_get(queue)
    assert method is not None
    return method.delivery_tag, method.redelivered, properties.headers or {}


def counts(handed_out: int, failed: int) -> dict[str, Any]:
    said = {"x-acquired-count": handed_out, "x-delivery-count": failed}
    return {name: count for name, count in said.items() if count}


def test_7_6_what_counts_as_a_failure_is_counted_beside_what_was_handed_out(
    amqp: BlockingVhost, channel: BlockingChannel
) -> None:
    declare(channel)
    publish(channel, b"m")
    failed = 0
    ways = "nack", "reject", "recover", "reject", "lose", "nack", "lose"
    for handed_out, way in enumerate(ways):
        with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
            holder = connection.channel()
            tag, redelivered, headers = taken(holder)
            assert (redelivered, headers) == (handed_out > 0, counts(handed_out, failed))
            if way == "nack":
                holder.basic_nack(tag)
            elif way == "reject":
                holder.basic_reject(tag)
            elif way == "recover":
                holder.basic_recover(requeue=True)
            holder.close()
        amqp.expect("q", ready=1)
        failed += way in ("reject", "lose")


def test_7_6_only_failures_count_to_the_limit(
    amqp: BlockingVhost, channel: BlockingChannel
) -> None:
    channel.queue_declare("dead")
    said = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
    declare(channel, delivery_limit=2, **said)
    publish(channel, b"m")
    for _ in range(5):
        channel.basic_nack(taken(channel)[0])
        amqp.expect("q", ready=1)
    for _ in range(2):
        channel.basic_reject(taken(channel)[0])
        amqp.expect("q", ready=1)
    channel.basic_reject(taken(channel)[0])
    amqp.expect("dead", ready=1)
    _tag, redelivered, headers = taken(channel, "dead")
    assert not redelivered
    assert headers["x-first-death-reason"] == "delivery_limit"


@pytest.mark.parametrize(
    ("kind", "waits_s"),
    [("all", (60, 120, 120)), ("failed", (0, 120, 120)), ("returned", (60, 0, 0))],
)
def test_7_7_what_comes_back_waits_the_longer_the_more_often_it_has_failed(
    amqp_broker: ThreadedBroker,
    amqp: BlockingVhost,
    channel: BlockingChannel,
    kind: str,
    *,
    waits_s: tuple[int, int, int],
) -> None:
    """A nack after one failure, and the second and the third failure: there is a maximum."""
    said = {"delayed_retry_min": 60_000, "delayed_retry_max": 120_000}
    declare(channel, delayed_retry_type=kind, **said)
    publish(channel, b"m")
    channel.basic_reject(taken(channel)[0])
    amqp.expect("q", unacked=0)
    amqp_broker.clock.advance(seconds=61)
    settles = channel.basic_nack, channel.basic_reject, channel.basic_reject
    for settle, wait_s in zip(settles, waits_s, strict=True):
        amqp.expect("q", ready=1)
        settle(taken(channel)[0])
        amqp.expect("q", unacked=0)
        if wait_s:
            amqp_broker.clock.advance(seconds=wait_s - 30)
            assert channel.basic_get("q")[0] is None
            amqp_broker.clock.advance(seconds=31)
    amqp.expect("q", ready=1)


def test_7_8_what_is_held_for_too_long_goes_back_and_its_consumer_is_cancelled(
    amqp_broker: ThreadedBroker, amqp: BlockingVhost, channel: BlockingChannel
) -> None:
    """The message was delivered once, and does not count as failed."""
    declare(channel, consumer_timeout=60_000)
    publish(channel, b"m")
    consumed = channel.consume("q")
    assert next(consumed)[2] == b"m"
    amqp_broker.clock.advance(seconds=61)
    assert list(consumed) == [], "its client hears that it is cancelled"
    amqp.expect("q", ready=1, consumers=0)
    assert taken(channel)[1:] == (True, counts(1, 0))


def test_8_3_each_of_32_priorities_is_served_before_all_below(
    amqp: BlockingVhost, channel: BlockingChannel
) -> None:
    """A priority above the highest counts as that; a message without one has 4."""
    declare(channel)
    said = [7, None, 31, 0, 255, 4, 5, 30, 3, 6]
    for priority in said:
        publish(channel, repr(priority).encode(), priority)
    amqp.expect("q", ready=len(said))
    got = [channel.basic_get("q", auto_ack=True)[2].decode() for _ in said]
    assert got == ["31", "255", "30", "7", "6", "5", "None", "4", "3", "0"]
