"""Field tables and strings: every tag keeps its bytes, and no bytes do harm."""

import struct
from collections.abc import Callable
from functools import partial
from math import nan
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode

from fluffle.protocol import wire
from fluffle.protocol.spec import ProtocolError, ReplyCode
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import Field, FieldTable

GOLDEN = [
    (("t", True), "7401"),
    (("t", False), "7400"),
    (("b", -2), "62fe"),
    (("B", 254), "42fe"),
    (("s", -2), "73fffe"),
    (("u", 65534), "75fffe"),
    (("I", -2), "49fffffffe"),
    (("i", 4294967294), "69fffffffe"),
    (("l", -2), "6cfffffffffffffffe"),
    (("L", -2), "4cfffffffffffffffe"),
    (("f", 1.5), "663fc00000"),
    (("d", -0.0), "648000000000000000"),
    (("D", (2, 4294967294)), "4402fffffffe"),
    (("S", b"\xff\x00"), "5300000002ff00"),
    (("x", b"\xff\x00"), "7800000002ff00"),
    (("T", 2**64 - 1), "54ffffffffffffffff"),
    (("F", {"k": ("V", None)}), "4600000003016b56"),
    (("A", [("b", 1), ("t", True)]), "410000000462017401"),
    (("V", None), "56"),
]


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low = -(1 << bits - 1) if signed else 0
    return st.integers(low, low + (1 << bits) - 1)


def tagged(tag: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[Field]:
    return st.tuples(st.just(tag), values)


KEYS = st.binary(max_size=255).map(lambda raw: raw.decode(errors="surrogateescape"))
SCALARS = st.one_of(
    tagged("t", st.booleans()),
    tagged("b", integers(8, signed=True)),
    tagged("B", integers(8, signed=False)),
    tagged("s", integers(16, signed=True)),
    tagged("u", integers(16, signed=False)),
    tagged("I", integers(32, signed=True)),
    tagged("i", integers(32, signed=False)),
    tagged("l", integers(64, signed=True)),
    tagged("L", integers(64, signed=True)),
    tagged("T", integers(64, signed=False)),
    tagged("f", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    tagged("d", st.floats(allow_nan=False, allow_infinity=False)),
    tagged("D", st.tuples(integers(8, signed=False), integers(32, signed=False))),
    tagged("S", st.binary()),
    tagged("x", st.binary()),
    tagged("V", st.none()),
)
FIELDS: st.SearchStrategy[Field] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        tagged("F", st.dictionaries(KEYS, inner, max_size=4)),
        tagged("A", st.lists(inner, max_size=4)),
    ),
    max_leaves=8,
)
TABLES: st.SearchStrategy[FieldTable] = st.dictionaries(KEYS, FIELDS, max_size=5)


def nested(depth: int, tag: bytes) -> bytes:
    """A table whose one field holds `depth` tables or arrays inside each other."""
    field = b"V"
    for _ in range(depth):
        content = b"\x01k" + field if tag == b"F" else field
        field = tag + struct.pack(">I", len(content)) + content
    return struct.pack(">I", len(field) + 2) + b"\x01k" + field


@pytest.mark.parametrize(("field", "octets"), GOLDEN, ids=lambda value: str(value)[:20])
def test_each_tag_has_its_bytes(field: Field, octets: str) -> None:
    raw = b"\x01k" + bytes.fromhex(octets)
    table = struct.pack(">I", len(raw)) + raw
    assert wire.encode_table({"k": field}) == table
    assert wire.read_table(table, 0) == ({"k": field}, len(table))


def test_each_tag_has_a_name() -> None:
    assert set(wire.TYPE_NAMES) == {field[0] for field, _ in GOLDEN}


@given(TABLES, st.binary(max_size=9), st.binary(max_size=9))
def test_a_table_survives_in_the_middle_of_a_buffer(
    table: FieldTable, before: bytes, after: bytes
) -> None:
    raw = wire.encode_table(table)
    read, end = wire.read_table(before + raw + after, len(before))
    assert read == table
    assert list(read) == list(table)
    assert end == len(before) + len(raw)
    assert wire.encode_table(read) == raw


