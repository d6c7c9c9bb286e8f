"""Single active consumer: which is active, which is next, and which gives way."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import SWEEP_MIN
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.queues.queue_harness import ExpiryHarness, FakeSink, QueueHarness
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeQueueHost

CLASSIC = QueueSpec("q", single_active_consumer=True)
QUORUM = QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True)


def active(harness: QueueHarness) -> list[str]:
    return [tag for tag, consumer in harness.consumers.items() if consumer.is_active]


def test_the_first_alone_is_served() -> None:
    for spec in (CLASSIC, QUORUM):
        harness = QueueHarness(spec)
        for tag in "ab":
            harness.consume(tag, prefetch=1)
        harness.enqueue("1", "2")
        (delivery_batch,) = harness.pump()
        assert (harness.got("a"), harness.got("b"), active(harness)) == ("1", "", ["a"])
        harness.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
        harness.pump()
        assert (harness.got("a"), harness.got("b")) == ("12", "")


def test_the_next_takes_over_though_the_former_holds_messages() -> None:
    harness = QueueHarness(CLASSIC)
    for tag in "abc":
        harness.consume(tag, prefetch=1)
    harness.enqueue("1", "2", "3")
    harness.pump()
    harness.queue.detach(harness.consumers.pop("a"))
    harness.pump()
    assert (harness.got("b"), active(harness)) == ("2", ["b"])
    harness.queue.detach(harness.consumers.pop("c"))
    assert (active(harness), harness.queue.consumer_count) == (["b"], 1)


def test_a_classic_queue_keeps_its_active_consumer_and_asks_for_priorities_then() -> None:
    harness = QueueHarness(CLASSIC)
    for tag, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 9), ("e", 9)):
        harness.consume(tag, priority=priority)
    assert active(harness) == ["a"]
    for tag, then in (("a", "d"), ("b", "d"), ("d", "e"), ("e", "c")):
        harness.queue.detach(harness.consumers.pop(tag))
        assert active(harness) == [then]


def test_a_quorum_queue_changes_over_once_nothing_is_held() -> None:
    harness = QueueHarness(QUORUM)
    harness.consume("low", prefetch=3)
    harness.enqueue("1", "2", "3", "4")
    (delivery_batch,) = harness.pump()
    harness.consume("high", priority=1)
    harness.queue.settle(delivery_batch, 0, 2, Outcome.ACKED)
    harness.pump()
    assert (harness.got("low"), harness.got("high"), active(harness)) == ("123", "", ["low"])
    harness.queue.settle(delivery_batch, 2, 3, Outcome.NACK_REQUEUED)
    harness.pump()
    assert (harness.got("low"), harness.got("high"), active(harness)) == ("123", "34", ["high"])


def test_who_holds_nothing_gives_way_at_once_and_waits_in_its_old_place() -> None:
    harness = QueueHarness(QUORUM)
    for tag in "abc":
        harness.consume(tag)
    harness.consume("high", priority=1)
    assert active(harness) == ["high"]
    harness.queue.detach(harness.consumers.pop("high"))
    assert active(harness) == ["a"]


def test_who_gives_way_goes_on_at_once_if_the_last_of_those_goes_for_whom() -> None:
    harness = QueueHarness(QUORUM)
    harness.consume("low", prefetch=10)
    harness.enqueue("1", "2")
    harness.pump()
    for tag in ("high", "higher"):
        harness.consume(tag, priority=1)
    harness.enqueue("3")
    for tag, then in (("high", "12"), ("higher", "123")):
        harness.queue.detach(harness.consumers.pop(tag))
        harness.pump()
        assert harness.got("low") == then


def test_who_waits_is_not_woken_by_its_socket() -> None:
    harness = QueueHarness(QUORUM)
    harness.consume("a", prefetch=1)
    waits = harness.consume("b")
    harness.sinks["b"].left = 0
    harness.enqueue("1", "2")
    harness.pump()
    harness.sinks["b"].open()
    harness.queue.wake(waits)
    harness.pump()
    assert harness.got("b") == ""


TIMEOUT_MS = 10_000
SHORT_MS = 1_000


class SlowSink(FakeSink):
    """A client that holds what it gets, and loses it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[tuple[str, int]] = []
        """Names of messages taken from it, with the time for which it held them."""

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
    """Queue harness with slow consumers."""

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
