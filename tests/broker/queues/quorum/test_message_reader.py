"""What a leader reads of those messages of an entry that have one priority."""

from __future__ import annotations

from array import array

import pytest

from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.journal import UnreadableMessages
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.encoding import FactBatch, encode
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.image import Image
from fluffle.broker.queues.quorum.message_reader import LogJournal
from fluffle.broker.queues.quorum.messages import columns_of, enqueued
from fluffle.broker.queues.quorum.ready_ranges import stored
from tests.broker.queues.quorum.sample_facts import ORIGIN, applied, consumer

PRIORITIES = [4, 4, 9, 4, 9, 0, 9]
TIMES_MS = [700, 0, 500, 0, 0, 300, 300]


class Harness:
    """Messages 1 to 7 in one entry, of which 3 is not ready any more."""

    def __init__(self) -> None:
        self.image = Image()
        applied(self.image, f.SessionOpened(1, 1, 7, 1, "a"), consumer(2))
        contents = [b"message %d" % number for number in range(1, 8)]
        columns = columns_of(priorities=PRIORITIES, expiries_ms=TIMES_MS)
        messages = enqueued(1, [ORIGIN] * 7, contents, columns)
        facts: list[f.Fact] = [f.Published(1, 1, 7), f.Delivered(0, [2], [range(3, 4)])]
        self.entry = encode(FactBatch(0, 0, facts, messages))
        self.image.apply(2, self.entry)
        self.unreadable: list[int] = []
        state = self.image.state
        self.contents = LogJournal(state, EntryBuilder(state), self, stored)

    def read_entry(self, _index: int) -> bytes:
        return self.entry

    def damaged(self, index: int) -> None:
        self.unreadable.append(index)

    def numbers_of(self, level: int, first: int = 1, stop: int = 8) -> list[int]:
        """Read by a lane, each with its content."""
        found: list[int] = []
        for part in self.contents.by_level.at(level).load(first, stop):
            keys = [origin.routing_key for origin in part.origins]
            assert keys == [ORIGIN.routing_key] * len(part.sequences)
            assert part.contents == [b"message %d" % number for number in part.sequences]
            found += part.sequences
        return found


def test_a_lane_reads_what_is_ready_of_its_priority() -> None:
    harness = Harness()
    assert [harness.numbers_of(level) for level in (0, 4, 9, 5)] == [[6], [1, 2, 4], [5, 7], []]
    assert harness.numbers_of(4, first=2, stop=4) == [2]


def test_what_it_reads_expires_as_it_did() -> None:
    [four] = Harness().contents.by_level.at(4).load(1, 8)
    [nine] = Harness().contents.by_level.at(9).load(1, 8)
    assert four.expiries == array("Q", [700, NEVER_MS, NEVER_MS])
    assert nine.expiries == array("Q", [NEVER_MS, 300])


def test_damage_to_messages_of_one_priority_is_none_to_those_of_others() -> None:
    harness = Harness()
    harness.entry = harness.entry.replace(b"message 6", b"massage 6")
    assert [harness.numbers_of(level) for level in (4, 9)] == [[1, 2, 4], [5, 7]]
    assert harness.unreadable == []
    with pytest.raises(UnreadableMessages):
        harness.numbers_of(0)
    assert harness.unreadable == [2]
