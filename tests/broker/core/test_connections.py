"""Effects of a change on connections: a few in a turn, in order; a fault in one concerns no
other."""

from __future__ import annotations

from functools import partial

from fluffle.broker.core.connections import FORCED_CLOSES_AT_ONCE, Deadlines
from tests.support.edge import Edge
from tests.support.fakes import Scheduler


def test_a_turn_sees_a_few() -> None:
    edge = Edge()
    done: list[int] = []
    for number in range(2 * FORCED_CLOSES_AT_ONCE + 1):
        edge.services.forced_closes.add(partial(done.append, number))
    counts = [len(done)]
    while edge.scheduler.turn():
        counts.append(len(done))
    assert counts[:4] == [
        0,
        FORCED_CLOSES_AT_ONCE,
        2 * FORCED_CLOSES_AT_ONCE,
        2 * FORCED_CLOSES_AT_ONCE + 1,
    ]
    assert done == list(range(2 * FORCED_CLOSES_AT_ONCE + 1))


def test_one_that_fails_keeps_the_others_from_nothing() -> None:
    edge = Edge()
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    for act in (lambda: done.append("a"), fail, lambda: done.append("b")):
        edge.services.forced_closes.add(act)
    edge.run()
    assert done == ["a", "b"]
    edge.services.forced_closes.add(lambda: done.append("c"))
    edge.run()
    assert done == ["a", "b", "c"]


class FakeConnection:
    """Connection that keeps what its client has not done."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def drop(self, reason: str) -> None:
        self.failures.append(reason)


def test_only_what_is_not_done_in_time_is_a_failure() -> None:
    scheduler, connection = Scheduler(), FakeConnection()
    deadlines, failures = Deadlines(scheduler.call_later, connection), connection.failures
    deadlines.give("one", 10, "one was not done")
    deadlines.give("other", 10, "other was not done")
    scheduler.advance(9)
    deadlines.met("one")
    deadlines.give("one", 10, "one was not done again")
    scheduler.advance(9)
    assert failures == ["other was not done"]
    scheduler.advance(1)
    assert failures == ["other was not done", "one was not done again"]


def test_who_is_given_time_again_has_no_more_of_it() -> None:
    scheduler, connection = Scheduler(), FakeConnection()
    deadlines, failures = Deadlines(scheduler.call_later, connection), connection.failures
    deadlines.give("close", 10, "first")
    scheduler.advance(9)
    deadlines.give("close", 10, "second")
    scheduler.advance(1)
    assert failures == ["first"]


def test_nothing_is_due_after_the_end() -> None:
    scheduler, connection = Scheduler(), FakeConnection()
    deadlines, failures = Deadlines(scheduler.call_later, connection), connection.failures
    deadlines.give("close", 10, "late")
    deadlines.end()
    deadlines.met("close")
    assert (scheduler.timer_count, failures) == (0, [])
