"""Priorities: the highest is served first, and in each first come is first served."""

from __future__ import annotations

import pytest

import fluffle.broker.queues.ready_list as ready_lists
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.priority_ready_list import PriorityReadyList, first_of, level_of
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.ready_list import ReadyList
from tests.broker.queues.priority_harness import QUORUM, PriorityHarness, up_to
from tests.broker.queues.queue_harness import PLAIN, MemorySpill
from tests.support.queue_arguments import queue_arguments


def order_of(harness: PriorityHarness) -> str:
    """In which order all that waits is handed out."""
    harness.consume("all")
    harness.pump()
    return harness.got("all")


def test_the_highest_is_first_and_each_in_order() -> None:
    harness = PriorityHarness(up_to(9))
    for text, priority in [("a", 1), ("b", 5), ("c", 1), ("d", 9), ("e", 5)]:
        harness.enqueue(text, priority=priority)
    assert order_of(harness) == "dbeac"


@pytest.mark.parametrize(
    ("spec", "expected"), [(up_to(9), "dbeac"), (QUORUM, "dbeac"), (PLAIN, "abcde")]
)
def test_messages_of_several_priorities_may_come_together(spec: QueueSpec, expected: str) -> None:
    harness = PriorityHarness(spec)
    harness.enqueue(*"abcde", priorities=[1, 5, 1, 9, 5])
    assert harness.queue.ready_count == 5
    assert order_of(harness) == expected


def test_without_a_priority_it_is_the_lowest_and_above_the_highest_it_is_that() -> None:
    harness = PriorityHarness(up_to(5))
    for text, priority in [("a", None), ("b", 0), ("c", 255), ("d", 5), ("e", 1)]:
        harness.enqueue(text, priority=priority)
    assert order_of(harness) == "cdeab"


def test_a_queue_without_priorities_heeds_none() -> None:
    harness = PriorityHarness(PLAIN)
    for text, priority in [("a", 1), ("b", 5), ("c", 3)]:
        harness.enqueue(text, priority=priority)
    assert isinstance(harness.queue._ready_list, ReadyList)
    assert order_of(harness) == "abc"


def test_one_with_0_as_its_highest_priority_has_1() -> None:
    harness = PriorityHarness(up_to(0))
    for text, priority in [("a", None), ("b", 9), ("c", 0), ("d", 1)]:
        harness.enqueue(text, priority=priority)
    assert order_of(harness) == "bdac"


def test_a_quorum_queue_has_32_priorities_and_4_is_that_of_most() -> None:
    harness = PriorityHarness(QUORUM)
    for text, priority in [("a", None), ("b", 4), ("c", 3), ("d", 5), ("e", 31), ("f", 255)]:
        harness.enqueue(text, priority=priority)
    assert order_of(harness) == "efdabc"


def test_what_has_no_time_to_live_is_gone_though_another_priority_comes_at_once() -> None:
    wanted = queue_arguments(dead_letter_exchange="dlx")
    harness = PriorityHarness(QueueSpec("q", queue_type=QueueType.QUORUM, arguments=wanted))
    harness.enqueue("a", expiration_ms=0)
    harness.enqueue("b", priority=9)
    harness.pump()
    assert harness.expired == ["a"]
    assert order_of(harness) == "b"


def test_a_quorum_queue_has_one_lane_until_another_priority_comes() -> None:
    harness = PriorityHarness(QUORUM)
    harness.enqueue("a", "b")
    harness.enqueue("c", priority=4)
    assert isinstance(harness.queue._ready_list, ReadyList)
    harness.enqueue("d", priority=0)
    assert isinstance(harness.queue._ready_list, PriorityReadyList)
    assert order_of(harness) == "abcd"


def test_what_comes_back_to_a_classic_queue_goes_to_its_place() -> None:
    harness = PriorityHarness(up_to(9))
    harness.enqueue("a", "b", priority=1)
    harness.enqueue("c", "d", priority=7)
    harness.consume("one", prefetch=3)
    held = harness.pump()
    assert harness.got("one") == "cda"
    for delivery_batch in reversed(held):
        harness.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.NACK_REQUEUED)
        assert level_of(delivery_batch.sequences[0]) in (1, 7)
    harness.queue.detach(harness.consumers["one"])
    assert order_of(harness) == "cdab"


