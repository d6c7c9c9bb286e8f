"""Section 8: priorities of classic queues.

RabbitMQ 4.0 has two in quorum queues and serves them in turn.  The 32 of 4.3 are fluffle's:
`tests/broker/queues/test_priority_ready_list.py`.
"""

from collections.abc import Iterator
from typing import Any

from tests.compat.scenario import End, Peer, across, scenario
from tests.compat.verbs import Speaker, speaker

MIXED = (("a", 1), ("b", 5), ("c", 1), ("d", 9), ("e", None), ("f", 5), ("g", 0), ("h", 10))


def urgent(main: Speaker, queue: str, highest: int, **options: bool) -> None:
    """A queue with messages of several priorities, all of them in it."""
    main.declare(queue, {"x-max-priority": highest}, **options)
    for body, priority in MIXED:
        properties: dict[str, Any] = {} if priority is None else {"priority": priority}
        if options.get("durable"):
            properties["delivery_mode"] = 2
        main.publish("", queue, body, **properties)
    main.settle()


@scenario("8.3")
def the_highest_is_served_first(peer: Peer) -> None:
    for highest in (0, 1, 5, 9, 10, 255):
        main, queue = speaker(peer, f"{highest}"), f"highest {highest}"
        urgent(main, queue, highest, exclusive=True)
        main.consume(queue, "tag", no_ack=True)
        main.expect("Basic.Deliver", len(MIXED))


@scenario("8.3", "7.4")
def and_got_first(peer: Peer) -> None:
    main = speaker(peer)
    urgent(main, "got first", 9, exclusive=True)
    for _ in MIXED:
        main.get("got first")
    main.get("got first")


@scenario("8.3", "7.6")
def what_comes_back_goes_to_its_place(peer: Peer) -> None:
    main = speaker(peer)
    urgent(main, "its place", 9, exclusive=True)
    holder = main.another()
    holder.qos(6)
    holder.consume("its place", "holder")
    holder.expect("Basic.Deliver", 6)
    holder.cancel("holder")
    holder.nack(6)
    holder.nack(2)
    holder.nack(4)
    main.publish("", "its place", "i", priority=5)
    main.consume("its place", "heir", no_ack=True)
    main.expect("Basic.Deliver", 6)
    holder.nack(0, multiple=True)
    main.expect("Basic.Deliver", 3)


@scenario("8.3", "7.1")
def who_has_room_gets_the_highest(peer: Peer) -> None:
    main = speaker(peer)
    urgent(main, "has room", 9, exclusive=True)
    one = main.another()
    one.qos(1)
    one.consume("has room", "one")
    for tag in (1, 2, 3):
        one.expect("Basic.Deliver")
        main.publish("", "has room", f"late {tag}", priority=9 - tag)
        main.settle()
        one.ack(tag)
    one.expect("Basic.Deliver")


@scenario("8.3", "5.4")
def all_are_purged(peer: Peer) -> None:
    main = speaker(peer)
    urgent(main, "purged of all", 9, exclusive=True)
    main.purge("purged of all")
    main.get("purged of all")
    main.publish("", "purged of all", "b", priority=1)
    main.publish("", "purged of all", "a", priority=2)
    main.get("purged of all")
    main.get("purged of all")


@scenario("8.3", "9")
def the_dead_keep_their_priority(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("graded dead", {"x-max-priority": 9}, exclusive=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "graded dead"}
    main.declare("graded", arguments, exclusive=True)
    for body, priority in (("a", 1), ("b", 7), ("c", 4)):
        main.publish("", "graded", body, priority=priority)
    main.settle()
    for _ in range(3):
        main.get("graded", no_ack=False)
    main.nack(3, multiple=True, requeue=False)
    main.settle()
    main.declare("graded dead", passive=True)
    for _ in range(3):
        main.get("graded dead")
    main.without_times()


@across(End.STOP, "8.3")
@across(End.KILL, "8.3")
def priorities_outlive_the_broker(peer: Peer) -> Iterator[None]:
    main = speaker(peer)
    main.confirms()
    urgent(main, "lasting ranks", 9, durable=True)
    main.confirmed(len(MIXED))
    yield
    main = speaker(peer, "after")
    main.publish("", "lasting ranks", "i", priority=5)
    main.settle()
    main.consume("lasting ranks", "tag", no_ack=True)
    heard = main.expect("Basic.Deliver", len(MIXED) + 1)
    main.client.transcript.clear()
    peer.note([each.body for each in heard])
    main.delete("lasting ranks")
