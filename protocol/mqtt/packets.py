"""Packets of MQTT as values, and the way from the bytes of one to its value and back.

    +------+--------------+--------------------------------------------+
    | type | remaining    | what the packet says; in MQTT 5.0 with     |   S5 §2, §3; S3 §2, §3
    | flags| length 1..4  | properties: their length and themselves    |
    +------+--------------+--------------------------------------------+

Rule 1: what is wrong in a packet by itself is found here; what is wrong because of the packets
before it is for the receiver.
Rule 2: `decode` does not know which end it is on: the reader says which packets there may be.
Rule 3: a PUBLISH keeps its topic and its properties as bytes, which are passed on as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

from fluffle.protocol.mqtt.codes import (
    FAILURE,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    RETURN_CODES,
    InvalidPacket,
    PacketType,
    ReasonCode,
    malformed,
    protocol_error,
    return_code,
)
from fluffle.protocol.mqtt.properties import (
    WILL,
    Properties,
    PropertyId,
    decode_properties,
    encode_properties,
    read_properties,
    with_length,
)
from fluffle.protocol.mqtt.topics import SHARE_PREFIX, check_topic
from fluffle.protocol.mqtt.wire import (
    cut_short,
    encode_binary,
    encode_string,
    encode_varint,
    pack_u16,
    read_binary,
    read_name,
    read_u8,
    read_u16,
    unpack_u8_and_u16,
)

FILTERS_MAX = 8192
"""Most filters in one SUBSCRIBE or UNSUBSCRIBE, which takes some milliseconds to read."""

PROTOCOL_NAMES = {MQTT_3_1: "MQIsdp", MQTT_3_1_1: "MQTT", MQTT_5: "MQTT"}

USUAL_PROTOCOLS = {b"\0\4MQTT\4": MQTT_3_1_1, b"\0\4MQTT\5": MQTT_5}
"""Name and level with which nearly each CONNECT begins."""
USUAL_PROTOCOL_BYTES = 7

DUP, RETAIN = 0b1000, 0b0001
"""Flags of PUBLISH beside its QoS."""

CLEAN_START, WILL_FLAG, WILL_RETAIN = 0b0000_0010, 0b0000_0100, 0b0010_0000
PASSWORD_FLAG, USER_FLAG = 0b0100_0000, 0b1000_0000
WILL_QOS_SHIFT = 3
"""Flags of CONNECT: S5 §3.1.2.3."""

OPTIONS_5, OPTIONS_3 = 0b0011_1111, 0b0000_0011
NO_LOCAL = 0b0000_0100
RETAIN_HANDLING_SHIFT = 4
"""Options of a subscription: S5 §3.8.3.1."""

FLAGS: dict[PacketType, int] = {
    PacketType.PUBREL: 0b0010,
    PacketType.SUBSCRIBE: 0b0010,
    PacketType.UNSUBSCRIBE: 0b0010,
}
"""Flags that a type of packets has, if they are not 0; those of PUBLISH say something."""


@dataclass(slots=True)
class Will:
    """Message that is published when a connection ends without a word."""

    topic: bytes
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay_s: int = 0
    properties: bytes = b""
    """Raw, as of a PUBLISH."""


@dataclass(slots=True)
class Connect:
    """CONNECT: a client presents itself."""

    version: int
    client_id: str
    clean_start: bool = True
    """Clean Session before 5.0."""
    keep_alive_s: int = 0
    user: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Connack:
    """CONNACK: the answer to CONNECT."""

    code: ReasonCode = ReasonCode.SUCCESS
    session_present: bool = False
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Publish:
    """PUBLISH: one message on its way."""

    topic: bytes
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    """0 with a QoS of 0."""
    properties: bytes = b""
    """Raw."""


@dataclass(slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP: how a message went on."""

    kind: PacketType
    packet_id: int
    code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Subscribe:
    """SUBSCRIBE: topic filters, each with an octet of options (S5 §3.8.3.1)."""

    packet_id: int
    filters: list[tuple[str, int]]
    """Not checked but for their characters: each is refused by itself (see `parse_filter`)."""
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Suback:
    """SUBACK: what became of each filter of a SUBSCRIBE, in its order."""

    packet_id: int
    codes: list[ReasonCode]
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Unsubscribe:
    """UNSUBSCRIBE: topic filters that are not wanted any longer."""

    packet_id: int
    filters: list[str]
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Unsuback:
    """UNSUBACK: what became of each filter of an UNSUBSCRIBE; before 5.0 it does not say."""

    packet_id: int
    codes: list[ReasonCode] = field(default_factory=list)
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Pingreq:
    """PINGREQ: a client is alive."""


