"""Steps that a led queue and its clients may take, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fluffle.broker.queues.queue_api import Outcome
from tests.broker.queues.quorum.leader_harness import LeaderHarness

COMES_BACK = [Outcome.NACK_REQUEUED, Outcome.REJECT_REQUEUED, Outcome.LOST]


def step(harness: LeaderHarness, chance: Random) -> None:
    """Take a random step."""
    if not harness.edges:
        harness.attach(harness.open_edge())
    edge = chance.choice(harness.edges)
    holding = list(edge.holds)
    some = chance.sample(holding, chance.randint(1, len(holding))) if holding else []
    consumers = list(edge.consumers)
    steps: list[tuple[float, Callable[[], Any]]] = [
        (
            6,
            lambda: harness.publish(
                edge,
                chance.choice([1, 1, 3, 20]),
                chance.choice(harness.expirations),
                chance.choice(harness.priorities) if harness.priorities else None,
            ),
        ),
        (
            3,
            lambda: harness.attach(
                edge,
                prefetch=chance.choice([0, 1, 5]),
                no_ack=chance.random() < 0.2,
                priority=chance.choice([0, 0, 1, -1]),
            ),
        ),
        (6, lambda: harness.end(edge, sorted(some), Outcome.ACKED)),
        (2, lambda: harness.end(edge, some, Outcome.ACKED)),
        (1, lambda: harness.end(edge, some, Outcome.REJECTED)),
        (3, lambda: harness.end(edge, some, chance.choice(COMES_BACK))),
        (2, lambda: harness.get(edge, no_ack=chance.random() < 0.3)),
        (0.3, lambda: harness.purge(edge)),
        (1, lambda: harness.detach(edge, consumers[:1], None)),
        (1, lambda: harness.detach(edge, consumers[-1:], Outcome.LOST)),
        (0.5, lambda: harness.detach(edge, list(edge.getters), Outcome.LOST)),
        (1 if len(harness.edges) < 3 else 0, harness.open_edge),
        (0.3, lambda: harness.lose(edge)),
        (1, lambda: setattr(edge, "is_cut", True)),
        (1, lambda: harness.resume(edge)),
        (1, lambda: setattr(harness, "now_ms", harness.now_ms + chance.randint(-50, 100))),
        (8, harness.turn),
        (8, harness.commit),
        (2, lambda: change_leader(harness, chance)),
    ]
    weights = [weight for weight, _do in steps]
    chance.choices([do for _weight, do in steps], weights)[0]()


def change_leader(harness: LeaderHarness, chance: Random) -> None:
    kept = chance.randint(0, len(harness.proposals))
    harness.change_leader(kept, is_elsewhere=chance.random() < 0.5)


def rest(harness: LeaderHarness) -> None:
    """All links are whole, and nothing is under way."""
    for edge in harness.edges:
        if edge.is_cut:
            harness.resume(edge)
    harness.is_touched = True  # by the clock, if anything is due
    harness.settle_down()
    harness.check()
