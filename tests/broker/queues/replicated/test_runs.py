"""Runs of messages, and places that keep them in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.queues.replicated.errors import Unfit
from fluffle.broker.queues.replicated.runs import Marked, dealt, runs_of


@given(st.lists(st.integers(1, 40), unique=True))
def test_any_numbers_are_runs(numbers: list[int]) -> None:
    runs = runs_of(numbers)
    assert [number for run in runs for number in run] == numbers
    assert all(run and run.step > 0 for run in runs)


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([1, 2, 3], [range(1, 4)]),
        ([1, 3, 5, 7], [range(1, 9, 2)]),
        ([3, 2, 1], [range(3, 4), range(2, 3), range(1, 2)]),
        ([1, 2, 4, 6, 8, 9], [range(1, 3), range(4, 10, 2), range(9, 10)]),
        (range(5, 9), [range(5, 9)]),
        (range(0), []),
    ],
)
def test_runs_are_long(numbers: list[int], runs: list[range]) -> None:
    assert runs_of(numbers) == runs


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 3))
def test_runs_are_dealt_out_in_turn(counts: list[int], holders: int, step: int) -> None:
    runs, first = [], 1
    for count in counts:
        runs.append(range(first, first + count * step, step))
        first += count * step + 1
    given_to: list[list[int]] = [[] for _ in range(holders)]
    dealt_before = 0
    for run in runs:
        for place, got in enumerate(given_to):
            got.extend(dealt(run, place, holders, dealt_before))
        dealt_before += len(run)
    numbers = [number for run in runs for number in run]
    assert given_to == [numbers[place::holders] for place in range(holders)]


def test_what_comes_out_in_order_is_not_cut() -> None:
    marked: Marked[str] = Marked()
    marked.put(range(1, 11), "a")
    marked.put(range(12, 30, 3), "b")
    assert marked.take(range(1, 4)) == [(range(1, 4), "a")]
    assert marked.take(range(4, 11)) == [(range(4, 11), "a")]
    assert marked.take(range(12, 18, 3)) == [(range(12, 18, 3), "b")]
    assert list(marked) == [(range(18, 30, 3), "b")]
    assert marked.count == 4


def test_pieces_stay_where_they_were_in_the_order() -> None:
    marked: Marked[int] = Marked()
    marked.put(range(10, 15), 1)
    marked.put(range(1, 4), 2)
    marked.take(range(12, 13))
    assert list(marked) == [(range(10, 12), 1), (range(13, 15), 1), (range(1, 4), 2)]


def test_interleaved_runs_are_told_apart() -> None:
    marked: Marked[str] = Marked()
    marked.put(range(1, 10, 3), "a")
    marked.put(range(2, 10, 3), "b")
    assert 4 in marked
    assert 5 in marked
    assert 6 not in marked
    assert marked.take(range(7, 8)) == [(range(7, 8), "a")]
    assert marked.take(range(4, 6)) == [(range(4, 5), "a"), (range(5, 6), "b")]


def test_a_message_that_is_not_there() -> None:
    marked: Marked[None] = Marked()
    marked.put(range(1, 4), None)
    with pytest.raises(Unfit, match="message 4 is not where it is taken from"):
        marked.take(range(3, 5))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 4))
def test_within(first: int, stop: int, start: int, step: int) -> None:
    marked: Marked[None] = Marked()
    marked.put(range(start, start + 5 * step, step), None)
    found = [number for run in marked.within(first, stop) for number in run]
    assert found == [n for n in range(start, start + 5 * step, step) if first <= n < stop]
