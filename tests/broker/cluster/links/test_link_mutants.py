"""The tests are tested: mistakes against rule 20 of replicated queues must be found.

Pings never wait behind bodies: frames are cut, pieces of what is urgent go first, and whatever is
received is a sign of life.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from itertools import chain

import pytest
from hypothesis import is_hypothesis_test

from tests.broker.cluster.links import test_outbox, test_pieces, test_pulse
from tests.simulation.mutation import Mutant

HERE = "broker.cluster.links."


def mutant(mistake: str, where: str, old: str, new: str) -> Mutant:
    return Mutant(mistake, mistake, HERE + where, old, new)


MUTANTS = [
    mutant(
        "what is urgent waits for its turn",
        "outbox:Outbox._next_lane",
        "if urgent:",
        "if urgent and not (bulk and self._may_go(BULK)):",
    ),
    mutant("a frame goes as a whole", "pieces:Outgoing.piece", "min(PIECE_BYTES_MAX, ", "max(0, "),
    mutant(
        "all of a lane may be under way",
        "outbox:Outbox._may_go",
        "self._under_way[lane] < WINDOW_BYTES[lane]",
        "True",
    ),
    mutant(
        "what is sent to others takes all",
        "outbox:Outbox._next_lane",
        "self._normal_bytes >= NORMAL_SHARE_BYTES",
        "False",
    ),
    mutant("bytes are no life", "pulse:Pulse.tick", "if self.has_heard:", "if False:"),
    mutant(
        "no beat is due while another is awaited",
        "pulse:Pulse.tick",
        ">= self._tuning.beat_ms",
        ">= self._tuning.silent_after_ms",
    ),
]

EXAMPLES: list[Callable[[], None]] = [
    example
    for name, example in chain(
        *(vars(each).items() for each in (test_outbox, test_pieces, test_pulse))
    )
    if name.startswith("test_") and not signature(example).parameters
    if not is_hypothesis_test(example)
]
"""Those that are soon done."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_found(mutant: Mutant) -> None:
    with mutant.in_place():
        assert any(map(fails, EXAMPLES)), mutant.mistake


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert not any(map(fails, EXAMPLES))


def fails(example: Callable[[], None]) -> bool:
    try:
        example()
    except (AssertionError, LookupError, ValueError):
        return True
    return False
