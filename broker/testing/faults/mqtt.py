"""Packets of MQTT clients: what has been sent, and what goes wrong with packets of one type.

    client --packets--> PacketFilter --> connection of the broker
           <-----------              <--

Each connection of an MQTT client has a `PacketFilter`, which puts what passes into the timeline of
its virtual host.  Faults are `PacketRule`s: each is for the next packets of a type, of one client
or of all of a virtual host.  What a broker does with a client may depend on its version: what only
5.0 permits is not done to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.protocols.mqtt.connection import Connection
from fluffle.broker.protocols.mqtt.server import MqttServer, deletion
from fluffle.broker.testing.faults.tapped_transport import (
    ClientAcceptor,
    FaultScope,
    TappedConnection,
)
from fluffle.broker.testing.recorder import short
from fluffle.broker.testing.timeline import Actor, SeenPacket, Timeline, note_packet
from fluffle.protocol.mqtt.codes import (
    BROKER_CODES,
    CLIENT_CODES,
    MQTT_5,
    InvalidPacket,
    PacketType,
    ReasonCode,
)
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Suback,
    Unsuback,
    decode_subscribe,
    decode_unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import PropertyId, decode_properties
from fluffle.protocol.mqtt.reader import Reader
from fluffle.protocol.mqtt.wire import VARINT_BYTES_MAX, encode_varint, read_varint

CLIENT, BROKER = "client", "broker"
"""Senders of packets."""

DUP_FLAG, QOS_FLAGS, RETAIN_FLAG = 0b1000, 0b0110, 0b0001
"""Flags of a PUBLISH in its first octet."""

CONFIRMS = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP)
"""Packets by which a broker confirms what a client has published."""

ACKS = (*CONFIRMS, PacketType.PUBREL)

REQUESTS = (PacketType.CONNECT, PacketType.PUBLISH, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE)
"""Packets that a broker may refuse by a reason code."""

REFUSALS = {
    PacketType.CONNECT: PacketType.CONNACK,
    PacketType.PUBLISH: PacketType.PUBACK,
    PacketType.SUBSCRIBE: PacketType.SUBACK,
    PacketType.UNSUBSCRIBE: PacketType.UNSUBACK,
}
"""Answers that say the code; PUBREC, for a PUBLISH of QoS 2, knows those of PUBACK."""

SENT_BY: Mapping[str, tuple[PacketType, ...]] = {
    CLIENT: (*REQUESTS, *CLIENT_CODES, PacketType.PINGREQ),
    BROKER: (*BROKER_CODES, PacketType.PUBLISH, PacketType.PINGRESP),
}
"""Types of packets by their sender."""

PAYLOAD_KEPT_BYTES_MAX = 1024
"""Part of a payload that a timeline keeps."""


class WirePacket(NamedTuple):
    """Packet with its bytes; bytes that are no packet have no kind."""

    data: bytes
    body_at: int = 0

    @property
    def kind(self) -> PacketType | None:
        return PacketType(self.data[0] >> 4) if self.body_at else None

    @property
    def qos(self) -> int:
        """QoS of a PUBLISH; 0 of all else."""
        is_publish = self.kind is PacketType.PUBLISH
        return (self.data[0] & QOS_FLAGS) >> 1 if is_publish else 0

    @property
    def topic_end(self) -> int:
        """Where the topic of a PUBLISH ends."""
        return self.body_at + 2 + self._u16(self.body_at)

    @property
    def topic(self) -> bytes:
        """Topic of a PUBLISH; empty where an alias stands for it."""
        return self.data[self.body_at + 2 : self.topic_end]

    def alias(self, version: int) -> int:
        """Topic alias of a PUBLISH, 0 without one.  InvalidPacket."""
        if version < MQTT_5 or self.kind is not PacketType.PUBLISH:
            return 0
        size, at = read_varint(self.data, self.topic_end + (2 if self.qos else 0))
        if not size:
            return 0
        return decode_properties(self.data[at : at + size]).integer(PropertyId.TOPIC_ALIAS, 0)

    def with_topic(self, topic: bytes) -> WirePacket:
        """Return a PUBLISH with a topic beside its alias."""
        body = len(topic).to_bytes(2, "big") + topic + self.data[self.body_at + 2 :]
        head = self.data[:1] + encode_varint(len(body))
        return WirePacket(head + body, len(head))

    @property
    def packet_id(self) -> int:
        """Packet identifier; 0 of a packet that has none."""
        if self.kind is PacketType.PUBLISH:
            return self._u16(self.topic_end) if self.qos else 0
        has_id = self.kind in ACKS or self.kind in NUMBERED
        return self._u16(self.body_at) if has_id else 0

    def _u16(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 2], "big")

    def again(self) -> bytes:
        """Return a PUBLISH as it is sent once more."""
        return bytes((self.data[0] | DUP_FLAG,)) + self.data[1:]

    # As `HeldConfirms` sees it: MQTT has no channels

    @property
    def channel(self) -> int:
        return 0

    @property
    def ends_channel(self) -> bool:
        return False

    @property
    def is_confirm(self) -> bool:
        return self.kind in CONFIRMS


NUMBERED = (
    *(PacketType.SUBSCRIBE, PacketType.SUBACK, PacketType.UNSUBSCRIBE, PacketType.UNSUBACK),
)


class PacketSplitter:
    """Splitter of the bytes of one direction into packets.

    Bytes that are no packet are passed on as they are from there on.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing_bytes = 0
        self._is_lost = False

    def feed(self, data: bytes) -> Iterator[WirePacket]:
        """Yield packets that are whole by now."""
        self._pieces.append(data)
        if len(data) < self._missing_bytes:
            self._missing_bytes -= len(data)
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        at = 0
        while not self._is_lost and at < len(data):
            found = self._next(data, at)
            if found is None:
                break
            yield found
            at += len(found.data)
        if self._is_lost:
            yield WirePacket(data[at:])
        else:
            self._pieces = [data[at:]]

    def _next(self, data: bytes, at: int) -> WirePacket | None:
        """The packet that begins there; None if it is not whole, or none."""
        self._missing_bytes = 0
        head = data[at : at + 1 + VARINT_BYTES_MAX]
        if not any(octet < 0x80 for octet in head[1:]) and len(head) <= VARINT_BYTES_MAX:
            return None
        try:
            size, body_at = read_varint(head, 1)
        except InvalidPacket:
            self._is_lost = True
            return None
        if not head[0] >> 4:
            self._is_lost = True
            return None
        self._missing_bytes = max(at + body_at + size - len(data), 0)
        if self._missing_bytes:
            return None
        return WirePacket(data[at : at + body_at + size], body_at)


