"""Reader of a client's bytes: packets, and runs of PUBLISH and of acknowledgements.

    feed(data) --> [Connect]  -- open() -->  go_on(), feed(data) --> [Publishes, Acks, Subscribe, …]

Rule 1: a packet larger than allowed is refused when its length is known; nothing of it is kept.
Rule 2: what a packet says wrong by itself, and the order of the first packets, is refused here;
what depends on the session is for the receiver of the events.
Rule 3: it keeps no reference to a read buffer beyond an unfinished packet, unless it is waiting.
Rule 4: what it keeps is bounded: one packet, the topics of aliases, and what it remembers.

Beside `Publishes`, `Acks` and `Violation` the packets themselves are events: all that do not come
in runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from fluffle.protocol.mqtt.codes import (
    BROKER_CODES,
    CLIENT_CODES,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    InvalidPacket,
    PacketType,
    ReasonCode,
    malformed,
    protocol_error,
)
from fluffle.protocol.mqtt.hot import measure_body, scan_acks, scan_publishes
from fluffle.protocol.mqtt.packets import (
    DECODERS,
    DUP,
    RETAIN,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    ReadPacket,
    Suback,
    Unsuback,
    first_octet,
    publish_flags,
    read_protocol,
)
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.mqtt.topics import check_topic
from fluffle.protocol.mqtt.wire import VARINT_BYTES_MAX, cut_short, read_varint, unpack_u16


@dataclass(slots=True)
class Publishes:
    """PUBLISH packets that came one after another, and differ in identifier and payload alone."""

    topic: bytes
    """A topic name that is valid; never empty, as topic aliases are resolved."""
    properties: bytes
    """Raw properties, which are valid, without a topic alias; empty before 5.0."""
    qos: int
    retain: bool
    dup: bool
    packet_ids: list[int]
    """Packet id of each message; empty with QoS 0."""
    payloads: list[bytes]
    content_bytes: int
    """The summed length of `payloads`."""


@dataclass(slots=True)
class Acks:
    """PUBACK, PUBREC, PUBREL or PUBCOMP packets in a row that say that all went well."""

    kind: PacketType
    packet_ids: Sequence[int]


@dataclass(slots=True)
class Violation:
    """Bytes that MQTT does not allow; always the last event, nothing behind it was read."""

    code: ReasonCode
    text: str
    in_connect: bool
    """True if the answer is a CONNACK: it is wrong in the CONNECT, whose version is known.

    Without, and as long as the reader knows no version, there is no answer at all.
    """


Event: TypeAlias = Publishes | Acks | ReadPacket | Violation


EVENTS_MAX = 256
"""Read at once: a read holds tens of thousands of small packets, and as objects they would cost
much more memory than as bytes, and hold up the other connections."""

WORK_BYTES_MAX = 1 << 15
"""How much is looked at before the reader stops, which takes some milliseconds at most."""

PACKET_WORK_BYTES = 32
MESSAGE_WORK_BYTES = 4
"""Work that each packet adds to that, and one in a run of PUBLISH."""

FIELD_WORK = 4
"""Work of an octet of fields that are decoded one by one: properties and filters of a few octets,
of which a packet may have thousands."""

OTHER_BYTES_MAX = 1 << 20
"""Packets but PUBLISH are no larger: they are read as a whole, in some milliseconds."""

PART_BYTES_MIN = 4096
"""Smaller pieces of an unfinished packet are joined as they come."""

REMEMBERED_MAX = 1024
"""Clients that use more topics and properties at once are read a little slower."""

REMEMBERED_BYTES_MAX = 256
"""Longer ones are checked each time: memory is dearer."""

CLIENT_TYPES = (
    *(PacketType.CONNECT, PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL),
    *(PacketType.PUBCOMP, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PINGREQ),
    PacketType.DISCONNECT,
)
BROKER_TYPES = (
    *(PacketType.CONNACK, PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL),
    *(PacketType.PUBCOMP, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP),
)
ACK_TYPES = frozenset((PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP))
REPEATED_TYPES = (PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE)
"""Packet types that a client of MQTT 3.1 may send again with DUP set."""

ANSWERED_TYPES = frozenset(
    (
        *(PacketType.CONNECT, PacketType.PUBREC, PacketType.PUBREL),
        *(PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PINGREQ),
    )
)
"""Packet types that a broker answers, beside PUBLISH."""

LENGTH_GOES_ON = 0x80
"""An octet of the remaining length is as large as this if there is another."""

ACK_BODY_BYTES_MAX = {0: 0, MQTT_3_1: 2, MQTT_3_1_1: 2, MQTT_5: 4}
"""Longest body of an acknowledgement of success, by version: identifier, code, length of no
properties."""

WRONG_PORT = {
    b"AMQP": "a client of AMQP at a port for MQTT",
    b"GET ": "a client of HTTP at a port for MQTT",
    b"POST ": "a client of HTTP at a port for MQTT",
    b"\x16\x03": "a client of TLS at a port for MQTT without TLS",
}
"""Clients of other protocols that have come to the wrong port, by how they begin."""

PUBLISH_OCTETS = tuple(
    PacketType.PUBLISH << 4 | publish_flags(qos, retain=retain, dup=dup)
    for qos in range(3)
    for retain in (False, True)
    for dup in (False, True)[: qos + 1]
)
"""DUP needs a QoS: S5 §3.3.1.1."""


def octets_of(types: tuple[PacketType, ...], version: int) -> dict[int, PacketType]:
    """Return which first octets there are of some types, and of PUBLISH."""
    octets = {first_octet(kind): kind for kind in types}
    if version == MQTT_3_1:
        octets |= {first_octet(kind) | DUP: kind for kind in types if kind in REPEATED_TYPES}
    if version >= MQTT_5:
        octets[first_octet(PacketType.AUTH)] = PacketType.AUTH
        octets[first_octet(PacketType.DISCONNECT)] = PacketType.DISCONNECT
    return octets | dict.fromkeys(PUBLISH_OCTETS, PacketType.PUBLISH)


VERSIONS = (MQTT_3_1, MQTT_3_1_1, MQTT_5)
CLIENT_OCTETS: dict[int, dict[int, PacketType]] = {
    0: {first_octet(PacketType.CONNECT): PacketType.CONNECT},
    **{version: octets_of(CLIENT_TYPES, version) for version in VERSIONS},
}
"""First octets of what a client may send, by version; before it said one there is CONNECT alone."""

BROKER_OCTETS = {version: octets_of(BROKER_TYPES, version) for version in VERSIONS}


class PacketCounts:
    """Counts of the packets that readers have read, and of the octets in messages."""

    __slots__ = ("answered", "publish_bytes", "publishes", "received")

    def __init__(self) -> None:
        self.received = 0
        self.answered = 0
        """Packets to each of which a broker sends one as an answer."""
        self.publishes = self.publish_bytes = 0

    def add(self, kind: PacketType, count: int = 1) -> None:
        """Count packets of one type, but PUBLISH."""
        self.received += count
        if kind in ANSWERED_TYPES:
            self.answered += count

    def add_publishes(self, qos: int, count: int, size_bytes: int) -> None:
        """Count PUBLISH packets of one QoS with the octets of their payloads."""
        self.received += count
        self.publishes += count
        self.publish_bytes += size_bytes
        if qos:
            self.answered += count


class Reader:
    """Splits what a client sends into events.  After a Violation it reads no more.

    It stops after EVENTS_MAX of them, or some milliseconds, and goes on with `go_on`.

    Until `open` packets come one at a time, because the answer to one (a larger packet limit, or
    `open`) changes how the next is read.  Behind a DISCONNECT nothing is read.
    """

    __slots__ = (
        "_aliases",
        "_events",
        "_is_ended",
        "_is_introduced",
        "_is_negotiating",
        "_missing_bytes",
        "_pending",
        "_properties",
        "_rest",
        "_rest_at",
        "_topics",
        "_work_bytes",
        "counts",
        "is_broken",
        "is_waiting",
        "packet_bytes_max",
        "topic_alias_max",
        "version",
    )

    octets: ClassVar[Mapping[int, Mapping[int, PacketType]]] = CLIENT_OCTETS
    """First octets of what the other end may send, by version."""
    codes: ClassVar[Mapping[PacketType, frozenset[ReasonCode]]] = CLIENT_CODES
    """Reason codes that it may send."""
    takes_subscription_ids: ClassVar[bool] = False
    """True if a PUBLISH may have subscription identifiers."""

    def __init__(self, packet_bytes_max: int, counts: PacketCounts | None = None) -> None:
        """`counts`: where packets are counted, beside those of other readers."""
        self.counts = PacketCounts() if counts is None else counts
        self.packet_bytes_max = packet_bytes_max
        """Packets may be this large in all; raised once the client is known."""
        self.topic_alias_max = 0
        """The largest topic alias that there may be."""
        self.version = 0
        """That of CONNECT; 0 until one came."""
        self.is_waiting = False
        """True if there is more to read in what was fed: `go_on` once the events are acted on."""
        self.is_broken = False
        """True if there was a Violation, so that nothing can be read any more."""
        self._is_introduced = False
        """True if the CONNECT was read."""
        self._is_negotiating = True
        self._is_ended = False
        self._pending: list[bytes | bytearray] = []
        """The start of an unfinished packet, in the pieces in which it came."""
        self._missing_bytes = 0
        """Bytes that the unfinished packet lacks at least: until then pieces are only collected."""
        self._aliases: dict[int, bytes] = {}
        self._topics: dict[bytes, bytes] = {}
        """Topics that are valid, by themselves with their length."""
        self._properties: dict[bytes, tuple[int, bytes]] = {}
        """Raw properties of PUBLISH that are valid: the topic alias and what remains of them."""
        self._events: list[Event] = []
        self._work_bytes = 0
        """Bytes worth of work since it was fed, or asked to go on."""
        self._rest, self._rest_at = b"", 0
        """The bytes that it goes on with, and where, while it is waiting."""

    @property
    def is_amid(self) -> bool:
        """True if the last packet of what was fed is not whole."""
        return bool(self._pending)

    @property
    def begun_bytes(self) -> int:
        """How much there is of the last packet, if that is not whole."""
        return sum(map(len, self._pending))

    def open(self) -> None:
        """Read packets by the run from now on: the client was let in."""
        self._is_negotiating = False

    def close(self) -> None:
        """Pass over all that is not read yet, and all that comes."""
        self._is_ended, self.is_waiting = True, False
        self._pending.clear()
        self._rest = b""

    def discard(self) -> None:
        """Drop all that was fed: nothing will be read any more."""
        self.close()
        self.is_broken = True
        self.forget_beyond(-1)
        self._aliases.clear()
        self._events = []

    def forget_beyond(self, count: int) -> None:
        """Forget which topics and properties are valid if more than `count` are remembered."""
        if len(self._topics) + len(self._properties) > count:
            self._topics.clear()
            self._properties.clear()

    def go_on(self) -> list[Event]:
        """Yield what there is to read in what was fed already."""
        return self.feed(b"")

    def feed(self, data: bytes) -> list[Event]:
        """Everything that `data` completes, in order; less if the reader `is_waiting`."""
        events: list[Event] = []
        self._events = events
        self._work_bytes = 0
        was_waiting, self.is_waiting = self.is_waiting, False
        if self._is_ended:
            return events
        position = 0
        if was_waiting:
            rest, position, self._rest = self._rest, self._rest_at, b""
            data, position = (rest[position:] + data, 0) if data else (rest, position)
        elif self._pending:
            if len(data) < self._missing_bytes:
                self._keep(data, self._missing_bytes - len(data))
                return events
            data, position = self._resume(data)
        position = self._packets(data, position)
        if self.is_waiting:
            self._rest, self._rest_at = data, position
        elif position < len(data):
            self._keep(data[position:], self._missing_bytes)
        return events

    def _resume(self, data: bytes) -> tuple[bytes, int]:
        """Read what is pending, with what it lacked; in what to go on then, and where.

        Nothing more of `data` is copied, if that made it whole.
        """
        missing = 0 if self._is_negotiating else self._missing_bytes
        begun = b"".join((*self._pending, data[:missing]))
        self._pending.clear()
        position = self._packets(begun, 0) if missing else 0
        if position == len(begun):
            return data, missing
        return begun[position:] + data[missing:], 0

    def _keep(self, piece: bytes, missing_bytes: int) -> None:
        """Keep more of an unfinished packet, in pieces that are not small."""
        self._missing_bytes = missing_bytes
        last = self._pending[-1] if self._pending else None
        if isinstance(last, bytearray) and len(last) < PART_BYTES_MIN:
            last += piece
        elif piece:
            self._pending.append(piece if len(piece) >= PART_BYTES_MIN else bytearray(piece))

    def _packets(self, buffer: bytes, position: int) -> int:
        """Read packets from `position` on; where it stopped."""
        length = len(buffer)
        while position < length and not self._is_ended and not self.is_waiting:
            if len(self._events) >= EVENTS_MAX or self._work_bytes >= WORK_BYTES_MAX:
                self.is_waiting = True
                break
            try:
                end = self._packet(buffer, position)
            except InvalidPacket as error:
                self._refuse(error)
                break
            if not end:
                break
            position = end
            self.is_waiting = self._is_negotiating and position < length
        if self._is_ended:
            self.is_waiting = False
            return length
        return position

    def _refuse(self, error: InvalidPacket) -> None:
        """Put an end to reading: the client sent what MQTT does not allow."""
        is_known = self.version > 0 or error.code is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
        in_connect = is_known and not self._is_introduced
        self._events.append(Violation(error.code, error.text, in_connect))
        self.close()
        self.is_broken = True

    def _packet(self, buffer: bytes, position: int) -> int:
        """Read the packet at `position`, and with it the run that it begins; where that ends.

        0 if it is not whole.
        """
        kind = self.octets[self.version].get(buffer[position])
        if kind is None:
            raise self._no_packet(buffer, position)
        body_at = position + 2
        size = buffer[position + 1] if body_at <= len(buffer) else LENGTH_GOES_ON
        if size >= LENGTH_GOES_ON:
            body_at, size = measure_body(buffer, position + 1)
            if size < -1:
                raise malformed("remaining length of more than four bytes")
            if size < 0:
                self._missing_bytes = 1
                return 0
        end = body_at + size
        is_publish = kind is PacketType.PUBLISH
        if end - position > self.packet_bytes_max or (size > OTHER_BYTES_MAX and not is_publish):
            raise InvalidPacket(
                ReasonCode.PACKET_TOO_LARGE, f"{kind.name} of {end - position} bytes is too large"
            )
        if end > len(buffer):
            self._missing_bytes = end - len(buffer)
            return 0
        if is_publish:
            return self._publishes(buffer, position, body_at, end)
        if size <= ACK_BODY_BYTES_MAX[self.version] and kind in ACK_TYPES and size > 1:
            packet_ids = () if self._is_negotiating else scan_acks(buffer, position)
            if packet_ids:
                self._work_bytes += PACKET_WORK_BYTES
                self.counts.add(kind, len(packet_ids))
                self._events.append(Acks(kind, packet_ids))
                return position + len(packet_ids) * (end - position)
        self.counts.add(kind)
        self._work_bytes += PACKET_WORK_BYTES + FIELD_WORK * size
        self._events.append(self._decode(kind, buffer[body_at:end]))
        return end

    def _no_packet(self, buffer: bytes, position: int) -> InvalidPacket:
        """Return what is wrong with the first octet of a packet."""
        if not self.version:
            for greeting, client in WRONG_PORT.items():
                if buffer.startswith(greeting, position):
                    return malformed(client)
        octet = buffer[position]
        kind, flags = octet >> 4, octet & 0b1111
        is_known = kind and (kind != PacketType.AUTH or self.version >= MQTT_5)
        if is_known and flags == first_octet(PacketType(kind)) & 0b1111:
            return protocol_error(f"{PacketType(kind).name} is not allowed here")
        return malformed(f"there is no packet that begins with {octet:#04x}")

    def _decode(self, kind: PacketType, body: bytes) -> Event:
        if kind is PacketType.CONNECT:
            self._introduce(body)
        packet = DECODERS[kind](body, kind, self.version)
        if isinstance(packet, Connect):
            self._is_introduced = True
        if kind in self.codes:
            self._check_codes(kind, packet)
        if isinstance(packet, Disconnect):
            self.close()
        return packet

    def _introduce(self, body: bytes) -> None:
        """Learn the version of a CONNECT."""
        if self.version:
            raise protocol_error("second CONNECT")
        self.version = read_protocol(body)
        if not self.version:
            raise malformed("CONNECT of another protocol")

    def _check_codes(self, kind: PacketType, packet: ReadPacket) -> None:
        """Raise InvalidPacket if the packet has a code that it may not have from this end."""
        if isinstance(packet, Suback | Unsuback):
            codes = packet.codes
        elif isinstance(packet, Ack | Auth | Connack | Disconnect):
            codes = [packet.code]
        else:
            return
        if not self.codes[kind].issuperset(codes):
            raise protocol_error(f"{kind.name} with a code that is not of it")

    # PUBLISH

    def _publishes(self, buffer: bytes, position: int, body_at: int, end: int) -> int:
        """Read the PUBLISH at `position`, which is whole, and the run of its like behind it."""
        first = buffer[position]
        qos = first >> 1 & 0b11
        topic_at = body_at + 2
        topic_end = topic_at + unpack_u16(buffer, body_at)[0] if topic_at <= end else end + 1
        properties_at = topic_end + 2 if qos else topic_end
        if properties_at > end:
            raise cut_short()
        packet_id = unpack_u16(buffer, topic_end)[0] if qos else 0
        if qos and not packet_id:
            raise protocol_error("packet identifier 0")
        raw, payload_at = b"", properties_at
        if self.version >= MQTT_5:
            raw, payload_at = read_raw_properties(buffer, properties_at, end)
        head = buffer[body_at:topic_end]
        topic = self._topics.get(head)
        if topic is None:
            topic = self._check_topic(head)
        if raw:
            topic, raw = self._meant(topic, raw)
        if not topic:
            raise protocol_error("PUBLISH without a topic")
        payloads: list[bytes] = []
        packet_ids: list[int] = []
        stop, size = end, end - payload_at
        if buffer.startswith(head, end + body_at - position) and not self._is_negotiating:
            work_left_bytes = max(0, WORK_BYTES_MAX - self._work_bytes)  # 0: this one alone
            stop = scan_publishes(
                buffer,
                position,
                head,
                buffer[properties_at:payload_at],
                packet_bytes_max=self.packet_bytes_max,
                count_max=1 + work_left_bytes // MESSAGE_WORK_BYTES,
                payloads=payloads,
                packet_ids=packet_ids,
            )
            size = sum(map(len, payloads))
        else:
            payloads.append(buffer[payload_at:end])
            if qos:
                packet_ids.append(packet_id)
        self._work_bytes += PACKET_WORK_BYTES + MESSAGE_WORK_BYTES * len(payloads)
        self.counts.add_publishes(qos, len(payloads), size)
        retain, dup = first & RETAIN > 0, first & DUP > 0
        last = self._events[-1] if self._events else None
        if (
            isinstance(last, Publishes)
            and last.topic == topic
            and last.properties == raw
            and (last.qos, last.retain, last.dup) == (qos, retain, dup)
        ):
            last.packet_ids += packet_ids
            last.payloads += payloads
            last.content_bytes += size
        else:
            self._events.append(Publishes(topic, raw, qos, retain, dup, packet_ids, payloads, size))
        return stop

    def _check_topic(self, head: bytes) -> bytes:
        """Return the topic behind its length, if it is valid, or empty."""
        topic = head[2:]
        self._work_bytes += len(topic)
        if topic:
            check_topic(topic)
        if len(topic) <= REMEMBERED_BYTES_MAX:
            self.forget_beyond(REMEMBERED_MAX)
            self._topics[head] = topic
        return topic

    def _meant(self, topic: bytes, raw: bytes) -> tuple[bytes, bytes]:
        """Return the topic that a PUBLISH means and its properties without an alias, if they are
        valid."""
        known = self._properties.get(raw)
        if known is None:
            known = self._check_properties(raw)
        alias, rest = known
        return (self._resolved(alias, topic) if alias else topic), rest

    def _check_properties(self, raw: bytes) -> tuple[int, bytes]:
        """Return the topic alias in raw properties, 0 if there is none, and all but the alias."""
        self._work_bytes += FIELD_WORK * len(raw)
        properties: Properties = decode_properties(raw, PacketType.PUBLISH)
        if properties.subscription_ids and not self.takes_subscription_ids:
            raise protocol_error("subscription identifier in a PUBLISH of a client")
        alias = properties.integer(PropertyId.TOPIC_ALIAS, 0)
        rest = raw
        if alias:
            del properties.values[PropertyId.TOPIC_ALIAS]
            rest = encode_properties(properties)
        if len(raw) <= REMEMBERED_BYTES_MAX:
            self.forget_beyond(REMEMBERED_MAX)
            self._properties[raw] = alias, rest
        return alias, rest

    def _resolved(self, alias: int, topic: bytes) -> bytes:
        """Return the topic of a topic alias, which means `topic` from now on if that is one."""
        if alias > self.topic_alias_max:
            raise InvalidPacket(ReasonCode.TOPIC_ALIAS_INVALID, f"topic alias {alias} is too large")
        if topic:
            self._aliases[alias] = topic
            return topic
        if alias not in self._aliases:
            raise protocol_error(f"topic alias {alias} stands for nothing")
        return self._aliases[alias]


def read_raw_properties(buffer: bytes, position: int, end: int) -> tuple[bytes, int]:
    """Read the raw properties at `position` of a packet that ends at `end`."""
    if position < end and not buffer[position]:
        return b"", position + 1
    size, size_bytes = read_varint(buffer[position : min(position + VARINT_BYTES_MAX, end)], 0)
    start = position + size_bytes
    if start + size > end:
        raise malformed("properties are longer than their packet")
    return buffer[start : start + size], start + size


class ClientReader(Reader):
    """Splits what a broker sends into events: the other end of `Reader`, for clients."""

    __slots__ = ()

    octets = BROKER_OCTETS
    codes = BROKER_CODES
    takes_subscription_ids = True

    def __init__(self, packet_bytes_max: int, version: int) -> None:
        super().__init__(packet_bytes_max)
        self.version = version
        self._is_introduced = True
        self.open()
