"""What dead letters bring along is told to queues that take it, and to no others."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.queues.dead_letter_port import DeadMessages
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.protocol.deaths import DeathReason
from fluffle.protocol.properties import Properties
from tests.broker.transfer.test_dead_letters import Harness, take


@pytest.mark.parametrize(
    ("is_able", "counts", "is_told"),
    [(True, Counts(3, 1), [Counts(3, 1)]), (True, NEW, []), (False, Counts(3, 1), [])],
)
def test_who_takes_it_is_told(*, is_able: bool, counts: Counts, is_told: list[Counts]) -> None:
    told: list[Counts] = []

    class Counting(Queue):
        __slots__ = ()

        def post(self, *messages: Any, counts: Counts, posted: None, **how: Any) -> Any:
            assert posted is None
            told.append(counts)
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
    assert (dead.ready_count, told) == (1, is_told)