def packets_of(data: bytes) -> Iterator[WirePacket]:
    """Yield packets of bytes that are whole packets."""
    return PacketSplitter().feed(data)


class AliasedTopics:
    """Topics of the PUBLISH packets of one direction by their aliases."""

    def __init__(self) -> None:
        self._topics: dict[int, bytes] = {}
        self._unknown: set[int] = set()
        """Aliases that the receiver does not know, since the packet that says them did not pass."""

    def whole(self, packet: WirePacket, version: int) -> WirePacket:
        """Return a packet with its topic, if an alias stands for that."""
        topic = self._topics.get(alias_of(packet, version))
        return packet if topic is None or packet.topic else packet.with_topic(topic)

    def passed(self, packet: WirePacket, version: int) -> WirePacket:
        """Note a packet that passes; return it with its topic if the receiver does not know that by
        the alias."""
        alias = alias_of(packet, version)
        if not alias:
            return packet
        if packet.topic:
            self._topics[alias] = packet.topic
        elif alias in self._unknown:
            packet = self.whole(packet, version)
        self._unknown.discard(alias)
        return packet

    def refused(self, packet: WirePacket, version: int) -> None:
        """Note a packet that does not pass."""
        alias = alias_of(packet, version)
        if alias and packet.topic:
            self._topics[alias] = packet.topic
            self._unknown.add(alias)


def alias_of(packet: WirePacket, version: int) -> int:
    """Return the topic alias of a packet; 0 without one, or of one that is malformed."""
    try:
        return packet.alias(version)
    except (InvalidPacket, IndexError):
        return 0


Action = Callable[["PacketFilter", WirePacket], bytes]
"""Does something when a packet passes; what is passed on in its place."""


