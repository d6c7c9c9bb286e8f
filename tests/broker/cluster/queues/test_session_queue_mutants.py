"""The tests are tested: a mistake in how batches are cut must be found by what comes of them."""

from __future__ import annotations

import pytest

from tests.broker.cluster.queues.test_session_queue_batches import (
    asks_again,
    asks_home_again,
    make_small,
    passes_on,
    whatever,
)
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES

SEEDS_MAX = 60
"""A mutant that lives through so many of each has escaped."""


@FAMILIES["batches"].each()
def test_it_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    with mutant.in_place():
        assert any(map(fails, range(SEEDS_MAX))), mutant.mistake


def fails(seed: int) -> bool:
    try:
        for example in (asks_again, asks_home_again, passes_on, whatever):
            example(seed)
    except (AssertionError, LookupError, ValueError, TypeError):
        return True
    return False
