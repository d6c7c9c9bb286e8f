"""Looking at messages: what is seen, that nothing changes by it, and that it has bounds.

That it is right wherever messages lie is in the journal's model.
"""

from __future__ import annotations

import pytest

from fluffle.broker.queues import queue_view
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    Outcome,
    PeekRequest,
    PeekResult,
    SharedCredit,
)
from fluffle.broker.queues.queue_view import (
    KeptDead,
    MessageMeter,
    MessageTotals,
    ReadyCounts,
    ReadyView,
    head_timestamp,
    peek,
    ready_counts,
)
from fluffle.broker.queues.ready_list import ReadyList
from fluffle.broker.queues.segment import SegmentLocation
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.broker.queues.queue_harness import ORIGIN, PLAIN, FakeSink
from tests.broker.queues.test_ready_list_damage import Spill, spilled
from tests.support.queue_host import FakeQueueHost

RAW = encode_properties(Properties(priority=3))


def queue_of(*bodies: bytes) -> Queue:
    queue = Queue(PLAIN, FakeQueueHost())
    contents = [build_content(RAW, body) for body in bodies]
    queue.enqueue([ORIGIN] * len(contents), contents, sum(map(len, contents)))
    return queue


def consumer_of(queue: Queue, prefetch: int) -> Consumer:
    consumer = Consumer("c", queue, FakeSink(), shared=SharedCredit(), prefetch=prefetch)
    queue.attach(consumer)
    return consumer


def bodies(peeked: PeekResult) -> list[bytes]:
    return [seen.body for seen in peeked.seen]


def test_a_message_is_shown_as_it_lies_there() -> None:
    (seen,) = queue_of(b"hello").peek(PeekRequest(0, 1, 4)).seen
    assert seen == ("ex", "key", RAW, b"hell", 5, False, 0, 0, NEVER_MS)


def test_by_position_and_no_more_than_wanted() -> None:
    queue = queue_of(b"0", b"1", b"2", b"3")
    assert bodies(queue.peek(PeekRequest(1, 2, 9))) == [b"1", b"2"]
    assert bodies(queue.peek(PeekRequest(3, 2, 9))) == [b"3"]
    assert queue.peek(PeekRequest(4, 2, 9)) == PeekResult([])


def test_what_came_back_is_seen_in_front_with_its_counts_and_keeps_them() -> None:
    queue = queue_of(b"0", b"1", b"2", b"3")
    consumer_of(queue, prefetch=3)
    (delivery_batch,) = queue.pump()
    assert bodies(queue.peek(PeekRequest(0, 9, 9))) == [b"3"], "what is in hands is not ready"
    for at, outcome in ((2, Outcome.NACK_REQUEUED), (0, Outcome.LOST)):
        queue.settle(delivery_batch, at, at + 1, outcome)
    for _ in range(2):
        seen = queue.peek(PeekRequest(0, 9, 9)).seen
        assert [(each.body, each.redelivered, each.acquired, each.failed) for each in seen] == [
            (b"0", True, 1, 1),
            (b"2", True, 1, 0),
            (b"3", False, 0, 0),
        ]
    assert bodies(queue.peek(PeekRequest(1, 1, 9))) == [b"2"]
    first, *_others = queue.pump()
    assert (list(first.sequences), first.redelivered, first.counts) == ([1], True, (1, 1))


