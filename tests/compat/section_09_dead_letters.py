"""Section 9: where messages go that a queue is rid of, and what their headers say of that."""

from collections.abc import Iterator

from tests.compat.scenario import End, Peer, across, scenario
from tests.compat.verbs import Speaker, speaker

RICH = {
    "z": 1,
    "a": True,
    "CC": ["second", "third"],
    "x-death": "mine",
    "x-first-death-queue": "mine",
    "x-last-death-reason": 5,
}
"""Headers of which some are the broker's to write."""


def dead_lettering(main: Speaker, queue: str, exchange: str, key: str | None = None) -> None:
    """Declare a queue that is rid of messages that way."""
    arguments = {"x-dead-letter-exchange": exchange}
    if key is not None:
        arguments["x-dead-letter-routing-key"] = key
    main.declare(queue, arguments, exclusive=True)


def reject(channel: Speaker, queue: str, count: int = 1) -> None:
    """Reject the next messages of a queue, once they are there."""
    channel.consume(queue, queue)
    for delivery in channel.expect("Basic.Deliver", count):
        method: object = delivery.method
        channel.reject(method.delivery_tag, requeue=False)  # type: ignore[attr-defined]
    channel.cancel(queue)


@scenario("9")
def there_and_back_again(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("there", "fanout", auto_delete=True)
    dead_lettering(main, "home", "there")
    dead_lettering(main, "away", "", "home")
    main.bind("away", "there")
    main.publish(
        "",
        "home",
        "one",
        headers=RICH,
        expiration="60000",
        priority=3,
        delivery_mode=2,
        timestamp=5,
    )
    for queue in ("home", "away", "home", "away", "home"):
        reject(main, queue)
    main.consume("away", "last", no_ack=True)
    main.expect("Basic.Deliver")
    main.without_times()


@scenario("9")
def keys_that_nobody_sees_lead_on(peer: Peer) -> None:
    """Routing keys of BCC count at each death again, unless a queue has given the message its own
    key."""
    main = speaker(peer)
    keys = ("first", "second", "third")
    for exchange in ("bcc", "bcc again"):
        main.declare_exchange(exchange, "topic", auto_delete=True)
    for key in keys:
        dead_lettering(main, f"bcc {key}", "bcc again")
        main.bind(f"bcc {key}", "bcc", key)
        main.declare(f"bcc again {key}", exclusive=True)
        main.bind(f"bcc again {key}", "bcc again", key)
    main.declare_exchange("bcc into", "fanout", auto_delete=True)
    for queue, own in (("bcc plain", None), ("bcc redirected", "third")):
        dead_lettering(main, queue, "bcc", own)
        main.bind(queue, "bcc into")
    headers = {"CC": ["second"], "BCC": ["third", 7]}
    main.publish("bcc into", "first", "keys", headers=headers, delivery_mode=2)
    reject(main, "bcc plain")
    reject(main, "bcc redirected")
    for key in keys:
        reject(main, f"bcc {key}", 2 if key == "third" else 1)
    for key, count in zip(keys, (3, 3, 4), strict=True):
        main.consume(f"bcc again {key}", key, no_ack=True)
        main.expect("Basic.Deliver", count)
        main.settle()
    main.without_times()


@scenario("9")
def a_key_that_is_seen_and_is_not(peer: Peer) -> None:
    """The same key as its own, in CC and in BCC."""
    main = speaker(peer)
    main.declare_exchange("bcc same", "topic", auto_delete=True)
    main.declare("bcc same dead", exclusive=True)
    main.bind("bcc same dead", "bcc same", "key")
    for at, headers in enumerate(
        ({"BCC": ["bcc same 0"]}, {"CC": ["key"], "BCC": ["key", "key"]}, {"BCC": ["key"]})
    ):
        queue = f"bcc same {at}"
        dead_lettering(main, queue, "bcc same")
        main.publish("", queue, "", headers=headers)
        reject(main, queue)
    main.consume("bcc same dead", "dead", no_ack=True)
    main.expect("Basic.Deliver", 2)
    main.settle()
    main.without_times()


@scenario("9")
def under_which_keys(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("keys", "topic", auto_delete=True)
    for key in ("first", "second", "third", "own"):
        main.declare(f"dead {key}", exclusive=True)
        main.bind(f"dead {key}", "keys", key)
    dead_lettering(main, "plain", "keys")
    dead_lettering(main, "with own", "keys", "own")
    main.declare_exchange("into", "fanout", auto_delete=True)
    main.bind("plain", "into")
    main.bind("with own", "into")
    main.publish("into", "first", "keys", headers={"CC": ["second", "third"]})
    reject(main, "plain")
    reject(main, "with own")
    for key in ("first", "second", "third", "own"):
        main.consume(f"dead {key}", key, no_ack=True)
        main.expect("Basic.Deliver")
    main.without_times()


@scenario("9")
def a_key_of_the_queue_is_the_only_one_from_then_on(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("again", "direct", auto_delete=True)
    for key in ("own", "second"):
        main.declare(f"again {key}", exclusive=True)
        main.bind(f"again {key}", "again", key)
    dead_lettering(main, "station", "again")
    dead_lettering(main, "start", "", "station")
    main.publish("", "start", "m", headers={"CC": ["second"]})
    reject(main, "start")
    reject(main, "station")
    main.publish("again", "own", "end")
    main.publish("again", "second", "end")
    for key in ("own", "second"):
        main.consume(f"again {key}", key, no_ack=True)
        main.expect("Basic.Deliver")
    main.without_times()


@scenario("9")
def what_leads_nowhere_is_gone(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("end", exclusive=True)
    dead_lettering(main, "to nothing", "there is no such exchange")
    dead_lettering(main, "to nobody", "amq.direct", "nobody")
    dead_lettering(main, "to a queue", "", "end")
    for queue in ("to nothing", "to nobody", "to a queue"):
        main.publish("", queue, queue)
        reject(main, queue)
    main.consume("end", "end", no_ack=True)
    main.expect("Basic.Deliver")
    for queue in ("to nothing", "to nobody", "to a queue", "end"):
        main.declare(queue, passive=True)
    main.without_times()


@scenario("9")
def through_other_exchanges(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("other", "fanout", auto_delete=True)
    arguments = {"alternate-exchange": "other"}
    main.declare_exchange("inner", "headers", arguments, internal=True, auto_delete=True)
    main.declare("by header", exclusive=True)
    main.declare("by default", exclusive=True)
    main.bind("by header", "inner", "", {"kind": "a"})
    main.bind("by header", "inner", "", {"x-match": "all-with-x", "x-first-death-queue": "out"})
    main.bind("by default", "other")
    dead_lettering(main, "out", "inner")
    dead_lettering(main, "out too", "inner")
    main.publish("", "out too", "a", headers={"kind": "a"})
    main.publish("", "out too", "b", headers={"kind": "b"})
    main.publish("", "out", "c")
    reject(main, "out too", 2)
    reject(main, "out")
    for queue, count in (("by header", 2), ("by default", 1)):
        main.consume(queue, queue, no_ack=True)
        main.expect("Basic.Deliver", count)
    main.without_times()


@scenario("9")
def in_order(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("in order", exclusive=True)
    dead_lettering(main, "many", "", "in order")
    main.fill("many", *map(str, range(7)))
    main.consume("many", "many")
    main.expect("Basic.Deliver", 7)
    main.nack(2, requeue=False)
    main.nack(4, multiple=True, requeue=False)
    main.ack(5)
    main.reject(7, requeue=False)
    main.nack(0, multiple=True, requeue=False)
    main.consume("in order", "in order", no_ack=True)
    main.expect("Basic.Deliver", 6)
    main.without_times()


@scenario("9")
def with_a_transaction(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("done", exclusive=True)
    dead_lettering(main, "bargain", "", "done")
    main.fill("bargain", "0", "1")
    acting = main.another()
    acting.transact()
    acting.consume("bargain", "bargain")
    acting.expect("Basic.Deliver", 2)
    acting.reject(1, requeue=False)
    acting.roll_back()
    acting.reject(2, requeue=False)
    acting.commit()
    main.consume("done", "done", no_ack=True)
    main.expect("Basic.Deliver")
    main.without_times()


@scenario("9")
def a_cycle_ends_in_one_queue_and_not_in_another(peer: Peer) -> None:
    """A cycle ends according to the number of its queues, and to a client's rejection."""
    main = speaker(peer)
    for kind in ("classic", "quorum"):
        exchange, ages, stays = f"ring {kind}", f"ages {kind}", f"stays {kind}"
        main.declare_exchange(exchange, "fanout")
        of_type = {"x-queue-type": kind, "x-dead-letter-exchange": exchange}
        main.declare(ages, {**of_type, "x-message-ttl": 20}, durable=True)
        main.declare(stays, {"x-dead-letter-exchange": exchange}, durable=True)
        for queue in (ages, stays):
            main.bind(queue, exchange)
        main.publish("", ages, "m", headers={"CC": ["more"]})
        main.consume(stays, stays)
        [delivery] = main.expect("Basic.Deliver")
        method: object = delivery.method
        main.reject(method.delivery_tag, requeue=False)  # type: ignore[attr-defined]
        main.expect("Basic.Deliver", 2)
        main.cancel(stays)
        main.delete(ages, stays)
        main.delete_exchange(exchange)
    main.without_times()


@scenario("9")
def what_is_too_much_leads_back_to_its_queue(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("too much", exclusive=True)
    for kind in ("classic", "quorum"):
        full, exchange = f"full {kind}", f"back {kind}"
        main.declare_exchange(exchange, "fanout")
        arguments = {"x-queue-type": kind, "x-dead-letter-exchange": exchange, "x-max-length": 1}
        main.declare(full, arguments, durable=True)
        for queue in (full, "too much"):
            main.bind(queue, exchange)
        main.fill(full, "0", "1", "2")
        main.consume("too much", kind, no_ack=True)
        main.expect("Basic.Deliver", 2)
        main.cancel(kind)
        main.delete(full)
        main.delete_exchange(exchange)
    main.without_times()


@scenario("9")
def to_itself(peer: Peer) -> None:
    main = speaker(peer)
    dead_lettering(main, "itself", "", "itself")
    main.publish("", "itself", "m")
    main.consume("itself", "itself")
    for tag in (1, 2, 3):
        main.expect("Basic.Deliver")
        main.reject(tag, requeue=False)
    main.expect("Basic.Deliver")
    main.without_times()


@scenario("9")
def headers_of_others_are_not_believed(peer: Peer) -> None:
    """A client publishes what it has got, headers and all."""
    main = speaker(peer)
    main.declare("grave", exclusive=True)
    dead_lettering(main, "cradle", "", "grave")
    main.publish("", "cradle", "m")
    reject(main, "cradle")
    heir = main.another()
    heir.consume("grave", "grave", no_ack=True)
    [dead] = heir.expect("Basic.Deliver")
    assert dead.properties is not None
    headers = dead.properties.headers
    main.publish("", "cradle", "again", headers=headers)
    heir.cancel("grave")
    reject(main, "cradle")
    heir.consume("grave", "grave", no_ack=True)
    heir.expect("Basic.Deliver")
    main.without_times()


@scenario("9")
def what_is_not_dead(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("the dead", exclusive=True)
    dead_lettering(main, "the living", "", "the dead")
    main.fill("the living", *"012345")
    main.get("the living")
    main.get("the living", no_ack=False)
    main.ack(2)
    main.get("the living", no_ack=False)
    main.reject(3, requeue=True)
    main.purge("the living")
    main.delete("the living")
    main.settle()
    main.declare("the dead", passive=True)


@across(End.STOP, "9")
def keys_that_nobody_sees_across_a_restart(peer: Peer) -> Iterator[None]:
    main = speaker(peer, "before")
    main.declare_exchange("blind", "topic", durable=True)
    main.declare("blind dead", durable=True)
    main.bind("blind dead", "blind", "blind.key")
    main.declare("blind", {"x-dead-letter-exchange": "blind"}, durable=True)
    main.confirms()
    main.publish("", "blind", "kept", delivery_mode=2, headers={"BCC": ["blind.key", "none"]})
    main.expect("Basic.Ack")
    yield
    main = speaker(peer, "after")
    reject(main, "blind")
    main.consume("blind dead", "dead", no_ack=True)
    main.expect("Basic.Deliver")
    main.settle()
    main.delete("blind", "blind dead")
    main.delete_exchange("blind")
    main.without_times()


@across(End.STOP, "9")
def across_a_restart(peer: Peer) -> Iterator[None]:
    """Dead letters are not confirmed: RabbitMQ may lose one that was not on disk at a kill."""
    main = speaker(peer, "before")
    main.declare("rest", durable=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "rest"}
    main.declare("work", arguments, durable=True)
    main.confirms()
    for body in ("kept", "lost"):
        main.publish("", "work", body, delivery_mode=2 if body == "kept" else 1)
        main.expect("Basic.Ack")
    reject(main, "work", 2)
    main.consume("rest", "rest")
    main.expect("Basic.Deliver", 2)
    main.without_times()
    main.settle()
    yield
    main = speaker(peer, "after")
    main.consume("rest", "rest", no_ack=True)
    main.expect("Basic.Deliver")
    main.settle()
    main.delete("rest", "work")
    main.without_times()


@scenario("9")
def a_routing_key_that_no_frame_holds(peer: Peer) -> None:
    main = speaker(peer)
    dead_lettering(main, "long key", "amq.fanout", "k" * 256)
    main.declare("long key end")
    main.bind("long key end", "amq.fanout")
    main.publish("", "long key", "one")
    reject(main, "long key")
    other = speaker(peer, "other")
    while other.get("long key end").name == "Basic.GetEmpty":
        pass  # it is on its way
    other.forget("[1] Basic.GetEmpty(")
    main.delete("long key end")
