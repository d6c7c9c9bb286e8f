"""Messages of MQTT as content of AMQP, and content of AMQP as messages of MQTT."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.protocols.mqtt.annotations import client_mark, unpack
from fluffle.broker.protocols.mqtt.conversion import (
    NO_EXPIRY_MS,
    REMEMBERED_MAX,
    ClientMessage,
    MessageConverter,
    expiry_property,
)
from fluffle.broker.protocols.mqtt.topics import TopicTranslator
from fluffle.protocol import properties as amqp
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    PropertyValue,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.wire import FieldTable

NOW_MS = 1_700_000_000_999
CLIENT = client_mark("meter 7")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
LONG_TEXTS = TEXTS | st.just("x" * 300)
TOPICS = st.text("ab./*$_sBv10", min_size=1, max_size=20)
NAMES = LONG_TEXTS | st.sampled_from(
    ["x-reply-to-topic", "x-correlation-id", "CC", "BCC", "x-first-death-queue", "x-death"]
)


@st.composite
def mqtt_properties(draw: st.DrawFn) -> Properties:
    """Properties that a client may put into a PUBLISH."""
    values: dict[PropertyId, PropertyValue] = {}
    kinds: dict[PropertyId, st.SearchStrategy[PropertyValue]] = {
        PropertyId.PAYLOAD_FORMAT_INDICATOR: st.integers(0, 1),
        PropertyId.CONTENT_TYPE: LONG_TEXTS,
        PropertyId.RESPONSE_TOPIC: TOPICS,
        PropertyId.CORRELATION_DATA: st.binary(max_size=300),
    }
    for identifier, strategy in kinds.items():
        if draw(st.booleans()):
            values[identifier] = draw(strategy)
    return Properties(values, draw(st.lists(st.tuples(NAMES, LONG_TEXTS), max_size=3)))


def converter(*, sparkplug: bool = False) -> MessageConverter:
    return MessageConverter(TopicTranslator(sparkplug=sparkplug), lambda: NOW_MS)


def to_amqp(properties: Properties, qos: int = 1) -> amqp.Properties:
    form = converter().published(
        "a", encode_properties(properties), qos, retain=False, client=CLIENT
    )
    return amqp.decode_properties(form.properties)


def from_amqp(properties: amqp.Properties, routing_key: str = "a.b") -> ClientMessage:
    message = converter().delivered(
        Origin("amq.topic", routing_key),
        amqp.encode_properties(properties),
        with_properties=True,
    )
    assert message is not None
    return message


def test_qos_is_the_delivery_mode() -> None:
    assert [to_amqp(Properties(), qos).delivery_mode for qos in (0, 1, 2)] == [1, 2, 2]
    assert [from_amqp(amqp.Properties(delivery_mode=mode)).qos for mode in (None, 0, 1, 2, 3)] == [
        0,
        0,
        0,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ({}, {}),
        ({PropertyId.CONTENT_TYPE: "text/plain"}, {"content_type": "text/plain"}),
        ({PropertyId.CONTENT_TYPE: "x" * 255}, {"content_type": "x" * 255}),
        ({PropertyId.CONTENT_TYPE: "x" * 256}, {}),
        ({PropertyId.CONTENT_TYPE: "tëxt"}, {}),
        ({PropertyId.CORRELATION_DATA: b""}, {"correlation_id": ""}),
        ({PropertyId.CORRELATION_DATA: "ë".encode()}, {"correlation_id": "ë"}),
        ({PropertyId.CORRELATION_DATA: b"x" * 255}, {"correlation_id": "x" * 255}),
        ({PropertyId.CORRELATION_DATA: b"x" * 256}, {"headers": {"x-correlation-id": b"x" * 256}}),
        ({PropertyId.CORRELATION_DATA: b"\xff"}, {"headers": {"x-correlation-id": b"\xff"}}),
        ({PropertyId.CORRELATION_DATA: b"a\0"}, {"headers": {"x-correlation-id": b"a\0"}}),
        ({PropertyId.RESPONSE_TOPIC: "r/1.2"}, {"headers": {"x-reply-to-topic": b"r.1.2"}}),
        ({PropertyId.MESSAGE_EXPIRY_INTERVAL: 0}, {"expiration": "0", "timestamp": 1_700_000_000}),
        (
            {PropertyId.MESSAGE_EXPIRY_INTERVAL: 7},
            {"expiration": "7000", "timestamp": 1_700_000_000},
        ),
        (
            {PropertyId.MESSAGE_EXPIRY_INTERVAL: 0xFFFFFFFF},
            {"expiration": "315360000000", "timestamp": 1_700_000_000},
        ),
        ({PropertyId.PAYLOAD_FORMAT_INDICATOR: 1}, {}),
        ({PropertyId.TOPIC_ALIAS: 7}, {}),
    ],
)
def test_a_property_of_mqtt_is_one_of_amqp(
    said: dict[PropertyId, PropertyValue], becomes: Mapping[str, object]
) -> None:
    expected = amqp.Properties(delivery_mode=2)
    for name, value in becomes.items():
        if isinstance(value, dict):
            value = {header: ("S", octets) for header, octets in value.items()}
        setattr(expected, name, value)
    assert to_amqp(Properties(said)) == expected


def test_user_properties_are_headers_by_name() -> None:
    said = Properties({PropertyId.RESPONSE_TOPIC: "r"}, [
        ("z", "1"), ("ë", "2"), ("a", "3"), ("z", "4"), ("", "5"), ("n" * 256, "6"),
        ("CC", "7"), ("BCC", "8"), ("x-reply-to-topic", "9"),
    ])  # fmt: skip
    headers = to_amqp(said).headers
    assert headers is not None
    assert [*headers.items()] == [
        ("", ("S", b"5")),
        ("a", ("S", b"3")),
        ("x-reply-to-topic", ("S", b"r")),
        ("z", ("S", b"1")),
        ("ë", ("S", b"2")),
    ]


@pytest.mark.parametrize(
    ("properties", "becomes"),
    [
        (amqp.Properties(content_type="a/b"), {PropertyId.CONTENT_TYPE: "a/b"}),
        (amqp.Properties(content_type="\udcff"), {}),
        (amqp.Properties(content_type="a\nb"), {}),
        (amqp.Properties(correlation_id="c"), {PropertyId.CORRELATION_DATA: b"c"}),
        (amqp.Properties(correlation_id="\udcff"), {PropertyId.CORRELATION_DATA: b"\xff"}),
        (
            amqp.Properties(headers={"x-correlation-id": ("S", b"\xff")}),
            {PropertyId.CORRELATION_DATA: b"\xff"},
        ),
        (
            amqp.Properties(headers={"x-reply-to-topic": ("S", b"r.1")}),
            {PropertyId.RESPONSE_TOPIC: "r/1"},
        ),
        (amqp.Properties(headers={"x-reply-to-topic": ("S", b"r.*")}), {}),
        (amqp.Properties(headers={"x-correlation-id": ("S", b"x" * 65_536)}), {}),
        (amqp.Properties(reply_to="q", message_id="m", type="t", app_id="a", priority=3), {}),
    ],
)
def test_a_property_of_amqp_is_one_of_mqtt(
    properties: amqp.Properties, becomes: dict[PropertyId, PropertyValue]
) -> None:
    assert decode_properties(from_amqp(properties).properties) == Properties(becomes)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (("S", "ë".encode()), "ë"),
        (("S", b"\xff"), None),
        (("S", b"a\0b"), None),
        (("S", b"a\nb"), None),
        (("S", b"x" * 65_536), None),
        (("b", -1), "-1"),
        (("T", 1_600_000_000), "1600000000"),
        (("L", 2**63 - 1), "9223372036854775807"),
        (("d", 2.5), "2.5"),
        (("f", 2.5), "2.5"),
        (("t", True), "true"),
        (("t", False), "false"),
        (("V", None), ""),
        (("D", (2, 314)), None),
        (("x", b"a"), None),
        (("A", [("S", b"a")]), None),
        (("F", {"a": ("S", b"b")}), None),
    ],
)
def test_a_header_is_a_user_property_if_it_can_be_written(
    field: tuple[str, object], text: str | None
) -> None:
    headers: FieldTable = {"h": field, "i": ("S", b"i")}  # type: ignore[dict-item]
    found = decode_properties(from_amqp(amqp.Properties(headers=headers)).properties)
    assert found.user == [*([] if text is None else [("h", text)]), ("i", "i")]


def test_a_correlation_id_leaves_the_header_alone() -> None:
    said = amqp.Properties(correlation_id="c", headers={"x-correlation-id": ("S", b"d")})
    found = decode_properties(from_amqp(said).properties)
    assert found.values == {PropertyId.CORRELATION_DATA: b"c"}
    assert found.user == [("x-correlation-id", "d")]


@pytest.mark.parametrize(
    ("routing_key", "topic"), [("a.b", "a/b"), ("a/b", "a/b"), ("a.*", "a/+"), ("ä", "ä")]
)
def test_a_routing_key_is_the_topic(routing_key: str, topic: str) -> None:
    message = from_amqp(amqp.Properties(), routing_key)
    assert message == ClientMessage(topic, 0, False, b"", b"", NO_EXPIRY_MS)


@pytest.mark.parametrize("routing_key", ["", "\udcff", "a\0b", "a\nb"])
def test_a_key_that_is_no_topic_reaches_no_client(routing_key: str) -> None:
    origin = Origin("amq.topic", routing_key)
    assert converter().delivered(origin, b"\0\0", with_properties=False) is None


@pytest.mark.parametrize("expiration", ["1500", "0", "x"])
def test_an_expiration_is_the_expiry(expiration: str) -> None:
    expiry_ms = int(expiration) if expiration.isdigit() else NO_EXPIRY_MS
    assert from_amqp(amqp.Properties(expiration=expiration)).expiry_ms == expiry_ms


def test_what_is_left_of_a_life_is_a_second_at_least() -> None:
    assert [expiry_property(left_ms).hex() for left_ms in (-5, 0, 1, 1000, 1001)] == [
        "0200000001", "0200000001", "0200000001", "0200000001", "0200000002",
    ]  # fmt: skip


@given(mqtt_properties(), TOPICS, st.integers(0, 2), st.booleans(), st.booleans())
def test_what_mqtt_sends_to_mqtt_comes_out_as_it_came_in(
    properties: Properties, topic: str, qos: int, retain: bool, sparkplug: bool
) -> None:
    both = converter(sparkplug=sparkplug)
    form = both.published(topic, encode_properties(properties), qos, retain=retain, client=CLIENT)
    assert form.reaches_amqp
    origin = Origin("amq.topic", form.routing_key, annotations=form.annotations)
    expected = ClientMessage(
        topic, qos, retain, CLIENT, encode_properties(properties), NO_EXPIRY_MS
    )
    assert both.delivered(origin, form.properties, with_properties=True) == expected
    assert both.delivered(origin, form.properties, with_properties=False) == expected._replace(
        properties=b""
    )


def test_what_the_broker_adds_is_no_property_of_the_publisher() -> None:
    both = converter()
    form = both.published(
        "a", encode_properties(Properties({}, [("k", "v")])), 1, retain=False, client=CLIENT
    )
    assert unpack(form.annotations) == (1, False, CLIENT, None, None, None)
    died = replace(
        amqp.decode_properties(form.properties),
        headers={
            "k": ("S", b"v"),
            "x-death": ("A", []),
            "x-first-death-queue": ("S", b"q"),
            "x-last-death-reason": ("S", b"expired"),
            "x-delivery-count": ("l", 1),
            "x-acquired-count": ("l", 1),
        },
    )
    origin = Origin("dlx", "a", annotations=form.annotations)
    message = both.delivered(origin, amqp.encode_properties(died), with_properties=True)
    assert message is not None
    assert decode_properties(message.properties) == Properties({}, [("k", "v")])


def test_a_queue_that_gives_a_message_another_key_gives_it_another_topic() -> None:
    both = converter(sparkplug=True)
    said = Properties({}, [("b", "1"), ("a", "2"), ("b", "3")])
    form = both.published("a.b", encode_properties(said), 2, retain=True, client=CLIENT)
    for past, topic in (
        (MessageAnnotations.DIED, "a.b"),
        (MessageAnnotations.REDIRECTED, "spBv1.0/dead"),
    ):
        origin = Origin("dlx", "spBv1___0.dead", past, annotations=form.annotations)
        message = both.delivered(origin, form.properties, with_properties=True)
        assert message is not None
        assert (message.topic, message.qos) == (topic, 2)
        assert decode_properties(message.properties) == said


def test_headers_of_deaths_are_those_of_a_publisher_unless_the_message_has_died() -> None:
    raw = amqp.encode_properties(
        amqp.Properties(
            headers={
                "x-first-death-queue": ("S", b"q"),
                "x-delivery-count": ("l", 1),
                "k": ("S", b"v"),
            }
        )
    )
    for past, names in (
        (MessageAnnotations.NONE, ["x-first-death-queue", "k"]),
        (MessageAnnotations.DIED, ["k"]),
    ):
        message = converter().delivered(Origin("x", "a", past), raw, with_properties=True)
        assert message is not None
        assert [name for name, _ in decode_properties(message.properties).user] == names


def test_a_message_that_expires_says_so_beside_its_properties() -> None:
    both = converter()
    said = Properties({PropertyId.MESSAGE_EXPIRY_INTERVAL: 7, PropertyId.CONTENT_TYPE: "t"})
    form = both.published("a", encode_properties(said), 0, retain=False, client=CLIENT)
    origin = Origin("amq.topic", "a", annotations=form.annotations)
    message = both.delivered(origin, form.properties, with_properties=True)
    assert message is not None
    assert message.expiry_ms == 7000
    assert decode_properties(message.properties).values == {PropertyId.CONTENT_TYPE: "t"}


def test_a_topic_that_is_no_routing_key_stays_among_clients_of_mqtt() -> None:
    both = converter()
    for topic in ("x" * 256, "ä" * 128):
        form = both.published(topic, b"", 0, retain=False, client=CLIENT)
        assert (form.routing_key, form.reaches_amqp) == ("", False)
        origin = Origin("amq.topic", "", annotations=form.annotations)
        message = both.delivered(origin, form.properties, with_properties=False)
        assert message is not None
        assert message.topic == topic


def test_topics_of_one_client_have_one_annotation() -> None:
    both = converter()
    plain = [both.published(topic, b"", 1, retain=False, client=CLIENT) for topic in ("a/b", "c")]
    assert plain[0].annotations == plain[1].annotations
    assert len(plain[0].annotations) == 3 + len("meter 7")


def test_user_properties_without_number_are_kept_as_headers_alone() -> None:
    both = converter()
    many = Properties({}, [("k", "x" * 60_000), ("a", "y" * 10_000)])
    form = both.published("a.b", encode_properties(many), 0, retain=False, client=CLIENT)
    assert len(form.annotations) < 100
    origin = Origin("amq.topic", "a.b", annotations=form.annotations)
    message = both.delivered(origin, form.properties, with_properties=True)
    assert message is not None
    assert message.topic == "a.b"
    assert decode_properties(message.properties).user == sorted(many.user)


def test_equal_properties_are_converted_once() -> None:
    both = converter()
    raw = encode_properties(Properties({}, [("k", "v")]))
    forms = [both.published("a", raw, 0, retain=False, client=CLIENT) for _ in range(2)]
    assert forms[0].properties is forms[1].properties
    for number in range(REMEMBERED_MAX):
        other = encode_properties(Properties({}, [("k", str(number))]))
        both.published("a", other, 0, retain=False, client=CLIENT)
    again = both.published("a", raw, 0, retain=False, client=CLIENT)
    assert again.properties is not forms[0].properties
    assert again == forms[0]


@given(st.binary(max_size=8))
def test_annotations_of_another_version_are_those_of_no_mqtt_message(octets: bytes) -> None:
    origin = Origin("amq.topic", "a.b", annotations=b"\xff" + octets)
    message = converter().delivered(origin, b"\0\0", with_properties=True)
    assert message == ClientMessage("a/b", 0, False, b"", b"", NO_EXPIRY_MS)
