"""Due messages, compared with a sorted list."""

from __future__ import annotations

from array import array
from bisect import insort
from random import Random

import pytest

from fluffle.broker.queues import delayed_ready_list
from fluffle.broker.queues.delayed_ready_list import DueIndex
from fluffle.broker.queues.expiry_times import NEVER_MS
from tests.suite.seeds import seeds


@seeds(20)
def test_whatever_comes_leaves_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed_ready_list, "LEAF", 4)
    chance, found, expected, number = Random(seed), DueIndex(), list[tuple[int, int]](), 0
    for _ in range(chance.randrange(20)):  # all that is found was there before
        times_ms = array("Q", [chance.randrange(40) for _ in range(chance.randrange(9))])
        numbers = range(number, number + len(times_ms))
        found.add_found(times_ms, numbers)
        for pair in zip(times_ms, numbers, strict=True):
            insort(expected, pair)
        number += len(numbers)
    for _ in range(400):
        if chance.random() < 0.6:
            due_ms, count = chance.randrange(40), chance.choice([1, 1, 2, 9])
            found.add(due_ms, range(number, number + count))
            for each in range(number, number + count):
                insort(expected, (due_ms, each))
            number += count
        else:
            until_ms, most = chance.randrange(40), chance.randrange(12)
            due = [pair for pair in expected if pair[0] <= until_ms][:most]
            assert found.take(until_ms, most) == [each for _due_ms, each in due]
            del expected[: len(due)]
        assert found.count == len(expected)
        assert found.due_ms == (expected[0][0] if expected else NEVER_MS)
    assert found.take(NEVER_MS, NEVER_MS) == [each for _due_ms, each in expected]
    assert (found.count, found.due_ms) == (0, NEVER_MS)


def test_no_leaf_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed_ready_list, "LEAF", 4)
    chance, found = Random(1), DueIndex()
    for number in range(500):
        found.add(chance.randrange(50), range(3 * number, 3 * number + 3))
    sizes = [len(leaf.numbers) for leaf in found._leaves]
    assert max(sizes) <= 4
    assert sum(sizes) == 1_500
