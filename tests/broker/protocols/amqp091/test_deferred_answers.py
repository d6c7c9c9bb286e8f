"""A queue that cannot answer at once, as a client sees it: what waits for it, and what does not."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from fluffle.broker.base.errors import InternalError, QueueDeleted
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import BlockedPublisher, PublishReceipt
from fluffle.broker.queues.queue_api import (
    Consumer,
    Deferred,
    DeliveryBatch,
    Holder,
    Outcome,
    PeekRequest,
    PeekResult,
    QueueCounts,
    QueueHandle,
)
from fluffle.broker.vhosts.vhost import set_tracer
from fluffle.protocol.methods import Basic, Channel, Queue, Tx, encode_method, make
from fluffle.protocol.properties import Properties
from tests.broker.core.test_firehose import Count
from tests.support.edge import Edge, publish_frames
from tests.support.no_timeout import NoTimeoutHolder


class SlowQueue:
    """A queue whose answers come when a test says so."""

    unreachable_error = damage = owner = local_counts = counts_error = None
    in_exclusive_use = is_unused = False

    def __init__(self, name: str) -> None:
        self.spec = QueueSpec(name)
        self.name = name
        self.definition = QueueDefinition(self.spec)
        self.blocked_publishers: list[BlockedPublisher] = []
        self.ready_count = self.in_flight = self.apart_count = self.consumer_count = 0
        self.consumers: tuple[Consumer, ...] = ()
        self.asked: deque[Deferred[Any]] = deque()
        self.settled: list[tuple[int, int, Outcome]] = []
        self.receipts: deque[PublishReceipt] = deque()
        self.is_full = False

    def _ask(self) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self, value: Any) -> None:
        self.asked.popleft().answer(value)

    @property
    def is_behind(self) -> bool:
        return self.is_full

    @property
    def queue_counts(self) -> Deferred[QueueCounts]:
        return self._ask()

    @property
    def queue_counts_in_use(self) -> Deferred[QueueCounts]:
        return self._ask()

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
    ) -> PublishReceipt:
        del origins, content_bytes, persistent, expiration_ms
        self.ready_count += len(contents)
        self.receipts.append(PublishReceipt(len(contents)))
        return self.receipts[-1]

    def get(self, holder: Holder) -> Deferred[DeliveryBatch | None]:
        del holder
        return self._ask()

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        del delivery_batch
        self.settled.append((start, stop, outcome))

    def deliver_ready(self) -> None:
        """Its leader does."""

    def purge(self) -> Deferred[int]:
        return self._ask()

    def peek(self, view: PeekRequest) -> Deferred[PeekResult]:
        del view
        return self._ask()

    def attach(self, consumer: Consumer) -> Deferred[None]:
        self.consumers += (consumer,)
        return self._ask()

    def detach(self, consumer: Consumer) -> None:
        self.consumers = tuple(each for each in self.consumers if each is not consumer)

    @property
    def settling(self) -> Deferred[None]:
        return self._ask()

    def wake(self, consumer: Consumer) -> None:
        del consumer


class Getter(NoTimeoutHolder):
    no_ack = False

    def __init__(self, queue: SlowQueue) -> None:
        self.queue: QueueHandle = queue

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError

    def took(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError

    def settled(self, count: int) -> None:
        raise AssertionError


class Harness:
    def __init__(self) -> None:
        self.edge = Edge()
        self.queue = SlowQueue("q")
        self.edge.vhost.queues["q"] = self.queue
        self.client = self.edge.connect()

    def publish(self, *bodies: bytes, **where: Any) -> PublishReceipt:
        """Publish; returns the receipt that the queue owes."""
        self.client.publish(*bodies, **where)
        return self.queue.receipts.pop()

    def know(
        self, receipt: PublishReceipt, start: int, stop: int, *, is_accepted: bool = True
    ) -> None:
        receipt.on_outcome(start, stop, is_accepted=is_accepted)
        self.edge.run()

    def reported(self) -> list[tuple[str, Any, Any]]:
        """Confirms that have come."""
        return [
            (arrival.method.name[6:], arrival.method["delivery_tag"], arrival.method["multiple"])
            for arrival in self.client.arrivals()
        ]

    def send(self, *methods: Any, channel: int = 1) -> None:
        self.client.send(*(encode_method(channel, method) for method in methods))

    def answer(self, value: Any) -> None:
        self.queue.answer(value)
        self.edge.run()

    def fail(self) -> None:
        self.queue.asked.popleft().fail(InternalError("nobody leads it"))
        self.edge.run()


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_what_came_behind_a_question_waits_for_its_answer(harness: Harness) -> None:
    harness.client.send(
        encode_method(1, make(Queue.Purge, queue="q")),
        publish_frames(b"1"),
        encode_method(1, make(Queue.Purge, queue="q")),
    )
    harness.client.expect_nothing()
    assert (len(harness.queue.asked), harness.queue.ready_count) == (1, 0)
    harness.answer(5)
    assert harness.client.expect(Queue.PurgeOk).message_count == 5
    assert (len(harness.queue.asked), harness.queue.ready_count) == (1, 1)
    harness.answer(1)
    assert harness.client.expect(Queue.PurgeOk).message_count == 1


def test_other_channels_go_on(harness: Harness) -> None:
    harness.client.open_channel(2)
    harness.send(make(Queue.Purge, queue="q"))
    harness.client.declare("r", channel=2)
    harness.answer(0)
    harness.client.expect(Queue.PurgeOk)


def test_a_purge_that_is_done_to_the_next_queue_of_that_name_is_seen_once(harness: Harness) -> None:
    seen = Count()
    set_tracer(harness.edge.vhost, "count", seen)
    harness.send(make(Queue.Purge, queue="q"))
    harness.queue.asked.popleft().fail(QueueDeleted("no queue 'q' in vhost '/'"))
    harness.edge.run()
    assert (len(harness.queue.asked), seen.purged_count) == (1, 0)
    harness.answer(3)
    assert harness.client.expect(Queue.PurgeOk).message_count == 3
    assert seen.purged_count == 1


def test_a_new_queue_need_not_be_asked_what_is_in_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader must be elected first."""
    slow = SlowQueue("new")
    maker = type(harness.edge.vhost.maker)
    monkeypatch.setattr(maker, "make", lambda _maker, _definition, _vhost: slow)
    harness.send(make(Queue.Declare, queue="new"))
    declared = harness.client.expect(Queue.DeclareOk)
    assert (declared.queue, declared.message_count, declared.consumer_count) == ("new", 0, 0)
    assert not slow.asked
    harness.send(make(Queue.Declare, queue="new"))
    harness.client.expect_nothing()
    assert len(slow.asked) == 1


