"""Settled messages by entry, in memory that is bounded by the unsettled ones."""

import sys

import pytest

from fluffle.broker.durability.local_journal import (
    COMPACT_ENTRIES,
    EntryChanges,
    JournalEntries,
    PartialEntry,
)


def flow(entries: JournalEntries, count: int, *, first: int = 1) -> None:
    """Entries of two messages that come and are settled."""
    for sequence in range(first, first + 2 * count, 2):
        entries.add(sequence, 2)
        entries.settle(range(sequence, sequence + 2))
        assert entries.take_changes().dead == [(sequence, sequence + 2)]


def memory_of(entries: JournalEntries) -> int:
    return sum(sys.getsizeof(getattr(entries, name)) for name in JournalEntries.__slots__)


def test_one_message_that_is_kept_keeps_no_others_entry() -> None:
    """A consumer that never acknowledges must not cost memory for all that others do."""
    entries = JournalEntries()
    entries.add(1, 2)
    entries.settle([2])
    flow(entries, 4 * COMPACT_ENTRIES, first=3)
    much = memory_of(entries)
    flow(entries, 20 * COMPACT_ENTRIES, first=3 + 8 * COMPACT_ENTRIES)
    assert memory_of(entries) <= 1.5 * much
    assert len(entries) == 1
    entries.settle([1])
    assert entries.take_changes() == EntryChanges([(1, 3)], [])


def test_entries_go_on_between_those_that_are_dead() -> None:
    entries = JournalEntries()
    entries.add(1, 2)
    flow(entries, 2, first=3)
    flow(entries, 2, first=9)
    entries.add(13, 2)
    entries.insert([(7, 1), (8, 1)], [])
    entries.settle([1, 8, 14])
    assert entries.take_changes() == EntryChanges(
        [(8, 9)], [PartialEntry(1, 0b1), PartialEntry(13, 0b10)]
    )


@pytest.mark.parametrize("sequence", [0, 3, 4])
def test_who_settles_what_is_in_no_entry_is_wrong_about_the_queue(sequence: int) -> None:
    entries = JournalEntries()
    with pytest.raises(AssertionError):
        entries.settle([sequence])
    entries.add(1, 2)
    entries.add(5, 2)
    with pytest.raises(AssertionError):
        entries.settle([sequence])
