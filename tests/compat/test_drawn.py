"""A few conversations that chance draws; `python -m tests.compat.drawn` holds more of them."""

from collections.abc import Iterator
from random import Random

import pytest

from tests.compat.comparing import compare
from tests.compat.drawn.drawing import drawn
from tests.compat.drawn.observer import Observer
from tests.compat.drawn.running import both, run

pytestmark = pytest.mark.compat

SEEDS = range(1, 7)
"""Of which RabbitMQ always says the same."""
PATIENCE_S = 60.0
"""On a machine with much to do."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Observer, Observer]]:
    with both(tmp_path_factory.mktemp("drawn")) as pair:
        yield pair


@pytest.mark.parametrize("seed", SEEDS)
def test_both_say_the_same_of_what_chance_draws(seed: int, pair: tuple[Observer, Observer]) -> None:
    name = f"drawn.{seed}"
    compare(name, *run(name, drawn(Random(seed)), pair, PATIENCE_S))
