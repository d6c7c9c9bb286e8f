"""Metrics of Raft groups, under the names of several versions of RabbitMQ."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fluffle.broker.base.clock import SystemClock
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.endpoint import AGGREGATED, PER_OBJECT, text_page
from tests.broker.cluster.queues.test_quorum_queues import Scene, publish, scene
from tests.support.cluster_nodes import ClusterNode, running_cluster, until

__all__ = ["scene"]

NAMES = {
    "raft_term_total": "raft_term",
    "raft_log_snapshot_index": "raft_snapshot_index",
    "raft_log_last_applied_index": "raft_last_applied",
    "raft_log_commit_index": "raft_commit_index",
    "raft_log_last_written_index": "raft_last_written_index",
    "raft_entry_commit_latency_seconds": "raft_commit_latency_seconds",
}
"""Names up to RabbitMQ 4.1, and since 4.2."""

LATENCY = "raft_entry_commit_latency_seconds"


async def test_queues_and_definitions_have_rows_under_both_names(scene: Scene) -> None:
    await scene.declare("a")
    await scene.is_led_by("a")
    await publish(await scene.channel("a"), b"1")
    samples = scrape(scene.nodes["a"], per_object=True)
    queue = {"vhost": "/", "queue": "q"}
    assert of(samples, "rabbitmq_raft_log_commit_index", **queue) >= 2
    assert of(samples, f"rabbitmq_{LATENCY}", **queue) >= 0
    for older, newer in NAMES.items():
        value = of(samples, f"rabbitmq_{older}", **queue)
        assert of(samples, f"rabbitmq_{newer}", **queue) == value
        definitions = samples.get((f"rabbitmq_{older}", (("raft_cluster", "rabbitmq_metadata"),)))
        assert samples.get((f"rabbitmq_{newer}", (("ra_system", "coordination"),))) == definitions


async def test_together_they_are_a_sum_but_for_times(scene: Scene) -> None:
    await scene.declare("a")
    await scene.is_led_by("a")
    await publish(await scene.channel("a"), b"1")
    rows = scrape(scene.nodes["a"], per_object=True)
    sums = scrape(scene.nodes["a"])
    for older, newer in NAMES.items():
        values = [value for (name, _), value in rows.items() if name == f"rabbitmq_{older}"]
        total = sum(values) / (len(values) if older == LATENCY else 1)
        assert of(sums, f"rabbitmq_{older}") == total
        of_queues = of(rows, f"rabbitmq_{newer}", vhost="/", queue="q")
        assert of(sums, f"rabbitmq_{newer}", ra_system="quorum_queues") == of_queues
    longest = of(sums, "rabbitmq_raft_max_commit_latency_seconds", ra_system="quorum_queues")
    assert longest == of(rows, f"rabbitmq_{LATENCY}", vhost="/", queue="q")
    assert of(sums, "fluffle_raft_leader_changes_total") >= 2, "of definitions, and of the queue"


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(node: ClusterNode, *, per_object: bool = False) -> Samples:
    services, cluster_view = node.node._services, node.node.parts.cluster_view
    collector = NodeCollector(services, node.config, SystemClock(), cluster_view)
    steps = collector.steps(PER_OBJECT if per_object else AGGREGATED)
    text = b"".join(text_page(steps, "").pieces).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


async def test_links(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        samples = scrape(three["a"])
        assert {
            dict(labels)["node"]: value
            for (name, labels), value in samples.items()
            if name == "fluffle_link_up"
        } == {"b": 1, "c": 1}
        assert of(samples, "fluffle_link_opened_total", by="us") >= 2
        assert of(samples, "fluffle_link_bytes_total", direction="in") > 0
        assert of(samples, "fluffle_link_waiting_bytes", node="b", lane="bulk") == 0
        assert of(samples, "fluffle_link_refused_total", reason="secret") == 0
        await three["c"].kill()
        await until(lambda: not three["a"].cluster.links.is_up("c"))
        samples = scrape(three["a"])
        assert of(samples, "fluffle_link_up", node="c") == 0
        assert of(samples, "fluffle_link_resets_total") >= 1


async def test_one_node_leads_the_definitions(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await three.agree()
        scraped = [scrape(node) for node in three]
        roles = {
            role: sum(of(samples, "fluffle_raft_groups", role=role) for samples in scraped)
            for role in ("leader", "follower", "candidate")
        }
        assert roles == {"leader": 1, "follower": 2, "candidate": 0}
        for samples in scraped:
            assert of(samples, "fluffle_raft_groups_leaderless") == 0
            assert of(samples, "fluffle_raft_groups_quarantined") == 0
            assert of(samples, "fluffle_raft_groups_misfit") == 0
            applied = of(samples, "rabbitmq_raft_last_applied", ra_system="coordination")
            commit = of(samples, "rabbitmq_raft_commit_index", ra_system="coordination")
            assert 0 < applied <= commit
            assert of(samples, "rabbitmq_raft_term", ra_system="coordination") > 0


async def test_the_dashboards_see_one_cluster(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        infos = [
            dict(labels)
            for node in three
            for name, labels in scrape(node)
            if name == "rabbitmq_identity_info"
        ]
    assert [info["rabbitmq_node"] for info in infos] == ["a", "b", "c"]
    assert {info["rabbitmq_cluster"] for info in infos} == {"fluffle"}
    assert len({info["rabbitmq_cluster_permanent_id"] for info in infos}) == 1
