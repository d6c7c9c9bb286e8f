"""Content in canonical form, and its properties."""

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from fluffle.protocol import properties
from fluffle.protocol.properties import (
    FEW,
    FLAG_EXPIRATION,
    FLAG_PRIORITY,
    HEAD_BYTES_MAX,
    LAID_OUT_BYTES_MAX,
    MANY,
    Properties,
    body_of,
    body_size,
    build_content,
    build_contents,
    check_properties,
    decode_properties,
    decode_properties_in_steps,
    encode_properties,
    kinds_of,
    outline,
    place_and_flags_of,
    place_of,
    priorities_of,
    priority_of,
    property_flags,
    raw_properties,
    read_expirations,
    replace_properties,
    split_content,
)
from fluffle.protocol.spec import DIRECT_REPLY_TO, ProtocolError, ReplyCode
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import FieldTable

GOLDEN = (
    Properties(
        content_type="text/plain",
        headers={"n": ("s", 5)},
        delivery_mode=2,
        reply_to="",
        timestamp=2**64 - 1,
        cluster_id="c",
    ),
    "b244 0a746578742f706c61696e 00000005016e730005 02 00 ffffffffffffffff 0163",
)

TEXTS = st.one_of(
    st.none(), st.binary(max_size=40).map(lambda raw: raw.decode(errors="surrogateescape"))
)
OCTETS = st.one_of(st.none(), st.integers(0, 255))
TABLES = st.sampled_from([None, {}, {"k": ("S", b"\xff"), "a": ("A", [("L", -1)])}])
PROPERTIES = st.builds(
    Properties,
    **{field.name: TEXTS for field in fields(Properties)}
    | {
        "headers": TABLES,
        "delivery_mode": OCTETS,
        "priority": OCTETS,
        "timestamp": st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    },
)
BODIES = st.binary(max_size=100)
CHANNELS = st.integers(1, 65535)


def test_golden_bytes() -> None:
    decoded, octets = GOLDEN
    assert encode_properties(decoded) == bytes.fromhex(octets)
    assert decode_properties(bytes.fromhex(octets)) == decoded


@given(PROPERTIES)
def test_properties_round_trip(given_properties: Properties) -> None:
    raw = encode_properties(given_properties)
    assert decode_properties(raw) == given_properties
    assert encode_properties(decode_properties(raw)) == raw


@given(PROPERTIES, st.integers(0, 3))
def test_properties_in_steps_are_the_same(given_properties: Properties, cut: int) -> None:
    raw = encode_properties(given_properties)
    for each in (raw, raw[: len(raw) - cut], raw + bytes(cut)):
        with patch.object(properties, "OUTLINED_BYTES_MAX", 0):
            refused = is_refused(lambda given: whole(decode_properties_in_steps(given)), each)
            assert refused == is_refused(decode_properties, each)
            if not refused:
                assert whole(decode_properties_in_steps(each)) == decode_properties(each)


def test_long_properties_are_their_own_outline() -> None:
    headers: FieldTable = {str(number): ("l", number) for number in range(1_000)}
    raw = encode_properties(Properties(headers=headers))
    assert len(raw) > properties.OUTLINED_BYTES_MAX
    assert outline(raw) == (raw, [])


def is_refused(read: Callable[[bytes], object], raw: bytes) -> bool:
    try:
        read(raw)
    except ProtocolError as error:
        return error.code is ReplyCode.FRAME_ERROR
    return False


@given(PROPERTIES, st.data())
def test_checking_finds_what_decoding_finds(
    given_properties: Properties, data: st.DataObject
) -> None:
    given_properties.headers = None
    raw = encode_properties(given_properties)
    assert not is_refused(check_properties, raw)
    cut = data.draw(st.integers(2, len(raw)))
    for other in (raw[:cut], raw + b"\x00", b"\x00\x01" + raw[2:]):
        assert is_refused(check_properties, other) is is_refused(decode_properties, other)


HEADERS = {"n": ("l", 7), "s": ("S", b"text"), "F": ("F", {"x": ("t", True)})}
ROUTING = [{"CC": ("A", [])}, {"n": ("l", 1), "BCC": ("A", [("S", b"q")])}]
READ = ("delivery_mode",)


