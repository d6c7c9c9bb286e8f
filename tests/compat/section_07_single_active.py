"""Section 7.2: of the consumers of some queues one alone is served."""

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Arguments, Speaker, speaker

ALONE = {"x-single-active-consumer": True}
QUORUM_ALONE = {**ALONE, "x-queue-type": "quorum"}


def filled(peer: Peer, queue: str, arguments: Arguments, count: int) -> Speaker:
    """A channel that has declared such a queue and filled it with "0", "1" …"""
    main = speaker(peer, f"fills {queue}")
    main.declare(queue, arguments, durable=True)
    main.fill(queue, *map(str, range(count)))
    return main


def consumer(peer: Peer, queue: str, name: str, priority: int = 0, prefetch: int = 1) -> Speaker:
    """On a connection of its own, whose consumer tag is its name."""
    it = speaker(peer, name)
    it.qos(prefetch)
    it.consume(queue, name, {"x-priority": priority})
    return it


@scenario("7.2")
def the_first_of_a_classic_queue_is_served(peer: Peer) -> None:
    """Whatever the priority of those who come later; of whom the highest is next."""
    main = filled(peer, "alone.first", ALONE, 6)
    first = consumer(peer, "alone.first", "first")
    first.expect("Basic.Deliver")
    second = consumer(peer, "alone.first", "second")
    third = consumer(peer, "alone.first", "third", 5)
    fourth = consumer(peer, "alone.first", "fourth", 5)
    second.settle()
    third.settle()
    first.ack(1)
    first.expect("Basic.Deliver")
    main.declare("alone.first", passive=True)
    first.cancel("first")
    third.expect("Basic.Deliver")
    first.ack(2)
    first.settle()
    fourth.settle()
    third.hang_up()
    fourth.expect("Basic.Deliver")
    second.settle()
    fourth.cancel("fourth")
    second.expect("Basic.Deliver")
    main.delete("alone.first")
    for it in (second, first):
        it.settle()


@scenario("7.2")
def exclusive_is_none_who_is_the_single_active_consumer(peer: Peer) -> None:
    """An exclusive consumer of a classic queue is refused, with or without another; others may get
    messages."""
    main = filled(peer, "alone.exclusive", ALONE, 2)
    main.another().consume("alone.exclusive", "tag", exclusive=True)
    main.consume("alone.exclusive", "other")
    main.expect("Basic.Deliver", 2)
    main.another().consume("alone.exclusive", "tag", exclusive=True)
    main.cancel("other")
    main.reject(2, requeue=True)
    main.another().get("alone.exclusive")
    main.delete("alone.exclusive")


@scenario("7.2")
def who_takes_nothing_leaves_it_to_nobody(peer: Peer) -> None:
    """Messages wait though others could take them."""
    for kind, arguments in (("classic", ALONE), ("quorum", QUORUM_ALONE)):
        name = f"alone.full.{kind}"
        main = filled(peer, name, arguments, 3)
        full = consumer(peer, name, f"full {kind}")
        full.expect("Basic.Deliver")
        waits = consumer(peer, name, f"waits {kind}")
        waits.settle()
        full.nack(1, requeue=True)
        full.expect("Basic.Deliver")
        waits.settle()
        full.hang_up()
        waits.expect("Basic.Deliver")
        main.delete(name)


@scenario("7.2")
def the_highest_of_a_quorum_queue_is_served(peer: Peer) -> None:
    """At once if who is active holds nothing; else it gets nothing more before that."""
    main = filled(peer, "alone.highest", QUORUM_ALONE, 6)
    low = consumer(peer, "alone.highest", "low", prefetch=2)
    low.expect("Basic.Deliver", 2)
    high = consumer(peer, "alone.highest", "high", 5)
    same = consumer(peer, "alone.highest", "same", 5)
    low.ack(1)
    low.settle()
    high.settle()
    low.ack(2)
    high.expect("Basic.Deliver")
    low.settle()
    same.settle()
    high.cancel("high")
    same.expect("Basic.Deliver")
    high.settle()
    same.hang_up()
    low.expect("Basic.Deliver", 2)
    main.delete("alone.highest")


@scenario("7.2")
def who_comes_to_an_empty_quorum_queue_is_served_by_priority(peer: Peer) -> None:
    main = filled(peer, "alone.empty", QUORUM_ALONE, 0)
    for name, priority in (("first", 0), ("higher", 3), ("lower", -1)):
        consumer(peer, "alone.empty", name, priority)
    main.fill("alone.empty", "0")
    main.declare("alone.empty", passive=True)
    main.delete("alone.empty")
