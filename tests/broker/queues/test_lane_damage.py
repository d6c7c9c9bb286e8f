"""A lane of which a part has left memory and cannot be read back."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import ready_list as lanes
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import Damage, Spilled, Unreadable
from fluffle.broker.queues.ready_list import Lane
from fluffle.broker.queues.requeue import Returned
from fluffle.protocol.properties import body_of
from tests.broker.queues.make import ORIGIN, MemorySpill
from tests.broker.queues.urgent import Urgent, up_to

DAMAGE = Damage("over there", "it is missing")


class Progress:
    """A disk that has everything at once."""

    ticket = durable = 1


class Spill:
    """Holds what was written, and has lost some of it."""

    is_wanted = True
    is_behind = False

    def __init__(self, *lost: bytes) -> None:
        self._lost = lost
        self.commits = Progress()
        self.held: dict[int, Spilled] = {}

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        index = int(contents[0])
        self.held[index] = Spilled(origins, contents, expiries)
        return index

    def read(self, index: int) -> Spilled:
        if self.held[index].contents[0] in self._lost:
            raise Unreadable(DAMAGE)
        return self.held[index]

    def forget(self, index: int) -> None:
        del self.held[index]


def spilled(monkeypatch: pytest.MonkeyPatch, spill: Spill) -> Lane:
    """Messages 1 to 5, a segment each, all but the first spilled."""
    monkeypatch.setattr(lanes, "SEGMENT_MESSAGES_MAX", 1)
    lane = Lane(None, spill)
    for number in range(1, 6):
        lane.append([ORIGIN], [b"%d" % number], 1, number)
    assert lane.shed()
    assert list(spill.held) == [2, 3, 4, 5]
    return lane


def taken(lane: Lane) -> list[bytes]:
    """All that can be taken."""
    contents: list[bytes] = []
    while lane.count and lane.available(1000):
        contents += lane.take(1).contents
    return contents


def test_what_was_spilled_and_is_lost_stops_the_lane_until_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spill = Spill(b"3", b"4")
    lane = spilled(monkeypatch, spill)
    assert taken(lane) == [b"1", b"2"]
    assert (lane.damage, lane.count, list(spill.held)) == (DAMAGE, 3, [3, 4, 5])
    assert lane.drop_damaged() == 1
    assert (taken(lane), lane.damage, list(spill.held)) == ([], DAMAGE, [4, 5])
    assert lane.drop_damaged() == 1
    assert (taken(lane), lane.damage, lane.count, spill.held) == ([b"5"], None, 0, {})


def test_what_comes_back_is_served_before_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = spilled(monkeypatch, Spill(b"2"))
    assert taken(lane) == [b"1"]
    lane.give_back(Returned([ORIGIN], [b"1"], [1]))
    assert taken(lane) == [b"1"]
    assert lane.damage == DAMAGE


def test_clearing_is_possible_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(b"2")
    lane = spilled(monkeypatch, spill)
    assert taken(lane) == [b"1"]
    assert (lane.clear(), lane.damage, spill.held) == (4, None, {})


class Losing(MemorySpill):
    """A disk that has lost one message."""

    def read(self, index: int) -> Spilled:
        found = super().read(index)
        if body_of(found.contents[0]) == b"lost":
            raise Unreadable(DAMAGE)
        return found


def test_a_priority_of_which_all_that_is_left_is_damaged_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "SEGMENT_MESSAGES_MAX", 1)
    bench = Urgent(up_to(9), Losing())
    for text, priority in (("a", 9), ("lost", 9), ("b", 1), ("c", 1)):
        bench.enqueue(text, priority=priority)
    bench.queue.shed()
    bench.consume("one")
    bench.pump()
    assert (bench.got("one"), bench.queue.damage, bench.queue.ready_count) == ("a", DAMAGE, 3)
    assert (bench.queue.drop_damaged(), bench.queue.damage) == (1, None)
    bench.touched = True
    bench.pump()
    assert (bench.got("one"), bench.queue.ready_count) == ("abc", 0)
