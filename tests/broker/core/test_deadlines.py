"""What has to be done in time; heartbeats are in test_heartbeat and test_connection."""

from __future__ import annotations

from fluffle.broker.core.deadlines import Deadlines
from tests.support.fakes import Scheduler


def test_only_what_is_not_done_in_time_is_a_failure() -> None:
    scheduler, failures = Scheduler(), list[str]()
    deadlines = Deadlines(scheduler.call_later, failures.append)
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
    scheduler, failures = Scheduler(), list[str]()
    deadlines = Deadlines(scheduler.call_later, failures.append)
    deadlines.give("close", 10, "first")
    scheduler.advance(9)
    deadlines.give("close", 10, "second")
    scheduler.advance(1)
    assert failures == ["first"]


def test_nothing_is_due_after_the_end() -> None:
    scheduler, failures = Scheduler(), list[str]()
    deadlines = Deadlines(scheduler.call_later, failures.append)
    deadlines.give("close", 10, "late")
    deadlines.end()
    deadlines.met("close")
    assert (scheduler.timer_count, failures) == (0, [])
