"""Messages that wait before they may be handed out again, against a plain list."""

from __future__ import annotations

from array import array
from random import Random
from typing import NamedTuple

from fluffle.broker.queues.delayed_retry import DelayedRetries
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.requeue import RequeuedRun
from tests.suite.seeds import seeds


class Waiting(NamedTuple):
    ready_at_ms: int
    number: int
    run: range
    counts: Counts
    expires_at_ms: int


@seeds(30)
def test_each_comes_back_once_at_its_time_as_it_was(seed: int) -> None:
    chance, now_ms, following = Random(seed), 0, 1
    matured, back = list[range](), list[RequeuedRun]()
    delays, model = DelayedRetries(matured.extend), list[Waiting]()
    for number in range(80):
        if chance.random() < 0.5:
            run = range(following, following := following + chance.randint(1, 5))
            counts = Counts(number, chance.randrange(number + 1))
            waiting = Waiting(now_ms + chance.randint(1, 9), number, run, counts, 1_000 + number)
            model.append(waiting)
            expiries = array("Q", [waiting.expires_at_ms]) * len(run)
            delays.add(run, counts, waiting.ready_at_ms, expiries)
        elif chance.random() < 0.05:
            assert sorted(delays.clear(), key=lambda run: run[0]) == [each.run for each in model]
            model.clear()
        else:
            now_ms += chance.randint(0, 3)
            delays.mature(back.append, now_ms)
            due = sorted(each for each in model if each.ready_at_ms <= now_ms)
            model = [each for each in model if each.ready_at_ms > now_ms]
            assert matured == [each.run for each in due]
            assert [(each.sequences, each.counts) for each in back] == [
                (each.run, each.counts) for each in due
            ]
            for each, waited in zip(back, due, strict=True):
                assert each.expiries is not None
                assert [*each.expiries] == [waited.expires_at_ms] * len(waited.run)
            matured.clear()
            back.clear()
        assert delays.count == sum(len(each.run) for each in model)
        assert delays.due_ms == min((each.ready_at_ms for each in model), default=NEVER_MS)
