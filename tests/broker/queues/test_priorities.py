"""Priorities: the highest is served first, and in each first come is first served."""

from __future__ import annotations

import pytest

import fluffle.broker.queues.ready_list as ready_lists
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.priorities import first_of, level_of
from fluffle.broker.queues.priority_ready_lists import PriorityReadyLists
from fluffle.broker.queues.ready_list import ReadyList
from tests.broker.queues.make import PLAIN, MemorySpill
from tests.broker.queues.urgent import QUORUM, Urgent, up_to
from tests.support.asking import asking


def order_of(bench: Urgent) -> str:
    """In which order all that waits is handed out."""
    bench.consume("all")
    bench.pump()
    return bench.got("all")


def test_the_highest_is_first_and_each_in_order() -> None:
    bench = Urgent(up_to(9))
    for text, priority in [("a", 1), ("b", 5), ("c", 1), ("d", 9), ("e", 5)]:
        bench.enqueue(text, priority=priority)
    assert order_of(bench) == "dbeac"


@pytest.mark.parametrize(
    ("spec", "expected"), [(up_to(9), "dbeac"), (QUORUM, "dbeac"), (PLAIN, "abcde")]
)
def test_messages_of_several_priorities_may_come_together(spec: QueueSpec, expected: str) -> None:
    bench = Urgent(spec)
    bench.enqueue(*"abcde", priorities=[1, 5, 1, 9, 5])
    assert bench.queue.ready_count == 5
    assert order_of(bench) == expected


def test_without_a_priority_it_is_the_lowest_and_above_the_highest_it_is_that() -> None:
    bench = Urgent(up_to(5))
    for text, priority in [("a", None), ("b", 0), ("c", 255), ("d", 5), ("e", 1)]:
        bench.enqueue(text, priority=priority)
    assert order_of(bench) == "cdeab"


def test_a_queue_without_priorities_heeds_none() -> None:
    bench = Urgent(PLAIN)
    for text, priority in [("a", 1), ("b", 5), ("c", 3)]:
        bench.enqueue(text, priority=priority)
    assert isinstance(bench.queue._ready_list, ReadyList)
    assert order_of(bench) == "abc"


def test_one_with_0_as_its_highest_priority_has_1() -> None:
    bench = Urgent(up_to(0))
    for text, priority in [("a", None), ("b", 9), ("c", 0), ("d", 1)]:
        bench.enqueue(text, priority=priority)
    assert order_of(bench) == "bdac"


def test_a_quorum_queue_has_32_priorities_and_4_is_that_of_most() -> None:
    bench = Urgent(QUORUM)
    for text, priority in [("a", None), ("b", 4), ("c", 3), ("d", 5), ("e", 31), ("f", 255)]:
        bench.enqueue(text, priority=priority)
    assert order_of(bench) == "efdabc"


def test_what_has_no_time_to_live_is_gone_though_another_priority_comes_at_once() -> None:
    wanted = asking(dead_letter_exchange="dlx")
    bench = Urgent(QueueSpec("q", queue_type=QueueType.QUORUM, arguments=wanted))
    bench.enqueue("a", expiration_ms=0)
    bench.enqueue("b", priority=9)
    bench.pump()
    assert bench.expired == ["a"]
    assert order_of(bench) == "b"


def test_a_quorum_queue_has_one_lane_until_another_priority_comes() -> None:
    bench = Urgent(QUORUM)
    bench.enqueue("a", "b")
    bench.enqueue("c", priority=4)
    assert isinstance(bench.queue._ready_list, ReadyList)
    bench.enqueue("d", priority=0)
    assert isinstance(bench.queue._ready_list, PriorityReadyLists)
    assert order_of(bench) == "abcd"


def test_what_comes_back_to_a_classic_queue_goes_to_its_place() -> None:
    bench = Urgent(up_to(9))
    bench.enqueue("a", "b", priority=1)
    bench.enqueue("c", "d", priority=7)
    bench.consume("one", prefetch=3)
    held = bench.pump()
    assert bench.got("one") == "cda"
    for delivery_batch in reversed(held):
        bench.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.NACK_REQUEUED)
        assert level_of(delivery_batch.sequences[0]) in (1, 7)
    bench.queue.detach(bench.consumers["one"])
    assert order_of(bench) == "cdab"


