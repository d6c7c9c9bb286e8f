"""Short strings, long strings and field tables as bytes.

Every reader takes the buffer and an offset and returns the value with the offset behind it;
every writer appends to a bytearray.  What is read and written again gives the same bytes, so the
type tag of a value is kept: `('s', 5)` and `('l', 5)` are equal numbers and different bytes.  Only
`t` is written as 0 or 1, and of two fields with one key the first is kept, which is the one that
RabbitMQ looks up.

Source: AMQP 0-9-1 §4.2.5, with RabbitMQ's reading of the tags (its "AMQP 0-9-1 errata"): `s` is
a 16-bit integer, not a short string, and `L` is signed like `l`.  As in RabbitMQ, floats must be
finite.  What cannot be read raises ProtocolError with FRAME_ERROR.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from math import isfinite
from typing import Any, TypeAlias

from fluffle.protocol.spec import SHORTSTR_BYTES_MAX, ProtocolError, ReplyCode
from fluffle.protocol.steps import Steps

FieldValue: TypeAlias = (
    "bool | int | float | bytes | tuple[int, int] | dict[str, Field] | list[Field] | None"
)
Field: TypeAlias = tuple[str, FieldValue]
"""A tag, the letter of the wire, and its value: t bool; b B s u I i l L T int (T in seconds); f d
float; D (scale, value); S x bytes; F FieldTable; A list of Field; V None."""
FieldTable: TypeAlias = dict[str, Field]
"""Keys as text (surrogateescape for bytes that are not UTF-8), in the order of the wire."""


TABLE_DEPTH_MAX = 100
"""Tables and arrays inside each other; readers and writers recurse once a level."""

FIELDS_AT_ONCE = 256
"""Read without a stop, which takes a fraction of a millisecond."""

MALFORMED_UTF8 = "Malformed UTF-8 in shortstr"

TYPE_NAMES: dict[str, str] = {
    "t": "bool",
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
    "f": "float",
    "d": "double",
    "D": "decimal",
    "S": "longstr",
    "x": "binary",
    "T": "timestamp",
    "F": "table",
    "A": "array",
    "V": "void",
}
"""RabbitMQ's names of the types, by tag, as they stand in its reply texts."""

PlainValue: TypeAlias = (
    "str | bytes | bool | int | float | Mapping[str, PlainValue] | Sequence[PlainValue] | Field"
    " | None"
)
"""A value without tag, or a Field, which is a tuple and keeps the tag it names."""

UTF8_BYTES_MAX = 4
"""Most bytes of one character."""

_UINT32 = struct.Struct(">I")
_UINT32_ZERO = bytes(4)

_NUMBERS = {
    tag: struct.Struct(form)
    for tag, form in {
        "b": ">b",
        "B": ">B",
        "s": ">h",
        "u": ">H",
        "I": ">i",
        "i": ">I",
        "l": ">q",
        "L": ">q",
        "T": ">Q",
        "f": ">f",
        "d": ">d",
    }.items()
}
_DECIMAL = struct.Struct(">BI")
_STRINGS = frozenset("Sx")
_INTEGERS = frozenset("bBsuIilLT")


def read_shortstr_bytes(buffer: bytes, offset: int) -> tuple[bytes, int]:
    """Read a short string as it stands; RabbitMQ checks no UTF-8 in table keys and properties."""
    if offset >= len(buffer):
        raise _truncated()
    start = offset + 1
    end = start + buffer[offset]
    if end > len(buffer):
        raise _truncated()
    return buffer[start:end], end


def read_shortstr(buffer: bytes, offset: int) -> tuple[str, int]:
    """Read a short string of a method's arguments, which must be UTF-8."""
    raw, end = read_shortstr_bytes(buffer, offset)
    try:
        return raw.decode(), end
    except UnicodeDecodeError as error:
        raise ProtocolError(ReplyCode.FRAME_ERROR, MALFORMED_UTF8) from error


def read_any_shortstr(buffer: bytes, offset: int) -> tuple[str, int]:
    """Read a short string of properties or basic.publish, where RabbitMQ takes any bytes."""
    raw, end = read_shortstr_bytes(buffer, offset)
    return raw.decode(errors="surrogateescape"), end


def read_longstr(buffer: bytes, offset: int) -> tuple[bytes, int]:
    """Read a long string: 4 bytes of length, then that many octets of any kind."""
    start, end = _read_extent(buffer, offset, len(buffer))
    return buffer[start:end], end


