"""Runs every scenario of several nodes; three of fluffle answer as three of RabbitMQ."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.compat.clusters import Cluster, RabbitMQCluster
from tests.compat.comparison import compare
from tests.compat.nodes import load_nodes_scenarios, run
from tests.compat.questions import asked_of_nodes
from tests.compat.replay import Answers

pytestmark = pytest.mark.compat  # three nodes take their time to agree

SCENARIOS = load_nodes_scenarios()


@pytest.fixture(scope="module")
def rabbits(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], RabbitMQCluster]]:
    """Three nodes of RabbitMQ, started by whoever is the first to ask for them."""
    with ExitStack() as running:

        @cache
        def started() -> RabbitMQCluster:
            return running.enter_context(RabbitMQCluster(tmp_path_factory.mktemp("rabbits")))

        yield started


@pytest.mark.parametrize("name", SCENARIOS)
def test_three_fluffles_answer_as_three_rabbits(
    name: str, answers: Answers, rabbits: Callable[[], RabbitMQCluster], fluffles: Cluster
) -> None:
    drive = SCENARIOS[name]
    theirs, ours = answers.both(
        asked_of_nodes(name, drive), lambda: run(drive, rabbits()), lambda: run(drive, fluffles)
    )
    compare(name, theirs, ours)
