"""What may happen to a led queue and its clients, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from fluffle.broker.queues.delivery import Outcome
from tests.broker.queues.quorum.leading import Bench

COMES_BACK = [Outcome.NACK_REQUEUED, Outcome.REJECT_REQUEUED, Outcome.LOST]


def step(bench: Bench, chance: Random) -> None:
    """Something happens."""
    if not bench.edges:
        bench.attach(bench.open_edge())
    edge = chance.choice(bench.edges)
    holding = list(edge.holds)
    some = chance.sample(holding, chance.randint(1, len(holding))) if holding else []
    consumers = list(edge.consumers)
    steps: list[tuple[float, Callable[[], Any]]] = [
        (
            6,
            lambda: bench.publish(
                edge,
                chance.choice([1, 1, 3, 20]),
                chance.choice(bench.expirations),
                chance.choice(bench.priorities) if bench.priorities else None,
            ),
        ),
        (
            3,
            lambda: bench.attach(
                edge,
                prefetch=chance.choice([0, 1, 5]),
                no_ack=chance.random() < 0.2,
                priority=chance.choice([0, 0, 1, -1]),
            ),
        ),
        (6, lambda: bench.end(edge, sorted(some), Outcome.ACKED)),
        (2, lambda: bench.end(edge, some, Outcome.ACKED)),
        (1, lambda: bench.end(edge, some, Outcome.REJECTED)),
        (3, lambda: bench.end(edge, some, chance.choice(COMES_BACK))),
        (2, lambda: bench.get(edge, no_ack=chance.random() < 0.3)),
        (0.3, lambda: bench.purge(edge)),
        (1, lambda: bench.detach(edge, consumers[:1], None)),
        (1, lambda: bench.detach(edge, consumers[-1:], Outcome.LOST)),
        (0.5, lambda: bench.detach(edge, list(edge.getters), Outcome.LOST)),
        (1 if len(bench.edges) < 3 else 0, bench.open_edge),
        (0.3, lambda: bench.lose(edge)),
        (1, lambda: setattr(edge, "is_cut", True)),
        (1, lambda: bench.resume(edge)),
        (1, lambda: setattr(bench, "now_ms", bench.now_ms + chance.randint(-50, 100))),
        (8, bench.turn),
        (8, bench.commit),
        (2, lambda: change_leader(bench, chance)),
    ]
    weights = [weight for weight, _do in steps]
    chance.choices([do for _weight, do in steps], weights)[0]()


def change_leader(bench: Bench, chance: Random) -> None:
    kept = chance.randint(0, len(bench.proposals))
    bench.change_leader(kept, is_elsewhere=chance.random() < 0.5)


def rest(bench: Bench) -> None:
    """All links are whole, and nothing is under way."""
    for edge in bench.edges:
        if edge.is_cut:
            bench.resume(edge)
    bench.is_touched = True  # by the clock, if anything is due
    bench.settle_down()
    bench.check()
