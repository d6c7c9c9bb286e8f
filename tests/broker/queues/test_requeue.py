"""Messages that come back: in the order in which they did, or to their places."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import byte_count, requeue
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.journal import Damage, UnreadableMessages
from fluffle.broker.queues.queue_api import FINAL, Outcome
from fluffle.broker.queues.ready_list import ReadyList
from fluffle.broker.queues.requeue import (
    DelayedRetries,
    RequeueByPosition,
    RequeuedBatch,
    RequeueFifo,
)
from tests.broker.queues.queue_harness import ORIGIN, PLAIN, QueueHarness, messages, numbered
from tests.suite.seeds import seeds
from tests.support.queue_host import FakeQueueHost


class Disk:
    """Messages that are nowhere else, and which were read together."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []
        self.damaged = 0
        self.message_bytes = 1

    def fetch(
        self, sequences: Sequence[int], bytes_max: int = 1 << 62
    ) -> tuple[list[Origin], list[bytes]]:
        if self.damaged in sequences:
            raise UnreadableMessages(Damage("here", "it is missing"))
        sequences = sequences[: -(-bytes_max // self.message_bytes)]
        self.read.append(list(sequences))
        return [ORIGIN] * len(sequences), [b"%d" % number for number in sequences]


def on_disk(ready_list: ReadyList, sequences: Sequence[int], counts: Counts = NEW) -> None:
    ready_list.give_back(RequeuedBatch([], [], sequences, counts=counts))


def in_full(contents: list[bytes]) -> list[int]:
    """Sizes that messages count."""
    return list(map(len, contents))


def drained(ready_list: ReadyList) -> list[list[bytes]]:
    runs = []
    while ready_list.count and (available := ready_list.available(1 << 20)):
        runs.append(ready_list.take(available).contents)
    return runs


def test_what_came_back_first_is_next() -> None:
    ready_list = ReadyList(requeued=RequeueFifo(Disk().fetch))
    ready_list.append([ORIGIN] * 4, numbered(1, 4), 4, 1)
    first, second, third = ready_list.take(1), ready_list.take(2), ready_list.take(1)
    for taken in (third, first, second):
        ready_list.give_back(RequeuedBatch(taken.origins, taken.contents, taken.sequences))
    assert drained(ready_list) == [[b"4"], [b"1"], [b"2", b"3"]]


def test_what_is_on_disk_is_read_when_its_turn_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "FETCH_MESSAGES_MAX", 2)
    disk = Disk()
    ready_list = ReadyList(requeued=RequeueFifo(disk.fetch))
    on_disk(ready_list, [7, 8, 12, 20, 21], Counts(3, 1))
    ready_list.give_back(RequeuedBatch([ORIGIN], messages("behind"), [1]))
    assert (ready_list.count, disk.read) == (6, [])
    assert ready_list.available(1 << 20) == 2
    assert disk.read == [[7, 8]]
    taken = ready_list.take(1)
    assert (list(taken.sequences), taken.contents, taken.counts) == ([7], [b"7"], Counts(3, 1))
    assert drained(ready_list) == [[b"8"], [b"12", b"20"], [b"21"], [b"behind"]]
    assert ready_list.count == 0


def test_no_more_is_read_at_once_than_memory_has_room_for() -> None:
    disk = Disk()
    disk.message_bytes = 400_000
    ready_list = ReadyList(requeued=RequeueFifo(disk.fetch))
    on_disk(ready_list, range(1, 8))
    assert ready_list.available(1 << 20) == 3
    assert drained(ready_list) == [[b"1", b"2", b"3"], [b"4", b"5", b"6"], [b"7"]]
    assert disk.read == [[1, 2, 3], [4, 5, 6], [7]]


@settings(deadline=None)
@given(data=st.data(), are_taken=st.lists(st.booleans(), max_size=12))
def test_what_is_on_disk_is_weighed_by_and_by(data: st.DataObject, are_taken: list[bool]) -> None:
    disk = Disk()
    ready_list = ReadyList(requeued=RequeueFifo(disk.fetch))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requeue, "FETCH_MESSAGES_MAX", 4)
        patch.setattr(requeue, "FETCH_BYTES_MAX", 3)
        patch.setattr(byte_count, "REQUEUED_WEIGHED_MAX", 3)
        first = 1
        for count in data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)):
            on_disk(ready_list, range(first, first + count))
            first += count
        ready_list.count_bytes_by(in_full)
        assert ready_list.byte_count is not None
        assert disk.read == []
        left = [b"%d" % number for number in range(1, first)]
        for is_accepted in are_taken:
            if not is_accepted:
                disk.read.clear()
                ready_list.byte_count.go_on()
                assert sum(map(len, disk.read)) <= 3
            elif ready_list.count:
                available = ready_list.available(1 << 20)
                taken = ready_list.take(data.draw(st.integers(1, available)))
                left = left[len(taken.contents) :]
            assert 0 <= ready_list.byte_count.sum.size_bytes <= sum(in_full(left))
        steps = 0
        while ready_list.byte_count.is_unsure:
            ready_list.byte_count.go_on()
            steps += 1
        assert steps <= first / 3 + 1
        assert ready_list.byte_count.sum.size_bytes == sum(in_full(left))
        drained(ready_list)
        assert ready_list.byte_count.sum.size_bytes == 0


