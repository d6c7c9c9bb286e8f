"""Sections 7.1 to 7.4: prefetch, consumers and their tags, whose turn it is, basic.get."""

import re

from fluffle.protocol.methods import Basic, Queue, encode_method, make
from fluffle.protocol.properties import build_content, split_content
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker


def filled(peer: Peer, queue: str, count: int) -> Speaker:
    """A channel that has declared a queue of its own and filled it with "0", "1" …"""
    main = speaker(peer)
    main.declare(queue, exclusive=True)
    main.fill(queue, *map(str, range(count)))
    return main


@scenario("7.1")
def prefetch_is_of_each_consumer_that_starts_later(peer: Peer) -> None:
    main = filled(peer, "later", 10)
    main.qos(2)
    main.consume("later", "two")
    main.expect("Basic.Deliver", 2)
    main.qos(1)
    main.ack(1)
    main.expect("Basic.Deliver")
    main.consume("later", "one")
    main.expect("Basic.Deliver")
    main.qos(0)
    main.ack(3, multiple=True)
    main.expect("Basic.Deliver", 2)
    main.settle()
    main.consume("later", "no limit")
    main.expect("Basic.Deliver", 4)
    main.declare("later", passive=True)


@scenario("7.1")
def prefetch_limits_neither_no_ack_nor_get(peer: Peer) -> None:
    main = filled(peer, "unlimited", 8)
    main.qos(1)
    main.consume("unlimited", "held")
    main.expect("Basic.Deliver")
    main.get("unlimited", no_ack=False)
    main.get("unlimited", no_ack=False)
    main.get("unlimited")
    main.settle()
    main.qos(1)
    main.consume("unlimited", "free", no_ack=True)
    main.expect("Basic.Deliver", 4)
    main.ack(2, multiple=True)
    main.settle()


@scenario("7.1")
def prefetch_of_the_largest_number(peer: Peer) -> None:
    main = filled(peer, "largest", 3)
    main.qos(65_535)
    main.consume("largest", "tag")
    main.expect("Basic.Deliver", 3)


@scenario("7.1")
def prefetch_in_bytes_is_not_implemented(peer: Peer) -> None:
    for name, flags in (("one", {}), ("all", {"global_": True})):
        speaker(peer, name).qos(0, prefetch_size=7, **flags)


@scenario("7.1")
def a_rejected_message_makes_room(peer: Peer) -> None:
    main = filled(peer, "rejecting", 4)
    main.qos(1)
    main.consume("rejecting", "tag")
    main.expect("Basic.Deliver")
    main.reject(1, requeue=False)
    main.expect("Basic.Deliver")
    main.nack(2, requeue=False)
    main.expect("Basic.Deliver")
    main.cancel("tag")
    main.ack(3)
    main.settle()
    main.get("rejecting")


@scenario("7.1")
def a_limit_that_all_consumers_share(peer: Peer) -> None:
    main = filled(peer, "shared a", 3)
    main.declare("shared b", exclusive=True)
    main.fill("shared b", "0", "1", "2", "3")
    main.qos(3, global_=True)
    main.consume("shared a", "a")
    main.expect("Basic.Deliver", 3)
    main.consume("shared b", "b")
    main.declare("shared b", passive=True)
    main.ack(1)
    main.expect("Basic.Deliver")
    main.qos(4, global_=True)
    main.expect("Basic.Deliver")
    main.qos(1, global_=True)
    main.ack(2)
    main.declare("shared b", passive=True)
    main.qos(0, global_=True)
    main.expect("Basic.Deliver", 2)
    main.declare("shared b", passive=True)


@scenario("7.1")
def a_shared_limit_counts_for_who_needs_not_acknowledge(peer: Peer) -> None:
    main = filled(peer, "full a", 2)
    main.declare("full b", exclusive=True)
    main.fill("full b", "0", "1", "2")
    main.qos(1, global_=True)
    main.consume("full a", "a")
    main.expect("Basic.Deliver")
    main.consume("full b", "b", no_ack=True)
    main.declare("full b", passive=True)
    main.cancel("a")
    main.ack(1)
    main.expect("Basic.Deliver", 3)


