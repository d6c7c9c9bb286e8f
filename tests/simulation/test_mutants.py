"""What the simulator must be able to see: see `mutation.py`."""

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, hunt, scenario_that_fails

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def test_there_are_enough_of_them_and_each_has_its_name() -> None:
    assert len(BY_NAME) == len(MUTANTS) >= 30


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_that_a_mutant_changes_is_there(mutant: Mutant) -> None:
    original = mutant.function().__code__
    with mutant.in_place():
        assert mutant.function().__code__ != original
    assert mutant.function().__code__ is original


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("M1", "M2", "M3", "M4", "M10", "M12", "M21a", "M26", "M49"),
        *("R1", "R2", "R4a", "R6a", "R14a", "R22", "M32"),
    ],
)
def test_representative_mutants_die_soon(name: str) -> None:
    verdict = hunt(BY_NAME[name], seeds=20)
    assert verdict.failure is not None
    assert verdict.runs < 40, "by a seed, not by a scenario"


@pytest.mark.slow
def test_a_mutant_that_takes_more_histories_dies_by_a_seed_too() -> None:
    """R9b died in run 8, and has died in run 40 since nodes send frames about read indexes and
    disks, which drew other histories for all seeds."""
    verdict = hunt(BY_NAME["R9b"], seeds=40)
    assert verdict.failure is not None
    assert verdict.runs < 80, "by a seed, not by a scenario"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["M11", "M14b", "M15", "M16a", "M16b", "M44"])
def test_scenarios_find_what_few_seeds_find(name: str) -> None:
    assert scenario_that_fails() is None
    with BY_NAME[name].in_place():
        assert scenario_that_fails() is not None
