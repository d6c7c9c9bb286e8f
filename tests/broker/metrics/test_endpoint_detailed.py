"""Families and filters of /metrics/detailed, and malformed queries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluffle.broker.config.config import Config
from fluffle.broker.metrics import tables
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.endpoint import text_page
from fluffle.broker.metrics.tables import (
    SEARCHED_AT_ONCE,
    InvalidQuery,
    detailed_view,
    searched,
)
from fluffle.broker.patterns.patterns import searching_for
from fluffle.protocol.methods import Basic, Tx, make
from tests.support.edge import Edge
from tests.support.manual_clock import ManualClock
from tests.support.no_cluster import NoCluster

Rows = dict[tuple[str, str], float]
"""Values by the end of the name, and by the label that says what the row is about."""

JOINED = {"rabbitmq_build_info", "rabbitmq_identity_info"}


@pytest.fixture
def edge() -> Edge:
    return Edge()


def samples(edge: Edge, query: str) -> Iterator[tuple[str, dict[str, str], float]]:
    collector = NodeCollector(edge.services, Config(), ManualClock(), NoCluster())
    page = text_page(collector.detailed_steps(detailed_view(query)), "")
    for family in text_string_to_metric_families(b"".join(page.pieces).decode()):
        for sample in family.samples:
            if sample.name not in JOINED:
                yield sample.name, sample.labels, sample.value


def rows(edge: Edge, query: str, label: str) -> Rows:
    return {
        (name.removeprefix("rabbitmq_detailed_"), labels[label]): value
        for name, labels, value in samples(edge, query)
    }


def test_who_asks_for_no_family_gets_none(edge: Edge) -> None:
    edge.connect().declare("q")
    assert list(samples(edge, "")) == []
    assert list(samples(edge, "family=nonsense&vhost=/")) == []


def test_families_can_be_asked_for_together(edge: Edge) -> None:
    client = edge.connect()
    client.declare("q")
    client.publish(b"1", queue="q")
    assert rows(edge, "family=queue_consumer_count&family=queue_coarse_metrics", "queue") == {
        ("queue_messages_ready", "q"): 1,
        ("queue_messages_unacked", "q"): 0,
        ("queue_messages", "q"): 1,
        ("queue_consumers", "q"): 0,
    }


def test_consumers_are_reported_once_in_two_families(edge: Edge) -> None:
    edge.connect().declare("q")
    reported = [
        name for name, _, _ in samples(edge, "family=queue_consumer_count&family=queue_metrics")
    ]
    assert reported.count("rabbitmq_detailed_queue_consumers") == 1


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("queue=%5Ea", {"aa", "ab"}),
        ("queue=b", {"ab", "b"}),
        ("queue=", {"aa", "ab", "b"}),
        ("queue=c", set()),
        ("vhost=%2F", {"aa", "ab", "b"}),
        ("vhost=other", set()),
        ("vhost=other&vhost=%2F&queue=%5Eb%24", {"b"}),
    ],
)
def test_queues_can_be_looked_for(edge: Edge, query: str, names: set[str]) -> None:
    client = edge.connect()
    for name in ("aa", "ab", "b"):
        client.declare(name)
    found = rows(edge, f"family=queue_consumer_count&{query}", "queue")
    assert {queue for _, queue in found} == names


def test_what_has_neither_is_reported_all_the_same(edge: Edge) -> None:
    """RabbitMQ does so, too."""
    edge.connect()
    assert len(rows(edge, "family=connection_metrics&vhost=other&queue=x", "channel")) == 1


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("queue=(", "^Invalid 'queue' regex: cannot use the regular expression '\\('"),
        ("queue=" + "a" * 1_025, "^'queue' regex too long$"),
        ("queue=a&queue=b", "^Only one 'queue' query parameter is allowed$"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(query: str, text: str) -> None:
    with pytest.raises(InvalidQuery, match=text):
        detailed_view(query)


def test_what_is_asked_for_is_not_remembered() -> None:
    """Queries are not cached: any visitor can send them."""
    before = searching_for.cache_info().misses
    assert searched(["^only once"]) is not None
    assert searching_for.cache_info().misses == before


def test_few_names_are_searched_in_a_step(edge: Edge) -> None:
    client = edge.connect()
    for number in range(2 * SEARCHED_AT_ONCE + 1):
        client.declare(f"q{number}")
    collector = NodeCollector(edge.services, Config(), ManualClock(), NoCluster())
    (queues, *_) = collector.objects.all
    one = detailed_view("family=queue_consumer_count&queue=q1")
    assert len([step for step in tables.table_steps(queues, one) if not step]) == 3


def test_a_channel_tells_what_its_transaction_holds(edge: Edge) -> None:
    client = edge.connect()
    client.declare("q")
    client.publish(b"1", b"2", b"3", queue="q")
    client.call(make(Tx.Select), Tx.SelectOk)
    for _ in range(3):
        client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    client.ack(2, multiple=True)
    client.publish(b"4", queue="q")
    reported = {
        name: value for (name, _), value in rows(edge, "family=channel_metrics", "channel").items()
    }
    assert reported["channel_messages_uncommitted"] == 1
    assert reported["channel_acks_uncommitted"] == 2
    assert reported["channel_messages_unacked"] == 1


def test_exchanges_and_virtual_hosts_have_a_prefix_of_their_own(edge: Edge) -> None:
    client = edge.connect()
    client.declare("q")
    client.declare_exchange("e", "topic")
    for key in ("a", "b"):
        client.bind("q", "e", key)
    cluster = "rabbitmq_cluster_"
    bindings = rows(edge, "family=exchange_bindings", "exchange")
    assert bindings[cluster + "exchange_bindings", "e"] == 2
    assert bindings[cluster + "exchange_bindings", "amq.direct"] == 0
    exchanges = {exchange for _, exchange in bindings}
    assert exchanges.isdisjoint({"", "amq.rabbitmq.trace"})
    named = rows(edge, "family=exchange_names", "type")
    assert named[cluster + "exchange_name", "topic"] == 1
    assert rows(edge, "family=vhost_status", "vhost") == {(cluster + "vhost_status", "/"): 1}


def test_a_node_is_reported_whatever_is_looked_for(edge: Edge) -> None:
    edge.connect()
    reported = {
        name: value for name, _, value in samples(edge, "family=connection_churn_metrics&queue=x")
    }
    assert reported["rabbitmq_detailed_connections_opened_total"] == 1
