"""Properties that publishing checks, with RabbitMQ's error texts."""

import pytest

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.core.property_facts import (
    EXPIRATION_MS_MAX,
    PropertyFacts,
    read_facts,
    with_reply_to,
)
from fluffle.protocol.properties import Properties, decode_properties, encode_properties
from fluffle.protocol.spec import DIRECT_REPLY_TO, ProtocolError
from fluffle.protocol.wire import Field, FieldTable

PLAIN = Properties(content_type="text/plain", delivery_mode=2, priority=3)


def facts_of(properties: Properties) -> PropertyFacts:
    return read_facts(encode_properties(properties))


def keys(*texts: str) -> Field:
    return "A", [("S", text.encode()) for text in texts]


def with_headers(headers: FieldTable) -> Properties:
    return Properties(delivery_mode=2, headers=headers)


@pytest.mark.parametrize("properties", [Properties(), PLAIN, with_headers({"n": ("l", 1)})])
def test_most_messages_are_not_special(properties: Properties) -> None:
    facts = facts_of(properties)
    assert not facts.is_special
    assert (facts.stored, facts.more_routing_keys) == (None, ())
    assert facts.properties in (None, properties)
    assert (facts.properties is None) == (properties.headers is None)


def test_a_user_id_must_be_checked() -> None:
    facts = facts_of(Properties(user_id="guest"))
    assert facts.is_special
    assert facts.user_id == "guest"


def test_direct_reply_to_is_asked_for_by_its_name_alone() -> None:
    facts = facts_of(Properties(reply_to=DIRECT_REPLY_TO))
    assert facts.is_special
    assert facts.wants_reply
    for other in (f"{DIRECT_REPLY_TO}.somebody", "replies", ""):
        assert not facts_of(Properties(reply_to=other)).is_special


def test_reply_to_is_replaced_and_nothing_else() -> None:
    raw = encode_properties(Properties(content_type="a", reply_to=DIRECT_REPLY_TO, priority=7))
    changed = decode_properties(with_reply_to(raw, "name"))
    assert changed == Properties(content_type="a", reply_to="name", priority=7)


# CC and BCC


def test_cc_adds_routing_keys_and_stays() -> None:
    facts = facts_of(with_headers({"CC": keys("a", "b")}))
    assert facts.more_routing_keys == ("a", "b")
    assert not facts.is_special


def test_bcc_adds_routing_keys_and_goes() -> None:
    headers = {"x": ("S", b"kept"), "BCC": keys("secret"), "CC": keys("open")}
    facts = facts_of(with_headers(headers))
    assert facts.more_routing_keys == ("open", "secret")
    assert facts.is_special
    assert facts.stored is not None
    stored = decode_properties(facts.stored)
    del headers["BCC"]
    assert stored == with_headers(headers)


def test_what_is_no_long_string_is_no_routing_key() -> None:
    array: Field = ("A", [("S", b"a"), ("l", 1), ("V", None), ("x", b"x"), ("S", b"")])
    assert facts_of(with_headers({"CC": array})).more_routing_keys == ("a", "")
    assert facts_of(with_headers({"CC": ("A", [])})).more_routing_keys == ()


def test_header_names_are_exact() -> None:
    assert facts_of(with_headers({"cc": keys("a"), "Bcc": keys("b")})).more_routing_keys == ()


@pytest.mark.parametrize("name", ["CC", "BCC"])
@pytest.mark.parametrize(
    ("field", "kind"), [(("S", b"a"), "longstr"), (("l", 1), "long"), (("F", {}), "table")]
)
def test_cc_and_bcc_must_be_arrays(name: str, field: Field, kind: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        facts_of(with_headers({name: field}))
    problem = f'{{unacceptable_type_in_header,"{name}",{kind}}}'
    assert refused.value.explanation == f"invalid message: {problem}"


# Expiration


@pytest.mark.parametrize("text", ["0", "+5", "-0", "0060", str(EXPIRATION_MS_MAX)])
def test_an_expiration_is_a_number_of_milliseconds(text: str) -> None:
    assert not facts_of(Properties(expiration=text)).is_special


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        ("+", "no_integer"),
        ("+-5", "no_integer"),
        (" 5", "no_integer"),
        ("٣", "no_integer"),
        ("10ms", '{leftover_string,"ms"}'),
        ("1.5", '{leftover_string,".5"}'),
        ("-1s", '{leftover_string,"s"}'),
        ("5 ", '{leftover_string," "}'),
        ("-1", "{value_negative,-1}"),
        ("-007", "{value_negative,-7}"),
        (str(EXPIRATION_MS_MAX + 1), f"{{value_too_large,{EXPIRATION_MS_MAX + 1}}}"),
    ],
)
def test_other_expirations_are_refused(text: str, problem: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        facts_of(Properties(expiration=text))
    assert refused.value.explanation == f"invalid expiration '{text}': {problem}"


def test_the_longest_number_there_can_be_is_refused() -> None:
    with pytest.raises(PreconditionFailed, match="value_too_large"):
        facts_of(Properties(expiration="9" * 255))


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x80\x00", b"\x00\x00\x00"])
def test_malformed_properties_are_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_facts(raw)
