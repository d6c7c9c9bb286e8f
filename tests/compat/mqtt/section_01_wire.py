"""Sections 1.1 and 1.2: the fixed header and the forms of what a packet holds."""

from __future__ import annotations

from collections.abc import Mapping

from tests.compat.mqtt.packets import FIVE, Connect, Kind, Publish, binary, packet, subscribe, u16
from tests.compat.mqtt.scenario import Peer, scenario

VERSIONS = {"3.1.1": 4, "5": FIVE}
NO_PROPERTIES = b"\0"


def each_on_its_connection(peer: Peer, version: int, sent: Mapping[str, bytes]) -> None:
    """Each packet of a client of its own: what it is answered before a PINGREQ is, or the close."""
    for name, data in sent.items():
        client = peer.open(f"{name} in {version}", version)
        client.send(data)
        client.settle()
        client.close()


def in_each_version(peer: Peer, sent: Mapping[str, bytes]) -> None:
    for version in VERSIONS.values():
        each_on_its_connection(peer, version, sent)


@scenario("1.1")
def flags_that_a_packet_may_not_have(peer: Peer) -> None:
    wrong = {
        f"{Kind(kind).name} with flags {flags}": packet(kind << 4 | flags, body)
        for kind, flags, body in (
            (Kind.PUBACK, 2, u16(1)),
            (Kind.PUBREC, 1, u16(1)),
            (Kind.PUBREL, 0, u16(1)),
            (Kind.PUBREL, 3, u16(1)),
            (Kind.PUBCOMP, 8, u16(1)),
            (Kind.PINGREQ, 1, b""),
            (Kind.DISCONNECT, 4, b""),
        )
    }
    in_each_version(peer, wrong)
    for version in VERSIONS.values():
        properties = NO_PROPERTIES if version == FIVE else b""
        asking = u16(1) + properties + binary(peer.topic("a"))
        wrong = {
            "SUBSCRIBE with flags 0": packet(0x80, asking, b"\0"),
            "SUBSCRIBE with flags 3": packet(0x83, asking, b"\0"),
            "UNSUBSCRIBE with flags 0": packet(0xA0, asking),
        }
        each_on_its_connection(peer, version, wrong)


@scenario("1.1")
def types_that_there_are_not(peer: Peer) -> None:
    in_each_version(peer, {"type 0": packet(0x00), "type 0 with a flag": packet(0x01, b"ab")})
    each_on_its_connection(peer, 4, {"AUTH": packet(0xF0)})


@scenario("1.1")
def a_length_of_five_bytes(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.send(b"\x30\xff\xff\xff\xff\x01")
        client.ended()


@scenario("1.1")
def a_length_that_is_longer_than_it_need_be(peer: Peer) -> None:
    in_each_version(peer, {"PINGREQ in two bytes": b"\xc0\x80\x00"})


@scenario("1.1")
def many_packets_in_one_write_and_one_in_many(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        topic = peer.topic(f"run/{version}")
        client.subscribe((topic, 0))
        client.send(*(Publish(topic, f"{each}").encode(version) for each in range(100)))
        for byte in Publish(topic, "end").encode(version):
            client.send(bytes([byte]))
        client.until(b"end")


@scenario("1.2")
def topics_that_are_no_strings(peer: Peer) -> None:
    for version in VERSIONS.values():
        tail = NO_PROPERTIES if version == FIVE else b""
        wrong = {
            "not UTF-8": packet(0x30, binary(b"\xff\xfe"), tail),
            "overlong": packet(0x30, binary(b"\xc0\xaf"), tail),
            "surrogate": packet(0x30, binary(b"\xed\xa0\x80"), tail),
            "NUL": packet(0x30, binary(b"a\0b"), tail),
            "control": packet(0x30, binary(b"a\x01b"), tail),
            "DEL": packet(0x30, binary(b"a\x7fb"), tail),
            "C1": packet(0x30, binary("a\u0085b"), tail),
            "non-character": packet(0x30, binary("a\uffffb"), tail),
            "cut short": packet(0x30, b"\0\x09abc"),
            "no length": packet(0x30, b"\0"),
            "nothing": packet(0x30),
        }
        each_on_its_connection(peer, version, wrong)


@scenario("1.2")
def filters_that_are_no_strings(peer: Peer) -> None:
    for version in VERSIONS.values():
        names = {
            "not UTF-8": b"\xff\xfe",
            "surrogate": b"\xed\xa0\x80",
            "NUL": b"a\0b",
            "control": b"a\x1fb",
        }
        each_on_its_connection(
            peer, version, {key: subscribe(1, [(name, 0)], version) for key, name in names.items()}
        )


@scenario("1.2")
def identifiers_that_are_no_strings(peer: Peer) -> None:
    for version in VERSIONS.values():
        for name, identifier in {
            "not UTF-8": b"\xff",
            "NUL": b"a\0b",
            "control": b"a\x02b",
        }.items():
            client = peer.client(f"{name} in {version}", version)
            client.connect()
            client.send(Connect(identifier, version).encode())
            client.settle()


@scenario("1.2")
def a_mark_of_byte_order_is_kept(peer: Peer) -> None:
    for version in VERSIONS.values():
        client = peer.open(f"in {version}", version)
        client.subscribe((peer.topic(f"\ufeffa/{version}"), 0))
        client.publish(peer.topic(f"\ufeffa/{version}"), "with")
        client.publish(peer.topic(f"a/{version}"), "without")
        client.publish(peer.topic(f"\ufeffa/{version}"), "end")
        client.until(b"end")
