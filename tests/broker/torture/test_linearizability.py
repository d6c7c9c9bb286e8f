"""An answer is stale if no order explains it: tried with all orders, and by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluffle.broker.torture.checker import Breach, Findings
from fluffle.broker.torture.history import (
    Abandoned,
    Answered,
    Connected,
    Event,
    GraceOver,
    Invoked,
    Operation,
)
from fluffle.broker.torture.linearizability import WITHOUT_ANSWER_MAX, LinearizabilityChecker

DECLARE, DELETE, LOOK = Operation.DECLARE, Operation.DELETE, Operation.LOOK


def judged(*history: Event) -> Findings:
    report = Findings()
    LinearizabilityChecker(report).read(history)
    return report


def done(client: str, operation: Operation, *, found: bool = True) -> list[Event]:
    return [Invoked(client, "q", operation), Answered(client, "q", found)]


def declared(client: str) -> list[Event]:
    return done(client, DECLARE)


def deleted(client: str) -> list[Event]:
    return done(client, DELETE, found=False)


CONNECTED: list[Event] = [Connected("a", "one"), Connected("b", "two")]


@pytest.mark.parametrize("found", [True, False])
def test_a_look_says_what_was_answered_last(found: bool) -> None:
    last = declared("a") if found else deleted("a")
    assert judged(*done("a", LOOK), *last, *done("b", LOOK, found=found)).is_clean
    report = judged(*CONNECTED, *last, *done("b", LOOK, found=not found))
    assert report.breaches == {Breach.STALE if found else Breach.OUTDATED: 1}
    (sentence,) = report.sentences()
    assert "b at two was answered that q is " in sentence
    assert report.is_good is not found


def test_a_node_that_has_said_no_must_not_say_yes() -> None:
    """Its delete was answered, as it had not heard of the declare, and nothing was deleted."""
    history = [*CONNECTED, *declared("a"), *deleted("b")]
    assert judged(*history, *done("b", LOOK)).breaches == {Breach.STALE: 1}
    assert judged(*history, *done("a", LOOK)).breaches == {Breach.OUTDATED: 1}
    declaring = [*CONNECTED, *declared("a"), Invoked("a", "q", DECLARE), *deleted("b")]
    assert judged(*declaring, *done("b", LOOK)).is_clean


def test_a_node_may_hear_of_a_declare_after_it_has_said_no_and_before_it_is_deleted() -> None:
    history = [*CONNECTED, *deleted("b"), *declared("a"), *deleted("a")]
    assert judged(*history, *done("b", LOOK)).breaches == {Breach.OUTDATED: 1}


def test_when_all_is_well_nobody_says_yes_to_what_was_deleted() -> None:
    history = [*CONNECTED, *deleted("a"), GraceOver(), *done("b", LOOK)]
    assert judged(*history).breaches == {Breach.STALE: 1}


def test_a_look_that_was_asked_for_before_an_answer_may_see_either() -> None:
    for found in (True, False):
        history = [*deleted("a"), Invoked("b", "q", LOOK), *declared("a")]
        assert judged(*history, Answered("b", "q", found)).is_clean


def test_two_looks_do_not_go_back() -> None:
    absent = [*deleted("a"), *done("b", LOOK, found=False)]
    history = [*CONNECTED, *absent, Invoked("a", "q", DECLARE), *done("b", LOOK)]
    assert judged(*history, *done("c", LOOK, found=False)).breaches == {Breach.STALE: 1}


def test_a_node_that_has_not_heard_of_a_delete_says_nothing_about_what_came_after() -> None:
    """The node lags: the object that it reports may be the one declared first."""
    two_orders = [Invoked("a", "q", DECLARE), *deleted("c"), Answered("a", "q", found=True)]
    history = [*CONNECTED, *declared("a"), *two_orders]
    assert judged(*history, *done("b", LOOK), *done("a", LOOK, found=False)).is_clean
    absent = done("b", LOOK, found=False)
    knows = [*CONNECTED, *declared("a"), *deleted("c"), *absent, *two_orders]
    report = judged(*knows, *done("b", LOOK), *done("a", LOOK, found=False))
    assert report.is_clean, "the delete may have come last, and b not have heard of it"
    report = judged(*knows, *absent, *done("b", LOOK), *done("a", LOOK, found=False))
    assert report.breaches, "b has heard of the last delete, so it was the declare that came later"


def test_what_has_no_answer_may_happen_once_at_any_time() -> None:
    history = [*deleted("a"), Invoked("b", "q", DECLARE), Abandoned("b", "q")]
    late = [*history, *done("a", LOOK, found=False), *done("a", LOOK), *done("a", LOOK)]
    assert judged(*late).is_clean
    twice = [*late, *deleted("a"), *done("a", LOOK)]
    assert judged(*twice).breaches == {Breach.OUTDATED: 1}


def test_a_look_without_an_answer_says_nothing() -> None:
    history = [*declared("a"), Invoked("b", "q", LOOK), Abandoned("b", "q")]
    assert judged(*history, *done("a", LOOK)).is_clean
    assert not judged(*history, *done("b", LOOK, found=False)).is_clean


def test_of_what_too_many_had_no_answer_nothing_is_said() -> None:
    history: list[Event] = [*deleted("a")]
    for _ in range(WITHOUT_ANSWER_MAX + 1):
        history += [Invoked("b", "q", DECLARE), Abandoned("b", "q")]
        history += deleted("a")
    for found in (True, False, True):
        history += done("a", LOOK, found=found)
    assert judged(*history, *declared("a"), *done("a", LOOK, found=False)).is_clean


# Any history of three clients, beside a search through all orders


@dataclass(slots=True)
class Call:
    """A question with its answer; the times are places in the history."""

    operation: Operation
    asked_at: int
    answered_at: float = float("inf")
    found: bool | None = None


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(Operation), st.integers(0, 9)), max_size=12
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_what_is_stale_has_no_order(steps: Sequence[tuple[str, Operation, int]]) -> None:
    """And what has none is stale, where no node lags."""
    history: list[Event] = []
    waiting: dict[str, Operation] = {}
    for client, operation, chance in steps:
        if client not in waiting:
            waiting[client] = operation
            history.append(Invoked(client, "q", operation))
            continue
        asked = waiting.pop(client)
        found = {DECLARE: True, DELETE: False, LOOK: chance % 2 == 0}[asked]
        history.append(Abandoned(client, "q") if chance == 9 else Answered(client, "q", found))
    is_explained = has_order(calls(history))
    assert judged(GraceOver(), *history).is_clean is is_explained, history
    assert judged(*history).is_clean or not is_explained, history


def calls(history: Sequence[Event]) -> list[Call]:
    found: list[Call] = []
    waiting: dict[str, Call] = {}
    for at, event in enumerate(history):
        if isinstance(event, Invoked):
            waiting[event.client] = Call(event.operation, at)
            found.append(waiting[event.client])
        elif isinstance(event, Answered):
            call = waiting.pop(event.client)
            call.answered_at, call.found = at, event.found
    return found


def has_order(calls: Sequence[Call]) -> bool:
    return any(
        explains(order, is_there=is_there) for order in orders(calls) for is_there in (True, False)
    )


def orders(calls: Sequence[Call]) -> Iterator[tuple[Call, ...]]:
    """Orders of all that were answered, and any of the others."""
    must = [call for call in calls if call.found is not None]
    may = [call for call in calls if call.found is None and call.operation is not LOOK]
    for count in range(len(may) + 1):
        for some in combinations(may, count):
            yield from permutations([*must, *some])


def explains(order: Sequence[Call], *, is_there: bool) -> bool:
    for number, call in enumerate(order):
        if any(later.answered_at < call.asked_at for later in order[number:]):
            return False
        if call.operation is LOOK and call.found is not is_there:
            return False
        is_there = {DECLARE: True, DELETE: False, LOOK: is_there}[call.operation]
    return True
