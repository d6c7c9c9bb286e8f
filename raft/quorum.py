"""Arithmetic of majorities."""

from collections.abc import Sequence, Set

from fluffle.raft.config import Member


def majority_of(count: int) -> int:
    """Return how many of so many voters are a majority."""
    return count // 2 + 1


def committed_index(durable: Sequence[int]) -> int:
    """Return the greatest index that a majority holds on disk: one number a voter, at least one.

    Of rounds it is the greatest that a majority has confirmed.
    """
    return sorted(durable, reverse=True)[len(durable) // 2]


def is_majority(agreeing: Set[Member], voters: Sequence[Member]) -> bool:
    """Tell whether those who agree are a majority of the voters; others among them do not count."""
    return sum(voter in agreeing for voter in voters) >= majority_of(len(voters))
