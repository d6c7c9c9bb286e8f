"""What goes one way between two nodes, and what it meets."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import pytest

from fluffle.broker.testing.cluster.wire import RESENDS_MAX, LinkDirection, StreamDirection


class Seen:
    """A flow, and what has arrived over it."""

    def __init__(self) -> None:
        self.way = LinkDirection(Random(7))
        self.busy: list[bool] = []
        self.arrived: list[int] = []
        self.flow = StreamDirection(self.way, asyncio.get_running_loop(), self._look)

    def _look(self) -> None:
        self.busy.append(self.flow.is_busy)

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.flow.put(partial(self.arrived.append, number))


@pytest.fixture
async def seen() -> Seen:
    return Seen()


async def test_where_nothing_is_wrong_all_arrives_at_once(seen: Seen) -> None:
    seen.put(1, 2)
    assert (seen.arrived, seen.busy) == ([1, 2], [])


async def test_a_cut_holds_up_and_loses_nothing(seen: Seen) -> None:
    seen.way.cut()
    seen.put(1, 2)
    assert (seen.arrived, seen.busy) == ([], [True])
    seen.way.mend()
    seen.put(3)
    assert (seen.arrived, seen.busy) == ([1, 2, 3], [True, False])


async def test_what_is_delayed_arrives_in_order(seen: Seen) -> None:
    seen.way.delay_s = 0.01
    seen.put(1)
    seen.way.delay_s = 0.0
    seen.put(2)
    last = asyncio.Event()
    seen.flow.put(last.set)
    assert seen.arrived == []
    await last.wait()
    assert (seen.arrived, seen.busy) == ([1, 2], [True, False])


async def test_what_is_dropped_takes_longer_by_a_seed_and_arrives_at_last(seen: Seen) -> None:
    seen.way.loss = 0.5
    taken = [seen.way.taken_s() for _ in range(1000)]
    again = LinkDirection(Random(7))
    again.loss = 0.5
    assert taken == [again.taken_s() for _ in range(1000)]
    assert min(taken) == 0
    assert max(taken) == pytest.approx(0.2 * (2**RESENDS_MAX - 1))
    assert 450 < taken.count(0) < 550


async def test_over_a_connection_that_is_gone_nothing_arrives(seen: Seen) -> None:
    seen.way.cut()
    seen.put(1)
    seen.flow.end()
    seen.way.mend()
    assert seen.arrived == []
    assert seen.way.flows == set()
