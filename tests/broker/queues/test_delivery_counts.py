"""Delivery counts of dead letters go to queues that accept them, and to no others."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex, brought_along
from fluffle.broker.queues.engine import Queue
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.properties import Properties
from tests.broker.transfer.test_dead_letters import Harness, take
from tests.suite.seeds import seeds


@pytest.mark.parametrize(
    ("is_able", "counts", "is_reported"),
    [(True, Counts(3, 1), [Counts(3, 1)]), (True, NEW, []), (False, Counts(3, 1), [])],
)
def test_who_takes_it_is_notified(
    *, is_able: bool, counts: Counts, is_reported: list[Counts]
) -> None:
    reported: list[Counts] = []

    class Counting(Queue):
        __slots__ = ()

        def enqueue_dead_letters(
            self, *messages: Any, counts: Counts, dead_letter_ids: None, **how: Any
        ) -> Any:
            assert dead_letter_ids is None
            reported.append(counts)
            return self.enqueue(*messages, **how)

    place = Harness()
    dead, queue = place.declare("dead"), place.declare("q", to="dead")
    dead.__class__ = Counting if is_able else Queue
    place.publish(queue, Properties())
    delivery_batch = take(queue)
    died = DeadMessages(
        DeathReason.REJECTED, delivery_batch.origins, delivery_batch.contents, counts=counts
    )
    place.dead_letters.publish("/", queue.name, queue.settings, died)
    assert (dead.ready_count, reported) == (1, is_reported)


COUNTS = [NEW, Counts(1, 1), Counts(4, 2)]


@seeds(40)
def test_it_knows_of_each_message_what_it_brought_along(seed: int) -> None:
    chance, delivery_counts = Random(seed), DeliveryCountIndex()
    known: dict[int, Counts] = {}
    following = 1
    for _ in range(120):
        if chance.random() < 0.5:
            count, counts = chance.randint(1, 6), chance.choice(COUNTS)
            delivery_counts.put(following, following + count, counts)
            if counts != NEW:
                known |= dict.fromkeys(range(following, following + count), counts)
            following += count + chance.choice([0, 0, 2])
        else:
            front = min(known, default=1)
            first = chance.choice([front, chance.randint(1, following)])
            gone = range(first, first + chance.randint(1, 12), chance.choice([1, 1, 3]))
            delivery_counts.take(gone if chance.random() < 0.7 else [*gone])
            for number in gone:
                known.pop(number, None)
        reported = {
            number: run.counts for run in delivery_counts.runs for number in range(*run[:2])
        }
        assert reported == known
        bounds = [bound for run in delivery_counts.runs for bound in run[:2]]
        assert bounds == sorted(bounds)
        assert (delivery_counts.has_any, delivery_counts.stop) == (
            bool(known),
            max(known, default=-1) + 1,
        )
        first, stop = sorted(chance.sample(range(1, following + 2), 2))
        alike = delivery_counts.alike(first, stop)
        assert alike.first == first < alike.stop <= stop
        assert {known.get(number, NEW) for number in range(first, alike.stop)} == {alike.counts}
        is_end = alike.stop == stop or alike.stop in {run.first for run in delivery_counts.runs}
        assert is_end or known.get(alike.stop, NEW) != alike.counts


def test_a_million_that_were_rejected_once_are_one_run() -> None:
    delivery_counts = DeliveryCountIndex()
    for first in range(1, 1_000_001, 100):
        delivery_counts.put(first, first + 100, Counts(1, 1))
    assert delivery_counts.runs == [(1, 1_000_001, (1, 1))]
    delivery_counts.take(range(1, 900_001))
    assert delivery_counts.runs == [(900_001, 1_000_001, (1, 1))]
    copy = DeliveryCountIndex(delivery_counts.runs)
    delivery_counts.clear()
    assert (delivery_counts.runs, len(copy.runs)) == ([], 1)


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
    delivery_counts, count = DeliveryCountIndex(), 10_000
    for number in range(1, count + 1):
        delivery_counts.put(number, number + 1, Counts(1 + number % 2, 1))
    delivery_counts._runs = moved = Moved(delivery_counts._runs)
    for number in range(1, count + 1):
        assert delivery_counts.alike(number, count).counts == Counts(1 + number % 2, 1)
        delivery_counts.take(range(number, number + 1))
    assert not delivery_counts.has_any
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
