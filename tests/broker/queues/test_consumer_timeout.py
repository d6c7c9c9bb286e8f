"""Messages that consumers and getters hold for too long, as their queue sees it."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumer_timeout import SWEEP_MIN
from fluffle.broker.queues.consumers import Consumer, SharedCredit
from fluffle.broker.queues.delivery import (
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    TimedOutDeliveries,
)
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.queues.queue_harness import ExpiryHarness, FakeSink
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeQueueHost

TIMEOUT_MS = 10_000
SHORT_MS = 1_000


class SlowSink(FakeSink):
    """A client that holds what it gets, and loses it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[tuple[str, int]] = []
        """What was taken from it, in a word, and how long it had had that."""

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        queue = consumer.queue
        for delivery_batch in late.delivery_batches:
            for start, stop in [*delivery_batch.unsettled()]:
                word = b"".join(delivery_batch.contents[start:stop]).decode()
                queue.settle(delivery_batch, start, stop, Outcome.TIMED_OUT)
                self.lost.append((word, late.held_ms))
        if consumer in queue.consumers:
            queue.detach(consumer)

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        raise AssertionError("its queue is here")


class Harness(ExpiryHarness):
    """Whose consumers are slow."""

    def __init__(self, default_ms: int | None = None, spec: QueueSpec | None = None) -> None:
        super().__init__(QueueSpec("q"))
        ports = FakeQueueHost(self.touch, self, consumer_timeout_ms=default_ms)
        self.queue = Queue(spec or QueueSpec("q"), ports)
        self.delivery_batches: list[DeliveryBatch] = []

    def slow(self, tag: str, timeout_ms: int | None = None, prefetch: int = 0) -> SlowSink:
        sink = SlowSink()
        self.sinks[tag] = sink
        consumer = self.consumers[tag] = Consumer(
            tag, self.queue, sink, shared=SharedCredit(), prefetch=prefetch, timeout_ms=timeout_ms
        )
        self.queue.attach(consumer)
        return sink

    def give(self, *texts: str) -> list[DeliveryBatch]:
        self.enqueue(*texts)
        return self.pump()


@pytest.fixture
def harness() -> Harness:
    return Harness(TIMEOUT_MS)


def ack(delivery_batch: DeliveryBatch, start: int, stop: int) -> None:
    for part in delivery_batch.settle(start, stop):
        delivery_batch.holder.queue.settle(delivery_batch, *part, Outcome.ACKED)


def test_what_is_held_for_too_long_goes_back_and_its_consumer_goes(harness: Harness) -> None:
    sink = harness.slow("c")
    harness.give("a", "b")
    harness.advance(TIMEOUT_MS - 1)
    assert (sink.lost, harness.queue.queue_counts) == ([], (0, 2, 1, 0))
    harness.advance(1)
    assert (sink.lost, harness.queue.queue_counts) == ([("ab", TIMEOUT_MS)], (2, 0, 0, 0))


