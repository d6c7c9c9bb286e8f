"""Edges and leaders under whatever may happen; see `ghost` for what must hold all along."""

from __future__ import annotations

from tests.broker.cluster.queue_sessions.happenings import whatever
from tests.suite.seeds import seeds


@seeds(40)
def test_whatever_happens(seed: int) -> None:
    whatever(seed)


@seeds(range(1_000, 1_010), at_night=1_000, slow=True)
def test_much_of_whatever_happens(seed: int) -> None:
    whatever(seed, steps=250)
