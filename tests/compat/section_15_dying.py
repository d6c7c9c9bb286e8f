"""Section 15: arguments of quorum queues, what comes back to them, and what dies in them."""

from typing import Any

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

QUORUM = {"x-queue-type": "quorum"}


def declare(main: Speaker, queue: str, **arguments: Any) -> None:
    """Declare a quorum queue; `_` stands for `-`."""
    named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    main.declare(queue, {**QUORUM, **named}, durable=True)


def taken(channel: Speaker, queue: str, count: int = 1) -> list[int]:
    """Consume messages under a tag that is then cancelled: their delivery tags."""
    channel.consume(queue, queue)
    tags = [heard.method.delivery_tag for heard in channel.expect("Basic.Deliver", count)]  # type: ignore[attr-defined]
    channel.cancel(queue)
    return tags


# Declaring


@scenario("15", "5.2")
def arguments(peer: Peer) -> None:
    main = speaker(peer)
    for name, values in {
        "x-delivery-limit": (5, 0, -1, -7, 2**40),
        "x-max-priority": (3,),
        "x-queue-mode": ("lazy",),
        "x-queue-version": (2,),
        "x-queue-master-locator": ("client-local",),
        "x-max-age": ("1D",),
        "x-quorum-initial-group-size": (1, 3, 0, -1, "1", True),
        "x-quorum-target-group-size": (5, 0, -1, "five", True),
        "x-queue-leader-locator": (
            *("client-local", "balanced", "random", "least-leaders", "min-masters", "somewhere", 5),
        ),
        "x-dead-letter-strategy": ("at-most-once", "at-least-once", "never"),
        "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx", "reject"),
        "x-max-length": (5, -1),
        "x-max-in-memory-length": (5, -1),
        "x-single-active-consumer": (True, False, 1),
        "x-expires": (60_000, 0),
        "x-message-ttl": (60_000, -1),
    }.items():
        for value in values:
            main.another().declare(f"with {name}", {**QUORUM, name: value}, durable=True)
            main.delete(f"with {name}")


@scenario("15", "5.1")
def declared_again(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "again", delivery_limit=5)
    declare(main, "again", delivery_limit=5)
    again = {**QUORUM, "x-delivery-limit": 5}
    main.another().declare("again", {**again, "x-delivery-limit": 6}, durable=True)
    main.another().declare("again", QUORUM, durable=True)
    main.another().declare("again", again)
    main.another().declare("again", again, durable=True, auto_delete=True)
    main.another().declare("again", again, durable=True, exclusive=True)
    main.another().declare("again", durable=True)
    main.another().declare("again", {"x-queue-type": "classic"}, durable=True)
    main.declare("again", passive=True)
    main.delete("again")
    main.another().declare("again", passive=True)


# Coming back


@scenario("15")
def counted_in_headers(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "counted")
    main.confirms()
    headers = {"z": 1, "a": True, "x-delivery-count": "mine"}
    main.publish("", "counted", "m", headers=headers, content_type="text/plain")
    peer.note(main.confirmed(1))
    for requeue in (main.reject, main.reject, main.nack, main.reject):
        [tag] = taken(main, "counted")
        requeue(tag, requeue=True)
    main.get("counted", no_ack=False)
    main.recover()
    main.get("counted")
    main.delete("counted")


@scenario("15")
def what_comes_back_is_next_in_its_own_order(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "order")
    main.fill("order", *map(str, range(8)))
    main.qos(5)
    first, *_, last = taken(main, "order", 5)
    main.reject(first + 3, requeue=True)
    main.reject(first + 1, requeue=True)
    main.nack(last, multiple=True, requeue=True)
    heir = main.another()
    heir.consume("order", "heir", no_ack=True)
    heir.expect("Basic.Deliver", 8)
    heir.cancel("heir")
    main.delete("order")


@scenario("15")
def what_a_channel_leaves(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "left")
    main.fill("left", *map(str, range(4)))
    holder = main.another()
    taken(holder, "left", 4)
    holder.close()
    heir = main.another()
    heir.consume("left", "heir", no_ack=True)
    heir.expect("Basic.Deliver", 4)
    heir.cancel("heir")
    main.delete("left")


# Dying


def worn_out(main: Speaker, queue: str, times: int) -> None:
    """Reject the only message of a queue so often."""
    for _ in range(times):
        [tag] = taken(main, queue)
        main.reject(tag, requeue=True)


@scenario("15")
def a_delivery_limit(peer: Peer) -> None:
    main = speaker(peer)
    for limit in (0, 2):
        queue = f"limit {limit}"
        declare(main, queue, delivery_limit=limit)
        main.fill(queue, "m")
        worn_out(main, queue, limit + 1)
        main.settle()
        main.get(queue)
        main.delete(queue)


@scenario("15")
def the_limit_of_a_queue_that_says_nothing(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "default limit")
    main.fill("default limit", "m")
    worn_out(main, "default limit", 21)
    main.settle()
    main.get("default limit")
    main.delete("default limit")


