"""Section 8: how much may wait in a queue, and what becomes of what does not fit."""

from collections.abc import Iterator
from typing import Any

from tests.compat.scenario import End, Peer, across, scenario
from tests.compat.section_05_durability import keep
from tests.compat.verbs import Speaker, speaker

CLASSIC: dict[str, Any] = {}
QUORUM = {"x-queue-type": "quorum"}
TYPES = {"classic": CLASSIC, "quorum": QUORUM}


def limited(main: Speaker, queue: str, kind: str, **arguments: Any) -> None:
    """Declare a queue of a type; `_` stands for `-`."""
    named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    main.declare(queue, {**TYPES[kind], **named}, durable=True)


def publish(peer: Peer, main: Speaker, exchange: str, key: str, *bodies: str, **flags: Any) -> None:
    """Publish and note what is confirmed, one after the other."""
    other = main.another()
    other.confirms()
    heard = ""
    for number, body in enumerate(bodies, 1):
        other.publish(exchange, key, body, **flags)
        heard = other.confirmed(number)
    peer.note(f"{exchange}/{key}: {heard}")


@scenario("8.2", "9")
def what_is_in_front_of_too_many_dies(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("pushed out", exclusive=True)
    for kind in TYPES:
        dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "pushed out"}
        limited(main, f"short {kind}", kind, max_length=2, **dead)
        publish(peer, main, "", f"short {kind}", *"01234", mandatory=True)
        main.consume("pushed out", kind, no_ack=True)
        main.expect("Basic.Deliver", 3)
        main.cancel(kind)
        main.declare(f"short {kind}", passive=True)
        main.drain(f"short {kind}")
        main.delete(f"short {kind}")
    main.without_times()


@scenario("8.2")
def bytes_count_beside_messages(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        limited(main, f"small {kind}", kind, max_length=4, max_length_bytes=1000)
        for size in (300, 10, 970, 1001, 300, 300, 300, 300, 0, 0, 0, 0, 0):
            main.fill(f"small {kind}", "x" * size)
            main.settle()
            main.declare(f"small {kind}", passive=True)
        main.delete(f"small {kind}")


@scenario("8.2")
def a_queue_without_room_still_serves(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        limited(main, f"none {kind}", kind, max_length=0)
        main.fill(f"none {kind}", "nobody")
        consumer = speaker(peer, f"consumer of {kind}")
        consumer.consume(f"none {kind}", kind)
        main.fill(f"none {kind}", "somebody")
        consumer.expect("Basic.Deliver")
        consumer.cancel(kind)
        main.delete(f"none {kind}")


@scenario("8.2")
def what_is_held_is_in_nobodys_way(peer: Peer) -> None:
    """A requeued message is in front, and is dropped if there are too many."""
    main = speaker(peer)
    for kind in TYPES:
        limited(main, f"held {kind}", kind, max_length=1)
        main.fill(f"held {kind}", "0")
        other = main.another()
        other.get(f"held {kind}", no_ack=False)
        main.fill(f"held {kind}", "1")
        other.reject(1, requeue=True)
        other.close()
        main.settle()
        main.get(f"held {kind}")
        main.get(f"held {kind}")
        main.delete(f"held {kind}")


@scenario("8.2", "9")
def what_comes_back_is_too_much(peer: Peer) -> None:
    """A classic queue drops it though somebody has room; a quorum queue hands it out again."""
    main = speaker(peer)
    main.declare("came back", exclusive=True)
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "came back"}
    for kind in TYPES:
        limited(main, f"back {kind}", kind, max_length=0, **dead)
        consumer = speaker(peer, f"consumer of {kind}")
        consumer.consume(f"back {kind}", kind)
        main.fill(f"back {kind}", "0", "1", "2")
        consumer.expect("Basic.Deliver", 3)
        consumer.nack(2, multiple=True, requeue=True)
        if kind == "classic":
            main.consume("came back", kind, no_ack=True)
            main.expect("Basic.Deliver", 2)
            main.cancel(kind)
        else:
            consumer.expect("Basic.Deliver", 2)
        consumer.cancel(kind)
        main.delete(f"back {kind}")
    main.without_times()


@scenario("8.2", "9")
def several_that_come_back_are_too_many(peer: Peer) -> None:
    """The oldest go first, and are dead-lettered in order."""
    main = speaker(peer)
    main.declare("came back at once", exclusive=True)
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "came back at once"}
    for kind in TYPES:
        for how in ("close", "hang_up", "nack", "reject"):
            queue = f"at once {kind} {how}"
            limited(main, queue, kind, max_length=1, **dead)
            consumer = speaker(peer, f"consumer of {queue}")
            consumer.consume(queue, kind)
            main.fill(queue, "0", "1", "2")
            consumer.expect("Basic.Deliver", 3)
            if how in {"close", "hang_up"}:
                getattr(consumer, how)()
            else:
                consumer.cancel(kind)
            if how == "nack":
                consumer.nack(3, multiple=True, requeue=True)
            elif how == "reject":
                for tag in (1, 2, 3):
                    consumer.reject(tag, requeue=True)
            main.consume("came back at once", queue, no_ack=True)
            main.expect("Basic.Deliver", 2)
            main.cancel(queue)
            main.delete(queue)
    main.without_times()


