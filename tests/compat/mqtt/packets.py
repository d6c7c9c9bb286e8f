"""MQTT packets as bytes and as lines of a transcript, for the conversations with brokers.

It is written apart from the broker's own codec, so that a mistake of one is no mistake of the
other, and it builds what no client may send: `packet` takes any first byte and any body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

PropertyValue: TypeAlias = "int | str | bytes | tuple[str, str]"
Properties: TypeAlias = "Iterable[tuple[int, PropertyValue]]"


class Kind(IntEnum):
    """The type of a packet, in the upper half of its first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


ANSWERS = (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)
"""Kinds of packets with the identifier of a message."""


class Property(IntEnum):
    """The identifier of a property."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTH_METHOD = 0x15
    AUTH_DATA = 0x16
    REQUEST_PROBLEM = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARDS_AVAILABLE = 0x28
    SUBSCRIPTION_IDS_AVAILABLE = 0x29
    SHARED_AVAILABLE = 0x2A


FORMS: Mapping[int, str] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), "u8"),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), "u16"),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), "u32"),
    **dict.fromkeys((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F), "string"),
    **dict.fromkeys((0x09, 0x16), "binary"),
    0x0B: "varint",
    0x26: "pair",
}
BYTES_OF = {"u8": 1, "u16": 2, "u32": 4}
FIVE = 5


# Bytes


def varint(number: int) -> bytes:
    """A number of one to four bytes, or more where the test wants that."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def u16(number: int) -> bytes:
    return number.to_bytes(2)


