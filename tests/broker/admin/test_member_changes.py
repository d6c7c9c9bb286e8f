"""The votes of quorum queues, counted from what their members say."""

from __future__ import annotations

import pytest

from fluffle.broker.admin.member_changes import ReplicaVote, has_vote, needs
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import Member

A, B, C = (Member(node, 1) for node in "abc")


def definition(*members: Member) -> QueueDefinition:
    return QueueDefinition(QueueSpec("q"), members=members)


def replica(member: Member, *configs: set[Member], commit: int = 1) -> ReplicaVote:
    return ReplicaVote(member, commit, [frozenset(voters) for voters in configs])


def test_an_earlier_incarnation_has_no_vote_for_the_next() -> None:
    """Its node has yet to delete it, and the member that all know of is a learner."""
    stale, anew = replica(C, {A, B, C}), Member("c", 2)
    assert has_vote(definition(A, B, C), stale)
    assert not has_vote(definition(A, B, anew), stale)
    assert not has_vote(definition(A, B, anew), replica(anew, {A, B}, {A, B, anew}))


def test_who_only_copies_is_no_part_of_a_majority() -> None:
    reported = [replica(A, {A, B}), replica(C, {A, B})]
    assert needs("b", definition(A, B, C), reported)
    assert not needs("c", definition(A, B, C), reported)


def test_who_has_not_answered_is_not_there() -> None:
    assert needs("b", definition(A, B, C), [replica(A, {A, B, C})])
    assert not needs("b", definition(A, B, C), [replica(A, {A, B, C}), replica(C, {A, B, C})])
    assert needs("b", definition(A, B), [])


def test_an_earlier_incarnation_is_not_there() -> None:
    stale, anew = replica(C, {A, B, C}, commit=9), Member("c", 2)
    assert needs("b", definition(A, B, anew), [replica(A, {A, B}), stale])


@pytest.mark.parametrize("is_ahead", [True, False])
def test_who_knows_more_is_believed(is_ahead: bool) -> None:
    """Voters that are committed elsewhere, or may be soon, count as well."""
    old, new = {A, C}, {A, B, C}
    ahead = replica(A, new, commit=2) if is_ahead else replica(A, old, new, commit=1)
    for reported in ([ahead, replica(C, old)], [replica(C, old), ahead]):
        assert not needs("b", definition(A, B, C), reported)
    old, new = {A, B, C}, {A, B}
    ahead = replica(A, new, commit=2) if is_ahead else replica(A, old, new, commit=1)
    for reported in ([ahead, replica(C, old)], [replica(C, old), ahead]):
        assert needs("b", definition(A, B, C), reported)