def test_what_comes_back_to_a_quorum_queue_is_next_whatever_its_priority() -> None:
    bench = Urgent(QUORUM)
    bench.enqueue("a", "b", priority=1)
    bench.enqueue("c", "d", priority=7)
    bench.consume("one", prefetch=3)
    held = bench.pump()
    bench.queue.detach(bench.consumers["one"])
    for delivery_batch in reversed(held):
        bench.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.NACK_REQUEUED)
    assert order_of(bench) == "acdb"


def test_what_came_back_before_there_were_priorities_is_next() -> None:
    bench = Urgent(QUORUM)
    bench.enqueue("a", "b", "c")
    bench.consume("one", prefetch=2)
    (delivery_batch,) = bench.pump()
    bench.queue.settle(delivery_batch, 1, 2, Outcome.NACK_REQUEUED)
    bench.queue.detach(bench.consumers["one"])
    bench.enqueue("d", priority=9)
    assert order_of(bench) == "bdc"
    assert (bench.queue.ready_count, bench.queue.in_flight) == (0, 4)


def test_a_run_is_of_one_priority_and_dealt_out_in_turn() -> None:
    bench = Urgent(up_to(2))
    bench.enqueue("a", "b", priority=1)
    bench.enqueue("c", "d", "e", priority=2)
    bench.consume("one")
    bench.consume("two")
    for delivery_batch in bench.pump():
        assert len({*map(level_of, delivery_batch.sequences)}) == 1
    assert (bench.got("one"), bench.got("two")) == ("ceb", "da")


def test_get_and_purge() -> None:
    bench = Urgent(up_to(2))
    bench.enqueue("a", "b", priority=1)
    bench.enqueue("c", "d", priority=2)
    assert bench.queue.ready_count == 4
    bench.consume("one", prefetch=1)
    bench.pump()
    assert bench.queue.purge() == 3
    assert bench.queue.ready_count == 0
    bench.enqueue("e", priority=1)
    bench.enqueue("f", priority=2)
    assert order_of(bench) == "fe"


def test_messages_expire_in_front_of_each_priority() -> None:
    bench = Urgent(up_to(2, dead_letter_exchange="dlx"))
    bench.enqueue("a", priority=2, expiration_ms=500)
    bench.enqueue("b", priority=1, expiration_ms=50)
    bench.enqueue("c", priority=1, expiration_ms=900)
    bench.enqueue("d", priority=1, expiration_ms=50)
    bench.pump()
    bench.advance(49)
    assert bench.expired == []
    bench.advance(1)
    assert (bench.expired, bench.queue.ready_count) == (["b"], 3)
    bench.advance(450)
    assert bench.expired == ["b", "a"]
    bench.advance(400)
    assert (bench.expired, bench.queue.ready_count) == (["b", "a", "c", "d"], 0)
    assert bench.queue.due_ms is None


def test_without_time_to_live_it_is_for_whoever_has_room_now() -> None:
    bench = Urgent(up_to(2, dead_letter_exchange="dlx"))
    bench.consume("one", prefetch=1)
    bench.enqueue("a", priority=1, expiration_ms=0)
    bench.enqueue("b", priority=2, expiration_ms=0)
    bench.pump()
    assert (bench.got("one"), bench.expired) == ("b", ["a"])


def test_a_backlog_of_all_priorities_leaves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_lists, "SEGMENT_MESSAGES_MAX", 2)
    spill = MemorySpill()
    bench = Urgent(up_to(255), spill)
    for _ in range(6):
        for priority in range(0, 256, 17):
            bench.enqueue(f"{priority} ", priority=priority)
    spill.is_wanted = True
    bench.queue.shed()
    assert len(spill.held) > 16
    assert order_of(bench).split() == [
        f"{priority}" for priority in range(255, -1, -17) for _ in range(6)
    ]
    assert not any(held.contents for held in spill.held.values())


def test_numbers_of_lanes_do_not_meet() -> None:
    assert (first_of(0), first_of(255) < 1 << 62) == (1, True)
    assert [level_of(first_of(level)) for level in (0, 1, 255)] == [0, 1, 255]
