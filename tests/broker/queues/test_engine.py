"""The queue, one rule at a time; `test_engine_model` has them all at once."""

import pytest

from fluffle.broker.queues.arguments import Declaration, QueueType, queue_spec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.engine import BEHIND_MESSAGES, BURST_BYTES, Queue
from fluffle.broker.queues.publish_target import BackloggedTarget
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome, SharedCredit
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.headers import DeathReason
from tests.broker.queues.queue_harness import ORIGIN, OTHER_ORIGIN, QueueHarness
from tests.support.queue_host import FakeQueueHost


@pytest.fixture
def harness() -> QueueHarness:
    return QueueHarness()


def settle(delivery_batch: DeliveryBatch) -> None:
    delivery_batch.holder.queue.settle(
        delivery_batch, 0, len(delivery_batch.contents), Outcome.ACKED
    )


def give_back(delivery_batch: DeliveryBatch) -> None:
    delivery_batch.holder.queue.settle(
        delivery_batch, 0, len(delivery_batch.contents), Outcome.NACK_REQUEUED
    )


def test_a_queue_asks_for_a_pump_only_when_it_can_deliver(harness: QueueHarness) -> None:
    harness.enqueue("a")
    assert not harness.touched
    harness.consume("c")
    assert harness.touched
    assert [delivery_batch.contents for delivery_batch in harness.pump()] == [[b"a"]]
    harness.enqueue("b")
    assert harness.touched


def test_a_full_consumer_costs_a_publish_nothing(harness: QueueHarness) -> None:
    harness.consume("c", prefetch=1)
    harness.enqueue("a", "b")
    harness.pump()
    harness.enqueue("c")
    assert not harness.touched


def test_one_consumer_gets_a_backlog_as_one_run(harness: QueueHarness) -> None:
    harness.enqueue("a", "b")
    harness.enqueue("c")
    harness.enqueue("d", origin=OTHER_ORIGIN)
    harness.consume("c")
    delivery_batches = harness.pump()
    assert [delivery_batch.contents for delivery_batch in delivery_batches] == [
        [b"a", b"b", b"c", b"d"]
    ]
    assert [delivery_batch.origins for delivery_batch in delivery_batches] == [
        [ORIGIN] * 3 + [OTHER_ORIGIN]
    ]
    assert harness.queue.in_flight == 4


def test_equal_consumers_get_one_message_each_in_turn(harness: QueueHarness) -> None:
    for tag in "xyz":
        harness.consume(tag)
    harness.enqueue(*"abcdefgh")
    harness.pump()
    assert [harness.got(tag) for tag in "xyz"] == ["adg", "beh", "cf"]
    harness.enqueue(*"ij")
    harness.pump()
    assert [harness.got(tag) for tag in "xyz"] == ["adgj", "beh", "cfi"]


def test_a_run_dealt_out_keeps_its_sequence_numbers(harness: QueueHarness) -> None:
    harness.consume("x")
    harness.consume("y")
    harness.enqueue(*"abcde")
    assert [
        (list(delivery_batch.sequences), delivery_batch.contents)
        for delivery_batch in harness.pump()
    ] == [
        ([1, 3], [b"a", b"c"]),
        ([2, 4], [b"b", b"d"]),
        ([5], [b"e"]),
    ]


def test_who_leaves_costs_nobody_a_turn(harness: QueueHarness) -> None:
    for tag in "vwxyz":
        harness.consume(tag)
    harness.enqueue(*"ab")
    harness.pump()
    for tag in "wy":
        harness.queue.detach(harness.consumers[tag])
    harness.enqueue(*"cdef")
    harness.pump()
    assert [harness.got(tag) for tag in "vwxyz"] == ["ae", "b", "cf", "", "d"]


def test_higher_priorities_come_first_while_they_have_room(harness: QueueHarness) -> None:
    harness.consume("low", priority=-1)
    harness.consume("high", priority=10, prefetch=2)
    harness.consume("middle", prefetch=1)
    harness.enqueue(*"abcde")
    delivery_batches = harness.pump()
    assert [harness.got(tag) for tag in ("high", "middle", "low")] == ["ab", "c", "de"]
    settle(delivery_batches[0])
    harness.enqueue("f")
    harness.pump()
    assert harness.got("high") == "abf"


def test_prefetch_makes_room_as_messages_are_settled(harness: QueueHarness) -> None:
    consumer = harness.consume("c", prefetch=2)
    harness.enqueue(*"abcd")
    (delivery_batch,) = harness.pump()
    assert (harness.got("c"), consumer.parked) == ("ab", True)
    harness.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
    harness.pump()
    assert harness.got("c") == "abc"


