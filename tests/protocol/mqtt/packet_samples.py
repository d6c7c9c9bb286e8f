"""Packets of each type: as examples with their bytes, and as strategies."""

from typing import Any

from hypothesis import strategies as st

from fluffle.protocol.mqtt.codes import (
    BROKER_CODES,
    CLIENT_CODES,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    PacketType,
    ReasonCode,
)
from fluffle.protocol.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
)
from fluffle.protocol.mqtt.properties import (
    RULES,
    WILL,
    DataType,
    Properties,
    PropertyId,
    PropertyValue,
    encode_properties,
)
from fluffle.protocol.mqtt.reader import Acks, ClientReader, Event, Publishes, Reader, Violation
from fluffle.protocol.mqtt.wire import VARINT_MAX

PACKET_BYTES_MAX = 1 << 16
VERSIONS = (MQTT_3_1, MQTT_3_1_1, MQTT_5)
T, P, C = PacketType, PropertyId, ReasonCode


def octets(text: str) -> bytes:
    """Bytes of hexadecimal digits, and of text between quotes: `10 'MQTT'`."""
    pieces = text.split("'")
    pieces[::2] = [bytes.fromhex(piece).decode("latin-1") for piece in pieces[::2]]
    return "".join(pieces).encode("latin-1")


EXAMPLES: list[tuple[int, Packet, str]] = [
    (3, Connect(3, "c", keep_alive_s=60), "10 0f 0006 'MQIsdp' 03 02 003c 0001 'c'"),
    (4, Connect(4, "", keep_alive_s=0x1234), "10 0c 0004 'MQTT' 04 02 1234 0000"),
    (
        4,
        Connect(
            4,
            "c",
            clean_start=False,
            user="u",
            password=b"p",
            will=Will(b"w", b"x", qos=2, retain=True),
        ),
        "10 19 0004 'MQTT' 04 f4 0000 0001 'c' 0001 'w' 0001 'x' 0001 'u' 0001 'p'",
    ),
    (5, Connect(5, "c"), "10 0e 0004 'MQTT' 05 02 0000 00 0001 'c'"),
    (
        5,
        Connect(
            5,
            "",
            password=b"\x00",
            will=Will(b"w", b"", qos=1, delay_s=7, properties=b"\x01\x01"),
            properties=Properties({P.SESSION_EXPIRY_INTERVAL: 2**32 - 1, P.RECEIVE_MAXIMUM: 9}),
        ),
        "10 25 0004 'MQTT' 05 4e 0000 08 11 ffffffff 21 0009 0000"
        "07 18 00000007 01 01 0001 'w' 0000 0001 00",
    ),
    (3, Connack(), "20 02 00 00"),
    (4, Connack(session_present=True), "20 02 01 00"),
    (4, Connack(C.UNSUPPORTED_PROTOCOL_VERSION), "20 02 00 01"),
    (4, Connack(C.CLIENT_IDENTIFIER_NOT_VALID), "20 02 00 02"),
    (4, Connack(C.SERVER_UNAVAILABLE), "20 02 00 03"),
    (4, Connack(C.BAD_USER_NAME_OR_PASSWORD), "20 02 00 04"),
    (4, Connack(C.NOT_AUTHORIZED), "20 02 00 05"),
    (5, Connack(session_present=True), "20 03 01 00 00"),
    (
        5,
        Connack(
            properties=Properties(
                {P.ASSIGNED_CLIENT_IDENTIFIER: "id", P.TOPIC_ALIAS_MAXIMUM: 16}, [("a", "b")]
            )
        ),
        "20 12 00 00 0f 12 0002 'id' 22 0010 26 0001 'a' 0001 'b'",
    ),
    (5, Connack(C.NOT_AUTHORIZED), "20 03 00 87 00"),
    (4, Publish(b"a/b", b"x"), "30 06 0003 'a/b' 'x'"),
    (4, Publish(b"a", b"", 2, retain=True, dup=True, packet_id=0x102), "3d 05 0001 'a' 0102"),
    (5, Publish(b"a", b"xy"), "30 06 0001 'a' 00 'xy'"),
    (
        5,
        Publish(b"a", b"x", 1, packet_id=1, properties=b"\x01\x01\x02\0\0\0\x05"),
        "32 0e 0001 'a' 0001 07 01 01 02 00000005 'x'",
    ),
    (4, Ack(T.PUBACK, 1), "40 02 0001"),
    (4, Ack(T.PUBREC, 0x1234), "50 02 1234"),
    (4, Ack(T.PUBREL, 2), "62 02 0002"),
    (4, Ack(T.PUBCOMP, 0xFFFF), "70 02 ffff"),
    (5, Ack(T.PUBACK, 1, C.NO_MATCHING_SUBSCRIBERS), "40 03 0001 10"),
    (5, Ack(T.PUBREL, 1, C.PACKET_IDENTIFIER_NOT_FOUND), "62 03 0001 92"),
    (
        5,
        Ack(T.PUBREC, 1, C.QUOTA_EXCEEDED, Properties({P.REASON_STRING: "no"})),
        "50 09 0001 97 05 1f 0002 'no'",
    ),
    (
        5,
        Ack(T.PUBCOMP, 1, properties=Properties(user=[("", ""), ("", "")])),
        "70 0e 0001 00 0a 26 0000 0000 26 0000 0000",
    ),
    (4, Subscribe(1, [("a", 0), ("#", 2)]), "82 0a 0001 0001 'a' 00 0001 '#' 02"),
    (
        5,
        Subscribe(1, [("+", 0b101101)], Properties(subscription_ids=[300])),
        "82 0a 0001 03 0b ac02 0001 '+' 2d",
    ),
    (4, Suback(1, [C.GRANTED_QOS_2, C.UNSPECIFIED_ERROR]), "90 04 0001 02 80"),
    (5, Suback(1, [C.SUCCESS, C.TOPIC_FILTER_INVALID]), "90 05 0001 00 00 8f"),
    (4, Unsubscribe(1, ["a", "b"]), "a2 08 0001 0001 'a' 0001 'b'"),
    (
        5,
        Unsubscribe(1, ["a"], Properties(user=[("k", "v")])),
        "a2 0d 0001 07 26 0001 'k' 0001 'v' 0001 'a'",
    ),
    (4, Unsuback(1), "b0 02 0001"),
    (5, Unsuback(1, [C.SUCCESS, C.NO_SUBSCRIPTION_EXISTED]), "b0 05 0001 00 00 11"),
    (4, Pingreq(), "c0 00"),
    (4, Pingresp(), "d0 00"),
    (4, Disconnect(), "e0 00"),
    (5, Disconnect(), "e0 00"),
    (5, Disconnect(C.DISCONNECT_WITH_WILL), "e0 01 04"),
    (
        5,
        Disconnect(properties=Properties({P.SESSION_EXPIRY_INTERVAL: 1})),
        "e0 07 00 05 11 00000001",
    ),
    (5, Disconnect(C.SESSION_TAKEN_OVER), "e0 01 8e"),
    (
        5,
        Auth(
            C.CONTINUE_AUTHENTICATION,
            Properties({P.AUTHENTICATION_METHOD: "m", P.AUTHENTICATION_DATA: b"\xff"}),
        ),
        "f0 0a 18 08 15 0001 'm' 16 0001 ff",
    ),
]  # fmt: skip


