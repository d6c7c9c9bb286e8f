"""Scenarios that are written for classic queues, with quorum queues in their place.

RabbitMQ is one node, fluffle a node that is alone, and three: there the queue is led by another
node than the one to which the clients connect.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.clusters import Cluster
from tests.compat.comparison import compare
from tests.compat.embedded import Serving
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asked_with_quorum_queues
from tests.compat.quorum import NAMES, run
from tests.compat.replay import Answers
from tests.compat.scenario import load_scenarios

pytestmark = pytest.mark.compat  # three nodes take their time to agree

SCENARIOS = load_scenarios()


@pytest.mark.parametrize("name", NAMES)
def test_quorum_queues_answer_as_those_of_rabbitmq(
    name: str,
    answers: Answers,
    oracle: Callable[[], RabbitMQ],
    fluffle: Serving,
    fluffles: Cluster,
) -> None:
    drive = SCENARIOS[name].drive
    asked = asked_with_quorum_queues(SCENARIOS[name])
    with ThreadPoolExecutor(1) as beside:
        through = beside.submit(run, drive, fluffles.port("b"), fluffles.port("a"))
        theirs, alone = answers.both(
            asked,
            lambda: run(drive, oracle().port),
            lambda: run(drive, fluffle.port),
        )
    compare(asked.name, theirs, alone)
    compare(asked.name, theirs, through.result())
