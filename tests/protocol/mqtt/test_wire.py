"""Integers, strings and lengths are read as they are written, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.mqtt.codes import InvalidPacket, ReasonCode
from fluffle.protocol.mqtt.wire import (
    STRING_BYTES_MAX,
    VARINT_MAX,
    encode_binary,
    encode_string,
    encode_varint,
    read_binary,
    read_name,
    read_string,
    read_u8,
    read_u16,
    read_u32,
    read_varint,
)

BOUNDS = {
    0: "00", 127: "7f", 128: "8001", 16_383: "ff7f", 16_384: "808001", 2_097_151: "ffff7f",
    2_097_152: "80808001", VARINT_MAX: "ffffff7f",
}  # fmt: skip
"""Examples of S5 §1.5.5."""


@pytest.mark.parametrize("value", BOUNDS)
def test_bounds_of_variable_byte_integers(value: int) -> None:
    octets = bytes.fromhex(BOUNDS[value])
    assert encode_varint(value) == octets
    assert read_varint(b"\xff" + octets + b"\xff", 1) == (value, 1 + len(octets))


@given(st.integers(0, VARINT_MAX))
def test_variable_byte_integers(value: int) -> None:
    octets = encode_varint(value)
    assert read_varint(octets, 0) == (value, len(octets))
    for stop in range(len(octets)):
        with pytest.raises(InvalidPacket):
            read_varint(octets[:stop], 0)


@pytest.mark.parametrize("text", ["8000", "808000", "80808000", "ff8000", "80808080", "ffffffff01"])
def test_variable_byte_integers_that_are_wrong(text: str) -> None:
    with pytest.raises(InvalidPacket) as found:
        read_varint(bytes.fromhex(text), 0)
    assert found.value.code is ReasonCode.MALFORMED_PACKET


def test_a_value_that_is_too_large_is_not_written() -> None:
    with pytest.raises(ValueError, match="too large"):
        encode_varint(VARINT_MAX + 1)
    with pytest.raises(ValueError, match="string of 65536 bytes"):
        encode_binary(bytes(STRING_BYTES_MAX + 1))
    assert len(encode_binary(bytes(STRING_BYTES_MAX))) == STRING_BYTES_MAX + 2


@given(st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])))
def test_strings(text: str) -> None:
    octets = encode_string(text)
    assert read_string(octets, 0) == (text, len(octets))


def test_a_byte_order_mark_stays() -> None:
    assert read_string(b"\x00\x04\xef\xbb\xbfa", 0) == ("\ufeffa", 6)
    assert read_name(b"\x00\x04\xef\xbb\xbfa", 0) == ("\ufeffa", 6)


NEVER = {"not UTF-8": b"\xc3\x28", "surrogate": b"\xed\xa0\x80", "overlong": b"\xc0\x80",
         "above the last": b"\xf4\x90\x80\x80", "zero": b"a\x00"}  # fmt: skip
NOT_IN_NAMES = [*map(chr, range(1, 0x20)), *map(chr, range(0x7F, 0xA0)), "\ufdd0", "\ufdef",
                "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff"]  # fmt: skip
IN_NAMES = [
    "",
    " ",
    "~",
    "\xa0",
    "ÿ",
    "€",
    "\ufdcf",
    "\ufffd",
    "\U0001f600",
    "\U000e0001",
    "\u200b",
]


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("read", [read_string, read_name])
def test_strings_that_are_wrong(name: str, read: type) -> None:
    with pytest.raises(InvalidPacket) as found:
        read(encode_binary(NEVER[name]), 0)
    assert found.value.code is ReasonCode.MALFORMED_PACKET


def test_names_hold_no_control_characters() -> None:
    for text in NOT_IN_NAMES:
        octets = encode_string(f"a{text}b")
        assert read_string(octets, 0)[0] == f"a{text}b"
        with pytest.raises(InvalidPacket):
            read_name(octets, 0)
    for text in IN_NAMES:
        assert read_name(encode_string(text), 0)[0] == text


@pytest.mark.parametrize(
    ("read", "octets", "value"),
    [
        (read_u8, b"\x01", 1),
        (read_u16, b"\x01\x02", 0x102),
        (read_u32, b"\x01\x02\x03\x04", 0x1020304),
        (read_binary, b"\x00\x02\x00\xff", b"\x00\xff"),
        (read_string, b"\x00\x01a", "a"),
    ],
)
def test_what_is_cut_short(read: type, octets: bytes, value: object) -> None:
    assert read(octets, 0) == (value, len(octets))
    assert read(b"x" + octets + b"y", 1) == (value, 1 + len(octets))
    for stop in range(len(octets)):
        with pytest.raises(InvalidPacket) as found:
            read(octets[:stop], 0)
        assert found.value.code is ReasonCode.MALFORMED_PACKET
