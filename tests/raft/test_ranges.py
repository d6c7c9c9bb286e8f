"""Ranges against sets of numbers."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.raft.ranges import Ranges

SETS = st.sets(st.integers(0, 40))
BOUNDS = st.integers(0, 45)


def ranges(numbers: set[int]) -> Ranges:
    return Ranges.joined((number, number + 1) for number in sorted(numbers))


def numbers(found: Ranges) -> set[int]:
    return {number for first, stop in found for number in range(first, stop)}


@given(SETS)
def test_a_set_is_kept_as_few_ranges(model: set[int]) -> None:
    made = ranges(model)
    assert numbers(made) == model
    assert len(made) == len(model)
    assert bool(made) == bool(model)
    assert [number for number in range(45) if number in made] == sorted(model)
    pairs = list(made)
    assert all(before[1] < after[0] for before, after in pairwise(pairs))


@given(SETS, SETS)
def test_sets_are_joined_and_taken_away(one: set[int], other: set[int]) -> None:
    assert numbers(ranges(one).plus(ranges(other))) == one | other
    assert numbers(ranges(one).minus(ranges(other))) == one - other


@given(SETS, BOUNDS, BOUNDS)
def test_a_stretch_is_looked_at(model: set[int], first: int, stop: int) -> None:
    assert numbers(ranges(model).within(first, stop)) == model & set(range(first, stop))
    assert numbers(ranges(model).gaps(first, stop)) == set(range(first, stop)) - model


def test_taking_away_takes_no_longer_than_the_ranges_are_many() -> None:
    """Looking at all of one set for each range of the other would take minutes."""
    even, odd = (Ranges(array("Q", range(at, at + 400_000, 2))) for at in (0, 1))
    assert list(even.minus(odd)) == [(first, first + 1) for first in range(0, 400_000, 4)]


@given(SETS, BOUNDS)
def test_the_next_range_is_found(model: set[int], index: int) -> None:
    found = ranges(model).next_from(index)
    if found is None:
        assert not [number for number in model if number >= index]
        return
    first, stop = found
    assert first == min(number for number in model if number >= index)
    assert set(range(first, stop)) <= model
    assert stop not in model


@given(st.sets(st.integers(0, 2**63), max_size=20))
def test_bytes_give_the_same_back(model: set[int]) -> None:
    made = ranges(model)
    assert Ranges.from_bytes(made.to_bytes()) == made
    assert hash(Ranges.from_bytes(made.to_bytes())) == hash(made)


@pytest.mark.parametrize("data", [b"\x80", b"\x01", b"\x01\x00", b"\xff" * 11, b"\x00\x00"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ranges"):
        Ranges.from_bytes(data)


def test_an_index_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Ranges.from_bytes(b"\x01" + b"\xff" * 9 + b"\x7f")


def test_pairs_must_rise() -> None:
    with pytest.raises(ValueError, match="behind"):
        Ranges.of((5, 6), (1, 2))


def test_a_range_shows_itself() -> None:
    assert repr(Ranges.of((1, 4), (9, 10))) == "Ranges.of((1, 4), (9, 10))"
