"""What three whole nodes tell of their links and groups."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fluffle.broker.base.clock import SystemClock
from fluffle.broker.observability.metrics.collector import NodeCollector
from fluffle.broker.observability.metrics.endpoint import AGGREGATED, PER_OBJECT, text_page
from tests.support.cluster_nodes import ClusterNode, running_cluster, until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(node: ClusterNode, *, per_object: bool = False) -> Samples:
    services, company = node.node._services, node.node.parts.company
    collector = NodeCollector(services, node.config, SystemClock(), company)
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
