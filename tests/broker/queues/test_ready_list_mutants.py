"""The tests are tested: mistakes in what waits, or is held for too long, must be found."""

from __future__ import annotations

import pytest

from tests.broker.queues import test_consumers_timeout_model, test_requeue
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES

SEEDS_MAX = 30
"""A mutant that lives through so many has escaped."""


@FAMILIES["waiting"].each()
def test_it_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    with mutant.in_place():
        assert any(fails(seed, monkeypatch) for seed in range(SEEDS_MAX)), mutant.mistake


def fails(seed: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    try:
        test_requeue.test_each_comes_back_once_at_its_time_as_it_was(seed)
        test_consumers_timeout_model.test_whatever_happens(seed, monkeypatch)
    except (AssertionError, LookupError, ValueError):
        return True
    return False
