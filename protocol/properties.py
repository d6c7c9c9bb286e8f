"""A message's content as it is stored, and its properties, decoded on demand.

Content is kept in *canonical form*: the header frame and, unless the body is empty, one body
frame with the whole of it, both numbered for channel 1:

    0   1        3       7         9        11          19      21
    +---+--------+-------+---------+--------+-----------+-------+----------+----+
    | 2 | 0    1 | size  | class 60| weight | body size | flags | values … | CE |
    +---+--------+-------+---------+--------+-----------+-------+----------+----+
    | 3 | 0    1 | size  | body …                                        | CE |
    +---+--------+-------+-----------------------------------------------+----+

Raw properties are the flags and the values, as they stand.  The body frame may be larger than a
peer takes; `split_content` makes the frames to send.

A property of many messages at once is a *column*: their contents are laid one behind the other, and
what stands at the same place in each of them is one slice of that.  It costs a nanosecond for each
message, where asking one after the other costs fifty.

Source: AMQP 0-9-1 §4.2.6.  As in RabbitMQ, text need not be UTF-8 (it is read and written with
surrogateescape), flag bit 1 means nothing, and no value is checked for sense; but where RabbitMQ
answers 541 to properties it cannot read, here they are a FRAME_ERROR.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from fluffle.protocol import wire
from fluffle.protocol.spec import (
    CLASS_BASIC,
    DIRECT_REPLY_TO,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD_BYTES,
    ProtocolError,
    ReplyCode,
)
from fluffle.protocol.steps import Steps
from fluffle.protocol.wire import FieldTable

FLAG_CONTENT_TYPE = 1 << 15
FLAG_CONTENT_ENCODING = 1 << 14
FLAG_HEADERS = 1 << 13
FLAG_DELIVERY_MODE = 1 << 12
FLAG_PRIORITY = 1 << 11
FLAG_CORRELATION_ID = 1 << 10
FLAG_REPLY_TO = 1 << 9
FLAG_EXPIRATION = 1 << 8
FLAG_MESSAGE_ID = 1 << 7
FLAG_TIMESTAMP = 1 << 6
FLAG_TYPE = 1 << 5
FLAG_USER_ID = 1 << 4
FLAG_APP_ID = 1 << 3
FLAG_CLUSTER_ID = 1 << 2
FLAG_CONTINUED = 1 << 0
"""More flags follow: no property of AMQP 0-9-1 needs them, RabbitMQ reads none."""

DELIVERY_MODE_PERSISTENT = 2
"""The delivery mode of messages that outlive the broker."""


@dataclass(slots=True)
class Properties:
    """The fourteen properties of a message under their AMQP names; None is absent."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: FieldTable | None = None
    delivery_mode: int | None = None
    """2 is persistent; an octet, of which RabbitMQ takes any."""
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    """Milliseconds, as decimal text."""
    message_id: str | None = None
    timestamp: int | None = None
    """Seconds, 64 bits without sign."""
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


def decode_properties(raw: bytes) -> Properties:
    """Read raw properties.  ProtocolError, FRAME_ERROR, when they are not exactly well-formed."""
    try:
        (flags,) = _FLAGS.unpack_from(raw)
        if flags & FLAG_CONTINUED:
            raise _malformed("more than one word of flags")
        properties, offset = Properties(), _FLAGS.size
        for flag, name, read, _ in _PROPERTIES:
            if flags & flag:
                value, offset = read(raw, offset)
                setattr(properties, name, value)
    except (IndexError, struct.error) as error:
        raise _malformed("truncated") from error
    if offset != len(raw):
        raise _malformed(f"{len(raw) - offset} bytes too many")
    return properties


def decode_properties_in_steps(raw: bytes) -> Steps[Properties]:
    """Decode as `decode_properties` does, for some that may be long."""
    flags = property_flags(raw)
    if len(raw) <= OUTLINED_BYTES_MAX or not flags & FLAG_HEADERS or flags & FLAG_CONTINUED:
        return decode_properties(raw)
    start = _behind_headers(raw, flags & (FLAG_CONTENT_TYPE | FLAG_CONTENT_ENCODING), _FLAGS.size)
    headers, end = yield from wire.read_table_in_steps(raw, start)
    rest = _FLAGS.pack(flags & ~FLAG_HEADERS) + raw[_FLAGS.size : start] + raw[end:]
    properties = decode_properties(rest)
    properties.headers = headers
    return properties