class PacketRule:
    """Rule for packets of a type, until it was for so many, or it is ended."""

    def __init__(
        self,
        scope: FaultScope,
        packet: tuple[str, PacketType],
        client: str | None,
        act: Action,
        *,
        note: str = "",
        count: int | None = None,
        needs_answer: bool = False,
    ) -> None:
        """`packet`: its sender and type; `client`: the identifier of the one that is meant; `note`:
        what a timeline says of it, with "{}" for the packet; `count`: None for all packets;
        `needs_answer`: pass over a PUBLISH of QoS 0, which has none."""
        self._scope = scope
        self._packet = packet
        self._note = note
        self._client = client
        self._act = act
        self._left = count
        self._needs_answer = needs_answer

    def is_for(self, packet_filter: PacketFilter, sender: str, packet: WirePacket) -> bool:
        """True if the rule is for a packet."""
        is_meant = (sender, packet.kind) == self._packet
        if self._needs_answer and packet.kind is PacketType.PUBLISH and not packet.qos:
            return False
        is_client = self._client in (None, packet_filter.client_id)
        return is_meant and is_client and self._scope.has(packet_filter.tap)

    def what(self, packet: WirePacket) -> str:
        """Say what becomes of a packet."""
        sender, _kind = self._packet
        return self._note.format(f"{shown(packet)} of the {sender}")

    def act(self, packet_filter: PacketFilter, packet: WirePacket) -> bytes:
        """Act, and end if this was the last."""
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self._scope.end(self)
        return self._act(packet_filter, packet)


def shown(packet: WirePacket) -> str:
    """Return type and identifier of a packet, as PUBACK 7."""
    name = "" if packet.kind is None else packet.kind.name
    return f"{name} {packet.packet_id}" if packet.packet_id else name


class PacketFilter:
    """Filter of the packets of one connection: a `ByteFilter`."""

    def __init__(
        self, tap: TappedConnection, acceptor: ClientAcceptor, rules: list[PacketRule]
    ) -> None:
        self.tap = tap
        self.connection = cast(Connection, tap.connection)
        self.version = 0
        """That of CONNECT."""
        self.client_id = ""
        self.repeated: set[int] = set()
        """Identifiers of messages whose acknowledgement is not to come in."""
        self._acceptor = acceptor
        self._rules = rules
        self._from_client, self._to_client = PacketSplitter(), PacketSplitter()
        self._client_topics, self._broker_topics = AliasedTopics(), AliasedTopics()
        self._is_cut = False

    def from_client(self, data: bytes) -> Iterator[bytes]:
        """Yield packets that pass, those together that come together."""
        together = b""
        for packet in self._from_client.feed(data):
            if packet.kind is PacketType.CONNECT:
                self._introduce(packet)
            if packet.kind in CONFIRMS and packet.packet_id in self.repeated:
                yield together
                what = f"cut before {shown(packet)} of the client"
                self.note(f"{what}, for the message to come again")
                self.cut()
            if self._is_cut:
                return
            rules = self._rules_for(CLIENT, packet)
            if rules:
                yield together  # what came before is acted on
                together = b""
            self._see(CLIENT, self._client_topics.whole(packet, self.version))
            passed = self._passed(rules, packet)
            if passed == packet.data:
                passed = self._client_topics.passed(packet, self.version).data
            else:
                self._client_topics.refused(packet, self.version)
            together += passed
        if not self._is_cut:
            yield together

    def to_client(self, data: bytes) -> bytes:
        out = b""
        for packet in self._to_client.feed(data):
            rules = self._rules_for(BROKER, packet)
            passed = self._passed(rules, packet)
            if self._is_cut:
                break
            for each in packets_of(passed):
                self._broker_topics.passed(each, self.version)
                self._see(BROKER, self._broker_topics.whole(each, self.version))
            out += passed
        return out

    def _rules_for(self, sender: str, packet: WirePacket) -> list[PacketRule]:
        return [rule for rule in self._rules if rule.is_for(self, sender, packet)]

    def _passed(self, rules: list[PacketRule], packet: WirePacket) -> bytes:
        for rule in rules:
            try:
                passed = rule.act(self, packet)
            except InvalidPacket:
                return packet.data  # the broker says what is wrong with it
            if passed != packet.data:
                self.note(rule.what(packet))
                return passed
        return packet.data

    def note(self, what: str) -> None:
        """Put a fault into the timeline of its virtual host, if that is there."""
        timeline = self._timeline
        if timeline is not None:
            timeline.note(Actor(short(self.connection.name)), what)

    def cut(self) -> None:
        """Cut the connection behind what has passed."""
        if not self._is_cut:
            self._is_cut = True
            asyncio.get_running_loop().call_soon(self.tap.close)

    def answer(self, packet: Ack | Suback | Unsuback) -> None:
        """Answer a packet in the place of the broker."""
        data = encode(packet, self.version)
        for each in packets_of(data):
            self._see(BROKER, each)
        self.tap.pass_on(data, behind=self)

    def _introduce(self, packet: WirePacket) -> None:
        """Find out which client comes, and to which virtual host."""
        config = self.connection.server.config
        for event in Reader(len(packet.data)).feed(packet.data):
            if isinstance(event, Connect):
                vhost, colon, _user = (event.user or "").rpartition(":")
                named = colon and not config.ignore_colons_in_user
                self.tap.vhost_name = vhost if named else config.vhost
                self.version, self.client_id = event.version, event.client_id

    def _see(self, sender: str, packet: WirePacket) -> None:
        """Put a packet into the timeline of its virtual host, if that is there."""
        if packet.kind is PacketType.CONNACK and not self.client_id:
            self.client_id = self.connection.handshake.client_id  # the broker has named it
        timeline = self._timeline
        seen = None if timeline is None else self._seen(timeline, sender, packet)
        if timeline is not None and seen is not None:
            note_packet(timeline, seen)

    @property
    def _timeline(self) -> Timeline | None:
        """Timeline of its virtual host, if that is there."""
        name = self.tap.vhost_name
        if name is None or name not in self.connection.services.vhosts:
            return None
        return self._acceptor.timeline_of(name)

    def _seen(self, timeline: Timeline, sender: str, packet: WirePacket) -> SeenPacket | None:
        """A packet as tests see it; None of one that is malformed."""
        if packet.kind is None:
            return None
        of_kind = FIELDS.get(packet.kind, no_fields)
        try:
            fields = of_kind(packet, self.version)
        except (InvalidPacket, IndexError, UnicodeDecodeError):
            return None
        return SeenPacket(
            timeline.at_ms,
            sender,
            self.client_id,
            packet.kind.name,
            packet_id=packet.packet_id,
            **fields,
        )


