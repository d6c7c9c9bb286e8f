"""Topologies that frameworks build of dead letters and expiry, of quorum queues, with real clients.

Spring:       work --rejected--> retry (x-message-ttl) --expired--> work; consumers count x-death.
NServiceBus:  a queue for each bit of a delay in seconds, 28 of them; the bits are words of the
              routing key, and each level sends a message on that does not wait in it.  Dead letters
              of its queues must arrive, as it declares them since version 7 of its transport.

With classic queues: `protocols/amqp091/test_retry_topologies.py`.  Celery: `tests/interop`.  Real
time goes on beside the clock that is moved, so that nothing here is closer than a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker

LEVELS = 28
DELIVERY = "nsb.v2.delay-delivery"


@pytest.fixture
def channel(amqp: BlockingVhost) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(f"{amqp.url}?heartbeat=0")) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def declare(channel: BlockingChannel, name: str, **said: Any) -> None:
    arguments = {f"x-{key.replace('_', '-')}": value for key, value in said.items()}
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum", **arguments})


SURE = {"dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}
"""Settings of queues whose dead letters must arrive."""


def deaths(properties: pika.BasicProperties) -> list[dict[str, Any]]:
    return (properties.headers or {}).get("x-death", [])  # type: ignore[no-any-return]


def times_rejected(properties: pika.BasicProperties) -> int:
    """Number of rejections, as Spring's consumers count it."""
    counts = [
        death["count"]
        for death in deaths(properties)
        if (death["queue"], death["reason"]) == ("work", "rejected")
    ]
    return sum(counts)


@pytest.mark.parametrize("said", [{}, SURE], ids=["at most once", "at least once"])
def test_work_is_tried_again_after_a_while_and_not_for_ever(
    amqp_broker: ThreadedBroker,
    amqp: BlockingVhost,
    channel: BlockingChannel,
    said: dict[str, Any],
) -> None:
    back = {"dead_letter_exchange": "", "dead_letter_routing_key": "work"}
    away = {"dead_letter_exchange": "", "dead_letter_routing_key": "retry"}
    declare(channel, "work", **away, **said)
    declare(channel, "retry", message_ttl=300_000, **back, **said)
    channel.basic_publish("", "work", b"a task")
    for times in range(3):
        amqp.expect("work", ready=1)
        method, properties, body = channel.basic_get("work")
        assert (times_rejected(properties), body) == (times, b"a task")
        channel.basic_reject(method.delivery_tag, requeue=False)
        amqp.expect("retry", ready=1)
        amqp_broker.clock.advance(minutes=4)
        assert channel.basic_get("work")[0] is None
        amqp_broker.clock.advance(minutes=1)
    amqp.expect("work", ready=1)
    method, properties, _body = channel.basic_get("work")
    assert times_rejected(properties) == 3
    assert [(death["queue"], death["reason"], death["count"]) for death in deaths(properties)] == [
        ("retry", "expired", 3),
        ("work", "rejected", 3),
    ]
    channel.basic_ack(method.delivery_tag)
    amqp.expect("work", ready=0, unacked=0)


def level_name(level: int) -> str:
    return f"nsb.v2.delay-level-{level:02}"


def build_delays(channel: BlockingChannel) -> None:
    """Its infrastructure for delays: a level waits for so many seconds as its bit is worth."""
    channel.exchange_declare(DELIVERY, "topic", durable=True)
    for level in range(LEVELS):
        channel.exchange_declare(level_name(level), "topic", durable=True)
    for level in reversed(range(LEVELS)):
        name, lower = level_name(level), level_name(level - 1) if level else DELIVERY
        declare(channel, name, message_ttl=1_000 << level, dead_letter_exchange=lower, **SURE)
        before = "*." * (LEVELS - 1 - level)
        channel.queue_bind(name, name, f"{before}1.#")
        channel.exchange_bind(lower, name, f"{before}0.#")


def send_later(channel: BlockingChannel, body: bytes, address: str, delay_s: int) -> None:
    key = ".".join([*f"{delay_s:0{LEVELS}b}", address])
    channel.basic_publish(level_name(delay_s.bit_length() - 1), key, body, mandatory=True)


def test_levels_of_queues_delay_by_any_number_of_seconds(
    amqp_broker: ThreadedBroker, amqp: BlockingVhost, channel: BlockingChannel
) -> None:
    build_delays(channel)
    declare(channel, "endpoint")
    channel.queue_bind("endpoint", DELIVERY, "#.endpoint")
    delays_s = 5_000, 600, 1_023
    for delay_s in delays_s:
        send_later(channel, b"%d" % delay_s, "endpoint", delay_s)
    now_s = 0
    for delay_s in sorted(delays_s):
        bits = [1 << level for level in reversed(range(LEVELS)) if delay_s & 1 << level]
        amqp_broker.clock.advance(seconds=delay_s - now_s - 60)
        assert channel.basic_get("endpoint")[0] is None
        amqp_broker.clock.advance(seconds=60)
        now_s = delay_s
        amqp.expect("endpoint", ready=1)
        _method, properties, body = channel.basic_get("endpoint", auto_ack=True)
        assert body == b"%d" % delay_s
        passed = [level_name(bit.bit_length() - 1) for bit in reversed(bits)]
        assert [(death["queue"], death["reason"]) for death in deaths(properties)] == [
            (name, "expired") for name in passed
        ]
