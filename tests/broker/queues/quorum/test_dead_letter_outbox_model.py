"""Whatever happens to a queue and its leaders, what has died in it and must arrive does."""

from __future__ import annotations

from random import Random

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages, PendingDeadLetter
from fluffle.broker.queues.quorum.dead_letter_outbox import CONFIRM_TIMEOUT_MS
from fluffle.broker.queues.quorum.facts import RemovalReason
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.broker.queues.quorum.random_steps import rest, step
from tests.broker.queues.quorum.session_clients import SessionClients
from tests.broker.queues.quorum.test_leadership import make_small
from tests.suite.seeds import seeds

SURE: dict[str, PlainValue] = {
    "dead_letter_exchange": "dlx",
    "dead_letter_strategy": "at-least-once",
    "overflow": "reject-publish",
    "max_length": 60,
}

KINDS = [quorum(**SURE, delivery_limit=1), quorum(**SURE, message_ttl=300)]
"""Queues: in one each message dies alone, in the other many at once."""

LOOKS_MAX = 1_000
"""Most looks at which all that is under way arrives, until nothing is left."""


class Sending(LeaderHarness):
    """With one queue where the dead lead; it takes them, or not, or says nothing."""

    def __init__(self, spec: QueueSpec) -> None:
        self.under_way: list[tuple[bytes, PendingDeadLetter]] = []
        self.arrived: set[bytes] = set()
        super().__init__(spec)

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert dead.time_ms is not None
        assert dead.time_ms <= self.image.state.queue_time_ms
        assert dead.parcels is not None
        for content, parcel in zip(dead.contents, dead.parcels, strict=True):
            parcel.lead(["target"])
            parcel.finish()
            self.under_way.append((content, parcel))

    def purge(self, edge: SessionClients) -> None:
        """Do not purge: nothing would be known of the purged messages."""

    def answer(self, place: int, *, is_accepted: bool) -> None:
        content, parcel = self.under_way.pop(place)
        if is_accepted:
            self.arrived.add(content)
        parcel.known("target", is_accepted=is_accepted)

    def check(self) -> None:
        assert self.image.state.pending.count == self.led.outbox.count
        looks = 0
        while self.image.state.pending.count:
            looks += 1
            assert looks < LOOKS_MAX, "they do not arrive"
            while self.under_way:
                self.answer(0, is_accepted=True)
            self.now_ms += CONFIRM_TIMEOUT_MS
            self.is_touched = True
            self.settle_down()
        super().check()

    def check_dead(self) -> None:
        state = self.image.state
        assert self.rejected <= self.arrived
        assert state.gone[RemovalReason.DEAD_LETTERED] == len(self.arrived)
        assert not any(
            state.gone[reason] for reason in (RemovalReason.REJECTED, RemovalReason.DELIVERY_LIMIT)
        )


def whatever(seed: int, steps: int) -> None:
    chance, harness = Random(seed), Sending(KINDS[seed % len(KINDS)])
    for _ in range(steps):
        step(harness, chance)
        if harness.under_way and chance.random() < 0.3:
            place = chance.randrange(len(harness.under_way))
            harness.answer(place, is_accepted=chance.random() < 0.7)
        if chance.random() < 0.05:
            rest(harness)
    rest(harness)


@pytest.fixture(autouse=True)
def _everything_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr("fluffle.broker.queues.quorum.dead_letter_outbox.UNDER_WAY_MAX", 4)


@seeds(12)
def test_what_must_arrive_does(seed: int) -> None:
    whatever(seed, steps=200)


@seeds(range(100, 138), at_night=200, slow=True)
def test_what_must_arrive_does_for_long(seed: int) -> None:
    whatever(seed, steps=800)
