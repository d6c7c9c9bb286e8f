"""All that a quorum queue may be asked for, together, and asked for otherwise in between.

Limits, priorities, lifetimes, delayed retry, limits of deliveries and of time, a single active
consumer, dead letters: as `leading` checks them, whatever is under way and whoever leads.  After
each entry the follower is what a snapshot of it makes, and goes on as that; every message that has
come waits, is in hands, delayed or about to be handed on, or is gone for a reason that is counted.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.settings import settings_of
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.broker.queues.quorum.random_steps import rest, step
from tests.broker.queues.quorum.test_leadership import BROUGHT, PRIORITIES, make_small
from tests.suite.seeds import machine_settings

CHANCES = st.integers(0, 1 << 32).map(Random)


def drawn(chance: Random) -> QueueSpec:
    """A queue with some of what may be asked for."""
    spec = quorum(
        max_length=chance.choice([None, None, 0, 1, 3, 7]),
        max_length_bytes=chance.choice([None, None, None, 20, 100]),
        overflow=chance.choice([None, "drop-head", "reject-publish"]),
        delivery_limit=chance.choice([None, -1, 0, 1, 3]),
        message_ttl=chance.choice([None, None, 0, 100, 200]),
        dead_letter_exchange=chance.choice([None, "dlx"]),
        delayed_retry_type=chance.choice([None, "all", "failed", "returned"]),
        delayed_retry_min=chance.choice([20, 200]),
        delayed_retry_max=chance.choice([None, 90, 500]),
        consumer_timeout=chance.choice([None, None, 100, 400]),
        expires=chance.choice([None, 300]),
    )
    return replace(spec, single_active_consumer=chance.random() < 0.3)


class Restoring(LeaderHarness):
    """Leader harness whose follower is restored at each entry."""

    def apply(self, payload: bytes) -> None:
        super().apply(payload)
        restored = restored_image(take_snapshot(self.follower)[1])
        assert image_digest(restored) == image_digest(self.image), "a snapshot leaves out nothing"
        self.follower = restored


class EverythingMachine(RuleBasedStateMachine):
    @initialize(chance=CHANCES)
    def make(self, chance: Random) -> None:
        self.harness = Restoring(drawn(chance), PRIORITIES if chance.random() < 0.7 else ())
        self.harness.expirations = None, None, 0, 30, 300, [30, 0, 300]
        self.harness.now_ms = 1_000  # nothing is handed out at 0: that is a time that nobody knows
        if chance.random() < 0.6:
            self.harness.bring(*BROUGHT)

    @rule(chance=CHANCES, count=st.integers(1, 30))
    def go_on(self, chance: Random, count: int) -> None:
        for _ in range(count):
            step(self.harness, chance)

    @rule(chance=CHANCES)
    def change_settings(self, chance: Random) -> None:
        self.harness.change_settings(settings_of(drawn(chance)))

    @rule()
    def rest(self) -> None:
        rest(self.harness)

    @invariant()
    def all_are_somewhere(self) -> None:
        """Or gone for a reason."""
        state = self.harness.image.state
        live = state.waiting_count + state.held_count + state.delayed.count + state.pending.count
        assert state.next_sequence - 1 == live + sum(state.gone)

    def teardown(self) -> None:
        rest(self.harness)
        self.harness.outlive()


def test_an_example_in_which_nobody_hears_that_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader comes between, and gives the message to somebody else."""
    make_small(monkeypatch)
    machine = EverythingMachine()
    machine.make(Random(148163850))
    for seed, count in ((180, 23), (180, 20), (51064813, 13), (1, 11)):
        machine.go_on(Random(seed), count)
        machine.all_are_somewhere()
    assert machine.harness.image.state.gone
    machine.teardown()


def test_everything_together(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    run_state_machine_as_test(
        EverythingMachine, settings=machine_settings(examples=40, stateful_step_count=25)
    )
