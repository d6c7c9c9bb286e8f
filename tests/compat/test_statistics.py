"""The same traffic at both brokers, and what both then count of each object: rates apart, which are
of the moment, and the disk, of which RabbitMQ counts what it does itself.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.compat.comparison import difference_of
from tests.compat.embedded import serving
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript

PATHS = (
    *("overview", "vhosts/%2F", "channels/{channel}"),
    *("queues/%2F/q", "queues/%2F/other", "queues/%2F/idle"),
    *("exchanges/%2F/amq.fanout", "exchanges/%2F/amq.default", "exchanges/%2F/amq.topic"),
)
PATIENCE_S = 30
"""Time for RabbitMQ, which collects its statistics now and then."""


def converse(channel: BlockingChannel) -> None:
    """A bit of everything that is counted."""
    for name in ("q", "other", "idle"):
        channel.queue_declare(name)
    channel.queue_bind("q", "amq.fanout")
    channel.queue_bind("other", "amq.fanout")
    channel.confirm_delivery()
    for body in (b"1", b"2", b"3"):
        channel.basic_publish("amq.fanout", "", body)
    channel.basic_publish("", "q", b"4")
    channel.basic_publish("", "nowhere", b"5")
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", "nowhere", b"6", mandatory=True)
    settle(channel, "q")
    channel.basic_get("other", auto_ack=True)
    channel.basic_get("idle")
    channel.basic_get("idle")


def settle(channel: BlockingChannel, queue: str) -> None:
    """Get one and give it back, then take it again, and consume another."""
    for requeue in (True, False):
        got, _, _ = channel.basic_get(queue)
        assert got is not None
        if requeue:
            channel.basic_nack(got.delivery_tag)
        else:
            channel.basic_ack(got.delivery_tag)
    channel.basic_qos(prefetch_count=1)
    method, _, _ = next(channel.consume(queue))
    assert method is not None
    channel.cancel()  # before there is room for another
    channel.basic_ack(method.delivery_tag)


def ask(port: int, path: str) -> Any:
    credentials = base64.b64encode(b"guest:guest").decode()
    url = f"http://127.0.0.1:{port}/api/{path}"
    with urlopen(Request(url, headers={"Authorization": f"Basic {credentials}"})) as answer:
        return json.load(answer)


def counted(stats: dict[str, Any]) -> dict[str, Any]:
    """Counts as they are, and which have rates."""
    values = {name: each for name, each in stats.items() if not name.startswith("disk_")}
    return {name: sorted(v) if isinstance(v, dict) else v for name, v in values.items()}


def statistics_of(port: int) -> dict[str, Any]:
    """Statistics of every object, by path."""
    (channel,) = ask(port, "channels")
    found: dict[str, Any] = {}
    for path in PATHS:
        row = ask(port, path.format(channel=quote(channel["name"])))
        found[path] = counted(row.get("message_stats", {}))
        for apart, of in (("publishes", "exchange"), ("deliveries", "queue")):
            if path.startswith("channels"):
                found[apart] = {each[of]["name"]: counted(each["stats"]) for each in row[apart]}
    churn = ask(port, "overview")["churn_rates"]
    found["churn"] = sorted(churn)
    return found


def as_transcript(statistics: dict[str, Any]) -> Transcript:
    return {
        what: [f"{name}: {json.dumps(value, sort_keys=True)}" for name, value in sorted(of.items())]
        if isinstance(of, dict)
        else of
        for what, of in statistics.items()
    }


def after_the_traffic(amqp_port: int, port: int, *, like: Transcript | None) -> Transcript:
    """Statistics while the client is connected; asked until they are `like`."""
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", amqp_port)) as connection:
        converse(connection.channel())
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection.process_data_events(0.2)
            try:
                found = as_transcript(statistics_of(port))
            except ValueError:  # it does not know of the channel yet
                continue
            if like is None or found == like or time.monotonic() > deadline:
                return found


CONFIG = """
    management.tcp.ip = 127.0.0.1
    management.tcp.port = {}
    management.rates_mode = detailed
    collect_statistics_interval = 500
"""


def counted_by_rabbitmq(folder: Path, like: Transcript) -> Transcript:
    port = free_port()
    with RabbitMQ(folder, CONFIG.format(port), "rabbitmq_management") as node:
        return after_the_traffic(node.port, port, like=like)


ASKED = asks("statistics.counted", counted_by_rabbitmq)


def test_what_is_counted(answers: Answers, tmp_path: Path) -> None:
    with serving(tmp_path / "fluffle", answers, "--management=127.0.0.1:0") as fluffle:
        port = fluffle.addresses["management"][1]
        ours = after_the_traffic(fluffle.port, port, like=None)
    theirs = answers.of(ASKED, lambda: counted_by_rabbitmq(tmp_path / "rabbitmq", ours))
    assert ours == theirs, difference_of(theirs, ours)
    assert "publish: 4" in ours["queues/%2F/q"]