@given(
    PROPERTIES,
    st.sampled_from([*ROUTING, HEADERS]),
    st.sampled_from([DIRECT_REPLY_TO, "a queue", None]),
    st.data(),
)
def test_an_outline_holds_all_that_a_broker_reads(
    given_properties: Properties, headers: FieldTable, reply_to: str | None, data: st.DataObject
) -> None:
    given_properties.headers, given_properties.reply_to = headers, reply_to
    raw = encode_properties(given_properties)
    kept, free = outline(raw)
    is_whole = headers in ROUTING or reply_to == DIRECT_REPLY_TO or given_properties.user_id
    if is_whole or given_properties.user_id is not None:
        assert (kept, free) == (raw, [])
        return
    expected = Properties(**{name: getattr(given_properties, name) for name in READ})
    expected.priority = None if given_properties.priority is None else 0
    expected.expiration = None if given_properties.expiration is None else "0"
    assert decode_properties(kept) == expected
    other = bytearray(raw)
    for start, stop in free:
        size = stop - start
        other[start:stop] = data.draw(st.binary(min_size=size, max_size=size))
    assert outline(bytes(other)) == (kept, free)
    changed = decode_properties(bytes(other))
    assert (changed.headers or {}).keys() == headers.keys()
    assert changed.reply_to == reply_to


@given(PROPERTIES, st.data())
def test_malformed_properties_are_their_own_outline(
    given_properties: Properties, data: st.DataObject
) -> None:
    raw = encode_properties(given_properties)
    cut = data.draw(st.integers(2, len(raw)))
    for other in (raw[:cut], raw + b"\x00", b"\x00\x01" + raw[2:]):
        if is_refused(decode_properties, other):
            assert outline(other) == (other, [])


@given(PROPERTIES)
def test_each_flag_stands_for_its_property(given_properties: Properties) -> None:
    flags = property_flags(encode_properties(given_properties))
    for name, value in asdict(given_properties).items():
        flag = getattr(properties, f"FLAG_{name.upper()}")
        assert bool(flags & flag) is (value is not None)


def test_flags_are_pamqps() -> None:
    for name, flag in commands.Basic.Properties.flags.items():
        ours = "TYPE" if name == "message_type" else name.upper()
        assert getattr(properties, f"FLAG_{ours}") == flag


def test_pamqp_reads_and_writes_the_same() -> None:
    seconds = 1_700_000_000
    ours = Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={"x": ("S", b"y"), "z": ("F", {"t": ("t", True)})},
        delivery_mode=2,
        priority=5,
        correlation_id="c",
        reply_to="r",
        expiration="1000",
        message_id="m",
        timestamp=seconds,
        type="t",
        user_id="guest",
        app_id="a",
    )
    theirs = commands.Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={"x": "y", "z": {"t": True}},
        delivery_mode=2,
        priority=5,
        correlation_id="c",
        reply_to="r",
        expiration="1000",
        message_id="m",
        timestamp=datetime.fromtimestamp(seconds, UTC),
        message_type="t",
        user_id="guest",
        app_id="a",
    )
    raw = theirs.marshal()
    assert encode_properties(ours) == raw
    assert decode_properties(raw) == ours


def test_text_need_not_be_utf8() -> None:
    """RabbitMQ 4.0.5 takes it and passes it on unchanged."""
    raw = b"\x80\x00\x02\xff\xfe"
    assert decode_properties(raw).content_type == "\udcff\udcfe"
    assert encode_properties(decode_properties(raw)) == raw


def test_flag_bit_1_means_nothing() -> None:
    assert decode_properties(b"\x00\x02") == Properties()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"\x00\x01",
        b"\x00\x01\x00\x00",
        b"\x00\x00abc",
        b"\x10\x00\x02zz",
        b"\x80\x00\x05ab",
        b"\x00\x40\x00\x00",
        b"\x20\x00\x00\x00\x00\x05\x01kU\x00\x01",
    ],
)
def test_malformed_properties_are_a_frame_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_properties(raw)
    assert caught.value.code is ReplyCode.FRAME_ERROR


@given(PROPERTIES)
def test_properties_cut_anywhere_are_a_frame_error(given_properties: Properties) -> None:
    raw = encode_properties(given_properties)
    for length in range(len(raw)):
        with pytest.raises(ProtocolError, match="FRAME_ERROR"):
            decode_properties(raw[:length])


