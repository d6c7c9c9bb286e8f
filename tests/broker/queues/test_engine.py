"""The queue, one rule at a time; `test_engine_model` has them all at once."""

import pytest

from fluffle.broker.queues.consumers import SharedCredit
from fluffle.broker.queues.delivery import DeliveryBatch, Outcome
from fluffle.broker.queues.engine import BEHIND_MESSAGES, BURST_BYTES, Queue
from fluffle.broker.queues.queue_api import PublishTarget
from tests.broker.queues.make import ORIGIN, OTHER_ORIGIN, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def settle(delivery_batch: DeliveryBatch) -> None:
    delivery_batch.holder.queue.settle(
        delivery_batch, 0, len(delivery_batch.contents), Outcome.ACKED
    )


def give_back(delivery_batch: DeliveryBatch) -> None:
    delivery_batch.holder.queue.settle(
        delivery_batch, 0, len(delivery_batch.contents), Outcome.NACK_REQUEUED
    )


def test_a_queue_asks_for_a_pump_only_when_it_can_deliver(bench: Bench) -> None:
    bench.enqueue("a")
    assert not bench.touched
    bench.consume("c")
    assert bench.touched
    assert [delivery_batch.contents for delivery_batch in bench.pump()] == [[b"a"]]
    bench.enqueue("b")
    assert bench.touched


def test_a_full_consumer_costs_a_publish_nothing(bench: Bench) -> None:
    bench.consume("c", prefetch=1)
    bench.enqueue("a", "b")
    bench.pump()
    bench.enqueue("c")
    assert not bench.touched


def test_one_consumer_gets_a_backlog_as_one_run(bench: Bench) -> None:
    bench.enqueue("a", "b")
    bench.enqueue("c")
    bench.enqueue("d", origin=OTHER_ORIGIN)
    bench.consume("c")
    delivery_batches = bench.pump()
    assert [delivery_batch.contents for delivery_batch in delivery_batches] == [
        [b"a", b"b", b"c", b"d"]
    ]
    assert [delivery_batch.origins for delivery_batch in delivery_batches] == [
        [ORIGIN] * 3 + [OTHER_ORIGIN]
    ]
    assert bench.queue.in_flight == 4


def test_equal_consumers_get_one_message_each_in_turn(bench: Bench) -> None:
    for tag in "xyz":
        bench.consume(tag)
    bench.enqueue(*"abcdefgh")
    bench.pump()
    assert [bench.got(tag) for tag in "xyz"] == ["adg", "beh", "cf"]
    bench.enqueue(*"ij")
    bench.pump()
    assert [bench.got(tag) for tag in "xyz"] == ["adgj", "beh", "cfi"]


def test_a_run_dealt_out_keeps_its_sequence_numbers(bench: Bench) -> None:
    bench.consume("x")
    bench.consume("y")
    bench.enqueue(*"abcde")
    assert [
        (list(delivery_batch.sequences), delivery_batch.contents) for delivery_batch in bench.pump()
    ] == [
        ([1, 3], [b"a", b"c"]),
        ([2, 4], [b"b", b"d"]),
        ([5], [b"e"]),
    ]


def test_who_leaves_costs_nobody_a_turn(bench: Bench) -> None:
    for tag in "vwxyz":
        bench.consume(tag)
    bench.enqueue(*"ab")
    bench.pump()
    for tag in "wy":
        bench.queue.detach(bench.consumers[tag])
    bench.enqueue(*"cdef")
    bench.pump()
    assert [bench.got(tag) for tag in "vwxyz"] == ["ae", "b", "cf", "", "d"]


def test_higher_priorities_come_first_while_they_have_room(bench: Bench) -> None:
    bench.consume("low", priority=-1)
    bench.consume("high", priority=10, prefetch=2)
    bench.consume("middle", prefetch=1)
    bench.enqueue(*"abcde")
    delivery_batches = bench.pump()
    assert [bench.got(tag) for tag in ("high", "middle", "low")] == ["ab", "c", "de"]
    settle(delivery_batches[0])
    bench.enqueue("f")
    bench.pump()
    assert bench.got("high") == "abf"


