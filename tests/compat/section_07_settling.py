"""Sections 7.5, 7.6 and 7.9: acknowledging, giving back, and in which order messages come."""

from collections.abc import Callable

from fluffle.protocol.methods import Basic, make
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker


def holder(main: Speaker, queue: str, count: int = 5) -> Speaker:
    """A channel that holds the messages "0", "1" … of a queue under the tags from 1 on."""
    main.declare(queue, exclusive=True)
    main.fill(queue, *map(str, range(count)))
    channel = main.another()
    channel.consume(queue, "holder")
    channel.expect("Basic.Deliver", count)
    channel.cancel("holder")
    return channel


def left(main: Speaker, queue: str, count: int) -> None:
    """Take what is left in a queue, which is `count` messages."""
    main.consume(queue, "heir", no_ack=True)
    main.expect("Basic.Deliver", count)
    main.cancel("heir")
    main.get(queue)


Settle = Callable[[Speaker], object]

UNKNOWN: dict[str, Settle] = {
    "an ack of 0": lambda channel: channel.ack(0),
    "an ack": lambda channel: channel.ack(9),
    "an ack of the largest number": lambda channel: channel.ack(2**63),
    "an ack of several": lambda channel: channel.ack(9, multiple=True),
    "a nack of 0": lambda channel: channel.nack(0),
    "a nack": lambda channel: channel.nack(9),
    "a nack of several": lambda channel: channel.nack(9, multiple=True),
    "a reject of 0": lambda channel: channel.reject(0),
    "a reject": lambda channel: channel.reject(9),
}
"""Settlements of tags that were never given."""

AGAIN: dict[str, tuple[int, Settle, Settle]] = {
    "ack": (4, lambda one: one.ack(2), lambda one: one.ack(2)),
    "ack after a nack": (4, lambda one: one.nack(1, requeue=False), lambda one: one.ack(1)),
    "several": (
        3,
        lambda one: one.ack(2, multiple=True),
        lambda one: one.ack(2, multiple=True),
    ),
    "fewer": (2, lambda one: one.ack(3, multiple=True), lambda one: one.ack(2, multiple=True)),
    "up to one settled": (4, lambda one: one.ack(3), lambda one: one.ack(3, multiple=True)),
}
"""How many stay when tags are settled again, and how that is done."""


@scenario("7.5")
def unknown_tags(peer: Peer) -> None:
    for name, settle in UNKNOWN.items():
        main = speaker(peer, name)
        channel = holder(main, name)
        settle(channel)
        channel.refused()
        left(main, name, 5)


@scenario("7.5")
def tags_settled_again(peer: Peer) -> None:
    for name, (count, settle, settle_again) in AGAIN.items():
        main = speaker(peer, name)
        channel = holder(main, name)
        settle(channel)
        settle_again(channel)
        channel.refused()
        left(main, name, count)


@scenario("7.5")
def tags_of_others(peer: Peer) -> None:
    main = speaker(peer)
    channel = holder(main, "foreign", 2)
    stranger = main.another()
    stranger.ack(1)
    stranger.refused()
    channel.ack(1)
    channel.close()
    left(main, "foreign", 1)


