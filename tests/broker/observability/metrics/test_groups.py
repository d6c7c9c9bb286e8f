"""What is told of Raft groups, under the names of several versions of RabbitMQ."""

from __future__ import annotations

from tests.broker.cluster.queues.test_three_nodes import Scene, publish, scene
from tests.broker.observability.metrics.test_cluster import of, scrape

__all__ = ["scene"]

NAMES = {
    "raft_term_total": "raft_term",
    "raft_log_snapshot_index": "raft_snapshot_index",
    "raft_log_last_applied_index": "raft_last_applied",
    "raft_log_commit_index": "raft_commit_index",
    "raft_log_last_written_index": "raft_last_written_index",
    "raft_entry_commit_latency_seconds": "raft_commit_latency_seconds",
}
"""Those up to RabbitMQ 4.1, and since 4.2."""

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
