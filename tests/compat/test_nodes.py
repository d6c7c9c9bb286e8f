"""Runs every scenario of several nodes against three of RabbitMQ and three of fluffle."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.clusters import FluffleCluster, RabbitMQCluster
from tests.compat.comparing import compare
from tests.compat.nodes import load_nodes_scenarios, run

pytestmark = pytest.mark.compat

SCENARIOS = load_nodes_scenarios()


@pytest.fixture(scope="module")
def rabbits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQCluster]:
    with RabbitMQCluster(tmp_path_factory.mktemp("rabbits")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fluffles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FluffleCluster]:
    with FluffleCluster(tmp_path_factory.mktemp("fluffles")) as cluster:
        yield cluster
    assert "Traceback" not in "".join(daemon.log for daemon in cluster.daemons.values())


@pytest.mark.parametrize("name", SCENARIOS)
def test_three_fluffles_answer_as_three_rabbits(
    name: str, rabbits: RabbitMQCluster, fluffles: FluffleCluster
) -> None:
    drive = SCENARIOS[name]
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(run, drive, rabbits)
        ours = run(drive, fluffles)
        theirs = running.result()
    compare(name, theirs, ours)
