"""The passages of one queue, without a broker."""

from __future__ import annotations

import tracemalloc

from fluffle.broker.testing.message_traces import OpenTraces, Passage


def passage(number: int) -> Passage:
    return Passage("orders", b"", exchange="", routing_key="orders", key=number, number=number)


def test_what_comes_back_is_in_front_in_its_order() -> None:
    course = OpenTraces()
    course.wait([passage(1), passage(2)])
    course.wait([passage(3), passage(4)], in_front=True)
    assert [each.number for each in course.ready] == [3, 4, 1, 2]


def test_one_more_costs_no_more_where_many_wait() -> None:
    course = OpenTraces()
    course.wait([passage(number) for number in range(9_000)])
    tracemalloc.start()
    try:
        course.wait([])
        course.wait([passage(9_000)])
        course.wait([passage(9_001)], in_front=True)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 10_000