def test_prefetch_makes_room_as_messages_are_settled(bench: Bench) -> None:
    consumer = bench.consume("c", prefetch=2)
    bench.enqueue(*"abcd")
    (delivery_batch,) = bench.pump()
    assert (bench.got("c"), consumer.parked) == ("ab", True)
    bench.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
    bench.pump()
    assert bench.got("c") == "abc"


def test_no_ack_is_settled_at_once_and_unlimited(bench: Bench) -> None:
    consumer = bench.consume("c", prefetch=1, no_ack=True)
    bench.shared.limit = 1
    bench.enqueue(*"abc")
    bench.pump()
    assert (bench.got("c"), bench.queue.in_flight) == ("abc", 0)
    assert (consumer.in_flight, bench.shared.in_flight) == (0, 0)


# A limit that consumers share


def test_consumers_of_one_channel_take_turns_within_their_limit(bench: Bench) -> None:
    """With room for one at a time, nobody is left out."""
    bench.shared.limit = 1
    bench.consume("x")
    bench.consume("y")
    bench.enqueue(*"abcd")
    for _ in range(4):
        (delivery_batch,) = bench.pump()
        settle(delivery_batch)
    assert (bench.got("x"), bench.got("y")) == ("ac", "bd")


def test_room_made_in_one_queue_serves_consumers_of_another() -> None:
    first, second = Bench(), Bench()
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


def test_a_neighbour_with_a_shared_limit_does_not_lose_its_turn(bench: Bench) -> None:
    bench.consume("x")
    bench.shared = SharedCredit()
    bench.shared.limit = 10
    bench.consume("y")
    bench.enqueue(*"abcd")
    bench.pump()
    assert (bench.got("x"), bench.got("y")) == ("ac", "bd")


# What sinks take


