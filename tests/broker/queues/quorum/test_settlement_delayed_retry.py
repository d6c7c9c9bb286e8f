"""Messages that wait before they are handed out again: RabbitMQ 4.3, `delayed-retry-*`.

There is no oracle: 4.0.5 knows nothing of it.  What is expected is what
https://www.rabbitmq.com/docs/quorum-queues says of 4.3.
"""

from __future__ import annotations

from itertools import chain

import pytest

from fluffle.broker.queues.arguments import DURATION_MS_MAX
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.entry_codec import decode
from fluffle.broker.queues.quorum.facts import DelayElapsed, Purged, Requeued, RequeueReason
from fluffle.broker.queues.requeue import delay_ms
from fluffle.broker.queues.settings import DelayedRetry, QueueSettings
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.broker.queues.quorum.session_clients import SessionClients


def waiting(**said: PlainValue) -> tuple[LeaderHarness, SessionClients]:
    """A queue whose one consumer holds messages 1 to 3."""
    harness = LeaderHarness(quorum(**said))
    edge = harness.open_edge()
    harness.attach(edge)
    harness.publish(edge, 3)
    harness.settle_down()
    assert sorted(edge.holds) == [1, 2, 3]
    return harness, edge


def undelivered(queue: Queue) -> int:
    """Ready messages, and those that wait for their delay."""
    return queue.ready_count + queue.delays.count


def at(harness: LeaderHarness, now_ms: int) -> None:
    """Time has passed, and the queue is looked at if it has asked for that."""
    left_ms = [wish_ms - (now_ms - harness.now_ms) for wish_ms in harness.wakes]
    harness.now_ms, harness.wakes[:] = now_ms, [left for left in left_ms if left > 0]
    harness.is_touched = len(harness.wakes) < len(left_ms)
    harness.settle_down()


def give_back(
    harness: LeaderHarness, edge: SessionClients, sequences: list[int], outcome: Outcome
) -> None:
    harness.end(edge, sequences, outcome)
    harness.settle_down()


def facts(harness: LeaderHarness, kind: type) -> list[object]:
    return [each for entry in harness.log for each in decode(entry).facts if type(each) is kind]


@pytest.mark.parametrize(
    ("kind", "failed", "returned"),
    [
        (DelayedRetry.DISABLED, 0, 0),
        (DelayedRetry.ALL, 200, 200),
        (DelayedRetry.FAILED, 200, 0),
        (DelayedRetry.RETURNED, 0, 200),
    ],
)
def test_which_wait(kind: DelayedRetry, failed: int, returned: int) -> None:
    settings = QueueSettings(delayed_retry=kind, delayed_retry_min_ms=200)
    assert delay_ms(settings, Counts(1, 1), is_failure=True) == failed
    assert delay_ms(settings, Counts(1, 0), is_failure=False) == returned


def test_how_long_they_wait() -> None:
    settings = QueueSettings(
        delayed_retry=DelayedRetry.ALL, delayed_retry_min_ms=100, delayed_retry_max_ms=250
    )
    waits = [delay_ms(settings, Counts(9, failed), is_failure=False) for failed in range(5)]
    assert waits == [100, 100, 200, 250, 250]
    unlimited = QueueSettings(delayed_retry=DelayedRetry.ALL, delayed_retry_min_ms=100)
    assert delay_ms(unlimited, Counts(9, 7), is_failure=True) == 100
    endless = QueueSettings(delayed_retry=DelayedRetry.ALL, delayed_retry_min_ms=2**63 - 1)
    assert delay_ms(endless, Counts(9, 7), is_failure=True) == DURATION_MS_MAX
    nothing_said = QueueSettings(delayed_retry=DelayedRetry.ALL)
    assert delay_ms(nothing_said, Counts(9, 7), is_failure=True) == 0


