"""Each packet is the bytes that the specification says, and the bytes are the packet."""

import pytest

from fluffle.protocol.mqtt.codes import MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Suback,
    Subscribe,
    Unsuback,
    encode,
    publish_flags,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.protocol.mqtt.packet_samples import (
    EXAMPLES,
    event_of,
    octets,
    read_all,
    reader_for,
)

NAMES = [
    f"{type(packet).__name__} {version} {at}" for at, (version, packet, _) in enumerate(EXAMPLES)
]


@pytest.mark.parametrize(("version", "packet", "text"), EXAMPLES, ids=NAMES)
def test_a_packet_is_its_bytes(version: int, packet: Packet, text: str) -> None:
    assert encode(packet, version).hex(" ") == octets(text).hex(" ")


@pytest.mark.parametrize(("version", "packet", "text"), EXAMPLES, ids=NAMES)
def test_bytes_are_their_packet(version: int, packet: Packet, text: str) -> None:
    assert read_all(reader_for(packet, version), octets(text)) == [event_of(packet)]


def test_every_type_of_packets_has_an_example_in_each_version() -> None:
    found = {(octets(text)[0] >> 4, version) for version, _, text in EXAMPLES}
    missing = {(int(kind), version) for kind in PacketType for version in (4, 5)} - found
    # These are the same in both, or there are none.
    assert missing == {(12, 5), (13, 5), (15, 4)}


def test_what_a_version_does_not_know_is_left_out() -> None:
    properties = Properties({PropertyId.REASON_STRING: "why"}, [("a", "b")])
    for version in (0, 3, 4):
        assert encode(
            Ack(PacketType.PUBACK, 1, ReasonCode.NOT_AUTHORIZED, properties), version
        ) == (b"\x40\x02\x00\x01")
        refused = Suback(1, [ReasonCode.QUOTA_EXCEEDED, ReasonCode.SUCCESS], properties)
        assert encode(refused, version) == b"\x90\x04\x00\x01\x80\x00"
        assert encode(Subscribe(1, [("a", 0b101110)]), version)[-1] == 2
        unsubscribed = Unsuback(1, [ReasonCode.NO_SUBSCRIPTION_EXISTED], properties)
        assert encode(unsubscribed, version) == b"\xb0\x02\x00\x01"
        assert encode(Disconnect(ReasonCode.SERVER_BUSY, properties), version) == b"\xe0\x00"


@pytest.mark.parametrize(
    ("code", "number"),
    [(0x80, 3), (0x84, 1), (0x85, 2), (0x86, 4), (0x87, 5), (0x88, 3), (0x97, 5), (0x9F, 3)],
)
def test_a_connack_before_5_0_has_a_return_code(code: int, number: int) -> None:
    assert encode(Connack(ReasonCode(code)), 4) == bytes((0x20, 2, 0, number))


def test_a_session_is_never_present_where_a_client_is_refused() -> None:
    refused = Connack(ReasonCode.SERVER_BUSY, session_present=True)
    assert encode(refused, 5) == b"\x20\x03\x00\x89\x00"


def test_flags_of_a_publish() -> None:
    assert publish_flags(0) == 0
    assert publish_flags(1, dup=True) == 0b1010
    assert publish_flags(2, retain=True) == 0b0101


def test_a_long_packet_has_a_long_length() -> None:
    connect = Connect(MQTT_5, "c" * 200)
    assert encode(connect, MQTT_5)[:3] == b"\x10\xd5\x01"


@pytest.mark.parametrize("size", [0x10000, 1 << 20])
def test_a_string_that_is_too_long_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="string of"):
        encode(Connect(MQTT_5, "c" * size), MQTT_5)
