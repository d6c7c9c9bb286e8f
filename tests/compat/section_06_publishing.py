"""Sections 6, 6.1 and 6.3: what a publish may be, what comes back, confirms, flow."""

from typing import Any

from fluffle.protocol.methods import Access, Basic, Channel, Confirm, make
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

REPLY_TO = "amq.rabbitmq.reply-to"


def refused(main: Speaker, exchange: str = "", key: str = "nowhere", **publish: Any) -> None:
    """Publish what a channel is closed for."""
    other = main.another()
    other.publish(exchange, key, **publish)
    other.expect("Channel.Close")


@scenario("6")
def expirations(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("expiring", exclusive=True)
    for text in ("60000", "+60000", "0060000", "315360000000"):
        main.publish("", "expiring", expiration=text)
        main.get("expiring")
    for text in ("", "abc", "-1", "-007", "10ms", "1.5", " 5", "5 ", "--5", "+-5", "0x5"):
        refused(main, expiration=text)
    for text in ("315360000001", "٣", "é", "5é", '5"\\', "9" * 255):
        refused(main, expiration=text)


@scenario("6")
def the_order_of_checks(peer: Peer) -> None:
    main = speaker(peer)
    refused(main, "none", expiration="abc", headers={"CC": 4}, user_id="x")
    refused(main, "amq.rabbitmq.trace", expiration="abc", headers={"CC": 4}, user_id="x")
    refused(main, expiration="abc", headers={"CC": 4}, user_id="x")
    refused(main, headers={"CC": 4, "BCC": 5}, user_id="x")
    refused(main, reply_to=REPLY_TO, user_id="x")
    refused(main, user_id="x", mandatory=True)
    refused(main, user_id="")


@scenario("6")
def properties_are_passed_on(peer: Peer) -> None:
    main = speaker(peer)
    everything: dict[str, Any] = {
        "content_type": "text/é",
        "content_encoding": "gzip",
        "headers": {"array": [1, {"void": None}], "float": 1.5, "binary": ("x", b"\xff")},
        "delivery_mode": 2,
        "priority": 255,
        "correlation_id": "c" * 255,
        "reply_to": f"{REPLY_TO}.not-mine",
        "expiration": "60000",
        "message_id": "",
        "timestamp": 2**64 - 1,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
        "cluster_id": "c",
    }
    main.declare("passed", exclusive=True)
    main.publish("", "passed", "all of them", **everything)
    main.publish("", "nowhere", "returned", mandatory=True, **everything)
    main.expect("Basic.Return")
    for mode in (0, 1, 2, 7, 255):
        main.publish("", "passed", delivery_mode=mode)
    main.publish("", "passed", headers={}, priority=0, timestamp=0)
    main.drain("passed")


@scenario("6")
def bodies_of_all_sizes(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("sizes", exclusive=True)
    for size in (0, 1, 4096, 131_063, 131_064, 131_065, 300_000):
        main.publish("", "sizes", "x" * size)
    main.publish("", "nowhere", "y" * 300_000, mandatory=True)
    main.expect("Basic.Return")
    main.drain("sizes")


@scenario("6")
def immediate_is_not_implemented(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("immediate", exclusive=True)
    main.client.publish(main.number, "", "immediate", b"at once", immediate=True)
    main.expect("Connection.Close")


@scenario("6")
def mandatory_messages_come_back(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("mandatory", exclusive=True)
    main.publish("", "mandatory", "routed", mandatory=True)
    main.publish("", "nowhere", "not mandatory")
    main.publish("", "nowhere", "to the default exchange", mandatory=True)
    for exchange in ("amq.direct", "amq.fanout", "amq.topic", "amq.headers"):
        main.publish(exchange, "nowhere", f"to {exchange}", mandatory=True, headers={"n": 1})
    main.expect("Basic.Return", 5)
    main.drain("mandatory")


@scenario("6")
def an_error_drops_what_is_behind_it(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("before", exclusive=True)
    other = main.another()
    other.publish("", "before", "in front of the error")
    other.publish("none", "before", "the error")
    other.publish("", "before", "behind the error")
    other.send(make(Basic.Get, queue="before", no_ack=True))
    other.expect("Channel.Close")
    main.drain("before")


@scenario("6")
def routes_change_between_publishes(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("moving a", exclusive=True)
    main.declare("moving b", exclusive=True)
    main.declare_exchange("moving")
    steps = (
        lambda: main.bind("moving a", "moving", "k"),
        lambda: main.bind("moving b", "moving", "k"),
        lambda: main.unbind("moving a", "moving", "k"),
        lambda: main.delete("moving b"),
        lambda: main.declare("moving b", exclusive=True),
    )
    for number, step in enumerate(steps):
        step()
        main.publish("moving", "k", f"after step {number}", mandatory=True)
        main.publish("", "moving b", f"by name after step {number}", mandatory=True)
    main.settle()
    main.drain("moving a")
    main.drain("moving b")
    main.delete_exchange("moving")
    main.publish("moving", "k", "too late")
    main.expect("Channel.Close")


@scenario("6.1")
def confirms_count_from_the_select(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("counting", exclusive=True)
    main.publish("", "counting", "before the select")
    main.confirms()
    main.publish("", "counting", "the first")
    main.expect("Basic.Ack")
    main.confirms()
    main.publish("", "counting", "the second")
    main.expect("Basic.Ack")
    main.publish("", "nowhere", "routed nowhere")
    main.expect("Basic.Ack")
    main.publish("", "counting", "persistent, on a queue that is not", delivery_mode=2)
    main.expect("Basic.Ack")
    silent = main.another()
    silent.send(make(Confirm.Select, nowait=True))
    silent.publish("", "counting", "a channel counts for itself")
    silent.expect("Basic.Ack")


@scenario("6.1")
def every_publish_is_confirmed_once(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("once transient", exclusive=True)
    main.declare("once durable", durable=True)
    main.bind("once transient", "amq.fanout")
    main.bind("once durable", "amq.fanout")
    main.confirms()
    places = (("", "once transient"), ("", "once durable"), ("amq.fanout", ""), ("", "nowhere"))
    for number in range(200):
        exchange, key = places[number % 4]
        main.publish(exchange, key, delivery_mode=1 + number % 2)
    peer.note(main.confirmed(200))
    main.settle()
    main.delete("once durable")


@scenario("6.1")
def a_return_comes_before_its_confirm(peer: Peer) -> None:
    main = speaker(peer)
    main.confirms()
    main.publish("", "nowhere", "returned, then confirmed", mandatory=True)
    main.expect("Basic.Ack")
    other = main.another()
    other.confirms()
    for number in range(3):
        other.publish("", "nowhere", str(number), mandatory=True)
    peer.note(other.confirmed(3))


@scenario("6.1")
def what_is_refused_is_not_confirmed(peer: Peer) -> None:
    main = speaker(peer)
    main.confirms()
    main.publish("", "nowhere", "confirmed")
    main.expect("Basic.Ack")
    main.publish("none", "k", "refused")
    main.publish("", "nowhere", "behind")
    main.expect("Channel.Close")


@scenario("6.1", "6.2")
def confirms_and_transactions_exclude_each_other(peer: Peer) -> None:
    main = speaker(peer)
    confirming = main.another()
    confirming.confirms()
    confirming.transact()
    transacting = main.another()
    transacting.transact()
    transacting.confirms()


@scenario("6.3")
def flow_and_tickets(peer: Peer) -> None:
    main = speaker(peer)
    main.do(make(Channel.Flow, active=True))
    main.do(Access.Request())
    main.do(Access.Request(realm="any", exclusive=True, passive=False))
    main.do(make(Channel.Flow, active=False))