@dataclass(slots=True)
class Pingresp:
    """PINGRESP: the broker is, too."""


@dataclass(slots=True)
class Disconnect:
    """DISCONNECT: the last packet of a connection; before 5.0 only a client sends it."""

    code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = field(default_factory=Properties)


@dataclass(slots=True)
class Auth:
    """AUTH: one step of an enhanced authentication; only in 5.0."""

    code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = field(default_factory=Properties)


ReadPacket: TypeAlias = (
    Connect
    | Connack
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
Packet: TypeAlias = ReadPacket | Publish

Coded = TypeVar("Coded", Disconnect, Auth)


# From bytes


def decode_connect(body: bytes, _kind: PacketType, version: int) -> Connect:
    """Decode what stands behind the protocol name and the level (see `read_protocol`)."""
    offset = 2 + len(PROTOCOL_NAMES[version]) + 1
    if offset + 3 > len(body):
        raise cut_short()
    flags, keep_alive_s = unpack_u8_and_u16(body, offset)
    check_connect_flags(flags, version)
    raw, offset = b"", offset + 3
    if version >= MQTT_5:
        raw, offset = read_properties(body, offset)
    properties = decode_properties(raw, PacketType.CONNECT) if raw else Properties()
    client_id, offset = read_name(body, offset)
    will = None
    if flags & WILL_FLAG:
        will, offset = read_will(body, offset, flags, version)
    user = password = None
    # In MQTT 3.1 user name and password may be left out although the flags announce them (§3.1).
    may_end = version == MQTT_3_1
    if flags & USER_FLAG and not (may_end and offset == len(body)):
        user, offset = read_name(body, offset)
    if flags & PASSWORD_FLAG and not (may_end and offset == len(body)):
        password, offset = read_binary(body, offset)
    check_end(body, offset)
    clean_start = bool(flags & CLEAN_START)
    if not client_id and (version == MQTT_3_1 or (version == MQTT_3_1_1 and not clean_start)):
        raise InvalidPacket(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client identifier is empty")
    return Connect(
        version=version,
        client_id=client_id,
        clean_start=clean_start,
        keep_alive_s=keep_alive_s,
        user=user,
        password=password,
        will=will,
        properties=properties,
    )


def read_protocol(body: bytes) -> int:
    """Return the version of a CONNECT, 0 if it is none of MQTT, and InvalidPacket if it is one
    that is not known."""
    if (usual := USUAL_PROTOCOLS.get(body[:USUAL_PROTOCOL_BYTES])) is not None:
        return usual
    name, offset = read_binary(body, 0)
    if name not in (b"MQTT", b"MQIsdp"):
        return 0
    version, _ = read_u8(body, offset)
    if PROTOCOL_NAMES.get(version, "").encode() != name:
        raise InvalidPacket(
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            f"there is no {name.decode()} of level {version}",
        )
    return version


def check_connect_flags(flags: int, version: int) -> None:
    if flags & 1:
        raise malformed("reserved flag of CONNECT is set")
    will_qos = flags >> WILL_QOS_SHIFT & 0b11
    if will_qos == 3:
        raise malformed("QoS 3 of the will")
    if not flags & WILL_FLAG and (will_qos or flags & WILL_RETAIN):
        raise malformed("QoS or retain of a will without a will")
    if version < MQTT_5 and flags & PASSWORD_FLAG and not flags & USER_FLAG:
        raise malformed("password without a user name")


def read_will(body: bytes, offset: int, flags: int, version: int) -> tuple[Will, int]:
    raw, delay_s = b"", 0
    if version >= MQTT_5:
        raw, offset = read_properties(body, offset)
        properties = decode_properties(raw, WILL)
        if PropertyId.WILL_DELAY_INTERVAL in properties.values:
            delay_s = cast("int", properties.values.pop(PropertyId.WILL_DELAY_INTERVAL))
            raw = encode_properties(properties)
    topic, offset = read_binary(body, offset)
    check_topic(topic)
    payload, offset = read_binary(body, offset)
    qos, retain = flags >> WILL_QOS_SHIFT & 0b11, bool(flags & WILL_RETAIN)
    return Will(topic, payload, qos, retain, delay_s, raw), offset


def decode_connack(body: bytes, kind: PacketType, version: int) -> Connack:
    acknowledge_flags, offset = read_u8(body, 0)
    if acknowledge_flags > 1:
        raise malformed("reserved flags of CONNACK are set")
    number, offset = read_u8(body, offset)
    properties = Properties()
    if version >= MQTT_5:
        code = reason_code(number)
        properties = rest_properties(body, offset, kind)
    else:
        check_end(body, offset)
        if number not in CODES_OF_RETURN_CODES:
            raise malformed(f"return code {number}")
        code = CODES_OF_RETURN_CODES[number]
    if code and acknowledge_flags:
        raise protocol_error("a session is present where the client is refused")
    is_present = acknowledge_flags == 1 and version != MQTT_3_1
    return Connack(code, is_present, properties)


CODES_OF_RETURN_CODES = {
    **{number: code for code, number in reversed(RETURN_CODES.items())},
    3: ReasonCode.SERVER_UNAVAILABLE,
}


def decode_ack(body: bytes, kind: PacketType, version: int) -> Ack:
    packet_id, offset = read_packet_id(body)
    if version < MQTT_5 or offset == len(body):
        check_end(body, offset)
        return Ack(kind, packet_id)
    number, offset = read_u8(body, offset)
    properties = rest_properties(body, offset, kind, may_lack=True)
    return Ack(kind, packet_id, reason_code(number), properties)


def decode_subscribe(body: bytes, _kind: PacketType, version: int) -> Subscribe:
    packet_id, offset, properties = read_request(body, PacketType.SUBSCRIBE, version)
    allowed = OPTIONS_5 if version >= MQTT_5 else OPTIONS_3
    filters: list[tuple[str, int]] = []
    while offset < len(body):
        text, offset = read_name(body, offset)
        options, offset = read_u8(body, offset)
        if options & ~allowed or options & 0b11 == 0b11:
            raise malformed(f"options {options:#04x} of a subscription")
        if options >> RETAIN_HANDLING_SHIFT == 0b11:
            raise protocol_error("retain handling 3 of a subscription")
        if options & NO_LOCAL and text.startswith(SHARE_PREFIX):
            raise protocol_error("no local of a shared subscription")
        filters.append((text, options))
        check_count(len(filters))
    if not filters:
        raise protocol_error("SUBSCRIBE without a topic filter")
    return Subscribe(packet_id, filters, properties)


def decode_unsubscribe(body: bytes, _kind: PacketType, version: int) -> Unsubscribe:
    packet_id, offset, properties = read_request(body, PacketType.UNSUBSCRIBE, version)
    filters: list[str] = []
    while offset < len(body):
        text, offset = read_name(body, offset)
        filters.append(text)
        check_count(len(filters))
    if not filters:
        raise protocol_error("UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id, filters, properties)


def check_count(count: int) -> None:
    if count > FILTERS_MAX:
        raise InvalidPacket(ReasonCode.QUOTA_EXCEEDED, f"more than {FILTERS_MAX} topic filters")


def decode_suback(body: bytes, _kind: PacketType, version: int) -> Suback:
    packet_id, offset, properties = read_request(body, PacketType.SUBACK, version)
    codes = list(map(reason_code, body[offset:]))
    if not codes:
        raise protocol_error("SUBACK without a code")
    if version < MQTT_5 and any(code.is_error and code != FAILURE for code in codes):
        raise malformed("SUBACK with a code of MQTT 5.0")
    return Suback(packet_id, codes, properties)


def decode_unsuback(body: bytes, _kind: PacketType, version: int) -> Unsuback:
    packet_id, offset, properties = read_request(body, PacketType.UNSUBACK, version)
    if version < MQTT_5:
        check_end(body, offset)
    codes = list(map(reason_code, body[offset:]))
    if version >= MQTT_5 and not codes:
        raise protocol_error("UNSUBACK without a code")
    return Unsuback(packet_id, codes, properties)


def decode_pingreq(body: bytes, _kind: PacketType, _version: int) -> Pingreq:
    check_end(body, 0)
    return Pingreq()


def decode_pingresp(body: bytes, _kind: PacketType, _version: int) -> Pingresp:
    check_end(body, 0)
    return Pingresp()


def decode_disconnect(body: bytes, kind: PacketType, version: int) -> Disconnect:
    if version < MQTT_5:
        check_end(body, 0)
        return Disconnect()
    return coded(Disconnect, body, kind)


def decode_auth(body: bytes, kind: PacketType, version: int) -> Auth:
    if version < MQTT_5:
        raise malformed("AUTH before MQTT 5.0")
    found = coded(Auth, body, kind)
    if PropertyId.AUTHENTICATION_METHOD not in found.properties.values:
        raise protocol_error("AUTH without a method")
    return found


def coded(packet: type[Coded], body: bytes, kind: PacketType) -> Coded:
    """Decode a packet of a code and properties, of which both, or the second, may be missing."""
    if not body:
        return packet()
    return packet(reason_code(body[0]), rest_properties(body, 1, kind, may_lack=True))


def read_packet_id(body: bytes) -> tuple[int, int]:
    packet_id, offset = read_u16(body, 0)
    if not packet_id:
        raise protocol_error("packet identifier 0")
    return packet_id, offset


def read_request(body: bytes, kind: PacketType, version: int) -> tuple[int, int, Properties]:
    """Read what SUBSCRIBE and its like begin with: packet identifier and properties."""
    packet_id, offset = read_packet_id(body)
    if version < MQTT_5:
        return packet_id, offset, Properties()
    raw, offset = read_properties(body, offset)
    return packet_id, offset, decode_properties(raw, kind)


def rest_properties(
    body: bytes, offset: int, kind: PacketType, *, may_lack: bool = False
) -> Properties:
    """Decode the properties that end a packet; with `may_lack` there may be not even a length."""
    if may_lack and offset == len(body):
        return Properties()
    raw, offset = read_properties(body, offset)
    check_end(body, offset)
    return decode_properties(raw, kind)


def reason_code(number: int) -> ReasonCode:
    try:
        return ReasonCode(number)
    except ValueError:
        raise protocol_error(f"there is no reason code {number:#04x}") from None


def check_end(body: bytes, offset: int) -> None:
    if offset != len(body):
        raise malformed("packet is longer than its fields")


Decoder: TypeAlias = Callable[[bytes, PacketType, int], ReadPacket]

DECODERS: dict[PacketType, Decoder] = {
    PacketType.CONNECT: decode_connect,
    PacketType.CONNACK: decode_connack,
    PacketType.PUBACK: decode_ack,
    PacketType.PUBREC: decode_ack,
    PacketType.PUBREL: decode_ack,
    PacketType.PUBCOMP: decode_ack,
    PacketType.SUBSCRIBE: decode_subscribe,
    PacketType.SUBACK: decode_suback,
    PacketType.UNSUBSCRIBE: decode_unsubscribe,
    PacketType.UNSUBACK: decode_unsuback,
    PacketType.PINGREQ: decode_pingreq,
    PacketType.PINGRESP: decode_pingresp,
    PacketType.DISCONNECT: decode_disconnect,
    PacketType.AUTH: decode_auth,
}
"""Decoder of the body for each type of packet but PUBLISH, which the reader decodes."""


# To bytes


def encode(packet: Packet, version: int) -> bytes:
    """Return the bytes of a packet; what its version does not know is left out of it.

    Version 0, as long as none is known, counts as 3.1.1.  ValueError for what no packet can say.
    """
    first, body = ENCODERS[type(packet)](packet, version)
    return bytes((first,)) + encode_varint(len(body)) + body


def first_octet(kind: PacketType) -> int:
    return kind << 4 | FLAGS.get(kind, 0)


def publish_flags(qos: int, *, retain: bool = False, dup: bool = False) -> int:
    """Return the lower half of the first octet of a PUBLISH."""
    return DUP * dup | qos << 1 | RETAIN * retain


def properties_of(properties: Properties | bytes, version: int) -> bytes:
    """Return properties as they stand in a packet: with their length; nothing before 5.0."""
    if version < MQTT_5:
        return b""
    raw = properties if isinstance(properties, bytes) else encode_properties(properties)
    return with_length(raw)


def encode_connect(packet: Connect, _version: int) -> tuple[int, bytes]:
    version = packet.version
    will = packet.will
    flags = (
        CLEAN_START * packet.clean_start
        | USER_FLAG * (packet.user is not None)
        | PASSWORD_FLAG * (packet.password is not None)
    )
    if will is not None:
        flags |= WILL_FLAG | will.qos << WILL_QOS_SHIFT | WILL_RETAIN * will.retain
    pieces = [
        encode_string(PROTOCOL_NAMES[version]),
        bytes((version, flags)),
        pack_u16(packet.keep_alive_s),
        properties_of(packet.properties, version),
        encode_string(packet.client_id),
    ]
    if will is not None:
        delay = Properties({PropertyId.WILL_DELAY_INTERVAL: will.delay_s} if will.delay_s else {})
        pieces += [
            properties_of(encode_properties(delay) + will.properties, version),
            encode_binary(will.topic),
            encode_binary(will.payload),
        ]
    if packet.user is not None:
        pieces.append(encode_string(packet.user))
    if packet.password is not None:
        pieces.append(encode_binary(packet.password))
    return first_octet(PacketType.CONNECT), b"".join(pieces)


def encode_connack(packet: Connack, version: int) -> tuple[int, bytes]:
    code = packet.code if version >= MQTT_5 else return_code(packet.code)
    is_present = packet.session_present and not packet.code and version != MQTT_3_1
    head = bytes((is_present, code))
    return first_octet(PacketType.CONNACK), head + properties_of(packet.properties, version)


def encode_publish(packet: Publish, version: int) -> tuple[int, bytes]:
    flags = publish_flags(packet.qos, retain=packet.retain, dup=packet.dup)
    packet_id = pack_u16(packet.packet_id) if packet.qos else b""
    properties = properties_of(packet.properties, version)
    body = encode_binary(packet.topic) + packet_id + properties + packet.payload
    return PacketType.PUBLISH << 4 | flags, body


def encode_ack(packet: Ack, version: int) -> tuple[int, bytes]:
    ending = encode_code(packet.code, packet.properties, version)
    return first_octet(packet.kind), pack_u16(packet.packet_id) + ending


def encode_subscribe(packet: Subscribe, version: int) -> tuple[int, bytes]:
    allowed = OPTIONS_5 if version >= MQTT_5 else OPTIONS_3
    filters = b"".join(
        encode_string(text) + bytes((options & allowed,)) for text, options in packet.filters
    )
    return encode_request(PacketType.SUBSCRIBE, packet, version, filters)


def encode_suback(packet: Suback, version: int) -> tuple[int, bytes]:
    codes = bytes(packet.codes)
    if version < MQTT_5:
        codes = bytes(FAILURE if code.is_error else code for code in packet.codes)
    return encode_request(PacketType.SUBACK, packet, version, codes)


def encode_unsubscribe(packet: Unsubscribe, version: int) -> tuple[int, bytes]:
    filters = b"".join(map(encode_string, packet.filters))
    return encode_request(PacketType.UNSUBSCRIBE, packet, version, filters)


def encode_unsuback(packet: Unsuback, version: int) -> tuple[int, bytes]:
    codes = bytes(packet.codes) if version >= MQTT_5 else b""
    return encode_request(PacketType.UNSUBACK, packet, version, codes)


def encode_request(
    kind: PacketType,
    packet: Subscribe | Suback | Unsubscribe | Unsuback,
    version: int,
    content: bytes,
) -> tuple[int, bytes]:
    properties = properties_of(packet.properties, version)
    return first_octet(kind), pack_u16(packet.packet_id) + properties + content


def encode_pingreq(_packet: Pingreq, _version: int) -> tuple[int, bytes]:
    return first_octet(PacketType.PINGREQ), b""


def encode_pingresp(_packet: Pingresp, _version: int) -> tuple[int, bytes]:
    return first_octet(PacketType.PINGRESP), b""


def encode_disconnect(packet: Disconnect, version: int) -> tuple[int, bytes]:
    body = encode_code(packet.code, packet.properties, version)
    return first_octet(PacketType.DISCONNECT), body


def encode_auth(packet: Auth, version: int) -> tuple[int, bytes]:
    return first_octet(PacketType.AUTH), encode_code(packet.code, packet.properties, version)


def encode_code(code: ReasonCode, properties: Properties, version: int) -> bytes:
    """Return a code and properties as short as they can be; nothing before 5.0."""
    if version < MQTT_5:
        return b""
    if properties:
        return bytes((code,)) + properties_of(properties, version)
    return bytes((code,)) if code else b""


ENCODERS: dict[type[Packet], Callable[..., tuple[int, bytes]]] = {
    Connect: encode_connect,
    Connack: encode_connack,
    Publish: encode_publish,
    Ack: encode_ack,
    Subscribe: encode_subscribe,
    Suback: encode_suback,
    Unsubscribe: encode_unsubscribe,
    Unsuback: encode_unsuback,
    Pingreq: encode_pingreq,
    Pingresp: encode_pingresp,
    Disconnect: encode_disconnect,
    Auth: encode_auth,
}
"""Encoder for each class of packet: it returns the first octet and the body."""