@given(st.binary())
def test_any_bytes_are_properties_or_a_frame_error(raw: bytes) -> None:
    try:
        read = decode_properties(raw)
    except ProtocolError as error:
        refusal: ProtocolError | None = error
    else:
        refusal = None
        assert decode_properties(encode_properties(read)) == read
    assert refusal is None or refusal.code is ReplyCode.FRAME_ERROR


@pytest.mark.parametrize("payload", [b"", b"hello"])
def test_canonical_content_is_pamqps_frames_on_channel_1(payload: bytes) -> None:
    given_properties = commands.Basic.Properties(content_type="text/plain", priority=3)
    content = frame.marshal(header.ContentHeader(0, len(payload), given_properties), 1)
    if payload:
        content += frame.marshal(body.ContentBody(payload), 1)
    assert build_content(given_properties.marshal(), payload) == content


@given(PROPERTIES, st.lists(BODIES, max_size=4))
def test_contents_of_several_are_those_of_each(properties: Properties, bodies: list[bytes]) -> None:
    raw = encode_properties(properties)
    assert build_contents(raw, bodies) == [build_content(raw, body) for body in bodies]


@given(PROPERTIES, PROPERTIES, BODIES)
def test_content_gives_back_its_parts(
    before: Properties, after: Properties, payload: bytes
) -> None:
    content = build_content(encode_properties(before), payload)
    assert raw_properties(content) == encode_properties(before)
    assert body_of(content) == payload
    assert body_size(content) == len(payload)
    assert replace_properties(content, encode_properties(after)) == build_content(
        encode_properties(after), payload
    )


def frames_of(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while data:
        kind, channel, size = struct.unpack_from(">BHI", data)
        assert data[7 + size] == 0xCE
        found.append((kind, channel, data[7 : 7 + size]))
        data = data[8 + size :]
    return found


@given(PROPERTIES, BODIES, CHANNELS, st.one_of(st.just(0), st.integers(9, 120)))
def test_split_content_has_frames_that_the_peer_takes(
    given_properties: Properties, payload: bytes, channel: int, frame_max_bytes: int
) -> None:
    content = build_content(encode_properties(given_properties), payload)
    first, *pieces = frames_of(split_content(content, channel, frame_max_bytes))
    assert first == (2, channel, content[7 : 7 + len(first[2])])
    assert {(kind, number) for kind, number, _ in pieces} <= {(3, channel)}
    sizes = [len(piece) for _, _, piece in pieces]
    assert b"".join(piece for _, _, piece in pieces) == payload
    assert all(0 < size <= (frame_max_bytes or 2**32) - 8 for size in sizes)
    assert len(set(sizes[:-1])) <= 1


def test_content_that_fits_is_not_copied() -> None:
    content = build_content(b"\x00\x00", b"x" * 100)
    assert split_content(content, 1, 108) is content
    assert split_content(content, 1, 0) is content
    assert len(frames_of(split_content(content, 1, 107))) == 3


def test_golden_split() -> None:
    content = build_content(b"\x00\x00", b"abcde")
    assert split_content(content, 258, 11) == bytes.fromhex(
        "02 0102 0000000e 003c 0000 0000000000000005 0000 ce"
        "03 0102 00000003 616263 ce"
        "03 0102 00000002 6465 ce"
    )


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
"""Properties with equal lengths more often than with equal shapes."""

SMALL_BODIES = st.sampled_from([b"", b"b", b"bo", b"b" * LAID_OUT_BYTES_MAX])
SEVERAL = st.lists(
    st.tuples(PROPERTIES | ALMOST_ALIKE, SMALL_BODIES), min_size=1, max_size=6
) | st.lists(st.tuples(ALMOST_ALIKE, SMALL_BODIES), min_size=FEW, max_size=6)
ALIKE = st.builds(
    lambda each, bodies: [(replace(each), body) for body in bodies],
    PROPERTIES | ALMOST_ALIKE,
    st.lists(SMALL_BODIES, min_size=1, max_size=6),
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
def test_kinds_are_distinguished(octets: bytes) -> None:
    assert [*kinds_of(octets)] == sorted({*octets})