@scenario("8.2", "9")
def the_oldest_that_comes_back_dies_first(peer: Peer) -> None:
    """In a classic queue it does, though its channel got it last; not if each comes by itself."""
    main = speaker(peer)
    main.declare("came back older", exclusive=True)
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "came back older"}
    for how in ("close", "nack", "reject"):
        limited(main, f"older {how}", "classic", max_length=1, **dead)
        first, second = speaker(peer, f"first {how}"), speaker(peer, f"second {how}")
        for number, one in enumerate((first, second)):
            one.qos(number + 1)
            one.consume(f"older {how}", "tag")
            main.fill(f"older {how}", str(number))
            one.expect("Basic.Deliver")
        first.close()
        second.expect("Basic.Deliver")
        main.fill(f"older {how}", "2")
        if how == "close":
            second.close()
        else:
            second.cancel("tag")
            if how == "nack":
                second.nack(2, multiple=True, requeue=True)
            else:
                second.reject(1, requeue=True)
                second.reject(2, requeue=True)
        main.consume("came back older", how, no_ack=True)
        main.expect("Basic.Deliver", 2)
        main.cancel(how)
        main.drain(f"older {how}")
        main.delete(f"older {how}")
    main.without_times()


@scenario("8.2", "6.1")
def what_does_not_fit_is_refused(peer: Peer) -> None:
    """A quorum queue takes one more than may wait, and refuses until four fifths do."""
    main = speaker(peer)
    for kind in TYPES:
        queue = f"full {kind}"
        limited(main, queue, kind, max_length=10, overflow="reject-publish")
        publisher = main.another()
        publisher.confirms()
        for number in range(1, 14):
            publisher.publish("", queue, str(number), mandatory=True)
            publisher.confirmed(number)
        main.declare(queue, passive=True)
        for number in range(14, 18):
            main.get(queue)
            main.declare(queue, passive=True)
            publisher.publish("", queue, str(number))
            publisher.confirmed(number)
        peer.note(publisher.confirmed(17))
        main.declare(queue, passive=True)
        main.delete(queue)


