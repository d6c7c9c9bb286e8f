"""Sections 1.3, 1.5 and 1.6: each packet, and what is wrong in it."""

from __future__ import annotations

from dataclasses import replace

from tests.compat.mqtt.packets import (
    ANSWERS,
    FIVE,
    PINGREQ,
    Connect,
    Kind,
    Property,
    Publish,
    Will,
    answer,
    binary,
    disconnect,
    packet,
    subscribe,
    u16,
    unsubscribe,
)
from tests.compat.mqtt.scenario import Oracle, Peer, scenario
from tests.compat.mqtt.section_01_wire import VERSIONS, each_on_its_connection, in_each_version

NO_PROPERTIES = b"\0"


def each_connect(peer: Peer, sent: dict[str, bytes], version: int = FIVE) -> None:
    """Each as the first packet of a client of its own: what it is answered."""
    for name, data in sent.items():
        client = peer.client(name, version)
        client.connect()
        client.send(data)
        client.settle()
        client.close()


@scenario("1.3")
def the_first_packet_is_no_connect(peer: Peer) -> None:
    first = {
        "PUBLISH": Publish("a").encode(4),
        "PINGREQ": PINGREQ,
        "SUBSCRIBE": subscribe(1, [("a", 0)], 4),
        "DISCONNECT": disconnect(),
        "AUTH": packet(0xF0),
        "PUBACK": answer(Kind.PUBACK, 1),
        "CONNACK": packet(0x20, b"\0\0"),
    }
    each_connect(peer, first)


@scenario("1.3")
def names_and_levels_of_the_protocol(peer: Peer) -> None:
    connect = Connect(peer.topic("name"), 4)
    sent = {
        "MQTT 3": replace(connect, level=3),
        "MQIsdp 3": replace(connect, version=3),
        "MQIsdp 4": replace(connect, name="MQIsdp"),
        "mqtt 4": replace(connect, name="mqtt"),
        "HTTP 4": replace(connect, name="HTTP"),
        "MQTT 0": replace(connect, level=0),
        "MQTT 6": replace(connect, level=6),
        "MQTT 127": replace(connect, level=127),
        "no name": replace(connect, name="\0"),
    }
    each_connect(peer, {name: each.encode() for name, each in sent.items()}, version=4)


@scenario("1.3")
def flags_of_a_connect(peer: Peer) -> None:
    for version in VERSIONS.values():
        plain = Connect(peer.topic("flags"), version)
        will = replace(plain, will=Will(peer.topic("will")))
        both = replace(plain, user="guest", password="guest")
        sent = {
            "reserved": replace(plain, flags=0x03),
            "will of QoS 3": replace(will, flags=0x02 | 0x04 | 0x18),
            "will QoS, no will": replace(plain, flags=0x02 | 0x08),
            "will retain, no will": replace(plain, flags=0x02 | 0x20),
            "password, no user": replace(both, user=None, flags=0x02 | 0x40),
        }
        each_connect(
            peer, {f"{name} in {version}": it.encode() for name, it in sent.items()}, version
        )


@scenario("1.3")
def a_connect_that_is_too_short_or_too_long(peer: Peer) -> None:
    for version in VERSIONS.values():
        whole = Connect(peer.topic("length"), version).encode()
        body = whole[2:]
        sent = {f"{size} bytes in {version}": packet(0x10, body[:size]) for size in (0, 5, 7, 9)}
        sent[f"a byte more in {version}"] = packet(0x10, body, b"x")
        sent[f"an empty user more in {version}"] = packet(0x10, body, b"\0\0")
        each_connect(peer, sent, version)


