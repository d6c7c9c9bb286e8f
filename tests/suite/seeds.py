"""Seeds of histories, and examples of state machines: few and fixed by day, many and new at night.

A test that takes a `seed` says how many it has; what has failed once is in `regressions.toml` and
always runs.  At night the seeds follow from one number, which is printed: `FLUFFLE_SEED` gives it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, TypeVar

import pytest
from hypothesis import settings

SUITE = "FLUFFLE_SUITE"
"""Environment variable: `day` or `night`; by hand it is neither, and nothing is left out."""
SEED = "FLUFFLE_SEED"
EXAMPLES_BY_DAY = 20
"""Examples of each state machine."""
SEEDS_BY_DAY_MAX = 50
"""Seeds of each history, however it is shared between tests."""
TIMES_AT_NIGHT = 10
"""Factor by which there are more seeds at night."""
REGRESSIONS = Path(__file__).parent.parent / "regressions.toml"
TESTS = Path(__file__).parent.parent

Test = TypeVar("Test", bound=Callable[..., Any])


def is_night() -> bool:
    return os.environ.get(SUITE) == "night"


def night_seed() -> int:
    """The number that all seeds of this night follow from; drawn by the first that asks.

    Processes that are started later inherit it.
    """
    return int(os.environ.setdefault(SEED, str(SystemRandom().randrange(1 << 31))))


def machine_settings(*, examples: int = 100, **others: Any) -> settings:
    """Settings of what once had so many examples in every run: a state machine, or a test with many
    parameters."""
    count = examples * TIMES_AT_NIGHT if is_night() else min(examples, EXAMPLES_BY_DAY)
    return settings(max_examples=count, deadline=None, **others)


@dataclass(frozen=True, slots=True)
class Seeds:
    """The parameter `seed` of a test: a decorator."""

    fixed: Sequence[int]
    """The seeds by day, and by hand."""
    at_night: int
    """How many new ones."""
    is_slow: bool

    def __call__(self, test: Test) -> Test:
        name = name_of(test)
        once = [regression.seed for regression in regressions() if regression.test == name]
        drawn = drawn_for(name, self.at_night) if is_night() else self.fixed
        marks = [pytest.mark.slow("many histories, long ones")] if self.is_slow else []
        rows = [pytest.param(seed, marks=marks) for seed in drawn if seed not in once]
        rows += [pytest.param(seed, id=f"once-{seed}") for seed in once]
        decorated: Test = pytest.mark.parametrize("seed", rows)(test)
        return decorated


def seeds(fixed: int | Sequence[int], *, at_night: int | None = None, slow: bool = False) -> Seeds:
    """A test for each of these, and for those at night that follow from its number."""
    chosen = range(fixed) if isinstance(fixed, int) else fixed
    assert len(chosen) <= SEEDS_BY_DAY_MAX
    return Seeds(chosen, len(chosen) * TIMES_AT_NIGHT if at_night is None else at_night, slow)


def drawn_for(test: str, count: int) -> list[int]:
    """The seeds of a test in this night."""
    return Random(f"{night_seed()} {test}").sample(range(1 << 31), count)


def name_of(test: Callable[..., Any]) -> str:
    """A file below `tests`, and the function in it."""
    path = Path(test.__code__.co_filename).relative_to(TESTS)
    return f"{path}::{test.__name__}"


@dataclass(frozen=True, slots=True)
class Regression:
    """A seed that failed once, and why."""

    test: str
    """The file below `tests` and the function that takes it."""
    seed: int
    reason: str
    nodes: tuple[int, ...] = ()
    """The sizes of a simulated cluster."""


@cache
def regressions() -> tuple[Regression, ...]:
    """All that there are."""
    read = tomllib.loads(REGRESSIONS.read_text(encoding="utf-8"))
    return tuple(
        Regression(row["test"], row["seed"], row["reason"], tuple(row.get("nodes", ())))
        for row in read["seed"]
    )


def regressions_of(test: str) -> list[Regression]:
    """Regressions of one test."""
    return [regression for regression in regressions() if regression.test == test]
