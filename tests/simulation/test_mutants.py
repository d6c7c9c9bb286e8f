"""Mutants that the simulator must detect: see `mutation.py`."""

from __future__ import annotations

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES, these
from tests.simulation.mutation import example_that_fails, hunt, scenario_that_fails

SEEDS = 20
"""A representative mutant dies by one of so many."""
SEEDS_OF = {"R9b": 40}
"""Where it takes more: it has died in run 40 since nodes send frames about read indexes and disks,
which drew other histories for all seeds."""


@pytest.mark.slow("seeds until one finds the mistake")
@these(
    *("M1", "M2", "M3", "M4", "M10", "M12", "M21a", "M26", "M49"),
    *("R1", "R2", "R4a", "R6a", "R14a", "R22", "M32", "R9b"),
)
def test_representative_mutants_die_soon(mutant: Mutant) -> None:
    assert dies_by_a_seed(mutant, SEEDS_OF.get(mutant.number, SEEDS))


def dies_by_a_seed(mutant: Mutant, seeds: int) -> bool:
    """And not by a scenario."""
    family = next(name for name in ("groups", "queues") if mutant in FAMILIES[name].own)
    verdict = hunt(family, mutant, seeds)
    return verdict.failure is not None and verdict.runs < 2 * seeds


@pytest.mark.slow("seeds until one finds the mistake")
@these("M11", "M14b", "M15", "M16a", "M16b", "M38", "M44")
def test_scenarios_find_what_few_seeds_find(mutant: Mutant) -> None:
    assert scenario_that_fails() is None
    with mutant.in_place():
        assert scenario_that_fails() is not None


@these("R14i")
def test_examples_find_what_few_seeds_about_queues_find(mutant: Mutant) -> None:
    assert example_that_fails() is None
    with mutant.in_place():
        assert example_that_fails() is not None
