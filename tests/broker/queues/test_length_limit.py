"""A backlog that is too much by now: it goes turn by turn, and does not grow meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import limits
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.conversion_buffer import ConversionHold
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.length_limit import DROPPED_BYTES_MAX, MESSAGE_COST_BYTES
from fluffle.broker.queues.queue_api import EnqueueResult, PartialResult
from fluffle.broker.queues.queue_context import QueueContext, QueueStores
from fluffle.broker.queues.quorum.holders import Getter
from fluffle.broker.queues.requeue import RequeueByReturn, RequeuedRun
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.protocol.properties import body_sizes, build_content
from tests.broker.queues.make import ORIGIN, Bench, MemorySpill, lane_of

CONTENT = build_content(b"\0\0", b"x")
BACKLOG = 30_000
TURN_MAX = DROPPED_BYTES_MAX // MESSAGE_COST_BYTES + 1024
"""So many messages go in one turn, and the rest of a stretch."""

BY_COUNT = QueueSettings(max_length=10)
BY_BYTES = QueueSettings(max_length_bytes=10)


def put(bench: Bench, count: int) -> None:
    """Messages that a limit counts as a byte each, a few at a time."""
    for first in range(0, count, 500):
        contents = [CONTENT] * min(500, count - first)
        bench.queue.enqueue([ORIGIN] * len(contents), contents, sum(map(len, contents)))


def fetch(sequences: Sequence[int], bytes_max: int = 0) -> tuple[list[Origin], list[bytes]]:
    """Whatever is asked for."""
    return [ORIGIN] * len(sequences), [CONTENT] * len(sequences)


def with_backlog() -> Bench:
    bench = Bench()
    put(bench, BACKLOG)
    bench.pump()
    return bench


def turn(bench: Bench) -> int:
    """One of the loop; how many messages are there no more."""
    before, bench.touched = bench.queue.ready_count, False
    assert not bench.queue.pump()
    return before - bench.queue.ready_count


@pytest.mark.parametrize("settings", [BY_COUNT, BY_BYTES])
def test_a_backlog_goes_turn_by_turn(settings: QueueSettings) -> None:
    bench = with_backlog()
    bench.queue.settings = settings
    gone = []
    while bench.touched:
        gone.append(turn(bench))
    assert bench.queue.ready_count == 10
    assert max(gone) <= TURN_MAX
    assert len(gone) <= 8


@pytest.mark.parametrize("settings", [BY_COUNT, BY_BYTES])
def test_it_does_not_grow_by_what_comes_meanwhile(settings: QueueSettings) -> None:
    bench = with_backlog()
    bench.queue.settings = settings
    while bench.queue._length_limit is not None and bench.queue._length_limit.may_be_passed:
        before = bench.queue.ready_count
        put(bench, 2 * TURN_MAX)
        assert bench.queue.ready_count <= before, "as many went"
        turn(bench)
    assert bench.queue.ready_count == 10
    put(bench, 1)
    assert bench.queue.ready_count == 10, "at once"


def test_little_that_came_back_at_a_time_goes_no_slower() -> None:
    bench = Bench()
    bench.consume("a")
    delivery_batches = []
    for _ in range(2_000):
        put(bench, 1)
        delivery_batches += bench.pump()
    bench.queue.detach(bench.consumers["a"])
    for delivery_batch in delivery_batches:
        bench.queue.settle(delivery_batch, 0, 1, Outcome.NACK_REQUEUED)
    bench.queue.settings = BY_COUNT
    assert (turn(bench), bench.touched) == (1_990, False)


@pytest.mark.parametrize("queue_type", [QueueType.CLASSIC, QueueType.QUORUM])
def test_what_fits_is_judged_once_while_it_is_not_known_how_much_waits(
    queue_type: QueueType,
) -> None:
    bench = Bench()
    disk = RequeueByReturn(fetch)
    spec = QueueSpec("q", queue_type=queue_type)
    bench.queue = Queue(spec, QueueContext(bench.touch), QueueStores(returned=disk))
    lane_of(bench.queue).give_back(RequeuedRun([], [], range(1, 301)))
    limit_bytes = 400 * (1 if queue_type is QueueType.CLASSIC else 3)
    bench.queue.settings = QueueSettings(
        max_length_bytes=limit_bytes, overflow=Overflow.REJECT_PUBLISH
    )
    contents = [CONTENT] * 500
    fate = bench.queue.enqueue([ORIGIN] * 500, contents, sum(map(len, contents)))
    assert isinstance(fate, PartialResult)
    taken = 500 - sum(stop - start for start, stop in fate.refused)
    assert bench.queue.ready_count == 300 + taken
    bench.pump()
    assert bench.queue.enqueue([ORIGIN], [CONTENT], len(CONTENT)) is EnqueueResult.REFUSED


@pytest.mark.parametrize("overflow", [Overflow.DROP_HEAD, Overflow.REJECT_PUBLISH])
def test_messages_are_weighed_once_they_might_be_too_many(
    overflow: Overflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[int] = []

    def sizes(contents: list[bytes]) -> Sequence[int]:
        weighed.append(len(contents))
        return body_sizes(contents)

    monkeypatch.setattr(limits, "body_sizes", sizes)
    bench = Bench()
    bench.consume("a", prefetch=20)
    far = 10 * len(CONTENT)
    bench.queue.settings = QueueSettings(max_length_bytes=far, overflow=overflow)
    for _ in range(2):
        put(bench, 10)
        for delivery_batch in bench.pump():
            bench.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.ACKED)
    bench.queue.detach(bench.consumers["a"])
    put(bench, 4)
    put(bench, 6)
    assert (bench.queue.ready_count, weighed) == (10, [])
    for _ in range(far):
        put(bench, 1)
        bench.pump()
    assert bench.queue.ready_count == far
    assert sum(weighed) >= far


@pytest.mark.parametrize("max_priority", [None, 9])
def test_a_backlog_is_weighed_before_it_leaves_memory_and_not_if_it_stays(
    max_priority: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[int] = []

    def sizes(contents: list[bytes]) -> Sequence[int]:
        weighed.append(len(contents))
        return body_sizes(contents)

    monkeypatch.setattr(limits, "body_sizes", sizes)
    bench, spill = Bench(), MemorySpill()
    spec = QueueSpec("q", max_priority=max_priority)
    bench.queue = Queue(spec, QueueContext(bench.touch), QueueStores(spill=spill))
    bench.queue.settings = QueueSettings(max_length_bytes=1 << 40)
    spill.is_wanted = False
    put(bench, BACKLOG)
    assert (weighed, spill.held) == ([], {})
    spill.is_wanted = True
    put(bench, BACKLOG)
    left = sum(len(held.contents) for held in spill.held.values())
    assert BACKLOG - 11 * 1024 < left <= sum(weighed) < 2 * BACKLOG
    scale = bench.queue._ready_list.scale
    assert scale is not None
    assert (scale.sum.size_bytes, sum(weighed)) == (2 * BACKLOG, 2 * BACKLOG)


def test_nothing_leaves_a_queue_that_somebody_changes_because_something_comes_back() -> None:
    bench = Bench()
    bench.queue.settings = QueueSettings(max_length=1)
    put(bench, 1)
    delivery_batch = bench.queue.get(Getter(bench.queue, no_ack=False))
    assert delivery_batch is not None
    bench.queue.pause = ConversionHold("q")
    put(bench, 1)
    bench.queue.settle(delivery_batch, 0, 1, Outcome.NACK_REQUEUED)
    assert bench.queue.ready_count == 2
    bench.queue.pause = None
    bench.pump()
    assert bench.queue.ready_count == 1