def read_table(buffer: bytes, offset: int) -> tuple[FieldTable, int]:
    """Read a field table, `offset` being that of its 4-byte length."""
    start, end = _read_extent(buffer, offset, len(buffer))
    return read_fields(buffer, start, end), end


def read_fields(buffer: bytes, start: int, end: int) -> FieldTable:
    """Read the fields between two offsets: a table without its length, as AMQPLAIN sends it."""
    try:
        return _read_fields(buffer, start, end, 0)
    except (IndexError, struct.error) as error:
        raise _truncated() from error


def read_table_in_steps(buffer: bytes, offset: int) -> Steps[tuple[FieldTable, int]]:
    """Read as `read_table` does, for one that may be long."""
    start, end = _read_extent(buffer, offset, len(buffer))
    try:
        table = yield from _fields_in_steps(buffer, start, end, 0, count(1))
    except (IndexError, struct.error) as error:
        raise _truncated() from error
    return table, end


def survey_table(buffer: bytes, offset: int) -> tuple[set[bytes], list[tuple[int, int]], int]:
    """Return the keys of a field table, where values stand whose bytes may be any, and its end.

    Those are the strings and integers of the table itself, not of tables in it.  Raises as
    `read_table`, and what it does not refuse is well-formed.
    """
    at, end = _read_extent(buffer, offset, len(buffer))
    keys: set[bytes] = set()
    free: list[tuple[int, int]] = []
    try:
        while at < end:
            tag_at = at + 1 + buffer[at]
            keys.add(buffer[at + 1 : tag_at])
            (tag, _), at = _read_field(buffer, tag_at, end, 0)
            if tag in _STRINGS:
                free.append((tag_at + 5, at))
            elif tag in _INTEGERS:
                free.append((tag_at + 1, at))
    except (IndexError, struct.error) as error:
        raise _truncated() from error
    return keys, free, end


