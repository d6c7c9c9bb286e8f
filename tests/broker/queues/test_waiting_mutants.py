"""The tests are tested: mistakes in what waits, or is held for too long, must be found."""

from __future__ import annotations

import pytest

from tests.broker.queues import test_delays, test_overdue_model
from tests.simulation.mutation import Mutant

SEEDS_MAX = 30
"""A mutant that lives through so many has escaped."""


def mutants(where: str, *rows: tuple[str, str, str]) -> list[Mutant]:
    """From what is wrong, the text and what is there in its place."""
    return [Mutant(what, what, f"broker.queues.{where}", old, new) for what, old, new in rows]


MUTANTS = [
    *mutants(
        "delays:Delays.add",
        ("they do not expire", "expiries=expiries", "expiries=None"),
        ("of one moment any comes first", "self._next_number += 1", "self._next_number -= 1"),
        ("a run counts as one", "self.count += len(run)", "self.count += 1"),
    ),
    *mutants(
        "delays:Delays.mature",
        ("a moment too late", "self.due_ms <= now_ms", "self.due_ms < now_ms"),
        ("one run at a time", "while self.due_ms", "if self.due_ms"),
        ("a run counts as one", "self.count -= len(run)", "self.count -= 1"),
        ("the last is on record", "runs.append(run)", "runs = [run]"),
    ),
    *mutants("delays:Delays.clear", ("they come back", "self._heap.clear()", "pass")),
    *mutants(
        "overdue:Runs.add",
        ("in any order", "if not is_in_order:", "if False:"),
        ("those held are swept out", "if run.left", "if not run.left"),
    ),
    *mutants(
        "overdue:Runs.take_until",
        ("a moment too late", "<= handed_at_ms", "< handed_at_ms"),
        ("one at a time", "while self.runs and", "if self.runs and"),
        ("what was settled is late", "if run.left", "if True"),
    ),
    *mutants(
        "overdue:Overdue._timeout_of",
        ("all have the same", "own if own is not None else self._timeout_ms", "self._timeout_ms"),
    ),
    *mutants(
        "overdue:Overdue.handed",
        ("the time begins anew", "handout.handed_at_ms or self._time", "self._time"),
        ("nobody looks", "handout.handed_at_ms + timeout_ms", "handout.handed_at_ms * 9"),
    ),
    *mutants(
        "overdue:Overdue.settled",
        ("only one is settled", "handout.left -= count", "handout.left -= 1"),
        ("nothing is forgotten", "if not held.runs:", "if held.runs is None:"),
    ),
    *mutants(
        "overdue:Overdue.go_by",
        ("without a policy it is the last", "timeout_ms is not None else self._default_ms",
         "timeout_ms is not None else self._timeout_ms"),
        ("what is held keeps its limit", "self._ask_again(queue, 0)", "pass"),
    ),
    *mutants(
        "overdue:Overdue._take",
        ("all is late", "now_ms - timeout_ms)", "now_ms)"),
        ("held since the last", "late[0].handed_at_ms", "late[-1].handed_at_ms"),
        ("nobody looks again", "self._ask_again(queue, now_ms + GAP_MS)", "pass"),
        ("looked at all the time", "now_ms + GAP_MS", "now_ms"),
    ),
    *mutants("overdue:Overdue._ask_again", ("the last is next", "held.runs[0]", "held.runs[-1]")),
]  # fmt: skip


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda mutant: f"{mutant.where.split(':')[1]}: {mutant.name}"
)
def test_it_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    with mutant.in_place():
        assert any(fails(seed, monkeypatch) for seed in range(SEEDS_MAX)), mutant.mistake


def fails(seed: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    try:
        test_delays.test_each_comes_back_once_at_its_time_as_it_was(seed)
        test_overdue_model.test_whatever_happens(seed, monkeypatch)
    except (AssertionError, LookupError, ValueError):
        return True
    return False