def tap_packets(tap: TappedConnection, acceptor: ClientAcceptor) -> None:
    """Filter the packets of a connection, if it is one of MQTT."""
    tap.filters.append(PacketFilter(tap, acceptor, acceptor.packet_rules))
    tap.units_of = packets_of


# Fields of packets


def publish_fields(packet: WirePacket, version: int) -> dict[str, Any]:
    first, at = packet.data[0], packet.topic_end + (2 if packet.qos else 0)
    if version >= MQTT_5:
        size, at = read_varint(packet.data, at)
        at += size
    return {
        "topic": packet.topic.decode(),
        "payload": packet.data[at : at + PAYLOAD_KEPT_BYTES_MAX],
        "qos": packet.qos,
        "dup": bool(first & DUP_FLAG),
        "retain": bool(first & RETAIN_FLAG),
    }


def subscribe_fields(packet: WirePacket, version: int) -> dict[str, Any]:
    body = packet.data[packet.body_at :]
    if packet.kind is PacketType.SUBSCRIBE:
        filters = decode_subscribe(body, PacketType.SUBSCRIBE, version).filters
        return {"filters": tuple(topic_filter for topic_filter, _options in filters)}
    return {"filters": tuple(decode_unsubscribe(body, PacketType.UNSUBSCRIBE, version).filters)}


def connack_fields(packet: WirePacket, _version: int) -> dict[str, Any]:
    flags, code = packet.data[packet.body_at : packet.body_at + 2]
    return {"session_present": bool(flags & 1), "code": code}


def coded_fields(packet: WirePacket, _version: int) -> dict[str, Any]:
    """Fields of packets whose code may be left out: it is 0 then."""
    at = packet.body_at + (0 if packet.kind is PacketType.DISCONNECT else 2)
    return {"code": packet.data[at] if at < len(packet.data) else 0}


def suback_fields(packet: WirePacket, version: int) -> dict[str, Any]:
    at = packet.body_at + 2
    if version >= MQTT_5:
        size, at = read_varint(packet.data, at)
        at += size
    return {"code": max(packet.data[at:], default=0)}


def no_fields(_packet: WirePacket, _version: int) -> dict[str, Any]:
    return {}


FIELDS: Mapping[PacketType, Callable[[WirePacket, int], dict[str, Any]]] = {
    PacketType.PUBLISH: publish_fields,
    PacketType.SUBSCRIBE: subscribe_fields,
    PacketType.UNSUBSCRIBE: subscribe_fields,
    PacketType.CONNACK: connack_fields,
    PacketType.SUBACK: suback_fields,
    PacketType.UNSUBACK: suback_fields,
    PacketType.DISCONNECT: coded_fields,
    **dict.fromkeys(ACKS, coded_fields),
}


# Faults