def is_of_broker(packet: Packet) -> bool:
    """True if only a broker sends this."""
    if isinstance(packet, Disconnect):
        return packet.code not in CLIENT_CODES[T.DISCONNECT]
    return isinstance(packet, Connack | Suback | Unsuback | Pingresp)


def open_reader(version: int, packet_bytes_max: int = PACKET_BYTES_MAX) -> Reader:
    """A reader of a client that was let in."""
    reader = Reader(packet_bytes_max)
    connect = Connect(version, "c")
    assert reader.feed(encode(connect, version)) == [connect]
    reader.topic_alias_max = 16
    reader.open()
    return reader


def reader_for(packet: Packet, version: int) -> Reader:
    """A reader that may be given this packet."""
    if isinstance(packet, Connect):
        return Reader(PACKET_BYTES_MAX)
    if is_of_broker(packet):
        return ClientReader(PACKET_BYTES_MAX, version)
    return open_reader(version)


def event_of(packet: Packet) -> Event:
    """Event that the reader of an open connection makes of one packet."""
    if isinstance(packet, Publish):
        return published(packet)
    if isinstance(packet, Ack) and not packet.code and not packet.properties:
        return Acks(packet.kind, [packet.packet_id])
    return packet


def published(*packets: Publish) -> Publishes:
    first = packets[0]
    payloads = [packet.payload for packet in packets]
    return Publishes(
        first.topic,
        first.properties,
        first.qos,
        first.retain,
        first.dup,
        [packet.packet_id for packet in packets if packet.qos],
        payloads,
        sum(map(len, payloads)),
    )


def packets_of(event: Event) -> list[Packet]:
    """Packets that an event was made of."""
    if isinstance(event, Acks):
        return [Ack(event.kind, packet_id) for packet_id in event.packet_ids]
    if not isinstance(event, Publishes):
        assert not isinstance(event, Violation)
        return [event]
    packets: list[Packet] = [
        Publish(
            event.topic,
            payload,
            event.qos,
            event.retain,
            event.dup,
            event.packet_ids[at] if event.qos else 0,
            event.properties,
        )
        for at, payload in enumerate(event.payloads)
    ]
    return packets


