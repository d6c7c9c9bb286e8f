"""`fluffle bench` on a node in this process, and its figures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fluffle.broker.amqp_client import ClientOptions, ConnectionEnded
from fluffle.broker.bench import (
    BenchRun,
    Latencies,
    Plan,
    Tally,
    first_failure,
    lines,
    percentile,
    plan_of,
)
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from tests.broker.cli.running_node import RunningNode, run


def unheeded(_tally: Tally, _seconds: float) -> None:
    """Ignore the tally."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(Config(node_name="a", data_dir=tmp_path, listen=ListenAddress("127.0.0.1", 0)))
    await node.start()
    yield node
    await node.stop("test")


@pytest.fixture
def plan(node: Node) -> Plan:
    host, port = node.addresses["amqp"]
    return Plan((host, port), ClientOptions(), ("b",), seconds=0.2)


async def test_all_that_is_confirmed_is_received(plan: Plan) -> None:
    figures = await BenchRun(replace(plan, publishers=2, consumers=2), unheeded).run()
    assert figures["published"] == figures["confirmed"] == figures["received"]
    assert figures["received"]
    assert figures["confirm_ms"]["max"] > 0
    assert figures["end_to_end_ms"]["p50"] > 0


async def test_a_rate_is_kept_to(plan: Plan) -> None:
    figures = await BenchRun(replace(plan, rate=50.0, queue_type="quorum"), unheeded).run()
    assert 1 <= figures["published"] <= 11
    assert figures["received"] == figures["confirmed"] == figures["published"]


async def test_without_consumers_messages_stay(node: Node, plan: Plan) -> None:
    kept = replace(plan, consumers=0, keep=True, window=1, persistent=False)
    figures = await BenchRun(kept, unheeded).run()
    assert figures["received"] == 0
    queue_counts = node.parts.vhost("/").queues["b"].local_counts
    assert queue_counts is not None
    assert queue_counts.ready == figures["confirmed"] > 0


async def test_nobody_is_there() -> None:
    plan = Plan(("127.0.0.1", 1), ClientOptions(), ("b",))
    with pytest.raises(ConnectionEnded):
        await BenchRun(plan, unheeded).run()


async def test_the_first_failure_ends_it() -> None:
    async def fails() -> None:
        raise ConnectionEnded("bye")

    waits = asyncio.ensure_future(asyncio.Event().wait())
    with pytest.raises(ConnectionEnded):
        await first_failure([waits], [asyncio.ensure_future(fails())])
    await asyncio.wait([waits])
    assert waits.cancelled()


def test_percentiles() -> None:
    assert percentile([], 50) is None
    assert percentile([1.0], 99.9) == 1.0
    assert percentile([float(each) for each in range(1, 101)], 95) == 95.0
    latencies = Latencies()
    assert latencies.row()["max"] is None
    latencies.add(0.002)
    assert latencies.row() == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "p99_9": 2.0, "max": 2.0}


def test_figures_for_people() -> None:
    queue_counts = Tally()
    queue_counts.published = queue_counts.refused = 10
    queue_counts.confirm.add(0.001)
    shown = "\n".join(lines(queue_counts.row(2.0)))
    assert "5/s" in shown
    assert "refused" in shown
    assert "p99.9 1" in shown
    assert "end to end nothing" in shown


def test_addresses() -> None:
    options = {"name": "q", "queue_count": 2, "transient": True}
    plan = plan_of("amqp://u:p%40@host:1/v%2F", dict(options))
    assert plan.to == ("host", 1)
    assert (plan.client_options.user, plan.client_options.password, plan.client_options.vhost) == (
        "u",
        "p@",
        "v/",
    )
    assert plan.queues == ("q.1", "q.2")
    for url in ("http://host", "amqp://host:port", "amqp://[::1"):
        assert run("bench", url).exit_code == 2
    assert run("bench", "amqp://127.0.0.1:1").exit_code == 69


def test_a_run_as_it_is_typed(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        url = f"amqp://127.0.0.1:{node.port}"
        result = run("bench", url, "--seconds", "0.1", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["received"]
        assert "end to end" in run("bench", url, "--seconds", "0.1").stdout