def cut_before(
    scope: FaultScope,
    *,
    packet: str,
    sent_by: str = BROKER,
    client: str | None = None,
    count: int = 1,
) -> None:
    """Cut the connection of an MQTT client where the broker would send the next such packet, as
    PUBACK: what led to it is done, and the client does not hear of it.

    `sent_by` `client`: where the client sends it, and the broker does not hear of it.  `client`:
    the identifier of the one that is meant; without, the first that comes to it.
    """
    kind = packet_type(packet, sent_by)

    def act(packet_filter: PacketFilter, _packet: WirePacket) -> bytes:
        packet_filter.cut()
        return b""

    what = f"connections are cut before {kind.name} of the {sent_by}"
    note = "cut before {}"
    begin_rule(scope, (sent_by, kind), act, what, note=note, client=client, count=count)


def duplicate_next(scope: FaultScope, *, client: str | None = None, count: int = 1) -> None:
    """Send MQTT clients the next so many messages of QoS 1 and 2 twice, the second time with DUP.

    The second one comes at once before 5.0.  With 5.0, which permits it only when a client has
    come back, the connection is cut before the acknowledgement comes in: a client whose session
    lasts gets it then.
    """

    def act(packet_filter: PacketFilter, packet: WirePacket) -> bytes:
        if packet_filter.version < MQTT_5:
            return packet.data + packet.again()
        packet_filter.repeated.add(packet.packet_id)
        return packet.data

    what = "messages are sent twice"
    publish = BROKER, PacketType.PUBLISH
    note = "{} is sent twice"
    begin_rule(scope, publish, act, what, note=note, client=client, count=count, needs_answer=True)


def refuse_next(
    scope: FaultScope, *, packet: str, code: int, client: str | None = None, count: int = 1
) -> None:
    """Refuse the next so many CONNECT, PUBLISH, SUBSCRIBE or UNSUBSCRIBE packets by a reason code
    of MQTT 5.0, as 0x97; nothing else comes of them.

    Clients before 5.0 get what their version has for it: a return code of CONNACK, 0x80 in SUBACK,
    and no answer at all to a PUBLISH.  A PUBLISH of QoS 0 is not refused.
    """
    kind = packet_type(packet, CLIENT)
    if kind not in REFUSALS:
        raise SyntaxFailure(f"'packet' is one of: {', '.join(each.name for each in REQUESTS)}")
    codes = sorted(each for each in BROKER_CODES[REFUSALS[kind]] if each.is_error)
    if code not in codes:
        there = ", ".join(f"{each:#x} ({each.name})" for each in codes)
        raise SyntaxFailure(f"{kind.name} is refused by one of {there}")
    refuse = partial(refuse_packet, ReasonCode(code))
    what = f"{kind.name} is refused by {code:#x}"
    note = f"{{}} is refused by {code:#x}"
    begin_rule(
        *(scope, (CLIENT, kind), refuse, what),
        note=note, client=client, count=count, needs_answer=True,
    )  # fmt: skip


def refuse_packet(code: ReasonCode, packet_filter: PacketFilter, packet: WirePacket) -> bytes:
    """Answer a request in the place of the broker; nothing of it passes."""
    body, version = packet.data[packet.body_at :], packet_filter.version
    if packet.kind is PacketType.CONNECT:
        connection = packet_filter.connection
        connection.close_reason = "refused by a test"
        connection.terms.version = version
        connection.send(Connack(code))
        connection.finish()
    elif packet.kind is PacketType.SUBSCRIBE:
        wanted = decode_subscribe(body, packet.kind, version)
        packet_filter.answer(Suback(wanted.packet_id, [code] * len(wanted.filters)))
    elif packet.kind is PacketType.UNSUBSCRIBE:
        unwanted = decode_unsubscribe(body, packet.kind, version)
        packet_filter.answer(Unsuback(unwanted.packet_id, [code] * len(unwanted.filters)))
    elif version >= MQTT_5:
        kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
        packet_filter.answer(Ack(kind, packet.packet_id, code))
    return b""


LIMITED = "limits of MQTT"

U16_MAX, U32_MAX = 0xFFFF, 0xFFFF_FFFF

LIMITS: Mapping[str, tuple[str, range]] = {
    "receive_maximum": ("receive_max", range(1, U16_MAX + 1)),
    "maximum_packet_size": ("packet_bytes_max", range(1, U32_MAX + 1)),
    "topic_alias_maximum": ("topic_alias_max", range(U16_MAX + 1)),
    "session_expiry": ("session_expiry_s_max", range(U32_MAX + 1)),
    "keep_alive": ("keep_alive_s_max", range(1, U16_MAX + 1)),
}
"""Settings of `MqttConfig` by the names of limits, with what CONNACK can say."""


