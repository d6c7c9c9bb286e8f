"""Whatever may happen to edges and leaders, one thing after the other; a seed makes a history."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fluffle.broker.cluster.queue_sessions.session_server import CONSUMER_DISCONNECTED_MS
from fluffle.broker.queues.delivery import Outcome
from tests.broker.cluster.queue_sessions.world import PLAIN, World
from tests.broker.queues.quorum.leading import full

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


def settle_some(world: World, node: str, chance: Random) -> None:
    held = world.in_hands(node)
    if held:
        some = chance.sample(held, chance.randint(1, len(held)))
        world.settle(node, some, chance.choice(OUTCOMES))


def get(world: World, node: str, chance: Random) -> None:
    """One at a time on a channel."""
    channel = chance.choice([1, 2])
    world.get_once(node, channel, no_ack=chance.random() < 0.2)


def detach(world: World, node: str, chance: Random) -> None:
    consumers = world.clients[node].consumers
    if consumers:
        world.detach(node, chance.choice(consumers))


def end_channel(world: World, node: str, chance: Random) -> None:
    channels = world.channels_of(node)
    if channels:
        world.end_channel(node, chance.choice(channels))


def silence(world: World, node: str) -> None:
    """For so long that nothing of what was sent is on its way any more."""
    world.cut(node)
    world.lose_all(node)
    world.now_ms += CONSUMER_DISCONNECTED_MS
    world.tick()


def step(world: World, chance: Random) -> None:
    """Something happens."""
    node = chance.choice(list(world.clients))
    steps: list[tuple[float, Callable[[], object]]] = [
        (6, lambda: world.publish(node, chance.choice([1, 1, 3, 10]))),
        (
            2,
            lambda: world.attach(
                node,
                credit=chance.choice([1, 3, 100]),
                prefetch=chance.choice([0, 2]),
                no_ack=chance.random() < 0.15,
            ),
        ),
        (8, lambda: settle_some(world, node, chance)),
        (2, lambda: get(world, node, chance)),
        (0.5, lambda: world.purge(node)),
        (0.5, lambda: world.give_up(node)),
        (1, lambda: detach(world, node, chance)),
        (1, lambda: end_channel(world, node, chance)),
        (30, lambda: world.arrive(chance.randrange(99), chance.randrange(9))),
        (2, lambda: world.drop(chance.randrange(99))),
        (14, world.commit),
        (1, lambda: world.link(node)),
        (1, lambda: world.cut(node)),
        (0.3, lambda: silence(world, node)),
        (0.3, lambda: world.restart(node, chance.choice([1, 1, 0]))),
        (1, lambda: world.change_leader(chance.randint(0, len(world.led.proposals)))),
        (0.6, lambda: world.lead_anew(chance.randint(0, len(world.led.proposals)))),
        (1, lambda: world.turn_to_leader(node)),
        (0.4, world.rest),
        (0.1, world.delete),
    ]
    weights = [weight for weight, _do in steps]
    chance.choices([do for _weight, do in steps], weights)[0]()


def whatever(seed: int, steps: int = 150) -> None:
    chance = Random(seed)
    world = World(spec=chance.choice(SPECS))
    for _ in range(steps):
        step(world, chance)
    world.rest()
