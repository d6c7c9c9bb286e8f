"""How much a consumer of this node may be sent by a leader elsewhere."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queues.session_consumers import (
    PREFETCH_BYTES,
    WINDOW_BYTES,
    WINDOW_FIRST,
    WINDOW_MAX,
    ConsumerSlot,
    SessionConsumer,
)
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, SharedCredit
from tests.support.no_timeout import NoTimeoutSink
from tests.support.queue_host import FakeQueueHost


class Socket(NoTimeoutSink):
    """A `Sink` that is full or not."""

    def __init__(self) -> None:
        self.is_full = False

    def room(self, consumer: Consumer) -> int:
        del consumer
        return 0 if self.is_full else 1

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """Ignore reservations: there is room or not, whatever comes."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""


class Scene:
    """Harness with one consumer."""

    def __init__(self, prefetch: int = 0, shared: int = 0, *, no_ack: bool = False) -> None:
        self.socket = Socket()
        credit = SharedCredit()
        credit.limit = shared
        queue = Queue(QueueSpec("q"), FakeQueueHost())
        self.consumer = Consumer(
            "c", queue, self.socket, shared=credit, prefetch=prefetch, no_ack=no_ack
        )
        self.taker = SessionConsumer(self.consumer, ConsumerSlot(), limit=WINDOW_FIRST)

    def limit(self) -> int:
        """Credit limit that the leader knows by now."""
        wanted = self.taker.wanted()
        if wanted is not None:
            self.taker.limit = wanted
        return self.taker.limit

    def deliver(self, count: int, size_bytes: int = 10) -> None:
        contents = [bytes(size_bytes)] * count
        origins = [Origin("", "q")] * count
        delivery_batch = DeliveryBatch(
            self.consumer, origins, contents, range(count), redelivered=False
        )
        self.consumer.took(delivery_batch)
        self.taker.measure(delivery_batch)


def test_a_prefetch_is_the_limit_and_is_reported_once() -> None:
    scene = Scene(prefetch=7)
    assert scene.limit() == 7
    for _ in range(7):
        scene.deliver(1)
        assert scene.taker.wanted() is None


def test_without_one_there_is_always_some_more_on_the_way() -> None:
    scene = Scene()
    reported = 0
    for _ in range(1000):
        before = scene.taker.limit
        in_hands = scene.consumer.in_flight
        reported += scene.limit() != before
        assert WINDOW_FIRST // 2 <= scene.taker.limit - in_hands <= 2 * WINDOW_MAX
        scene.deliver(50)
    assert reported < 100


@pytest.mark.parametrize("size_bytes", [10_000, 100_000, 1_000_000])
@pytest.mark.parametrize(("prefetch", "way_bytes"), [(0, WINDOW_BYTES), (60_000, PREFETCH_BYTES)])
def test_large_messages_make_it_few(size_bytes: int, prefetch: int, way_bytes: int) -> None:
    scene = Scene(prefetch)
    scene.deliver(1, size_bytes)
    on_way_bytes = (scene.limit() - 1) * size_bytes
    assert way_bytes / 2 <= on_way_bytes <= 2 * way_bytes


def test_one_message_is_on_its_way_however_large_it_is() -> None:
    scene = Scene()
    scene.deliver(1, 4 * WINDOW_BYTES)
    assert scene.limit() == 2


def test_a_socket_that_is_full_stops_it_and_one_that_drains_lets_it_go_on() -> None:
    scene = Scene()
    scene.deliver(10)
    scene.socket.is_full = True
    assert scene.limit() == 10
    assert scene.consumer.parked
    scene.consumer.in_flight = 4
    assert scene.limit() == 4
    scene.socket.is_full = False
    assert scene.limit() > 10
    assert not scene.consumer.parked


def test_who_acknowledges_nothing_has_a_window_alone() -> None:
    scene = Scene(prefetch=5, no_ack=True)
    scene.deliver(1_000)
    assert scene.limit() == WINDOW_MAX
    scene.socket.is_full = True
    assert scene.limit() == 0


@pytest.mark.parametrize(("prefetch", "shared", "limit"), [(0, 3, 3), (5, 3, 3), (2, 3, 2)])
def test_a_limit_that_others_share_is_its_own(prefetch: int, shared: int, limit: int) -> None:
    assert Scene(prefetch, shared).limit() == limit
