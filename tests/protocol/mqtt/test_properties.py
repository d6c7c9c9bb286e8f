"""Properties: what the table says, what others read of our bytes, and we of theirs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import properties as paho_properties
from paho.mqtt.packettypes import PacketTypes

from fluffle.protocol.mqtt.codes import InvalidPacket, PacketType, ReasonCode
from fluffle.protocol.mqtt.properties import (
    ALL,
    ENCODERS,
    RULES,
    WILL,
    DataType,
    Properties,
    PropertyId,
    decode_properties,
    encode_properties,
    encode_string_pair,
    encode_u8,
    with_length,
)
from fluffle.protocol.mqtt.wire import encode_varint, read_varint
from tests.protocol.mqtt.packet_samples import properties_for

P, T, C = PropertyId, PacketType, ReasonCode
PahoProperties: Any = paho_properties.Properties  # which has no annotations
PLACES = sorted(set(ALL))
PAHO_WILL = PacketTypes.WILLMESSAGE


def paho_place(where: int) -> int:
    return PAHO_WILL if where == WILL else where


def test_the_table_is_that_of_another_library() -> None:
    known = PahoProperties(PacketTypes.PUBLISH)
    names = {number: name for name, number in known.names.items()}
    assert {each.value: each.name for each in P} == {
        number: name.upper().replace(" ", "_") for number, name in names.items()
    }
    for number, (kind, places) in known.properties.items():
        rule = RULES[number]
        assert rule.type.value == known.types[kind].lower().replace("utf-8", "UTF-8"), rule
        assert {paho_place(where) for where in rule.places} == set(places), rule
    assert RULES.keys() == set(P)


def paho_of(properties: Properties, where: int) -> Any:
    theirs = PahoProperties(paho_place(where))
    for property_id, value in properties.values.items():
        setattr(theirs, theirs.getNameFromIdent(property_id), value)
    for pair in properties.user:
        theirs.UserProperty = pair
    for number in properties.subscription_ids:
        theirs.SubscriptionIdentifier = number
    return theirs


def value_of(theirs: Any, property_id: int) -> Any:
    return getattr(theirs, theirs.getNameFromIdent(property_id).replace(" ", ""))


@pytest.mark.parametrize("where", PLACES)
@given(data=st.data())
def test_another_library_reads_what_is_written_here(where: int, data: st.DataObject) -> None:
    properties = data.draw(properties_for(where))
    if any("\ufeff" in text for text in texts_of(properties)):
        return  # which the other refuses, against §1.5.4
    theirs = PahoProperties(paho_place(where))
    theirs.unpack(with_length(encode_properties(properties)))
    for property_id, value in properties.values.items():
        assert value_of(theirs, property_id) == value
    assert getattr(theirs, "UserProperty", []) == properties.user
    assert getattr(theirs, "SubscriptionIdentifier", []) == properties.subscription_ids


def texts_of(properties: Properties) -> list[str]:
    texts = [value for value in properties.values.values() if isinstance(value, str)]
    return texts + [text for pair in properties.user for text in pair]


@pytest.mark.parametrize("where", PLACES)
@given(data=st.data())
def test_what_another_library_writes_is_read_here(where: int, data: st.DataObject) -> None:
    properties = data.draw(properties_for(where))
    packed = paho_of(properties, where).pack()
    size, start = read_varint(packed, 0)
    assert start + size == len(packed)
    assert decode_properties(packed[start:], where) == properties


SINGLE_VALUES = {
    DataType.U8: b"\x01", DataType.U16: b"\x00\x01", DataType.U32: b"\x00\x00\x00\x01",
    DataType.VARINT: b"\x01", DataType.STRING: b"\x00\x01a", DataType.BINARY: b"\x00\x01\xff",
    DataType.STRING_PAIR: b"\x00\x01a\x00\x01b",
}  # fmt: skip


def one_of(property_id: int) -> bytes:
    return encode_u8(property_id) + SINGLE_VALUES[RULES[property_id].type]


METHOD = one_of(P.AUTHENTICATION_METHOD)


@pytest.mark.parametrize("property_id", list(P))
@pytest.mark.parametrize("where", PLACES)
def test_each_property_where_it_may_stand_and_where_not(
    where: int, property_id: PropertyId
) -> None:
    raw = one_of(property_id)
    if property_id is P.AUTHENTICATION_DATA and where in RULES[property_id].places:
        raw += METHOD
    if where not in RULES[property_id].places:
        assert refusal(raw, where) is C.PROTOCOL_ERROR
        return
    assert encode_properties(decode_properties(raw, where))
    if where in RULES[property_id].many:
        assert decode_properties(one_of(property_id) + raw, where)
    else:
        assert refusal(one_of(property_id) + raw, where) is C.PROTOCOL_ERROR


def refusal(raw: bytes, where: int) -> ReasonCode:
    with pytest.raises(InvalidPacket) as found:
        decode_properties(raw, where)
    return found.value.code


@pytest.mark.parametrize("property_id", list(P))
def test_each_property_cut_short(property_id: PropertyId) -> None:
    where = min(RULES[property_id].places)
    raw = one_of(property_id)
    for stop in range(1, len(raw)):
        assert refusal(raw[:stop], where) is C.MALFORMED_PACKET


@pytest.mark.parametrize("number", sorted(set(range(256)) - set(P)))
def test_there_are_no_other_properties(number: int) -> None:
    assert refusal(bytes((number, 1, 1, 1, 1)), T.PUBLISH) is C.MALFORMED_PACKET


ZERO = [P.SUBSCRIPTION_IDENTIFIER, P.RECEIVE_MAXIMUM, P.MAXIMUM_PACKET_SIZE]
FLAGS = [
    P.PAYLOAD_FORMAT_INDICATOR, P.REQUEST_PROBLEM_INFORMATION, P.REQUEST_RESPONSE_INFORMATION,
    P.MAXIMUM_QOS, P.RETAIN_AVAILABLE, P.WILDCARD_SUBSCRIPTION_AVAILABLE,
    P.SUBSCRIPTION_IDENTIFIER_AVAILABLE, P.SHARED_SUBSCRIPTION_AVAILABLE,
]  # fmt: skip


@pytest.mark.parametrize("property_id", ZERO)
def test_what_may_not_be_zero(property_id: PropertyId) -> None:
    raw = encode_u8(property_id) + ENCODERS[RULES[property_id].type](0)
    assert refusal(raw, min(RULES[property_id].places)) is C.PROTOCOL_ERROR


@pytest.mark.parametrize("property_id", FLAGS)
def test_what_is_0_or_1(property_id: PropertyId) -> None:
    where = min(RULES[property_id].places)
    for value in (0, 1):
        raw = encode_u8(property_id) + encode_u8(value)
        assert decode_properties(raw, where).integer(property_id, 9) == value
    assert refusal(encode_u8(property_id) + b"\x02", where) is C.PROTOCOL_ERROR


def test_a_topic_alias_of_0_has_a_code_of_its_own() -> None:
    assert refusal(b"\x23\x00\x00", T.PUBLISH) is C.TOPIC_ALIAS_INVALID


@pytest.mark.parametrize("topic", [b"", b"#", b"a/+", b"+"])
@pytest.mark.parametrize("where", [T.PUBLISH, WILL])
def test_a_response_topic_is_a_topic_name(topic: bytes, where: int) -> None:
    raw = b"\x08" + len(topic).to_bytes(2, "big") + topic
    assert refusal(raw, where) is C.PROTOCOL_ERROR


def test_authentication_data_needs_a_method() -> None:
    data = one_of(P.AUTHENTICATION_DATA)
    for where in (T.CONNECT, T.CONNACK, T.AUTH):
        assert refusal(data, where) is C.PROTOCOL_ERROR
        assert decode_properties(data + METHOD, where).binary(P.AUTHENTICATION_DATA) == b"\xff"


def test_values() -> None:
    properties = decode_properties(
        one_of(P.CONTENT_TYPE) + one_of(P.CORRELATION_DATA) + one_of(P.USER_PROPERTY), T.PUBLISH
    )
    assert properties.text(P.CONTENT_TYPE) == "a"
    assert properties.text(P.RESPONSE_TOPIC) is None
    assert properties.binary(P.CORRELATION_DATA) == b"\xff"
    assert properties.integer(P.MESSAGE_EXPIRY_INTERVAL, -1) == -1
    assert properties.user == [("a", "b")]
    assert not Properties()
    assert encode_properties(Properties()) == b""


def test_order_of_user_properties_and_identifiers() -> None:
    pairs = [("b", "1"), ("a", "2"), ("b", "0"), ("b", "1")]
    raw = b"".join(b"\x26" + encode_string_pair(pair) for pair in pairs)
    raw += b"".join(b"\x0b" + encode_varint(number) for number in (300, 1, 300))
    found = decode_properties(raw, T.PUBLISH)
    assert (found.user, found.subscription_ids) == (pairs, [300, 1, 300])
    assert decode_properties(encode_properties(found), T.PUBLISH) == found
