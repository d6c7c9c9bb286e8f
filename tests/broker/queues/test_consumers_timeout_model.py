"""Whatever holders do: what is held for too long is reported once, all of it, and soon."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import consumers
from fluffle.broker.queues.consumers import GAP_MS, ConsumerTimeouts
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import DeliveryBatch, OverdueDeliveries
from tests.suite.seeds import seeds

QUEUE: Any = None
DEFAULT_MS = 300


class Somebody:
    """Holds messages."""

    no_ack = False

    def __init__(self, timeout_ms: int | None) -> None:
        self.timeout_ms = timeout_ms
        self.reported: list[OverdueDeliveries] = []

    def overdue(self, late: OverdueDeliveries) -> None:
        self.reported.append(late)


class Holding:
    """And a model: all that was handed out, and what was reported."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.now = 1_000
        self.wakes: list[int] = []
        self.policy_ms: int | None = None
        self.overdue = ConsumerTimeouts(self, DEFAULT_MS)
        self.holders = [Somebody(timeout_ms) for timeout_ms in (None, None, 100, 700)]
        self.handed: dict[int, list[DeliveryBatch]] = {id(each): [] for each in self.holders}
        self.looked_ms = -NEVER_MS
        """When late ones were reported last."""

    def now_ms(self) -> int:
        return self.now

    def wake(self, _queue: Any, at_ms: int) -> None:
        self.wakes.append(at_ms)

    def timeout_of(self, somebody: Somebody) -> int:
        if somebody.timeout_ms is not None:
            return somebody.timeout_ms
        return self.policy_ms if self.policy_ms is not None else DEFAULT_MS

    def hand(self) -> None:
        """Maybe something that was on record before."""
        somebody, count = self.chance.choice(self.holders), self.chance.randint(1, 4)
        holder: Any = somebody
        delivered_at_ms = self.now - self.chance.randint(1, 90) if self.chance.random() < 0.3 else 0
        delivery_batch = DeliveryBatch(
            holder, [Origin("", "q")] * count, [b"m"] * count, range(count),
            redelivered=False, delivered_at_ms=delivered_at_ms,
        )  # fmt: skip
        self.overdue.handed(QUEUE, delivery_batch)
        assert delivery_batch.delivered_at_ms == (delivered_at_ms or self.now)
        self.handed[id(somebody)].append(delivery_batch)

    def settle(self) -> None:
        runs = [run for of_it in self.handed.values() for run in of_it]
        if not runs:
            return
        run = self.chance.choice(runs)
        count = self.chance.randint(1, run.left)
        left = run.left - count
        assert self.overdue.settled(run, count)
        assert run.left == left
        if not left:
            self.forget(run)
            assert not self.overdue.settled(run, 1), "it is over"

    def forget(self, run: DeliveryBatch) -> None:
        for of_it in self.handed.values():
            of_it[:] = [each for each in of_it if each is not run]

    def change(self) -> None:
        self.policy_ms = self.chance.choice([None, 150, 400])
        self.overdue.go_by(QUEUE, self.policy_ms)

    def look(self) -> None:
        may_tell = self.now >= self.overdue.due_ms
        self.overdue.look(QUEUE)
        for somebody in self.holders:
            timeout_ms, of_it = self.timeout_of(somebody), self.handed[id(somebody)]
            late = [run for run in of_it if run.delivered_at_ms + timeout_ms <= self.now]
            late.sort(key=lambda run: run.delivered_at_ms)
            reported, somebody.reported = somebody.reported, []
            if not (late and may_tell):
                assert reported == [], "too soon, or it was reported before"
                continue
            (one,) = reported
            assert {*map(id, one.delivery_batches)} == {*map(id, late)}
            assert one.timeout_ms == timeout_ms
            assert self.now - one.held_ms <= late[0].delivered_at_ms
            for run in late:
                run.left = 0
                self.forget(run)
        if may_tell:
            self.looked_ms = self.now
            assert self.overdue.due_ms >= self.now + GAP_MS

    def pass_time(self) -> None:
        """Looked at whenever that was asked for; nothing is late by more than the gap then."""
        until = self.now + self.chance.randint(1, 120)
        while due := [at_ms for at_ms in self.wakes if at_ms <= until]:
            self.now = max(self.now, min(due))
            self.wakes = [at_ms for at_ms in self.wakes if at_ms > self.now]
            self.look()
        self.now = until
        latest_ms = max(GAP_MS, 0)
        for somebody in self.holders:
            for run in self.handed[id(somebody)]:
                due_ms = max(run.delivered_at_ms + self.timeout_of(somebody), self.looked_ms)
                assert self.now <= due_ms + latest_ms, "nobody looks"


@seeds(40)
def test_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "SWEEP_MIN", 3)
    chance = Random(seed)
    holding = Holding(chance)
    for _ in range(120):
        chance.choices([holding.hand, holding.settle, holding.change, holding.pass_time,
                        holding.look], [5, 4, 1, 5, 1])[0]()  # fmt: skip
    holding.pass_time()
