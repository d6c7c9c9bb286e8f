"""The tests are tested: a mistake against each rule is put into a stream, and must be found."""

from __future__ import annotations

import pytest

from tests.broker.cluster.streams.happenings import whatever
from tests.simulation.mutation import Mutant

SEEDS_MAX = 60
"""A mutant that lives through so many histories has escaped."""

HERE = "broker.cluster.streams"


def mutant(what: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(what, what, f"{HERE}.{where}", old, new)


MUTANTS = [
    mutant(
        "a settlement is asked once", "edge:Edge.connect", "self.unsent += self.pending", "pass"
    ),
    mutant("a frame comes twice", "hearing:hear", "== edge.received + 1", ">= edge.received"),
    mutant("any term delivers", "hearing:hear", "frame.term == edge.term", "frame.term > 0"),
    mutant("what arrived is missing", "hearing:_never_arrived", "not in ended", "is not None"),
    mutant("nothing is missing", "hearing:on_record", "missing.append(token)", "pass"),
    mutant("nothing is given back", "hearing:give_back", "if tokens", "if False"),
    mutant(
        "old lives go on", "sessions:Sessions.linked", "self._end(session", "(lambda *_: 0)(session"
    ),
    mutant(
        "nothing is repeated", "outbox:Outbox.repeat", "self._frames[0][0] - 1", "self._next - 1"
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_whatever_happens_finds(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(fails(seed) for seed in range(SEEDS_MAX)), mutant.mistake


def fails(seed: int) -> bool:
    try:
        whatever(seed)
    except (AssertionError, LookupError, ValueError):
        return True
    return False
