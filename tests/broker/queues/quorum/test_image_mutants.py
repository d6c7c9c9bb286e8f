"""The tests are tested: known mistakes are put into the image, one at a time, and must be found.

Mistakes in what happens are found by the model, those in what is refused by the table of refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from struct import error as StructError  # noqa: N812  it is an exception

import pytest

from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.quorum import entries
from fluffle.broker.queues.quorum.facts import InvalidEntry
from tests.broker.queues.quorum import test_dead_letter_outbox_model
from tests.broker.queues.quorum.sample_facts import applied, busy
from tests.broker.queues.quorum.test_image_model import tell
from tests.broker.queues.quorum.test_leadership import BROUGHT, PRIORITIES, make_small, whatever
from tests.broker.queues.quorum.test_state import REFUSED
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES

SEEDS_MAX = 12
"""A mutant that lives through so many histories has escaped."""


@FAMILIES["carried"].each()
def test_what_messages_bring_along_is_reported(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    with mutant.in_place():
        assert any(disappoints(seed, BROUGHT) for seed in range(SEEDS_MAX * 6)), mutant.mistake


@FAMILIES["outbox"].each()
def test_what_must_arrive_does_not(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(test_dead_letter_outbox_model, "LOOKS_MAX", 50)
    monkeypatch.setattr("fluffle.broker.queues.quorum.dead_letter_outbox.UNDER_WAY_MAX", 4)
    with mutant.in_place():
        assert any(strays(seed) for seed in range(SEEDS_MAX * 10)), mutant.mistake


def strays(seed: int) -> bool:
    try:
        test_dead_letter_outbox_model.whatever(seed, steps=200)
    except (AssertionError, ValueError, LookupError):
        return True
    return False


@FAMILIES["leadership"].each()
def test_edges_find_what_is_wrong(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    with mutant.in_place():
        assert any(disappoints(seed) for seed in range(SEEDS_MAX * 20)), mutant.mistake


def disappoints(seed: int, brought: Sequence[Counts] = ()) -> bool:
    try:
        whatever(seed, 250, PRIORITIES if brought and seed % 2 else (), brought)
    except (AssertionError, ValueError, LookupError, AttributeError, StructError):
        return True
    return False


@FAMILIES["image"].each()
def test_the_model_finds_what_is_wrong(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "COMPACT_ENTRIES", 2)
    with mutant.in_place():
        assert any(fails(seed) for seed in range(SEEDS_MAX)), mutant.mistake


def fails(seed: int) -> bool:
    try:
        tell(Random(seed), count=50)
    except (AssertionError, InvalidEntry, LookupError):
        return True
    return False


@FAMILIES["refusals"].each()
def test_the_table_of_refusals_finds_what_is_too_kind(mutant: Mutant) -> None:
    with mutant.in_place():
        assert not all(map(is_refused, range(len(REFUSED)))), mutant.mistake


def is_refused(number: int) -> bool:
    fact, why = REFUSED[number]
    try:
        applied(busy(), fact)
    except InvalidEntry as error:
        return any(part in str(error) for part in why.split("|"))
    return False
