"""How much is in a queue: exactly in memory, about that on disk, and what is held."""

from __future__ import annotations

import pytest

from fluffle.broker.queues import volume
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import Consumer, SharedCredit
from fluffle.broker.queues.delivery import DeliveryBatch, Outcome
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.segment import SegmentLocation
from fluffle.broker.queues.volume import (
    KeptDead,
    ReadyCounts,
    Volume,
    VolumeMeter,
    head_timestamp,
    ready_counts,
)
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.broker.queues.queue_harness import ORIGIN, FakeSink
from tests.support.queue_host import FakeQueueHost


def content(size_bytes: int, **properties: int) -> bytes:
    return build_content(encode_properties(Properties(**properties)), bytes(size_bytes))  # type: ignore[arg-type]


def queue_of(*contents: bytes) -> Queue:
    queue = Queue(QueueSpec("q"), FakeQueueHost())
    put(queue, *contents)
    return queue


def put(queue: Queue, *contents: bytes) -> None:
    if contents:
        queue.enqueue([ORIGIN] * len(contents), [*contents], sum(map(len, contents)))


def taken(queue: Queue, prefetch: int) -> list[DeliveryBatch]:
    shared = SharedCredit()
    queue.attach(Consumer("c", queue, FakeSink(), shared=shared, prefetch=prefetch))
    return queue.pump()


def of(count: int, size_bytes: int) -> Volume:
    """All of it in memory, and in no log."""
    return Volume(count, size_bytes, count, size_bytes)


def test_what_is_in_memory_is_measured_to_the_byte() -> None:
    assert VolumeMeter().ready(queue_of().shelf) == of(0, 0)
    queue = queue_of(content(100, priority=1), content(1), content(0), content(7, timestamp=9))
    assert VolumeMeter().ready(queue.shelf) == of(4, 108)


def test_ready_messages_of_a_quorum_queue_are_told_apart_by_priority_and_return() -> None:
    queue = Queue(QueueSpec("q", queue_type=QueueType.QUORUM), FakeQueueHost())
    assert ready_counts(queue.shelf, 0) == ReadyCounts(0, 0, 0)
    put(queue, content(1), content(1))
    (run,) = taken(queue, 2)
    for consumer in queue.consumers:
        queue.detach(consumer)
    queue.settle(run, 1, 2, Outcome.NACK_REQUEUED)
    for priority in (0, 4, 5, 5, 31, 255):
        put(queue, content(1, priority=priority))
    assert ready_counts(queue.shelf, queue.ready_count) == ReadyCounts(4, 2, 1)


def test_what_is_dead_and_kept_is_estimated_by_what_lies_beside_it() -> None:
    kept, size_bytes = KeptDead(3, 3 * 130), len(content(100)) - 100
    assert VolumeMeter().dead(KeptDead()) == Volume()
    assert VolumeMeter().dead(kept) == Volume(3, 300, 0, 0, 3, 300)
    beside = VolumeMeter()
    beside.ready(queue_of(content(100)).shelf)
    assert beside.dead(KeptDead(2, 2 * (7 + size_bytes))) == Volume(2, 14, 0, 0, 2, 14)


def test_what_somebody_has_in_hands_is_not_ready_and_comes_back() -> None:
    queue = queue_of(*(content(size) for size in (1, 10, 100, 1_000)))
    (run,) = taken(queue, 3)
    assert VolumeMeter().ready(queue.shelf) == of(1, 1_000)
    assert VolumeMeter().held([run], is_persistent=False) == of(3, 111)
    run.settle(1, 2)
    queue.settle(run, 1, 2, Outcome.ACKED)
    assert VolumeMeter().held([run], is_persistent=True) == Volume(2, 101, 2, 101, 2, 101)
    for consumer in queue.consumers:
        queue.detach(consumer)
    run.settle(0, 1)
    queue.settle(run, 0, 1, Outcome.NACK_REQUEUED)
    assert VolumeMeter().ready(queue.shelf) == of(2, 1_001)


def test_what_was_forgotten_on_its_way_is_taken_for_as_long_as_the_mean() -> None:
    queue = queue_of(*[content(50)] * 4)
    (run,) = taken(queue, 3)
    for _ in range(2):
        run.forget()
        assert VolumeMeter().held([run], is_persistent=True) == Volume(3, 150, 0, 0, 3, 150)


def test_what_is_on_disk_is_estimated() -> None:
    queue = queue_of(*[content(30)] * 1_024)
    put(queue, content(30))
    (stock,) = queue.shelf.stocks
    first, *_ = stock.segments
    known = VolumeMeter()
    known.ready(queue_of(content(1)).shelf)
    first.place, first.contents = SegmentLocation.DISK, []
    assert known.ready(queue.shelf) == Volume(1_025, 1_025 * 30, 1, 30)


def test_no_more_than_so_many_are_measured_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counting(contents: list[bytes]) -> list[int]:
        nonlocal looked_at
        looked_at += len(contents)
        return [30] * len(contents)

    monkeypatch.setattr(volume, "body_sizes", counting)
    queue = queue_of()
    for _ in range(20):
        put(queue, *[content(30)] * 1_000)
    assert VolumeMeter().ready(queue.shelf) == of(20_000, 600_000)
    assert looked_at <= volume.EXACT_MAX


@pytest.mark.parametrize(
    ("contents", "timestamp"),
    [((), None), ((content(1),), None), ((content(1, timestamp=7), content(1, timestamp=8)), 7)],
)
def test_the_time_of_the_next_message(contents: tuple[bytes, ...], timestamp: int | None) -> None:
    assert head_timestamp(queue_of(*contents).shelf) == timestamp


def test_the_time_of_what_is_on_disk_is_not_known() -> None:
    queue = queue_of(content(1, timestamp=7))
    (stock,) = queue.shelf.stocks
    (segment,) = stock.segments
    segment.place, segment.contents = SegmentLocation.DISK, []
    assert head_timestamp(queue.shelf) is None
