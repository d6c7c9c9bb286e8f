"""Conversion of messages: what MQTT publishes as content of AMQP, and content as MQTT sends it.

    MQTT 5.0                    AMQP 0-9-1
    QoS 0 / 1, 2                delivery_mode 1 / 2; from AMQP: 2 is QoS 1, all else QoS 0
    Content Type                content_type, if it is ASCII of at most 255 bytes
    Correlation Data            correlation_id, if it is UTF-8 of at most 255 bytes;
                                else the header x-correlation-id
    Response Topic              header x-reply-to-topic, as a routing key
    User Property               header of that name, a long string; of equal names the first
    Message Expiry Interval     expiration, and the time of arrival as timestamp
    Payload Format, RETAIN      annotations alone

What goes from MQTT to MQTT comes out as it came in: where the content does not say all of it in
its order, the annotations have it (`annotations`).  Both directions are worked out once for each
distinct value, so that a run of messages costs one conversion.

Sources: MQTT 5.0, 3.3.2.3; RabbitMQ 4.0.5 (mc_mqtt), which the comparison suite asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from fluffle.broker.base.message import ANNOTATIONS_BYTES_MAX, MessageAnnotations, Origin
from fluffle.broker.core.interceptors import ADDED_HEADERS
from fluffle.broker.core.property_facts import EXPIRATION_MS_MAX
from fluffle.broker.protocols.mqtt.annotations import Annotations, pack, unpack
from fluffle.broker.protocols.mqtt.topics import PLAIN, TopicTranslator, is_plain, is_reserved
from fluffle.protocol import properties as amqp
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    PropertyValue,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.mqtt.topics import is_valid_topic
from fluffle.protocol.mqtt.wire import FORBIDDEN_CHARACTERS, STRING_BYTES_MAX
from fluffle.protocol.spec import SHORTSTR_BYTES_MAX
from fluffle.protocol.steps import Steps, whole
from fluffle.protocol.wire import Field, FieldTable, encode_table

REPLY_TOPIC = "x-reply-to-topic"
CORRELATION = "x-correlation-id"

ROUTING_HEADERS = frozenset(("CC", "BCC"))
"""Headers that route: a user property of such a name is no array, and is refused in AMQP."""

UNSHOWN_HEADERS = frozenset(("x-acquired-count", "x-delivery-count", amqp.RETAIN))
"""Headers that queues add and no publisher has set; and one for the broker."""
DEATH_HEADERS = re.compile(r"x-(first|last)-death-")
"""Headers that dead-lettering adds: only the broker sets them in a message that has died."""
BROKER_HEADERS = re.compile(rf"{DEATH_HEADERS.pattern}|({'|'.join(ADDED_HEADERS)})$")
"""Headers that only the broker sets in a message of MQTT: what its publisher has called so is in
its annotations."""
NO_HEADERS = re.compile("(?!)")

COMPARED_MAX = 64
"""User properties that are compared with what the content says of them; more are kept beside it."""

LONG_BYTES = 2048
"""Properties that are longer are converted in steps."""

REMEMBERED_MAX = 256
REMEMBERED_BYTES_MAX = 512
"""Properties whose conversion is remembered: how many, and how long each, as for sessions."""

SURROGATES = re.compile("[\\ud800-\\udfff]")
"""Octets of AMQP's texts that are not UTF-8."""

MILLISECONDS = re.compile(r"[0-9]+")
NO_EXPIRY_MS = -1
TIMESTAMP_BYTES = 8

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class PublishForm(NamedTuple):
    """Form of messages of MQTT, all but their payloads: how they go through the broker."""

    routing_key: str
    """Empty for a topic that is too long to be one: it reaches subscribers of MQTT alone."""
    reaches_amqp: bool
    properties: bytes
    """Raw properties of AMQP."""
    annotations: bytes


class ClientMessage(NamedTuple):
    """Message as MQTT knows it, before subscriptions and the version of a client have their say."""

    topic: str
    qos: int
    retain: bool
    """True if it was published with RETAIN."""
    client: bytes
    """Mark of the publisher (`annotations.client_mark`); empty if that is not known."""
    properties: bytes
    """Raw properties of a PUBLISH, without Message Expiry Interval."""
    expiry_ms: int
    """Time to live in ms at the time of publishing; `NO_EXPIRY_MS` if not given."""


class MqttProperties(NamedTuple):
    """Properties of AMQP, converted."""

    qos: int
    properties: bytes
    expiry_ms: int


class AmqpProperties(NamedTuple):
    """Properties of a PUBLISH, converted."""

    raw: bytes
    kept: bytes | None
    """Properties of MQTT to keep beside `raw`; None if `raw` says it all."""
    payload_format: int | None
    is_timed: bool
    """True if `raw` ends in a timestamp, which says nothing yet."""


