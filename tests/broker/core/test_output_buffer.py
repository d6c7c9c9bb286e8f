"""Output buffer: a write each turn, no more deliveries than a burst, and consumers woken when there
is room."""

from itertools import pairwise

import pytest

from fluffle.broker.core.output_buffer import (
    BURST_BYTES,
    JOIN_BYTES_MAX,
    MESSAGE_BYTES_MIN,
    OutputBuffer,
    burst_bytes,
)
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, SharedCredit
from tests.broker.queues.queue_harness import QueueHarness
from tests.support.no_timeout import NoTimeoutSink

MESSAGES_MAX = BURST_BYTES // MESSAGE_BYTES_MIN


class Socket:
    """Notes what is written; may fill up while it is being written to."""

    def __init__(self) -> None:
        self.writes: list[bytes | list[bytes]] = []
        self.fills_up: OutputBuffer | None = None
        self.is_broken = False

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise RuntimeError("the handler is closed")
        self.writes.append(data)
        if self.fills_up is not None:
            self.fills_up.is_draining = True

    def writelines(self, list_of_data: list[bytes]) -> None:
        self.writes.append(list(list_of_data))


class OutletSink(NoTimeoutSink):
    """A client's end as the broker has it: room is that of the connection's outlet."""

    def __init__(self, output: OutputBuffer) -> None:
        self._output = output
        self.got = 0

    def room(self, consumer: Consumer) -> int:
        return self._output.room(consumer)

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self._output.reserve(burst_bytes(delivery_batch))

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self.got += len(delivery_batch.contents)
        self._output.pieces += delivery_batch.contents
        self._output.sent(burst_bytes(delivery_batch))

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError("no queue is deleted here")

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""


