"""Runs every scenario against RabbitMQ and against fluffle; the answers must be equal."""

import difflib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.differences import DIFFERENCES
from tests.compat.oracle import RabbitMQ
from tests.compat.scenario import Transcript, load_scenarios
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

SCENARIOS = load_scenarios()

theirs_by_scenario: dict[str, Transcript] = {}
"""What RabbitMQ said in this session, before any difference."""


def text(transcript: Transcript) -> list[str]:
    return [f"{name}: {line}" for name, lines in sorted(transcript.items()) for line in lines]


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_fluffle_answers_as_rabbitmq(name: str, rabbitmq: RabbitMQ, fluffle: Daemon) -> None:
    scenario = SCENARIOS[name]
    with ThreadPoolExecutor(1) as beside:  # both at once: some wait for a silent peer's end
        running = beside.submit(scenario.run, "127.0.0.1", rabbitmq.port)
        ours = scenario.run("127.0.0.1", fluffle.port)
        theirs = theirs_by_scenario[name] = running.result()
    assert any(theirs.values()), "nothing was heard, so nothing is compared"
    for difference in DIFFERENCES:
        if difference.concerns(name):
            theirs, ours = difference.applied(theirs), difference.read(ours)
    diff = difflib.unified_diff(text(theirs), text(ours), "RabbitMQ", "fluffle", lineterm="", n=99)
    assert ours == theirs, "\n".join(diff)


def test_every_difference_is_still_needed(request: pytest.FixtureRequest) -> None:
    if theirs_by_scenario.keys() != SCENARIOS.keys():
        pytest.skip("needs a run of all scenarios")
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
