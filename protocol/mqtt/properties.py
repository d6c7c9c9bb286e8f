"""Properties of MQTT 5.0: one table of all, and the way from bytes to values and back.

Raw properties are the bytes behind their length.  What was sent twice, or stands where it may
not, is a protocol error; what cannot be read is malformed.  Source: S5 §2.2.2.

Rule 1: what `decode_properties` takes, `encode_properties` writes again with the same meaning, in
the order of identifiers, user properties last and in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Final, TypeAlias

from fluffle.protocol.mqtt.codes import InvalidPacket, PacketType, ReasonCode, malformed
from fluffle.protocol.mqtt.codes import protocol_error as refused
from fluffle.protocol.mqtt.topics import is_wildcard
from fluffle.protocol.mqtt.wire import (
    encode_binary,
    encode_string,
    encode_varint,
    pack_u16,
    pack_u32,
    read_binary,
    read_string,
    read_u8,
    read_u16,
    read_u32,
    read_varint,
)

PROPERTIES_MAX = 2048
"""More are not taken in one packet: these take some milliseconds to read."""

PROPERTIES_BYTES_MAX = 1 << 20
"""Largest properties of one packet."""

WILL: Final = 0
"""Stands for the will of a CONNECT, whose properties are apart, beside the types of packets."""


class PropertyId(IntEnum):
    """Identifiers of properties on the wire."""

    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


USER_PROPERTY: Final = int(PropertyId.USER_PROPERTY)

PropertyValue: TypeAlias = int | str | bytes


class DataType(Enum):
    """Types of what properties hold: S5 §1.5."""

    U8 = "byte"
    U16 = "two byte integer"
    U32 = "four byte integer"
    VARINT = "variable byte integer"
    STRING = "UTF-8 encoded string"
    BINARY = "binary data"
    STRING_PAIR = "UTF-8 string pair"


def read_string_pair(buffer: bytes, offset: int) -> tuple[tuple[str, str], int]:
    name, offset = read_string(buffer, offset)
    value, offset = read_string(buffer, offset)
    return (name, value), offset


def encode_string_pair(pair: tuple[str, str]) -> bytes:
    name, value = pair
    return encode_string(name) + encode_string(value)


def encode_u8(value: int) -> bytes:
    return bytes((value,))


READERS: dict[DataType, Callable[[bytes, int], tuple[Any, int]]] = {
    DataType.U8: read_u8,
    DataType.U16: read_u16,
    DataType.U32: read_u32,
    DataType.VARINT: read_varint,
    DataType.STRING: read_string,
    DataType.BINARY: read_binary,
    DataType.STRING_PAIR: read_string_pair,
}
ENCODERS: dict[DataType, Callable[[Any], bytes]] = {
    DataType.U8: encode_u8,
    DataType.U16: pack_u16,
    DataType.U32: pack_u32,
    DataType.VARINT: encode_varint,
    DataType.STRING: encode_string,
    DataType.BINARY: encode_binary,
    DataType.STRING_PAIR: encode_string_pair,
}


def check_flag(value: int) -> None:
    if value > 1:
        raise refused(f"{value} where 0 or 1 is allowed")


def check_positive(value: int) -> None:
    if not value:
        raise refused("0 is not allowed")


def check_response_topic(topic: str) -> None:
    if not topic or is_wildcard(topic):
        raise refused("response topic that is no topic name")


def check_alias(value: int) -> None:
    if not value:
        raise InvalidPacket(ReasonCode.TOPIC_ALIAS_INVALID, "topic alias 0")


@dataclass(frozen=True, slots=True)
class PropertyRule:
    """Rule of one property: its type, where it may stand, how often, and with which values."""

    id: PropertyId
    type: DataType
    places: frozenset[int]
    """Types of packets, or `WILL`."""
    check: Callable[[Any], None] | None = None
    """Raises InvalidPacket if a value is not allowed."""
    many: frozenset[int] = frozenset()
    """Where there may be more than one."""


P, T, D = PropertyId, PacketType, DataType
MESSAGE = (T.PUBLISH, WILL)
ACKS = (T.PUBACK, T.PUBREC, T.PUBREL, T.PUBCOMP)
ALL = (
    *(*MESSAGE, *ACKS, T.CONNECT, T.CONNACK, T.SUBSCRIBE, T.SUBACK, T.UNSUBSCRIBE, T.UNSUBACK),
    *(T.DISCONNECT, T.AUTH),
)
HANDSHAKE = (T.CONNECT, T.CONNACK)
ANSWERS = (T.CONNACK, *ACKS, T.SUBACK, T.UNSUBACK)


def rule(
    property_id: PropertyId,
    data_type: DataType,
    *places: int,
    check: Callable[[Any], None] | None = None,
    many: tuple[int, ...] = (),
) -> PropertyRule:
    return PropertyRule(property_id, data_type, frozenset(places), check, frozenset(many))


RULES: dict[int, PropertyRule] = {
    each.id: each
    for each in (
        rule(P.PAYLOAD_FORMAT_INDICATOR, D.U8, *MESSAGE, check=check_flag),
        rule(P.MESSAGE_EXPIRY_INTERVAL, D.U32, *MESSAGE),
        rule(P.CONTENT_TYPE, D.STRING, *MESSAGE),
        rule(P.RESPONSE_TOPIC, D.STRING, *MESSAGE, check=check_response_topic),
        rule(P.CORRELATION_DATA, D.BINARY, *MESSAGE),
        rule(
            P.SUBSCRIPTION_IDENTIFIER,
            D.VARINT,
            T.PUBLISH,
            T.SUBSCRIBE,
            check=check_positive,
            many=(T.PUBLISH,),
        ),
        rule(P.SESSION_EXPIRY_INTERVAL, D.U32, *HANDSHAKE, T.DISCONNECT),
        rule(P.ASSIGNED_CLIENT_IDENTIFIER, D.STRING, T.CONNACK),
        rule(P.SERVER_KEEP_ALIVE, D.U16, T.CONNACK),
        rule(P.AUTHENTICATION_METHOD, D.STRING, *HANDSHAKE, T.AUTH),
        rule(P.AUTHENTICATION_DATA, D.BINARY, *HANDSHAKE, T.AUTH),
        rule(P.REQUEST_PROBLEM_INFORMATION, D.U8, T.CONNECT, check=check_flag),
        rule(P.WILL_DELAY_INTERVAL, D.U32, WILL),
        rule(P.REQUEST_RESPONSE_INFORMATION, D.U8, T.CONNECT, check=check_flag),
        rule(P.RESPONSE_INFORMATION, D.STRING, T.CONNACK),
        rule(P.SERVER_REFERENCE, D.STRING, T.CONNACK, T.DISCONNECT),
        rule(P.REASON_STRING, D.STRING, *ANSWERS, T.DISCONNECT, T.AUTH),
        rule(P.RECEIVE_MAXIMUM, D.U16, *HANDSHAKE, check=check_positive),
        rule(P.TOPIC_ALIAS_MAXIMUM, D.U16, *HANDSHAKE),
        rule(P.TOPIC_ALIAS, D.U16, T.PUBLISH, check=check_alias),
        rule(P.MAXIMUM_QOS, D.U8, T.CONNACK, check=check_flag),
        rule(P.RETAIN_AVAILABLE, D.U8, T.CONNACK, check=check_flag),
        rule(P.USER_PROPERTY, D.STRING_PAIR, *ALL, many=ALL),
        rule(P.MAXIMUM_PACKET_SIZE, D.U32, *HANDSHAKE, check=check_positive),
        rule(P.WILDCARD_SUBSCRIPTION_AVAILABLE, D.U8, T.CONNACK, check=check_flag),
        rule(P.SUBSCRIPTION_IDENTIFIER_AVAILABLE, D.U8, T.CONNACK, check=check_flag),
        rule(P.SHARED_SUBSCRIPTION_AVAILABLE, D.U8, T.CONNACK, check=check_flag),
    )
}
"""All properties there are, by identifier."""


@dataclass(slots=True)
class Properties:
    """Properties of one packet."""

    values: dict[PropertyId, PropertyValue] = field(default_factory=dict)
    """Properties that a packet has at most once."""
    user: list[tuple[str, str]] = field(default_factory=list)
    """User properties, names and values, in their order."""
    subscription_ids: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.values or self.user or self.subscription_ids)

    def integer(self, property_id: PropertyId, default: int) -> int:
        value: Any = self.values.get(property_id, default)
        return int(value)

    def text(self, property_id: PropertyId) -> str | None:
        value: Any = self.values.get(property_id)
        return None if value is None else str(value)

    def binary(self, property_id: PropertyId) -> bytes | None:
        value: Any = self.values.get(property_id)
        return None if value is None else bytes(value)


def decode_properties(raw: bytes, where: int = PacketType.PUBLISH) -> Properties:
    """Decode raw properties of a type of packet, or of a `WILL`; InvalidPacket if they are not
    allowed there."""
    found = Properties()
    offset, count = 0, 0
    if len(raw) > PROPERTIES_BYTES_MAX:
        raise InvalidPacket(ReasonCode.PACKET_TOO_LARGE, f"{len(raw)} bytes of properties")
    while offset < len(raw):
        count += 1
        if count > PROPERTIES_MAX:
            raise InvalidPacket(ReasonCode.QUOTA_EXCEEDED, f"more than {PROPERTIES_MAX} properties")
        property_id = raw[offset]
        if property_id == USER_PROPERTY:  # any packet may have thousands: without the table
            pair, offset = read_string_pair(raw, offset + 1)
            found.user.append(pair)
            continue
        one = RULES.get(property_id)
        if one is None:
            raise malformed(f"there is no property {property_id:#04x}")
        if where not in one.places:
            raise refused(f"property {property_id:#04x} does not belong here")
        value, offset = READERS[one.type](raw, offset + 1)
        if one.check is not None:
            one.check(value)
        add_property(found, one, value, where)
    values = found.values
    if PropertyId.AUTHENTICATION_DATA in values and PropertyId.AUTHENTICATION_METHOD not in values:
        raise refused("authentication data without a method")
    return found


def add_property(found: Properties, one: PropertyRule, value: Any, where: int) -> None:
    """Add a property that is no user property to those of a packet, unless it is the second."""
    if one.id is PropertyId.SUBSCRIPTION_IDENTIFIER:
        if found.subscription_ids and where not in one.many:
            raise refused("subscription identifier twice")
        found.subscription_ids.append(value)
        return
    if one.id in found.values:
        raise refused(f"property {one.id:#04x} twice")
    found.values[one.id] = value


def encode_properties(properties: Properties) -> bytes:
    """Return raw properties."""
    if not properties:
        return b""
    pieces = [
        encode_u8(property_id) + ENCODERS[RULES[property_id].type](value)
        for property_id, value in sorted(properties.values.items())
    ]
    pieces += [
        encode_u8(PropertyId.SUBSCRIPTION_IDENTIFIER) + encode_varint(each)
        for each in properties.subscription_ids
    ]
    pieces += [
        encode_u8(PropertyId.USER_PROPERTY) + encode_string_pair(pair) for pair in properties.user
    ]
    return b"".join(pieces)


def read_properties(buffer: bytes, offset: int) -> tuple[bytes, int]:
    """Read the length of properties and the raw properties."""
    if buffer[offset : offset + 1] == b"\0":  # as mostly
        return b"", offset + 1
    size, start = read_varint(buffer, offset)
    if start + size > len(buffer):
        raise malformed("properties are longer than their packet")
    return buffer[start : start + size], start + size


def with_length(raw: bytes) -> bytes:
    """Put the length of raw properties before them."""
    return encode_varint(len(raw)) + raw
