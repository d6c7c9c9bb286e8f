"""The tests are tested: a queue that forgets what has happened before must be found."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.broker.queues.test_engine_model import QueueMachine
from tests.simulation.mutation import Mutant

QUEUE = "broker.queues.engine:Queue"

MUTANTS = [
    Mutant(name, f"what was published before {what}", f"{QUEUE}.{name}", "self.hand_out()", "pass")
    for name, what in (
        ("attach", "a consumer came is for it, too"),
        ("get", "is got though a consumer had room"),
        ("purge", "is purged though a consumer had room"),
    )
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_found(mutant: Mutant) -> None:
    fast = settings(
        max_examples=300,
        stateful_step_count=50,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    with mutant.in_place(), pytest.raises(AssertionError, match="published before"):
        run_state_machine_as_test(QueueMachine, settings=fast)
