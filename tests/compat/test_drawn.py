"""A few conversations that chance draws; `python -m tests.compat.drawn` holds more of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from random import Random
from typing import TypeAlias

import pytest

from tests.compat.comparison import compare
from tests.compat.drawn.case_generator import drawn
from tests.compat.drawn.observer import Observer
from tests.compat.drawn.player import Player
from tests.compat.drawn.runner import both, heard, replay, run
from tests.compat.embedded import embedded
from tests.compat.http import Http
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Scenario

SEEDS = (*range(1, 7), 730517219, 1409905939)
"""Seeds for which RabbitMQ's answers never vary.  The last two end early: what a channel gives back
at once is in another order then, or dies in another one."""
PATIENCE_S = 60.0
"""On a machine with much to do."""

CASES = {f"drawn.{seed}": drawn(Random(seed)) for seed in SEEDS}
ASKED = {
    name: asks(name, heard, Player.play, Player.clear, Scenario.run, said=[*map(str, case)])
    for name, case in CASES.items()
}
Pair: TypeAlias = tuple[Observer, Observer]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Pair]]:
    """RabbitMQ and fluffle, started by whoever is the first to ask for them."""
    with ExitStack() as running:

        @cache
        def started() -> Pair:
            return running.enter_context(both(tmp_path_factory.mktemp("drawn")))

        yield started


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    """Observer of a broker in the process of the tests."""
    with embedded("--management=127.0.0.1:0") as broker:
        http = Http(broker.addresses["management"][1])
        with Observer(broker.port, http) as observer:
            yield observer


def test_where_there_are_no_exchanges_none_is_bound() -> None:
    """Bindings that are refused may be drawn before."""
    case = drawn(Random(244))
    assert not any(operation.verb == "declare_exchange" for operation in case)
    assert any(operation.verb == "bind" for operation in case)


@pytest.mark.parametrize("name", CASES)
def test_both_say_the_same_of_what_chance_draws(
    name: str, answers: Answers, pair: Callable[[], Pair], observer: Observer
) -> None:
    """Compare both; RabbitMQ's observations are known when both have seen the same: they are not
    recorded alone."""
    theirs = answers.recorded(ASKED[name])
    if theirs is not None:
        compare(name, theirs, replay(name, CASES[name], observer, theirs, PATIENCE_S))
        return
    theirs, ours = run(name, CASES[name], pair(), PATIENCE_S)
    compare(name, theirs, ours)
    answers.note(ASKED[name], theirs)