@scenario("1.3")
def a_second_connect(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.send(Connect(client.client_id, version).encode())
        client.settle()


@scenario("1.3")
def a_publish_behind_the_connect_in_one_write(peer: Peer) -> None:
    """A client need not wait for the CONNACK."""
    for version in VERSIONS.values():
        client = peer.client(f"in {version}", version)
        topic = peer.topic(f"{version}")
        client.connect()
        client.send(
            Connect(client.client_id, version).encode(),
            subscribe(1, [(topic, 0)], version),
            PINGREQ,
        )
        client.expect(Kind.PINGRESP)
        client.publish(topic, "end")
        client.until(b"end")


@scenario("1.3")
def what_only_a_broker_sends(peer: Peer) -> None:
    sent = {
        "CONNACK": packet(0x20, b"\0\0"),
        "SUBACK": packet(0x90, u16(1), b"\0"),
        "UNSUBACK": packet(0xB0, u16(1)),
        "PINGRESP": packet(0xD0),
        "CONNACK with flags": packet(0x21, b"\0\0"),
    }
    in_each_version(peer, sent)


@scenario("1.3")
def a_publish_that_is_wrong(peer: Peer) -> None:
    for version in VERSIONS.values():
        tail = NO_PROPERTIES if version == FIVE else b""
        topic = peer.topic("wrong")
        sent = {
            "QoS 3": packet(0x36, binary(topic), u16(1), tail),
            "DUP with QoS 0": packet(0x38, binary(topic), tail),
            "id 0": packet(0x32, binary(topic), u16(0), tail),
            "no id": packet(0x32, binary(topic)),
            "with +": packet(0x30, binary(f"{topic}/+"), tail),
            "with #": packet(0x30, binary(f"{topic}/#"), tail),
            "with + in a level": packet(0x30, binary(f"{topic}/a+"), tail),
            "QoS 1 with +": packet(0x32, binary(f"{topic}/+"), u16(1), tail),
            "empty": packet(0x30, binary(""), tail),
        }
        each_on_its_connection(peer, version, sent)


@scenario("1.3")
def answers_that_nobody_waits_for(peer: Peer) -> None:
    sent = {
        kind.name: answer(kind, 77)
        for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)
    }
    in_each_version(peer, sent)


@scenario("1.3")
def answers_that_are_wrong(peer: Peer) -> None:
    firsts = {kind: kind << 4 | (2 if kind is Kind.PUBREL else 0) for kind in ANSWERS}
    in_each_version(peer, {f"{kind.name} of id 0": answer(kind, 0) for kind in ANSWERS})
    in_each_version(
        peer,
        {
            f"{kind.name} of {size} bytes": packet(first, bytes(size))
            for kind, first in firsts.items()
            for size in (0, 1)
        },
    )
    each_on_its_connection(
        peer, 4, {f"{kind.name} with a code": answer(kind, 77, 0) for kind in ANSWERS}
    )
    codes = {
        **{f"{kind.name} with 0x01": answer(kind, 77, 1) for kind in ANSWERS},
        **{f"{kind.name} with 0xff": answer(kind, 77, 0xFF) for kind in ANSWERS},
        "PUBACK with 0x92": answer(Kind.PUBACK, 77, 0x92),
        "PUBREC with 0x92": answer(Kind.PUBREC, 77, 0x92),
        "PUBREL with 0x10": answer(Kind.PUBREL, 77, 0x10),
        "PUBREL with 0x92": answer(Kind.PUBREL, 77, 0x92),
        "PUBCOMP with 0x92": answer(Kind.PUBCOMP, 77, 0x92),
        "PUBACK with 0x80": answer(Kind.PUBACK, 77, 0x80),
        "PUBREC with 0x80": answer(Kind.PUBREC, 77, 0x80),
    }
    each_on_its_connection(peer, FIVE, codes)


def answered_wrongly(peer: Peer, qos: int, *kinds: Kind) -> None:
    """A message of each version is answered by a packet of another exchange."""
    for version in VERSIONS.values():
        for kind in kinds:
            name = f"{kind.name} in {version}"
            client = peer.open(name, version)
            client.subscribe((peer.topic(name), qos))
            peer.open(f"other of {name}", version).publish(peer.topic(name), "a", qos=qos)
            (heard,) = client.take(acknowledge=False)
            client.send(answer(kind, heard.packet_id))
            client.settle()


@scenario("1.3")
def answers_of_the_wrong_kind(peer: Peer) -> None:
    answered_wrongly(peer, 1, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)


@scenario("1.3", of=(Oracle.MOSQUITTO,))
def answers_of_the_wrong_kind_to_qos_2(peer: Peer) -> None:
    answered_wrongly(peer, 2, Kind.PUBACK, Kind.PUBCOMP)


@scenario("1.3")
def a_subscribe_that_is_wrong(peer: Peer) -> None:
    for version in VERSIONS.values():
        tail = NO_PROPERTIES if version == FIVE else b""
        topic = peer.topic("a")
        sent = {
            "no filter": packet(0x82, u16(1), tail),
            "id 0": subscribe(0, [(topic, 0)], version),
            "no options": packet(0x82, u16(1), tail, binary(topic)),
            "QoS 3": subscribe(1, [(topic, 3)], version),
            "bit 7": subscribe(1, [(topic, 0x80)], version),
            "bit 6": subscribe(1, [(topic, 0x40)], version),
            "Retain Handling 3": subscribe(1, [(topic, 0x30)], version),
            "no UNSUBSCRIBE filter": packet(0xA2, u16(1), tail),
            "UNSUBSCRIBE id 0": unsubscribe(0, [topic], version),
        }
        each_on_its_connection(peer, version, sent)


