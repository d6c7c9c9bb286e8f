"""Runs every scenario against fluffle; the answers must be equal to RabbitMQ's."""

from collections.abc import Callable, Iterator

import pytest

from tests.compat.comparison import compare
from tests.compat.embedded import Serving
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asked_alone
from tests.compat.replay import Answers
from tests.compat.scenario import load_scenarios

SCENARIOS = load_scenarios()


WAITS = {
    "section_01_connection.a_handshake_has_ten_seconds": "the time of a handshake",
    "section_01_connection.heartbeats_keep_a_connection_and_silence_ends_it": "that of heartbeats",
    "section_01_connection.what_stands_behind_a_close_is_dropped": "a hang-up after a close",
    "section_01_frames.the_largest_message": "its 128 MiB",
}
"""Scenarios that take seconds, and what takes them so long."""


def each() -> Iterator[object]:
    for name in sorted(SCENARIOS):
        yield pytest.param(name, marks=[pytest.mark.compat] if name in WAITS else [])


@pytest.mark.parametrize("name", [*each()])
def test_fluffle_answers_as_rabbitmq(
    name: str, answers: Answers, oracle: Callable[[], RabbitMQ], fluffle: Serving
) -> None:
    scenario = SCENARIOS[name]
    theirs, ours = answers.both(
        asked_alone(scenario),
        lambda: scenario.run("127.0.0.1", oracle().port),
        lambda: scenario.run("127.0.0.1", fluffle.port),
    )
    compare(name, theirs, ours)
