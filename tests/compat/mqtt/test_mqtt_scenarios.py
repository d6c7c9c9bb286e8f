"""Runs every scenario of MQTT against fluffle; what is heard must be what the reference says."""

import json
from collections.abc import Iterator

import pytest

from tests.compat.comparison import difference_of
from tests.compat.embedded import embedded
from tests.compat.mqtt.configuration import DEFINITIONS
from tests.compat.mqtt.differences import as_meant
from tests.compat.mqtt.oracles import Oracles
from tests.compat.mqtt.scenario import Addresses, load_scenarios
from tests.compat.replay import Answers
from tests.support.daemon import Daemon

SCENARIOS = load_scenarios()
WAITS = {
    "section_02_sessions.silence_ends_a_connection": "a keep alive of a second",
    "section_02_sessions.a_delay_of_a_second": "the delay of a will",
    "section_07_login.credentials": "the answer to wrong passwords",
}
"""Scenarios that take seconds, and what takes them so long."""


@pytest.fixture(scope="module")
def fluffle(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """fluffle with the users that RabbitMQ has."""
    folder = tmp_path_factory.mktemp("fluffle")
    file = folder / "definitions.json"
    file.write_text(json.dumps(DEFINITIONS))
    options = f"--definitions={file}", "--mqtt=127.0.0.1:0"
    if not answers.is_live:
        with embedded(*options) as broker:
            yield Addresses(broker.addresses["mqtt"], broker.addresses["amqp"])
        return
    with Daemon(folder / "data", *options) as daemon:
        yield Addresses(daemon.addresses["mqtt"], daemon.addresses["amqp"])
    assert "Traceback" not in daemon.log


def each() -> Iterator[object]:
    for name in sorted(SCENARIOS):
        yield pytest.param(name, marks=[pytest.mark.compat] if name in WAITS else [])


@pytest.mark.parametrize("name", [*each()])
def test_fluffle_answers_as_its_reference(name: str, oracles: Oracles, fluffle: Addresses) -> None:
    scenario = SCENARIOS[name]
    theirs = oracles.of(scenario.reference, scenario)
    theirs, ours = as_meant(name, theirs, scenario.run(fluffle))
    assert ours == theirs, difference_of(theirs, ours)