def split_table(buffer: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a field table that is nothing but well-formed, each with its key and all
    of it as on the wire, key included."""
    at, end = _read_extent(buffer, 0, len(buffer))
    fields: list[tuple[bytes, bytes]] = []
    while at < end:
        start, tag_at = at, at + 1 + buffer[at]
        _field, at = _read_field(buffer, tag_at, end, 0)
        fields.append((buffer[start + 1 : tag_at], buffer[start:at]))
    return fields


def join_table(fields: Iterable[bytes]) -> bytes:
    """Return a field table of fields as `split_table` gives them."""
    inside = b"".join(fields)
    return _UINT32.pack(len(inside)) + inside


def encode_shortstr(text: str) -> bytes:
    """Encode a short string, its length in front.  ValueError when it is longer than 255 bytes."""
    raw = text.encode(errors="surrogateescape")
    if len(raw) > SHORTSTR_BYTES_MAX:
        raise ValueError(f"a short string of {len(raw)} bytes: {text[:40]!r}…")
    return bytes((len(raw),)) + raw


def is_shortstr(text: str) -> bool:
    """Return whether a short string holds a text."""
    return len(text.encode(errors="surrogateescape")) <= SHORTSTR_BYTES_MAX


def cut_to_shortstr(text: str) -> str:
    """Return as many characters of a text, from its beginning, as a short string holds."""
    raw = text.encode(errors="surrogateescape")
    if len(raw) <= SHORTSTR_BYTES_MAX:
        return text
    end = SHORTSTR_BYTES_MAX
    while end > SHORTSTR_BYTES_MAX - UTF8_BYTES_MAX and raw[end] & 0xC0 == 0x80:
        end -= 1
    return raw[:end].decode(errors="surrogateescape")


def write_shortstr(out: bytearray, text: str) -> None:
    """Append a short string.  ValueError when it is longer than 255 bytes."""
    out += encode_shortstr(text)


def write_longstr(out: bytearray, octets: bytes) -> None:
    """Append a long string."""
    out += _UINT32.pack(len(octets))
    out += octets


def write_table(out: bytearray, table: FieldTable) -> None:
    """Append a field table with its 4-byte length.  struct.error when a number does not fit."""
    start = _open_extent(out)
    for key, (tag, value) in table.items():
        write_shortstr(out, key)
        out += tag.encode()
        _WRITERS[tag](out, value)
    _close_extent(out, start)


def encode_table(table: FieldTable) -> bytes:
    """Encode a field table with its 4-byte length, as bytes of its own."""
    out = bytearray()
    write_table(out, table)
    return bytes(out)


def to_field(value: PlainValue) -> Field:
    """Tag a plain value as RabbitMQ tags those of its own tables: every int is a `long`, …

    A tuple is a Field and is kept: ("T", seconds) is how to make a timestamp.
    """
    if isinstance(value, tuple):
        return value
    try:
        return _TAGGERS[type(value)](value)
    except KeyError:
        raise TypeError(f"a {type(value).__name__} has no place in a field table") from None


def to_table(mapping: Mapping[str, PlainValue]) -> FieldTable:
    """Tag every value of a mapping, its order kept."""
    return {key: to_field(value) for key, value in mapping.items()}


def _truncated() -> ProtocolError:
    return ProtocolError(ReplyCode.FRAME_ERROR, "truncated value")


def _read_extent(buffer: bytes, offset: int, limit: int) -> tuple[int, int]:
    """Start and end of what a 4-byte length at `offset` announces; it must end by `limit`."""
    start = offset + 4
    if start > limit:
        raise _truncated()
    end = start + int(_UINT32.unpack_from(buffer, offset)[0])
    if end > limit:
        raise _truncated()
    return start, end


def _open_extent(out: bytearray) -> int:
    """Leave room for a 4-byte length; returns where its content starts."""
    out += _UINT32_ZERO
    return len(out)


def _close_extent(out: bytearray, start: int) -> None:
    _UINT32.pack_into(out, start - 4, len(out) - start)


def _read_fields(buffer: bytes, offset: int, end: int, depth: int) -> FieldTable:
    table: FieldTable = {}
    while offset < end:
        tag_offset = offset + 1 + buffer[offset]
        key = buffer[offset + 1 : tag_offset].decode(errors="surrogateescape")
        field, offset = _read_field(buffer, tag_offset, end, depth)
        table.setdefault(key, field)
    return table


def _read_array(buffer: bytes, offset: int, end: int, depth: int) -> list[Field]:
    array: list[Field] = []
    while offset < end:
        field, offset = _read_field(buffer, offset, end, depth)
        array.append(field)
    return array


def _fields_in_steps(
    buffer: bytes, offset: int, end: int, depth: int, numbers: Iterator[int]
) -> Steps[FieldTable]:
    """Read as `_read_fields` does; `numbers` count the fields, those of all levels together."""
    table: FieldTable = {}
    while offset < end:
        tag_offset = offset + 1 + buffer[offset]
        key = buffer[offset + 1 : tag_offset].decode(errors="surrogateescape")
        field, offset = yield from _field_in_steps(buffer, tag_offset, end, depth, numbers)
        table.setdefault(key, field)
    return table


def _array_in_steps(
    buffer: bytes, offset: int, end: int, depth: int, numbers: Iterator[int]
) -> Steps[list[Field]]:
    """Read as `_read_array` does."""
    array: list[Field] = []
    while offset < end:
        field, offset = yield from _field_in_steps(buffer, offset, end, depth, numbers)
        array.append(field)
    return array


def _field_in_steps(
    buffer: bytes, offset: int, limit: int, depth: int, numbers: Iterator[int]
) -> Steps[tuple[Field, int]]:
    """Read as `_read_field` does."""
    if not next(numbers) % FIELDS_AT_ONCE:
        yield
    tag = chr(buffer[offset])
    if tag not in "FA":
        return _read_field(buffer, offset, limit, depth)
    start, end = _open_nested(buffer, offset + 1, limit, depth)
    if tag == "F":
        table = yield from _fields_in_steps(buffer, start, end, depth + 1, numbers)
        return (tag, table), end
    array = yield from _array_in_steps(buffer, start, end, depth + 1, numbers)
    return (tag, array), end


def _read_field(buffer: bytes, offset: int, limit: int, depth: int) -> tuple[Field, int]:
    """Read a tag and its value, which must end by `limit`."""
    tag = chr(buffer[offset])
    reader = _READERS.get(tag)
    if reader is None:
        raise ProtocolError(ReplyCode.FRAME_ERROR, f"unknown field type {buffer[offset]}")
    value, end = reader(buffer, offset + 1, limit, depth)
    if end > limit:
        raise _truncated()
    return (tag, value), end


_Reader: TypeAlias = Callable[[bytes, int, int, int], tuple[FieldValue, int]]
"""(buffer, offset, limit, depth) -> the value and the offset behind it."""


def _number_reader(number: struct.Struct) -> _Reader:
    unpack, size = number.unpack_from, number.size

    def read(buffer: bytes, offset: int, _limit: int, _depth: int) -> tuple[FieldValue, int]:
        return unpack(buffer, offset)[0], offset + size

    return read


def _float_reader(number: struct.Struct) -> _Reader:
    def read(buffer: bytes, offset: int, _limit: int, _depth: int) -> tuple[FieldValue, int]:
        value: float = number.unpack_from(buffer, offset)[0]
        if not isfinite(value):
            raise ProtocolError(ReplyCode.FRAME_ERROR, f"{value} is not a finite number")
        return value, offset + number.size

    return read


def _open_nested(buffer: bytes, offset: int, limit: int, depth: int) -> tuple[int, int]:
    """Return where a table or an array begins and ends that is inside so many others."""
    if depth == TABLE_DEPTH_MAX:
        raise ProtocolError(ReplyCode.FRAME_ERROR, f"tables nested deeper than {TABLE_DEPTH_MAX}")
    return _read_extent(buffer, offset, limit)


def _nested_reader(read_items: Callable[[bytes, int, int, int], FieldValue]) -> _Reader:
    def read(buffer: bytes, offset: int, limit: int, depth: int) -> tuple[FieldValue, int]:
        start, end = _open_nested(buffer, offset, limit, depth)
        return read_items(buffer, start, end, depth + 1), end

    return read


def _read_bool(buffer: bytes, offset: int, _limit: int, _depth: int) -> tuple[FieldValue, int]:
    return buffer[offset] != 0, offset + 1


def _read_decimal(buffer: bytes, offset: int, _limit: int, _depth: int) -> tuple[FieldValue, int]:
    return _DECIMAL.unpack_from(buffer, offset), offset + _DECIMAL.size


def _read_octets(buffer: bytes, offset: int, limit: int, _depth: int) -> tuple[FieldValue, int]:
    start, end = _read_extent(buffer, offset, limit)
    return buffer[start:end], end


def _read_void(_buffer: bytes, offset: int, _limit: int, _depth: int) -> tuple[FieldValue, int]:
    return None, offset


_READERS: dict[str, _Reader] = {
    **{tag: _number_reader(number) for tag, number in _NUMBERS.items()},
    "f": _float_reader(_NUMBERS["f"]),
    "d": _float_reader(_NUMBERS["d"]),
    "t": _read_bool,
    "D": _read_decimal,
    "S": _read_octets,
    "x": _read_octets,
    "F": _nested_reader(_read_fields),
    "A": _nested_reader(_read_array),
    "V": _read_void,
}

_Writer: TypeAlias = Callable[[bytearray, Any], None]
"""Appends the value alone.  Any, because the tag promises the type (`protocol/wire.py`)."""


def _number_writer(number: struct.Struct) -> _Writer:
    pack = number.pack

    def write(out: bytearray, value: float) -> None:
        out += pack(value)

    return write


def _write_bool(out: bytearray, value: bool) -> None:  # noqa: FBT001  a value, not a switch
    out.append(value)


def _write_decimal(out: bytearray, value: tuple[int, int]) -> None:
    out += _DECIMAL.pack(*value)


def _write_array(out: bytearray, array: list[Field]) -> None:
    start = _open_extent(out)
    for tag, value in array:
        out += tag.encode()
        _WRITERS[tag](out, value)
    _close_extent(out, start)


def _write_void(_out: bytearray, _value: None) -> None:
    """A void is its tag alone."""


_WRITERS: dict[str, _Writer] = {
    **{tag: _number_writer(number) for tag, number in _NUMBERS.items()},
    "t": _write_bool,
    "D": _write_decimal,
    "S": write_longstr,
    "x": write_longstr,
    "F": write_table,
    "A": _write_array,
    "V": _write_void,
}

_TAGGERS: dict[type, Callable[[Any], Field]] = {
    str: lambda text: ("S", text.encode(errors="surrogateescape")),
    bytes: lambda octets: ("S", octets),
    bool: lambda truth: ("t", truth),
    int: lambda number: ("l", number),
    float: lambda number: ("d", number),
    dict: lambda mapping: ("F", to_table(mapping)),
    list: lambda values: ("A", [to_field(value) for value in values]),
    type(None): lambda _none: ("V", None),
}