def binary(data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return u16(len(raw)) + raw


def property_bytes(identifier: int, value: PropertyValue) -> bytes:
    """Encode one property; a value of bytes in the place of another type is taken as it is."""
    form = FORMS.get(identifier, "raw")
    head = bytes([identifier])
    if isinstance(value, tuple):
        return head + binary(value[0]) + binary(value[1])
    if isinstance(value, int):
        return head + (varint(value) if form == "varint" else value.to_bytes(BYTES_OF[form]))
    return head + (value if isinstance(value, bytes) and form != "binary" else binary(value))


def properties_bytes(properties: Properties) -> bytes:
    """A list of properties, with its length in front."""
    body = b"".join(property_bytes(*each) for each in properties)
    return varint(len(body)) + body


def packet(first: int, *parts: bytes) -> bytes:
    """A packet of any first byte and any body."""
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


@dataclass(frozen=True, slots=True)
class Will:
    """Message that a broker publishes when a client ends without a DISCONNECT."""

    topic: str
    payload: bytes | str = b"gone"
    qos: int = 0
    retain: bool = False
    properties: tuple[tuple[int, PropertyValue], ...] = ()


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT; `flags` takes the place of those that follow from the other fields."""

    client_id: str | bytes
    version: int = FIVE
    clean: bool = True
    keep_alive_s: int = 0
    properties: tuple[tuple[int, PropertyValue], ...] = ()
    will: Will | None = None
    user: str | None = None
    password: str | None = None
    flags: int | None = None
    name: str = ""
    level: int | None = None

    def encode(self) -> bytes:
        five = self.version >= FIVE
        name = self.name or ("MQIsdp" if self.version == 3 else "MQTT")
        level = self.version if self.level is None else self.level
        flags = self._flags() if self.flags is None else self.flags
        parts = [binary(name), bytes([level, flags]), u16(self.keep_alive_s)]
        if five:
            parts.append(properties_bytes(self.properties))
        parts.append(binary(self.client_id))
        if self.will is not None:
            if five:
                parts.append(properties_bytes(self.will.properties))
            parts += [binary(self.will.topic), binary(self.will.payload)]
        parts += [binary(each) for each in (self.user, self.password) if each is not None]
        return packet(0x10, *parts)

    def _flags(self) -> int:
        flags = 0x02 if self.clean else 0
        if self.will is not None:
            flags |= 0x04 | self.will.qos << 3 | (0x20 if self.will.retain else 0)
        if self.user is not None:
            flags |= 0x80
        return flags | (0x40 if self.password is not None else 0)


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH of a client or of a broker."""

    topic: str | bytes
    payload: bytes | str = b""
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    dup: bool = False
    properties: tuple[tuple[int, PropertyValue], ...] = ()

    def encode(self, version: int) -> bytes:
        first = 0x30 | (0x08 if self.dup else 0) | self.qos << 1 | self.retain
        payload = self.payload.encode() if isinstance(self.payload, str) else self.payload
        numbered = u16(self.packet_id) if self.qos else b""
        properties = properties_bytes(self.properties) if version >= FIVE else b""
        return packet(first, binary(self.topic), numbered, properties, payload)


def subscribe(
    packet_id: int,
    filters: Iterable[tuple[str | bytes, int]],
    version: int,
    properties: Properties = (),
) -> bytes:
    """A SUBSCRIBE of these filters, each with its byte of options."""
    head = properties_bytes(properties) if version >= FIVE else b""
    body = b"".join(binary(name) + bytes([options]) for name, options in filters)
    return packet(0x82, u16(packet_id), head, body)


def unsubscribe(packet_id: int, filters: Iterable[str | bytes], version: int) -> bytes:
    head = properties_bytes(()) if version >= FIVE else b""
    return packet(0xA2, u16(packet_id), head, b"".join(map(binary, filters)))


def answer(
    kind: Kind, packet_id: int, code: int | None = None, properties: Properties | None = None
) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP; plain without a code."""
    first = kind << 4 | (0x02 if kind is Kind.PUBREL else 0)
    tail = b"" if code is None else bytes([code])
    return packet(
        first, u16(packet_id), tail, b"" if properties is None else properties_bytes(properties)
    )


def disconnect(code: int | None = None, properties: Properties | None = None) -> bytes:
    tail = b"" if code is None else bytes([code])
    return packet(0xE0, tail, b"" if properties is None else properties_bytes(properties))


PINGREQ = packet(0xC0)


# What brokers send


class Cursor:
    """Reads the fields of a packet's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def rest_bytes(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        assert self.rest_bytes >= size, f"a field is cut short in {self._data.hex(' ')}"
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def string(self) -> str:
        return self.binary().decode()

    def rest(self) -> bytes:
        return self.take(self.rest_bytes)

    def properties(self) -> list[tuple[int, PropertyValue]]:
        """All that are there."""
        inside = Cursor(self.take(self.varint()))
        found: list[tuple[int, PropertyValue]] = []
        while inside.rest_bytes:
            identifier = inside.number(1)
            found.append((identifier, inside.value(FORMS[identifier])))
        return found

    def value(self, form: str) -> PropertyValue:
        if form in BYTES_OF:
            return self.number(BYTES_OF[form])
        if form == "varint":
            return self.varint()
        if form == "pair":
            return self.string(), self.string()
        return self.binary() if form == "binary" else self.string()


@dataclass(frozen=True, slots=True)
class Heard:
    """Packet received from a broker."""

    kind: Kind
    code: int | None = None
    """The first of its codes, or what CONNACK returns."""
    packet_id: int = 0
    properties: tuple[tuple[int, PropertyValue], ...] = ()
    publish: Publish | None = None
    codes: tuple[int, ...] = ()
    is_present: bool = False
    """True if CONNACK says that there is a session."""
    flags: int = 0

    def property(self, identifier: Property) -> PropertyValue | None:
        """The first of that name."""
        return next((value for each, value in self.properties if each == identifier), None)


def decode(first: int, body: bytes, version: int) -> Heard:
    """A packet of a broker; fields that are missing or too many fail."""
    kind, flags, fields = Kind(first >> 4), first & 0x0F, Cursor(body)
    five = version >= FIVE
    if kind is Kind.PUBLISH:
        return publish_heard(flags, fields, five=five)
    if kind is Kind.CONNACK:
        present, code = fields.number(1), fields.number(1)
        assert present in (0, 1), present
        properties = fields.properties() if five and fields.rest_bytes else []
        return ended(fields, Heard(kind, code, 0, tuple(properties), is_present=present == 1))
    if kind in (Kind.PINGRESP, Kind.DISCONNECT, Kind.AUTH):
        code = fields.number(1) if fields.rest_bytes else 0
        properties = fields.properties() if fields.rest_bytes else []
        return ended(fields, Heard(kind, code, 0, tuple(properties)))
    number = fields.number(2)
    if kind in (Kind.SUBACK, Kind.UNSUBACK):
        properties = fields.properties() if five else []
        return Heard(kind, None, number, tuple(properties), codes=tuple(fields.rest()))
    code = fields.number(1) if five and fields.rest_bytes else 0
    properties = fields.properties() if five and fields.rest_bytes else []
    assert flags == (2 if kind is Kind.PUBREL else 0), f"{kind.name} has flags {flags}"
    return ended(fields, Heard(kind, code, number, tuple(properties)))


def ended(fields: Cursor, heard: Heard) -> Heard:
    assert not fields.rest_bytes, f"bytes behind the last field of {heard}"
    return heard


def publish_heard(flags: int, fields: Cursor, *, five: bool) -> Heard:
    topic, qos = fields.string(), flags >> 1 & 3
    number = fields.number(2) if qos else 0
    properties = tuple(fields.properties()) if five else ()
    message = Publish(
        topic, fields.rest(), qos, number, bool(flags & 1), bool(flags & 8), properties
    )
    return Heard(Kind.PUBLISH, None, number, properties, message)


# Lines of a transcript


@dataclass(slots=True)
class Labels:
    """Packet identifiers of a broker in the order of their appearance: who counts from where is
    nobody's business, that a message comes again with its old one is."""

    seen: dict[int, int] = field(default_factory=dict)

    def of(self, packet_id: int) -> str:
        return f"id {self.seen.setdefault(packet_id, len(self.seen) + 1)}"


HIDDEN = frozenset({Property.REASON_STRING})
"""Properties for people, in words of each broker, which are not compared."""


def shown_properties(properties: Properties) -> Iterator[str]:
    """Texts of properties sorted by identifier, since their order has no meaning; properties of one
    name keep theirs."""
    for identifier, value in sorted(properties, key=lambda each: each[0]):
        if identifier not in HIDDEN:
            shown = "<assigned>" if identifier == Property.ASSIGNED_CLIENT_ID else repr(value)
            yield f"{Property(identifier).name.lower()}={shown}"


def shown(heard: Heard, labels: Labels) -> str:
    """`PUBLISH(qos=1, id 1, topic='a', b'x', content_type='t')`."""
    parts: list[str] = []
    if heard.publish is not None:
        parts += shown_publish(heard.publish, labels)
    elif heard.kind is Kind.CONNACK:
        parts += [f"present={int(heard.is_present)}", f"code=0x{heard.code:02x}"]
    elif heard.kind in (Kind.SUBACK, Kind.UNSUBACK):
        parts += [f"#{heard.packet_id}", *(f"0x{code:02x}" for code in heard.codes)]
    elif heard.kind in (Kind.DISCONNECT, Kind.AUTH):
        parts.append(f"0x{heard.code:02x}")
    elif heard.kind is Kind.PUBREL:
        parts += [labels.of(heard.packet_id), f"0x{heard.code:02x}"]
    elif heard.kind is not Kind.PINGRESP:
        parts += [f"#{heard.packet_id}", f"0x{heard.code:02x}"]
    return f"{heard.kind.name}({', '.join([*parts, *shown_properties(heard.properties)])})"


def shown_publish(message: Publish, labels: Labels) -> Iterator[str]:
    yield f"qos={message.qos}"
    if message.qos:
        yield labels.of(message.packet_id)
    if message.retain:
        yield "retain"
    if message.dup:
        yield "dup"
    yield repr(message.topic)
    payload = message.payload
    yield repr(payload) if len(payload) <= 64 else f"{len(payload)} bytes"
