"""Edges and leaders under whatever may happen; see `model` for what must hold all along."""

from __future__ import annotations

from tests.broker.cluster.queue_sessions.random_steps import random_history
from tests.suite.seeds import seeds


@seeds(40)
def test_whatever_happens(seed: int) -> None:
    random_history(seed)


@seeds(range(1_000, 1_010), at_night=1_000, slow=True)
def test_much_of_whatever_happens(seed: int) -> None:
    random_history(seed, steps=250)
