"""The tests are tested: a mistake against each rule is put into a stream, and must be found.

By the examples of rules, or by histories of whatever may happen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from types import ModuleType

import pytest

from tests.broker.cluster.streams import test_stream_bounds, test_stream_rules
from tests.broker.cluster.streams.happenings import whatever
from tests.simulation.mutation import Mutant

SEEDS_MAX = 60
"""A mutant that lives through so many histories has escaped."""

HERE = "broker.cluster.streams"
QUEUES = "broker.queues.replicated."


def mutant(what: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(what, what, where if where.startswith(QUEUES) else f"{HERE}.{where}", old, new)


MUTANTS = [
    mutant(
        "a settlement is asked once", "edge:Edge.connect", "self.unsent += self.pending", "pass"
    ),
    mutant("a frame comes twice", "hearing:hear", "== edge.received + 1", ">= edge.received"),
    mutant(
        "any term delivers",
        "hearing:hear",
        "(frame.term, frame.leadership) == edge.reign",
        "frame.term > 0",
    ),
    mutant(
        "all of a term delivers",
        "hearing:hear",
        "(frame.term, frame.leadership) == edge.reign",
        "frame.term == edge.term",
    ),
    mutant(
        "a term is led once",
        "edge:Edge.connect",
        "leader.reign > self.reign",
        "leader.term > self.term",
    ),
    mutant("what arrived is missing", "hearing:_never_arrived", "ended.put(token)", "pass"),
    mutant("nothing is missing", "hearing:on_record", "missing.append(token)", "pass"),
    mutant("nothing is given back", "hearing:give_back", "if tokens", "if False"),
    mutant(
        "old lives go on", "sessions:Sessions.linked", "self._end(session", "(lambda *_: 0)(session"
    ),
    mutant(
        "nothing is repeated",
        "outbox:Outbox.repeat",
        "self._frames[0].number - 1",
        "self._next - 1",
    ),
    mutant(
        "a refusal is forgotten", QUEUES + "numbering:Numbering._outcomes", "NotTaken(", "Done("
    ),
    mutant(
        "what did not count is done",
        QUEUES + "leadership:Leadership.settle",
        "if is_late and outcome in FINAL",
        "if False",
    ),
    mutant(
        "any ordinal will do",
        QUEUES + "holders:Held.holding",
        "counts.acquired == ordinal",
        "counts",
    ),
    mutant("nobody says who leads", "sessions:Sessions.linked", "known.stream is None", "False"),
    mutant("all get as they like", "serving:room_of", "stream.outbox.is_full", "False"),
    mutant("suspected is gone", "sessions:Sessions.tick", ">= patience_ms", ">= 0"),
    mutant("an edge hears of any queue", "hearing:hear", "(edge.group, edge", "(frame.group, edge"),
    mutant(
        "a leader listens for any queue",
        "sessions:Sessions.take",
        "frame.group != self._group or ",
        "",
    ),
    mutant("a tombstone nacks", "edge:Edge.deleted", "is_known=True", "is_known=False"),
    mutant("nobody is paused", "edge:Edge.is_full", ">= OPERATIONS_MAX", "< 0"),
    mutant(
        "who has no leader forgets",
        "edge:Edge.connect",
        "self.unsent = []",
        "self.unsent = [] if leader else self.pending.clear()[:0]",
    ),
    mutant(
        "what comes too soon is done",
        QUEUES + "numbering:Numbering.known",
        "if first > expected",
        "if not first",
    ),
]


def examples(module: ModuleType) -> list[Callable[[], None]]:
    """Its tests that take nothing."""
    return [
        example
        for name, example in vars(module).items()
        if name.startswith("test_") and not signature(example).parameters
    ]


EXAMPLES = examples(test_stream_rules)
LARGE_EXAMPLES = examples(test_stream_bounds)
HISTORIES: list[Callable[[], None]] = [partial(whatever, seed) for seed in range(SEEDS_MAX)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(map(fails, EXAMPLES + HISTORIES + LARGE_EXAMPLES)), mutant.mistake


def fails(run: Callable[[], None]) -> bool:
    try:
        run()
    except (AssertionError, LookupError, ValueError):
        return True
    return False