def test_a_passive_declaration_asks_for_counts(harness: Harness) -> None:
    harness.send(make(Queue.Declare, queue="q", passive=True))
    harness.client.expect_nothing()
    harness.answer(QueueCounts(3, 4, 5))
    declared = harness.client.expect(Queue.DeclareOk)
    assert (declared.message_count, declared.consumer_count) == (3, 5)


def test_a_deletion_asks_first_and_waits_twice(harness: Harness) -> None:
    """Later requests wait for both."""
    harness.send(make(Queue.Delete, queue="q", if_empty=True), make(Queue.Purge, queue="q"))
    harness.queue.ready_count = 7
    harness.answer(QueueCounts(7, 0, 0))
    harness.client.expect_channel_closed(406, "not empty")
    assert not harness.queue.asked


def test_a_consumer_is_notified_before_it_is_delivered(harness: Harness) -> None:
    harness.send(make(Basic.Consume, queue="q", consumer_tag="c"))
    harness.client.expect_nothing()
    assert [consumer.tag for consumer in harness.queue.consumers] == ["c"]
    harness.answer(None)
    assert harness.client.expect(Basic.ConsumeOk).consumer_tag == "c"


def test_a_consumer_whose_channel_ends_meanwhile_is_detached(harness: Harness) -> None:
    harness.send(make(Basic.Consume, queue="q", consumer_tag="c"))
    harness.client.transport.lose()
    harness.edge.run()
    assert harness.queue.consumers == ()
    harness.answer(None)


def test_what_is_got_too_late_goes_back(harness: Harness) -> None:
    harness.send(make(Basic.Get, queue="q"))
    harness.client.transport.lose()
    harness.answer(
        DeliveryBatch(Getter(harness.queue), [Origin("", "q")], [b"m"], [1], redelivered=False)
    )
    assert harness.queue.settled == [(0, 1, Outcome.UNSENT)]


def test_a_question_that_fails_closes_as_its_error_says(harness: Harness) -> None:
    harness.send(make(Basic.Get, queue="q"))
    harness.fail()
    harness.client.expect_closed(541, "nobody leads it", (60, 70))


def test_a_close_of_the_channel_waits_too(harness: Harness) -> None:
    """Requests are bounded in time, and so is the close."""
    harness.send(make(Basic.Get, queue="q"), Channel.Close(200, "", 0, 0))
    harness.client.expect_nothing()
    harness.answer(None)
    harness.client.expect(Basic.GetEmpty)
    harness.client.expect(Channel.CloseOk)


# Publishing


def test_messages_are_confirmed_when_their_queue_has_answered(harness: Harness) -> None:
    harness.client.confirm_select()
    first, second = harness.publish(b"1", b"2"), harness.publish(b"3")
    harness.client.expect_nothing()
    harness.know(second, 0, 1)
    assert harness.reported() == [("Ack", 3, False)]
    harness.know(first, 0, 2)
    assert harness.reported() == [("Ack", 2, True)]


def test_what_several_queues_answer_in_one_turn_is_one_confirm(harness: Harness) -> None:
    harness.client.confirm_select()
    receipts = [harness.publish(b"%d" % at) for at in range(3)]
    for receipt in receipts:
        receipt.on_outcome(0, 1, is_accepted=True)
    harness.edge.run()
    assert harness.reported() == [("Ack", 3, True)]


