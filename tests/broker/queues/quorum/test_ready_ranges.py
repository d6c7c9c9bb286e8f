"""With what a leader's engine begins: every ready message is in one piece, of its own priority."""

from collections import Counter
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluffle.broker.queues.quorum.ready_ranges as pieces_module
from fluffle.broker.queues.quorum.entries import Entries
from fluffle.broker.queues.quorum.messages import Columns, enqueued
from fluffle.broker.queues.quorum.ready_ranges import stored, stored_by_level
from tests.broker.queues.quorum.sample_facts import ORIGIN, new


def entries_of(priorities: list[bytes]) -> Entries:
    """One for each, of which each message has one of the priorities."""
    entries, first = Entries(), 1
    for index, own in enumerate(priorities, 1):
        is_mixed = len({*own}) > 1
        columns = Columns(priority=own[0], priorities=own if is_mixed else b"")
        entries.add(index, enqueued(first, [ORIGIN] * len(own), [b"a"] * len(own), columns))
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
    assert sum(piece.count for piece in stored(entries)) == len(levels)


def test_entries_are_looked_at_once_whatever_priorities_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = entries_of([bytes((number % 32, 31)) for number in range(3_000)])
    looks: Counter[int] = Counter()
    look = pieces_module.counts_of

    def counted(whose: Entries, first: int) -> list[tuple[int, int]]:
        looks[first] += 1
        return look(whose, first)

    monkeypatch.setattr(pieces_module, "counts_of", counted)
    assert len(stored_by_level(entries)) == 32
    assert max(looks.values()) == 1


def test_a_piece_is_no_larger_than_a_segment() -> None:
    entries = Entries()
    for index in range(30):
        entries.add(index + 1, new(1 + 100 * index, 100))
    assert [piece.count for piece in stored(entries)] == [1100, 1100, 800]
    assert [piece.count for piece in stored_by_level(entries)[4]] == [1100, 1100, 800]
