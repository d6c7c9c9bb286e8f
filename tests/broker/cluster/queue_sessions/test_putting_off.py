"""Acknowledgements that bring nobody anything go with what is said next, or after a while."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.delivery import Outcome
from tests.broker.cluster.queue_sessions.world import World


def holding(count: int, *, credit: int) -> World:
    """A consumer of `near` has messages in hands, of as many as it takes."""
    world = World(("near",))
    world.attach("near", credit=credit, prefetch=credit)
    world.publish("near", count)
    world.rest()
    assert sum(len(token.run) for token in world.in_hands("near")) == min(count, credit)
    return world


def settle(world: World, count: int, outcome: Outcome = Outcome.ACKED) -> None:
    """The first messages, one call each."""
    for _ in range(count):
        token = world.in_hands("near")[0]
        world.settle("near", [token._replace(run=token.run[:1])], outcome)


def on_its_way(world: World) -> bool:
    """Whether anything is, to the leader."""
    return not world.wire("near", to_leader=True).is_empty


def test_an_acknowledgement_waits_for_what_is_said_next() -> None:
    world = holding(2, credit=10)
    settle(world, 2)
    assert not on_its_way(world)
    world.publish("near")
    assert world.clients["near"].edge.put_off == 0
    world.rest()
    assert world.led.image.state.live_count == 1


def test_it_does_not_wait_for_ever() -> None:
    world = holding(2, credit=10)
    settle(world, 2)
    world.hurry("near")
    assert on_its_way(world)


def test_nobody_waits_for_room_that_acknowledgements_make() -> None:
    """With the least prefetch, and once half of a larger one is taken."""
    world = holding(2, credit=1)
    settle(world, 1)
    assert on_its_way(world)
    world = holding(6, credit=10)
    settle(world, 1)
    assert on_its_way(world)


@pytest.mark.parametrize(
    "outcome", [Outcome.REJECTED, Outcome.NACK_REQUEUED, Outcome.REJECT_REQUEUED]
)
def test_what_comes_back_or_dies_waits_for_nothing(outcome: Outcome) -> None:
    world = holding(2, credit=10)
    settle(world, 1, outcome)
    assert on_its_way(world)


def test_what_comes_meanwhile_and_takes_the_room_is_what_it_waits_for() -> None:
    world = World(("near", "left"))
    world.attach("near", credit=4, prefetch=4)
    world.publish("left", 1)
    world.rest()
    settle(world, 1)
    assert not on_its_way(world)
    world.publish("left", 3)
    while world.led.proposals or not on_its_way(world):
        world.arrive()
        world.commit()
    assert world.clients["near"].edge.put_off == 0


def test_what_nobody_consumes_any_more_waits() -> None:
    world = holding(2, credit=2)
    world.detach("near", world.clients["near"].consumers[0])
    world.rest()
    settle(world, 2)
    assert not on_its_way(world)
    world.rest()
    assert world.led.image.state.live_count == 0


def test_another_leader_hears_of_what_was_put_off() -> None:
    world = holding(2, credit=10)
    settle(world, 2)
    world.change_leader()
    world.rest()
    assert world.led.image.state.live_count == 0
