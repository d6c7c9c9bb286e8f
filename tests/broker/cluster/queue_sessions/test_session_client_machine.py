"""Edges and leaders under whatever rules choose: the shortest history that fails is shown."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fluffle.broker.queues.arguments import QueueSpec
from tests.broker.cluster.queue_sessions import random_steps
from tests.broker.cluster.queue_sessions.session_harness import SessionHarness
from tests.suite.seeds import machine_settings

NODE = st.sampled_from(["near", "left"])
PLACE = st.integers(0, 5)


Given = Callable[[SessionHarness, str, Random], object]


def purge(harness: SessionHarness, node: str, _chance: Random) -> None:
    harness.purge(node)


def link(harness: SessionHarness, node: str, _chance: Random) -> None:
    harness.link(node)


def cut(harness: SessionHarness, node: str, _chance: Random) -> None:
    harness.cut(node)


def silence(harness: SessionHarness, node: str, _chance: Random) -> None:
    random_steps.silence(harness, node)


def drop(harness: SessionHarness, _node: str, chance: Random) -> None:
    harness.drop(chance.randrange(9))


def restart(harness: SessionHarness, node: str, chance: Random) -> None:
    harness.restart(node, chance.randint(0, 1))


def delete(harness: SessionHarness, _node: str, _chance: Random) -> None:
    harness.delete()


def turn_to_leader(harness: SessionHarness, node: str, _chance: Random) -> None:
    harness.turn_to_leader(node)


class StreamMachine(RuleBasedStateMachine):
    """Random steps of sessions, all checked by the harness."""

    harness: SessionHarness

    @initialize(spec=st.sampled_from(random_steps.SPECS))
    def begin(self, spec: QueueSpec) -> None:
        self.harness = SessionHarness(spec=spec)

    # Clients

    @rule(node=NODE, count=st.integers(1, 3))
    def publish(self, node: str, count: int) -> None:
        self.harness.publish(node, count)

    @rule(
        node=NODE,
        credit=st.sampled_from([3, 1, 0]),
        prefetch=st.sampled_from([0, 1]),
        no_ack=st.booleans(),
    )
    def attach(self, node: str, *, credit: int, prefetch: int, no_ack: bool) -> None:
        self.harness.attach(node, credit=credit, prefetch=prefetch, no_ack=no_ack)

    @rule(node=NODE, channel=st.integers(1, 2), no_ack=st.booleans())
    def get(self, node: str, channel: int, *, no_ack: bool) -> None:
        self.harness.get_once(node, channel, no_ack=no_ack)

    @precondition(lambda self: self.harness.model.unacked)
    @rule(chance=st.randoms(use_true_random=False), node=NODE)
    def settle(self, chance: Random, node: str) -> None:
        random_steps.settle_some(self.harness, node, chance)

    @rule(
        chance=st.randoms(use_true_random=False),
        node=NODE,
        what=st.sampled_from([random_steps.end_channel, random_steps.detach, purge]),
    )
    def give_up(self, chance: Random, node: str, what: Given) -> None:
        what(self.harness, node, chance)

    # The network and the log

    @precondition(lambda self: any(not wire.is_empty for wire in self.harness.wires.values()))
    @rule(at=PLACE, link=PLACE, count=st.integers(1, 4))
    def arrive(self, at: int, link: int, count: int) -> None:
        for _ in range(count):
            self.harness.arrive(at, link)

    @precondition(lambda self: self.harness.led.proposals)
    @rule(count=st.integers(1, 3))
    def commit(self, count: int) -> None:
        for _ in range(count):
            self.harness.commit()

    @rule(steps=st.integers(1, 20))
    def go_on(self, steps: int) -> None:
        """Things go their way."""
        for _ in range(steps):
            self.harness.arrive()
            self.harness.commit()

    # What goes wrong

    @rule(
        chance=st.randoms(use_true_random=False),
        node=NODE,
        what=st.sampled_from([link, cut, silence, drop, restart, delete, turn_to_leader]),
    )
    def happen(self, chance: Random, node: str, what: Given) -> None:
        what(self.harness, node, chance)

    @rule(kept=PLACE, begins_anew=st.sampled_from([False, False, True]))
    def change_leader(self, kept: int, *, begins_anew: bool) -> None:
        if begins_anew:
            self.harness.lead_anew(kept)
        else:
            self.harness.change_leader(kept)

    def teardown(self) -> None:
        self.harness.rest()


TestStreamMachine = StreamMachine.TestCase
TestStreamMachine.settings = machine_settings(stateful_step_count=40)