def test_a_sink_that_is_full_gets_no_more_from_the_same_pump(bench: Bench) -> None:
    """A run takes its room when it is handed out, not when it is delivered."""
    bench.consume("c")
    message = "x" * (BURST_BYTES // 4)
    for _ in range(5):
        bench.enqueue(message, message)
    bench.sinks["c"].left = 4
    assert [len(delivery_batch.contents) for delivery_batch in bench.queue.pump()] == [3, 1]
    assert (bench.queue.ready_count, bench.queue.in_flight) == (6, 4)
    assert bench.queue.pump() == []


def test_no_run_is_much_larger_than_a_burst(bench: Bench) -> None:
    bench.consume("c")
    message = "x" * (BURST_BYTES // 4)
    bench.enqueue(*[message] * 10)
    assert [len(delivery_batch.contents) for delivery_batch in bench.pump()] == [3, 3, 3, 1]


# Coming back


def test_what_comes_back_takes_its_old_place_and_says_so(bench: Bench) -> None:
    bench.consume("c", prefetch=2)
    bench.enqueue(*"abcd")
    (delivery_batch,) = bench.pump()
    assert not delivery_batch.redelivered
    give_back(delivery_batch)
    (again,) = bench.pump()
    assert (again.contents, again.redelivered) == ([b"a", b"b"], True)
    settle(again)
    (rest,) = bench.pump()
    assert (rest.contents, rest.redelivered) == ([b"c", b"d"], False)


def test_a_consumer_that_leaves_keeps_what_it_holds(bench: Bench) -> None:
    for prefetch in (0, 1):
        consumer = bench.consume(f"c{prefetch}", prefetch=prefetch)
        bench.enqueue("a", "b")
        delivery_batches = bench.pump()
        bench.queue.detach(consumer)
        assert not consumer.parked
        settle(delivery_batches[0])
        assert (consumer.in_flight, bench.queue.consumer_count) == (0, 0)
        bench.queue.purge()


def test_get_takes_the_oldest_whoever_consumes(bench: Bench) -> None:
    holder = bench.consume("c", prefetch=1)
    bench.enqueue(*"abc")
    (delivery_batch,) = bench.pump()
    got = bench.queue.get(holder)
    assert got is not None
    assert (got.contents, got.redelivered, bench.queue.in_flight) == ([b"b"], False, 2)
    give_back(delivery_batch)
    again = bench.queue.get(holder)
    assert again is not None
    assert (again.contents, again.redelivered) == ([b"a"], True)
    assert bench.queue.purge() == 1
    assert bench.queue.get(holder) is None


# What is kept


@pytest.mark.parametrize("kept", [0, 499, 999])
def test_one_message_that_is_kept_keeps_no_other_in_memory(bench: Bench, kept: int) -> None:
    bench.consume("c")
    bench.enqueue(*(f"message {number}" for number in range(1000)))
    (delivery_batch,) = bench.pump()
    for start, stop in ((0, kept), (kept + 1, 1000)):
        if start < stop:
            bench.queue.settle(delivery_batch, start, stop, Outcome.ACKED)
    assert [content for content in delivery_batch.contents if content] == [b"message %d" % kept]
    bench.queue.settle(delivery_batch, kept, kept + 1, Outcome.NACK_REQUEUED)
    assert not any(delivery_batch.contents)
    bench.pump()
    assert bench.sinks["c"].contents[1000:] == [b"message %d" % kept]


def test_what_is_settled_in_one_queue_stays_in_the_others() -> None:
    """A fan-out gives every queue the same lists, and a lane extends its last segment."""
    first, second = Bench(), Bench()
    origins, contents = [ORIGIN] * 2, [b"a", b"b"]
    for bench in (first, second):
        bench.queue.enqueue(origins, contents, 2)
        bench.consume("c")
    (delivery_batch,) = first.pump()
    first.enqueue("c")
    settle(delivery_batch)
    assert contents == [b"a", b"b"]
    first.pump()
    second.pump()
    assert (first.got("c"), second.got("c")) == ("abc", "ab")


# What others ask


def test_the_counts_and_flags_of_a_queue(bench: Bench) -> None:
    queue = bench.queue
    assert (queue.name, queue.consumer_count) == ("q", 0)
    assert not queue.in_exclusive_use
    consumer = bench.consume("c", prefetch=1, exclusive=True)
    bench.enqueue("a", "b")
    bench.pump()
    assert consumer.parked
    assert (queue.ready_count, queue.in_flight, queue.consumer_count) == (1, 1, 1)
    assert queue.in_exclusive_use
    queue.detach(consumer)
    assert (queue.consumers, queue.in_exclusive_use) == ((), False)


def test_a_queue_is_behind_only_while_somebody_consumes(bench: Bench) -> None:
    bench.enqueue(*"x" * (BEHIND_MESSAGES + 1))
    assert not bench.queue.is_behind
    bench.consume("c", prefetch=1)
    assert bench.queue.is_behind
    bench.pump()
    assert not bench.queue.is_behind


class CountingDebtor:
    """Leaves, as real ones do, while it is being paid."""

    def __init__(self, queue: Queue, count: int) -> None:
        self.count = count
        queue.blocked_publishers.append(self)

    def paid(self, queue: PublishTarget, count: int) -> int:
        taken = min(count, self.count)
        self.count -= taken
        if not self.count:
            queue.blocked_publishers.remove(self)
        return count - taken


def test_what_leaves_pays_one_debtor_after_the_other(bench: Bench) -> None:
    bench.enqueue(*"abcdefgh")
    blocked_publishers = [CountingDebtor(bench.queue, count) for count in (2, 4, 3)]
    holder = bench.consume("c", prefetch=2)
    bench.queue.get(holder)
    assert [debtor.count for debtor in blocked_publishers] == [1, 4, 3]
    bench.pump()
    assert [debtor.count for debtor in blocked_publishers] == [0, 4, 3]
    bench.queue.purge()
    assert [debtor.count for debtor in blocked_publishers] == [0, 0, 1]
    assert bench.queue.blocked_publishers == [blocked_publishers[2]]
