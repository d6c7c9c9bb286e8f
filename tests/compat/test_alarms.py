"""Runs the scenarios about low resources."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.comparing import compare
from tests.compat.oracle import RabbitMQ
from tests.compat.resources import COMMANDS, Resources
from tests.compat.scenario import ALARMS, load_scenarios
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

load_scenarios()


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Resources:
    return Resources(tmp_path_factory.mktemp("resources"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, resources: Resources) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("low")
    with Daemon(folder, on_line=resources.hear, environment=resources.environment) as daemon:
        yield daemon


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_both_hold_up_the_same(
    name: str, rabbitmq: RabbitMQ, daemon: Daemon, resources: Resources
) -> None:
    def switch(resource: str, *, low: bool) -> None:
        rabbitmq.ctl(*COMMANDS[resource, low])

    scenario = ALARMS[name]
    try:
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(scenario.run, rabbitmq.port, switch)
            ours = scenario.run(daemon.port, resources.switch)
            theirs = running.result()
    finally:
        for resource in ("disk", "memory"):
            switch(resource, low=False)
    compare(name, theirs, ours)