class LimitedServer:
    """`MqttServer` in the eyes of a client with other limits."""

    def __init__(self, server: MqttServer, changes: Mapping[str, int]) -> None:
        limited = replace(server.config, **cast(Any, changes))
        vars(self).update(_server=server, config=limited)

    def __getattr__(self, name: str) -> object:
        return getattr(self._server, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._server, name, value)


def limit(
    scope: FaultScope,
    *,
    receive_maximum: int | None = None,
    maximum_packet_size: int | None = None,
    topic_alias_maximum: int | None = None,
    session_expiry: int | None = None,
    keep_alive: int | None = None,
) -> None:
    """Have other limits for MQTT clients that connect from now on: CONNACK says them, and who
    exceeds one is disconnected.  `session_expiry` and `keep_alive` are the longest, in seconds."""
    asked = {
        "receive_maximum": receive_maximum,
        "maximum_packet_size": maximum_packet_size,
        "topic_alias_maximum": topic_alias_maximum,
        "session_expiry": session_expiry,
        "keep_alive": keep_alive,
    }
    changes = dict[str, int]()
    for name, value in asked.items():
        setting, allowed = LIMITS[name]
        if value is None:
            continue
        if value not in allowed:
            raise SyntaxFailure(f"'{name}' is from {allowed[0]} to {allowed[-1]}, not {value}")
        changes[setting] = value
    if not changes:
        raise SyntaxFailure(f"say one of: {', '.join(LIMITS)}")

    def act(packet_filter: PacketFilter, packet: WirePacket) -> bytes:
        connection = packet_filter.connection
        connection.server = cast(MqttServer, LimitedServer(connection.server, changes))
        return packet.data

    scope.end(LIMITED)
    limits = ", ".join(f"{name}={value}" for name, value in changes.items())
    packet = CLIENT, PacketType.CONNECT
    begin_rule(scope, packet, act, f"MQTT has other limits: {limits}", key=LIMITED)


def begin_rule(
    scope: FaultScope,
    packet: tuple[str, PacketType],
    act: Action,
    what: str,
    *,
    note: str = "",
    client: str | None = None,
    count: int | None = None,
    needs_answer: bool = False,
    key: object = None,
) -> None:
    """Have a rule from now on; `key` if there is to be one of the kind."""
    if count is not None and count < 1:
        raise SyntaxFailure("'count' is at least 1")
    rules = scope.acceptor.packet_rules
    rule = PacketRule(scope, packet, client, act, note=note, count=count, needs_answer=needs_answer)
    rules.append(rule)
    of_client = "" if client is None else f", for client '{client}'"
    times = "" if count is None else f", {count} times"
    scope.begin(key or rule, f"{what}{of_client}{times}", partial(rules.remove, rule))


def packet_type(name: str, sent_by: str) -> PacketType:
    """Return a type of packets by its name.  SyntaxFailure."""
    if sent_by not in SENT_BY:
        raise SyntaxFailure("'sent_by' must be broker or client")
    there = {kind.name: kind for kind in SENT_BY[sent_by]}
    if name not in there:
        raise SyntaxFailure(f"a {sent_by} sends no {name}, but: {', '.join(there)}")
    return there[name]


def lose_sessions(scope: FaultScope, *, client: str | None = None) -> Row:
    """Forget MQTT sessions that last, as a broker does that had them in memory and is started
    again; how many.  Clients are cut off, and find no session when they come back.

    `client`: the identifier of the one that is meant; without, all of the virtual host.
    """
    parts = scope.parts
    vhosts = [scope.vhost()] if scope.vhost_name is not None else [*parts.catalogue.vhosts.values()]
    for tap in scope.taps():
        is_meant = client in (None, tap.connection.handshake.client_id)
        if isinstance(tap.connection, Connection) and is_meant:
            tap.connection.drop("its session is lost")
    lost = [
        (vhost, client_id)
        for vhost in vhosts
        for client_id in tuple(vhost.client_sessions.by_client)
        if client in (None, client_id)
    ]
    for vhost, client_id in lost:
        exchange = parts.config.mqtt.exchange
        parts.metadata.ensure(partial(deletion, vhost, client_id, exchange))
    return {"sessions": len(lost)}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "packets.cut_before": cut_before,
    "packets.duplicate_next": duplicate_next,
    "packets.refuse_next": refuse_next,
    "sessions.lose": lose_sessions,
    "limits.set": limit,
}
