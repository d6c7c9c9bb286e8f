"""A lane of which a part has left memory and cannot be read back."""

from __future__ import annotations

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.queues import ready_list as ready_lists
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import Damage, PagedOutMessages, UnreadableMessages
from fluffle.broker.queues.ready_list import ReadyList
from fluffle.broker.queues.requeue import RequeuedBatch
from fluffle.protocol.properties import body_of
from tests.broker.queues.priority_harness import PriorityHarness, up_to
from tests.broker.queues.queue_harness import ORIGIN, MemorySpill

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
        self.held: dict[int, PagedOutMessages] = {}

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        index = int(contents[0])
        self.held[index] = PagedOutMessages(origins, contents, expiries)
        return index

    def read(self, index: int) -> PagedOutMessages:
        if self.held[index].contents[0] in self._lost:
            raise UnreadableMessages(DAMAGE)
        return self.held[index]

    def forget(self, index: int) -> None:
        del self.held[index]


def spilled(monkeypatch: pytest.MonkeyPatch, spill: Spill) -> ReadyList:
    """Messages 1 to 5, a segment each, all but the first spilled."""
    monkeypatch.setattr(ready_lists, "SEGMENT_MESSAGES_MAX", 1)
    ready_list = ReadyList(None, spill)
    for number in range(1, 6):
        ready_list.append([ORIGIN], [b"%d" % number], 1, number)
    assert ready_list.shed()
    assert list(spill.held) == [2, 3, 4, 5]
    return ready_list


def taken(ready_list: ReadyList) -> list[bytes]:
    """All that can be taken."""
    contents: list[bytes] = []
    while ready_list.count and ready_list.available(1000):
        contents += ready_list.take(1).contents
    return contents


def test_what_was_spilled_and_is_lost_stops_the_lane_until_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spill = Spill(b"3", b"4")
    ready_list = spilled(monkeypatch, spill)
    assert taken(ready_list) == [b"1", b"2"]
    assert (ready_list.damage, ready_list.count, list(spill.held)) == (DAMAGE, 3, [3, 4, 5])
    assert ready_list.drop_damaged() == 1
    assert (taken(ready_list), ready_list.damage, list(spill.held)) == ([], DAMAGE, [4, 5])
    assert ready_list.drop_damaged() == 1
    assert (taken(ready_list), ready_list.damage, ready_list.count, spill.held) == (
        [b"5"],
        None,
        0,
        {},
    )


def test_what_comes_back_is_served_before_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    ready_list = spilled(monkeypatch, Spill(b"2"))
    assert taken(ready_list) == [b"1"]
    ready_list.give_back(RequeuedBatch([ORIGIN], [b"1"], [1]))
    assert taken(ready_list) == [b"1"]
    assert ready_list.damage == DAMAGE


def test_clearing_is_possible_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(b"2")
    ready_list = spilled(monkeypatch, spill)
    assert taken(ready_list) == [b"1"]
    assert (ready_list.clear(), ready_list.damage, spill.held) == (4, None, {})


class Losing(MemorySpill):
    """A disk that has lost one message."""

    def read(self, index: int) -> PagedOutMessages:
        found = super().read(index)
        if body_of(found.contents[0]) == b"lost":
            raise UnreadableMessages(DAMAGE)
        return found


def test_a_priority_of_which_all_that_is_left_is_damaged_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ready_lists, "SEGMENT_MESSAGES_MAX", 1)
    harness = PriorityHarness(up_to(9), Losing())
    for text, priority in (("a", 9), ("lost", 9), ("b", 1), ("c", 1)):
        harness.enqueue(text, priority=priority)
    harness.queue.shed()
    harness.consume("one")
    harness.pump()
    assert (harness.got("one"), harness.queue.damage, harness.queue.ready_count) == ("a", DAMAGE, 3)
    assert (harness.queue.drop_damaged(), harness.queue.damage) == (1, None)
    harness.touched = True
    harness.pump()
    assert (harness.got("one"), harness.queue.ready_count) == ("abc", 0)
