"""What the simulator must be able to see: see `mutation.py`."""

from __future__ import annotations

import pytest

from tests.mutants.registry import FAMILIES, mutant
from tests.mutants.verdict import Verdict
from tests.simulation.mutation import hunt, scenario_that_fails


def hunted(number: str, seeds: int) -> Verdict:
    family = next(name for name in ("groups", "queues") if mutant(number) in FAMILIES[name].own)
    return hunt(family, mutant(number), seeds)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        *("M1", "M2", "M3", "M4", "M10", "M12", "M21a", "M26", "M49"),
        *("R1", "R2", "R4a", "R6a", "R14a", "R22", "M32"),
    ],
)
def test_representative_mutants_die_soon(number: str) -> None:
    verdict = hunted(number, seeds=20)
    assert verdict.failure is not None
    assert verdict.runs < 40, "by a seed, not by a scenario"


@pytest.mark.slow
def test_a_mutant_that_takes_more_histories_dies_by_a_seed_too() -> None:
    """R9b died in run 8, and has died in run 40 since nodes send frames about read indexes and
    disks, which drew other histories for all seeds."""
    verdict = hunted("R9b", seeds=40)
    assert verdict.failure is not None
    assert verdict.runs < 80, "by a seed, not by a scenario"


@pytest.mark.slow
@pytest.mark.parametrize("number", ["M11", "M14b", "M15", "M16a", "M16b", "M44"])
def test_scenarios_find_what_few_seeds_find(number: str) -> None:
    assert scenario_that_fails() is None
    with mutant(number).in_place():
        assert scenario_that_fails() is not None
