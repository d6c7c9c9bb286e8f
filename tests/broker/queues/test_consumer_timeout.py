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


class Rig(ExpiryHarness):
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
def rig() -> Rig:
    return Rig(TIMEOUT_MS)


def ack(delivery_batch: DeliveryBatch, start: int, stop: int) -> None:
    for part in delivery_batch.settle(start, stop):
        delivery_batch.holder.queue.settle(delivery_batch, *part, Outcome.ACKED)


def test_what_is_held_for_too_long_goes_back_and_its_consumer_goes(rig: Rig) -> None:
    sink = rig.slow("c")
    rig.give("a", "b")
    rig.advance(TIMEOUT_MS - 1)
    assert (sink.lost, rig.queue.queue_counts) == ([], (0, 2, 1, 0))
    rig.advance(1)
    assert (sink.lost, rig.queue.queue_counts) == ([("ab", TIMEOUT_MS)], (2, 0, 0, 0))


@pytest.mark.parametrize("sooner_ms", [1, TIMEOUT_MS // 2])
def test_a_queue_that_is_woken_too_soon_asks_again(rig: Rig, sooner_ms: int) -> None:
    """Timers go by another clock, and keep one wish of each queue: the first."""
    sink = rig.slow("c")
    rig.give("a")
    rig.wakes = [at_ms - sooner_ms for at_ms in rig.wakes]
    rig.advance(TIMEOUT_MS)
    assert sink.lost == [("a", TIMEOUT_MS)]


def test_what_is_said_of_it_afterwards_is_in_vain(rig: Rig) -> None:
    rig.slow("c")
    (delivery_batch,) = rig.give("a", "b")
    rig.advance(TIMEOUT_MS)
    other = rig.slow("d")
    (again,) = rig.pump()
    ack(delivery_batch, 0, 2)
    assert (other.contents, rig.queue.queue_counts) == ([b"a", b"b"], (0, 2, 1, 0))
    assert (again.redelivered, again.counts) == (True, (1, 0)), "and that is no failure"


def test_what_was_acknowledged_is_gone_and_only_the_rest_goes_back(rig: Rig) -> None:
    sink = rig.slow("c")
    (delivery_batch,) = rig.give("a", "b", "c", "d")
    ack(delivery_batch, 1, 2)
    ack(delivery_batch, 3, 4)
    rig.advance(TIMEOUT_MS)
    assert [word for word, _held_ms in sink.lost] == ["a", "c"]
    assert rig.queue.queue_counts == (2, 0, 0, 0)


def test_each_run_has_its_own_time(rig: Rig) -> None:
    sink = rig.slow("c")
    rig.give("a")
    rig.advance(TIMEOUT_MS - 1)
    rig.give("b")
    rig.advance(1)
    assert [word for word, _held_ms in sink.lost] == ["a"]
    assert rig.queue.in_flight == 1, "the other stays in its hands"
    rig.advance(TIMEOUT_MS)
    assert [word for word, _held_ms in sink.lost] == ["a", "b"]


def test_who_acknowledges_in_time_loses_nothing(rig: Rig) -> None:
    sink = rig.slow("c")
    for _ in range(5):
        (delivery_batch,) = rig.give("a")
        rig.advance(TIMEOUT_MS - 1)
        ack(delivery_batch, 0, 1)
    rig.advance(10 * TIMEOUT_MS)
    assert (sink.lost, rig.queue.queue_counts) == ([], (0, 0, 1, 0))


def test_who_does_not_acknowledge_may_keep_it(rig: Rig) -> None:
    rig.consume("c", no_ack=True)
    rig.enqueue("a")
    rig.pump()
    rig.advance(10 * TIMEOUT_MS)
    assert rig.wakes == []


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
    rig = Rig(default_ms, QueueSpec("q", arguments=arguments))
    sink = rig.slow("c", own_ms)
    rig.give("a")
    if expected_ms is None:
        rig.advance(10 * TIMEOUT_MS)
        assert (sink.lost, rig.wakes) == ([], [])
        return
    if expected_ms:
        rig.advance(expected_ms - 1)
        assert sink.lost == []
    rig.advance(1)
    assert [word for word, _held_ms in sink.lost] == ["a"]


def test_a_policy_counts_for_what_is_held_if_that_had_a_limit(rig: Rig) -> None:
    sink, patient = rig.slow("c"), rig.slow("d", 3 * TIMEOUT_MS, prefetch=1)
    rig.give("a", "b")
    rig.advance(SHORT_MS - 1)
    rig.queue.settings = QueueSettings(consumer_timeout_ms=SHORT_MS)
    rig.pump()
    assert sink.lost == []
    rig.advance(1)
    assert sink.lost == [("a", SHORT_MS)]
    assert patient.lost == [], "it has its own"
    rig.queue.settings = QueueSettings()
    last = rig.slow("e")
    rig.pump()
    rig.advance(TIMEOUT_MS - 1)
    assert last.lost == []
    rig.advance(1)
    assert len(last.lost) == 1


def test_nothing_is_kept_of_runs_that_end_in_any_order(rig: Rig) -> None:
    rig.slow("c")
    (first,) = rig.give("a")
    for _ in range(4 * SWEEP_MIN):
        (delivery_batch,) = rig.give("a")
        ack(delivery_batch, 0, 1)
    ((_holder, runs),) = rig.queue._overdue._held.items()
    assert len(runs.runs) <= SWEEP_MIN
    ack(first, 0, 1)
    assert not rig.queue._overdue._held


def test_a_message_in_hands_is_not_one_that_expires_there() -> None:
    """G10: it expires once it is back."""
    rig = Rig(TIMEOUT_MS, QueueSpec("q", arguments=queue_arguments(message_ttl=SHORT_MS)))
    rig.slow("c")
    rig.give("a")
    rig.advance(TIMEOUT_MS - 1)
    assert rig.queue.queue_counts == (0, 1, 1, 0)
    rig.advance(1)
    assert rig.queue.queue_counts == (0, 0, 0, 0)