@pytest.mark.parametrize("sooner_ms", [1, TIMEOUT_MS // 2])
def test_a_queue_that_is_woken_too_soon_asks_again(harness: Harness, sooner_ms: int) -> None:
    """Timers go by another clock, and keep one wish of each queue: the first."""
    sink = harness.slow("c")
    harness.give("a")
    harness.wakes = [at_ms - sooner_ms for at_ms in harness.wakes]
    harness.advance(TIMEOUT_MS)
    assert sink.lost == [("a", TIMEOUT_MS)]


def test_what_is_said_of_it_afterwards_is_in_vain(harness: Harness) -> None:
    harness.slow("c")
    (delivery_batch,) = harness.give("a", "b")
    harness.advance(TIMEOUT_MS)
    other = harness.slow("d")
    (again,) = harness.pump()
    ack(delivery_batch, 0, 2)
    assert (other.contents, harness.queue.queue_counts) == ([b"a", b"b"], (0, 2, 1, 0))
    assert (again.redelivered, again.counts) == (True, (1, 0)), "and that is no failure"


def test_what_was_acknowledged_is_gone_and_only_the_rest_goes_back(harness: Harness) -> None:
    sink = harness.slow("c")
    (delivery_batch,) = harness.give("a", "b", "c", "d")
    ack(delivery_batch, 1, 2)
    ack(delivery_batch, 3, 4)
    harness.advance(TIMEOUT_MS)
    assert [word for word, _held_ms in sink.lost] == ["a", "c"]
    assert harness.queue.queue_counts == (2, 0, 0, 0)


def test_each_run_has_its_own_time(harness: Harness) -> None:
    sink = harness.slow("c")
    harness.give("a")
    harness.advance(TIMEOUT_MS - 1)
    harness.give("b")
    harness.advance(1)
    assert [word for word, _held_ms in sink.lost] == ["a"]
    assert harness.queue.in_flight == 1, "the other stays in its hands"
    harness.advance(TIMEOUT_MS)
    assert [word for word, _held_ms in sink.lost] == ["a", "b"]


def test_who_acknowledges_in_time_loses_nothing(harness: Harness) -> None:
    sink = harness.slow("c")
    for _ in range(5):
        (delivery_batch,) = harness.give("a")
        harness.advance(TIMEOUT_MS - 1)
        ack(delivery_batch, 0, 1)
    harness.advance(10 * TIMEOUT_MS)
    assert (sink.lost, harness.queue.queue_counts) == ([], (0, 0, 1, 0))


def test_who_does_not_acknowledge_may_keep_it(harness: Harness) -> None:
    harness.consume("c", no_ack=True)
    harness.enqueue("a")
    harness.pump()
    harness.advance(10 * TIMEOUT_MS)
    assert harness.wakes == []


@pytest.mark.parametrize(
    ("own_ms", "said_ms", "default_ms", "expected_ms"),
    [
        (None, None, None, None),
        (None, None, 4_000, 4_000),
        (None, 3_000, 4_000, 3_000),
        (None, 5_000, 4_000, 5_000),
        (6_000, 3_000, 4_000, 6_000),
        (2_000, None, None, 2_000),
        (0, 3_000, 4_000, 0),
    ],
)
def test_who_says_how_long(
    own_ms: int | None, said_ms: int | None, default_ms: int | None, expected_ms: int | None
) -> None:
    arguments = queue_arguments() if said_ms is None else queue_arguments(consumer_timeout=said_ms)
    harness = Harness(default_ms, QueueSpec("q", arguments=arguments))
    sink = harness.slow("c", own_ms)
    harness.give("a")
    if expected_ms is None:
        harness.advance(10 * TIMEOUT_MS)
        assert (sink.lost, harness.wakes) == ([], [])
        return
    if expected_ms:
        harness.advance(expected_ms - 1)
        assert sink.lost == []
    harness.advance(1)
    assert [word for word, _held_ms in sink.lost] == ["a"]


def test_a_policy_counts_for_what_is_held_if_that_had_a_limit(harness: Harness) -> None:
    sink, patient = harness.slow("c"), harness.slow("d", 3 * TIMEOUT_MS, prefetch=1)
    harness.give("a", "b")
    harness.advance(SHORT_MS - 1)
    harness.queue.settings = QueueSettings(consumer_timeout_ms=SHORT_MS)
    harness.pump()
    assert sink.lost == []
    harness.advance(1)
    assert sink.lost == [("a", SHORT_MS)]
    assert patient.lost == [], "it has its own"
    harness.queue.settings = QueueSettings()
    last = harness.slow("e")
    harness.pump()
    harness.advance(TIMEOUT_MS - 1)
    assert last.lost == []
    harness.advance(1)
    assert len(last.lost) == 1


def test_nothing_is_kept_of_runs_that_end_in_any_order(harness: Harness) -> None:
    harness.slow("c")
    (first,) = harness.give("a")
    for _ in range(4 * SWEEP_MIN):
        (delivery_batch,) = harness.give("a")
        ack(delivery_batch, 0, 1)
    ((_holder, runs),) = harness.queue._overdue._held.items()
    assert len(runs.runs) <= SWEEP_MIN
    ack(first, 0, 1)
    assert not harness.queue._overdue._held


def test_a_message_in_hands_is_not_one_that_expires_there() -> None:
    """G10: it expires once it is back."""
    harness = Harness(TIMEOUT_MS, QueueSpec("q", arguments=queue_arguments(message_ttl=SHORT_MS)))
    harness.slow("c")
    harness.give("a")
    harness.advance(TIMEOUT_MS - 1)
    assert harness.queue.queue_counts == (0, 1, 1, 0)
    harness.advance(1)
    assert harness.queue.queue_counts == (0, 0, 0, 0)
