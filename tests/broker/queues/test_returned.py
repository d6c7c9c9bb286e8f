"""Messages that come back in the order in which they did, as in quorum queues."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fluffle.broker.message import Origin
from fluffle.broker.queues import returned
from fluffle.broker.queues.counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import FINAL, Outcome
from fluffle.broker.queues.journal import Damage, Unreadable
from fluffle.broker.queues.lane import Lane
from fluffle.broker.queues.returned import InOrder
from tests.broker.queues.make import ORIGIN, Bench, messages, numbered


class Disk:
    """Messages that are nowhere else, and which were read together."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []
        self.damaged = 0

    def fetch(self, sequences: Sequence[int]) -> tuple[list[Origin], list[bytes]]:
        if self.damaged in sequences:
            raise Unreadable(Damage("here", "it is missing"))
        self.read.append(list(sequences))
        return [ORIGIN] * len(sequences), [b"%d" % number for number in sequences]


def on_disk(lane: Lane, sequences: Sequence[int], counts: Counts = NEW) -> None:
    lane.give_back([], [], sequences, counts=counts)


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
        lane.give_back(taken.origins, taken.contents, taken.sequences)
    assert drained(lane) == [[b"4"], [b"1"], [b"2", b"3"]]


def test_what_is_on_disk_is_read_when_its_turn_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returned, "FETCH_MESSAGES_MAX", 2)
    disk = Disk()
    lane = Lane(returned=InOrder(disk.fetch))
    on_disk(lane, [7, 8, 12, 20, 21], Counts(3, 1))
    lane.give_back([ORIGIN], messages("behind"), [1])
    assert (lane.count, disk.read) == (6, [])
    assert lane.available(1 << 20) == 2
    assert disk.read == [[7, 8]]
    taken = lane.take(1)
    assert (list(taken.sequences), taken.contents, taken.counts) == ([7], [b"7"], Counts(3, 1))
    assert drained(lane) == [[b"8"], [b"12", b"20"], [b"21"], [b"behind"]]
    assert lane.count == 0


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
    bench.queue = Queue(bench.queue.spec, touch=bench.touch, returned=InOrder(Disk().fetch))
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
    bench.queue = Queue(bench.queue.spec, touch=bench.touch, returned=InOrder(disk.fetch))
    bench.consume("c")
    bench.enqueue("a")
    (handout,) = bench.pump()
    handout.origins, handout.contents = [], [b""]
    bench.queue.settle(handout, 0, 1, Outcome.RETURNED)
    (again,) = bench.pump()
    assert (again.contents, disk.read) == ([b"1"], [[1]])
