"""What numbers were, against a list of all that they have been."""

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.observability.statistics.counts import (
    LONG,
    OF_QUEUE,
    SHORT,
    Counts,
    Level,
    NumberHistory,
    NumberWidth,
)

FINE = 10
LEVELS = (Level(1, FINE), Level(4, 6))
CHANGES = st.lists(st.tuples(st.integers(1, 7), st.integers(-9, 2**30)), min_size=1, max_size=60)
"""After how many ticks, and by how much."""


@pytest.mark.parametrize("width", NumberWidth)
@given(start=st.integers(0, 2**40), changes=CHANGES)
def test_what_was_is_what_it_was_as_far_as_it_is_remembered(
    width: NumberWidth, start: int, changes: list[tuple[int, int]]
) -> None:
    history, tick, value = NumberHistory(2, LEVELS, width), 100, start
    known = [(tick, value)]
    history.add(tick, (value, 7))
    for ticks, by in changes:
        tick, value = tick + ticks, max(0, value + by)
        known.append((tick, value))
        history.add(tick, (value, 7))
        if width is NumberWidth.NARROW and abs(value - known[-FINE:][0][1]) >= 2**31:
            return  # more than it is made for
    for at, was in known[-FINE:]:
        assert history.at(at, (value, 7)) == [was, 7]
        assert history.at(at - 1, (value, 7))[1] == 7


@given(changes=CHANGES)
def test_of_the_older_ones_fewer_are_remembered(changes: list[tuple[int, int]]) -> None:
    """What was then is exact at the end of each stretch, and between what it was at both ends."""
    history, tick, value = NumberHistory(1, LEVELS, NumberWidth.WIDE), 0, 0
    known = {tick: value}
    history.add(tick, (value,))
    for step, by in changes:
        for quiet in range(tick + 1, tick + step):
            known[quiet] = value
        tick, value = tick + step, value + abs(by)
        known[tick] = value
        history.add(tick, (value,))
    for at in range(max(0, tick - 4 * (6 - 2)), tick):
        was, start = history.at(at, (value,))[0], at // 4 * 4
        if at == start + 3:
            assert was == known[at]
        assert known[max(0, start - 1)] <= was <= known[min(tick, start + 3)]
    assert history.at(tick + 3, (value,)) == [value]


@pytest.mark.parametrize("levels", [SHORT, LONG])
def test_what_grows_evenly_was_growing_evenly(levels: tuple[Level, ...]) -> None:
    history = NumberHistory(1, levels, NumberWidth.WIDE)
    for tick in range(1_000, 20_000):
        history.add(tick, (12 * tick,))
    reach = levels[-1].ticks * (levels[-1].rows - 2)
    for at in range(19_999 - reach, 20_000, 7):
        assert history.at(at, (12 * 20_000,)) == [12 * at]


def test_what_did_not_change_for_long_is_no_slope() -> None:
    history = NumberHistory(1, LEVELS, NumberWidth.WIDE)
    history.add(1, (5,))
    for tick in range(100, 100 + FINE + 4):
        history.add(tick, (1_000 + tick,))
    assert history.at(99, (0,)) == [5]
    assert history.at(98, (0,)) == history.at(2, (0,)) == history.at(0, (0,)) == [5]


def test_before_the_first_look_it_was_nothing() -> None:
    counts = Counts(OF_QUEUE)
    assert list(counts.at(7)) == [0] * 9
    counts.add(0, (5,))
    counts.sample(7)
    assert counts.at(7)[0] == 5
    assert counts.at(6)[0] == counts.at(1)[0] == 0


def test_what_was_found_has_always_been_so() -> None:
    counts = Counts(OF_QUEUE)
    counts.add(0, (5,))
    counts.found(7)
    assert counts.at(3)[0] == 5


def test_an_object_has_its_bounds() -> None:
    """They are in the documentation."""
    counts = Counts(OF_QUEUE)
    for tick in range(1, 10_000, 3):
        counts.add(0, (1,))
        counts.sample(tick)
    history = counts._history
    assert history is not None
    size_bytes = sum(len(rows) * rows.itemsize for rows in history._rows)
    assert size_bytes == (13 + 12) * (1 + 9) * array("I").itemsize == 1_000
    assert sum(map(sys.getsizeof, history._rows)) < 2 * size_bytes


def test_levels_reach_as_far_as_they_say() -> None:
    assert [level.ticks * (level.rows - 2) * 5 for level in LONG] == [600, 3600, 28_800, 86_400]
    assert (SHORT[0].ticks * (SHORT[0].rows - 1) * 5, SHORT[1].ticks * (SHORT[1].rows - 2) * 5) == (
        60,
        600,
    )