class MessageConverter:
    """Conversion in both directions, with what it remembers."""

    __slots__ = ("_from_amqp", "_published", "_to_amqp", "_wall_ms", "topics")

    def __init__(self, topics: TopicTranslator, wall_ms: Callable[[], int]) -> None:
        """`wall_ms` is the time since 1970: messages that expire say when they came."""
        self.topics = topics
        self._wall_ms = wall_ms
        self._to_amqp: dict[tuple[bytes, int], AmqpProperties] = {}
        self._from_amqp: dict[tuple[bytes, str], MqttProperties] = {}
        self._published: dict[tuple[str, bytes, int, bool, bytes], PublishForm] = {}

    def convert_in_steps(self, properties: bytes, qos: int) -> Steps[AmqpProperties]:
        """Convert the raw properties of a PUBLISH, for `published`."""
        return to_amqp_in_steps(properties, qos, self.topics)

    def published(
        self,
        topic: str,
        properties: bytes,
        qos: int,
        *,
        retain: bool,
        client: bytes,
        converted: AmqpProperties | None = None,
    ) -> PublishForm:
        """Convert a PUBLISH, with its raw properties and the mark of its client; `converted`: the
        properties, if that is done."""
        kind = topic, properties, qos, retain, client
        found = self._published.get(kind)
        if found is not None:
            return found
        converted = converted or self._converted(properties, qos)
        key = self.topics.routing_key(topic)
        reaches_amqp = len(key.encode()) <= SHORTSTR_BYTES_MAX
        annotations = Annotations(
            qos,
            retain,
            client,
            None if reaches_amqp and is_plain(topic) else topic,
            converted.kept,
            converted.payload_format,
        )
        octets = pack(annotations)
        if len(octets) > ANNOTATIONS_BYTES_MAX:  # the content says what it can
            octets = pack(annotations._replace(properties=None))
        raw = converted.raw
        if converted.is_timed:
            raw = raw[:-TIMESTAMP_BYTES] + (self._wall_ms() // 1000).to_bytes(TIMESTAMP_BYTES)
        form = PublishForm(key if reaches_amqp else "", reaches_amqp, raw, octets)
        if not converted.is_timed:
            _remember(self._published, kind, form, len(topic) + len(properties) + len(octets))
        return form

    def delivered(
        self, origin: Origin, raw: bytes, *, with_properties: bool
    ) -> ClientMessage | None:
        """Convert a message with these raw properties of AMQP; None if its key is no topic.

        Without properties, for versions before 5, there is no expiry either.
        """
        found = unpack(origin.annotations)
        topic = self._topic(origin, found)
        if not topic or not is_text(topic):
            return None
        if not with_properties:
            qos = found.qos if found else qos_of(raw)
            return ClientMessage(topic, qos, *_publisher(found), b"", NO_EXPIRY_MS)
        if found is not None and found.properties is not None and not expires(raw):
            said = found.properties
            return ClientMessage(topic, found.qos, *_publisher(found), said, NO_EXPIRY_MS)
        converted = self._reconverted(raw, _hidden_headers(origin, found))
        if found is None:
            return ClientMessage(topic, converted.qos, *_publisher(None), *converted[1:])
        properties = converted.properties if found.properties is None else found.properties
        if found.payload_format is not None:
            properties = payload_format(found.payload_format) + properties
        return ClientMessage(topic, found.qos, *_publisher(found), properties, converted.expiry_ms)

    def retained_topic(self, routing_key: str) -> str | None:
        """Return the topic under which a message of AMQP may be retained; None if its routing key
        is none."""
        topic = self.topics.topic(routing_key)
        is_good = is_valid_topic(topic) and is_text(topic) and not is_reserved(topic)
        return topic if is_good else None

    def _topic(self, origin: Origin, found: Annotations | None) -> str:
        """Return the topic of a message: that under which it was published, unless a queue has
        given it another key when it died."""
        if found is None or origin.past is MessageAnnotations.REDIRECTED:
            return self.topics.topic(origin.routing_key)
        return PLAIN.topic(origin.routing_key) if found.topic is None else found.topic

    def _converted(self, properties: bytes, qos: int) -> AmqpProperties:
        key = properties, min(qos, 1)
        found = self._to_amqp.get(key)
        if found is None:
            found = to_amqp(properties, qos, self.topics)
            _remember(self._to_amqp, key, found, len(properties))
        return found

    def _reconverted(self, raw: bytes, hidden: re.Pattern[str]) -> MqttProperties:
        key = raw, hidden.pattern
        found = self._from_amqp.get(key)
        if found is None:
            found = from_amqp(raw, self.topics, hidden)
            _remember(self._from_amqp, key, found, len(raw))
        return found


def _remember(remembered: dict[K, T], key: K, value: T, size_bytes: int) -> None:
    if size_bytes <= REMEMBERED_BYTES_MAX:
        if len(remembered) >= REMEMBERED_MAX:
            remembered.clear()
        remembered[key] = value


def _hidden_headers(origin: Origin, found: Annotations | None) -> re.Pattern[str]:
    """Return the headers of a message that are no properties of its publisher."""
    if found is not None:
        return BROKER_HEADERS
    return NO_HEADERS if origin.past is MessageAnnotations.NONE else DEATH_HEADERS


def _publisher(found: Annotations | None) -> tuple[bool, bytes]:
    return (found.retain, found.client) if found else (False, b"")


# From MQTT


def to_amqp(properties: bytes, qos: int, topics: TopicTranslator) -> AmqpProperties:
    """Convert well-formed raw properties of a PUBLISH."""
    return whole(to_amqp_in_steps(properties, qos, topics))


def to_amqp_in_steps(properties: bytes, qos: int, topics: TopicTranslator) -> Steps[AmqpProperties]:
    """Convert as `to_amqp` does properties that may be long."""
    found = decode_properties(properties) if properties else Properties()
    yield
    values = {amqp.FLAG_DELIVERY_MODE: b"\2" if qos else b"\1"}
    content_type = found.text(PropertyId.CONTENT_TYPE)
    if content_type is not None and content_type.isascii():
        _add_text(values, amqp.FLAG_CONTENT_TYPE, content_type.encode())
    headers = _headers_of(found, topics)
    yield
    correlation = found.binary(PropertyId.CORRELATION_DATA)
    if correlation is not None and not (
        _is_utf8(correlation) and _add_text(values, amqp.FLAG_CORRELATION_ID, correlation)
    ):
        headers[CORRELATION] = ("S", correlation)
    if headers:
        ordered = {name: headers[name] for name in sorted(headers, key=str.encode)}
        values[amqp.FLAG_HEADERS] = encode_table(ordered)
        yield
    expiry_s = found.integer(PropertyId.MESSAGE_EXPIRY_INTERVAL, -1)
    if expiry_s >= 0:
        _add_text(values, amqp.FLAG_EXPIRATION, b"%d" % min(expiry_s * 1000, EXPIRATION_MS_MAX))
        values[amqp.FLAG_TIMESTAMP] = bytes(TIMESTAMP_BYTES)
    raw = amqp.join_properties(values)
    if len(found.user) > COMPARED_MAX and found.values.keys() <= PASSED_ON:
        return AmqpProperties(raw, properties, None, is_timed=False)
    return AmqpProperties(raw, *_beside(found, raw, topics), is_timed=expiry_s >= 0)


def _headers_of(found: Properties, topics: TopicTranslator) -> FieldTable:
    """Return what becomes a header whatever it is."""
    headers: FieldTable = {}
    response_topic = found.text(PropertyId.RESPONSE_TOPIC)
    if response_topic is not None:
        headers[REPLY_TOPIC] = ("S", topics.routing_key(response_topic).encode())
    for name, value in found.user:
        if name not in ROUTING_HEADERS and len(name.encode()) <= SHORTSTR_BYTES_MAX:
            headers.setdefault(name, ("S", value.encode()))
    return headers


def _beside(
    found: Properties, raw: bytes, topics: TopicTranslator
) -> tuple[bytes | None, int | None]:
    """Return what content with these raw properties does not say: all of the properties, or the
    Payload Format Indicator."""
    values = {each: value for each, value in found.values.items() if each in PASSED_ON}
    indicator = values.pop(PropertyId.PAYLOAD_FORMAT_INDICATOR, None)
    passed_on = Properties(values, found.user)
    is_short = len(found.user) <= COMPARED_MAX
    if is_short and said_by_amqp(amqp.decode_properties(raw), topics, BROKER_HEADERS) == passed_on:
        return None, int(indicator) if indicator is not None else None
    if indicator is not None:
        values[PropertyId.PAYLOAD_FORMAT_INDICATOR] = indicator
    return encode_properties(passed_on), None


PASSED_ON = frozenset(
    (
        PropertyId.PAYLOAD_FORMAT_INDICATOR,
        PropertyId.CONTENT_TYPE,
        PropertyId.RESPONSE_TOPIC,
        PropertyId.CORRELATION_DATA,
    )
)
"""Properties that subscribers get unaltered, as they do user properties.  (Message Expiry Interval
is counted down.)"""


def _add_text(values: dict[int, bytes], flag: int, octets: bytes) -> bool:
    """Add a short string, unless it is too long for one."""
    if len(octets) > SHORTSTR_BYTES_MAX:
        return False
    values[flag] = bytes((len(octets),)) + octets
    return True


# From AMQP


def from_amqp(raw: bytes, topics: TopicTranslator, hidden: re.Pattern[str]) -> MqttProperties:
    """Convert well-formed raw properties of AMQP, without the headers that are hidden."""
    properties = amqp.decode_properties(raw)
    qos = 1 if properties.delivery_mode == amqp.DELIVERY_MODE_PERSISTENT else 0
    expiration, expiry_ms = properties.expiration, NO_EXPIRY_MS
    if expiration is not None and MILLISECONDS.fullmatch(expiration):
        expiry_ms = int(expiration)
    said = said_by_amqp(properties, topics, hidden)
    return MqttProperties(qos, encode_properties(said), expiry_ms)


def qos_of(raw: bytes) -> int:
    """Return the QoS of a message of AMQP with these raw properties."""
    return 1 if amqp.is_persistent(raw) else 0


def said_by_amqp(
    properties: amqp.Properties, topics: TopicTranslator, hidden: re.Pattern[str]
) -> Properties:
    """Return properties of a PUBLISH for those of AMQP, all but its expiry."""
    values: dict[PropertyId, PropertyValue] = {}
    headers = dict(properties.headers or {})
    if properties.content_type is not None and is_text(properties.content_type):
        values[PropertyId.CONTENT_TYPE] = properties.content_type
    reply_topic = _long_string(headers, REPLY_TOPIC)
    if reply_topic is not None:
        topic = topics.topic(reply_topic.decode(errors="surrogateescape"))
        if len(reply_topic) <= STRING_BYTES_MAX and is_text(topic) and is_valid_topic(topic):
            values[PropertyId.RESPONSE_TOPIC] = topic
    if properties.correlation_id is not None:
        correlation = properties.correlation_id.encode(errors="surrogateescape")
        values[PropertyId.CORRELATION_DATA] = correlation
    else:
        octets = _long_string(headers, CORRELATION)
        if octets is not None and len(octets) <= STRING_BYTES_MAX:
            values[PropertyId.CORRELATION_DATA] = octets
    return Properties(values, [*_user_properties(headers, hidden)])


def _long_string(headers: FieldTable, name: str) -> bytes | None:
    """Take a long string out of headers."""
    tag, value = headers.get(name, ("V", None))
    if tag != "S" or not isinstance(value, bytes):
        return None
    del headers[name]
    return value


def _user_properties(headers: FieldTable, hidden: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield headers that are text, or a number or so that can be written as some."""
    for name, field in headers.items():
        if name in UNSHOWN_HEADERS or hidden.match(name):
            continue
        text = _as_text(field)
        if text is not None and is_text(text) and is_text(name):
            yield name, text


def _as_text(field: Field) -> str | None:
    tag, value = field
    match value:
        case bytes() if tag == "S" and len(value) <= STRING_BYTES_MAX:
            return value.decode(errors="surrogateescape")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case None:
            return ""
        case _:
            return None


def expires(raw: bytes) -> bool:
    """Return whether raw properties of AMQP name an expiration."""
    return bool(amqp.property_flags(raw) & amqp.FLAG_EXPIRATION)


def is_text(text: str) -> bool:
    """True if a string is one that every client takes: a client may end its connection for a
    control character (MQTT 5.0, 1.5.4)."""
    if text.isascii() and text.isprintable():
        return True
    return not (FORBIDDEN_CHARACTERS.search(text) or SURROGATES.search(text))


def _is_utf8(octets: bytes) -> bool:
    try:
        return "\0" not in octets.decode()
    except UnicodeDecodeError:
        return False


def payload_format(indicator: int) -> bytes:
    """Return a Payload Format Indicator as a raw property."""
    return bytes((PropertyId.PAYLOAD_FORMAT_INDICATOR, indicator))


def expiry_property(left_ms: int) -> bytes:
    """Return a Message Expiry Interval as a raw property: what is left, a second at least."""
    left_s = max(1, -(-left_ms // 1000))
    return bytes((PropertyId.MESSAGE_EXPIRY_INTERVAL,)) + left_s.to_bytes(4)


def with_identifiers(properties: bytes, identifiers: Sequence[int]) -> bytes:
    """Return raw properties with subscription identifiers."""
    if not identifiers:
        return properties
    return properties + encode_properties(Properties(subscription_ids=list(identifiers)))
