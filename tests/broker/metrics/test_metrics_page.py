"""docs/metrics.md lists what nodes tell: each name with its type and its help, and nothing else."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from fluffle.broker.config.config import MqttConfig
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.endpoint import (
    AGGREGATED,
    PER_OBJECT,
    memory_metrics,
    text_page,
)
from fluffle.broker.metrics.tables import detailed_view
from fluffle.broker.protocols.mqtt.server import MqttServer
from tests.broker.cluster.queues.test_quorum_queues import Scene, scene
from tests.support.edge import Edge

__all__ = ["scene"]

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
CLUSTER_WIDE = "family=vhost_status&family=exchange_bindings&family=exchange_names"


def table_of(families: dict[str, Metric]) -> list[str]:
    return [
        f"| `{name}` | {family.type} | {family.documentation} |"
        for name, family in sorted(families.items())
    ]


async def test_the_page_lists_all_that_is_reported(scene: Scene) -> None:
    await scene.declare("a")
    node = scene.nodes["a"]
    edge = Edge()
    edge.count()
    services, parts = node.node._services, node.node.parts
    MqttServer(services, MqttConfig(), "quorum")
    clock, cluster_view = services.runtime.clock, parts.cluster_view
    collector = NodeCollector(services, node.config, clock, cluster_view, edge.statistics)
    families: dict[str, Metric] = {}
    for steps in (
        collector.steps(AGGREGATED),
        collector.steps(PER_OBJECT),
        collector.detailed_steps(detailed_view(CLUSTER_WIDE)),
        [[*memory_metrics()]],
    ):
        text = b"".join(text_page(steps, "").pieces).decode()
        for family in text_string_to_metric_families(text):
            suffix = "_total" if family.type == "counter" else ""
            families[family.name + suffix] = family
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    table = [line for line in listed if line.count("|") == 4 and "_" in line.split("|")[1]]
    assert table == table_of(families), "\n".join(["the table is to be", *table_of(families)])
