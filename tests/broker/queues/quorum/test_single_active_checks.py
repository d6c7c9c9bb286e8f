"""Checks of entries about the single active consumer."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch
from tests.broker.queues.quorum.single_active_checks import SingleActiveChecks

LOW, HIGH, LATE = 11, 19, 16


def attached(key: int, priority: int) -> f.Fact:
    return f.ConsumerAttached(key, 1, 0, priority, 0, False, False, "", b"")


@pytest.fixture
def alone() -> SingleActiveChecks:
    """The first is active, and holds nothing; others of a higher priority wait."""
    alone = SingleActiveChecks()
    facts = [attached(LOW, -1), f.SacActive(LOW), attached(HIGH, 1), attached(LATE, 0)]
    alone.apply(FactBatch(0, 0, facts))
    return alone


@pytest.mark.parametrize(
    "facts",
    [
        [f.SacActive(HIGH)],
        [f.SacActive(LATE), f.Detached(HIGH)],
        [f.Detached(HIGH), f.SacActive(LATE)],
        [f.SacActive(HIGH), f.Detached(LOW)],
    ],
)
def test_the_next_is_first_of_those_that_stay(
    alone: SingleActiveChecks, facts: list[f.Fact]
) -> None:
    alone.apply(FactBatch(0, 0, facts))
    assert alone.active != LOW


@pytest.mark.parametrize("facts", [[f.SacActive(LATE)], [f.SacActive(LATE), f.Detached(LOW)]])
def test_nobody_else_is(alone: SingleActiveChecks, facts: list[f.Fact]) -> None:
    with pytest.raises(AssertionError, match="16 is active, and"):
        alone.apply(FactBatch(0, 0, facts))


def test_whoever_gives_way_and_stays_holds_nothing(alone: SingleActiveChecks) -> None:
    alone.apply(FactBatch(0, 0, [f.Delivered(0, [LOW], [range(1, 2)])]))
    with pytest.raises(AssertionError, match="11 gives way with"):
        alone.apply(FactBatch(0, 0, [f.SacActive(HIGH)]))
