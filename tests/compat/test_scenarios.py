"""Runs every scenario against RabbitMQ and against fluffle; the answers must be equal."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.comparing import compare, theirs_by_scenario
from tests.compat.differences import DIFFERENCES
from tests.compat.nodes import load_nodes_scenarios
from tests.compat.oracle import RabbitMQ
from tests.compat.scenario import ALARMS, CROSSINGS, load_scenarios
from tests.compat.test_quorum import NAMES
from tests.support.daemon import Daemon
from tests.support.require import unavailable

pytestmark = pytest.mark.compat

SCENARIOS = load_scenarios()
NODES_SCENARIOS = load_nodes_scenarios()


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_fluffle_answers_as_rabbitmq(name: str, rabbitmq: RabbitMQ, fluffle: Daemon) -> None:
    scenario = SCENARIOS[name]
    with ThreadPoolExecutor(1) as beside:  # both at once: some wait for a silent peer's end
        running = beside.submit(scenario.run, "127.0.0.1", rabbitmq.port)
        ours = scenario.run("127.0.0.1", fluffle.port)
        theirs = running.result()
    compare(name, theirs, ours)


def test_every_difference_is_still_needed(request: pytest.FixtureRequest) -> None:
    known = SCENARIOS.keys() | CROSSINGS.keys() | ALARMS.keys() | NODES_SCENARIOS.keys()
    known |= {f"quorum.{name}" for name in NAMES}
    if len(request.session.items) < len(known):
        pytest.skip("not all scenarios are run")  # as when a few that failed are run again
    if not known <= theirs_by_scenario.keys():
        unavailable("this is not a run of all scenarios")
    stale = [
        difference.reason
        for difference in DIFFERENCES
        if not any(
            difference.applied(transcript) != transcript
            for name, transcript in theirs_by_scenario.items()
            if difference.concerns(name)
        )
    ]
    assert stale == []
