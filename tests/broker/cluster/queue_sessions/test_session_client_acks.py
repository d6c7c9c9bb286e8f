"""Acknowledgements that bring nobody anything go with what is said next, or after a while."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.queue_api import Outcome
from tests.broker.cluster.queue_sessions.session_harness import SessionHarness


def holding(count: int, *, credit: int) -> SessionHarness:
    """A consumer of `near` has messages in hands, of as many as it takes."""
    harness = SessionHarness(("near",))
    harness.attach("near", credit=credit, prefetch=credit)
    harness.publish("near", count)
    harness.rest()
    assert sum(len(token.run) for token in harness.in_hands("near")) == min(count, credit)
    return harness


def settle(harness: SessionHarness, count: int, outcome: Outcome = Outcome.ACKED) -> None:
    """The first messages, one call each."""
    for _ in range(count):
        token = harness.in_hands("near")[0]
        harness.settle("near", [token._replace(run=token.run[:1])], outcome)


def on_its_way(harness: SessionHarness) -> bool:
    """True if anything is, to the leader."""
    return not harness.wire("near", to_leader=True).is_empty


def test_an_acknowledgement_waits_for_what_is_said_next() -> None:
    harness = holding(2, credit=10)
    settle(harness, 2)
    assert not on_its_way(harness)
    harness.publish("near")
    assert harness.clients["near"].session.deferrable == 0
    harness.rest()
    assert harness.led.image.state.live_count == 1


def test_it_does_not_wait_for_ever() -> None:
    harness = holding(2, credit=10)
    settle(harness, 2)
    harness.hurry("near")
    assert on_its_way(harness)


def test_nobody_waits_for_room_that_acknowledgements_make() -> None:
    """With the least prefetch, and once half of a larger one is taken."""
    harness = holding(2, credit=1)
    settle(harness, 1)
    assert on_its_way(harness)
    harness = holding(6, credit=10)
    settle(harness, 1)
    assert on_its_way(harness)


@pytest.mark.parametrize(
    "outcome", [Outcome.REJECTED, Outcome.NACK_REQUEUED, Outcome.REJECT_REQUEUED]
)
def test_what_comes_back_or_dies_waits_for_nothing(outcome: Outcome) -> None:
    harness = holding(2, credit=10)
    settle(harness, 1, outcome)
    assert on_its_way(harness)


def test_what_comes_meanwhile_and_takes_the_room_is_what_it_waits_for() -> None:
    harness = SessionHarness(("near", "left"))
    harness.attach("near", credit=4, prefetch=4)
    harness.publish("left", 1)
    harness.rest()
    settle(harness, 1)
    assert not on_its_way(harness)
    harness.publish("left", 3)
    while harness.led.proposals or not on_its_way(harness):
        harness.arrive()
        harness.commit()
    assert harness.clients["near"].session.deferrable == 0


def test_what_nobody_consumes_any_more_waits() -> None:
    harness = holding(2, credit=2)
    harness.detach("near", harness.clients["near"].consumers[0])
    harness.rest()
    settle(harness, 2)
    assert not on_its_way(harness)
    harness.rest()
    assert harness.led.image.state.live_count == 0


def test_another_leader_hears_of_what_was_put_off() -> None:
    harness = holding(2, credit=10)
    settle(harness, 2)
    harness.change_leader()
    harness.rest()
    assert harness.led.image.state.live_count == 0
