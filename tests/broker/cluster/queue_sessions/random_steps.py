"""Whatever may happen to edges and leaders, one thing after the other; a seed makes a history."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fluffle.broker.cluster.queue_sessions.session_server import CONSUMER_DISCONNECTED_MS
from fluffle.broker.queues.queue_api import Outcome
from tests.broker.cluster.queue_sessions.session_harness import PLAIN, SessionHarness
from tests.broker.queues.quorum.leader_harness import full

OUTCOMES = [
    Outcome.ACKED,
    Outcome.ACKED,
    Outcome.ACKED,
    Outcome.REJECTED,
    Outcome.NACK_REQUEUED,
    Outcome.REJECT_REQUEUED,
]


REJECTING = full(4)
SPECS = [PLAIN, PLAIN, PLAIN, REJECTING]


def settle_some(harness: SessionHarness, node: str, chance: Random) -> None:
    held = harness.in_hands(node)
    if held:
        some = chance.sample(held, chance.randint(1, len(held)))
        harness.settle(node, some, chance.choice(OUTCOMES))


def get(harness: SessionHarness, node: str, chance: Random) -> None:
    """Get one message at a time on a channel."""
    channel = chance.choice([1, 2])
    harness.get_once(node, channel, no_ack=chance.random() < 0.2)


def detach(harness: SessionHarness, node: str, chance: Random) -> None:
    consumers = harness.clients[node].consumers
    if consumers:
        harness.detach(node, chance.choice(consumers))


def end_channel(harness: SessionHarness, node: str, chance: Random) -> None:
    channels = harness.channels_of(node)
    if channels:
        harness.end_channel(node, chance.choice(channels))


def silence(harness: SessionHarness, node: str) -> None:
    """Cut the node off for so long that nothing is under way any more."""
    harness.cut(node)
    harness.lose_all(node)
    harness.now_ms += CONSUMER_DISCONNECTED_MS
    harness.tick()


def step(harness: SessionHarness, chance: Random) -> None:
    """Take a random step."""
    node = chance.choice(list(harness.clients))
    steps: list[tuple[float, Callable[[], object]]] = [
        (6, lambda: harness.publish(node, chance.choice([1, 1, 3, 10]))),
        (
            2,
            lambda: harness.attach(
                node,
                credit=chance.choice([1, 3, 100]),
                prefetch=chance.choice([0, 2]),
                no_ack=chance.random() < 0.15,
            ),
        ),
        (8, lambda: settle_some(harness, node, chance)),
        (2, lambda: get(harness, node, chance)),
        (0.5, lambda: harness.purge(node)),
        (0.5, lambda: harness.give_up(node)),
        (1, lambda: detach(harness, node, chance)),
        (1, lambda: end_channel(harness, node, chance)),
        (30, lambda: harness.arrive(chance.randrange(99), chance.randrange(9))),
        (2, lambda: harness.drop(chance.randrange(99))),
        (14, harness.commit),
        (1, lambda: harness.link(node)),
        (1, lambda: harness.cut(node)),
        (0.3, lambda: silence(harness, node)),
        (0.3, lambda: harness.restart(node, chance.choice([1, 1, 0]))),
        (1, lambda: harness.change_leader(chance.randint(0, len(harness.led.proposals)))),
        (0.6, lambda: harness.lead_anew(chance.randint(0, len(harness.led.proposals)))),
        (1, lambda: harness.turn_to_leader(node)),
        (0.4, harness.rest),
        (0.1, harness.delete),
    ]
    weights = [weight for weight, _do in steps]
    chance.choices([do for _weight, do in steps], weights)[0]()


def random_history(seed: int, steps: int = 150) -> None:
    chance = Random(seed)
    harness = SessionHarness(spec=chance.choice(SPECS))
    for _ in range(steps):
        step(harness, chance)
    harness.rest()
