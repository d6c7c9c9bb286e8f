"""Section 1, channels: opening, closing, numbers, and what is heard meanwhile."""

import struct

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Exchange,
    Method,
    Queue,
    Tx,
    encode_method,
    make,
)
from tests.compat.scenario import Peer, scenario
from tests.support.client import raw_frame

CLOSE = make(Channel.Close, reply_code=200, reply_text="bye", class_id=0, method_id=0)
MISSING = make(Queue.Declare, queue="nobody has declared this", passive=True)
"""Closes the channel it is sent on."""


@scenario("1.6")
def a_channel_is_opened_and_closed_and_opened_again(peer: Peer) -> None:
    client = peer.client()
    for _ in range(2):
        client.call(1, make(Channel.Open))
        client.call(1, CLOSE)


@scenario("1.6")
def a_channel_is_opened_twice(peer: Peer) -> None:
    client = peer.client()
    client.call(1, make(Channel.Open))
    client.call(1, make(Channel.Open))


@scenario("1.6")
def what_comes_on_a_channel_that_is_not_open(peer: Peer) -> None:
    methods: dict[str, Method] = {
        "flow": make(Channel.Flow, active=True),
        "close": CLOSE,
        "close-ok": make(Channel.CloseOk),
        "declare": make(Queue.Declare, queue="late"),
        "ack": make(Basic.Ack, delivery_tag=1),
        "reject": make(Basic.Reject, delivery_tag=1),
        "commit": make(Tx.Commit),
    }
    for name, method in methods.items():
        client = peer.client(name)
        client.send(7, method)
        client.end()


@scenario("1.6", "1.8")
def content_on_a_channel_that_is_not_open(peer: Peer) -> None:
    peer.client("publish").publish(7, "", "nowhere", b"body")
    peer.client("body").send_bytes(raw_frame(3, 7, b"body"))
    for client in peer.clients.values():
        client.end()


@scenario("1.6")
def channels_are_counted_whatever_their_numbers(peer: Peer) -> None:
    client = peer.client(channel_max=2)
    client.call(5, make(Channel.Open))
    client.call(65_535, make(Channel.Open))
    client.call(5, CLOSE)
    client.call(1, make(Channel.Open))
    client.call(2, make(Channel.Open))


@scenario("1.6")
def a_channel_that_was_closed_for_an_error_hears_nothing_before_close_ok(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    client.channel(2)
    client.send(1, MISSING, make(Queue.Declare, queue="late"), make(Tx.Commit), MISSING)
    client.publish(1, "no exchange", "", b"late")
    client.expect("Channel.Close")
    client.settle(2)
    client.send(1, make(Channel.CloseOk))
    client.call(1, make(Channel.Open))


@scenario("1.6", "1.8")
def a_message_that_was_begun_before_its_channel_was_closed(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    publish = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))
    content = (raw_frame(2, 1, struct.pack(">HHQH", 60, 0, 4, 0)), raw_frame(3, 1, b"body"))
    client.send_bytes(encode_method(1, MISSING) + publish)
    client.expect("Channel.Close")
    client.send_bytes(b"".join(content))
    client.send(1, make(Channel.CloseOk))
    client.call(1, make(Channel.Open))


@scenario("1.6")
def a_channel_that_waits_for_close_ok_counts(peer: Peer) -> None:
    client = peer.client(channel_max=1)
    client.call(client.channel(1), MISSING)
    client.call(2, make(Channel.Open))


