"""What is due by time: one timer for all, and nothing for what is not due."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery import DeliverySource
from fluffle.broker.queues.engine import Queue
from fluffle.broker.runtime.timers import DUE_MAX, REST_S_MAX, STALE_MIN, LocalQueueClock, Timers
from tests.support.fakes import ScheduledClock, Scheduler
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeQueueHost


class Rig:
    """Timers in a loop that is moved by hand; `seen` says what was looked at, and when."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.clock = ScheduledClock(self.scheduler)
        self.asleep_ms = 0
        """For so long the machine was asleep, and the loop counted nothing."""
        self.fatal: list[Exception] = []
        self.timers = Timers(self.now_ms, self.scheduler.call_later, self.fatal.append)
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
def rig() -> Rig:
    return Rig()


def test_each_is_looked_at_when_it_is_due(rig: Rig) -> None:
    rig.wake("late", 300)
    rig.wake("soon", 100)
    rig.wake("at once", -5)
    rig.advance(99)
    assert rig.seen == [(0, "at once")]
    rig.advance(301)
    assert rig.seen[1:] == [(100, "soon"), (300, "late")]


def test_nothing_is_looked_at_before_the_start(rig: Rig) -> None:
    timers = Timers(rig.clock.now_ms, rig.scheduler.call_later, rig.fatal.append)
    timers.wake("a", 10, rig.look)
    rig.advance(20)
    assert (rig.seen, rig.scheduler.timer_count) == ([], 0)
    timers.start()
    rig.advance(0)
    assert rig.seen == [(20, "a")]


def test_only_the_first_wish_counts_until_it_comes_true(rig: Rig) -> None:
    rig.wake("a", 100)
    rig.wake("a", 200)
    rig.wake("a", 101)
    rig.advance(500)
    assert rig.seen == [(100, "a")]
    rig.wake("a", 200)
    rig.wake("a", 50)
    rig.advance(500)
    assert rig.seen[1:] == [(550, "a")]


def test_however_many_wait_there_is_one_timer(rig: Rig) -> None:
    for number in range(10_000):
        rig.wake(number, 1_000_000 - number)
    assert rig.scheduler.timer_count == 1
    rig.advance(900_000)
    assert rig.seen == []


def test_what_has_come_due_while_the_machine_was_asleep_is_looked_at_soon(rig: Rig) -> None:
    rig.wake("late", 3_600_000)
    rig.advance(1_000)
    rig.asleep_ms = 7_200_000
    rig.wake("new", 100)
    rig.advance(int(REST_S_MAX * 1_000))
    assert {who for _at_ms, who in rig.seen} == {"late", "new"}


def test_a_loop_has_other_work_between_many_that_are_due(rig: Rig) -> None:
    for number in range(2 * DUE_MAX + 1):
        rig.wake(number, 10)
    rig.scheduler.call_later(0.01, lambda: rig.seen.append((10, "other work")))
    rig.advance(10)
    assert [who for _, who in rig.seen].index("other work") in (DUE_MAX, 2 * DUE_MAX)
    assert len(rig.seen) == 2 * DUE_MAX + 2


def test_what_is_gone_is_looked_at_no_more(rig: Rig) -> None:
    rig.wake("a", 10)
    rig.timers.forget("a")
    rig.timers.forget("never known")
    rig.advance(20)
    assert rig.seen == []


def test_wishes_that_count_no_more_take_no_memory(rig: Rig) -> None:
    for _ in range(10 * STALE_MIN):
        rig.wake("a", 1_000_000)
        rig.wake("a", 10)
        rig.advance(20)
    assert len(rig.timers._heap) <= STALE_MIN + 2


def test_one_that_fails_does_not_hold_up_the_others(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(who: object) -> None:
        raise ValueError(f"{who} is wrong")

    def doubt(who: object) -> None:
        raise AssertionError(f"{who} was believed")

    rig.timers.wake("a", 10, fail)
    rig.timers.wake("b", 10, doubt)
    rig.wake("c", 10)
    rig.advance(10)
    assert rig.seen == [(10, "c")]
    assert [str(error) for error in rig.fatal] == ["b was believed"]
    assert "a is wrong" in caplog.text


def test_queues_of_a_node_do_not_notice_when_its_clock_is_set(rig: Rig) -> None:
    touched: list[DeliverySource] = []
    time = LocalQueueClock(rig.clock, rig.timers, touched.append)
    queue = Queue(
        QueueSpec("q", arguments=queue_arguments(expires=1_000)),
        FakeQueueHost(touched.append, time),
    )
    before_ms = time.now_ms()
    assert before_ms == rig.clock.wall_ms()
    rig.clock.jump_wall(3_600_000)
    assert time.now_ms() == before_ms
    rig.advance(999)
    assert touched == []
    rig.advance(1)
    assert touched == [queue]
