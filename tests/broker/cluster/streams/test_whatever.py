"""Edges and leaders under whatever may happen; see `ghost` for what must hold all along."""

from __future__ import annotations

import pytest

from tests.broker.cluster.streams.happenings import whatever


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens(seed: int) -> None:
    whatever(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(1_000, 2_000), 13_519])
def test_much_of_whatever_happens(seed: int) -> None:
    whatever(seed, steps=250)
