"""The oracles of MQTT, once a session."""

from collections.abc import Iterator

import pytest

from tests.compat.mqtt.oracles import Oracles
from tests.compat.replay import Answers


@pytest.fixture(scope="session")
def oracles(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracles]:
    """mosquitto and RabbitMQ with its MQTT plugin."""
    with Oracles(answers.mode, tmp_path_factory.mktemp) as both:
        yield both
