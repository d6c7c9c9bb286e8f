"""The tests are tested: a mistake in the home of a queue must be found by whatever happens."""

from __future__ import annotations

from tests.broker.cluster.queues.test_classic_queues_host import whatever
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES

SEEDS_MAX = 60
"""A mutant that lives through so many histories has escaped."""


@FAMILIES["home"].each()
def test_it_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(map(fails, range(SEEDS_MAX))), mutant.mistake


def fails(seed: int) -> bool:
    try:
        whatever(seed)
    except (AssertionError, LookupError, ValueError, TypeError):
        return True
    return False