def test_no_ack_is_settled_at_once_and_unlimited(harness: QueueHarness) -> None:
    consumer = harness.consume("c", prefetch=1, no_ack=True)
    harness.shared.limit = 1
    harness.enqueue(*"abc")
    harness.pump()
    assert (harness.got("c"), harness.queue.in_flight) == ("abc", 0)
    assert (consumer.in_flight, harness.shared.in_flight) == (0, 0)


# A limit that consumers share


def test_consumers_of_one_channel_take_turns_within_their_limit(harness: QueueHarness) -> None:
    """With room for one at a time, nobody is left out."""
    harness.shared.limit = 1
    harness.consume("x")
    harness.consume("y")
    harness.enqueue(*"abcd")
    for _ in range(4):
        (delivery_batch,) = harness.pump()
        settle(delivery_batch)
    assert (harness.got("x"), harness.got("y")) == ("ac", "bd")


def test_room_made_in_one_queue_serves_consumers_of_another() -> None:
    first, second = QueueHarness(), QueueHarness()
    second.shared = first.shared
    first.shared.limit = 1
    first.consume("x")
    second.consume("y")
    first.enqueue("a")
    second.enqueue("b")
    (delivery_batch,) = first.pump()
    assert second.pump() == []
    settle(delivery_batch)
    second.pump()
    assert second.got("y") == "b"


def test_a_neighbour_with_a_shared_limit_does_not_lose_its_turn(harness: QueueHarness) -> None:
    harness.consume("x")
    harness.shared = SharedCredit()
    harness.shared.limit = 10
    harness.consume("y")
    harness.enqueue(*"abcd")
    harness.pump()
    assert (harness.got("x"), harness.got("y")) == ("ac", "bd")


# What sinks take