def test_no_more_is_weighed_at_once_than_is_read_at_once() -> None:
    read: list[list[int]] = []

    def fetch(sequences: Sequence[int], bytes_max: int = 0) -> tuple[list[Origin], list[bytes]]:
        wanted = list(sequences[: -(-bytes_max // 400_000)])
        read.append(wanted)
        return [ORIGIN] * len(wanted), [bytes(400_000)] * len(wanted)

    ready_list = ReadyList(requeued=RequeueFifo(fetch))
    on_disk(ready_list, range(1, 5))
    on_disk(ready_list, range(5, 10))
    ready_list.count_bytes_by(in_full)
    assert ready_list.byte_count is not None
    for turn in ([9, 8, 7],), ([6, 5], [4]), ([3, 2, 1],):
        ready_list.byte_count.go_on()
        assert [read.pop(0) for _ in turn] == [*turn]
    assert (ready_list.byte_count.sum.size_bytes, ready_list.byte_count.is_unsure, read) == (
        3_600_000,
        False,
        [],
    )


def test_damage_is_found_when_its_turn_has_come() -> None:
    disk = Disk()
    disk.damaged = 2
    ready_list = ReadyList(requeued=RequeueFifo(disk.fetch))
    on_disk(ready_list, [1])
    on_disk(ready_list, [2])
    assert ready_list.available(1) == 1
    ready_list.take(1)
    assert ready_list.available(1) == 0
    assert ready_list.damage == Damage("here", "it is missing")


def test_clear_forgets_what_is_on_disk() -> None:
    ready_list = ReadyList(requeued=RequeueFifo(Disk().fetch))
    on_disk(ready_list, range(1, 4))
    assert ready_list.clear() == 3
    assert ready_list.count == 0


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome not in FINAL])
def test_counts_of_what_comes_back(outcome: Outcome) -> None:
    harness = QueueHarness()
    harness.queue = Queue(
        PLAIN, FakeQueueHost(harness.touch), QueueStores(requeued=RequeueFifo(Disk().fetch))
    )
    harness.consume("c")
    harness.enqueue("a")
    failed = 0
    for acquired in range(3):
        (delivery_batch,) = harness.pump()
        assert delivery_batch.counts == Counts(acquired, failed)
        assert delivery_batch.redelivered == (acquired > 0)
        failed += outcome in (Outcome.REJECT_REQUEUED, Outcome.LOST)
        harness.queue.settle(delivery_batch, 0, 1, outcome)


def test_what_was_handed_out_before_it_was_in_memory_comes_back_as_that() -> None:
    """After a change of leader the next one knows the holders, and has read nothing."""
    disk = Disk()
    harness = QueueHarness()
    harness.queue = Queue(
        PLAIN, FakeQueueHost(harness.touch), QueueStores(requeued=RequeueFifo(disk.fetch))
    )
    harness.consume("c")
    harness.enqueue("a")
    (delivery_batch,) = harness.pump()
    delivery_batch.origins, delivery_batch.contents = [], [b""]
    harness.queue.settle(delivery_batch, 0, 1, Outcome.NACK_REQUEUED)
    (again,) = harness.pump()
    assert (again.contents, disk.read) == ([b"1"], [[1]])


class Waiting(NamedTuple):
    ready_at_ms: int
    number: int
    run: range
    counts: Counts
    expires_at_ms: int


@seeds(30)
def test_each_comes_back_once_at_its_time_as_it_was(seed: int) -> None:
    chance, now_ms, following = Random(seed), 0, 1
    matured, back = list[range](), list[RequeuedBatch]()
    delays, model = DelayedRetries(matured.extend), list[Waiting]()
    for number in range(80):
        if chance.random() < 0.5:
            run = range(following, following := following + chance.randint(1, 5))
            counts = Counts(number, chance.randrange(number + 1))
            waiting = Waiting(now_ms + chance.randint(1, 9), number, run, counts, 1_000 + number)
            model.append(waiting)
            expiries = array("Q", [waiting.expires_at_ms]) * len(run)
            delays.add(run, counts, waiting.ready_at_ms, expiries)
        elif chance.random() < 0.05:
            assert sorted(delays.clear(), key=lambda run: run[0]) == [each.run for each in model]
            model.clear()
        else:
            now_ms += chance.randint(0, 3)
            delays.mature(back.append, now_ms)
            due = sorted(each for each in model if each.ready_at_ms <= now_ms)
            model = [each for each in model if each.ready_at_ms > now_ms]
            assert matured == [each.run for each in due]
            assert [(each.sequences, each.counts) for each in back] == [
                (each.run, each.counts) for each in due
            ]
            for each, waited in zip(back, due, strict=True):
                assert each.expiries is not None
                assert [*each.expiries] == [waited.expires_at_ms] * len(waited.run)
            matured.clear()
            back.clear()
        assert delays.count == sum(len(each.run) for each in model)
        assert delays.due_ms == min((each.ready_at_ms for each in model), default=NEVER_MS)


@seeds(30)
def test_requeue_by_position_gives_the_oldest_first_whatever_came_back_when(seed: int) -> None:
    """A run never passes over an older message that came back in another."""
    chance = Random(seed)
    order, model, out = RequeueByPosition(), list[int](), list(range(1, 101))
    while out or model:
        if out and chance.random() < 0.4:
            back = sorted(chance.sample(out, min(len(out), chance.randint(1, 6))))
            out = [each for each in out if each not in back]
            order.add(RequeuedBatch([ORIGIN] * len(back), [b"%d" % each for each in back], back))
            model = sorted(model + back)
        elif model:
            available = order.available()
            assert 1 <= available <= len(model)
            run, start, stop = order.take(chance.randint(1, available + 2))
            taken, model = model[: stop - start], model[stop - start :]
            assert list(run.sequences[start:stop]) == taken
            assert run.contents[start:stop] == [b"%d" % each for each in taken]
            assert order.read_last(run, start, stop, 1) == run.contents[start:stop][::-1]
        skipped = chance.randint(0, len(model) + 1)
        assert drained_order(order.behind(skipped)) == model[skipped:]
        assert drained_order(order.behind(0)) == model, "it was only looked at"
    assert order.batches == []


def drained_order(order: RequeueByPosition) -> list[int]:
    """Numbers of all messages in an order, as they are taken."""
    numbers: list[int] = []
    while order.batches:
        run, start, stop = order.take(order.available())
        assert start < stop
        numbers += run.sequences[start:stop]
    return numbers


def test_requeue_by_position_forgets_all_and_takes_nothing_without_contents() -> None:
    order = RequeueByPosition()
    order.add(RequeuedBatch([ORIGIN], [b"1"], [1]))
    order.clear()
    assert order.batches == []
    with pytest.raises(AssertionError, match="without their contents"):
        order.add(RequeuedBatch([], [], [1]))
