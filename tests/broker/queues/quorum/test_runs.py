"""Runs of messages, and places that keep them in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.runs import MarkedRuns, common, dealt, runs_of, without


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
    marked: MarkedRuns[str] = MarkedRuns()
    marked.put(range(1, 11), "a")
    marked.put(range(12, 30, 3), "b")
    assert marked.take(range(1, 4)) == [(range(1, 4), "a")]
    assert marked.take(range(4, 11)) == [(range(4, 11), "a")]
    assert marked.take(range(12, 18, 3)) == [(range(12, 18, 3), "b")]
    assert list(marked) == [(range(18, 30, 3), "b")]
    assert marked.count == 4


def test_pieces_stay_where_they_were_in_the_order() -> None:
    marked: MarkedRuns[int] = MarkedRuns()
    marked.put(range(10, 15), 1)
    marked.put(range(1, 4), 2)
    marked.take(range(12, 13))
    assert list(marked) == [(range(10, 12), 1), (range(13, 15), 1), (range(1, 4), 2)]


def test_interleaved_runs_are_distinguished() -> None:
    marked: MarkedRuns[str] = MarkedRuns()
    marked.put(range(1, 10, 3), "a")
    marked.put(range(2, 10, 3), "b")
    assert 4 in marked
    assert 5 in marked
    assert 6 not in marked
    assert marked.take(range(7, 8)) == [(range(7, 8), "a")]
    assert marked.take(range(4, 6)) == [(range(4, 5), "a"), (range(5, 6), "b")]


def test_a_message_that_is_not_there() -> None:
    marked: MarkedRuns[None] = MarkedRuns()
    marked.put(range(1, 4), None)
    with pytest.raises(InvalidEntry, match="message 4 is not where it is taken from"):
        marked.take(range(3, 5))


RUN = st.builds(
    lambda first, step, count: range(first, first + step * count, step),
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 9),
)


@given(RUN, RUN)
def test_what_two_runs_have_in_common(one: range, other: range) -> None:
    assert list(common(one, other)) == [n for n in one if n in other]


@given(RUN, st.data())
def test_what_is_left_of_a_run(run: range, data: st.DataObject) -> None:
    parts = []
    left = set(run)
    for part in data.draw(st.lists(RUN, max_size=4)):
        both = common(run, part)
        if both and left.issuperset(both):
            parts.append(both)
            left.difference_update(both)
    assert [number for piece in without(run, parts) for number in piece] == sorted(left)


@given(st.lists(RUN, max_size=5), RUN)
def test_what_of_a_run_is_there(runs: list[range], wanted: range) -> None:
    marked: MarkedRuns[int] = MarkedRuns()
    naive: dict[int, int] = {}
    for mark, run in enumerate(runs):
        if naive.keys().isdisjoint(run):
            marked.put(run, mark)
            naive |= dict.fromkeys(run, mark)
    found = [(number, mark) for part, mark in marked.found(wanted) for number in part]
    assert found == [(number, naive[number]) for number in wanted if number in naive]


def test_a_run_that_is_very_long_costs_no_more_than_what_of_it_is_there() -> None:
    marked: MarkedRuns[str] = MarkedRuns()
    marked.put(range(5, 9), "a")
    marked.put(range(1 << 40, (1 << 40) + 30, 10), "b")
    everything = range(1, 1 << 60)
    found = list(marked.found(everything))
    assert [number for run, _mark in found for number in run] == [
        *range(5, 9), *range(1 << 40, (1 << 40) + 30, 10)
    ]  # fmt: skip
    assert without(everything, [run for run, _mark in found])[0] == range(1, 5)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 4))
def test_within(first: int, stop: int, start: int, step: int) -> None:
    marked: MarkedRuns[None] = MarkedRuns()
    marked.put(range(start, start + 5 * step, step), None)
    found = [number for run in marked.within(first, stop) for number in run]
    assert found == [n for n in range(start, start + 5 * step, step) if first <= n < stop]
