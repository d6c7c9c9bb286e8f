"""What is read of many messages at once is what is read of each."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.properties import (
    FEW,
    HEAD_BYTES_MAX,
    LAID_OUT_BYTES_MAX,
    MANY,
    kinds_of,
    priorities_of,
    read_expirations,
)
from fluffle.protocol.properties import (
    FLAG_EXPIRATION,
    FLAG_PRIORITY,
    Properties,
    build_content,
    encode_properties,
    place_and_flags_of,
    place_of,
    priority_of,
)
from tests.protocol.test_properties import PROPERTIES

LONG = {"k": ("S", b"a" * HEAD_BYTES_MAX)}
SHORT = st.sampled_from([None, "", "a", "ab", "abc"])
ALMOST_ALIKE = st.builds(
    Properties,
    content_type=SHORT,
    headers=st.sampled_from([None, {}, {"k": ("S", b"a")}, {"k": ("S", b"b")}, LONG]),
    delivery_mode=st.sampled_from([None, 2]),
    correlation_id=SHORT,
    message_id=SHORT,
)
"""Of one length more often than of one shape."""

BODIES = st.sampled_from([b"", b"b", b"bo", b"b" * LAID_OUT_BYTES_MAX])
SEVERAL = st.lists(st.tuples(PROPERTIES | ALMOST_ALIKE, BODIES), min_size=1, max_size=6) | st.lists(
    st.tuples(ALMOST_ALIKE, BODIES), min_size=FEW, max_size=6
)
ALIKE = st.builds(
    lambda each, bodies: [(replace(each), body) for body in bodies],
    PROPERTIES | ALMOST_ALIKE,
    st.lists(BODIES, min_size=1, max_size=6),
)


def contents_of(several: list[tuple[Properties, bytes]]) -> list[bytes]:
    return [build_content(encode_properties(each), body) for each, body in several]


@given(SEVERAL | ALIKE, st.booleans())
def test_the_priorities_of_several_are_those_of_each(
    several: list[tuple[Properties, bytes]], is_named: bool
) -> None:
    for place, (each, _body) in enumerate(several):
        each.priority = place * 97 % 256 if is_named else None
    contents = contents_of(several)
    found = priorities_of(contents)
    named = list(found.octets) if found is not None else [None] * len(several)
    if found is not None and found.content_bytes:
        assert {*map(len, contents)} == {found.content_bytes}
    assert named == [priority_of(content) for content in contents]
    assert named == [each.priority for each, _body in several]


@given(
    SEVERAL | ALIKE,
    st.lists(
        st.sampled_from([1, 2, 3, 10, 20, 21, 30_001, 30_002, 30_102]), min_size=6, max_size=6
    ),
)
def test_the_expirations_of_several_are_those_of_each(
    several: list[tuple[Properties, bytes]], lifetimes_ms: list[int]
) -> None:
    for (each, _body), lifetime_ms in zip(several, lifetimes_ms, strict=False):
        each.expiration = str(lifetime_ms)
    assert read_expirations(contents_of(several), int) == lifetimes_ms[: len(several)]


@given(
    st.lists(st.integers(0, 2) | st.integers(29_998, 30_003), min_size=MANY, max_size=2 * MANY)
    | st.lists(st.sampled_from([30_000, 30_400, 30_500]), min_size=MANY, max_size=2 * MANY)
    | st.lists(st.integers(30_000, 39_999), min_size=MANY, max_size=2 * MANY)
)
def test_the_expirations_of_many_are_those_of_each(lifetimes_ms: list[int]) -> None:
    several = [(Properties(expiration=str(each), app_id="app"), b"") for each in lifetimes_ms]
    assert read_expirations(contents_of(several), int) == lifetimes_ms


@given(PROPERTIES | ALMOST_ALIKE)
def test_a_value_is_found_where_the_way_to_it_ends(properties: Properties) -> None:
    content = build_content(encode_properties(properties), b"")
    for flag in (FLAG_PRIORITY, FLAG_EXPIRATION):
        assert place_of(content, flag) == place_and_flags_of(content, flag)[0]


def test_long_headers_in_front_of_a_value_are_not_copied() -> None:
    headers = Properties(headers={"k": ("S", b"a" * 50_000)}, priority=3, expiration="7")
    contents = contents_of([(headers, b"")] * 100)
    tracemalloc.start()
    try:
        found = priorities_of(contents)
        assert read_expirations(contents, int) == [7] * 100
        _size_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.octets == b"\x03" * 100
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"content_type": "a", "message_id": "bcd"}, {"content_type": "abc", "message_id": "d"}),
        ({"content_encoding": "a", "app_id": "bc"}, {"content_encoding": "ab", "app_id": "c"}),
        ({"content_type": "abc"}, {"headers": {}}),
        ({"content_type": "abc", "app_id": ""}, {"delivery_mode": 2, "app_id": "abc"}),
        ({"headers": {"k": ("S", b"ab")}}, {"headers": {"k": ("S", b"a")}, "app_id": ""}),
        ({"correlation_id": "a", "app_id": "bc"}, {"correlation_id": "abc", "app_id": ""}),
    ],
)
def test_messages_of_one_length_may_have_their_values_elsewhere(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    pair = [
        Properties(priority=3, expiration="7", **one),
        Properties(priority=4, expiration="8", **other),
    ]
    contents = contents_of([(each, b"body") for each in pair]) * FEW
    assert len(contents[0]) == len(contents[1])
    found = priorities_of(contents)
    assert found is not None
    assert found.octets == b"\x03\x04" * FEW
    assert read_expirations(contents, int) == [7, 8] * FEW


def test_an_expiration_is_read_once_where_one_digit_differs() -> None:
    read = list[bytes]()

    def reading(text: bytes) -> int:
        read.append(text)
        return int(text)

    lifetimes_ms = [60_000 + number % 3 for number in range(100)]
    several = [(Properties(expiration=str(each)), b"") for each in lifetimes_ms]
    assert read_expirations(contents_of(several), reading) == lifetimes_ms
    assert read == [b"60000", b"60001", b"60002"]


@given(st.binary())
def test_kinds_are_told_apart(octets: bytes) -> None:
    assert [*kinds_of(octets)] == sorted({*octets})
