"""The panels of RabbitMQ's dashboards for Grafana have something to show of a cluster of fluffle.

Their queries are those of RabbitMQ 4.0.5 and 4.3.5, of RabbitMQ-Overview and of
RabbitMQ-Quorum-Queues-Raft: one a line in `dashboards/`, with the version and the panel's title in
front.  Those about Erlang (`erlang_*`) are on dashboards of their own, and are left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.compat.clusters import NODES, FluffleCluster
from tests.compat.prometheus import Prometheus, Value

pytestmark = pytest.mark.compat

FOLDER = Path(__file__).parent / "dashboards"
DEADLINE_S = 120.0

VARIABLES = {
    "$rabbitmq_cluster": "fluffle",
    "$namespace": "",
    "$endpoint": "aggregated",
    "$__rate_interval": "60s",
    "$__range": "60s",
}
"""Variables as Grafana fills them in."""


class Panel(NamedTuple):
    version: str
    title: str
    query: str

    def __str__(self) -> str:
        return f"{self.version}-{self.title}"


EMPTY: Mapping[str, str] = {
    "TCP sockets available": "rabbitmq_process_max_tcp_sockets: not told by RabbitMQ 4.0 either",
}
"""Titles of panels that show nothing, and why."""


def panels() -> Iterator[Panel]:
    for file in sorted(FOLDER.glob("*.tsv")):
        for line in file.read_text().splitlines():
            panel = Panel(*line.split("\t"))
            for name, value in VARIABLES.items():
                panel = panel._replace(query=panel.query.replace(name, value))
            yield panel


class Watched:
    """A cluster that is used a little more with each look, and who scrapes it."""

    def __init__(self, channel: BlockingChannel, prometheus: Prometheus) -> None:
        self.channel = channel
        self.prometheus = prometheus

    def use(self) -> None:
        """A message through a queue of either kind, and one that leads nowhere."""
        channel = self.channel
        for kind in ("classic", "quorum"):
            channel.basic_publish("", kind, b"m")
            method, _, _ = channel.basic_get(kind)
            assert method is not None
            channel.basic_ack(method.delivery_tag)
        channel.basic_publish("", "nowhere", b"m")

    def until_told(self, query: str, count: int = 1) -> list[Value]:
        """Result of a query, once it has so many values."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := sound(self.prometheus.query(query))) < count:
            assert time.monotonic() < deadline, f"nothing: {query}\n{self.prometheus.log}"
            self.use()
        return found


def sound(values: list[Value]) -> list[Value]:
    return [each for each in values if not math.isnan(each.value)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    cluster = FluffleCluster(tmp_path_factory.mktemp("fluffle"), "--metrics=127.0.0.1:0")
    with cluster:
        ports = [cluster.daemons[node].addresses["metrics"][1] for node in NODES]
        parameters = pika.ConnectionParameters("127.0.0.1", cluster.port("a"))
        with (
            Prometheus(tmp_path_factory.mktemp("prometheus"), ports) as prometheus,
            pika.BlockingConnection(parameters) as connection,
        ):
            channel = connection.channel()
            channel.confirm_delivery()
            for kind in ("classic", "quorum"):
                channel.queue_declare(kind, durable=True, arguments={"x-queue-type": kind})
            watched = Watched(channel, prometheus)
            assert watched.until_told("count(up == 1) == 3")
            assert watched.until_told(
                "sum(increase(rabbitmq_global_messages_received_total[60s])) > 0"
            )
            yield watched


@pytest.mark.parametrize("panel", list(panels()), ids=Panel.__str__)
def test_a_panel_has_something_to_show(watched: Watched, panel: Panel) -> None:
    if panel.title in EMPTY:
        assert watched.prometheus.query(panel.query) == []
    else:
        watched.until_told(panel.query)


def test_every_reason_is_needed() -> None:
    assert EMPTY.keys() <= {panel.title for panel in panels()}


def test_a_cluster_is_one_to_choose(watched: Watched) -> None:
    """The variables of the dashboards have what they are filled with."""
    told = watched.until_told(
        "count by (rabbitmq_cluster, rabbitmq_endpoint) (rabbitmq_identity_info)"
    )
    assert told == [
        Value({"rabbitmq_cluster": "fluffle", "rabbitmq_endpoint": "aggregated"}, len(NODES))
    ]


def test_every_node_leads_or_follows(watched: Watched) -> None:
    (panel,) = (
        each
        for each in panels()
        if each.title == "Uncommitted log entries" and each.version == "4.0"
    )
    told = watched.until_told(panel.query, len(NODES))
    assert {each.labels["rabbitmq_node"] for each in told} == set(NODES)
