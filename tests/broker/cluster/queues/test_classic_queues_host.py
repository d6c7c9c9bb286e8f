"""The home of a classic queue: what clients of other nodes are promised, and those beside them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions.session_client import AttachTerms
from fluffle.broker.cluster.queue_sessions.session_server import CONSUMER_DISCONNECTED_MS
from fluffle.broker.queues.conversion_buffer import ConversionHold
from fluffle.broker.queues.journal import Damage
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from tests.broker.cluster.queue_sessions.random_steps import OUTCOMES
from tests.broker.cluster.queues.classic_queue_harness import ClassicHostHarness
from tests.suite.seeds import seeds


def in_hands(world: ClassicHostHarness, node: str) -> int:
    return sum(len(token.run) for token in world.clients[node].in_hands())


def attach(world: ClassicHostHarness, node: str, terms: AttachTerms, credit: int = 10) -> int:
    client = world.clients[node]
    channel = client.names.channel()
    number = client.asking.attach(channel, terms, credit)
    client.model.asks(node, number, "attach", channel, no_ack=terms.no_ack)
    return number


# Publishing


def test_a_publish_is_confirmed_once_it_is_durable() -> None:
    world = ClassicHostHarness()
    world.clients["near"].publish(3)
    world.pump()
    world.arrive()
    world.arrive()
    assert (world.queue.ready_count, world.model.confirmed) == (3, set())
    world.rest()
    assert world.model.confirmed == {b"body 0", b"body 1", b"body 2"}


def test_a_publish_to_a_queue_without_a_journal_waits_for_nothing() -> None:
    world = ClassicHostHarness(durable=False)
    world.clients["near"].publish(2)
    world.pump()
    while any(not wire.is_empty for wire in world.wires.values()):
        world.arrive()
    assert world.model.confirmed == {b"body 0", b"body 1"}


def test_what_was_done_is_not_done_again_over_the_next_link() -> None:
    world = ClassicHostHarness()
    world.clients["near"].publish(2)
    world.pump()
    world.arrive()
    world.link("near")
    world.drop()  # what the home had said of it
    world.rest()
    assert world.queue.ready_count == 2
    assert len(world.model.confirmed) == 2


# Consuming


def test_consumers_of_edges_and_of_the_home_take_fair_turns() -> None:
    world = ClassicHostHarness()
    own = world.neighbour()
    for node in ("near", "far"):
        world.clients[node].attach(credit=100, no_ack=False, prefetch=0)
    world.rest()
    world.publish_here(30)
    world.rest()
    assert [len(own.contents), in_hands(world, "near"), in_hands(world, "far")] == [10, 10, 10]


def test_a_consumer_of_an_edge_with_a_higher_priority_comes_first() -> None:
    world = ClassicHostHarness()
    own = world.neighbour()
    attach(world, "near", AttachTerms("tag", priority=5), credit=7)
    world.rest()
    world.publish_here(10)
    world.rest()
    assert (in_hands(world, "near"), len(own.contents)) == (7, 3)


@pytest.mark.parametrize("no_ack", [False, True])
def test_an_edge_is_sent_no_more_than_it_takes(no_ack: bool) -> None:
    world = ClassicHostHarness(("near",))
    world.clients["near"].attach(credit=3, no_ack=no_ack, prefetch=0)
    world.rest()
    world.publish_here(50)
    assert len(world.model.handed) == 3


def test_an_exclusive_consumer_is_alone_wherever_the_others_are() -> None:
    world = ClassicHostHarness()
    near, far = world.clients["near"], world.clients["far"]
    first = attach(world, "near", AttachTerms("alone", is_exclusive=True))
    world.rest()
    second = attach(world, "far", AttachTerms("second"))
    world.rest()
    assert far.heard == [happened.AttachRejected(second)]
    near.detach(first)
    world.rest()
    attach(world, "far", AttachTerms("third"))
    world.rest()
    assert len(far.consumers) == 1


def test_a_consumer_that_wants_to_be_alone_is_refused_beside_one_of_the_home() -> None:
    world = ClassicHostHarness()
    world.neighbour()
    number = attach(world, "far", AttachTerms("alone", is_exclusive=True))
    world.rest()
    assert world.clients["far"].heard == [happened.AttachRejected(number)]


def test_the_last_consumer_to_go_is_reported_if_it_was_one_of_an_edge() -> None:
    world = ClassicHostHarness()
    number = world.clients["near"].attach(credit=1, no_ack=False, prefetch=0)
    world.clients["far"].attach(credit=1, no_ack=False, prefetch=0)
    world.rest()
    world.clients["near"].detach(number)
    world.rest()
    assert world.unused == 0
    world.restart("far")
    world.rest()
    assert world.unused == 1


def test_what_a_dead_edge_held_comes_back_for_others() -> None:
    world = ClassicHostHarness()
    world.clients["near"].attach(credit=10, no_ack=False, prefetch=0)
    world.rest()
    world.publish_here(4)
    world.rest()
    own = world.neighbour()
    world.restart("near")
    world.rest()
    assert sorted(own.contents) == [b"body 0", b"body 1", b"body 2", b"body 3"]
    assert all(delivery_batch.redelivered for delivery_batch in own.delivery_batches)


def test_a_silent_edge_keeps_what_it_holds_for_a_minute() -> None:
    world = ClassicHostHarness()
    world.clients["near"].attach(credit=10, no_ack=False, prefetch=0)
    world.rest()
    world.publish_here(2)
    world.rest()
    world.cut("near")
    world.now_ms += CONSUMER_DISCONNECTED_MS - 1
    world.tick()
    assert world.queue.in_flight == 2
    world.now_ms += 1
    world.tick()
    assert (world.queue.in_flight, world.queue.ready_count) == (0, 2)
    world.rest()
    assert (in_hands(world, "near"), world.clients["near"].consumers) == (0, [])


# Getting, purging, and a home that starts again


def test_a_get_takes_the_next_and_says_how_many_are_left() -> None:
    world = ClassicHostHarness()
    world.publish_here(3)
    client = world.clients["near"]
    client.get(client.names.channel(), no_ack=False)
    world.rest()
    (got,) = client.heard
    assert isinstance(got, m.GetAnswer)
    (deliver,) = got.delivers
    assert (got.ready, deliver.contents) == (2, [b"body 0"])


def test_a_get_from_a_queue_that_has_crashed_says_so() -> None:
    world = ClassicHostHarness()
    world.publish_here(2)
    world.queue.damage = Damage("a log", "it cannot be read")
    world.queue.get = lambda _holder: None  # type: ignore[method-assign, assignment]
    number = world.clients["near"].get(1, no_ack=False)
    world.rest()
    (got,) = world.clients["near"].heard
    assert isinstance(got, m.GetAnswer)
    assert (got.number, got.ready, got.delivers, got.is_crashed) == (number, 2, [], True)


def test_a_purge_says_how_many_waited() -> None:
    world = ClassicHostHarness()
    world.publish_here(5)
    number = world.clients["near"].asking.purge()
    world.rest()
    assert world.clients["near"].heard == [happened.PurgeDone(number, 5)]


def over_links(world: ClassicHostHarness) -> None:
    """Deliver everything over links, while nothing becomes durable."""
    world.pump()
    while any(not wire.is_empty for wire in world.wires.values()):
        world.arrive()


@pytest.mark.parametrize("outcome", [Outcome.ACKED, Outcome.REJECTED])
def test_what_is_settled_is_known_to_be_so_once_it_is_durable(outcome: Outcome) -> None:
    """An edge then vouches for it."""
    world = ClassicHostHarness()
    near = world.clients["near"]
    near.publish(3)
    near.attach(credit=10, no_ack=False, prefetch=0)
    world.rest()
    near.settle(near.in_hands(), outcome)
    near.heard.clear()
    over_links(world)
    assert (near.heard, len(world.stored()), len(near.session.pending)) == ([], 3, 1)
    world.rest()
    assert (len(world.stored()), len(near.session.pending)) == (0, 0)


def test_what_comes_back_waits_for_no_disk() -> None:
    world = ClassicHostHarness(durable=False)
    near = world.clients["near"]
    near.publish(3)
    near.attach(credit=10, no_ack=False, prefetch=0)
    over_links(world)
    near.settle(near.in_hands(), Outcome.ACKED)
    near.asking.purge()
    over_links(world)
    assert len(near.session.pending) == 0


def test_a_purge_is_answered_once_it_is_durable() -> None:
    world = ClassicHostHarness()
    near = world.clients["near"]
    near.publish(3)
    world.rest()
    near.heard.clear()
    number = near.asking.purge()
    over_links(world)
    assert (near.heard, len(world.stored())) == ([], 3)
    world.rest()
    assert (near.heard, len(world.stored())) == ([happened.PurgeDone(number, 3)], 0)


def test_a_purge_is_refused_once_the_messages_of_the_queue_are_another_s() -> None:
    world = ClassicHostHarness()
    near = world.clients["near"]
    near.publish(3)
    world.rest()
    world.queue.pause = pause = ConversionHold("queue 'q' in vhost '/'")
    pause.is_decided = True
    near.heard.clear()
    number = near.asking.purge()
    world.rest()
    assert (near.heard, len(world.stored())) == ([happened.PurgeRejected(number)], 3)
    world.queue.pause = None
    number = near.asking.purge()
    world.rest()
    assert (near.heard[1:], len(near.session.pending)) == ([happened.PurgeDone(number, 3)], 0)


def test_a_home_that_starts_again_has_lost_its_edges_and_nothing_that_was_confirmed() -> None:
    world = ClassicHostHarness()
    near = world.clients["near"]
    near.attach(credit=2, no_ack=False, prefetch=0)
    near.publish(3)
    world.rest()
    near.publish(1)
    world.pump()
    world.arrive()  # it is in the queue, and not durable
    near.heard.clear()
    world.restart_home()
    kinds = [type(event) for event in near.heard]
    assert kinds == [
        happened.PublishRejected,
        m.RevokeNotice,
        happened.ConsumerCancelled,
    ]
    world.rest()
    assert world.queue.ready_count == 3


# Whatever happens


def step(world: ClassicHostHarness, chance: Random) -> None:
    """Take a random step."""
    node = chance.choice(list(world.clients))
    client = world.clients[node]

    def settle_some() -> None:
        if held := client.in_hands():
            some = chance.sample(held, chance.randint(1, len(held)))
            client.settle(some, chance.choice(OUTCOMES))

    def end_channel() -> None:
        if channels := client.channels():
            client.end_channel(chance.choice(channels))

    def detach() -> None:
        if client.consumers:
            client.detach(chance.choice(client.consumers))

    def silence() -> None:
        world.cut(node)
        world.lose_all(node)
        world.now_ms += CONSUMER_DISCONNECTED_MS
        world.tick()

    def settle_here() -> None:
        for neighbour in world.neighbours:
            neighbour.settle(chance.choice(OUTCOMES))

    steps: list[tuple[float, Callable[[], object]]] = [
        (6, lambda: client.publish(chance.choice([1, 1, 3, 10]))),
        (1, lambda: world.publish_here(chance.choice([1, 4]))),
        (
            2,
            lambda: client.attach(
                credit=chance.choice([1, 3, 100]),
                prefetch=chance.choice([0, 2]),
                no_ack=chance.random() < 0.15,
            ),
        ),
        (0.3, lambda: world.neighbour(chance.choice([1, 1, 5]), priority=chance.choice([0, 1]))),
        (8, settle_some),
        (2, settle_here),
        (2, lambda: client.get_once(chance.choice([1, 2]), no_ack=chance.random() < 0.2)),
        (0.5, client.purge),
        (1, detach),
        (1, end_channel),
        (30, lambda: world.arrive(chance.randrange(99), chance.randrange(9))),
        (2, lambda: world.drop(chance.randrange(99))),
        (14, world.commit),
        (1, lambda: world.link(node)),
        (1, lambda: world.cut(node)),
        (0.3, silence),
        (0.3, lambda: world.restart(node)),
        (0.4, world.restart_home),
        (0.4, world.rest),
    ]
    weights = [weight for weight, _do in steps]
    chance.choices([do for _weight, do in steps], weights)[0]()
    world.pump()


def whatever(seed: int, steps: int = 150) -> None:
    chance, world = Random(seed), ClassicHostHarness()
    for _ in range(steps):
        step(world, chance)
    world.rest()


@seeds(40)
def test_whatever_happens(seed: int) -> None:
    whatever(seed)


@seeds(range(1_000, 1_010), at_night=1_000, slow=True)
def test_much_of_whatever_happens(seed: int) -> None:
    whatever(seed, steps=250)
