"""Dead letters that must arrive in simulated queues, and how often."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.quorum.entry_codec import ARRIVALS, DATED_HOLDS
from tests.simulation.facts import Violation
from tests.simulation.queues.dead_letter_checks import DeadLetterChecks

GROUP = 7


def dead_letter_checks(*must_arrive: bytes) -> DeadLetterChecks:
    made = DeadLetterChecks(lambda _group: False)
    made._sure |= {(GROUP, content) for content in must_arrive}
    return made


@pytest.mark.parametrize("again", [DATED_HOLDS, ARRIVALS])
def test_what_is_remembered_comes_once(again: int) -> None:
    found = dead_letter_checks(b"dead")
    found.stored(GROUP, b"dead", ARRIVALS)
    found.stored(GROUP + 1, b"dead", ARRIVALS)
    with pytest.raises(Violation, match="has come to 7 twice"):
        found.stored(GROUP, b"dead", again)


def test_what_is_not_may_come_again_and_once_more_it_may_not() -> None:
    """No member can say that a dead letter came before all read such a fact."""
    found = dead_letter_checks(b"dead")
    found.stored(GROUP, b"dead", DATED_HOLDS)
    found.stored(GROUP, b"dead", ARRIVALS)
    with pytest.raises(Violation, match="has come to 7 twice"):
        found.stored(GROUP, b"dead", ARRIVALS)


def test_what_need_not_arrive_may_come_as_often_as_it_likes() -> None:
    found = dead_letter_checks()
    found.stored(GROUP, b"published", ARRIVALS)
    found.stored(GROUP, b"published", ARRIVALS)
    assert not found._sure


def test_what_must_arrive_does_not_come_before_it_is_remembered() -> None:
    found = dead_letter_checks(b"dead")
    with pytest.raises(Violation, match="7 does not remember it"):
        found.stored(GROUP, b"dead", DATED_HOLDS, may_be_early=False)
    found.stored(GROUP, b"published", DATED_HOLDS, may_be_early=False)
    found.stored(GROUP, b"dead", ARRIVALS, may_be_early=False)
