"""The tests are tested: a mistake in how batches are cut must be found by what comes of them."""

from __future__ import annotations

import pytest

from tests.broker.cluster.queues.test_batches import (
    asks_again,
    asks_home_again,
    make_small,
    passes_on,
    whatever,
)
from tests.simulation.mutation import Mutant

SEEDS_MAX = 60
"""A mutant that lives through so many of each has escaped."""

FIRST_OF_ALL = "expiration_ms[0] if isinstance(expiration_ms, list) else expiration_ms"


def mutants(where: str, *rows: tuple[str, str, str]) -> list[Mutant]:
    """From what is wrong, the text and what is there in its place."""
    return [Mutant(what, what, where, old, new) for what, old, new in rows]


MUTANTS = [
    *mutants(
        "broker.queues.replicated.publishing:Publishing.publish",
        ("what was done before has the times", "slice(done, None)", "slice(0, len(contents))"),
        ("times are one place off", "slice(done, None)", "slice(done + 1, None)"),
        ("numbers are those of what was done", "posted.after(done)", "posted"),
        ("what is brought along stays behind", "carried.coming = counts", "pass"),
        ("what comes next brings as much", "carried.coming = NEW", "pass"),
    ),
    *mutants(
        "broker.queues.replicated.publishing:Publishing._take",
        ("a stretch has the first times", "lifetimes_in(expiration_ms, run)", "expiration_ms"),
        (
            "stretches have the numbers of the first",
            "posted.part(start + low, start + high)",
            "posted.part(low, high)",
        ),
        ("who leads no more is believed", "(Fate.STALE, Fate.EARLY)", "(Fate.EARLY,)"),
        ("what is here is told of others", "confirm(session, first +", "confirm(session, 1 +"),
    ),
    *mutants(
        "broker.queues.replicated.publishing:Publishing._put",
        ("all have the first time", "=expiration_ms\n", f"={FIRST_OF_ALL}\n"),
        ("a full disk refuses the dead", "origins[0].past is not Past.NONE or ", ""),
        ("a full disk refuses nothing", " or self.may_grow()", " or True"),
        ("duplicates are refused", "part is Part.REFUSED", "part is not Part.TAKEN"),
        ("the last number is not remembered", "append((start, stop))", "append((start, stop - 1))"),
        ("parts are told of the first", "number, count = first + start", "number, count = first"),
    ),
    *mutants(
        "broker.cluster.queues.receipts:Receipts.ask",
        ("all runs have the first times", "slice(start, stop)", "slice(0, stop - start)"),
        ("a run has the time of its first", "lifetimes_in(expiration_ms, slice(start, stop))",
         "expiration_ms[start] if isinstance(expiration_ms, list) else expiration_ms"),
        ("all runs have the first numbers", "posted.part(start, stop)",
         "posted.part(0, stop - start)"),
        ("numbers stay behind", "posted.part(start, stop) if", "None if"),
        ("what is brought along stays behind", "counts=counts", "counts=NEW"),
        ("the last of a batch is left out", "range(0, count, step)", "range(0, count - 1, step)"),
        ("all runs are told as the first", "receipt, start,", "receipt, 0,"),
    ),
    *mutants(
        "broker.cluster.queues.receipts:Receipts.pass_on",
        ("the last is kept", "pending.next,", "pending.next - 1,"),
        ("the heir gets what has an outcome", "first - operation.first,", "0,"),
        ("the heir gets the first times", "(operation.expiration_ms, part)",
         "(operation.expiration_ms, slice(0, count))"),
        ("the heir gets no numbers", "posted.part(start, part.stop) if", "None if"),
        ("the heir gets no counts", "operation.counts)", "NEW)"),
        ("the heir is not asked", "fate is not Admission.REFUSED", "True"),
    ),
    *mutants(
        "broker.cluster.queues.home:Home.publish",
        ("what was done before has the times", "slice(known, None)", "slice(0, len(contents))"),
        ("all have the first time", "=expiration_ms\n", f"={FIRST_OF_ALL}\n"),
        ("nothing that is partly taken waits", "admission.taken if", "Admission.ACCEPTED if"),
        ("parts are told of the first", "Done(session, first + start", "Done(session, first"),
        ("what is refused is not said", "self._say(NotTaken(", "id(NotTaken("),
        ("an operation too few", "advance(session, count)", "advance(session, 1)"),
    ),
    *mutants(
        "broker.cluster.queues.home:Home._told",
        ("what was held back is taken", "Done if is_taken else NotTaken", "Done"),
        ("more is told than was held back", "stop - start", "stop"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda mutant: f"{mutant.where.split(':')[1]}: {mutant.name}"
)
def test_it_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    with mutant.in_place():
        assert any(map(fails, range(SEEDS_MAX))), mutant.mistake


def fails(seed: int) -> bool:
    try:
        for example in (asks_again, asks_home_again, passes_on, whatever):
            example(seed)
    except (AssertionError, LookupError, ValueError, TypeError):
        return True
    return False
