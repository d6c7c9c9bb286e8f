"""Section 1.4: properties, where they may stand and how often."""

from __future__ import annotations

from tests.compat.mqtt.packets import (
    FORMS,
    Connect,
    Kind,
    Properties,
    Property,
    PropertyValue,
    Publish,
    Will,
    answer,
    binary,
    disconnect,
    packet,
    properties_bytes,
    subscribe,
    u16,
    varint,
)
from tests.compat.mqtt.scenario import Peer, scenario
from tests.compat.mqtt.section_01_packets import each_connect
from tests.compat.mqtt.section_01_wire import each_on_its_connection

SAMPLES: dict[str, PropertyValue] = {
    "u8": 1,
    "u16": 5,
    "u32": 7,
    "varint": 9,
    "string": "text",
    "binary": b"\0\1",
    "pair": ("name", "value"),
}
OF_CONNECT = (0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27)
OF_PUBLISH = (0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26)


def sample(identifier: int) -> tuple[int, PropertyValue]:
    return identifier, SAMPLES[FORMS[identifier]]


def named(identifier: int) -> str:
    return Property(identifier).name


@scenario("1.4")
def each_property_in_a_connect(peer: Peer) -> None:
    sent = {
        named(each): Connect(peer.topic("one"), properties=(sample(each),)).encode()
        for each in FORMS
    }
    each_connect(peer, sent)


@scenario("1.4")
def each_property_twice_in_a_connect(peer: Peer) -> None:
    sent = {
        named(each): Connect(peer.topic("two"), properties=(sample(each), sample(each))).encode()
        for each in OF_CONNECT
        if each not in (0x15, 0x16)
    }
    each_connect(peer, sent)


@scenario("1.4")
def each_property_in_a_publish(peer: Peer) -> None:
    each_on_its_connection(
        peer,
        5,
        {
            named(each): Publish(peer.topic("a"), "x", properties=(sample(each),)).encode(5)
            for each in FORMS
        },
    )


@scenario("1.4")
def each_property_twice_in_a_publish(peer: Peer) -> None:
    twice = {
        named(each): Publish(peer.topic("a"), properties=(sample(each), sample(each))).encode(5)
        for each in OF_PUBLISH
    }
    each_on_its_connection(peer, 5, twice)


@scenario("1.4")
def each_property_in_a_will(peer: Peer) -> None:
    sent = {
        named(each): Connect(
            peer.topic("will"), will=Will(peer.topic("w"), properties=(sample(each),))
        ).encode()
        for each in FORMS
    }
    each_connect(peer, sent)


@scenario("1.4")
def each_property_in_a_subscribe(peer: Peer) -> None:
    each_on_its_connection(
        peer,
        5,
        {named(each): subscribe(1, [(peer.topic("a"), 0)], 5, (sample(each),)) for each in FORMS},
    )
    one = sample(Property.SUBSCRIPTION_ID)
    each_on_its_connection(
        peer,
        5,
        {
            "id twice": subscribe(1, [(peer.topic("a"), 0)], 5, (one, one)),
            "id 0": subscribe(1, [(peer.topic("a"), 0)], 5, ((Property.SUBSCRIPTION_ID, 0),)),
            "largest id": subscribe(
                1, [(peer.topic("a"), 0)], 5, ((Property.SUBSCRIPTION_ID, 268_435_455),)
            ),
        },
    )


@scenario("1.4")
def each_property_in_an_unsubscribe(peer: Peer) -> None:
    sent = {
        named(each): packet(
            0xA2, u16(1), properties_bytes((sample(each),)), binary(peer.topic("a"))
        )
        for each in FORMS
    }
    each_on_its_connection(peer, 5, sent)


@scenario("1.4")
def each_property_in_an_answer(peer: Peer) -> None:
    each_on_its_connection(
        peer, 5, {named(each): answer(Kind.PUBACK, 7, 0, (sample(each),)) for each in FORMS}
    )


@scenario("1.4")
def each_property_in_a_disconnect(peer: Peer) -> None:
    for each in FORMS:
        client = peer.open(named(each), properties=((Property.SESSION_EXPIRY, 1),))
        client.send(disconnect(0, (sample(each),)))
        client.ended()


@scenario("1.4")
def values_that_are_out_of_range(peer: Peer) -> None:
    wrong: dict[str, Properties] = {
        "Receive Maximum 0": ((Property.RECEIVE_MAXIMUM, 0),),
        "Maximum Packet Size 0": ((Property.MAXIMUM_PACKET_SIZE, 0),),
        "Request Problem 2": ((Property.REQUEST_PROBLEM, 2),),
        "Request Response 2": ((Property.REQUEST_RESPONSE, 2),),
        "data, no method": ((Property.AUTH_DATA, b"a"),),
        "unknown": ((0x7F, b""),),
        "cut short": ((Property.RECEIVE_MAXIMUM, b"\1"),),
        "user cut short": ((Property.USER, b"\0\1a\0\5b"),),
    }
    each_connect(
        peer,
        {
            name: Connect(peer.topic("range"), properties=tuple(each)).encode()
            for name, each in wrong.items()
        },
    )
    messages: dict[str, Properties] = {
        "Payload Format 2": ((Property.PAYLOAD_FORMAT, 2),),
        "Response Topic with #": ((Property.RESPONSE_TOPIC, "a/#"),),
        "alias 0": ((Property.TOPIC_ALIAS, 0),),
        "alias too large": ((Property.TOPIC_ALIAS, 65_535),),
        "unknown": ((0x7F, b""),),
        "content type not UTF-8": ((Property.CONTENT_TYPE, b"\0\1\xff"),),
        "user not UTF-8": ((Property.USER, b"\0\1\xff\0\1a"),),
    }
    each_on_its_connection(
        peer,
        5,
        {
            name: Publish(peer.topic("a"), properties=tuple(each)).encode(5)
            for name, each in messages.items()
        },
    )


@scenario("1.4")
def lengths_of_properties_that_do_not_fit(peer: Peer) -> None:
    topic = binary(peer.topic("a"))
    sent = {
        "beyond the packet": packet(0x30, topic, varint(9), b"\1\1"),
        "none": packet(0x30, topic),
        "of five bytes": packet(0x30, topic, b"\xff\xff\xff\xff\x01"),
        "longer than needed": packet(0x30, topic, b"\x80\x00", b"x"),
        "in the middle of one": packet(0x30, topic, varint(2), b"\x02\0\0\0\1"),
    }
    each_on_its_connection(peer, 5, sent)


@scenario("1.4")
def a_method_of_authentication_that_there_is_not(peer: Peer) -> None:
    client = peer.client("client")
    client.open(properties=((Property.AUTH_METHOD, "nobody's"), (Property.AUTH_DATA, b"x")))
    client.settle()
