"""Events and errors of the reader, however its bytes are cut."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluffle.protocol.mqtt.codes import BROKER_CODES, CLIENT_CODES, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, encode_properties
from fluffle.protocol.mqtt.reader import (
    EVENTS_MAX,
    OTHER_BYTES_MAX,
    WORK_BYTES_MAX,
    Acks,
    ClientReader,
    Event,
    Publishes,
    Reader,
    Violation,
)
from tests.protocol.mqtt.packet_samples import (
    EXAMPLES,
    PACKET_BYTES_MAX,
    VERSIONS,
    broker_packets,
    client_packets,
    connects,
    ends,
    event_of,
    is_of_broker,
    octets,
    open_reader,
    packets_of,
    plain,
    published,
    read_all,
    reader_for,
)
from tests.support.call_count import calls_of

C, T = ReasonCode, PacketType
MANY_PROPERTIES = Properties(user=[("name", str(number)) for number in range(1000)])


def violation(reader: Reader, data: bytes) -> Violation:
    """The last event of all that comes of `data`, behind which nothing is read."""
    last = read_all(reader, data)[-1]
    assert isinstance(last, Violation), last
    assert reader.is_broken
    assert not reader.is_waiting
    assert reader.feed(b"\xc0\x00") == []
    return last


# Runs


def test_publishes_of_one_read_come_as_runs() -> None:
    one, two = Publish(b"a", b"x"), Publish(b"a", b"longer")
    kept, other = Publish(b"a", b"", retain=True), Publish(b"b", b"y")
    sent = [one, two, one, kept, other, other]
    reader = open_reader(4)
    assert reader.feed(b"".join(encode(packet, 4) for packet in sent)) == [
        published(one, two, one),
        published(kept),
        published(other, other),
    ]


def test_identifiers_of_a_run() -> None:
    sent = [Publish(b"a", b"x", 1, packet_id=number) for number in (1, 0x1234, 7)]
    (run,) = open_reader(MQTT_5).feed(b"".join(encode(packet, MQTT_5) for packet in sent))
    assert isinstance(run, Publishes)
    assert (run.qos, run.packet_ids, run.payloads) == (1, [1, 0x1234, 7], [b"x"] * 3)


def test_acks_come_as_runs_of_one_type() -> None:
    sent = [
        Ack(T.PUBACK, 1),
        Ack(T.PUBACK, 9),
        Ack(T.PUBREC, 2),
        Ack(T.PUBREL, 2),
        Ack(T.PUBREL, 3),
    ]
    refused = Ack(T.PUBACK, 4, C.NOT_AUTHORIZED)
    sent.insert(2, refused)
    assert read_all(open_reader(5), b"".join(encode(packet, 5) for packet in sent)) == [
        Acks(T.PUBACK, [1, 9]),
        refused,
        Acks(T.PUBREC, [2]),
        Acks(T.PUBREL, [2, 3]),
    ]


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"AMQP\0\0\x09\1", "AMQP at a port for MQTT"),
        (b"GET / HTTP/1.1\r\n", "HTTP at a port for MQTT"),
        (b"\x16\x03\x01\0\0", "TLS at a port for MQTT without TLS"),
    ],
)
def test_clients_of_other_protocols_are_known(sent: bytes, name: str) -> None:
    assert violation(Reader(PACKET_BYTES_MAX), sent).text == f"a client of {name}"


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x00"])
def test_an_ack_that_says_in_full_that_all_went_well_is_one_of_a_run(tail: bytes) -> None:
    sent = b"".join(bytes((0x40, 2 + len(tail), 0, number)) + tail for number in (1, 2, 3))
    reader = open_reader(MQTT_5)
    assert plain(reader.feed(sent + b"\x40\x02\x00\x04")) == [Acks(T.PUBACK, [1, 2, 3, 4])]
    assert violation(open_reader(4), sent).code is C.MALFORMED_PACKET


# Topic aliases


def aliased(topic: bytes, alias: int, payload: bytes = b"x", rest: bytes = b"") -> bytes:
    properties = rest + b"\x23" + alias.to_bytes(2, "big")
    return encode(Publish(topic, payload, properties=properties), MQTT_5)


def test_a_topic_alias_stands_for_the_topic_that_it_was_given() -> None:
    reader = open_reader(MQTT_5)
    sent = aliased(b"a", 1) + aliased(b"", 1) + aliased(b"b", 16) + aliased(b"", 1)
    sent += aliased(b"c", 1) + aliased(b"", 1, rest=b"\x01\x01") + aliased(b"", 16)
    assert reader.feed(sent) == [
        published(Publish(b"a", b"x"), Publish(b"a", b"x")),
        published(Publish(b"b", b"x")),
        published(Publish(b"a", b"x")),
        published(Publish(b"c", b"x")),
        published(Publish(b"c", b"x", properties=b"\x01\x01")),
        published(Publish(b"b", b"x")),
    ]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (aliased(b"a", 0), C.TOPIC_ALIAS_INVALID),
        (aliased(b"a", 17), C.TOPIC_ALIAS_INVALID),
        (aliased(b"", 17), C.TOPIC_ALIAS_INVALID),
        (aliased(b"", 16), C.PROTOCOL_ERROR),
        (encode(Publish(b"", b"x"), MQTT_5), C.PROTOCOL_ERROR),
        (encode(Publish(b"", b"x", properties=b"\x01\x00"), MQTT_5), C.PROTOCOL_ERROR),
    ],
)
def test_topic_aliases_that_are_wrong(sent: bytes, code: ReasonCode) -> None:
    assert violation(open_reader(MQTT_5), sent).code is code


# What is wrong

CONNECT = "10 0c 0004 'MQTT' 04 02 0000 0000"
CONNECT_5 = "10 0d 0004 'MQTT' 05 02 0000 00 0000"

UNANSWERED = [
    "00 00", "20 02 0000", "30 03 0001 'a'", "c0 00", "e0 00", "f0 00", "11 00", "'GET / HTTP/1.1'",
    "'AMQP' 00 00 09 01", "16 03 01 00", "10 ff ff ff ff",
    "10 00", "10 01 00", "10 02 0004", "10 06 0004 'MQTX'", "10 0c 0004 'mqtt' 04 02 0000 0000",
    "10 0c 0004 'MQTT'" + "04" * 0, "10 06 0004 'MQTT'", "10 84 80 04",
]  # fmt: skip
"""First packets after which the connection is closed without a word."""


@pytest.mark.parametrize("text", UNANSWERED)
def test_a_first_packet_that_is_no_connect_of_mqtt_is_not_answered(text: str) -> None:
    reader = Reader(PACKET_BYTES_MAX)
    sent = octets(text)
    events = reader.feed(sent)
    if events == []:
        assert reader.is_amid  # what is missing may still come
        return
    (found,) = events
    assert isinstance(found, Violation)
    assert (found.in_connect, reader.version) == (False, 0)


@pytest.mark.parametrize(
    "text",
    [
        "10 0c 0004 'MQTT' 03 02 0000 0000",
        "10 0c 0004 'MQTT' 06 02 0000 0000",
        "10 0c 0004 'MQTT' 84 02 0000 0000",
        "10 0e 0006 'MQIsdp' 04 02 0000 0000",
        "10 07 0004 'MQTT' 00",
    ],
)
def test_a_version_that_is_not_known_is_answered(text: str) -> None:
    reader = Reader(PACKET_BYTES_MAX)
    found = violation(reader, octets(text))
    assert (found.code, found.in_connect) == (C.UNSUPPORTED_PROTOCOL_VERSION, True)
    assert reader.version == 0


CONNECTS_3 = {
    "reserved flag": ("10 0c 0004 'MQTT' 04 03 0000 0000", C.MALFORMED_PACKET),
    "QoS 3 of the will": (
        "10 11 0004 'MQTT' 04 1e 0000 0000 0001 'w' 0000", C.MALFORMED_PACKET),
    "QoS of no will": ("10 0c 0004 'MQTT' 04 0a 0000 0000", C.MALFORMED_PACKET),
    "retain of no will": ("10 0c 0004 'MQTT' 04 22 0000 0000", C.MALFORMED_PACKET),
    "password without user": ("10 0f 0004 'MQTT' 04 42 0000 0000 0001 'p'", C.MALFORMED_PACKET),
    "no client": ("10 0c 0004 'MQTT' 04 00 0000 0000", C.CLIENT_IDENTIFIER_NOT_VALID),
    "more than it says": ("10 0d 0004 'MQTT' 04 02 0000 0000 00", C.MALFORMED_PACKET),
    "no keep alive": ("10 08 0004 'MQTT' 04 02", C.MALFORMED_PACKET),
    "client is cut": ("10 0d 0004 'MQTT' 04 02 0000 0002 'c'", C.MALFORMED_PACKET),
    "client is not UTF-8": ("10 0e 0004 'MQTT' 04 02 0000 0002 c3 28", C.MALFORMED_PACKET),
    "surrogate": ("10 0f 0004 'MQTT' 04 02 0000 0003 ed a0 80", C.MALFORMED_PACKET),
    "zero": ("10 0d 0004 'MQTT' 04 02 0000 0001 00", C.MALFORMED_PACKET),
    "control character": ("10 0d 0004 'MQTT' 04 02 0000 0001 1f", C.MALFORMED_PACKET),
    "non-character": ("10 0f 0004 'MQTT' 04 02 0000 0003 ef bf bf", C.MALFORMED_PACKET),
    "user is missing": ("10 0c 0004 'MQTT' 04 82 0000 0000", C.MALFORMED_PACKET),
    "user is a control": ("10 0f 0004 'MQTT' 04 82 0000 0000 0001 7f", C.MALFORMED_PACKET),
    "wildcard in will": (
        "10 11 0004 'MQTT' 04 06 0000 0000 0001 '#' 0000", C.TOPIC_NAME_INVALID),
    "will without topic": ("10 10 0004 'MQTT' 04 06 0000 0000 0000 0000", C.TOPIC_NAME_INVALID),
}  # fmt: skip
CONNECTS_5 = {
    "no properties": ("10 0c 0004 'MQTT' 05 02 0000 0000", C.MALFORMED_PACKET),
    "twice": ("10 13 0004 'MQTT' 05 02 0000 06 210001 210001 0000", C.PROTOCOL_ERROR),
    "of another": ("10 0f 0004 'MQTT' 05 02 0000 02 0101 0000", C.PROTOCOL_ERROR),
    "of no": ("10 0f 0004 'MQTT' 05 02 0000 02 0401 0000", C.MALFORMED_PACKET),
    "receive maximum": ("10 10 0004 'MQTT' 05 02 0000 03 210000 0000", C.PROTOCOL_ERROR),
    "packet size": ("10 12 0004 'MQTT' 05 02 0000 05 2700000000 0000", C.PROTOCOL_ERROR),
    "problem information": ("10 0f 0004 'MQTT' 05 02 0000 02 1702 0000", C.PROTOCOL_ERROR),
    "response information": ("10 0f 0004 'MQTT' 05 02 0000 02 1902 0000", C.PROTOCOL_ERROR),
    "data without method": ("10 11 0004 'MQTT' 05 02 0000 04 16000100 0000", C.PROTOCOL_ERROR),
    "delay of no will": ("10 12 0004 'MQTT' 05 02 0000 05 1800000001 0000", C.PROTOCOL_ERROR),
}
BAD_CONNECTS = {**CONNECTS_3, **{f"properties: {name}": bad for name, bad in CONNECTS_5.items()}}


@pytest.mark.parametrize("name", BAD_CONNECTS)
def test_a_connect_that_is_wrong_names_its_code(name: str) -> None:
    text, code = BAD_CONNECTS[name]
    reader = Reader(PACKET_BYTES_MAX)
    found = violation(reader, octets(text))
    assert (found.code, found.in_connect) == (code, True), found.text
    assert reader.version


def test_a_password_without_a_user_is_allowed_in_5_0() -> None:
    sent = octets("10 10 0004 'MQTT' 05 42 0000 00 0000 0001 'p'")
    assert Reader(PACKET_BYTES_MAX).feed(sent) == [Connect(5, "", password=b"p")]


def test_user_and_password_may_be_missing_in_3_1() -> None:
    sent = octets("10 0f 0006 'MQIsdp' 03 c2 0000 0001 'c'")
    assert Reader(PACKET_BYTES_MAX).feed(sent) == [Connect(3, "c")]


MALFORMED, REFUSED = C.MALFORMED_PACKET, C.PROTOCOL_ERROR
BAD_PACKETS: list[tuple[int, str, ReasonCode]] = [
    # 1.1 first octet and remaining length
    (4, "00 00", MALFORMED),
    (4, "f0 00", MALFORMED),
    (5, "f1 00", MALFORMED),
    *((4, f"{octet:02x} 02 0001", MALFORMED) for octet in (0x60, 0x63, 0x41, 0x52, 0x74)),
    *((4, f"{octet:02x} 06 0001 0001 'a' 00", MALFORMED) for octet in (0x80, 0x83, 0xA0, 0xA1)),
    (4, "c1 00", MALFORMED),
    (4, "e8 00", MALFORMED),
    (4, "c0 80808080", MALFORMED),
    (4, "30 ff ff ff ff 01", MALFORMED),
    # what only a broker sends
    *((4, text, REFUSED) for text in ("20 02 0000", "90 03 0001 00", "b0 02 0001", "d0 00")),
    *((4, text, MALFORMED) for text in ("21 02 0000", "92 03 0001 00", "b4 02 0001", "d8 00")),
    # a second CONNECT
    (4, CONNECT, REFUSED),
    (5, CONNECT_5, REFUSED),
    # PUBLISH
    (4, "36 05 0001 'a' 0001", MALFORMED),
    (4, "38 03 0001 'a'", MALFORMED),
    (4, "30 00", MALFORMED),
    (4, "30 01 00", MALFORMED),
    (4, "30 02 0001", MALFORMED),
    (4, "30 03 0002 'a'", MALFORMED),
    (4, "32 04 0001 'a' 00", MALFORMED),
    (4, "32 05 0001 'a' 0000", REFUSED),
    (4, "34 05 0001 'a' 0000", REFUSED),
    (4, "30 02 0000", REFUSED),
    (4, "30 03 0001 '+'", C.TOPIC_NAME_INVALID),
    (4, "30 05 0003 'a/#'", C.TOPIC_NAME_INVALID),
    (4, "30 03 0001 00", MALFORMED),
    (4, "30 03 0001 ff", MALFORMED),
    (4, "30 05 0003 eda080", MALFORMED),
    (4, "30 04 0002 c285", MALFORMED),
    (4, "30 05 0003 efb790", MALFORMED),
    (5, "30 03 0001 'a'", MALFORMED),
    (5, "30 04 0001 'a' 01", MALFORMED),
    (5, "30 05 0001 'a' 8000", MALFORMED),
    (5, "30 06 0001 'a' 800000", MALFORMED),
    (5, "30 07 0001 'a' 80808080", MALFORMED),
    (5, "30 06 0001 'a' 02 0b01", REFUSED),
    (5, "30 06 0001 'a' 02 0102", REFUSED),
    (5, "30 08 0001 'a' 04 0100 0100", REFUSED),
    (5, "30 08 0001 'a' 04 080001 '#'", REFUSED),
    (5, "30 09 0001 'a' 05 1100000001", REFUSED),
    (5, "30 06 0001 'a' 02 7f00", MALFORMED),
    (5, "30 06 0001 'a' 02 0200", MALFORMED),
    (5, "30 0b 0001 'a' 07 260001 'a' 0002 'b'", MALFORMED),
    (5, "30 08 0001 'a' 04 030001 00", MALFORMED),
    (5, "30 08 0001 'a' 04 030001 ff", MALFORMED),
    # PUBACK and its like
    *((4, f"{octet:02x} {rest}", MALFORMED) for octet in (0x40, 0x50, 0x62, 0x70)
      for rest in ("00", "01 00", "03 0001 00")),
    *((version, f"{octet:02x} 02 0000", REFUSED) for octet in (0x40, 0x50, 0x62, 0x70)
      for version in (4, 5)),
    (5, "40 03 0001 92", REFUSED),
    (5, "50 03 0001 01", REFUSED),
    (5, "62 03 0001 10", REFUSED),
    (5, "70 03 0001 80", REFUSED),
    (5, "40 03 0001 ff", REFUSED),
    (5, "40 04 0001 00 01", MALFORMED),
    (5, "40 05 0001 00 00 00", MALFORMED),
    (5, "40 06 0001 00 02 0100", REFUSED),
    # SUBSCRIBE
    (4, "82 00", MALFORMED),
    (4, "82 02 0001", REFUSED),
    (5, "82 03 0001 00", REFUSED),
    (4, "82 06 0000 0001 'a' 00", REFUSED),
    (4, "82 05 0001 0001 'a'", MALFORMED),
    (4, "82 05 0001 0002 'a'", MALFORMED),
    (4, "82 06 0001 0001 'a' 03", MALFORMED),
    *((4, f"82 06 0001 0001 'a' {options:02x}", MALFORMED) for options in (4, 8, 16, 32, 64, 128)),
    (5, "82 07 0001 00 0001 'a' 03", MALFORMED),
    (5, "82 07 0001 00 0001 'a' 40", MALFORMED),
    (5, "82 07 0001 00 0001 'a' 80", MALFORMED),
    (5, "82 07 0001 00 0001 'a' 30", REFUSED),
    (5, "82 10 0001 00 000a '$share/g/a' 04", REFUSED),
    (5, "82 09 0001 02 0b00 0001 'a' 00", REFUSED),
    (5, "82 0b 0001 04 0b01 0b02 0001 'a' 00", REFUSED),
    (5, "82 09 0001 02 0100 0001 'a' 00", REFUSED),
    (4, "82 06 0001 0001 00 00", MALFORMED),
    (4, "82 06 0001 0001 ff 00", MALFORMED),
    # UNSUBSCRIBE
    (4, "a2 02 0001", REFUSED),
    (4, "a2 05 0000 0001 'a'", REFUSED),
    (4, "a2 06 0001 0001 'a' 00", MALFORMED),
    (5, "a2 08 0001 02 0b01 0001 'a'", REFUSED),
    # PINGREQ, DISCONNECT, AUTH
    (4, "c0 01 00", MALFORMED),
    (4, "e0 01 00", MALFORMED),
    (5, "e0 01 01", REFUSED),
    (5, "e0 01 8b", REFUSED),
    (5, "e0 03 00 00 00", MALFORMED),
    (5, "e0 04 00 02 0100", REFUSED),
    (5, "f0 00", REFUSED),
    (5, "f0 01 18", REFUSED),
    (5, "f0 06 00 04 150001 'm'", REFUSED),
    (5, "f0 06 18 04 160001 'm'", REFUSED),
]  # fmt: skip


@pytest.mark.parametrize(("version", "text", "code"), BAD_PACKETS)
def test_a_packet_that_is_wrong_names_its_code(version: int, text: str, code: ReasonCode) -> None:
    found = violation(open_reader(version), octets(text))
    assert (found.code, found.in_connect) == (code, False), found.text


@pytest.mark.parametrize(("version", "text", "code"), BAD_PACKETS)
def test_what_comes_before_a_packet_that_is_wrong_is_read(
    version: int, text: str, code: ReasonCode
) -> None:
    good: list[Packet] = [Publish(b"a", b"x"), Ack(T.PUBACK, 1), Pingreq()]
    sent = b"".join(encode(packet, version) for packet in good)
    *found, last = read_all(open_reader(version), sent + octets(text) + sent)
    assert found == [event_of(packet) for packet in good]
    assert isinstance(last, Violation)
    assert last.code is code


def test_a_wrong_message_ends_a_run() -> None:
    for version, bad, code in BAD_PACKETS:
        sent = octets(bad)
        if sent[0] >> 4 != T.PUBLISH or version < MQTT_5:
            continue
        good = Publish(b"a", b"", (sent[0] >> 1 & 3) % 3, packet_id=1)
        *runs, last = read_all(open_reader(5), encode(good, 5) * 20 + sent)
        assert runs == [published(*[good] * 20)]
        assert isinstance(last, Violation)
        assert last.code is code


# Stages


def test_packets_come_one_at_a_time_until_the_client_is_let_in() -> None:
    connect, publish, ack = Connect(4, "c"), Publish(b"a", b"x"), Ack(T.PUBACK, 1)
    reader = Reader(PACKET_BYTES_MAX)
    sent: list[Packet] = [connect, publish, publish, ack, ack, publish, publish]
    assert reader.feed(b"".join(encode(packet, 4) for packet in sent)) == [connect]
    assert reader.is_waiting
    assert reader.go_on() == [published(publish)]
    assert reader.go_on() == [published(publish)]
    assert reader.go_on() == [ack]
    reader.open()
    assert plain(reader.go_on()) == [Acks(T.PUBACK, [1]), published(publish, publish)]
    assert not reader.is_waiting


def test_what_is_agreed_behind_connect_counts_for_the_next_packet() -> None:
    large = Publish(b"a", b"x" * 1000)
    reader = Reader(500)
    assert reader.feed(encode(Connect(4, "c"), 4) + encode(large, 4)) == [Connect(4, "c")]
    reader.packet_bytes_max = 2000
    reader.open()
    assert reader.go_on() == [published(large)]


@pytest.mark.parametrize("version", VERSIONS)
def test_behind_a_disconnect_nothing_is_read(version: int) -> None:
    reader = open_reader(version)
    sent = encode(Pingreq(), version) + encode(Disconnect(), version)
    assert reader.feed(sent + b"\x00" + sent) == [Pingreq(), Disconnect()]
    assert (reader.is_waiting, reader.is_broken, reader.is_amid) == (False, False, False)
    assert reader.feed(sent) == []


def test_a_closed_reader_passes_over_all() -> None:
    reader = open_reader(4)
    reader.feed(encode(Pingreq(), 4) * (EVENTS_MAX + 1) + b"\x30")
    assert reader.is_waiting
    reader.close()
    assert reader.go_on() == reader.feed(b"\x00") == []
    assert (reader.is_waiting, reader.is_broken, reader.is_amid) == (False, False, False)
    reader.discard()
    assert reader.is_broken


# Limits


@pytest.mark.parametrize(
    "sent", [b"\x30\xff\xff\xff\x7f", b"\x30\x80\x80\x04", b"\x30\xfe\xff\x03"]
)
def test_a_packet_that_is_too_large_is_refused_at_its_header(sent: bytes) -> None:
    reader = open_reader(4)
    assert violation(reader, sent).code is C.PACKET_TOO_LARGE
    assert not reader.is_amid


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_of_the_whole_packet(version: int, more: int) -> None:
    packet = Publish(b"a", b"x" * 300, 1, packet_id=1)
    sent = encode(packet, version)
    reader = open_reader(version, len(sent) - more)
    events = reader.feed(sent[:4]) + reader.feed(sent[4:])
    if more:
        assert isinstance(events[-1], Violation)
    else:
        assert events == [published(packet)]


def test_the_limit_is_of_each_packet_of_a_run() -> None:
    small, large = Publish(b"a", b"x"), Publish(b"a", b"x" * 50)
    reader = open_reader(4, 40)
    *found, last = reader.feed(encode(small, 4) * 30 + encode(large, 4))
    assert found == [published(*[small] * 30)]
    assert isinstance(last, Violation)


def test_packets_but_publish_are_no_larger_than_is_read_at_once() -> None:
    reader = open_reader(4, 1 << 24)
    sent = b"\x82" + b"\x81\x80\x40"
    assert violation(reader, sent).code is C.PACKET_TOO_LARGE
    assert open_reader(4, 1 << 24).feed(b"\x30" + sent[1:]) == []
    assert OTHER_BYTES_MAX == 1 << 20


def test_too_many_properties_and_too_many_filters_are_refused() -> None:
    many = b"\x26\x00\x00\x00\x00" * 2049
    publish = encode(Publish(b"a", b"", properties=many), 5)
    assert violation(open_reader(5, 1 << 20), publish).code is C.QUOTA_EXCEEDED
    filters = [("a", 0)] * 8193
    sent = encode(Subscribe(1, filters), 4)
    assert violation(open_reader(4, 1 << 20), sent).code is C.QUOTA_EXCEEDED


def test_a_read_of_many_packets_is_read_in_stretches() -> None:
    reader = open_reader(4)
    count = 2 * EVENTS_MAX + 10
    found = reader.feed(encode(Pingreq(), 4) * count)
    assert len(found) == EVENTS_MAX
    assert reader.is_waiting
    found += reader.go_on()
    found += reader.go_on()
    assert found == [Pingreq()] * count
    assert not reader.is_waiting
    small = encode(Publish(b"a", b""), 4) * 20_000
    (run,) = reader.feed(small)
    assert isinstance(run, Publishes)
    assert len(run.payloads) < 10_000
    assert reader.is_waiting


@pytest.mark.parametrize(
    "packet",
    [
        Subscribe(1, [(f"a/{number}", 0) for number in range(1000)]),
        Unsubscribe(1, [f"a/{number}" for number in range(1000)]),
        Publish(b"a", b"x", properties=encode_properties(MANY_PROPERTIES)),
        Ack(T.PUBACK, 1, C.QUOTA_EXCEEDED, MANY_PROPERTIES),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_of_packets_with_a_thousand_fields_few_are_read_at_once(packet: Packet) -> None:
    """Each takes a millisecond or two."""
    reader = open_reader(5, 1 << 20)
    sent = [packet] * 20
    found = reader.feed(b"".join(encode(each, 5) for each in sent))
    assert sum(len(packets_of(event)) for event in found) <= 2
    while reader.is_waiting:
        found += reader.go_on()
    assert [each for event in found for each in packets_of(event)] == sent


LONG_TOPICS = st.sampled_from([1, 300, WORK_BYTES_MAX // 2, WORK_BYTES_MAX])
OWN_PROPERTIES = st.sampled_from([0, 1, 300, WORK_BYTES_MAX // 2, WORK_BYTES_MAX])
COUNTS = st.sampled_from([1, 2, 3, 200])


@given(
    kinds=st.lists(st.tuples(LONG_TOPICS, OWN_PROPERTIES, COUNTS, st.integers(0, 2)), max_size=4),
    are_alike=st.booleans(),
    has_ping=st.booleans(),
)
@example(kinds=[(WORK_BYTES_MAX, 0, 2, 1)], are_alike=True, has_ping=False)
@example(kinds=[(1, WORK_BYTES_MAX, 3, 0)], are_alike=True, has_ping=True)
@example(kinds=[(1, 300, 200, 1)], are_alike=False, has_ping=False)
def test_messages_that_take_much_work_are_all_read(
    kinds: list[tuple[int, int, int, int]], *, are_alike: bool, has_ping: bool
) -> None:
    packets: list[Packet] = [Pingreq()] if has_ping else []
    for topic_bytes, data_bytes, count, qos in kinds:
        for number in range(1, 1 + (count if max(topic_bytes, data_bytes) <= 300 else 3)):
            own = b"" if are_alike else b"%d" % number
            data = own.zfill(data_bytes)
            properties = b"\x09" + len(data).to_bytes(2, "big") + data if data_bytes else b""
            packet = Publish(
                b"t" * topic_bytes, own, qos, packet_id=number if qos else 0, properties=properties
            )
            packets.append(packet)
    reader = open_reader(5, 1 << 20)
    found = read_all(reader, b"".join(encode(packet, 5) for packet in packets))
    assert [packet for event in found for packet in packets_of(event)] == packets
    assert not reader.is_amid


def small_publishes(count: int) -> bytes:
    packets = (
        encode(Publish(b"a", b"x" * (number % 3), 1, packet_id=1), 5) for number in range(count)
    )
    return b"".join(packets)


def aliases_in_turn(count: int) -> bytes:
    """Bytes of one run once the alias is resolved, in two shapes in turn."""
    return (aliased(b"a", 1) + aliased(b"", 1)) * (count // 2)


def one_octet_too_many(count: int) -> bytes:
    """Runs whose end is looked for in vain, again and again."""
    packets = (Publish(b"a" if number % 11 else b"b", b"x") for number in range(count))
    return b"".join(encode(packet, 5) for packet in packets)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "messages": small_publishes,
    "aliases": aliases_in_turn,
    "changes": one_octet_too_many,
    "pings": lambda count: encode(Pingreq(), 5) * count,
    "acks": lambda count: b"\x40\x02\x00\x01" * count,
    "acks in turn": lambda count: b"\x40\x02\x00\x01\x50\x02\x00\x01" * (count // 2),
    "acks with codes": lambda count: b"\x40\x03\x00\x01\x10" * count,
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("step", [1 << 20, 100, 1])
def test_work_grows_as_what_is_read(name: str, step: int) -> None:
    """Not faster: neither within a read nor by cutting it."""

    def work(count: int) -> int:
        sent, reader = FLOODS[name](count), open_reader(5)
        pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
        return calls_of(lambda: read_all_of(reader, pieces))

    assert work(4000) < 5 * work(1000) + 1000


def read_all_of(reader: Reader, pieces: list[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)
        while reader.is_waiting:
            reader.go_on()


def test_a_read_is_not_copied_while_it_waits() -> None:
    reader = open_reader(4)
    sent = encode(Pingreq(), 4) * 10_000
    reader.feed(sent)
    for _ in range(10):
        assert reader.is_waiting
        assert reader._rest is sent
        reader.go_on()


@pytest.mark.parametrize("step", [1, 100, 5000])
def test_a_packet_that_comes_in_small_steps_is_kept_in_few_pieces(step: int) -> None:
    packet = Publish(b"a", b"x" * 100_000)
    sent = encode(packet, 4)
    reader = open_reader(4, 1 << 20)
    pieces_max = 0
    events: list[Event] = []
    for at in range(0, len(sent), step):
        assert events == []
        events = reader.feed(sent[at : at + step])
        pieces_max = max(pieces_max, len(reader._pending))
    assert events == [published(packet)]
    assert pieces_max <= len(sent) // 2048


# All ways to cut, and all ways to be wrong


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_packets_are_read_as_they_were_written_however_they_are_cut(
    version: int, data: st.DataObject
) -> None:
    packets: list[Packet] = [data.draw(connects(version))]
    packets += data.draw(st.lists(client_packets(version), max_size=6))
    packets.append(data.draw(ends(version, CLIENT_CODES[T.DISCONNECT])))
    sent = b"".join(encode(packet, version) for packet in packets)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=5).map(sorted))
    reader = Reader(PACKET_BYTES_MAX)
    found: list[Event] = []
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += reader.feed(sent[start:stop])
        while reader.is_waiting:
            reader.open()
            found += reader.go_on()
    expected = plain([event_of(packet) for packet in packets])
    assert plain([opened(event) for event in found]) == expected


def opened(event: Event) -> Event:
    """Event that an open reader makes of what one that is not open yet has seen."""
    return event_of(event) if isinstance(event, Ack) else event


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_a_client_reads_what_a_broker_sends(version: int, data: st.DataObject) -> None:
    packets = data.draw(st.lists(broker_packets(version), max_size=6))
    if version >= MQTT_5:
        packets.append(data.draw(ends(version, BROKER_CODES[T.DISCONNECT])))
    sent = b"".join(encode(packet, version) for packet in packets)
    reader = ClientReader(PACKET_BYTES_MAX, version)
    cut = data.draw(st.integers(0, len(sent)))
    expected = plain([event_of(packet) for packet in packets])
    assert read_all(reader, sent[:cut], sent[cut:]) == expected


BAD_ANSWERS: list[tuple[int, str, ReasonCode]] = [
    (4, "20 02 02 00", MALFORMED),
    (4, "20 02 00 06", MALFORMED),
    (4, "20 02 01 05", REFUSED),
    (4, "20 03 00 00 00", MALFORMED),
    (5, "20 02 00 00", MALFORMED),
    (5, "20 03 00 01 00", REFUSED),
    (5, "20 03 01 87 00", REFUSED),
    (5, "20 05 00 00 02 0101", REFUSED),
    (4, "90 02 0001", REFUSED),
    (4, "90 03 0000 00", REFUSED),
    (4, "90 03 0001 03", REFUSED),
    (4, "90 03 0001 87", MALFORMED),
    (5, "90 04 0001 00 11", REFUSED),
    (4, "b0 03 0001 00", MALFORMED),
    (5, "b0 03 0001 00", REFUSED),
    (5, "b0 04 0001 00 01", REFUSED),
    (4, "d0 01 00", MALFORMED),
    (4, "e0 00", REFUSED),
    (5, "e0 01 04", REFUSED),
    (5, "f0 05 19 03 150000", REFUSED),
    *((5, text, REFUSED) for text in (CONNECT_5, "82 07 0001 00 0001 'a' 00", "c0 00")),
]  # fmt: skip


@pytest.mark.parametrize(("version", "text", "code"), BAD_ANSWERS)
def test_a_client_refuses_what_a_broker_does_not_send(
    version: int, text: str, code: ReasonCode
) -> None:
    assert violation(ClientReader(PACKET_BYTES_MAX, version), octets(text)).code is code


def test_a_client_takes_subscription_identifiers() -> None:
    packet = Publish(b"a", b"x", properties=b"\x0b\x01\x0b\x02")
    assert ClientReader(PACKET_BYTES_MAX, 5).feed(encode(packet, 5)) == [published(packet)]


@pytest.mark.parametrize(("version", "packet", "text"), EXAMPLES)
def test_one_byte_at_a_time(version: int, packet: Packet, text: str) -> None:
    reader = reader_for(packet, version)
    pieces = [bytes((octet,)) for octet in octets(text)]
    assert read_all(reader, *pieces[:-1]) == []
    assert reader.is_amid
    assert read_all(reader, pieces[-1]) == [event_of(packet)]
    assert not reader.is_amid


def check_any(reader: Reader, data: bytes) -> None:
    """Events come, at most one of them a violation, and that is the last."""
    found = read_all(reader, data, b"\xc0\x00" * 3)
    assert all(not isinstance(event, Violation) for event in found[:-1])
    is_violation = bool(found) and isinstance(found[-1], Violation)
    assert reader.is_broken == is_violation


@pytest.mark.parametrize(("version", "packet", "text"), EXAMPLES)
def test_every_prefix_and_every_octet_that_is_another(
    version: int, packet: Packet, text: str
) -> None:
    sent = octets(text)
    for stop in range(len(sent)):
        assert read_all(reader_for(packet, version), sent[:stop]) == []
        check_any(reader_for(packet, version), sent[:stop])
    for at in range(len(sent)):
        for octet in range(256):
            check_any(reader_for(packet, version), sent[:at] + bytes((octet,)) + sent[at + 1 :])


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.binary(max_size=60))
def test_any_bytes(version: int, data: bytes) -> None:
    check_any(open_reader(version), data)
    check_any(ClientReader(PACKET_BYTES_MAX, version), data)
    check_any(Reader(PACKET_BYTES_MAX), b"\x10" + data)


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_any_packet_with_octets_that_are_others(version: int, data: st.DataObject) -> None:
    packets = data.draw(st.lists(client_packets(version), min_size=1, max_size=4))
    sent = bytearray(b"".join(encode(packet, version) for packet in packets))
    for at in data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=3)):
        sent[at] = data.draw(st.integers(0, 255))
    check_any(open_reader(version), bytes(sent))


def test_what_is_read_does_not_depend_on_what_was_checked_before() -> None:
    """Topics and properties are checked once, as long as they are remembered."""
    reader = open_reader(5)
    packet = Publish(b"a", b"x", properties=b"\x01\x01")
    other = Publish(b"b", b"x")
    assert reader.feed(encode(packet, 5)) == [published(packet)]
    reader.forget_beyond(10)
    assert reader.feed(encode(packet, 5) + encode(other, 5)) == [
        published(packet),
        published(other),
    ]
    reader.forget_beyond(0)
    assert (reader._topics, reader._properties) == ({}, {})
    assert reader.feed(encode(packet, 5)) == [published(packet)]


@pytest.mark.parametrize("is_of_broker_alone", [True, False])
def test_examples_are_of_both_ends(is_of_broker_alone: bool) -> None:
    assert any(is_of_broker(packet) is is_of_broker_alone for _, packet, _ in EXAMPLES)