class Scene:
    """A queue, an outlet and a consumer between them."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.touches = 0
        self.output = OutputBuffer(self.socket, touch=self.touch)
        self.sink = OutletSink(self.output)
        self.bench = QueueHarness()
        self.queue = self.bench.queue
        self.consumer = Consumer("c", self.queue, self.sink, shared=self.bench.shared)
        self.queue.attach(self.consumer)

    def touch(self, output: OutputBuffer) -> None:
        assert output is self.output
        self.touches += 1


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_was_collected_is_written_at_once_and_once(scene: Scene) -> None:
    for frame in (b"a", b"b", b"c"):
        scene.output.add(frame)
    assert (scene.socket.writes, scene.touches) == ([], 3)
    scene.output.flush()
    scene.output.flush()
    assert scene.socket.writes == [b"abc"]


def test_very_much_is_not_joined(scene: Scene) -> None:
    large = b"x" * (JOIN_BYTES_MAX // 2)
    for _ in range(2):
        scene.output.pieces.append(large)
        scene.output.reserve(len(large))
        scene.output.sent(len(large))
    scene.output.flush()
    scene.output.add(b"small")
    scene.output.flush()
    assert scene.socket.writes == [[large, large], b"small"]


def test_what_is_written_is_counted(scene: Scene) -> None:
    counts = []
    for frames in ((), (b"a",), (b"bc", b"d")):
        for frame in frames:
            scene.output.add(frame)
        scene.output.flush()
        counts.append((scene.output.writes, scene.output.written_bytes))
    assert counts == [(0, 0), (1, 1), (2, 4)]


def test_a_backlog_leaves_in_bursts_of_one_a_turn(scene: Scene) -> None:
    message = "x" * (BURST_BYTES // 4)
    scene.bench.enqueue(*[message] * 10)
    seen = []
    while scene.bench.touched:
        scene.bench.pump()
        seen.append(scene.sink.got)
        assert scene.consumer.parked == (scene.queue.ready_count > 0)
        scene.output.flush()
    assert seen == [6, 10]


def test_a_burst_of_messages_however_small_takes_its_time(scene: Scene) -> None:
    for _ in range(10):
        scene.bench.enqueue(*["x"] * 1_000)
    seen = [0]
    while scene.bench.touched:
        scene.bench.pump()
        seen.append(scene.sink.got)
        scene.output.flush()
    assert seen[-1] == 10_000
    assert max(after - before for before, after in pairwise(seen)) == MESSAGES_MAX


def test_consumers_of_one_connection_share_a_burst_of_messages(scene: Scene) -> None:
    for number in range(9):
        scene.queue.attach(Consumer(str(number), scene.queue, scene.sink, shared=SharedCredit()))
    for _ in range(10):
        scene.bench.enqueue(*["x"] * 1_000)
    scene.bench.pump()
    assert MESSAGES_MAX <= scene.sink.got < MESSAGES_MAX + 1_024


def test_what_is_handed_out_uses_up_the_burst_until_it_is_written(scene: Scene) -> None:
    """However long it takes until it may be sent."""
    scene.bench.enqueue("x" * BURST_BYTES)
    (delivery_batch,) = scene.queue.pump()
    scene.bench.enqueue("b")
    scene.output.flush()
    assert scene.queue.pump() == []
    scene.sink.deliver(delivery_batch)
    assert scene.queue.pump() == []
    scene.output.flush()
    (delivery_batch,) = scene.queue.pump()
    assert delivery_batch.contents == [b"b"]


def test_what_was_handed_out_and_will_not_come_makes_room(scene: Scene) -> None:
    scene.bench.enqueue("x" * BURST_BYTES)
    (delivery_batch,) = scene.queue.pump()
    scene.bench.enqueue("b")
    assert scene.queue.pump() == []
    scene.output.unreserve(burst_bytes(delivery_batch))
    assert scene.touches == 1
    scene.output.flush()
    assert [delivery_batch.contents for delivery_batch in scene.queue.pump()] == [[b"b"]]


def test_what_a_socket_refuses_is_not_tried_again(scene: Scene) -> None:
    scene.output.add(b"a")
    scene.socket.is_broken = True
    with pytest.raises(RuntimeError):
        scene.output.flush()
    scene.output.flush()


def test_nothing_is_handed_to_a_full_socket_until_it_drains(scene: Scene) -> None:
    scene.output.is_draining = True
    scene.bench.enqueue("a")
    scene.bench.pump()
    scene.output.flush()
    assert (scene.sink.got, scene.consumer.parked, scene.bench.touched) == (0, True, False)
    scene.output.drained()
    scene.bench.pump()
    assert scene.sink.got == 1


def test_a_socket_that_fills_up_during_the_write_wakes_nobody(scene: Scene) -> None:
    scene.bench.enqueue("x" * BURST_BYTES, "b")
    scene.socket.fills_up = scene.output
    scene.bench.pump()
    scene.output.flush()
    assert (scene.sink.got, scene.bench.touched) == (1, False)
    scene.socket.fills_up = None
    scene.output.drained()
    scene.bench.pump()
    assert scene.sink.got == 2


def test_replies_pass_while_the_socket_drains(scene: Scene) -> None:
    scene.output.is_draining = True
    scene.output.add(b"reply")
    scene.output.flush()
    assert scene.socket.writes == [b"reply"]


def test_a_consumer_that_is_gone_is_not_woken(scene: Scene) -> None:
    scene.output.is_draining = True
    scene.bench.enqueue("a")
    scene.bench.pump()
    scene.output.forget(scene.consumer)
    scene.queue.detach(scene.consumer)
    scene.output.drained()
    assert (scene.queue.consumer_count, scene.bench.touched) == (0, False)
    assert scene.output.room(scene.consumer) == MESSAGES_MAX


def test_a_consumer_that_was_woken_otherwise_is_left_alone(scene: Scene) -> None:
    scene.output.is_draining = True
    scene.bench.enqueue("a")
    scene.bench.pump()
    scene.queue.wake(scene.consumer)
    scene.output.drained()
    assert scene.queue.consumer_count == 1


def test_what_was_collected_for_a_lost_socket_is_forgotten(scene: Scene) -> None:
    scene.output.add(b"a")
    scene.output.discard()
    scene.output.flush()
    assert scene.socket.writes == []


def test_what_was_written_makes_room_though_something_newer_is_held(scene: Scene) -> None:
    """On some connections one channel or another always waits for a commit."""
    scene.output.hold(1)
    scene.bench.enqueue("x" * BURST_BYTES, "b")
    scene.bench.pump()
    scene.output.hold(2)
    scene.output.add(b"reply")
    scene.output.flush()
    scene.bench.pump()
    assert (scene.sink.got, scene.socket.writes) == (1, [])
    scene.output.on_durable(1)
    scene.output.flush()
    scene.bench.pump()
    assert (scene.sink.got, len(scene.socket.writes)) == (2, 1)
    scene.output.on_durable(2)
    scene.output.flush()
    assert scene.socket.writes[1:] == [b"replyb"]
    assert scene.output.sent_bytes == 0
