"""A backlog that is too much by now: it goes turn by turn, and does not grow meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import length_limit
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.conversion_buffer import ConversionHold
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.length_limit import DROPPED_BYTES_MAX, MESSAGE_COST_BYTES
from fluffle.broker.queues.publish_target import EnqueueResult, PartialResult
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.holders import RemoteGetter
from fluffle.broker.queues.requeue import RequeuedBatch, RequeueFifo
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.protocol.properties import body_sizes, build_content
from tests.broker.queues.queue_harness import (
    ORIGIN,
    PLAIN,
    MemorySpill,
    QueueHarness,
    lane_of,
    messages,
)
from tests.support.queue_host import FakeQueueHost

CONTENT = build_content(b"\0\0", b"x")
BACKLOG = 30_000
TURN_MAX = DROPPED_BYTES_MAX // MESSAGE_COST_BYTES + 1024
"""Most messages dropped in one turn, and the rest of a segment."""

BY_COUNT = QueueSettings(max_length=10)
BY_BYTES = QueueSettings(max_length_bytes=10)


def put(harness: QueueHarness, count: int) -> None:
    """Messages that a limit counts as a byte each, a few at a time."""
    for first in range(0, count, 500):
        contents = [CONTENT] * min(500, count - first)
        harness.queue.enqueue([ORIGIN] * len(contents), contents, sum(map(len, contents)))


def fetch(sequences: Sequence[int], bytes_max: int = 0) -> tuple[list[Origin], list[bytes]]:
    """Whatever is asked for."""
    return [ORIGIN] * len(sequences), [CONTENT] * len(sequences)


def with_backlog() -> QueueHarness:
    harness = QueueHarness()
    put(harness, BACKLOG)
    harness.pump()
    return harness


def turn(harness: QueueHarness) -> int:
    """Run one turn; returns how many messages were removed."""
    before, harness.touched = harness.queue.ready_count, False
    assert not harness.queue.pump()
    return before - harness.queue.ready_count


@pytest.mark.parametrize("settings", [BY_COUNT, BY_BYTES])
def test_a_backlog_goes_turn_by_turn(settings: QueueSettings) -> None:
    harness = with_backlog()
    harness.queue.settings = settings
    gone = []
    while harness.touched:
        gone.append(turn(harness))
    assert harness.queue.ready_count == 10
    assert max(gone) <= TURN_MAX
    assert len(gone) <= 8


@pytest.mark.parametrize("settings", [BY_COUNT, BY_BYTES])
def test_it_does_not_grow_by_what_comes_meanwhile(settings: QueueSettings) -> None:
    harness = with_backlog()
    harness.queue.settings = settings
    while harness.queue._length_limit is not None and harness.queue._length_limit.may_be_passed:
        before = harness.queue.ready_count
        put(harness, 2 * TURN_MAX)
        assert harness.queue.ready_count <= before, "as many went"
        turn(harness)
    assert harness.queue.ready_count == 10
    put(harness, 1)
    assert harness.queue.ready_count == 10, "at once"


def test_little_that_came_back_at_a_time_goes_no_slower() -> None:
    harness = QueueHarness()
    harness.consume("a")
    delivery_batches = []
    for _ in range(2_000):
        put(harness, 1)
        delivery_batches += harness.pump()
    harness.queue.detach(harness.consumers["a"])
    for delivery_batch in delivery_batches:
        harness.queue.settle(delivery_batch, 0, 1, Outcome.NACK_REQUEUED)
    harness.queue.settings = BY_COUNT
    assert (turn(harness), harness.touched) == (1_990, False)


class Mortal:
    """A queue of at most one message, and its dead letters."""

    def __init__(self) -> None:
        self.harness = QueueHarness()
        self.dead: list[bytes] = []
        host = FakeQueueHost(self.harness.touch, dead_letter=self.on_dead)
        self.queue = self.harness.queue = Queue(PLAIN, host)

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings) == ("q", self.queue.settings)
        self.dead += dead.contents

    def limit(self) -> None:
        self.queue.settings = QueueSettings(max_length=1, dead_letter_exchange="dlx")


def test_of_all_that_comes_back_the_oldest_dies_first() -> None:
    """Two consumers of a client that is gone have been served in turn."""
    mortal = Mortal()
    for tag in "ab":
        mortal.harness.consume(tag)
    mortal.harness.enqueue(*"012345")
    runs = mortal.harness.pump()
    for consumer in mortal.harness.consumers.values():
        mortal.queue.detach(consumer)
    mortal.limit()
    for run in runs:
        mortal.queue.settle(run, 0, len(run.contents), Outcome.LOST)
    mortal.harness.pump()
    assert len(runs) == 2
    assert (mortal.dead, mortal.queue.ready_count) == (messages(*"01234"), 1)


def test_what_comes_back_one_after_another_dies_one_after_another() -> None:
    """However many settlements come in one turn: the queue is at its limit after each."""
    mortal = Mortal()
    mortal.harness.enqueue(*"01")
    older, newer = (mortal.queue.get(RemoteGetter(mortal.queue, no_ack=False)) for _ in range(2))
    assert older is not None
    assert newer is not None
    mortal.limit()
    mortal.harness.enqueue("2")
    for run in (newer, older):
        mortal.queue.deliver_ready()
        mortal.queue.settle(run, 0, 1, Outcome.NACK_REQUEUED)
    mortal.harness.pump()
    assert (mortal.dead, mortal.queue.ready_count) == (messages(*"10"), 1)


def test_what_comes_back_dies_before_a_publish_behind_it_is_in() -> None:
    mortal = Mortal()
    mortal.limit()
    mortal.harness.consume("a", prefetch=1)
    mortal.harness.enqueue("0")
    [run] = mortal.harness.pump()
    mortal.harness.enqueue("1")
    mortal.harness.pump()
    mortal.queue.settle(run, 0, 1, Outcome.NACK_REQUEUED)
    mortal.harness.enqueue("2")
    mortal.harness.pump()
    assert mortal.harness.got("a") == "01"
    assert (mortal.dead, mortal.queue.ready_count) == ([b"0"], 1)


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.NACK_REQUEUED])
def test_who_asks_next_does_not_find_what_comes_back_and_is_too_much(outcome: Outcome) -> None:
    mortal = Mortal()
    mortal.limit()
    mortal.harness.enqueue("0")
    run = mortal.queue.get(RemoteGetter(mortal.queue, no_ack=False))
    assert run is not None
    mortal.harness.enqueue("1")
    mortal.queue.settle(run, 0, 1, outcome)
    assert mortal.queue.queue_counts_in_use.ready == 1
    assert mortal.dead == [b"0"]
    assert mortal.queue.purge() == 1


@pytest.mark.parametrize("queue_type", [QueueType.CLASSIC, QueueType.QUORUM])
def test_what_fits_is_judged_once_while_it_is_not_known_how_much_waits(
    queue_type: QueueType,
) -> None:
    harness = QueueHarness()
    disk = RequeueFifo(fetch)
    spec = QueueSpec("q", queue_type=queue_type)
    harness.queue = Queue(spec, FakeQueueHost(harness.touch), QueueStores(requeued=disk))
    lane_of(harness.queue).give_back(RequeuedBatch([], [], range(1, 301)))
    limit_bytes = 400 * (1 if queue_type is QueueType.CLASSIC else 3)
    harness.queue.settings = QueueSettings(
        max_length_bytes=limit_bytes, overflow=Overflow.REJECT_PUBLISH
    )
    contents = [CONTENT] * 500
    result = harness.queue.enqueue([ORIGIN] * 500, contents, sum(map(len, contents)))
    assert isinstance(result, PartialResult)
    taken = 500 - sum(stop - start for start, stop in result.rejected)
    assert harness.queue.ready_count == 300 + taken
    harness.pump()
    assert harness.queue.enqueue([ORIGIN], [CONTENT], len(CONTENT)) is EnqueueResult.REJECTED


@pytest.mark.parametrize("overflow", [Overflow.DROP_HEAD, Overflow.REJECT_PUBLISH])
def test_messages_are_weighed_once_they_might_be_too_many(
    overflow: Overflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[int] = []

    def sizes(contents: list[bytes]) -> Sequence[int]:
        weighed.append(len(contents))
        return body_sizes(contents)

    monkeypatch.setattr(length_limit, "body_sizes", sizes)
    harness = QueueHarness()
    harness.consume("a", prefetch=20)
    far = 10 * len(CONTENT)
    harness.queue.settings = QueueSettings(max_length_bytes=far, overflow=overflow)
    for _ in range(2):
        put(harness, 10)
        for delivery_batch in harness.pump():
            harness.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.ACKED)
    harness.queue.detach(harness.consumers["a"])
    put(harness, 4)
    put(harness, 6)
    assert (harness.queue.ready_count, weighed) == (10, [])
    for _ in range(far):
        put(harness, 1)
        harness.pump()
    assert harness.queue.ready_count == far
    assert sum(weighed) >= far


@pytest.mark.parametrize("max_priority", [None, 9])
def test_a_backlog_is_weighed_before_it_leaves_memory_and_not_if_it_stays(
    max_priority: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[int] = []

    def sizes(contents: list[bytes]) -> Sequence[int]:
        weighed.append(len(contents))
        return body_sizes(contents)

    monkeypatch.setattr(length_limit, "body_sizes", sizes)
    harness, spill = QueueHarness(), MemorySpill()
    spec = QueueSpec("q", max_priority=max_priority)
    harness.queue = Queue(spec, FakeQueueHost(harness.touch), QueueStores(spill=spill))
    harness.queue.settings = QueueSettings(max_length_bytes=1 << 40)
    spill.is_wanted = False
    put(harness, BACKLOG)
    assert (weighed, spill.held) == ([], {})
    spill.is_wanted = True
    put(harness, BACKLOG)
    left = sum(len(held.contents) for held in spill.held.values())
    assert BACKLOG - 11 * 1024 < left <= sum(weighed) < 2 * BACKLOG
    byte_count = harness.queue._ready_list.byte_count
    assert byte_count is not None
    assert (byte_count.sum.size_bytes, sum(weighed)) == (2 * BACKLOG, 2 * BACKLOG)


def test_nothing_leaves_a_queue_that_somebody_changes_because_something_comes_back() -> None:
    harness = QueueHarness()
    harness.queue.settings = QueueSettings(max_length=1)
    put(harness, 1)
    delivery_batch = harness.queue.get(RemoteGetter(harness.queue, no_ack=False))
    assert delivery_batch is not None
    harness.queue.pause = ConversionHold("q")
    put(harness, 1)
    harness.queue.settle(delivery_batch, 0, 1, Outcome.NACK_REQUEUED)
    assert harness.queue.ready_count == 2
    harness.queue.pause = None
    harness.pump()
    assert harness.queue.ready_count == 1
