"""Index of entries: which are needed, and its columns as bytes."""

from array import array
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.broker.queues.quorum.entries import LiveEntries, content_bytes_of
from fluffle.broker.queues.quorum.snapshot import _differences, _packed
from tests.broker.queues.quorum.sample_facts import new


def entries_at(indexes: list[int]) -> LiveEntries:
    """Index with one message in each entry."""
    entries = LiveEntries()
    for first, index in enumerate(indexes, 1):
        entries.add(index, new(first, 1))
    return entries


rising = st.sets(st.integers(1, 60)).map(sorted)


@given(rising, st.data())
def test_live_indexes(indexes: list[int], data: st.DataObject) -> None:
    entries = entries_at(indexes)
    gone = data.draw(st.sets(st.sampled_from(indexes))) if indexes else set()
    for first, index in enumerate(indexes, 1):
        if index in gone:
            entries.take(range(first, first + 1))
            assert entries.bury(range(first, first + 1)) == [index]
    found = [index for first, stop in entries.live_indexes() for index in range(first, stop)]
    assert found == [index for index in indexes if index not in gone]
    assert all(one[1] < other[0] for one, other in pairwise(entries.live_indexes()))


@given(st.lists(st.integers(0, 2**64 - 1), unique=True).map(sorted))
@example([2**64 - 1])
@example([0, 1, 2**63])
def test_differences(numbers: list[int]) -> None:
    found = _differences(_packed(array("Q", numbers)))
    expected = [high - low for low, high in zip([0, *numbers], numbers, strict=False)]
    assert found == _packed(array("Q", expected))


def test_a_message_counts_with_the_mean_size() -> None:
    entries = LiveEntries()
    entries.add(1, new(9, 2))  # b"message 9" and b"message 10"
    assert entries.content_bytes == 9 * 2
    assert content_bytes_of(entries, range(9, 11)) == 9 * 2
    entries.take(range(10, 11))
    entries.bury(range(10, 11))
    assert entries.content_bytes == content_bytes_of(entries, range(9, 10)) == 9
