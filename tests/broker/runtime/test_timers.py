"""Timers: one for all, and nothing for what is not due."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.runtime.timers import DUE_MAX, REST_S_MAX, STALE_MIN, LocalQueueClock, Timers
from tests.support.fakes import ScheduledClock, Scheduler
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeQueueHost


class Harness:
    """Timers in a loop that is moved by hand; `seen` says what was looked at, and when."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.clock = ScheduledClock(self.scheduler)
        self.asleep_ms = 0
        """Time for which the machine was asleep, and the loop counted nothing."""
        self.fatal: list[Exception] = []
        self.timers = Timers(self, self.scheduler.call_later, self.fatal.append)
        self.timers.start()
        self.seen: list[tuple[int, object]] = []

    def now_ms(self) -> int:
        return self.clock.now_ms() + self.asleep_ms

    def look(self, who: object) -> None:
        self.seen.append((self.now_ms(), who))

    def wake(self, who: object, delay_ms: int) -> None:
        self.timers.wake(who, delay_ms, self.look)

    def advance(self, ms: int) -> None:
        self.scheduler.advance(ms / 1_000)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_each_is_looked_at_when_it_is_due(harness: Harness) -> None:
    harness.wake("late", 300)
    harness.wake("soon", 100)
    harness.wake("at once", -5)
    harness.advance(99)
    assert harness.seen == [(0, "at once")]
    harness.advance(301)
    assert harness.seen[1:] == [(100, "soon"), (300, "late")]


def test_nothing_is_looked_at_before_the_start(harness: Harness) -> None:
    timers = Timers(harness.clock, harness.scheduler.call_later, harness.fatal.append)
    timers.wake("a", 10, harness.look)
    harness.advance(20)
    assert (harness.seen, harness.scheduler.timer_count) == ([], 0)
    timers.start()
    harness.advance(0)
    assert harness.seen == [(20, "a")]


def test_only_the_first_wish_counts_until_it_comes_true(harness: Harness) -> None:
    harness.wake("a", 100)
    harness.wake("a", 200)
    harness.wake("a", 101)
    harness.advance(500)
    assert harness.seen == [(100, "a")]
    harness.wake("a", 200)
    harness.wake("a", 50)
    harness.advance(500)
    assert harness.seen[1:] == [(550, "a")]


def test_however_many_wait_there_is_one_timer(harness: Harness) -> None:
    for number in range(10_000):
        harness.wake(number, 1_000_000 - number)
    assert harness.scheduler.timer_count == 1
    harness.advance(900_000)
    assert harness.seen == []


def test_what_has_come_due_while_the_machine_was_asleep_is_looked_at_soon(harness: Harness) -> None:
    harness.wake("late", 3_600_000)
    harness.advance(1_000)
    harness.asleep_ms = 7_200_000
    harness.wake("new", 100)
    harness.advance(int(REST_S_MAX * 1_000))
    assert {who for _at_ms, who in harness.seen} == {"late", "new"}


def test_a_loop_has_other_work_between_many_that_are_due(harness: Harness) -> None:
    for number in range(2 * DUE_MAX + 1):
        harness.wake(number, 10)
    harness.scheduler.call_later(0.01, lambda: harness.seen.append((10, "other work")))
    harness.advance(10)
    assert [who for _, who in harness.seen].index("other work") in (DUE_MAX, 2 * DUE_MAX)
    assert len(harness.seen) == 2 * DUE_MAX + 2


def test_what_is_gone_is_looked_at_no_more(harness: Harness) -> None:
    harness.wake("a", 10)
    harness.timers.forget("a")
    harness.timers.forget("never known")
    harness.advance(20)
    assert harness.seen == []


def test_wishes_that_count_no_more_take_no_memory(harness: Harness) -> None:
    for _ in range(10 * STALE_MIN):
        harness.wake("a", 1_000_000)
        harness.wake("a", 10)
        harness.advance(20)
    assert len(harness.timers._heap) <= STALE_MIN + 2


def test_one_that_fails_does_not_hold_up_the_others(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(who: object) -> None:
        raise ValueError(f"{who} is wrong")

    def doubt(who: object) -> None:
        raise AssertionError(f"{who} was believed")

    harness.timers.wake("a", 10, fail)
    harness.timers.wake("b", 10, doubt)
    harness.wake("c", 10)
    harness.advance(10)
    assert harness.seen == [(10, "c")]
    assert [str(error) for error in harness.fatal] == ["b was believed"]
    assert "a is wrong" in caplog.text


def test_queues_of_a_node_do_not_notice_when_its_clock_is_set(harness: Harness) -> None:
    touched: list[DeliverySource] = []
    time = LocalQueueClock(harness.clock, harness.timers, touched.append)
    queue = Queue(
        QueueSpec("q", arguments=queue_arguments(expires=1_000)),
        FakeQueueHost(touched.append, time),
    )
    before_ms = time.now_ms()
    assert before_ms == harness.clock.wall_ms()
    harness.clock.jump_wall(3_600_000)
    assert time.now_ms() == before_ms
    harness.advance(999)
    assert touched == []
    harness.advance(1)
    assert touched == [queue]


def test_no_timer_runs_for_what_is_gone(harness: Harness) -> None:
    harness.wake("a", 100)
    harness.wake("b", 200)
    harness.timers.forget("a")
    assert harness.scheduler.timer_count == 1
    harness.timers.forget("b")
    assert harness.scheduler.timer_count == 0
    harness.wake("c", 300)
    harness.advance(400)
    assert harness.seen == [(300, "c")]


def test_no_timer_runs_for_what_was_gone_before_others_were_due(harness: Harness) -> None:
    harness.wake("a", 100)
    harness.wake("b", 200)
    harness.wake("c", 300)
    harness.timers.forget("b")
    harness.timers.forget("c")
    assert harness.scheduler.timer_count == 1
    harness.advance(100)
    assert harness.seen == [(100, "a")]
    assert harness.scheduler.timer_count == 0
