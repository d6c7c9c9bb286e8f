"""Runs once more what is about quorum queues: RabbitMQ is one node, fluffle three."""

from collections.abc import Callable

import pytest

from tests.compat.clusters import NODES, Cluster
from tests.compat.comparison import compare
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asked_alone
from tests.compat.replay import Answers
from tests.compat.scenario import load_scenarios

pytestmark = pytest.mark.compat  # three nodes take their time to agree

QUORUM_QUEUES = ("section_15", "section_07_single_active")

SCENARIOS = {
    name: each for name, each in load_scenarios().items() if name.startswith(QUORUM_QUEUES)
}


@pytest.mark.parametrize("node", NODES[:2])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_any_node_answers_as_rabbitmq(
    name: str, node: str, answers: Answers, oracle: Callable[[], RabbitMQ], fluffles: Cluster
) -> None:
    scenario = SCENARIOS[name]
    theirs, ours = answers.both(
        asked_alone(scenario),
        lambda: scenario.run("127.0.0.1", oracle().port),
        lambda: scenario.run("127.0.0.1", fluffles.port(node)),
    )
    compare(name, theirs, ours)