def test_a_sink_that_is_full_gets_no_more_from_the_same_pump(harness: QueueHarness) -> None:
    """A run takes its room when it is handed out, not when it is delivered."""
    harness.consume("c")
    message = "x" * (BURST_BYTES // 4)
    for _ in range(5):
        harness.enqueue(message, message)
    harness.sinks["c"].left = 4
    assert [len(delivery_batch.contents) for delivery_batch in harness.queue.pump()] == [3, 1]
    assert (harness.queue.ready_count, harness.queue.in_flight) == (6, 4)
    assert harness.queue.pump() == []


def test_no_run_is_much_larger_than_a_burst(harness: QueueHarness) -> None:
    harness.consume("c")
    message = "x" * (BURST_BYTES // 4)
    harness.enqueue(*[message] * 10)
    assert [len(delivery_batch.contents) for delivery_batch in harness.pump()] == [3, 3, 3, 1]


# Coming back


def test_what_comes_back_takes_its_old_place_and_says_so(harness: QueueHarness) -> None:
    harness.consume("c", prefetch=2)
    harness.enqueue(*"abcd")
    (delivery_batch,) = harness.pump()
    assert not delivery_batch.redelivered
    give_back(delivery_batch)
    (again,) = harness.pump()
    assert (again.contents, again.redelivered) == ([b"a", b"b"], True)
    settle(again)
    (rest,) = harness.pump()
    assert (rest.contents, rest.redelivered) == ([b"c", b"d"], False)


def test_a_consumer_that_leaves_keeps_what_it_holds(harness: QueueHarness) -> None:
    for prefetch in (0, 1):
        consumer = harness.consume(f"c{prefetch}", prefetch=prefetch)
        harness.enqueue("a", "b")
        delivery_batches = harness.pump()
        harness.queue.detach(consumer)
        assert not consumer.parked
        settle(delivery_batches[0])
        assert (consumer.in_flight, harness.queue.consumer_count) == (0, 0)
        harness.queue.purge()


def test_get_takes_the_oldest_whoever_consumes(harness: QueueHarness) -> None:
    holder = harness.consume("c", prefetch=1)
    harness.enqueue(*"abc")
    (delivery_batch,) = harness.pump()
    got = harness.queue.get(holder)
    assert got is not None
    assert (got.contents, got.redelivered, harness.queue.in_flight) == ([b"b"], False, 2)
    give_back(delivery_batch)
    again = harness.queue.get(holder)
    assert again is not None
    assert (again.contents, again.redelivered) == ([b"a"], True)
    assert harness.queue.purge() == 1
    assert harness.queue.get(holder) is None


# What is kept


@pytest.mark.parametrize("kept", [0, 499, 999])
def test_one_message_that_is_kept_keeps_no_other_in_memory(
    harness: QueueHarness, kept: int
) -> None:
    harness.consume("c")
    harness.enqueue(*(f"message {number}" for number in range(1000)))
    (delivery_batch,) = harness.pump()
    for start, stop in ((0, kept), (kept + 1, 1000)):
        if start < stop:
            harness.queue.settle(delivery_batch, start, stop, Outcome.ACKED)
    assert [content for content in delivery_batch.contents if content] == [b"message %d" % kept]
    harness.queue.settle(delivery_batch, kept, kept + 1, Outcome.NACK_REQUEUED)
    assert not any(delivery_batch.contents)
    harness.pump()
    assert harness.sinks["c"].contents[1000:] == [b"message %d" % kept]


def test_what_is_settled_in_one_queue_stays_in_the_others() -> None:
    """A fan-out gives every queue the same lists, and a lane extends its last segment."""
    first, second = QueueHarness(), QueueHarness()
    origins, contents = [ORIGIN] * 2, [b"a", b"b"]
    for harness in (first, second):
        harness.queue.enqueue(origins, contents, 2)
        harness.consume("c")
    (delivery_batch,) = first.pump()
    first.enqueue("c")
    settle(delivery_batch)
    assert contents == [b"a", b"b"]
    first.pump()
    second.pump()
    assert (first.got("c"), second.got("c")) == ("abc", "ab")


# What others ask


def test_the_counts_and_flags_of_a_queue(harness: QueueHarness) -> None:
    queue = harness.queue
    assert (queue.name, queue.consumer_count) == ("q", 0)
    assert not queue.in_exclusive_use
    consumer = harness.consume("c", prefetch=1, exclusive=True)
    harness.enqueue("a", "b")
    harness.pump()
    assert consumer.parked
    assert (queue.ready_count, queue.in_flight, queue.consumer_count) == (1, 1, 1)
    assert queue.in_exclusive_use
    queue.detach(consumer)
    assert (queue.consumers, queue.in_exclusive_use) == ((), False)


def test_a_queue_is_behind_only_while_somebody_consumes(harness: QueueHarness) -> None:
    harness.enqueue(*"x" * (BEHIND_MESSAGES + 1))
    assert not harness.queue.is_behind
    harness.consume("c", prefetch=1)
    assert harness.queue.is_behind
    harness.pump()
    assert not harness.queue.is_behind


class CountingDebtor:
    """Leaves, as real ones do, while it is being paid."""

    def __init__(self, queue: Queue, count: int) -> None:
        self.count = count
        queue.blocked_publishers.append(self)

    def paid(self, queue: BackloggedTarget, count: int) -> int:
        taken = min(count, self.count)
        self.count -= taken
        if not self.count:
            queue.blocked_publishers.remove(self)
        return count - taken


def test_what_leaves_pays_one_debtor_after_the_other(harness: QueueHarness) -> None:
    harness.enqueue(*"abcdefgh")
    blocked_publishers = [CountingDebtor(harness.queue, count) for count in (2, 4, 3)]
    holder = harness.consume("c", prefetch=2)
    harness.queue.get(holder)
    assert [debtor.count for debtor in blocked_publishers] == [1, 4, 3]
    harness.pump()
    assert [debtor.count for debtor in blocked_publishers] == [0, 4, 3]
    harness.queue.purge()
    assert [debtor.count for debtor in blocked_publishers] == [0, 0, 1]
    assert harness.queue.blocked_publishers == [blocked_publishers[2]]


def mailbox_of(limit: int) -> tuple[QueueHarness, list[DeadMessages]]:
    """A queue for QoS 0 of MQTT, and what has died in it."""
    spec = queue_spec(Declaration("q", exclusive=True, mailbox_limit=limit), "/")
    harness, died = QueueHarness(), list[DeadMessages]()

    def on_dead(queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        del queue, settings
        died.append(dead)

    harness.queue = Queue(spec, FakeQueueHost(harness.touch, dead_letter=on_dead))
    return harness, died


def test_what_comes_while_a_client_takes_nothing_is_dropped_once_too_much_waits() -> None:
    harness, dead = mailbox_of(2)
    harness.consume("c", no_ack=True)
    harness.enqueue(*"abcde")
    harness.pump()
    assert harness.got("c") == "abcde", "a client that takes them gets as many as come"
    harness.sinks["c"].left = 0
    harness.enqueue("f")
    harness.pump()
    harness.enqueue("g")
    harness.enqueue("h", "i")
    harness.enqueue("j", "k")
    harness.enqueue("l")
    assert [(died.reason, died.queue_type, died.unwanted) for died in dead] == [
        (DeathReason.MAXLEN, QueueType.MQTT_QOS0, 2),
        (DeathReason.MAXLEN, QueueType.MQTT_QOS0, 1),
    ]
    harness.sinks["c"].open()
    harness.pump()
    harness.enqueue("m")
    harness.pump()
    assert harness.got("c") == "abcdefghim"


def test_without_a_limit_nothing_is_dropped() -> None:
    harness, dead = mailbox_of(0)
    for _ in range(300):
        harness.enqueue("a")
    assert (harness.queue.ready_count, dead) == (300, [])
