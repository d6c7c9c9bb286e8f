"""Section 15: what has died in a quorum queue and must arrive."""

from typing import Any

from tests.compat.scenario import Peer, scenario
from tests.compat.section_15_dying import declare, taken, worn_out
from tests.compat.verbs import Speaker, speaker


def sure(main: Speaker, queue: str, exchange: str, **arguments: Any) -> None:
    """Declare a quorum queue whose dead must arrive."""
    declare(
        main,
        queue,
        dead_letter_exchange=exchange,
        dead_letter_strategy="at-least-once",
        overflow="reject-publish",
        **arguments,
    )


def reject(main: Speaker, queue: str, count: int = 1) -> None:
    for tag in taken(main, queue, count):
        main.reject(tag, requeue=False)


@scenario("15")
def what_must_arrive_does(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("sure", "topic", auto_delete=True)
    for queue, queue_type in (("sure classic", "classic"), ("sure quorum", "quorum")):
        main.declare(queue, {"x-queue-type": queue_type}, durable=True)
        main.bind(queue, "sure", "#")
    sure(main, "source", "sure", delivery_limit=1)
    headers = {"CC": ["second", "third"], "BCC": ["hidden"], "x-death": "mine", "z": 1}
    main.publish("", "source", "expired", headers=headers, expiration="1", delivery_mode=2)
    for queue in ("sure classic", "sure quorum"):
        main.consume(queue, queue, no_ack=True)
        main.expect("Basic.Deliver")
        main.cancel(queue)
    main.publish("", "source", "worn out", delivery_mode=2, priority=3)
    worn_out(main, "source", 2)
    for queue in ("sure classic", "sure quorum"):
        main.consume(queue, queue, no_ack=True)
        main.expect("Basic.Deliver")
        main.cancel(queue)
    main.declare("source", passive=True)
    for queue in ("source", "sure classic", "sure quorum"):
        main.delete(queue)
    main.without_times()


@scenario("15")
def those_that_were_in_hands(peer: Peer) -> None:
    main = speaker(peer)
    main.declare_exchange("hands", "fanout", auto_delete=True)
    for queue, queue_type in (("hands classic", "classic"), ("hands quorum", "quorum")):
        main.declare(queue, {"x-queue-type": queue_type}, durable=True)
        main.bind(queue, "hands")
    sure(main, "handed", "hands", dead_letter_routing_key="dead")
    headers = {"CC": ["second", "third"], "BCC": ["hidden"], "x-death": "mine", "z": 1}
    main.publish("", "handed", "m", headers=headers, delivery_mode=2, expiration="60000")
    reject(main, "handed")
    for queue in ("hands classic", "hands quorum"):
        main.consume(queue, queue, no_ack=True)
        main.expect("Basic.Deliver")
        main.cancel(queue)
    for queue in ("handed", "hands classic", "hands quorum"):
        main.delete(queue)
    main.without_times()


@scenario("15")
def what_must_arrive_goes_from_queue_to_queue(peer: Peer) -> None:
    main = speaker(peer)
    sure(main, "one", "", dead_letter_routing_key="two")
    sure(main, "two", "", dead_letter_routing_key="three", message_ttl=1)
    sure(main, "three", "", dead_letter_routing_key="one")
    main.publish("", "one", "m", headers={"CC": ["four"]}, delivery_mode=2)
    for _ in range(2):
        reject(main, "one")
        reject(main, "three")
    main.consume("one", "one", no_ack=True)
    main.expect("Basic.Deliver")
    main.cancel("one")
    for queue in ("one", "two", "three"):
        main.delete(queue)
    main.without_times()


@scenario("15")
def many_must_arrive(peer: Peer) -> None:
    """More than are under way at once."""
    main = speaker(peer)
    declare(main, "many arrive")
    sure(main, "many", "", dead_letter_routing_key="many arrive", message_ttl=1)
    main.confirms()
    for number in range(100):
        main.publish("", "many", f"{number}", delivery_mode=2)
    peer.note(main.confirmed(100))
    main.consume("many arrive", "many", no_ack=True)
    main.expect("Basic.Deliver", 100)
    main.cancel("many")
    main.delete("many")
    main.delete("many arrive")
    main.without_times()


@scenario("15")
def what_must_arrive_and_cannot_is_kept(peer: Peer) -> None:
    main = speaker(peer)
    sure(main, "kept", "there is no such exchange")
    main.fill("kept", "a", "b")
    reject(main, "kept", 2)
    main.settle()
    main.purge("kept")
    main.get("kept")
    main.delete("kept")


@scenario("15")
def with_drop_head_nothing_must_arrive(peer: Peer) -> None:
    main = speaker(peer)
    declare(main, "dropped")
    declare(
        main,
        "dropping",
        dead_letter_exchange="",
        dead_letter_routing_key="dropped",
        dead_letter_strategy="at-least-once",
        overflow="drop-head",
        max_length=1,
    )
    main.fill("dropping", "a", "b")
    main.consume("dropped", "dropped", no_ack=True)
    main.expect("Basic.Deliver")
    main.cancel("dropped")
    main.delete("dropping")
    main.delete("dropped")
    main.without_times()
