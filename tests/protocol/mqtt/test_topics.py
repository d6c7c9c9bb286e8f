"""Validity of topic names and filters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.mqtt.codes import InvalidPacket, ReasonCode
from fluffle.protocol.mqtt.topics import (
    LEVELS_MAX,
    SubscriptionFilter,
    check_topic,
    is_valid_filter,
    is_valid_topic,
    is_wildcard,
    parse_filter,
)


@pytest.mark.parametrize("topic", ["a", "/", "//", "a/b", " ", "$SYS/x", "ü/€", "a.b*", "$share"])
def test_topic_names(topic: str) -> None:
    check_topic(topic.encode())


@pytest.mark.parametrize("topic", ["", "+", "#", "a/+/b", "a/#", "a+", "#a"])
def test_what_is_no_topic_name(topic: str) -> None:
    assert not is_valid_topic(topic)
    with pytest.raises(InvalidPacket) as found:
        check_topic(topic.encode())
    assert found.value.code is ReasonCode.TOPIC_NAME_INVALID


@pytest.mark.parametrize("topic", [b"a\x00", b"\xff", b"\xed\xa0\x80", b"a\n", b"\xef\xbf\xbf"])
def test_topic_names_that_are_no_text(topic: bytes) -> None:
    with pytest.raises(InvalidPacket) as found:
        check_topic(topic)
    assert found.value.code is ReasonCode.MALFORMED_PACKET


VALID = ["a", "/", "+", "#", "a/#", "a/+", "+/a", "+/+", "/+", "/#", "+/#", "a//#", "$SYS/#", "a b"]
INVALID = ["", "a#", "#a", "a/#/b", "#/", "##", "+a", "a+", "++", "a/+b/c", "a+/#", "a/b#", "#/#"]


@pytest.mark.parametrize("text", VALID)
def test_filters(text: str) -> None:
    assert is_valid_filter(text)
    assert parse_filter(text) == SubscriptionFilter("", text)
    assert parse_filter(f"$share/g/{text}") == SubscriptionFilter("g", text)


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_filter(text: str) -> None:
    assert not is_valid_filter(text)
    assert parse_filter(text) is None
    assert parse_filter(f"$share/g/{text}") is None


@pytest.mark.parametrize("text", ["$share/", "$share/g", "$share/g/", "$share//x", "$share/g+/x",
                                  "$share/#/x", "$share/+/x"])  # fmt: skip
def test_shares_that_are_wrong(text: str) -> None:
    assert parse_filter(text) is None


def test_what_only_begins_like_a_share() -> None:
    for text in ("$share", "$shared/g/x", "share/g/x", "/$share/g/x"):
        assert parse_filter(text) == SubscriptionFilter("", text)
    assert parse_filter("$share/g//") == SubscriptionFilter("g", "/")


def test_levels_are_bounded() -> None:
    for levels, is_valid in ((LEVELS_MAX, True), (LEVELS_MAX + 1, False)):
        topic = "/".join("a" * levels)
        assert is_valid_topic(topic) is is_valid
        assert is_valid_filter(topic) is is_valid
        assert is_valid_filter(topic[:-1] + "+") is is_valid


LEVELS = st.sampled_from(["", "a", "b", "$a"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = (
    st.lists(st.sampled_from(["", "a", "b", "$a", "+"]), max_size=4)
    .flatmap(lambda levels: st.sampled_from([levels, [*levels, "#"]]))
    .map("/".join)
    .filter(bool)
)


@given(FILTERS, TOPICS)
def test_a_filter_of_whole_levels_is_valid(topic_filter: str, topic: str) -> None:
    assert is_valid_filter(topic_filter)
    assert is_valid_topic(topic)
    assert is_wildcard(topic_filter) is not is_valid_topic(topic_filter)