@scenario("7.5")
def tags_that_need_no_ack(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("no ack", exclusive=True)
    main.fill("no ack", "0", "1", "2")
    main.get("no ack")
    main.get("no ack", no_ack=False)
    main.ack(2)
    main.consume("no ack", "tag", no_ack=True)
    main.expect("Basic.Deliver")
    main.ack(3)
    main.refused()


@scenario("7.5")
def acknowledging_some(peer: Peer) -> None:
    main = speaker(peer)
    channel = holder(main, "some", 8)
    channel.ack(2)
    channel.ack(4, multiple=True)
    channel.ack(7)
    channel.close()
    left(main, "some", 3)


@scenario("7.5")
def tag_0_is_all_there_are(peer: Peer) -> None:
    main = speaker(peer)
    main.ack(0, multiple=True)
    main.nack(0, multiple=True)
    main.settle()
    channel = holder(main, "all", 3)
    channel.ack(0, multiple=True)
    channel.ack(0, multiple=True)
    channel.settle()
    channel.close()
    channel = holder(main, "all", 3)
    channel.ack(2)
    channel.nack(0, multiple=True, requeue=False)
    channel.close()
    main.get("all")
    channel = holder(main, "all", 3)
    channel.nack(0, multiple=True)
    channel.settle()
    left(main, "all", 3)


@scenario("7.5")
def rejecting_some(peer: Peer) -> None:
    main = speaker(peer)
    channel = holder(main, "rejected", 7)
    channel.nack(2, multiple=True, requeue=False)
    channel.reject(4, requeue=False)
    channel.nack(6, requeue=False)
    channel.reject(7)
    channel.nack(5, multiple=True)
    channel.settle()
    left(main, "rejected", 3)


@scenario("7.5")
def recovering(peer: Peer) -> None:
    main = speaker(peer)
    main.recover()
    channel = holder(main, "recovering", 3)
    channel.ack(2)
    channel.recover()
    channel.recover()
    channel.get("recovering", no_ack=False)
    channel.ack(1)
    channel.refused()
    left(main, "recovering", 2)


@scenario("7.5")
def recovering_with_a_consumer(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("again", exclusive=True)
    main.fill("again", "0", "1")
    main.consume("again", "tag")
    main.expect("Basic.Deliver", 2)
    main.send(make(Basic.RecoverAsync, requeue=True))
    main.expect("Basic.Deliver", 2)
    main.ack(4, multiple=True)
    main.settle()


@scenario("7.5")
def recovering_without_requeue(peer: Peer) -> None:
    speaker(peer, "waiting").recover(requeue=False)
    other = speaker(peer, "not waiting")
    other.send(make(Basic.RecoverAsync, requeue=False))
    other.expect("Connection.Close")


@scenario("7.6")
def messages_go_back_to_their_place(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("place", exclusive=True)
    main.fill("place", *map(str, range(8)))
    for _ in range(6):
        main.get("place", no_ack=False)
    main.nack(3)
    main.get("place", no_ack=False)
    for tag in (5, 1, 4, 2):
        main.nack(tag)
    main.nack(7)
    left(main.another(), "place", 7)
    main.ack(6)
    main.settle()


@scenario("7.6")
def messages_of_two_channels_go_back(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("both", exclusive=True)
    main.fill("both", *map(str, range(6)))
    one, other = main.another(), main.another()
    for channel in (one, other, one, other):
        channel.get("both", no_ack=False)
    other.recover()
    main.get("both", no_ack=False)
    one.recover()
    main.nack(1)
    left(main.another(), "both", 6)


@scenario("7.6")
def a_message_comes_back_to_the_only_consumer(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("only", exclusive=True)
    main.qos(1)
    main.consume("only", "tag")
    main.fill("only", "0", "1")
    main.reject(1)
    main.expect("Basic.Deliver")
    main.nack(2)
    main.expect("Basic.Deliver")
    main.ack(3)
    main.expect("Basic.Deliver")
    main.reject(4, requeue=False)
    main.settle()


@scenario("7.6")
def a_message_comes_back_to_another_consumer(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("another", exclusive=True)
    main.qos(1)
    main.consume("another", "a")
    main.fill("another", "0")
    other = main.another()
    other.consume("another", "b")
    main.nack(1)
    other.expect("Basic.Deliver")
    other.ack(1)
    other.settle()


@scenario("7.6")
def a_closed_channel_gives_back(peer: Peer) -> None:
    main = speaker(peer)
    channel = holder(main, "given back", 4)
    channel.ack(2)
    main.consume("given back", "heir")
    channel.close()
    main.expect("Basic.Deliver", 3)


@scenario("7.6")
def a_lost_connection_gives_back(peer: Peer) -> None:
    main, lost = speaker(peer), speaker(peer, "lost")
    main.declare("lost")
    main.fill("lost", "0", "1", "2")
    lost.consume("lost", "tag")
    lost.expect("Basic.Deliver", 3)
    lost.ack(1)
    lost.settle()
    main.consume("lost", "heir")
    lost.client.close()
    main.expect("Basic.Deliver", 2)
    main.delete("lost")


@scenario("7.6")
def held_messages_of_a_deleted_queue(peer: Peer) -> None:
    main = speaker(peer)
    channel = holder(main, "deleted", 3)
    main.delete("deleted")
    main.declare("deleted", exclusive=True)
    channel.ack(1)
    channel.nack(2)
    channel.settle()
    main.get("deleted")
    channel.close()
    main.get("deleted")


@scenario("7.9")
def messages_come_in_order(peer: Peer) -> None:
    main, producer = speaker(peer), speaker(peer, "producer")
    main.declare("in order")
    main.consume("in order", "tag", no_ack=True)
    for number in range(1000):
        producer.publish("", "in order", str(number) + "x" * (number % 7 * 1000))
    bodies = [heard.body.rstrip(b"x") for heard in main.expect("Basic.Deliver", 1000)]
    peer.note(bodies == [str(number).encode() for number in range(1000)])
    main.client.transcript.clear()
    main.delete("in order")


@scenario("7.9")
def messages_of_two_routes_come_in_order(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("two ways", exclusive=True)
    main.bind("two ways", "amq.topic", "two.*")
    for number in range(6):
        main.publish("amq.topic", f"two.{number % 2}", str(number))
        main.publish("", "two ways", str(number), priority=number)
    left(main, "two ways", 12)
