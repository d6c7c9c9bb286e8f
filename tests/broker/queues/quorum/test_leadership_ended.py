"""The remains of a leadership that has ended: nothing that waits for the garbage collector."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.quorum import proposals
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.queues.quorum.delayed_queue_harness import SPEC, DelayedQueueHarness, message
from tests.broker.queues.quorum.entry_harness import bodies, with_consumer
from tests.broker.queues.quorum.leader_harness import LeaderHarness, full, quorum
from tests.broker.queues.quorum.random_steps import step
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.suite.seeds import seeds
from tests.support.leader_services import FakeLeaderServices
from tests.support.leaks import garbage, without_collector

pytestmark = pytest.mark.usefixtures(without_collector.__name__)

KINDS = [
    QueueSpec("q", queue_type=QueueType.QUORUM),
    QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True),
    full(7),
    full(3, overflow=None),
    quorum(dead_letter_exchange="dlx", delivery_limit=1),
    quorum(message_ttl=100),
    quorum(expires=60_000),
    quorum(consumer_timeout=60_000),
    quorum(message_deduplication=True, cache_size=10),
    quorum(
        dead_letter_exchange="dlx", dead_letter_strategy="at-least-once",
        overflow="reject-publish", delivery_limit=0,
    ),
    quorum(delayed_retry_type="all", delayed_retry_min=40, delayed_retry_max=90),
]  # fmt: skip
"""Queues whose leaders have other parts."""


def end(harness: LeaderHarness) -> None:
    """End the leadership of a harness; what is under way has an unknown outcome."""
    harness.led.end()
    del harness.led
    while harness.proposals:
        _payload, on_outcome = harness.proposals.popleft()
        on_outcome(False)


@seeds(10)
@pytest.mark.parametrize("spec", KINDS)
def test_it_needs_no_collector_whatever_has_happened(spec: QueueSpec, seed: int) -> None:
    chance, harness = Random(seed), LeaderHarness(spec, (None, 3) if seed % 2 else ())
    garbage()
    for _ in range(80):
        step(harness, chance)
    end(harness)
    assert garbage() == []


def test_it_needs_no_collector_if_messages_wait_until_they_are_due() -> None:
    harness = DelayedQueueHarness()
    harness.takes_at_once = False
    garbage()
    harness.publish_all(100, 10_000)
    harness.settle_down()
    harness.now_ms += 200
    harness.is_touched = True
    harness.settle_down()
    assert harness.parcels
    end(harness)
    harness.parcels.clear()
    assert garbage() == []


def test_it_needs_no_collector_if_deliveries_wait_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluffle.broker.queues.quorum.holders.LEAVING_BYTES_MAX", 1)
    harness, session, _key = with_consumer()
    harness.led.attach(session, 2, Terms(1, "other"))
    harness.settle_down()
    garbage()
    harness.led.publish(session, 3, *bodies(4))
    harness.turn()
    harness.led.publish(session, 7, *bodies(4))
    harness.turn()
    end(harness)
    assert garbage() == []


def test_what_comes_late_finds_an_ended_leadership_without_work() -> None:
    """The outcome of an entry, a dead letter that has arrived, and a turn."""
    harness = DelayedQueueHarness()
    harness.takes_at_once = False
    harness.publish_all(100)
    harness.settle_down()
    harness.now_ms += 200
    harness.is_touched = True
    harness.settle_down()
    harness.publish_all(100)
    harness.turn()
    led = harness.led
    led.end()
    for _payload, on_outcome in list(harness.proposals):
        on_outcome(True)
    for parcel in harness.parcels:
        parcel.known("target", is_accepted=True)
    harness.proposals.clear()
    harness.is_touched = True
    harness.turn()
    assert (len(harness.proposals), harness.ended) == (0, 0)


class ClosingLog(FakeLeaderServices):
    """Services whose log takes so many entries, and refuses the next ones at once, as that of a
    node does that has stopped."""

    def __init__(self, taken: int) -> None:
        super().__init__(SPEC, [])
        self.left = taken
        self.ended_count = 0

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self.left -= 1
        if self.left >= 0:
            super().propose(payload, on_outcome)
        else:
            on_outcome(False)

    def ended(self) -> None:
        self.ended_count += 1


@pytest.mark.parametrize("taken", range(9))
def test_it_may_end_while_it_proposes(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    """Whatever is proposed: messages, and the pieces of a purge."""
    monkeypatch.setattr(proposals, "PIECE_RUNS", 1)
    services, image = ClosingLog(taken), QueueImage()
    led = Leadership(image, services, services, term=1)
    garbage()
    session = led.sessions.open(SessionId("a", 1, 1, 1))
    for number in range(1, 4 * taken + 5):
        if number % 4:
            led.publish(session, number, [ORIGIN], [message(number, 1_000)])
        else:
            led.purge(session, number)
        led.pump()
        while services.proposals:
            payload, on_outcome = services.proposals.popleft()
            services.entries.append(payload)
            image.apply(len(services.entries), payload)
            on_outcome(True)
            led.pump()
    assert (led.is_over, services.ended_count, services.left) == (True, 1, -1)
    del led
    assert garbage() == []