@scenario("15")
def no_limit(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "no limit", delivery_limit=-1)
    main.fill("no limit", "m")
    worn_out(main, "no limit", 25)
    main.get("no limit")
    main.delete("no limit")


@scenario("15")
def dead_letters(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("grave", exclusive=True)
    declare(
        main, "life", delivery_limit=1, dead_letter_exchange="", dead_letter_routing_key="grave"
    )
    main.confirms()
    for body in ("rejected", "nacked", "worn out"):
        main.publish("", "life", body, headers={"CC": ["nowhere"]}, expiration="60000")
    peer.note(main.confirmed(3))
    main.consume("grave", "grave", no_ack=True)
    [first, second, third] = taken(main, "life", 3)
    main.reject(first, requeue=False)
    main.expect("Basic.Deliver")
    main.nack(second, requeue=False)
    main.expect("Basic.Deliver")
    main.reject(third, requeue=True)
    [again] = taken(main, "life")
    main.reject(again, requeue=True)
    main.expect("Basic.Deliver")
    main.get("life")
    main.cancel("grave")
    main.delete("life", "grave")
    main.without_times()


@scenario("15")
def dead_letters_from_queue_to_queue(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("on", "direct", auto_delete=True)
    for name, other in (("one", "two"), ("two", "one")):
        declare(main, name, dead_letter_exchange="on", dead_letter_routing_key=other)
        main.bind(name, "on", name)
    main.fill("one", "m")
    for queue in ("one", "two", "one"):
        [tag] = taken(main, queue)
        main.reject(tag, requeue=False)
    taken(main, "two")
    main.delete("one", "two")
    main.without_times()


@scenario("15")
def what_has_failed_goes_on_as_that(peer: Peer) -> None:
    """Rejected messages keep their delivery count; messages never delivered, or requeued, are new
    in the next queue.

    What is given back has a consumer from the start: it is too old by then, however long that took.
    """
    main = speaker(peer)
    declare(main, "failures")
    to_failures = {"dead_letter_exchange": "", "dead_letter_routing_key": "failures"}
    declare(main, "failing", **to_failures)
    declare(main, "aging", message_ttl=100, **to_failures)
    main.fill("failing", "rejected", "nacked")
    first, second = taken(main, "failing", 2)
    main.reject(first, requeue=False)
    main.nack(second, requeue=False)
    main.consume("aging", "aging")
    main.publish("", "aging", "given back")
    [held] = main.expect("Basic.Deliver")
    main.cancel("aging")
    main.nack(held.method.delivery_tag, requeue=True)  # type: ignore[attr-defined]
    main.publish("", "aging", "never handed out", expiration="0")
    taken(main, "failures", 4)
    for queue in ("failures", "failing", "aging"):
        main.delete(queue)
    main.without_times()


@scenario("15")
def how_often_it_was_handed_out_in_all(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "second")
    declare(main, "first", dead_letter_exchange="", dead_letter_routing_key="second")
    main.fill("first", "m")
    for requeue in (True, True, False):
        main.nack(taken(main, "first")[0], requeue=requeue)
    for _ in range(2):
        main.nack(taken(main, "second")[0], requeue=True)
    taken(main, "second")
    main.delete("first")
    main.delete("second")
    main.without_times()


@scenario("15")
def through_a_classic_queue(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "behind it")
    classic = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "behind it"}
    main.declare("between", {"x-queue-type": "classic", **classic}, durable=True)
    declare(main, "in front", dead_letter_exchange="", dead_letter_routing_key="between")
    main.fill("in front", "m")
    for queue in ("in front", "between"):
        main.reject(taken(main, queue)[0], requeue=False)
    taken(main, "behind it")
    for queue in ("in front", "between", "behind it"):
        main.delete(queue)
    main.without_times()


@scenario("15")
def what_does_not_fit_is_refused(peer: Peer) -> None:
    """RabbitMQ lets one more in, and takes messages again when there is some room."""
    main = speaker(peer)
    declare(main, "full", max_length=2, overflow="reject-publish")
    main.confirms()
    count = refused = 0
    while not refused:
        main.publish("", "full", "m")
        count += 1
        refused = "Nack [" + str(count) in main.confirmed(count)
    main.publish("", "full", "m")
    count += 1
    peer.note(f"and again: {'Nack' in main.confirmed(count)[-12:]}")
    heir = main.another()
    heir.consume("full", "all", no_ack=True)
    heir.expect("Basic.Deliver", 2)
    heir.cancel("all")
    heir.forget(f"[{heir.number}] Basic.Deliver(")
    main.another().delete("full")


@scenario("15")
def what_is_in_front_of_too_many_is_dropped(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("dropped", exclusive=True)
    declare(main, "short", max_length=2, dead_letter_exchange="", dead_letter_routing_key="dropped")
    main.fill("short", *"01234")
    main.consume("dropped", "dropped", no_ack=True)
    main.expect("Basic.Deliver", 3)
    main.cancel("dropped")
    main.get("short")
    main.get("short")
    main.get("short")
    main.delete("short", "dropped")
    main.without_times()