@scenario("8.2", "6.1")
def bytes_that_do_not_fit_are_refused(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"heavy {kind}"
        limited(main, queue, kind, max_length_bytes=1000, overflow="reject-publish")
        publish(peer, main, "", queue, *("x" * size for size in (300, 300, 300, 300, 300)))
        main.declare(queue, passive=True)
        main.delete(queue)
    limited(main, "heavy", "classic", max_length_bytes=10, overflow="reject-publish")
    publish(peer, main, "", "heavy", "x" * 11, "x" * 6, "x" * 6, "x" * 4, "", "x")
    main.declare("heavy", passive=True)
    main.delete("heavy")


@scenario("8.2", "6")
def nobody_hears_of_what_is_refused_without_confirms(peer: Peer) -> None:
    main = speaker(peer)
    limited(main, "silent", "classic", max_length=1, overflow="reject-publish")
    for body in "012":
        main.publish("", "silent", body, mandatory=True)
    main.drain("silent")
    main.delete("silent")


@scenario("8.2", "6.1")
def others_keep_what_one_refuses(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("to both", "fanout", auto_delete=True)
    for kind in TYPES:
        limited(main, f"one {kind}", kind, max_length=1, overflow="reject-publish")
        main.declare(f"all {kind}", exclusive=True)
        main.bind(f"one {kind}", "to both")
        main.bind(f"all {kind}", "to both")
        publish(peer, main, "to both", kind, *"0123")
        main.declare(f"one {kind}", passive=True)
        main.drain(f"all {kind}")
        main.unbind(f"one {kind}", "to both")
        main.delete(f"one {kind}")


@scenario("8.2", "6.2")
def a_transaction_that_does_not_fit(peer: Peer) -> None:
    main = speaker(peer)
    limited(main, "committed", "classic", max_length=2, overflow="reject-publish")
    for bodies in ("01", "23"):
        other = main.another()
        other.transact()
        for body in bodies:
            other.publish("", "committed", body)
        other.commit()
    main.drain("committed")
    main.delete("committed")


@scenario("8.2", "9")
def what_is_refused_may_die_of_it(peer: Peer) -> None:
    """Quorum queues dead-letter the oldest message."""
    main = speaker(peer)
    main.declare("refused", exclusive=True)
    for kind in TYPES:
        dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "refused"}
        queue = f"strict {kind}"
        limited(main, queue, kind, max_length=1, overflow="reject-publish-dlx", **dead)
        publish(peer, main, "", queue, *"012", headers={"n": 1}, expiration="60000")
        main.consume("refused", kind, no_ack=True)
        main.expect("Basic.Deliver", 2)
        main.cancel(kind)
        main.drain(queue)
        main.delete(queue)
    main.without_times()


@scenario("8.2", "9")
def dead_letters_that_do_not_fit(peer: Peer) -> None:
    main = speaker(peer)
    limited(main, "small grave", "classic", max_length=1, overflow="reject-publish")
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "small grave"}
    limited(main, "dying", "classic", **dead)
    main.fill("dying", *"012")
    for tag in (1, 2, 3):
        main.get("dying", no_ack=False)
        main.reject(tag, requeue=False)
        main.settle()
    main.drain("small grave")
    main.delete("dying", "small grave")
    main.without_times()


@across(End.STOP, "8.2")
@across(End.KILL, "8.2")
def queues_at_their_limits(peer: Peer) -> Iterator[None]:
    """The limit counts ready messages after a restart as before it."""
    it = speaker(peer, "before")
    for kind in TYPES:
        limited(it, f"over.dropping.{kind}", kind, max_length_bytes=1000)
        limited(it, f"over.refusing.{kind}", kind, max_length=3, overflow="reject-publish")
        limited(it, f"over.heavy.{kind}", kind, max_length_bytes=900, overflow="reject-publish")
        keep(it, f"over.dropping.{kind}", *(str(size) * 300 for size in range(5)))
        keep(it, f"over.refusing.{kind}", "0", "1", "2")
        keep(it, f"over.heavy.{kind}", "0" * 300, "1" * 300)
    yield
    it = speaker(peer, "after")
    for kind in TYPES:
        keep(it, f"over.dropping.{kind}", "x" * 300, "y" * 80)
        it.drain(f"over.dropping.{kind}")
        publish(peer, it, "", f"over.refusing.{kind}", "3", "4", delivery_mode=2)
        it.drain(f"over.refusing.{kind}")
        publish(peer, it, "", f"over.heavy.{kind}", "2" * 400, "3" * 200, "4", delivery_mode=2)
        it.drain(f"over.heavy.{kind}")
        for what in ("dropping", "refusing", "heavy"):
            it.delete(f"over.{what}.{kind}")