def outcome(read: Callable[[], tuple[FieldTable, int]]) -> object:
    """A table and its end, or what is wrong with it."""
    try:
        return read()
    except ProtocolError as error:
        return error.code, error.explanation


@given(TABLES.map(wire.encode_table) | st.binary(), st.integers(0, 9))
def test_a_table_in_steps_is_the_same_table(raw: bytes, cut: int) -> None:
    for each in (raw, raw[: len(raw) - cut], struct.pack(">I", len(raw)) + raw):
        with patch.object(wire, "FIELDS_AT_ONCE", 1):
            in_steps = outcome(partial(whole, wire.read_table_in_steps(each, 0)))
        assert in_steps == outcome(partial(wire.read_table, each, 0))


@pytest.mark.parametrize("tag", [b"F", b"A"])
@pytest.mark.parametrize("depth", [wire.TABLE_DEPTH_MAX, wire.TABLE_DEPTH_MAX + 1, 5_000])
def test_nor_does_depth_make_a_difference(tag: bytes, depth: int) -> None:
    raw = nested(depth, tag)
    in_steps = outcome(partial(whole, wire.read_table_in_steps(raw, 0)))
    assert in_steps == outcome(partial(wire.read_table, raw, 0))


def test_a_long_table_is_read_in_steps() -> None:
    raw = wire.encode_table({str(number): ("l", number) for number in range(1_000)})
    stops = sum(1 for _ in wire.read_table_in_steps(raw, 0))
    assert stops == 1_000 // wire.FIELDS_AT_ONCE


@given(TABLES)
def test_fields_are_a_table_without_its_length(table: FieldTable) -> None:
    raw = wire.encode_table(table)
    assert wire.read_fields(raw, 4, len(raw)) == table


@given(st.dictionaries(KEYS, SCALARS, min_size=1, max_size=3))
def test_a_table_cut_anywhere_is_a_frame_error(table: FieldTable) -> None:
    raw = wire.encode_table(table)
    for length in range(len(raw)):
        with pytest.raises(ProtocolError, match="FRAME_ERROR"):
            wire.read_table(raw[:length], 0)


@given(st.binary())
def test_any_bytes_are_a_table_or_a_frame_error(raw: bytes) -> None:
    try:
        table = wire.read_fields(raw, 0, len(raw))
    except ProtocolError as error:
        refusal: ProtocolError | None = error
    else:
        refusal = None
        assert wire.read_table(wire.encode_table(table), 0)[0] == table
    assert refusal is None or refusal.code is ReplyCode.FRAME_ERROR


@pytest.mark.parametrize("field", ["U0001", "6e", "5300000002ff", "4600000001", "54ff"])
def test_a_field_that_rabbitmq_cannot_read_is_refused(field: str) -> None:
    raw = b"\x01k" + (field.encode() if field.startswith("U") else bytes.fromhex(field))
    with pytest.raises(ProtocolError, match="FRAME_ERROR"):
        wire.read_fields(raw, 0, len(raw))


def test_an_inner_length_cannot_reach_behind_its_table() -> None:
    outer = b"\x01a" + b"S\x00\x00\x00\x04ab"
    with pytest.raises(ProtocolError, match="truncated value"):
        wire.read_table(struct.pack(">I", len(outer)) + outer + b"cd", 0)
    number = b"\x01a" + b"I\x00\x00"
    with pytest.raises(ProtocolError, match="truncated value"):
        wire.read_table(struct.pack(">I", len(number)) + number + b"\x00\x00", 0)


@pytest.mark.parametrize("number", [nan, float("inf"), float("-inf")])
@pytest.mark.parametrize(("tag", "form"), [(b"f", ">f"), (b"d", ">d")])
def test_floats_are_finite_as_in_rabbitmq(number: float, tag: bytes, form: str) -> None:
    raw = b"\x01k" + tag + struct.pack(form, number)
    with pytest.raises(ProtocolError, match="not a finite number"):
        wire.read_fields(raw, 0, len(raw))