def check_properties(raw: bytes) -> None:
    """Check properties as `decode_properties` does, some five times as fast, without their values.

    Only for properties without headers, whose inside would have to be looked at.
    """
    offset = _FLAGS.size
    try:
        (flags,) = _FLAGS.unpack_from(raw)
        if flags & FLAG_CONTINUED:
            raise _malformed("more than one word of flags")
        assert not flags & FLAG_HEADERS
        for size in _sizes(flags):
            offset += size or raw[offset] + 1
    except (IndexError, struct.error) as error:
        raise _malformed("truncated") from error
    if offset != len(raw):
        raise _malformed(f"{abs(len(raw) - offset)} bytes too many or missing")


OUTLINED_BYTES_MAX = 4096
"""Longer raw properties are their own outline: to look into them would hold up others."""


def outline(raw: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the part that a broker reads of raw properties, as raw properties, and where values
    stand that may be any.

    Properties that differ only in those places are well-formed alike and have the same outline.
    Headers are not in it, which only a headers exchange reads, nor is reply_to; a priority is 0 in
    it, and an expiration "0", for `priorities_of` and `read_expirations` look at each message.
    Properties are their own outline if they have headers for the broker (CC, BCC, x-mqtt-retain),
    the reply_to that is no queue, or a user_id; and so are malformed ones and long ones.
    """
    if len(raw) > OUTLINED_BYTES_MAX:
        return raw, []
    try:
        found = _read_outline(raw)
    except (ProtocolError, IndexError, struct.error):
        found = None
    return found or (raw, [])


def is_bare(outlined: bytes) -> bool:
    """True if an outline is one of properties that may have more, and need not be alike."""
    return not property_flags(outlined) & ~_READ


def encode_properties(properties: Properties) -> bytes:
    """Encode flags and values of what is not None as raw properties.

    ValueError or struct.error when a value does not fit its type.
    """
    flags, out = 0, bytearray(_FLAGS.size)
    for flag, name, _, write in _PROPERTIES:
        value = getattr(properties, name)
        if value is not None:
            flags |= flag
            write(out, value)
    _FLAGS.pack_into(out, 0, flags)
    return bytes(out)


def split_properties(raw: bytes) -> dict[int, bytes]:
    """Return the values of well-formed raw properties, undecoded, by their FLAG_ bits."""
    flags, offset = property_flags(raw), _FLAGS.size
    values: dict[int, bytes] = {}
    for flag, _, read, _ in _PROPERTIES:
        if flags & flag:
            _value, end = read(raw, offset)
            values[flag], offset = raw[offset:end], end
    return values


def join_properties(values: Mapping[int, bytes]) -> bytes:
    """Build raw properties of values by their FLAG_ bits, in any order."""
    there = sorted(values, reverse=True)
    return b"".join((_FLAGS.pack(sum(there)), *(values[flag] for flag in there)))


def property_flags(raw: bytes) -> int:
    """Return which properties there are in raw properties, as a set of FLAG_ bits."""
    return int.from_bytes(raw[: _FLAGS.size], "big")


def is_persistent(raw: bytes) -> bool:
    """True if well-formed raw properties have delivery_mode 2; what stands before it is skipped."""
    flags = property_flags(raw)
    if not flags & FLAG_DELIVERY_MODE:
        return False
    return raw[_behind_headers(raw, flags, _FLAGS.size)] == DELIVERY_MODE_PERSISTENT


def priority_of(content: bytes) -> int | None:
    """Return the priority of canonical content with well-formed properties; None if it names
    none."""
    at = place_of(content, FLAG_PRIORITY)
    return content[at] if at else None


def place_of(content: bytes, flag: int) -> int:
    """Return where the value of a flag stands in canonical content with well-formed properties;
    0 if it names none.  `place_and_flags_of` makes a list besides, of use for several contents
    alone."""
    flags = int.from_bytes(content[_PROPERTIES_OFFSET : _PROPERTIES_OFFSET + _FLAGS.size], "big")
    if not flags & flag:
        return 0
    offset = _PROPERTIES_OFFSET + _FLAGS.size
    for size in _sizes(flags & -flag & ~flag):
        if size > 0:
            offset += size
        elif size == _OF_TEXT:
            offset += content[offset] + 1
        else:
            offset += _SIZE.unpack_from(content, offset)[0] + _SIZE.size
    return offset


def place_and_flags_of(content: bytes, flag: int) -> tuple[int, list[int]]:
    """Return the offset of a value as `place_of` does, and the octets in front of it that determine
    it."""
    flags = int.from_bytes(content[_PROPERTIES_OFFSET : _PROPERTIES_OFFSET + _FLAGS.size], "big")
    if not flags & flag:
        return 0, []
    length_octets = [_PROPERTIES_OFFSET, _PROPERTIES_OFFSET + 1]
    offset = _PROPERTIES_OFFSET + _FLAGS.size
    for size in _sizes(flags & -flag & ~flag):
        if size > 0:
            offset += size
        elif size == _OF_TEXT:
            length_octets.append(offset)
            offset += content[offset] + 1
        else:
            length_octets += range(offset, offset + _SIZE.size)
            offset += _SIZE.unpack_from(content, offset)[0] + _SIZE.size
    return offset, length_octets


def _behind_headers(data: bytes, flags: int, offset: int) -> int:
    """Return where the delivery mode stands, or what comes behind it; values begin at an offset."""
    if flags & FLAG_CONTENT_TYPE:
        offset += data[offset] + 1
    if flags & FLAG_CONTENT_ENCODING:
        offset += data[offset] + 1
    if flags & FLAG_HEADERS:
        offset += _SIZE.unpack_from(data, offset)[0] + _SIZE.size
    return offset


def headers_of(content: bytes) -> FieldTable | None:
    """Return the headers of canonical content with well-formed properties, and nothing else of
    it."""
    flags = int.from_bytes(content[_PROPERTIES_OFFSET : _PROPERTIES_OFFSET + _FLAGS.size], "big")
    if not flags & FLAG_HEADERS:
        return None
    before = flags & (FLAG_CONTENT_TYPE | FLAG_CONTENT_ENCODING)
    offset = _behind_headers(content, before, _PROPERTIES_OFFSET + _FLAGS.size)
    return wire.read_table(content, offset)[0]


def raw_properties(content: bytes) -> bytes:
    """Return flags and values of canonical content."""
    return content[_PROPERTIES_OFFSET : _SIZE.unpack_from(content, 3)[0] + _FRAME_HEAD.size]


def body_size(content: bytes) -> int:
    """Return the length in bytes of the body of canonical content, or of its first `BODY_SIZE_STOP`
    bytes."""
    return int(_BODY_SIZE.unpack_from(content, _BODY_SIZE_OFFSET)[0])


def body_sizes(contents: list[bytes]) -> Sequence[int]:
    """Return the `body_size` of each of several contents, for less."""
    if len(contents) == 1:
        return (int.from_bytes(_BODY_SIZE_IN(contents[0]), "big"),)
    sizes = array("Q", b"".join(map(_BODY_SIZE_IN, contents)))
    if sys.byteorder == "little":
        sizes.byteswap()
    return sizes


def content_sizes(contents: list[bytes]) -> Sequence[int]:
    """Return the lengths in bytes of raw properties and body together, of each of several
    contents."""
    bare, full = _PROPERTIES_OFFSET + 1, _PROPERTIES_OFFSET + 1 + FRAME_OVERHEAD_BYTES
    return [
        len(content) - (full if body_bytes else bare)
        for content, body_bytes in zip(contents, body_sizes(contents), strict=True)
    ]


def body_of(content: bytes) -> bytes:
    """Return the body of canonical content."""
    return content[_header_end(content) + _FRAME_HEAD.size : -1]


def build_content(raw_properties: bytes, body: bytes) -> bytes:
    """Build canonical content of raw properties and a body."""
    header = _header_frame(raw_properties, len(body))
    if not body:
        return header
    return b"".join((header, _FRAME_HEAD.pack(FRAME_BODY, 1, len(body)), body, _END))


def build_contents(raw_properties: bytes, bodies: list[bytes]) -> list[bytes]:
    """Build canonical contents as `build_content` does, of bodies that have the same properties;
    what stands in front of a body is built once for each length."""
    heads = {size: _content_head(raw_properties, size) for size in {*map(len, bodies)}}
    return [heads[len(body)] + body + _END if body else heads[0] for body in bodies]


def replace_properties(content: bytes, raw_properties: bytes) -> bytes:
    """Build canonical content with other properties and the same body."""
    header = _header_frame(raw_properties, body_size(content))
    return header + content[_header_end(content) :]


def split_content(content: bytes, channel: int, frame_max_bytes: int) -> bytes:
    """Split canonical content into frames for a channel; no body frame is empty.

    Body frames are at most `frame_max_bytes` long in all; 0 sets no limit.  A header is one
    frame whatever its size.
    """
    header_end = _header_end(content)
    body_bytes = body_size(content)
    piece_bytes = frame_max_bytes - FRAME_OVERHEAD_BYTES if frame_max_bytes else body_bytes
    if channel == 1 and body_bytes <= piece_bytes:
        return content
    channel_number = channel.to_bytes(2, "big")
    parts: list[bytes | memoryview] = [content[:1], channel_number, content[3:header_end]]
    body = memoryview(content)[header_end + _FRAME_HEAD.size : -1]
    for start in range(0, body_bytes, piece_bytes or 1):
        piece = body[start : start + piece_bytes]
        parts += (_FRAME_HEAD.pack(FRAME_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


_READ = FLAG_DELIVERY_MODE | FLAG_PRIORITY | FLAG_EXPIRATION
RETAIN = "x-mqtt-retain"
"""Header of messages that are to be retained for clients of MQTT: a boolean."""
_BROKER_HEADERS = frozenset((b"CC", b"BCC", RETAIN.encode()))
_FRAME_HEAD = struct.Struct(">BHI")
_HEADER_START = struct.Struct(">BHIHHQ")
"""Frame head, class, weight, body size: what stands before raw properties."""
_PROPERTIES_OFFSET = _HEADER_START.size
_BODY_SIZE_OFFSET = 11
_BODY_SIZE = struct.Struct(">Q")
BODY_SIZE_STOP = _BODY_SIZE_OFFSET + _BODY_SIZE.size
_BODY_SIZE_IN = itemgetter(slice(_BODY_SIZE_OFFSET, _BODY_SIZE_OFFSET + _BODY_SIZE.size))
_SIZE = struct.Struct(">I")
_FLAGS = struct.Struct(">H")
_TIMESTAMP = struct.Struct(">Q")
_END = bytes((FRAME_END,))


def _header_frame(raw: bytes, body_bytes: int) -> bytes:
    size = _PROPERTIES_OFFSET - _FRAME_HEAD.size + len(raw)
    return _HEADER_START.pack(FRAME_HEADER, 1, size, CLASS_BASIC, 0, body_bytes) + raw + _END


def _content_head(raw: bytes, body_bytes: int) -> bytes:
    header = _header_frame(raw, body_bytes)
    return header + _FRAME_HEAD.pack(FRAME_BODY, 1, body_bytes) if body_bytes else header


def _header_end(content: bytes) -> int:
    """Return the offset behind the header frame."""
    return int.from_bytes(content[3:7], "big") + FRAME_OVERHEAD_BYTES


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(ReplyCode.FRAME_ERROR, f"malformed content properties: {what}")


def _read_outline(raw: bytes) -> tuple[bytes, list[tuple[int, int]]] | None:
    """Read an outline as `outline` does; None, or an error, for properties that are their own
    outline."""
    flags = property_flags(raw)
    if flags & (FLAG_CONTINUED | FLAG_USER_ID):
        return None
    kept = bytearray(_FLAGS.pack(flags & _READ))
    free: list[tuple[int, int]] = []
    offset = _FLAGS.size
    for flag, _, read, _ in _PROPERTIES:
        if not flags & flag:
            continue
        start = offset
        if flag == FLAG_HEADERS:
            keys, found, offset = wire.survey_table(raw, start)
            if not _BROKER_HEADERS.isdisjoint(keys):
                return None
            free += found
            continue
        value, offset = read(raw, start)
        if flag == FLAG_PRIORITY:
            kept.append(0)
            free.append((start, offset))
        elif flag == FLAG_EXPIRATION:
            kept += b"\x010"
            free.append((start + 1, offset))
        elif flag & _READ:
            kept += raw[start:offset]
        elif flag == FLAG_TIMESTAMP:
            free.append((start, offset))
        elif flag != FLAG_REPLY_TO:
            free.append((start + 1, offset))
        elif value == DIRECT_REPLY_TO:
            return None
    return (bytes(kept), free) if offset == len(raw) else None


def _read_octet(raw: bytes, offset: int) -> tuple[int, int]:
    return raw[offset], offset + 1


def _write_octet(out: bytearray, value: int) -> None:
    out.append(value)


def _read_timestamp(raw: bytes, offset: int) -> tuple[int, int]:
    return _TIMESTAMP.unpack_from(raw, offset)[0], offset + _TIMESTAMP.size


def _write_timestamp(out: bytearray, seconds: int) -> None:
    out += _TIMESTAMP.pack(seconds)


_Codec = tuple[Callable[[bytes, int], tuple[Any, int]], Callable[[bytearray, Any], None]]
_TEXT: _Codec = (wire.read_any_shortstr, wire.write_shortstr)
_OCTET: _Codec = (_read_octet, _write_octet)
_SECONDS: _Codec = (_read_timestamp, _write_timestamp)
_TABLE: _Codec = (wire.read_table, wire.write_table)

_PROPERTIES = (
    (FLAG_CONTENT_TYPE, "content_type", *_TEXT),
    (FLAG_CONTENT_ENCODING, "content_encoding", *_TEXT),
    (FLAG_HEADERS, "headers", *_TABLE),
    (FLAG_DELIVERY_MODE, "delivery_mode", *_OCTET),
    (FLAG_PRIORITY, "priority", *_OCTET),
    (FLAG_CORRELATION_ID, "correlation_id", *_TEXT),
    (FLAG_REPLY_TO, "reply_to", *_TEXT),
    (FLAG_EXPIRATION, "expiration", *_TEXT),
    (FLAG_MESSAGE_ID, "message_id", *_TEXT),
    (FLAG_TIMESTAMP, "timestamp", *_SECONDS),
    (FLAG_TYPE, "type", *_TEXT),
    (FLAG_USER_ID, "user_id", *_TEXT),
    (FLAG_APP_ID, "app_id", *_TEXT),
    (FLAG_CLUSTER_ID, "cluster_id", *_TEXT),
)
"""(flag, name, reader, writer), in the order of the wire."""


_OF_TEXT, _OF_TABLE = 0, -1


@cache
def _sizes(flags: int) -> tuple[int, ...]:
    """Yield the length of each value that `flags` announce; a short string has its own, and so has
    a table."""
    sizes = {FLAG_DELIVERY_MODE: 1, FLAG_PRIORITY: 1, FLAG_TIMESTAMP: _TIMESTAMP.size}
    sizes[FLAG_HEADERS] = _OF_TABLE
    return tuple(sizes.get(flag, _OF_TEXT) for flag, *_ in _PROPERTIES if flags & flag)


# Columns

FEW = 4
"""Fewer are asked one after the other."""

MANY = 32
"""Number of texts from which it is worth while to look at each octet."""

HEAD_BYTES_MAX = 2048
"""Where more stands in front of a value, it is sooner found in each than copied."""

LAID_OUT_BYTES_MAX = 512
"""Length in bytes up to which contents are laid out whole; of longer ones only the beginning is
copied."""

ALL_OCTETS = bytes(range(256))


class PriorityColumn(NamedTuple):
    """Priorities of several messages, one octet each."""

    octets: bytes
    content_bytes: int
    """How long each content is; 0 if they differ, or it was not measured."""


def priorities_of(contents: list[bytes]) -> PriorityColumn | None:
    """Return the priorities of several canonical contents with well-formed properties, if they name
    some; None if they do not.  Either all of them do or none does."""
    at, length_octets = place_and_flags_of(contents[0], FLAG_PRIORITY)
    if not at:
        return None
    count = len(contents)
    if count == 1:
        return PriorityColumn(contents[0][at : at + 1], len(contents[0]))
    if count >= FEW and at < HEAD_BYTES_MAX:
        laid_out, stride = lay_out(contents, at + 1)
        if not differing(laid_out, stride, length_octets, count):
            return PriorityColumn(laid_out[at::stride], stride if stride > at + 1 else 0)
    octets = bytes([content[place_of(content, FLAG_PRIORITY)] for content in contents])
    return PriorityColumn(octets, 0)


def read_expirations(contents: list[bytes], read: Callable[[bytes], int]) -> list[int]:
    """Return what `read` makes of the expirations of several canonical contents with well-formed
    properties, which all have one: of equal ones once if they are few."""
    count = len(contents)
    if count < FEW:
        return read_each([*map(expiration_of, contents)], read)
    at, length_octets = place_and_flags_of(contents[0], FLAG_EXPIRATION)
    if at >= HEAD_BYTES_MAX:
        return read_each([*map(expiration_of, contents)], read)
    start, stop = at + 1, at + 1 + contents[0][at]
    laid_out, stride = lay_out(contents, stop)
    if differing(laid_out, stride, [*length_octets, at], count):
        return read_each([*map(expiration_of, contents)], read)
    places = differing(laid_out, stride, range(start, stop), count) if count >= MANY else []
    if len(places) == 1:
        return read_column(laid_out, stride, places[0], slice(start, stop), read)
    return read_each([*map(itemgetter(slice(start, stop)), contents)], read)


def read_each(texts: list[bytes], read: Callable[[bytes], int]) -> list[int]:
    """Read each of several texts with `read`."""
    kinds = {*texts}
    if 2 * len(kinds) > len(texts):
        return [*map(read, texts)]
    found = {kind: read(kind) for kind in kinds}
    return [*map(found.__getitem__, texts)]


def read_column(
    laid_out: bytes, stride: int, place: int, part: slice, read: Callable[[bytes], int]
) -> list[int]:
    """Return what `read` makes of a part of all that was laid out, which differs in that octet
    alone."""
    before, behind = laid_out[part.start : place], laid_out[place + 1 : part.stop]
    column = laid_out[place::stride]
    found = {octet: read(before + bytes((octet,)) + behind) for octet in kinds_of(column)}
    return [*map(found.__getitem__, column)]


def expiration_of(content: bytes) -> bytes:
    """Return the expiration of canonical content, which must name one."""
    at = place_of(content, FLAG_EXPIRATION)
    return content[at + 1 : at + 1 + content[at]]


def lay_out(contents: list[bytes], head_bytes: int) -> tuple[bytes, int]:
    """Contents one behind the other, and how far one begins behind the one before; no more of each
    than so much at its beginning, if they are long or not equally long.

    One that ends before stands in no such order.  But then it has other flags than the first, or
    another length of a value; and what tells that does, since it is in front of where they part.
    """
    stride = len(contents[0])
    if stride <= LAID_OUT_BYTES_MAX and len({*map(len, contents)}) == 1:
        return b"".join(contents), stride
    return b"".join(map(itemgetter(slice(head_bytes)), contents)), head_bytes


def differing(laid_out: bytes, stride: int, places: Iterable[int], count: int) -> list[int]:
    """Return which of these octets are not the same in all of so many that were laid out."""
    return [
        place for place in places if laid_out[place::stride] != laid_out[place : place + 1] * count
    ]


def kinds_of(octets: bytes) -> bytes:
    """Return the octets there are, each once, rising."""
    return ALL_OCTETS.translate(None, ALL_OCTETS.translate(None, octets))
