"""Metrics of clients by object, and totals that never fall."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluffle.broker.config.config import Config
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.endpoint import AGGREGATED, PER_OBJECT, text_page
from fluffle.broker.metrics.tables import TableView
from fluffle.protocol.methods import Basic, make
from tests.support.edge import Client, Edge
from tests.support.manual_clock import ManualClock
from tests.support.no_cluster import NoCluster

Reported = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Node:
    def __init__(self) -> None:
        self.edge = Edge()
        self.edge.count()
        self.client = self.edge.connect()
        edge = self.edge
        self.collector = NodeCollector(
            edge.services, Config(), ManualClock(), NoCluster(), edge.statistics
        )

    def reported(self, view: TableView) -> Reported:
        """Counters of objects that are not 0."""
        text = b"".join(text_page(self.collector.steps(view), "").pieces).decode()
        return {
            (sample.name.removeprefix("rabbitmq_"), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.value
        }

    def row(self, name: str, **labels: str) -> float:
        return self.reported(PER_OBJECT).get((name, frozenset(labels.items())), 0)

    def total(self, name: str) -> float:
        return self.reported(AGGREGATED).get((name, frozenset()), 0)

    @property
    def channel(self) -> str:
        return f"{self.client.connection.name} (1)"


@pytest.fixture
def node() -> Node:
    return Node()


def test_publishes_are_reported_by_channel_exchange_and_queue(node: Node) -> None:
    client = node.client
    client.declare()
    client.confirm_select()
    client.publish(b"1", b"2")
    client.publish(b"3", queue="nowhere")
    client.publish(b"4", queue="nowhere", mandatory=True)
    client.arrivals()
    where = {"channel": node.channel, "vhost": "/", "exchange": ""}
    for name, value in (
        ("published", 4),
        ("confirmed", 4),
        ("unroutable_dropped", 1),
        ("unroutable_returned", 1),
    ):
        assert node.row(f"channel_messages_{name}_total", **where) == value, name
        assert node.total(f"channel_messages_{name}_total") == value, name
    assert node.row("exchange_messages_published_total", vhost="/", exchange="") == 4
    assert node.total("exchange_messages_published_total") == 4
    assert node.row("queue_messages_published_total", vhost="/", queue="q") == 2
    assert node.total("queue_messages_published_total") == 2


def take_all_ways(client: Client) -> None:
    client.publish(*[b"m"] * 20)
    for no_ack, count in ((False, 2), (True, 3)):
        for _ in range(count):
            client.call(make(Basic.Get, queue="q", no_ack=no_ack), Basic.GetOk)
    client.call(make(Basic.Get, queue="empty"), Basic.GetEmpty)
    client.ack(2, multiple=True)
    client.consume(prefetch=4)
    client.ack(6)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("get_ack", 2),
        ("get", 3),
        ("messages_delivered_ack", 5),
        ("messages_acked", 3),
        ("messages_delivered", 0),
        ("messages_redelivered", 0),
    ],
)
def test_deliveries_are_reported_by_channel_and_queue(node: Node, name: str, count: int) -> None:
    node.client.declare()
    node.client.declare("empty")
    take_all_ways(node.client)
    queue = {"vhost": "/", "queue": "q"}
    assert node.row(f"channel_{name}_total", channel=node.channel, **queue) == count
    assert node.row(f"queue_{name}_total", **queue) == count
    assert node.total(f"channel_{name}_total") == node.total(f"queue_{name}_total") == count
    assert node.row("queue_get_empty_total", vhost="/", queue="empty") == 1


def test_what_is_gone_has_no_row_and_still_counts(node: Node) -> None:
    other = node.edge.connect()
    other.declare()
    other.publish(b"1", b"2")
    other.delete()
    other.close()
    other.transport.lose()
    for name in ("queue_messages_published_total", "channel_messages_published_total"):
        assert node.total(name) == 2
        assert all(reported != name for reported, _ in node.reported(PER_OBJECT))


def test_bytes_are_reported_by_connection(node: Node) -> None:
    where = {"channel": node.client.connection.name}
    node.client.declare()
    before = node.row("connection_incoming_bytes_total", **where)
    packets = node.row("connection_incoming_packets_total", **where)
    assert before > 0
    node.client.publish(b"x" * 1_000)
    assert 1_000 < node.row("connection_incoming_bytes_total", **where) - before < 1_100
    assert node.row("connection_incoming_packets_total", **where) == packets + 1
    assert node.row("connection_outgoing_bytes_total", **where) > 0
    assert node.total("connection_outgoing_packets_total") > 0