@scenario("1.6")
def both_sides_close_a_channel(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    client.call(1, MISSING)
    client.call(1, CLOSE)
    client.send(1, make(Channel.CloseOk))
    client.call(1, make(Channel.Open))


@scenario("1.6")
def a_channel_is_opened_before_close_ok(peer: Peer) -> None:
    for name, methods in {"at once": (), "with a close": (CLOSE,)}.items():
        client = peer.client(name)
        client.channel(1)
        client.call(1, MISSING)  # what is sent with it may overtake RabbitMQ's answer
        client.send(1, *methods, make(Channel.Open))
        client.end()


@scenario("1.6")
def a_close_ok_that_nobody_waits_for(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    client.send(1, make(Channel.CloseOk))
    client.end()


@scenario("1.6")
def what_stands_behind_a_close_is_dropped(peer: Peer) -> None:
    """Frames read together with a close are dropped; RabbitMQ loses count of messages there."""
    behind = {
        "a declaration": make(Queue.Declare, queue="behind a close", nowait=True),
        "what is wrong": make(Queue.Declare, queue="nobody has declared this", passive=True),
        "an ack": make(Basic.Ack, delivery_tag=7),
        "another close": CLOSE,
    }
    for name, method in behind.items():
        client = peer.client(name)
        client.channel(1)
        client.channel(2)
        client.send(1, CLOSE, method)
        client.settle(2)
        client.channel(1)
        client.settle(1)
    other = peer.client("other")
    other.call(other.channel(1), make(Queue.Declare, queue="behind a close", passive=True))


@scenario("1.6")
def an_error_leaves_the_other_channels_alone(peer: Peer) -> None:
    client = peer.client()
    client.channel(1)
    client.channel(2)
    client.call(2, make(Queue.Declare, queue="an_error_leaves_the_others", exclusive=True))
    client.call(2, make(Basic.Consume, queue="an_error_leaves_the_others", consumer_tag="tag"))
    client.call(1, MISSING)
    client.publish(2, "", "an_error_leaves_the_others", b"still here")
    client.expect("Basic.Deliver")


@scenario("1.6")
def a_closed_channel_gives_back_what_it_holds(peer: Peer) -> None:
    client = peer.client()
    queue = "a_closed_channel_gives_back"
    client.channel(1)
    client.channel(2)
    client.call(1, make(Queue.Declare, queue=queue, exclusive=True))
    client.call(1, make(Basic.Consume, queue=queue, consumer_tag="tag"))
    client.publish(1, "", queue, b"first")
    client.publish(1, "", queue, b"second")
    client.expect("Basic.Deliver", 2)
    client.call(1, CLOSE)
    client.call(2, make(Basic.Get, queue=queue))
    client.call(2, make(Queue.Declare, queue=queue, passive=True, exclusive=True))


@scenario("1.6")
def channel_zero_is_the_connection_s(peer: Peer) -> None:
    methods: dict[str, Method] = {
        "channel.open": make(Channel.Open),
        "channel.close": CLOSE,
        "queue.declare": make(Queue.Declare, queue="late"),
        "exchange.declare": make(Exchange.Declare, exchange="late"),
        "basic.ack": make(Basic.Ack, delivery_tag=1),
    }
    for name, method in methods.items():
        client = peer.client(name)
        client.send(0, method)
        client.end()


@scenario("1.6", "1.8")
def content_on_channel_zero(peer: Peer) -> None:
    peer.client("publish").publish(0, "", "nowhere", b"body")
    peer.client("header").send_bytes(raw_frame(2, 0, bytes(14)))
    peer.client("body").send_bytes(raw_frame(3, 0, b"body"))
    for client in peer.clients.values():
        client.end()


@scenario("1.6")
def methods_of_the_connection_on_a_channel(peer: Peer) -> None:
    methods: dict[str, Method] = {
        "close": make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0),
        "close-ok": make(Connection.CloseOk),
        "open": make(Connection.Open, virtual_host="/"),
        "blocked": make(Connection.Blocked, reason="none"),
    }
    for name, method in methods.items():
        client = peer.client(name)
        client.channel(1)
        client.send(1, method)
        client.end()


@scenario("1.6", "1.8")
def content_that_only_servers_send(peer: Peer) -> None:
    methods: dict[str, Method] = {
        "basic.deliver": make(
            Basic.Deliver, "tag", 1, redelivered=False, exchange="", routing_key="key"
        ),
        "basic.return": make(Basic.Return, 312, "NO_ROUTE", exchange="", routing_key="key"),
        "basic.get-ok": make(
            Basic.GetOk, 1, redelivered=False, exchange="", routing_key="key", message_count=0
        ),
    }
    for name, method in methods.items():
        client = peer.client(name)
        client.send(client.channel(1), method)
        client.send_bytes(raw_frame(2, 1, struct.pack(">HHQH", 60, 0, 0, 0)))
        client.end()
