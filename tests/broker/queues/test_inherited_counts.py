"""What messages have brought along, in runs, against a dictionary."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from fluffle.broker.queues.delivery_counts import NEW, Counts, brought_along
from fluffle.broker.queues.inherited_counts import InheritedCounts
from tests.suite.seeds import seeds

COUNTS = [NEW, Counts(1, 1), Counts(4, 2)]


@seeds(40)
def test_it_knows_of_each_message_what_it_brought_along(seed: int) -> None:
    chance, carried = Random(seed), InheritedCounts()
    known: dict[int, Counts] = {}
    following = 1
    for _ in range(120):
        if chance.random() < 0.5:
            count, counts = chance.randint(1, 6), chance.choice(COUNTS)
            carried.put(following, following + count, counts)
            if counts != NEW:
                known |= dict.fromkeys(range(following, following + count), counts)
            following += count + chance.choice([0, 0, 2])
        else:
            front = min(known, default=1)
            first = chance.choice([front, chance.randint(1, following)])
            gone = range(first, first + chance.randint(1, 12), chance.choice([1, 1, 3]))
            carried.take(gone if chance.random() < 0.7 else [*gone])
            for number in gone:
                known.pop(number, None)
        told = {number: run.counts for run in carried.runs for number in range(*run[:2])}
        assert told == known
        bounds = [bound for run in carried.runs for bound in run[:2]]
        assert bounds == sorted(bounds)
        assert (carried.has_any, carried.stop) == (bool(known), max(known, default=-1) + 1)
        first, stop = sorted(chance.sample(range(1, following + 2), 2))
        alike = carried.alike(first, stop)
        assert alike.first == first < alike.stop <= stop
        assert {known.get(number, NEW) for number in range(first, alike.stop)} == {alike.counts}
        is_end = alike.stop == stop or alike.stop in {run.first for run in carried.runs}
        assert is_end or known.get(alike.stop, NEW) != alike.counts


def test_a_million_that_were_rejected_once_are_one_run() -> None:
    carried = InheritedCounts()
    for first in range(1, 1_000_001, 100):
        carried.put(first, first + 100, Counts(1, 1))
    assert carried.runs == [(1, 1_000_001, (1, 1))]
    carried.take(range(1, 900_001))
    assert carried.runs == [(900_001, 1_000_001, (1, 1))]
    copy = InheritedCounts(carried.runs)
    carried.clear()
    assert (carried.runs, len(copy.runs)) == ([], 1)


class Moved(list[Any]):
    """Counts what moves where some of it is cut out."""

    moved_count = 0

    def __setitem__(self, at: Any, values: Any) -> None:
        if len(self[at]) != len(values):
            self.moved_count += len(self) - at.stop
        super().__setitem__(at, values)

    def __delitem__(self, at: Any) -> None:
        self.moved_count += len(self) - at.stop
        super().__delitem__(at)


def test_taking_one_after_the_other_moves_none_of_those_behind_again_and_again() -> None:
    carried, count = InheritedCounts(), 10_000
    for number in range(1, count + 1):
        carried.put(number, number + 1, Counts(1 + number % 2, 1))
    carried._runs = moved = Moved(carried._runs)
    for number in range(1, count + 1):
        assert carried.alike(number, count).counts == Counts(1 + number % 2, 1)
        carried.take(range(number, number + 1))
    assert not carried.has_any
    assert moved.moved_count <= count


@pytest.mark.parametrize(
    ("counts", "is_rejected", "brings"),
    [
        (NEW, True, Counts(1, 1)),
        (Counts(3, 1), True, Counts(4, 2)),
        (Counts(3, 2), False, Counts(3, 2)),
        (Counts(3, 0), False, NEW),
        (NEW, False, NEW),
    ],
)
def test_what_goes_with_a_message(counts: Counts, is_rejected: bool, brings: Counts) -> None:
    assert brought_along(counts, is_rejected=is_rejected) == brings
