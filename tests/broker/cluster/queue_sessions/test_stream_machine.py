"""Edges and leaders under whatever rules choose: the shortest history that fails is shown."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fluffle.broker.queues.arguments import QueueSpec
from tests.broker.cluster.queue_sessions import happenings
from tests.broker.cluster.queue_sessions.world import World
from tests.suite.seeds import machine_settings

NODE = st.sampled_from(["near", "left"])
PLACE = st.integers(0, 5)


Given = Callable[[World, str, Random], object]


def purge(world: World, node: str, _chance: Random) -> None:
    world.purge(node)


def link(world: World, node: str, _chance: Random) -> None:
    world.link(node)


def cut(world: World, node: str, _chance: Random) -> None:
    world.cut(node)


def silence(world: World, node: str, _chance: Random) -> None:
    happenings.silence(world, node)


def drop(world: World, _node: str, chance: Random) -> None:
    world.drop(chance.randrange(9))


def restart(world: World, node: str, chance: Random) -> None:
    world.restart(node, chance.randint(0, 1))


def delete(world: World, _node: str, _chance: Random) -> None:
    world.delete()


def turn_to_leader(world: World, node: str, _chance: Random) -> None:
    world.turn_to_leader(node)


class StreamMachine(RuleBasedStateMachine):
    """What each rule does is checked by the world, all along."""

    world: World

    @initialize(spec=st.sampled_from(happenings.SPECS))
    def begin(self, spec: QueueSpec) -> None:
        self.world = World(spec=spec)

    # Clients

    @rule(node=NODE, count=st.integers(1, 3))
    def publish(self, node: str, count: int) -> None:
        self.world.publish(node, count)

    @rule(
        node=NODE,
        credit=st.sampled_from([3, 1, 0]),
        prefetch=st.sampled_from([0, 1]),
        no_ack=st.booleans(),
    )
    def attach(self, node: str, *, credit: int, prefetch: int, no_ack: bool) -> None:
        self.world.attach(node, credit=credit, prefetch=prefetch, no_ack=no_ack)

    @rule(node=NODE, channel=st.integers(1, 2), no_ack=st.booleans())
    def get(self, node: str, channel: int, *, no_ack: bool) -> None:
        self.world.get_once(node, channel, no_ack=no_ack)

    @precondition(lambda self: self.world.ghost.hands)
    @rule(chance=st.randoms(use_true_random=False), node=NODE)
    def settle(self, chance: Random, node: str) -> None:
        happenings.settle_some(self.world, node, chance)

    @rule(
        chance=st.randoms(use_true_random=False),
        node=NODE,
        what=st.sampled_from([happenings.end_channel, happenings.detach, purge]),
    )
    def give_up(self, chance: Random, node: str, what: Given) -> None:
        what(self.world, node, chance)

    # The network and the log

    @precondition(lambda self: any(not wire.is_empty for wire in self.world.wires.values()))
    @rule(at=PLACE, link=PLACE, count=st.integers(1, 4))
    def arrive(self, at: int, link: int, count: int) -> None:
        for _ in range(count):
            self.world.arrive(at, link)

    @precondition(lambda self: self.world.led.proposals)
    @rule(count=st.integers(1, 3))
    def commit(self, count: int) -> None:
        for _ in range(count):
            self.world.commit()

    @rule(steps=st.integers(1, 20))
    def go_on(self, steps: int) -> None:
        """Things go their way."""
        for _ in range(steps):
            self.world.arrive()
            self.world.commit()

    # What goes wrong

    @rule(
        chance=st.randoms(use_true_random=False),
        node=NODE,
        what=st.sampled_from([link, cut, silence, drop, restart, delete, turn_to_leader]),
    )
    def happen(self, chance: Random, node: str, what: Given) -> None:
        what(self.world, node, chance)

    @rule(kept=PLACE, begins_anew=st.sampled_from([False, False, True]))
    def change_leader(self, kept: int, *, begins_anew: bool) -> None:
        if begins_anew:
            self.world.lead_anew(kept)
        else:
            self.world.change_leader(kept)

    def teardown(self) -> None:
        self.world.rest()


TestStreamMachine = StreamMachine.TestCase
TestStreamMachine.settings = machine_settings(stateful_step_count=40)