@pytest.mark.parametrize(("least_ms", "most_ms"), [(2**63 - 1, None), (2**62, 2**63 - 1)])
def test_nothing_waits_for_more_than_ten_years(least_ms: int, most_ms: int | None) -> None:
    said = {} if most_ms is None else {"delayed_retry_max": most_ms}
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=least_ms, **said)
    harness.now_ms = now_ms = 1_700_000_000_000
    give_back(harness, edge, [1], Outcome.REJECT_REQUEUED)
    (returned,) = facts(harness, Requeued)
    assert isinstance(returned, Requeued)
    assert returned.ready_at_ms == now_ms + DURATION_MS_MAX
    settings = harness.led.queue.settings
    assert delay_ms(settings, Counts(2, 2), is_failure=True) == DURATION_MS_MAX


def test_a_message_waits_and_comes_again() -> None:
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100, delayed_retry_max=300)
    give_back(harness, edge, [2], Outcome.NACK_REQUEUED)
    queue = harness.led.queue
    assert (queue.ready_count, undelivered(queue), queue.in_flight) == (0, 1, 2)
    (returned,) = facts(harness, Requeued)
    assert isinstance(returned, Requeued)
    assert (returned.how, returned.ready_at_ms) == (RequeueReason.NACKED, 100)
    at(harness, 99)
    assert 2 not in edge.holds
    at(harness, 100)
    assert edge.holds[2].ordinal == 1
    assert facts(harness, DelayElapsed) == [DelayElapsed([range(2, 3)])]


def test_who_fails_again_waits_longer() -> None:
    harness, edge = waiting(
        delayed_retry_type="failed", delayed_retry_min=100, delayed_retry_max=900
    )
    for then_ms in (100, 300, 600):
        give_back(harness, edge, [1], Outcome.REJECT_REQUEUED)
        at(harness, then_ms - 1)
        assert 1 not in edge.holds
        at(harness, then_ms)
        assert 1 in edge.holds
    give_back(harness, edge, [1], Outcome.NACK_REQUEUED)
    assert edge.holds[1].ordinal == 4, "that was no failure"


def test_they_come_in_the_order_of_their_times() -> None:
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100)
    give_back(harness, edge, [3], Outcome.NACK_REQUEUED)
    at(harness, 50)
    give_back(harness, edge, [1], Outcome.NACK_REQUEUED)
    give_back(harness, edge, [2], Outcome.NACK_REQUEUED)
    at(harness, 200)
    runs = chain.from_iterable(fact.runs for fact in facts(harness, DelayElapsed))  # type: ignore[attr-defined]
    assert [number for run in runs for number in run] == [3, 1, 2]


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_the_next_leader_waits_for_the_same_moment(is_elsewhere: bool) -> None:
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100)
    give_back(harness, edge, [1, 2], Outcome.NACK_REQUEUED)
    harness.now_ms = 60
    harness.wakes.clear()
    harness.change_leader(0, is_elsewhere=is_elsewhere)
    harness.settle_down()
    assert (undelivered(harness.led.queue), harness.wakes[0]) == (2, 40)
    at(harness, 100)
    assert sorted(edge.holds) == [1, 2, 3]
    harness.check()


def test_a_purge_takes_them() -> None:
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100)
    give_back(harness, edge, [1, 3], Outcome.NACK_REQUEUED)
    harness.purge(edge)
    harness.settle_down()
    assert {n for fact in facts(harness, Purged) for run in fact.runs for n in run} == {1, 3}  # type: ignore[attr-defined]
    assert undelivered(harness.led.queue) == 0
    harness.is_touched, harness.now_ms = True, 500
    harness.settle_down()
    assert facts(harness, DelayElapsed) == []


def test_they_count_where_no_more_may_wait() -> None:
    harness, edge = waiting(
        delayed_retry_type="all", delayed_retry_min=100, max_length=2, overflow="reject-publish"
    )
    harness.detach(edge, list(edge.consumers), None)
    give_back(harness, edge, [1, 2], Outcome.NACK_REQUEUED)
    harness.publish(edge, 2)
    harness.settle_down()
    assert len(harness.refused) == 1


