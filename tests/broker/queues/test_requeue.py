"""Messages that come back in the order in which they did, as in quorum queues."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import byte_count, requeue
from fluffle.broker.queues.delivery import FINAL, Outcome
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Damage, Unreadable
from fluffle.broker.queues.queue_context import Ports, Stores
from fluffle.broker.queues.ready_list import Lane
from fluffle.broker.queues.requeue import InOrder, Returned
from tests.broker.queues.make import ORIGIN, PLAIN, Bench, messages, numbered


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
            raise Unreadable(Damage("here", "it is missing"))
        sequences = sequences[: -(-bytes_max // self.message_bytes)]
        self.read.append(list(sequences))
        return [ORIGIN] * len(sequences), [b"%d" % number for number in sequences]


def on_disk(lane: Lane, sequences: Sequence[int], counts: Counts = NEW) -> None:
    lane.give_back(Returned([], [], sequences, counts=counts))


def in_full(contents: list[bytes]) -> list[int]:
    """What each counts."""
    return list(map(len, contents))


def drained(lane: Lane) -> list[list[bytes]]:
    runs = []
    while lane.count and (available := lane.available(1 << 20)):
        runs.append(lane.take(available).contents)
    return runs


def test_what_came_back_first_is_next() -> None:
    lane = Lane(returned=InOrder(Disk().fetch))
    lane.append([ORIGIN] * 4, numbered(1, 4), 4, 1)
    first, second, third = lane.take(1), lane.take(2), lane.take(1)
    for taken in (third, first, second):
        lane.give_back(Returned(taken.origins, taken.contents, taken.sequences))
    assert drained(lane) == [[b"4"], [b"1"], [b"2", b"3"]]


def test_what_is_on_disk_is_read_when_its_turn_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeue, "FETCH_MESSAGES_MAX", 2)
    disk = Disk()
    lane = Lane(returned=InOrder(disk.fetch))
    on_disk(lane, [7, 8, 12, 20, 21], Counts(3, 1))
    lane.give_back(Returned([ORIGIN], messages("behind"), [1]))
    assert (lane.count, disk.read) == (6, [])
    assert lane.available(1 << 20) == 2
    assert disk.read == [[7, 8]]
    taken = lane.take(1)
    assert (list(taken.sequences), taken.contents, taken.counts) == ([7], [b"7"], Counts(3, 1))
    assert drained(lane) == [[b"8"], [b"12", b"20"], [b"21"], [b"behind"]]
    assert lane.count == 0


def test_no_more_is_read_at_once_than_memory_has_room_for() -> None:
    disk = Disk()
    disk.message_bytes = 400_000
    lane = Lane(returned=InOrder(disk.fetch))
    on_disk(lane, range(1, 8))
    assert lane.available(1 << 20) == 3
    assert drained(lane) == [[b"1", b"2", b"3"], [b"4", b"5", b"6"], [b"7"]]
    assert disk.read == [[1, 2, 3], [4, 5, 6], [7]]


@settings(deadline=None)
@given(data=st.data(), are_taken=st.lists(st.booleans(), max_size=12))
def test_what_is_on_disk_is_weighed_by_and_by(data: st.DataObject, are_taken: list[bool]) -> None:
    disk = Disk()
    lane = Lane(returned=InOrder(disk.fetch))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requeue, "FETCH_MESSAGES_MAX", 4)
        patch.setattr(requeue, "FETCH_BYTES_MAX", 3)
        patch.setattr(byte_count, "RETURNED_WEIGHED_MAX", 3)
        first = 1
        for count in data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)):
            on_disk(lane, range(first, first + count))
            first += count
        lane.weigh_by(in_full)
        assert lane.scale is not None
        assert disk.read == []
        left = [b"%d" % number for number in range(1, first)]
        for is_taken in are_taken:
            if not is_taken:
                disk.read.clear()
                lane.scale.go_on()
                assert sum(map(len, disk.read)) <= 3
            elif lane.count:
                available = lane.available(1 << 20)
                taken = lane.take(data.draw(st.integers(1, available)))
                left = left[len(taken.contents) :]
            assert 0 <= lane.scale.sum.size_bytes <= sum(in_full(left))
        steps = 0
        while lane.scale.is_unsure:
            lane.scale.go_on()
            steps += 1
        assert steps <= first / 3 + 1
        assert lane.scale.sum.size_bytes == sum(in_full(left))
        drained(lane)
        assert lane.scale.sum.size_bytes == 0


def test_no_more_is_weighed_at_once_than_is_read_at_once() -> None:
    read: list[list[int]] = []

    def fetch(sequences: Sequence[int], bytes_max: int = 0) -> tuple[list[Origin], list[bytes]]:
        wanted = list(sequences[: -(-bytes_max // 400_000)])
        read.append(wanted)
        return [ORIGIN] * len(wanted), [bytes(400_000)] * len(wanted)

    lane = Lane(returned=InOrder(fetch))
    on_disk(lane, range(1, 5))
    on_disk(lane, range(5, 10))
    lane.weigh_by(in_full)
    assert lane.scale is not None
    for turn in ([9, 8, 7],), ([6, 5], [4]), ([3, 2, 1],):
        lane.scale.go_on()
        assert [read.pop(0) for _ in turn] == [*turn]
    assert (lane.scale.sum.size_bytes, lane.scale.is_unsure, read) == (3_600_000, False, [])


def test_damage_is_found_when_its_turn_has_come() -> None:
    disk = Disk()
    disk.damaged = 2
    lane = Lane(returned=InOrder(disk.fetch))
    on_disk(lane, [1])
    on_disk(lane, [2])
    assert lane.available(1) == 1
    lane.take(1)
    assert lane.available(1) == 0
    assert lane.damage == Damage("here", "it is missing")


def test_clear_forgets_what_is_on_disk() -> None:
    lane = Lane(returned=InOrder(Disk().fetch))
    on_disk(lane, range(1, 4))
    assert lane.clear() == 3
    assert lane.count == 0


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome not in FINAL])
def test_counts_of_what_comes_back(outcome: Outcome) -> None:
    bench = Bench()
    bench.queue = Queue(PLAIN, Ports(bench.touch), Stores(returned=InOrder(Disk().fetch)))
    bench.consume("c")
    bench.enqueue("a")
    failed = 0
    for acquired in range(3):
        (handout,) = bench.pump()
        assert handout.counts == Counts(acquired, failed)
        assert handout.redelivered == (acquired > 0)
        failed += outcome in (Outcome.REFUSED, Outcome.LOST)
        bench.queue.settle(handout, 0, 1, outcome)


def test_what_was_handed_out_before_it_was_in_memory_comes_back_as_that() -> None:
    """As after a change of leader: the next one knows who holds what, and has read nothing."""
    disk = Disk()
    bench = Bench()
    bench.queue = Queue(PLAIN, Ports(bench.touch), Stores(returned=InOrder(disk.fetch)))
    bench.consume("c")
    bench.enqueue("a")
    (handout,) = bench.pump()
    handout.origins, handout.contents = [], [b""]
    bench.queue.settle(handout, 0, 1, Outcome.RETURNED)
    (again,) = bench.pump()
    assert (again.contents, disk.read) == ([b"1"], [[1]])
