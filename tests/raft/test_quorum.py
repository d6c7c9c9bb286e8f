"""Majorities, against counting."""

from hypothesis import given
from hypothesis import strategies as st

from fluffle.raft.config import Member
from fluffle.raft.quorum import committed_index, is_majority, majority_of

INDEXES = st.lists(st.integers(0, 9), min_size=1, max_size=7)
VOTERS = [Member(node, 1) for node in "abcde"]


@given(INDEXES)
def test_the_committed_index_is_the_greatest_that_a_majority_holds(held: list[int]) -> None:
    index = committed_index(held)
    assert sum(other >= index for other in held) >= majority_of(len(held))
    assert sum(other >= index + 1 for other in held) < majority_of(len(held))


@given(st.sets(st.sampled_from(VOTERS)), st.integers(1, 5))
def test_a_majority_is_more_than_half(agreeing: set[Member], count: int) -> None:
    voters = VOTERS[:count]
    assert is_majority(agreeing, voters) == (2 * len(agreeing & set(voters)) > count)


def test_an_earlier_incarnation_is_no_voter() -> None:
    assert not is_majority({Member("a", 1), Member("b", 1)}, [Member("a", 2), Member("b", 2)])


def test_nobody_is_never_a_majority() -> None:
    assert not is_majority(set(), [])