def test_who_dies_does_not_wait() -> None:
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100, delivery_limit=0)
    give_back(harness, edge, [1], Outcome.REJECT_REQUEUED)
    assert undelivered(harness.led.queue) == 0
    harness.check()


def test_what_is_not_in_the_log_yet_waits_and_comes_all_the_same() -> None:
    """The intended consumer is gone before the message's entry is committed."""
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100)
    gone = harness.open_edge()
    harness.detach(edge, list(edge.consumers), None)
    harness.attach(gone)
    harness.settle_down()
    harness.publish(edge, 1)
    harness.turn()
    harness.lose(gone)
    harness.turn()
    assert undelivered(harness.led.queue) == 1
    harness.now_ms = 100
    harness.is_touched = True
    harness.turn()
    harness.attach(edge)
    harness.settle_down()
    assert edge.holds[4].ordinal == 1


def test_every_second_message_waits_and_comes_with_its_contents() -> None:
    """With two consumers, the last run has a step and ends behind it by more than one."""
    harness = LeaderHarness(quorum(delayed_retry_type="all", delayed_retry_min=100))
    edge, other = harness.open_edge(), harness.open_edge()
    harness.attach(edge)
    harness.attach(other)
    harness.publish(edge, 6)
    harness.settle_down()
    assert [sorted(each.holds) for each in (edge, other)] == [[1, 3, 5], [2, 4, 6]]
    (key,) = other.consumers
    harness.ask(other, harness._settlement(key, [(0, range(2, 8, 2))], Outcome.NACK_REQUEUED))
    other.holds.clear()
    harness.settle_down()
    assert undelivered(harness.led.queue) == 3
    at(harness, 100)
    assert sorted({**edge.holds, **other.holds}) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("kind", "outcome", "waits"),
    [
        ("all", Outcome.UNSENT, False),
        ("all", Outcome.LOST, True),
        ("failed", Outcome.LOST, True),
        ("failed", Outcome.TIMED_OUT, False),
        ("returned", Outcome.TIMED_OUT, True),
        ("returned", Outcome.LOST, False),
    ],
)
def test_which_wait_after_what(kind: str, outcome: Outcome, waits: bool) -> None:
    """Messages that no client has received are ready again at once."""
    harness, edge = waiting(delayed_retry_type=kind, delayed_retry_min=100)
    give_back(harness, edge, [2], outcome)
    assert (2 in edge.holds) != waits
    assert undelivered(harness.led.queue) == waits


@pytest.mark.parametrize("changes", [0, 1])
def test_each_expires_at_its_time_all_the_same(changes: int) -> None:
    """In front of the queue, once it may be handed out again."""
    harness = LeaderHarness(quorum(delayed_retry_type="all", delayed_retry_min=100))
    edge = harness.open_edge()
    harness.attach(edge)
    harness.publish(edge, 3, [900, 50, 900])
    harness.settle_down()
    give_back(harness, edge, [2, 3], Outcome.NACK_REQUEUED)
    harness.detach(edge, list(edge.consumers), None)
    harness.settle_down()
    for _ in range(changes):
        harness.change_leader(0, is_elsewhere=True)
        harness.settle_down()
    at(harness, 100)
    assert undelivered(harness.led.queue) == 1
    at(harness, 899)
    assert undelivered(harness.led.queue) == 1
    at(harness, 900)
    assert undelivered(harness.led.queue) == 0


def test_a_purge_counts_each_of_those_that_wait() -> None:
    """All of a run."""
    harness, edge = waiting(delayed_retry_type="all", delayed_retry_min=100)
    (key,) = edge.consumers
    harness.ask(edge, harness._settlement(key, [(0, range(1, 4))], Outcome.NACK_REQUEUED))
    edge.holds.clear()
    harness.settle_down()
    assert harness.led.queue.purge() == 3