@scenario("7.1")
def each_queue_has_its_share_of_a_shared_limit(peer: Peer) -> None:
    """Each queue is served in turn; the first one is chance with RabbitMQ."""
    main = speaker(peer)
    names = [f"share {name}" for name in "abc"]
    main.qos(1, global_=True)
    for name in names:
        main.declare(name, exclusive=True)
        main.fill(name, *map(str, range(60)))
    for name in names:
        main.consume(name, name)
    served: list[object] = []
    for tag in range(1, 61):
        while len(served) < tag:
            heard = main.client.heard if not served else [main.client.next()]
            served += [
                each.method["consumer_tag"] for each in heard if each.name == "Basic.Deliver"
            ]
        main.ack(tag)
    main.client.transcript.clear()
    peer.note([served.count(name) > 5 for name in names])


@scenario("7.1")
def a_shared_limit_beside_each_ones_own(peer: Peer) -> None:
    main = filled(peer, "beside a", 2)
    main.declare("beside b", exclusive=True)
    main.fill("beside b", "0", "1", "2")
    main.qos(1)
    main.qos(2, global_=True)
    main.consume("beside a", "a")
    main.expect("Basic.Deliver")
    main.consume("beside b", "b")
    main.expect("Basic.Deliver")
    main.get("beside a", no_ack=False)
    main.declare("beside b", passive=True)
    main.ack(2)
    main.expect("Basic.Deliver")
    main.ack(3)
    main.declare("beside b", passive=True)


@scenario("7.1")
def a_shared_limit_is_not_lifted_by_each_ones_own(peer: Peer) -> None:
    main = filled(peer, "lifted", 3)
    main.qos(1, global_=True)
    main.qos(3)
    main.consume("lifted", "tag")
    main.expect("Basic.Deliver")
    main.cancel("tag")


@scenario("7.1")
def what_was_published_before_has_happened_before(peer: Peer) -> None:
    """All of it comes in one read, with what follows: nobody has room who had none before."""
    behind = {
        "cancel": make(Basic.Cancel, consumer_tag="first"),
        "consume": make(Basic.Consume, queue="before consume", consumer_tag="late"),
        "get": make(Basic.Get, queue="before get"),
        "purge": make(Queue.Purge, queue="before purge"),
        "passive": make(Queue.Declare, queue="before passive", passive=True),
        "delete": make(Queue.Delete, queue="before delete"),
    }
    for name, method in behind.items():
        main = speaker(peer, name)
        main.declare(f"before {name}", exclusive=True)
        main.consume(f"before {name}", "first")
        main.consume(f"before {name}", "second")
        publish = make(Basic.Publish, exchange="", routing_key=f"before {name}")
        content = split_content(build_content(b"\0\0", b"m"), main.number, 131_072)
        sent = (encode_method(main.number, publish) + content) * 6
        main.client.send_bytes(sent + encode_method(main.number, method))
        main.expect("Basic.Deliver", 6)
        main.settle()
        tags = [str(one.method["consumer_tag"]) for one in main.client.heard if one.body]
        several = re.compile(r".*Basic.(Deliver|Cancel)\(")  # in no order to the answers
        others = [one for one in main.client.transcript if not several.match(one)]
        main.client.transcript[:] = others
        peer.note([name, sorted(tags)])


