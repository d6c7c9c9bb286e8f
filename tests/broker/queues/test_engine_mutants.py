"""The tests are tested: a queue that forgets what has happened before must be found."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.broker.queues.test_engine_model import QueueMachine
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES


@FAMILIES["order"].each()
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
