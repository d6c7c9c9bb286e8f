"""A turn pumps what was touched, delivers, writes; what is touched meanwhile gets another turn."""

from collections.abc import Callable

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import UNLIMITED, Consumer, DeliveryBatch, SharedCredit
from fluffle.broker.queues.ready_list import SEGMENT_BYTES_MAX
from fluffle.broker.runtime.turn import LARGE_READ_BYTES, Turn
from tests.broker.queues.queue_harness import ORIGIN, FakeSink, messages
from tests.support.no_timeout import NoTimeoutSink
from tests.support.queue_host import FakeQueueHost


class Loop:
    """Keeps what was asked for, as an event loop does, until it is asked to go on."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def go_on(self) -> int:
        """Run what was asked for until now; how many callbacks that were."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
        return len(callbacks)


class Client(NoTimeoutSink):
    """A sink and an outlet in one: it notes, in order, what happens to it."""

    def __init__(self, turn: Turn, log: list[str]) -> None:
        self._turn = turn
        self._log = log
        self.wakes: list[Consumer] = []
        """Consumers to wake at the next flush."""
        self.left = UNLIMITED

    def room(self, consumer: Consumer) -> int:
        return self.left

    def reserve(self, delivery_batch: DeliveryBatch) -> None: ...

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        if delivery_batch.contents == [b"fails"]:
            raise RuntimeError("the delivery failed")
        self._log += [f"deliver {content.decode()}" for content in delivery_batch.contents]
        self._turn.touch_output_buffer(self)

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError("no queue is deleted here")

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""

    def flush(self) -> None:
        self._log.append("flush")
        wakes, self.wakes = self.wakes, []
        for consumer in wakes:
            self.left = UNLIMITED
            consumer.queue.wake(consumer)


