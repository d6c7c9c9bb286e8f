"""Runs the scenarios about low resources."""

from collections.abc import Callable, Iterator

import pytest

from tests.compat.comparison import compare
from tests.compat.embedded import embedded
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asked_under_alarm
from tests.compat.replay import Answers
from tests.compat.resources import COMMANDS, Resources
from tests.compat.scenario import ALARMS, AlarmScenario, Transcript, load_scenarios
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

load_scenarios()


@pytest.fixture(scope="module")
def hold_up(
    tmp_path_factory: pytest.TempPathFactory, answers: Answers
) -> Iterator[Callable[[AlarmScenario], Transcript]]:
    """Function that gives fluffle's transcript of a scenario."""
    if not answers.is_live:
        with embedded() as broker:
            yield lambda scenario: scenario.run(broker.port, broker.switch)
        return
    resources = Resources(tmp_path_factory.mktemp("resources"))
    folder = tmp_path_factory.mktemp("low")
    with Daemon(folder, on_line=resources.hear, environment=resources.environment) as daemon:
        yield lambda scenario: scenario.run(daemon.port, resources.switch)


def held_up(rabbitmq: RabbitMQ, scenario: AlarmScenario) -> Transcript:
    """Transcript of RabbitMQ."""

    def switch(resource: str, *, low: bool) -> None:
        rabbitmq.ctl(*COMMANDS[resource, low])

    try:
        return scenario.run(rabbitmq.port, switch)
    finally:
        for resource in ("disk", "memory"):
            switch(resource, low=False)


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_both_hold_up_the_same(
    name: str,
    answers: Answers,
    oracle: Callable[[], RabbitMQ],
    hold_up: Callable[[AlarmScenario], Transcript],
) -> None:
    scenario = ALARMS[name]
    theirs, ours = answers.both(
        asked_under_alarm(scenario),
        lambda: held_up(oracle(), scenario),
        lambda: hold_up(scenario),
    )
    compare(name, theirs, ours)
