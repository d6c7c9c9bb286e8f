"""Outcomes of proposals, and when they are known."""

import pytest

from fluffle.broker.cluster.hosted_group import UNKNOWN_OUTCOME, EntryOutcome, PendingProposals
from fluffle.raft.group import Position
from fluffle.raft.log import DATA, Entry


def waiting_for(reported: list[EntryOutcome], *positions: Position) -> PendingProposals:
    waiting = PendingProposals()
    for position in positions:
        waiting.add(position, reported.append)
    return waiting


def entries(term: int, *indexes: int) -> list[Entry]:
    return [Entry(index, term, DATA, b"") for index in indexes]


def test_those_that_were_applied_are_reported_in_order_and_once() -> None:
    reported: list[EntryOutcome] = []
    waiting = waiting_for(reported, Position(2, 5), Position(2, 7), Position(2, 9))
    waiting.applied(entries(2, 3, 4))
    assert reported == []
    waiting.applied(entries(2, 5, 6, 7, 8))
    assert reported == [Position(2, 5), Position(2, 7)]
    waiting.end()
    waiting.end()
    assert reported[2:] == [UNKNOWN_OUTCOME]


def test_who_leads_again_lets_go_of_what_it_proposed_before() -> None:
    reported: list[EntryOutcome] = []
    waiting = waiting_for(reported, Position(2, 5), Position(4, 6))
    waiting.ended(4)
    assert reported == [UNKNOWN_OUTCOME]
    waiting.applied(entries(4, 6))
    assert reported == [UNKNOWN_OUTCOME, Position(4, 6)]


def test_an_entry_of_another_term_in_its_place_is_impossible() -> None:
    waiting = waiting_for([], Position(2, 5))
    with pytest.raises(AssertionError):
        waiting.applied(entries(3, 5))