class Broker:
    """A turn, a loop, and as many queues and clients as a test asks for."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.turn = Turn(self.loop.call_soon)
        self.log: list[str] = []

    def queue(self) -> Queue:
        return Queue(QueueSpec("q"), FakeQueueHost(self.turn.touch_queue))

    def client(self) -> Client:
        return Client(self.turn, self.log)

    def consume(self, queue: Queue, client: Client) -> Consumer:
        consumer = Consumer("c", queue, client, shared=SharedCredit())
        queue.attach(consumer)
        return consumer


@pytest.fixture
def broker() -> Broker:
    return Broker()


def enqueue(queue: Queue, *texts: str) -> None:
    queue.enqueue([ORIGIN] * len(texts), messages(*texts), 0)


def test_all_deliveries_come_before_one_write_each(broker: Broker) -> None:
    first, second, client = broker.queue(), broker.queue(), broker.client()
    for queue in (first, second):
        broker.consume(queue, client)
    for text in "ab":
        enqueue(first, text)
        enqueue(second, text.upper())
    assert broker.loop.go_on() == 1
    assert broker.log == ["deliver a", "deliver b", "deliver A", "deliver B", "flush"]


def test_a_turn_that_leaves_nothing_to_do_asks_for_no_other(broker: Broker) -> None:
    queue, client = broker.queue(), broker.client()
    broker.consume(queue, client)
    enqueue(queue, "a")
    broker.loop.go_on()
    assert broker.loop.callbacks == []
    broker.turn.touch_output_buffer(client)
    assert broker.loop.go_on() == 1
    assert broker.log == ["deliver a", "flush", "flush"]


def test_a_consumer_that_is_woken_by_a_write_is_served_in_the_next_turn(broker: Broker) -> None:
    queue, client = broker.queue(), broker.client()
    consumer = broker.consume(queue, client)
    client.left = 0
    enqueue(queue, "a")
    broker.loop.go_on()
    assert consumer.parked
    client.wakes.append(consumer)
    broker.turn.touch_output_buffer(client)
    assert broker.loop.go_on() == 1
    assert broker.log == ["flush"]
    assert broker.loop.go_on() == 1
    assert broker.log == ["flush", "deliver a", "flush"]


def test_a_queue_that_is_touched_while_it_is_pumped_is_pumped_again(broker: Broker) -> None:
    queue, answers = broker.queue(), broker.queue()

    class Echo(Client):
        def deliver(self, delivery_batch: DeliveryBatch) -> None:
            super().deliver(delivery_batch)
            if delivery_batch.contents == [b"ask"]:
                enqueue(answers, "answer")

    broker.consume(queue, Echo(broker.turn, broker.log))
    broker.consume(answers, broker.client())
    enqueue(queue, "ask")
    broker.loop.go_on()
    assert broker.log == ["deliver ask", "flush"]
    assert broker.loop.go_on() == 1
    assert broker.log == ["deliver ask", "flush", "deliver answer", "flush"]


def test_a_delivery_that_fails_harms_no_other(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    failing, other, client = broker.queue(), broker.queue(), broker.client()
    for queue in (failing, other):
        broker.consume(queue, client)
    enqueue(failing, "fails")
    failing.enqueue([ORIGIN], [b"behind"], SEGMENT_BYTES_MAX)  # a segment of its own
    enqueue(other, "other")
    assert broker.loop.go_on() == 1
    assert broker.log == ["deliver behind", "deliver other", "flush"]
    assert broker.loop.callbacks == []
    assert caplog.messages == ["a delivery from queue 'q' failed"]


def test_a_queue_that_fails_waits_until_it_is_touched_again(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    failing, other, client = broker.queue(), broker.queue(), broker.client()
    consumer = broker.consume(failing, client)
    broker.consume(other, client)
    consumer.sink = BrokenSink()
    enqueue(failing, "a")
    enqueue(other, "other")
    assert broker.loop.go_on() == 1
    assert broker.log == ["deliver other", "flush"]
    assert broker.loop.callbacks == []
    assert caplog.messages == ["queue 'q' failed to hand out its messages"]
    consumer.sink = client
    enqueue(failing, "b")
    broker.loop.go_on()
    assert broker.log[2:] == ["deliver a", "deliver b", "flush"]


class BrokenSink(FakeSink):
    def room(self, consumer: Consumer) -> int:
        raise RuntimeError("a bug")


def test_an_outlet_that_fails_harms_no_other(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenOutlet:
        def flush(self) -> None:
            raise RuntimeError("a bug")

    broker.turn.touch_output_buffer(BrokenOutlet())
    broker.turn.touch_output_buffer(broker.client())
    assert broker.loop.go_on() == 1
    assert broker.log == ["flush"]
    assert broker.loop.callbacks == []
    assert caplog.messages == ["a connection failed to write"]


def test_what_cannot_be_recorded_ends_the_node() -> None:
    """Else it would take messages, and forget them, and never say a word to anybody."""
    loop, fatal = Loop(), list[Exception]()
    turn = Turn(loop.call_soon, fatal.append)
    failure = ValueError("an index does not rise")

    def record() -> None:
        raise failure

    turn.begin_commit = record
    turn.touch_commit()
    loop.go_on()
    assert fatal == [failure]


def test_what_is_to_be_recorded_while_something_is_gets_another_turn(broker: Broker) -> None:
    recorded: list[str] = []

    def record() -> None:
        recorded.append("once more")
        if len(recorded) == 1:
            broker.turn.touch_commit()

    broker.turn.begin_commit = record
    broker.turn.touch_commit()
    assert (broker.loop.go_on(), broker.loop.go_on(), broker.loop.go_on()) == (1, 1, 0)
    assert len(recorded) == 2


def test_consensus_has_its_turn_before_what_it_writes_is_recorded(broker: Broker) -> None:
    done: list[str] = []

    def consensus() -> None:
        done.append("consensus")
        broker.turn.touch_commit()
        if len(done) < 3:
            broker.turn.touch_consensus()

    broker.turn.consensus = consensus
    broker.turn.begin_commit = lambda: done.append("record")
    broker.turn.touch_commit()
    broker.turn.touch_consensus()
    assert (broker.loop.go_on(), broker.loop.go_on(), broker.loop.go_on()) == (1, 1, 0)
    assert done == ["consensus", "record"] * 2


def test_consensus_that_fails_ends_the_node() -> None:
    loop, fatal = Loop(), list[Exception]()
    turn = Turn(loop.call_soon, fatal.append)
    failure = ValueError("a log that does not fit")

    def consensus() -> None:
        raise failure

    turn.consensus = consensus
    assert turn.begin()
    turn.touch_consensus()
    turn.end()
    assert fatal == [failure]


def test_what_goes_through_a_log_waits_for_the_rest_of_a_large_batch(broker: Broker) -> None:
    turns: list[str] = []
    broker.turn.consensus = lambda: turns.append("turn")
    for _read in range(3):
        begun = broker.turn.begin()
        broker.turn.touch_consensus()
        if begun:
            broker.turn.end(LARGE_READ_BYTES)
    assert not turns
    assert (broker.loop.go_on(), turns) == (1, ["turn"])


def test_what_goes_through_none_does_not_wait(broker: Broker) -> None:
    turns: list[str] = []
    broker.turn.begin_commit = lambda: turns.append("turn")
    assert broker.turn.begin()
    broker.turn.touch_commit()
    broker.turn.end(LARGE_READ_BYTES)
    assert (broker.loop.go_on(), turns) == (0, ["turn"])
