"""Deduplicating queues as clients see them: pika, and a node that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from fluffle.broker.testing.threaded import BlockingVhost
from tests.support.daemon import Daemon

ARGUMENTS = {"x-message-deduplication": True, "x-cache-size": 100}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path) as daemon:
        yield daemon


@contextmanager
def opened(broker: Daemon | BlockingVhost) -> Iterator[BlockingChannel]:
    with closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def publish(channel: BlockingChannel, body: bytes, key: str, *, persistent: bool = True) -> None:
    """Returns when it is confirmed, and raises if it is not."""
    properties = pika.BasicProperties(
        headers={"x-deduplication-header": key}, delivery_mode=2 if persistent else 1
    )
    channel.basic_publish("", "q", body, properties, mandatory=True)


def all_of(channel: BlockingChannel) -> list[bytes]:
    bodies = []
    while (body := channel.basic_get("q", auto_ack=True)[2]) is not None:
        bodies.append(body)
    return bodies


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_it_outlives_a_kill(daemon: Daemon, queue_type: str) -> None:
    with opened(daemon) as channel:
        arguments = {**ARGUMENTS, "x-queue-type": queue_type}
        channel.queue_declare("q", durable=True, arguments=arguments)
        for key in ("a", "b", "a", "a"):
            publish(channel, f"{key} at first".encode(), key)
        assert all_of(channel) == [b"a at first", b"b at first"]
        publish(channel, b"a, though it is acknowledged", "a")
        assert all_of(channel) == []
    daemon.kill()
    daemon.start()
    with opened(daemon) as channel:
        publish(channel, b"a again", "a")
        publish(channel, b"c", "c")
        assert all_of(channel) == [b"c"]
        channel.queue_purge("q")
        publish(channel, b"a after a purge", "a")
        assert all_of(channel) == [b"a after a purge"]


def test_what_does_not_outlive_a_kill_drops_nothing_that_does(daemon: Daemon) -> None:
    with opened(daemon) as channel:
        channel.queue_declare("q", durable=True, arguments=ARGUMENTS)
        publish(channel, b"lost", "a", persistent=False)
        publish(channel, b"lost", "b", persistent=False)
        publish(channel, b"kept", "a")
        publish(channel, b"dropped", "a")
    daemon.kill()
    daemon.start()
    with opened(daemon) as channel:
        publish(channel, b"dropped", "a")
        publish(channel, b"again", "b")
        assert all_of(channel) == [b"kept", b"again"]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_arguments_that_cannot_be(amqp: BlockingVhost, queue_type: str) -> None:
    for name, value in (
        ("x-message-deduplication", "yes"),
        ("x-cache-size", 0),
        ("x-cache-size", 100_001),
        ("x-cache-ttl", 0),
    ):
        with opened(amqp) as channel:
            arguments = {"x-queue-type": queue_type, name: value}
            with pytest.raises(ChannelClosedByBroker, match=f"invalid arg '{name}'"):
                channel.queue_declare("q", durable=True, arguments=arguments)