def test_what_comes_back_to_a_quorum_queue_is_next_whatever_its_priority() -> None:
    harness = PriorityHarness(QUORUM)
    harness.enqueue("a", "b", priority=1)
    harness.enqueue("c", "d", priority=7)
    harness.consume("one", prefetch=3)
    held = harness.pump()
    harness.queue.detach(harness.consumers["one"])
    for delivery_batch in reversed(held):
        harness.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.NACK_REQUEUED)
    assert order_of(harness) == "acdb"


def test_what_came_back_before_there_were_priorities_is_next() -> None:
    harness = PriorityHarness(QUORUM)
    harness.enqueue("a", "b", "c")
    harness.consume("one", prefetch=2)
    (delivery_batch,) = harness.pump()
    harness.queue.settle(delivery_batch, 1, 2, Outcome.NACK_REQUEUED)
    harness.queue.detach(harness.consumers["one"])
    harness.enqueue("d", priority=9)
    assert order_of(harness) == "bdc"
    assert (harness.queue.ready_count, harness.queue.in_flight) == (0, 4)


def test_a_run_is_of_one_priority_and_dealt_out_in_turn() -> None:
    harness = PriorityHarness(up_to(2))
    harness.enqueue("a", "b", priority=1)
    harness.enqueue("c", "d", "e", priority=2)
    harness.consume("one")
    harness.consume("two")
    for delivery_batch in harness.pump():
        assert len({*map(level_of, delivery_batch.sequences)}) == 1
    assert (harness.got("one"), harness.got("two")) == ("ceb", "da")


def test_get_and_purge() -> None:
    harness = PriorityHarness(up_to(2))
    harness.enqueue("a", "b", priority=1)
    harness.enqueue("c", "d", priority=2)
    assert harness.queue.ready_count == 4
    harness.consume("one", prefetch=1)
    harness.pump()
    assert harness.queue.purge() == 3
    assert harness.queue.ready_count == 0
    harness.enqueue("e", priority=1)
    harness.enqueue("f", priority=2)
    assert order_of(harness) == "fe"


def test_messages_expire_in_front_of_each_priority() -> None:
    harness = PriorityHarness(up_to(2, dead_letter_exchange="dlx"))
    harness.enqueue("a", priority=2, expiration_ms=500)
    harness.enqueue("b", priority=1, expiration_ms=50)
    harness.enqueue("c", priority=1, expiration_ms=900)
    harness.enqueue("d", priority=1, expiration_ms=50)
    harness.pump()
    harness.advance(49)
    assert harness.expired == []
    harness.advance(1)
    assert (harness.expired, harness.queue.ready_count) == (["b"], 3)
    harness.advance(450)
    assert harness.expired == ["b", "a"]
    harness.advance(400)
    assert (harness.expired, harness.queue.ready_count) == (["b", "a", "c", "d"], 0)
    assert harness.queue.due_ms is None


def test_without_time_to_live_it_is_for_whoever_has_room_now() -> None:
    harness = PriorityHarness(up_to(2, dead_letter_exchange="dlx"))
    harness.consume("one", prefetch=1)
    harness.enqueue("a", priority=1, expiration_ms=0)
    harness.enqueue("b", priority=2, expiration_ms=0)
    harness.pump()
    assert (harness.got("one"), harness.expired) == ("b", ["a"])


def test_a_backlog_of_all_priorities_leaves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_lists, "SEGMENT_MESSAGES_MAX", 2)
    spill = MemorySpill()
    harness = PriorityHarness(up_to(255), spill)
    for _ in range(6):
        for priority in range(0, 256, 17):
            harness.enqueue(f"{priority} ", priority=priority)
    spill.is_wanted = True
    harness.queue.shed()
    assert len(spill.held) > 16
    assert order_of(harness).split() == [
        f"{priority}" for priority in range(255, -1, -17) for _ in range(6)
    ]
    assert not any(held.contents for held in spill.held.values())


def test_numbers_of_lanes_do_not_meet() -> None:
    assert (first_of(0), first_of(255) < 1 << 62) == (1, True)
    assert [level_of(first_of(level)) for level in (0, 1, 255)] == [0, 1, 255]
