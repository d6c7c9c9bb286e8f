"""Section 15: what a client sees of a quorum queue, and what is refused of one."""

from collections.abc import Callable

from fluffle.protocol.methods import Basic, make
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

QUORUM = {"x-queue-type": "quorum"}


def quorum(main: Speaker, name: str, *bodies: str) -> None:
    """A queue with these messages."""
    main.declare(name, QUORUM, durable=True)
    main.fill(name, *bodies)


@scenario("15", "5.1")
def what_can_be_declared(peer: Peer) -> None:
    main = speaker(peer)
    flags: tuple[dict[str, bool], ...] = (
        {},
        {"durable": True, "exclusive": True},
        {"durable": True, "auto_delete": True},
        {"exclusive": True, "auto_delete": True},
    )
    for each in flags:
        main.another().declare("quorum.refused", QUORUM, **each)
    main.declare("quorum.declared", QUORUM, durable=True)
    main.declare("quorum.declared", QUORUM, durable=True)
    for arguments, durable in (({}, True), (QUORUM, False), ({**QUORUM, "x-max-length": 1}, True)):
        main.another().declare("quorum.declared", arguments, durable=durable)
    main.delete("quorum.declared")
    main.delete("quorum.declared")


@scenario("15", "5.4", "7.4")
def what_cannot_be_asked_of_one(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.asked", "0")
    for number, conditions in enumerate(({"if_unused": True}, {"if_empty": True})):
        speaker(peer, f"deletes {number}").delete("quorum.asked", **conditions)
    shared = speaker(peer, "shares a prefetch")
    shared.qos(2, global_=True)
    shared.get("quorum.asked")
    shared.consume("quorum.asked", "tag")
    main.another().consume("quorum.asked", "tag", {"x-priority": "much"})
    main.another().consume("quorum.asked", "tag", {"x-stream-offset": "first"})
    main.declare("quorum.alone", {**QUORUM, "x-single-active-consumer": True}, durable=True)
    main.another().get("quorum.alone")
    main.delete("quorum.asked", "quorum.alone")


@scenario("15")
def exclusive_consumers_are_not_alone(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.shared")
    consumer = speaker(peer, "consumer")
    consumer.consume("quorum.shared", "first", exclusive=True)
    consumer.consume("quorum.shared", "second")
    consumer.consume("quorum.shared", "third", exclusive=True)
    main.declare("quorum.shared", passive=True)
    consumer.cancel("first")
    consumer.cancel("second")
    main.fill("quorum.shared", "0")
    consumer.expect("Basic.Deliver")
    consumer.ack(1)
    consumer.settle()
    main.delete("quorum.shared")
    consumer.expect("Basic.Cancel")


@scenario("15", "7.4")
def polling(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.polled", *"01234")
    main.get("quorum.polled")
    main.get("quorum.polled", no_ack=False)
    main.get("quorum.polled", no_ack=False)
    main.ack(3)
    main.declare("quorum.polled", passive=True)
    main.purge("quorum.polled")
    main.get("quorum.polled")
    main.nack(2, requeue=False)
    main.settle()
    main.get("quorum.polled")
    main.delete("quorum.polled")


GIVE_BACK: dict[str, Callable[[Speaker], object]] = {
    "nack": lambda one: one.nack(0, multiple=True, requeue=True),
    "reject": lambda one: one.reject(1, requeue=True),
    "recover": lambda one: one.recover(),
    "close": lambda one: one.close(),
}


@scenario("15")
def giving_back(peer: Peer) -> None:
    """A requeued message is marked as redelivered."""
    main = speaker(peer)
    for name, give_back in GIVE_BACK.items():
        queue = f"quorum.back.{name}"
        quorum(main, queue, "0")
        holder = main.another()
        holder.get(queue, no_ack=False)
        give_back(holder)
        if name != "close":
            holder.settle()
        main.consume(queue, "heir", no_ack=True)  # which waits, as a get would not, for RabbitMQ
        main.expect("Basic.Deliver")
        main.cancel("heir")
        main.delete(queue)


@scenario("15")
def what_is_given_back_comes_before_what_waits(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.order", *"012345")
    holder = main.another()
    holder.qos(4)
    holder.consume("quorum.order", "holder")
    holder.expect("Basic.Deliver", 4)
    holder.cancel("holder")
    holder.nack(3, requeue=True)
    holder.nack(1, requeue=True)
    holder.settle()
    holder.ack(4)
    holder.settle()
    main.drain("quorum.order")
    holder.ack(2)
    main.delete("quorum.order")


@scenario("15", "7.9")
def what_one_channel_gives_back_at_once(peer: Peer) -> None:
    """Messages come back as they were handed out, whichever consumer of the channel got them."""
    main = speaker(peer)
    for name in ("close", "hang up", "nack", "recover"):
        queue = f"quorum.at once.{name}"
        quorum(main, queue, "0")
        holder = speaker(peer, name)
        holder.get(queue, no_ack=False)
        holder.consume(queue, "first")
        holder.consume(queue, "second")
        main.fill(queue, *"1234")
        holder.expect("Basic.Deliver", 4)
        holder.cancel("first")
        holder.cancel("second")
        main.fill(queue, "5")
        holder.get(queue, no_ack=False)
        GIVE_BACK.get(name, Speaker.hang_up)(holder)
        with main.aside() as heir:
            heir.consume(queue, "heir", no_ack=True)
            heard = heir.expect("Basic.Deliver", 6)
            heir.cancel("heir")
        peer.note(f"{name}: {b' '.join(each.body for each in heard)!r}")
        main.delete(queue)


@scenario("15", "7.1", "7.2")
def prefetch_and_priorities(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.prefetch")
    low, high = speaker(peer, "low"), speaker(peer, "high")
    for one, priority in ((low, 0), (high, 7)):
        one.qos(2)
        one.consume("quorum.prefetch", "tag", {"x-priority": priority})
    main.fill("quorum.prefetch", *"0123")
    high.expect("Basic.Deliver", 2)
    low.expect("Basic.Deliver", 2)
    main.fill("quorum.prefetch", "4")
    main.declare("quorum.prefetch", passive=True)
    high.ack(2, multiple=True)
    high.expect("Basic.Deliver")
    for one in (low, high):
        one.ack(0, multiple=True)
        one.cancel("tag")
        one.settle()
    main.delete("quorum.prefetch")


@scenario("15")
def consumers_that_acknowledge_nothing(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.automatic", *"012")
    consumer = speaker(peer, "consumer")
    consumer.consume("quorum.automatic", "tag", no_ack=True)
    consumer.expect("Basic.Deliver", 3)
    main.fill("quorum.automatic", "3")
    consumer.expect("Basic.Deliver")
    consumer.cancel("tag")
    main.get("quorum.automatic")
    main.delete("quorum.automatic")


@scenario("15", "5.4", "7.3")
def a_deletion_is_told_to_consumers(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.deleted", *"012")
    told = speaker(peer, "told")
    told.qos(1)
    told.consume("quorum.deleted", "tag")
    told.expect("Basic.Deliver")
    main.delete("quorum.deleted")
    told.expect("Basic.Cancel")
    told.ack(1)
    told.settle()
    main.until_gone("quorum.deleted")


@scenario("15", "6", "6.1")
def publishing(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.published")
    main.declare("quorum.beside", durable=True)
    for queue in ("quorum.published", "quorum.beside"):
        main.bind(queue, "amq.fanout")
    publisher = speaker(peer, "publisher")
    publisher.confirms()
    for exchange, key in (("", "quorum.published"), ("amq.fanout", ""), ("", "quorum.nowhere")):
        publisher.publish(exchange, key, key or "both", mandatory=True, delivery_mode=2)
        publisher.publish(exchange, key, key or "both", mandatory=True)
    peer.note(publisher.confirmed(6))
    for queue in ("quorum.published", "quorum.beside"):
        main.drain(queue)
    main.delete("quorum.published", "quorum.beside")


@scenario("15")
def transactions(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.transaction", "0")
    other = main.another()
    other.transact()
    other.get("quorum.transaction", no_ack=False)
    other.ack(1)
    other.publish("", "quorum.transaction", "1")
    main.declare("quorum.transaction", passive=True)
    other.roll_back()
    other.publish("", "quorum.transaction", "2")
    other.ack(1)
    other.commit()
    main.drain("quorum.transaction")
    main.delete("quorum.transaction")


@scenario("15")
def unknown_tags_of_one(peer: Peer) -> None:
    main = speaker(peer)
    quorum(main, "quorum.tags", "0")
    for settle in (
        lambda one: one.ack(2),
        lambda one: one.nack(9, requeue=True),
        lambda one: one.send(make(Basic.Reject, delivery_tag=0, requeue=True)),
    ):
        holder = main.another()
        holder.get("quorum.tags", no_ack=False)
        settle(holder)
        holder.refused()
        main.settle()
    main.get("quorum.tags")
    main.delete("quorum.tags")