def test_refused_messages_are_nacked(harness: Harness) -> None:
    harness.client.confirm_select()
    harness.know(harness.publish(b"1", b"2"), 0, 2, is_accepted=False)
    assert harness.reported() == [("Nack", 2, True)]


def test_messages_of_a_run_may_fare_differently(harness: Harness) -> None:
    harness.client.confirm_select()
    receipt = harness.publish(*[b"m"] * 5)
    harness.know(receipt, 1, 3, is_accepted=False)
    assert harness.reported() == [("Nack", 2, False), ("Nack", 3, False)]
    harness.know(receipt, 0, 1)
    assert harness.reported() == [("Ack", 1, False)]
    harness.know(receipt, 3, 5)
    assert harness.reported() == [("Ack", 5, True)]


def test_a_message_is_confirmed_once_all_its_queues_have_it(harness: Harness) -> None:
    """The queues: remote, transient, and one that needs a commit."""
    harness.client.declare("here")
    harness.client.declare("disk", durable=True)
    for queue in ("q", "here", "disk"):
        harness.client.bind(queue, "amq.fanout")
    harness.client.confirm_select()
    receipt = harness.publish(b"m", exchange="amq.fanout", properties=Properties(delivery_mode=2))
    harness.client.expect_nothing()
    harness.know(receipt, 0, 1)
    assert harness.reported() == [("Ack", 1, False)]
    assert harness.client.ready_count("disk") == 1


def test_one_queue_that_refuses_is_enough(harness: Harness) -> None:
    harness.client.declare("disk", durable=True)
    for queue in ("q", "disk"):
        harness.client.bind(queue, "amq.fanout")
    harness.client.confirm_select()
    receipt = harness.publish(b"m", exchange="amq.fanout", properties=Properties(delivery_mode=2))
    harness.know(receipt, 0, 1, is_accepted=False)
    assert harness.reported() == [("Nack", 1, False)]


def test_messages_of_one_read_to_many_queues_are_confirmed_apart(harness: Harness) -> None:
    harness.client.declare("here")
    harness.edge.vhost.queues["r"] = other = SlowQueue("r")
    harness.client.confirm_select()
    keys = ["q", "r", "here", "q", "r", "r"]
    for _ in range(2):  # the second time all routes are known
        harness.client.send(*(publish_frames(b"m", key) for key in keys))
    reported = harness.reported()
    assert ("Ack", 3, False) in reported
    assert ("Ack", 9, False) in reported
    while other.receipts:
        receipt = other.receipts.popleft()
        harness.know(receipt, 0, receipt.count)
    assert {tag for _, tag, _ in harness.reported()} == {2, 5, 6, 8, 11, 12}
    while harness.queue.receipts:
        receipt = harness.queue.receipts.popleft()
        harness.know(receipt, 0, receipt.count)
    assert harness.reported()[-1] == ("Ack", 10, True)


def test_an_answer_for_a_channel_that_is_gone_is_swallowed(harness: Harness) -> None:
    harness.client.confirm_select()
    receipt = harness.publish(b"m")
    harness.client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    harness.know(receipt, 0, 1)
    harness.client.expect_nothing()


def test_a_transaction_waits_until_all_is_taken(harness: Harness) -> None:
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.client.publish(b"1", b"2")
    harness.client.publish(b"3")
    assert not harness.queue.receipts
    harness.send(Tx.Commit())
    harness.client.expect_nothing()
    harness.know(harness.queue.receipts[0], 0, 2)
    harness.client.expect_nothing()
    harness.know(harness.queue.receipts[1], 0, 1)
    harness.client.expect(Tx.CommitOk)


def test_a_transaction_fails_if_anything_is_refused(harness: Harness) -> None:
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.client.publish(b"1", b"2")
    harness.send(Tx.Commit())
    harness.know(harness.queue.receipts[0], 0, 1, is_accepted=False)
    harness.know(harness.queue.receipts[0], 1, 2)
    harness.client.expect_channel_closed(406, "partial tx completion")


def test_a_publisher_is_not_read_while_a_queue_is_full(harness: Harness) -> None:
    harness.client.consume("amq.rabbitmq.reply-to", no_ack=True)  # consumers do not change that
    harness.queue.is_full = True
    harness.publish(b"1")
    assert not harness.client.transport.is_reading()
    harness.edge.advance(60)
    assert not harness.client.transport.is_reading()
    harness.queue.is_full = False
    for debtor in tuple(harness.queue.blocked_publishers):
        debtor.paid(harness.queue, 1)
    assert harness.client.transport.is_reading()
    assert not harness.queue.blocked_publishers


def test_a_full_queue_forgets_who_is_gone(harness: Harness) -> None:
    harness.queue.is_full = True
    harness.publish(b"1")
    harness.client.transport.lose()
    assert not harness.queue.blocked_publishers
