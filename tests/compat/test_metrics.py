"""The same conversation with both brokers, and what both then tell Prometheus of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.compat.embedded import serving
from tests.compat.metric_names import families_at
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript

CONNECTIONS_CLOSED = "rabbitmq_connections_closed_total"
"""RabbitMQ counts those that did not log in here, too, though not among the opened ones."""

VOLATILE = ("queue_type", "rabbit_volatile_queue")
"""Direct reply-to has this type of queue since 4.2."""

OF_ITSELF = re.compile("rabbitmq_(io|erlang|channel|queue|exchange|connection)_")
"""Metrics of the disk or the runtime, which are each broker's own business.  Of objects RabbitMQ
adds up those that are still there; fluffle goes on counting."""

TERM = "rabbitmq_raft_term_total"
"""How often leaders were elected is each broker's own business, too."""

UNWANTED: dict[str, dict[str, Any]] = {
    "expiring": {"x-message-ttl": 1},
    "short": {"x-max-length": 1},
    "limited": {"x-delivery-limit": 0},
    "astray": {"x-dead-letter-exchange": "there is none"},
    "plain": {},
}
"""Queues whose dead go nowhere, with their arguments."""

Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(port: int) -> dict[Sample, float]:
    """The value of each sample."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families_at(port, "/metrics")
        for sample in family.samples
        if sample.name.startswith("rabbitmq")
    }


def converse(port: int) -> None:
    """A bit of everything that is counted; ends with one connection closed in order."""
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(port, "wrong")
    connection = connect(port, "guest")
    channel = connection.channel()
    for name in ("a", "b", "a"):
        channel.queue_declare(name)
    channel.queue_bind("a", "amq.fanout")
    channel.queue_bind("b", "amq.fanout")
    channel.basic_publish("amq.fanout", "", b"1")
    channel.basic_publish("", "a", b"2")
    channel.basic_publish("", "nowhere", b"3")
    channel.basic_publish("", "nowhere", b"4", mandatory=True)
    channel.confirm_delivery()
    channel.basic_publish("", "a", b"5")
    got, _, _ = channel.basic_get("a")
    assert got is not None
    channel.basic_nack(got.delivery_tag)
    got, _, _ = channel.basic_get("a")
    assert got is not None
    assert got.redelivered
    channel.basic_ack(got.delivery_tag)
    channel.basic_get("b", auto_ack=True)
    channel.basic_get("b")
    for _, (method, _, _) in zip(range(2), channel.consume("a"), strict=False):
        assert method is not None
        channel.basic_ack(method.delivery_tag)
    channel.cancel()
    channel.queue_delete("b")
    die(channel)
    connection.close()


def die(channel: BlockingChannel) -> None:
    """A message in each kind of queue that hands its dead on, those first that must arrive."""
    channel.queue_declare("dead")
    to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    quorum = {**to_dead, "x-queue-type": "quorum"}
    sure = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    for name, arguments in (("sure", {**quorum, **sure}), ("quorum", quorum), ("once", to_dead)):
        channel.queue_declare(name, durable=True, arguments=arguments)
        channel.basic_publish("", name, b"m")
        for queue, is_wanted in ((name, False), ("dead", True)):
            method, _, _ = next(channel.consume(queue))
            assert method is not None
            if is_wanted:
                channel.basic_ack(method.delivery_tag)
            else:
                channel.basic_reject(method.delivery_tag, requeue=False)
            channel.cancel()
    die_unwanted(channel)


def die_unwanted(channel: BlockingChannel) -> None:
    """In each kind of queue, and of everything that one can die of."""
    for kind in ("classic", "quorum"):
        for name, arguments in UNWANTED.items():
            if name == "limited" and kind == "classic":
                continue  # it has no such limit
            queue, table = f"{kind} {name}", {"x-queue-type": kind, **arguments}
            channel.queue_declare(queue, durable=True, arguments=table)
            for _ in range(3):
                channel.basic_publish("", queue, b"m")
        for name, requeue in (("plain", False), ("astray", False), ("limited", True)):
            if requeue and kind == "classic":
                continue
            messages = channel.consume(f"{kind} {name}")
            for _ in range(3):
                method, _, _ = next(messages)
                assert method is not None
                channel.basic_reject(method.delivery_tag, requeue=requeue)
            channel.cancel()
        wait_until_counted(channel, kind)


def wait_until_counted(channel: BlockingChannel, kind: str) -> None:
    """All have died that do."""
    left = {"expiring": 0, "short": 1, "plain": 0, "astray": 0}
    if kind == "quorum":
        left["limited"] = 0
    while any(
        channel.queue_declare(f"{kind} {name}", passive=True).method.message_count != count
        for name, count in left.items()
    ):
        channel.connection.sleep(0.02)


def connect(port: int, password: str) -> pika.BlockingConnection:
    credentials = pika.PlainCredentials("guest", password)
    return pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", port, credentials=credentials)
    )


def counted(port: int) -> Transcript:
    """Counters with their values."""
    samples = {sample: value for sample, value in scrape(port).items() if is_compared(*sample)}
    return {
        name + "".join(f" {label}={said}" for label, said in sorted(labels)): [f"{value:g}"]
        for (name, labels), value in samples.items()
    }


def is_compared(name: str, labels: frozenset[tuple[str, str]]) -> bool:
    if not name.endswith("_total") or OF_ITSELF.match(name):
        return False
    return VOLATILE not in labels and name not in (CONNECTIONS_CLOSED, TERM)


def counted_by_rabbitmq(folder: Path) -> Transcript:
    port = free_port()
    config = f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {port}"
    with RabbitMQ(folder, config, "rabbitmq_prometheus") as rabbitmq:
        converse(rabbitmq.port)
        return counted(port)


ASKED = asks("metrics.counted", counted_by_rabbitmq)


def test_both_brokers_count_alike(answers: Answers, tmp_path: Path) -> None:
    theirs = answers.of(ASKED, lambda: counted_by_rabbitmq(tmp_path / "rabbitmq"))
    with serving(tmp_path / "fluffle", answers, "--metrics=127.0.0.1:0") as fluffle:
        converse(fluffle.port)
        ours = counted(fluffle.addresses["metrics"][1])
    assert len(ours) == 49
    assert ours == {sample: theirs.get(sample) for sample in ours}
