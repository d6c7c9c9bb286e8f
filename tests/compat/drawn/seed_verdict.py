"""Verdict about a seed: whether the two differ, and whether chance may have a part in that."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random

from tests.compat.comparison import as_meant, difference_of
from tests.compat.drawn.case_generator import drawn
from tests.compat.drawn.observer import Observer
from tests.compat.drawn.operations import Case
from tests.compat.drawn.player import EARLY_END
from tests.compat.drawn.runner import run

AGAIN = 2
PATIENCE_S = 1.0
"""Patience in further runs, which are many."""

LINES_SHOWN = 20
"""Lines shown of a case that is not cut down."""


class Finding(Enum):
    SAME = "the same"
    SAME_UNTIL = "the same until their early end"
    SOMETIMES = "differ sometimes"
    BY_ITSELF = "RabbitMQ differs from itself"
    DIFFERS = "differ"


def examine(seed: int, pair: tuple[Observer, Observer], *, shrinks: bool) -> tuple[Finding, str]:
    """Result of a seed, and the difference as text, if any."""
    name, case = f"drawn.{seed}", drawn(Random(seed))

    def difference(case: Case, pair: tuple[Observer, Observer] = pair) -> str:
        transcripts = run(name, case, pair, PATIENCE_S)
        return difference_of(*as_meant(name, *transcripts))

    theirs, ours = run(name, case, pair)
    found = difference_of(*as_meant(name, theirs, ours))
    if not found:
        return Finding.SAME_UNTIL if theirs["notes"][-1] == EARLY_END else Finding.SAME, ""
    end = "\n".join(found.splitlines()[-LINES_SHOWN:])
    if not all(difference(case) for _ in range(AGAIN)):
        return Finding.SOMETIMES, end
    with Observer(pair[0].port, pair[0].http) as second:
        if any(difference(case, (pair[0], second)) for _ in range(AGAIN)):
            return Finding.BY_ITSELF, end
    if shrinks:
        case = shortest(case, lambda shorter: bool(difference(shorter)))
    return Finding.DIFFERS, difference(case) or end


def shortest(case: Case, differs: Callable[[Case], bool]) -> Case:
    """Leave out what is not needed for it: parts of the list, then single operations."""
    size = len(case) // 2
    while size:
        at = len(case) - size
        while at >= 0:
            without = case[:at] + case[at + size :]
            if without and differs(without):
                case = without
            at -= size
        size //= 2
    return case