def test_a_bool_is_any_octet_but_zero() -> None:
    assert wire.read_fields(b"\x01kt\x02", 0, 4) == {"k": ("t", True)}


def test_the_first_of_two_equal_keys_counts() -> None:
    raw = b"\x01kb\x01\x01kb\x02"
    assert wire.read_fields(raw, 0, len(raw)) == {"k": ("b", 1)}


@pytest.mark.parametrize("tag", [b"F", b"A"])
def test_nesting_has_a_limit(tag: bytes) -> None:
    deepest = nested(wire.TABLE_DEPTH_MAX, tag)
    table, _ = wire.read_table(deepest, 0)
    assert wire.encode_table(table) == deepest
    with pytest.raises(ProtocolError, match="nested deeper than 100"):
        wire.read_table(nested(wire.TABLE_DEPTH_MAX + 1, tag), 0)
    with pytest.raises(ProtocolError, match="nested deeper than 100"):
        wire.read_table(nested(20_000, tag), 0)


@given(st.text(max_size=63), st.binary(max_size=9))
def test_a_short_string_is_utf8(text: str, before: bytes) -> None:
    out = bytearray(before)
    wire.write_shortstr(out, text)
    assert out == before + encode.short_string(text)
    assert wire.read_shortstr(bytes(out), len(before)) == (text, len(out))


@pytest.mark.parametrize("raw", [b"\x02\xff\xfe", b"\x03\xed\xa0\x80", b"\x01\xc3"])
def test_a_short_string_that_is_not_utf8(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.read_shortstr(raw, 0)
    assert caught.value.reply_text == "FRAME_ERROR - Malformed UTF-8 in shortstr"
    assert wire.read_shortstr_bytes(raw, 0) == (raw[1:], len(raw))


@pytest.mark.parametrize("raw", [b"", b"\x02a", b"\xff"])
def test_a_short_string_cut_short(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match="truncated value"):
        wire.read_shortstr(raw, 0)


def test_a_short_string_has_at_most_255_bytes() -> None:
    assert len(wire.encode_shortstr("x" * 255)) == 256
    with pytest.raises(ValueError, match="256 bytes"):
        wire.encode_shortstr("é" * 128)


@given(st.binary())
def test_a_long_string_is_octets(octets: bytes) -> None:
    out = bytearray()
    wire.write_longstr(out, octets)
    assert wire.read_longstr(bytes(out), 0) == (octets, len(out))
    with pytest.raises(ProtocolError, match="truncated value"):
        wire.read_longstr(bytes(out[:-1]), 0)


def test_plain_values_get_the_tags_of_rabbitmqs_own_tables() -> None:
    plain: dict[str, wire.PlainValue] = {
        "text": "é",
        "octets": b"\xff",
        "truth": True,
        "count": 7,
        "ratio": 0.5,
        "nothing": None,
        "table": {"a": 1},
        "array": ["a", 1],
        "time": ("T", 1),
    }
    assert wire.to_table(plain) == {
        "text": ("S", "é".encode()),
        "octets": ("S", b"\xff"),
        "truth": ("t", True),
        "count": ("l", 7),
        "ratio": ("d", 0.5),
        "nothing": ("V", None),
        "table": ("F", {"a": ("l", 1)}),
        "array": ("A", [("S", b"a"), ("l", 1)]),
        "time": ("T", 1),
    }


def test_a_value_of_another_type_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="a set has no place"):
        wire.to_field({1})  # type: ignore[arg-type]


def test_plain_tables_have_pamqps_bytes_where_pamqp_uses_the_same_tags() -> None:
    """pamqp sorts the keys, takes the smallest tag for an int and `f` for a float."""
    assert wire.encode_table(
        wire.to_table({"a": [True, "é"], "f": {"s": "t"}, "l": 2**40, "v": None})
    ) == encode.field_table({"a": [True, "é"], "f": {"s": "t"}, "l": 2**40, "v": None})
