"""Reading of those messages of an entry that have one priority."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluffle.broker.queues.quorum.log_journal as pieces_module
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.journal import UnreadableMessages
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entries import LiveEntries
from fluffle.broker.queues.quorum.entry_codec import (
    Columns,
    FactBatch,
    columns_of,
    encode,
    pack_enqueued,
)
from fluffle.broker.queues.quorum.log_journal import LogJournal, stored_by_level, stored_ranges
from fluffle.broker.queues.quorum.proposals import EntryBuilder
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.queues.quorum.sample_facts import ORIGIN, applied, consumer, new

PRIORITIES = [4, 4, 9, 4, 9, 0, 9]
TIMES_MS = [700, 0, 500, 0, 0, 300, 300]


class Harness:
    """Messages 1 to 7 in one entry, of which 3 is not ready any more."""

    def __init__(self) -> None:
        self.image = QueueImage()
        applied(self.image, f.SessionOpened(1, 1, 7, 1, "a"), consumer(2))
        contents = [b"message %d" % number for number in range(1, 8)]
        columns = columns_of(priorities=PRIORITIES, expiries_ms=TIMES_MS)
        messages = pack_enqueued(1, [ORIGIN] * 7, contents, columns)
        facts: list[f.Fact] = [f.Published(1, 1, 7), f.Delivered(0, [2], [range(3, 4)])]
        self.entry = encode(FactBatch(0, 0, facts, messages))
        self.image.apply(2, self.entry)
        self.unreadable: list[int] = []
        state = self.image.state
        self.contents = LogJournal(state, EntryBuilder(state), self, stored_ranges)

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


def entries_of(priorities: list[bytes]) -> LiveEntries:
    """Entries with one message for each priority in a string."""
    entries, first = LiveEntries(), 1
    for index, own in enumerate(priorities, 1):
        is_mixed = len({*own}) > 1
        columns = Columns(priority=own[0], priorities=own if is_mixed else b"")
        entries.add(index, pack_enqueued(first, [ORIGIN] * len(own), [b"a"] * len(own), columns))
        first += len(own)
    return entries


@given(st.lists(st.lists(st.integers(0, 31), min_size=1, max_size=6).map(bytes)), st.data())
def test_each_ready_message_is_in_one_piece_of_its_priority(
    priorities: list[bytes], data: st.DataObject
) -> None:
    entries = entries_of(priorities)
    levels = dict(enumerate(chain.from_iterable(priorities), 1))
    for number in data.draw(st.sets(st.sampled_from(sorted(levels)))) if levels else ():
        entries.take(range(number, number + 1))
        del levels[number]
    found = stored_by_level(entries)
    counts = {level: sum(piece.count for piece in own) for level, own in found.items()}
    assert counts == Counter(levels.values())
    for level, own in found.items():
        assert all(one.stop <= other.first for one, other in pairwise(own))
        of_level = [number for number, priority in levels.items() if priority == level]
        in_pieces = [sum(one.first <= n < one.stop for n in of_level) for one in own]
        assert in_pieces == [piece.count for piece in own]
    assert sum(piece.count for piece in stored_ranges(entries)) == len(levels)


def test_entries_are_looked_at_once_whatever_priorities_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = entries_of([bytes((number % 32, 31)) for number in range(3_000)])
    looks: Counter[int] = Counter()
    look = pieces_module.ready_counts_of

    def counted(whose: LiveEntries, first: int) -> list[tuple[int, int]]:
        looks[first] += 1
        return look(whose, first)

    monkeypatch.setattr(pieces_module, "ready_counts_of", counted)
    assert len(stored_by_level(entries)) == 32
    assert max(looks.values()) == 1


def test_a_piece_is_no_larger_than_a_segment() -> None:
    entries = LiveEntries()
    for index in range(30):
        entries.add(index + 1, new(1 + 100 * index, 100))
    assert [piece.count for piece in stored_ranges(entries)] == [1100, 1100, 800]
    assert [piece.count for piece in stored_by_level(entries)[4]] == [1100, 1100, 800]
