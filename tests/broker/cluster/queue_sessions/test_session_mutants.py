"""The tests are tested: a mistake against each rule is put into a stream, and must be found.

By the examples of rules, or by histories of whatever may happen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from types import ModuleType

from tests.broker.cluster.queue_sessions import test_session_client, test_session_server
from tests.broker.cluster.queue_sessions.random_steps import random_history
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES

SEEDS_MAX = 60
"""A mutant that lives through so many histories has escaped."""


def examples(module: ModuleType) -> list[Callable[[], None]]:
    """Tests of a module without fixtures."""
    return [
        example
        for name, example in vars(module).items()
        if name.startswith("test_") and not signature(example).parameters
    ]


EXAMPLES = examples(test_session_client)
LARGE_EXAMPLES = examples(test_session_server)
HISTORIES: list[Callable[[], None]] = [partial(random_history, seed) for seed in range(SEEDS_MAX)]


@FAMILIES["streams"].each()
def test_it_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(map(fails, EXAMPLES + HISTORIES + LARGE_EXAMPLES)), mutant.mistake


def fails(run: Callable[[], None]) -> bool:
    try:
        run()
    except (AssertionError, LookupError, ValueError):
        return True
    return False