def test_what_is_shown_and_looked_at_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message that goes beyond one is the last, so that there is always one."""
    queue = queue_of(b"x" * 100, b"x" * 100, b"x" * 100)
    monkeypatch.setattr(queue_view, "SHOWN_BYTES_MAX", 150)
    assert len(queue.peek(PeekRequest(0, 3, 100)).seen) == 2
    assert len(queue.peek(PeekRequest(0, 3, 0)).seen) == 3
    monkeypatch.setattr(queue_view, "LOOKED_AT_BYTES_MAX", 1)
    assert len(queue.peek(PeekRequest(0, 3, 0)).seen) == 1


class Shelved:
    def __init__(self, ready_list: ReadyList) -> None:
        self.ready_view = ReadyView(ready_list.stocks)


def test_damage_ends_what_is_seen_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(b"3")
    ready_list = spilled(monkeypatch, spill)
    found = [message.content for message in queue_view.messages_from(ready_list.stocks, 3)]
    assert found == [b"4", b"5"], "what is left out need not be readable"
    assert peek(Shelved(ready_list), PeekRequest(2, 9, 9)) == ([], "over there: it is missing")
    assert ready_list.damage is None, "nobody has come upon it who is handed anything"
    assert list(spill.held) == [2, 3, 4, 5]


def content(size_bytes: int, **properties: int) -> bytes:
    return build_content(encode_properties(Properties(**properties)), bytes(size_bytes))  # type: ignore[arg-type]


def queue_with(*contents: bytes) -> Queue:
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


def of(count: int, size_bytes: int) -> MessageTotals:
    """All of it in memory, and in no log."""
    return MessageTotals(count, size_bytes, count, size_bytes)


def test_what_is_in_memory_is_measured_to_the_byte() -> None:
    assert MessageMeter().ready(queue_with().ready_view) == of(0, 0)
    queue = queue_with(content(100, priority=1), content(1), content(0), content(7, timestamp=9))
    assert MessageMeter().ready(queue.ready_view) == of(4, 108)


def test_ready_messages_of_a_quorum_queue_are_distinguished_by_priority_and_return() -> None:
    queue = Queue(QueueSpec("q", queue_type=QueueType.QUORUM), FakeQueueHost())
    assert ready_counts(queue.ready_view, 0) == ReadyCounts(0, 0, 0)
    put(queue, content(1), content(1))
    (run,) = taken(queue, 2)
    for consumer in queue.consumers:
        queue.detach(consumer)
    queue.settle(run, 1, 2, Outcome.NACK_REQUEUED)
    for priority in (0, 4, 5, 5, 31, 255):
        put(queue, content(1, priority=priority))
    assert ready_counts(queue.ready_view, queue.ready_count) == ReadyCounts(4, 2, 1)


def test_what_is_dead_and_kept_is_estimated_by_what_lies_beside_it() -> None:
    kept, size_bytes = KeptDead(3, 3 * 130), len(content(100)) - 100
    assert MessageMeter().dead(KeptDead()) == MessageTotals()
    assert MessageMeter().dead(kept) == MessageTotals(3, 300, 0, 0, 3, 300)
    beside = MessageMeter()
    beside.ready(queue_with(content(100)).ready_view)
    assert beside.dead(KeptDead(2, 2 * (7 + size_bytes))) == MessageTotals(2, 14, 0, 0, 2, 14)


def test_what_somebody_has_in_hands_is_not_ready_and_comes_back() -> None:
    queue = queue_with(*(content(size) for size in (1, 10, 100, 1_000)))
    (run,) = taken(queue, 3)
    assert MessageMeter().ready(queue.ready_view) == of(1, 1_000)
    assert MessageMeter().held([run], is_persistent=False) == of(3, 111)
    run.settle(1, 2)
    queue.settle(run, 1, 2, Outcome.ACKED)
    assert MessageMeter().held([run], is_persistent=True) == MessageTotals(2, 101, 2, 101, 2, 101)
    for consumer in queue.consumers:
        queue.detach(consumer)
    run.settle(0, 1)
    queue.settle(run, 0, 1, Outcome.NACK_REQUEUED)
    assert MessageMeter().ready(queue.ready_view) == of(2, 1_001)


def test_what_was_forgotten_on_its_way_is_taken_for_as_long_as_the_mean() -> None:
    queue = queue_with(*[content(50)] * 4)
    (run,) = taken(queue, 3)
    for _ in range(2):
        run.forget()
        assert MessageMeter().held([run], is_persistent=True) == MessageTotals(3, 150, 0, 0, 3, 150)


def test_what_is_on_disk_is_estimated() -> None:
    queue = queue_with(*[content(30)] * 1_024)
    put(queue, content(30))
    (stock,) = queue.ready_view.stocks
    first, *_ = stock.segments
    known = MessageMeter()
    known.ready(queue_with(content(1)).ready_view)
    first.place, first.contents = SegmentLocation.DISK, []
    assert known.ready(queue.ready_view) == MessageTotals(1_025, 1_025 * 30, 1, 30)


def test_no_more_than_so_many_are_measured_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counting(contents: list[bytes]) -> list[int]:
        nonlocal looked_at
        looked_at += len(contents)
        return [30] * len(contents)

    monkeypatch.setattr(queue_view, "body_sizes", counting)
    queue = queue_with()
    for _ in range(20):
        put(queue, *[content(30)] * 1_000)
    assert MessageMeter().ready(queue.ready_view) == of(20_000, 600_000)
    assert looked_at <= queue_view.EXACT_MAX


@pytest.mark.parametrize(
    ("contents", "timestamp"),
    [((), None), ((content(1),), None), ((content(1, timestamp=7), content(1, timestamp=8)), 7)],
)
def test_the_time_of_the_next_message(contents: tuple[bytes, ...], timestamp: int | None) -> None:
    assert head_timestamp(queue_with(*contents).ready_view) == timestamp


def test_the_time_of_what_is_on_disk_is_not_known() -> None:
    queue = queue_with(content(1, timestamp=7))
    (stock,) = queue.ready_view.stocks
    (segment,) = stock.segments
    segment.place, segment.contents = SegmentLocation.DISK, []
    assert head_timestamp(queue.ready_view) is None