def plain(events: list[Event]) -> list[Event]:
    """Events with identifiers as lists, and runs that a cut has parted joined again."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Acks):
            event = Acks(event.kind, list(event.packet_ids))
            if isinstance(last, Acks) and last.kind == event.kind:
                found[-1] = Acks(event.kind, [*last.packet_ids, *event.packet_ids])
                continue
        if isinstance(event, Publishes) and isinstance(last, Publishes) and alike(last, event):
            last.packet_ids = last.packet_ids + event.packet_ids
            last.payloads = last.payloads + event.payloads
            last.content_bytes += event.content_bytes
            continue
        found.append(event)
    return found


def alike(one: Publishes, other: Publishes) -> bool:
    return (one.topic, one.properties, one.qos, one.retain, one.dup) == (
        *(other.topic, other.properties, other.qos, other.retain, other.dup),
    )


def read_all(reader: Reader, *pieces: bytes) -> list[Event]:
    """All that comes of some pieces, with going on after each; no run of it is empty."""
    found: list[Event] = []
    for piece in pieces:
        found += reader.feed(piece)
        while reader.is_waiting:
            found += reader.go_on()
    assert all(event.payloads for event in found if isinstance(event, Publishes)), "an empty run"
    return plain(found)


# Strategies

NAMED = st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"])
NAMES = st.text(NAMED, max_size=5)
TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=5)
TOPICS = NAMES.filter(bool).map(lambda text: text.replace("+", "x").replace("#", "x").encode())
BINARIES = st.binary(max_size=5)
PACKET_IDS = st.integers(1, 0xFFFF)
VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    DataType.U8: st.integers(0, 1),
    DataType.U16: st.integers(1, 0xFFFF),
    DataType.U32: st.integers(1, 0xFFFF_FFFF),
    DataType.STRING: TEXTS.map(lambda text: text.replace("+", "").replace("#", "")),
    DataType.BINARY: BINARIES,
}
SINGLE = [id for id in P if id not in (P.USER_PROPERTY, P.SUBSCRIPTION_IDENTIFIER)]


@st.composite
def properties_for(
    draw: st.DrawFn, where: int, *, without: frozenset[PropertyId] = frozenset()
) -> Properties:
    """Properties that are allowed in a type of packet."""
    allowed = [id for id in SINGLE if where in RULES[id].places and id not in without]
    values: dict[PropertyId, PropertyValue] = {}
    for property_id in draw(st.lists(st.sampled_from(allowed), unique=True)) if allowed else []:
        if property_id is P.MAXIMUM_PACKET_SIZE:
            values[property_id] = draw(st.integers(1, VARINT_MAX))  # more than that there is not
            continue
        values[property_id] = draw(VALUES[RULES[property_id].type])
    if values.get(P.RESPONSE_TOPIC) == "":
        values[P.RESPONSE_TOPIC] = "/"
    if P.AUTHENTICATION_DATA in values or where == T.AUTH:
        values.setdefault(P.AUTHENTICATION_METHOD, "m")
    ids = draw(st.lists(st.integers(1, 268_435_455), max_size=1)) if where == T.SUBSCRIBE else []
    return Properties(values, draw(st.lists(st.tuples(TEXTS, TEXTS), max_size=2)), ids)


def properties_in(version: int, where: int) -> st.SearchStrategy[Properties]:
    return properties_for(where) if version >= MQTT_5 else st.just(Properties())


NO_ALIAS = frozenset({P.TOPIC_ALIAS})
NO_DELAY = frozenset({P.WILL_DELAY_INTERVAL})


def raw_in(version: int, where: int, without: frozenset[PropertyId]) -> st.SearchStrategy[bytes]:
    if version < MQTT_5:
        return st.just(b"")
    return properties_for(where, without=without).map(encode_properties)


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    will = draw(st.none() | wills(version))
    user = draw(st.none() | NAMES)
    clean = draw(st.booleans())
    client_id = draw(NAMES)
    if version == MQTT_3_1 or (version == MQTT_3_1_1 and not clean):
        client_id = client_id or "c"
    has_password = version >= MQTT_5 or user is not None
    return Connect(
        version,
        client_id,
        clean,
        draw(st.integers(0, 0xFFFF)),
        user,
        draw(st.none() | BINARIES) if has_password else None,
        will,
        draw(properties_in(version, T.CONNECT)),
    )


@st.composite
def wills(draw: st.DrawFn, version: int) -> Will:
    return Will(
        draw(TOPICS),
        draw(BINARIES),
        draw(st.integers(0, 2)),
        draw(st.booleans()),
        draw(st.integers(0, 0xFFFF_FFFF)) if version >= MQTT_5 else 0,
        draw(raw_in(version, WILL, NO_DELAY)),
    )


@st.composite
def publishes(draw: st.DrawFn, version: int) -> Publish:
    qos = draw(st.integers(0, 2))
    return Publish(
        draw(TOPICS),
        draw(BINARIES),
        qos,
        draw(st.booleans()),
        draw(st.booleans()) if qos else False,
        draw(PACKET_IDS) if qos else 0,
        draw(raw_in(version, T.PUBLISH, NO_ALIAS)),
    )


@st.composite
def acks(draw: st.DrawFn, version: int) -> Ack:
    kind = draw(st.sampled_from([T.PUBACK, T.PUBREC, T.PUBREL, T.PUBCOMP]))
    if version < MQTT_5:
        return Ack(kind, draw(PACKET_IDS))
    code = draw(st.sampled_from(sorted(CLIENT_CODES[kind])))
    return Ack(kind, draw(PACKET_IDS), code, draw(properties_in(version, kind)))


@st.composite
def subscribes(draw: st.DrawFn, version: int) -> Subscribe:
    options = st.integers(0, 2)
    if version >= MQTT_5:
        options = st.builds(
            lambda qos, bits, handling: qos | bits << 2 | handling << 4,
            *(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)),
        )
    filters = st.lists(st.tuples(NAMES, options), min_size=1, max_size=3)
    return Subscribe(draw(PACKET_IDS), draw(filters), draw(properties_in(version, T.SUBSCRIBE)))


@st.composite
def unsubscribes(draw: st.DrawFn, version: int) -> Unsubscribe:
    filters = draw(st.lists(NAMES, min_size=1, max_size=3))
    return Unsubscribe(draw(PACKET_IDS), filters, draw(properties_in(version, T.UNSUBSCRIBE)))


def ends(version: int, codes: frozenset[ReasonCode]) -> st.SearchStrategy[Disconnect]:
    if version < MQTT_5:
        return st.just(Disconnect())
    return st.builds(
        Disconnect, st.sampled_from(sorted(codes)), properties_in(version, T.DISCONNECT)
    )


def authentications(codes: frozenset[ReasonCode]) -> st.SearchStrategy[Auth]:
    return st.builds(Auth, st.sampled_from(sorted(codes)), properties_in(MQTT_5, T.AUTH))


def client_packets(version: int) -> st.SearchStrategy[Packet]:
    """Packets that a client may send after CONNACK, without DISCONNECT."""
    of_version: list[st.SearchStrategy[Any]] = [
        *(publishes(version), acks(version), subscribes(version), unsubscribes(version)),
        st.just(Pingreq()),
    ]
    if version >= MQTT_5:
        of_version.append(authentications(CLIENT_CODES[T.AUTH]))
    return st.one_of(of_version)


@st.composite
def subacks(draw: st.DrawFn, version: int) -> Suback:
    codes = sorted(BROKER_CODES[T.SUBACK])
    if version < MQTT_5:
        codes = [C.SUCCESS, C.GRANTED_QOS_1, C.GRANTED_QOS_2, C.UNSPECIFIED_ERROR]
    drawn = draw(st.lists(st.sampled_from(codes), min_size=1, max_size=3))
    return Suback(draw(PACKET_IDS), drawn, draw(properties_in(version, T.SUBACK)))


@st.composite
def unsubacks(draw: st.DrawFn, version: int) -> Unsuback:
    if version < MQTT_5:
        return Unsuback(draw(PACKET_IDS))
    codes = st.lists(st.sampled_from(sorted(BROKER_CODES[T.UNSUBACK])), min_size=1, max_size=3)
    return Unsuback(draw(PACKET_IDS), draw(codes), draw(properties_in(version, T.UNSUBACK)))


@st.composite
def connacks(draw: st.DrawFn, version: int) -> Connack:
    codes = sorted(BROKER_CODES[T.CONNACK])
    if version < MQTT_5:
        codes = [C.SUCCESS, *(C(number) for number in (0x84, 0x85, 0x86, 0x87, 0x88))]
    code = draw(st.sampled_from(codes))
    is_present = draw(st.booleans()) if version != MQTT_3_1 and not code else False
    return Connack(code, is_present, draw(properties_in(version, T.CONNACK)))


def broker_packets(version: int) -> st.SearchStrategy[Packet]:
    """Packets that a broker may send, without DISCONNECT."""
    of_version: list[st.SearchStrategy[Any]] = [
        *(publishes(version), acks(version), subacks(version), unsubacks(version)),
        *(connacks(version), st.just(Pingresp())),
    ]
    if version >= MQTT_5:
        of_version.append(authentications(BROKER_CODES[T.AUTH]))
    return st.one_of(of_version)
