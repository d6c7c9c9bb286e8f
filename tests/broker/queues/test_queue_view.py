"""Looking at messages: what is seen, that nothing changes by it, and that it has bounds.

That it is right wherever messages lie is in the journal's model.
"""

from __future__ import annotations

import pytest

from fluffle.broker.queues import queue_view
from fluffle.broker.queues.consumers import Consumer, SharedCredit
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import PeekRequest, PeekResult
from fluffle.broker.queues.queue_view import ReadyView, peek
from fluffle.broker.queues.ready_list import ReadyList
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
        self.shelf = ReadyView(ready_list.stocks)


def test_damage_ends_what_is_seen_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(b"3")
    ready_list = spilled(monkeypatch, spill)
    found = [message.content for message in queue_view.messages_from(ready_list.stocks, 3)]
    assert found == [b"4", b"5"], "what is left out need not be readable"
    assert peek(Shelved(ready_list), PeekRequest(2, 9, 9)) == ([], "over there: it is missing")
    assert ready_list.damage is None, "nobody has come upon it who is handed anything"
    assert list(spill.held) == [2, 3, 4, 5]