@scenario("7.2")
def consumer_tags(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("tagged", exclusive=True)
    main.consume("tagged", no_ack=True)
    main.consume("tagged", "é" * 127, no_ack=True, no_local=True)
    main.consume("tagged", "silent", no_ack=True, nowait=True)
    other = main.another()
    other.consume("tagged", "silent", no_ack=True)
    other.cancel("silent")
    other.consume("tagged", "silent", no_ack=True)
    main.fill("tagged", "0", "1", "2", "3")
    main.settle()
    main.consume("tagged", "silent")


@scenario("7.2")
def a_tag_is_looked_at_before_the_queue(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("looked at", exclusive=True)
    main.consume("looked at", "tag")
    main.consume("missing", "tag")


@scenario("7.2")
def consuming_what_is_not_there(peer: Peer) -> None:
    main = speaker(peer)
    main.another().consume("missing")
    main.another().consume("missing", exclusive=True, no_ack=True)
    main.another().consume("")


@scenario("7.2")
def consume_ok_comes_before_the_first_delivery(peer: Peer) -> None:
    main = filled(peer, "at first", 2)
    main.consume("at first", "tag", no_ack=True)
    main.expect("Basic.Deliver", 2)


@scenario("7.2")
def an_exclusive_consumer_wants_no_other(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("alone", exclusive=True)
    main.consume("alone", "first", exclusive=True)
    main.another().consume("alone")
    main.another().consume("alone", exclusive=True)
    main.publish("", "alone", "got by another")
    main.expect("Basic.Deliver")
    main.another().get("alone")
    main.cancel("first")
    other = main.another()
    other.consume("alone", "second")
    main.another().consume("alone", exclusive=True)
    other.cancel("second")
    main.consume("alone", "third", exclusive=True)
    main.consume("alone", "fourth")


@scenario("7.2")
def arguments_of_consumers(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("arguments", exclusive=True)
    for value in (5, -5, ("b", 5), ("B", 5), ("s", 5), "5", True, None, 1.5, ("T", 5), 2**40):
        main.another().consume("arguments", "tag", {"x-priority": value})
    for name in ("x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered", "x-unknown"):
        main.another().consume("arguments", "tag", {name: "first"})


@scenario("7.2")
def a_consumer_timeout_of_a_consumer(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("consumer timeout", exclusive=True)
    main.consume("consumer timeout", "tag", {"x-consumer-timeout": 5000})


@scenario("7.2")
def equal_consumers_take_turns(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("turns", exclusive=True)
    for tag in ("a", "b", "c"):
        main.consume("turns", tag, no_ack=True)
    main.fill("turns", "0", "1", "2", "3", "4", "5", "6")
    main.settle()
    main.cancel("b")
    main.fill("turns", "7", "8", "9", "10")
    main.settle()


@scenario("7.2")
def the_higher_priority_is_served_first(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("priorities", exclusive=True)
    main.qos(1)
    main.consume("priorities", "low", {"x-priority": -5})
    main.consume("priorities", "high", {"x-priority": 5})
    main.consume("priorities", "middle")
    main.fill("priorities", "0", "1", "2", "3")
    main.ack(2)
    main.expect("Basic.Deliver")
    main.fill("priorities", "4")
    main.ack(1)
    main.expect("Basic.Deliver")
    main.cancel("high")
    main.ack(5)
    main.settle()
    main.ack(4)
    main.fill("priorities", "5")
    main.settle()


@scenario("7.3")
def cancelling(peer: Peer) -> None:
    main = filled(peer, "cancelling", 3)
    main.cancel("never started")
    main.cancel("")
    main.qos(1)
    main.consume("cancelling", "tag")
    main.expect("Basic.Deliver")
    main.cancel("tag")
    main.cancel("tag")
    main.consume("cancelling", "silent")
    main.expect("Basic.Deliver")
    main.cancel("silent", nowait=True)
    main.ack(2)
    main.settle()
    main.get("cancelling", no_ack=False)
    main.declare("cancelling", passive=True)
    main.ack(1)
    main.nack(3)
    main.get("cancelling")


@scenario("7.4")
def getting(peer: Peer) -> None:
    main = filled(peer, "getting", 4)
    main.get("getting", no_ack=False)
    main.get("getting")
    main.get("getting", no_ack=False)
    main.nack(1)
    main.get("getting", no_ack=False)
    main.get("getting")
    main.get("getting")
    main.ack(3)
    main.ack(4)
    main.another().get("missing")
    main.ack(2)
    main.expect("Channel.Close")