@scenario("1.3")
def options_of_version_5_in_version_4(peer: Peer) -> None:
    topic = peer.topic("a")
    sent = {
        "No Local": subscribe(1, [(topic, 4)], 4),
        "Retain As Published": subscribe(1, [(topic, 8)], 4),
        "Retain Handling": subscribe(1, [(topic, 0x10)], 4),
    }
    each_on_its_connection(peer, 4, sent)


@scenario("1.3", "1.5")
def many_filters_have_as_many_codes(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        names = [peer.topic(each) for each in ("a", "+", "b/#", "c/+/d")]
        client.subscribe(*((name, qos) for qos, name in enumerate(names[:3])), (names[3], 1))
        client.unsubscribe(names[0], peer.topic("never"), names[2])
        client.settle()


@scenario("1.3", "1.5")
def filters_that_are_wrong(peer: Peer) -> None:
    wrong = ("", "a#", "a/#/b", "#/a", "a+", "+a", "a/b+/c", "##", "a/##")
    for version in VERSIONS.values():
        each_on_its_connection(
            peer, version, {repr(name): subscribe(1, [(name, 0)], version) for name in wrong}
        )
        each_on_its_connection(
            peer, version, {f"un {name!r}": unsubscribe(1, [name], version) for name in wrong[:4]}
        )


@scenario("1.3")
def a_ping_with_a_body(peer: Peer) -> None:
    in_each_version(peer, {"PINGREQ": packet(0xC0, b"a")})


@scenario("1.3", "1.5")
def codes_of_a_disconnect(peer: Peer) -> None:
    for code in (0x00, 0x04, 0x80, 0x81, 0x01, 0x87, 0xFF):
        client = peer.open(f"0x{code:02x}")
        client.send(disconnect(code))
        client.ended()
    for version in VERSIONS.values():
        client = peer.open(f"plain in {version}", version)
        client.send(disconnect(), PINGREQ)
        client.ended()
    client = peer.open("with a code in 4", 4)
    client.send(disconnect(0))
    client.ended()


@scenario("1.3")
def an_expiry_that_a_disconnect_may_not_bring(peer: Peer) -> None:
    for name, asked in {"from 0": (), "from 60": ((Property.SESSION_EXPIRY, 60),)}.items():
        client = peer.open(name, properties=asked)
        client.send(disconnect(0, [(Property.SESSION_EXPIRY, 30)]))
        client.ended()


@scenario("1.3")
def an_auth_that_nobody_asked_for(peer: Peer) -> None:
    each_on_its_connection(
        peer,
        FIVE,
        {
            "plain": packet(0xF0),
            "continue": packet(0xF0, b"\x18\x00"),
            "again": packet(0xF0, b"\x19\x00"),
            "unknown": packet(0xF0, b"\x01\x00"),
        },
    )


@scenario("1.5", "2.1")
def an_empty_identifier(peer: Peer) -> None:
    for version in (3, 4, FIVE):
        for clean in (True, False):
            client = peer.client(f"clean {clean} in {version}", version)
            client.connect()
            client.send(Connect("", version, clean).encode())
            client.settle()


@scenario("1.6")
def what_a_connack_says(peer: Peer) -> None:
    for name, properties in {
        "nothing asked": (),
        "an expiry": ((Property.SESSION_EXPIRY, 60),),
        "expires never": ((Property.SESSION_EXPIRY, 0xFFFFFFFF),),
        "small": ((Property.RECEIVE_MAXIMUM, 1), (Property.MAXIMUM_PACKET_SIZE, 200)),
        "aliases": ((Property.TOPIC_ALIAS_MAXIMUM, 5),),
        "response": ((Property.REQUEST_RESPONSE, 1), (Property.REQUEST_PROBLEM, 0)),
    }.items():
        client = peer.client(name)
        client.connect()
        client.send(Connect(client.client_id, properties=properties, keep_alive_s=60).encode())
        client.expect(Kind.CONNACK)
    client = peer.client("version 4", 4)
    client.connect()
    client.send(Connect(client.client_id, 4).encode())
    client.expect(Kind.CONNACK)
