"""`python -m benchmarks.dead_letters [COUNT]`: messages that are rejected as fast as it goes.

A consumer rejects all that is in a queue, a thousand at a time, beside RabbitMQ, each with a node
of its own.  It takes until all are in the queue where the dead go; CPU is that of the broker alone,
the consuming included.  Messages are persistent and have 100 bytes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from benchmarks.brokers import BROKERS, Broker
from benchmarks.machine import Placement, cpu_s, pinned, placements
from benchmarks.report import markdown_table

COUNT = 20_000
AT_ONCE = 1_000
BODY = b"x" * 100
TO_DEAD: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
QUORUM = {"x-queue-type": "quorum"}
SURE = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classic": (TO_DEAD, {}),
    "quorum": ({**TO_DEAD, **QUORUM}, QUORUM),
    "quorum, at least once": ({**TO_DEAD, **QUORUM, **SURE}, QUORUM),
}
"""Arguments of the queue where they die, and of that where they go."""


def measure(broker: Broker, kind: str, count: int) -> tuple[float, float]:
    """Messages a second, and microseconds of the broker's CPU for each."""
    dying, dead = KINDS[kind]
    port = pika.ConnectionParameters(broker.address.host, broker.address.port)
    with pika.BlockingConnection(port) as connection:
        channel = connection.channel()
        channel.queue_declare("dying", durable=True, arguments=dying)
        channel.queue_declare("dead", durable=True, arguments=dead)
        persistent = pika.BasicProperties(delivery_mode=2)
        for _ in range(count):
            channel.basic_publish("", "dying", BODY, persistent)
        wait_for(channel, "dying", count)
        began_s, cpu = time.perf_counter(), cpu_s(broker.pids())
        channel.basic_qos(prefetch_count=AT_ONCE)
        deliveries = channel.consume("dying")
        for number in range(1, count + 1):
            method, _properties, _body = next(deliveries)
            assert method is not None
            if number % AT_ONCE == 0 or number == count:
                channel.basic_nack(method.delivery_tag, multiple=True, requeue=False)
        channel.cancel()
        wait_for(channel, "dead", count)
        took_s, cpu = time.perf_counter() - began_s, cpu_s(broker.pids()) - cpu
    return count / took_s, cpu / count * 1e6


def wait_for(channel: BlockingChannel, queue: str, count: int) -> None:
    while channel.queue_declare(queue, passive=True).method.message_count < count:
        channel.connection.sleep(0.02)


def run(name: str, kind: str, count: int, place: Placement) -> tuple[float, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        BROKERS[name](Path(folder), place.broker) as broker,
        pinned(place.load),
    ):
        return measure(broker, kind, count)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    places, rows = placements(pin_rabbitmq=False), []
    for kind in KINDS:
        cells = [kind]
        for name in ("fluffle", "rabbitmq"):
            rate, cpu_us = run(name, kind, count, places[name])
            cells += [f"{rate:,.0f}", f"{cpu_us:.0f}"]
        rows.append(cells)
    head = [f"{count:,} messages", "fluffle/s", "CPU, µs", "RabbitMQ/s", "CPU, µs"]
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
