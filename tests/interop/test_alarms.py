"""Alarms of a real node, raised by tiny limits: who waits, who goes on, and who can see it."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluffle.protocol.methods import Basic, Confirm, Connection, Queue, make
from fluffle.protocol.properties import Properties
from tests.support.client import Client
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S

ALARMS = {
    "low on memory": ("--memory-high-watermark", "0.0001"),
    "low on disk": ("--disk-free-limit", "1000TB"),
}
METRICS = ("--metrics", "127.0.0.1:0")
MESSAGES = 20


def client_of(daemon: Daemon) -> Client:
    client = Client("127.0.0.1", daemon.port).open()
    client.channel()
    return client


def fill(folder: Path) -> None:
    """Leave durable messages behind, for nobody can publish under an alarm."""
    with Daemon(folder) as daemon, client_of(daemon) as client:
        client.call(1, make(Queue.Declare, queue="q", durable=True))
        client.call(1, make(Confirm.Select))
        for number in range(MESSAGES):
            client.publish(1, "", "q", b"%d" % number, Properties(delivery_mode=2))
        client.expect("Basic.Ack")
        client.settle(1)


def metrics(daemon: Daemon, page: str = "/metrics") -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and labels."""
    host, port = daemon.addresses["metrics"]
    with urlopen(f"http://{host}:{port}{page}", timeout=DEADLINE_S) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("reason", ALARMS)
def test_publishers_are_notified_and_consumers_go_on(tmp_path: Path, reason: str) -> None:
    fill(tmp_path)
    with (
        Daemon(tmp_path, *ALARMS[reason], *METRICS) as daemon,
        client_of(daemon) as publisher,
        client_of(daemon) as consumer,
    ):
        publisher.publish(1, "", "q", b"never")
        (blocked,) = publisher.expect("Connection.Blocked")
        assert isinstance(blocked.method, Connection.Blocked)
        assert blocked.method.reason == reason
        consumer.call(1, make(Basic.Qos, prefetch_count=1))
        consumer.call(1, make(Basic.Consume, queue="q", consumer_tag="c"))
        for number in range(MESSAGES):
            (delivery,) = consumer.expect("Basic.Deliver")
            assert delivery.body == b"%d" % number
            consumer.send(1, make(Basic.Ack, delivery_tag=number + 1))
        left = consumer.call(1, make(Queue.Declare, queue="q", durable=True)).method
        assert isinstance(left, Queue.DeclareOk)
        assert left.message_count == 0, "the publisher's message waits before the queue"
        assert seen_as_blocked(daemon) == [publisher.socket.getsockname()[1]]
        reported = metrics(daemon)
        alarm = reason.replace("low on memory", "memory_used").replace(
            "low on disk", "free_disk_space"
        )
        assert reported[f"rabbitmq_alarms_{alarm}_watermark", ()] == 1
        assert reported["fluffle_connections_by_state", ("blocked",)] == 1


def seen_as_blocked(daemon: Daemon) -> list[int]:
    """The ports of the clients that the node says it blocks."""
    return [
        int(labels[0].split(" ->")[0].rpartition(":")[2])
        for name, labels in metrics(daemon, "/metrics/per-object")
        if name == "fluffle_connection_blocked"
    ]
