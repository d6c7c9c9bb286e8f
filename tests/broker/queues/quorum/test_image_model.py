"""The image against a model that a child could check, through any history that is possible.

Besides equality after each entry: a snapshot taken at any index goes on as the image it was taken
of, nothing is lost or comes from nowhere, what must only rise rises, and the log holds what is
live, whatever of it was deleted or made smaller.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fluffle.broker.queues.quorum import entries
from fluffle.broker.queues.quorum.state import QueueState
from tests.broker.queues.quorum.history import OPERATIONS, History
from tests.broker.queues.quorum.image_comparison import MemberImage
from tests.suite.seeds import machine_settings, seeds


class ImageMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.reported = MemberImage()
        self.reported.do(History.open_session, Random(1))
        self.rising = rising(self.reported.members[0].image.state)

    @rule(operation=st.sampled_from(OPERATIONS), chance=st.randoms(use_true_random=False))
    def do(self, operation: Any, chance: Random) -> None:
        self.reported.do(operation, chance)

    @rule()
    def commit(self) -> None:
        self.reported.commit()
        self.reported.check()

    @rule()
    def compact(self) -> None:
        self.reported.members[0].compact()

    @rule()
    def add_member(self) -> None:
        self.reported.add_member()

    @invariant()
    def only_rises(self) -> None:
        before, self.rising = self.rising, rising(self.reported.members[0].image.state)
        assert all(
            self.rising[name] >= value for name, value in before.items() if name in self.rising
        )


def rising(state: QueueState) -> dict[Any, Any]:
    """Values that never fall, by name."""
    values: dict[Any, Any] = {
        "index": state.index,
        "queue time": state.queue_time_ms,
        "revision": state.revision,
        "next sequence": state.next_sequence,
        "next key": state.next_key,
    }
    values |= {("session", key): session.next for key, session in state.sessions.items()}
    values |= {("version", member): version for member, version in state.versions.items()}
    values |= {("gone", reason): count for reason, count in enumerate(state.gone)}
    return values


@pytest.fixture(autouse=True)
def _dead_entries_are_swept_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "COMPACT_ENTRIES", 2)


def test_any_history() -> None:
    run_state_machine_as_test(
        ImageMachine, settings=machine_settings(examples=25, stateful_step_count=40)
    )


@seeds(5)
def test_long_histories(seed: int) -> None:
    tell(Random(seed), count=50)


@seeds(range(100, 145), at_night=200, slow=True)
def test_many_long_histories(seed: int) -> None:
    tell(Random(seed), count=100)


def tell(chance: Random, *, count: int) -> None:
    """A history of so many entries, looked at after each; raises what is wrong."""
    reported = MemberImage()
    for _ in range(3):
        reported.do(History.open_session, chance)
        reported.do(History.attach, chance)
    for _ in range(count):
        for _ in range(chance.randint(1, 12)):
            reported.do(chance.choice(OPERATIONS), chance)
        reported.commit()
        reported.check()
        if not chance.randint(0, 5):
            reported.members[0].compact()
        if not chance.randint(0, 5):
            reported.add_member()
