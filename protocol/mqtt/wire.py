"""Data of MQTT as bytes: integers, strings, binary data, and lengths of seven bits an octet.

Every reader takes the buffer and an offset and returns the value with the offset behind it; what
cannot be read raises InvalidPacket with MALFORMED_PACKET.  Source: S5 §1.5.
"""

import re
from struct import Struct

from fluffle.protocol.mqtt.codes import malformed

VARINT_BYTES_MAX = 4
VARINT_MAX = 268_435_455
STRING_BYTES_MAX = 0xFFFF

FORBIDDEN_CHARACTERS = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
"""Control characters and non-characters, which a broker may refuse (§1.5.4); mosquitto does."""

unpack_u16 = Struct(">H").unpack_from
unpack_u32 = Struct(">I").unpack_from
unpack_u8_and_u16 = Struct(">BH").unpack_from
pack_u16 = Struct(">H").pack
pack_u32 = Struct(">I").pack


def read_u8(buffer: bytes, offset: int) -> tuple[int, int]:
    if offset >= len(buffer):
        raise cut_short()
    return buffer[offset], offset + 1


def read_u16(buffer: bytes, offset: int) -> tuple[int, int]:
    if offset + 2 > len(buffer):
        raise cut_short()
    return unpack_u16(buffer, offset)[0], offset + 2


def read_u32(buffer: bytes, offset: int) -> tuple[int, int]:
    if offset + 4 > len(buffer):
        raise cut_short()
    return unpack_u32(buffer, offset)[0], offset + 4


def read_varint(buffer: bytes, offset: int) -> tuple[int, int]:
    """Read an integer of seven bits an octet, which must not be longer than needed."""
    value = shift = 0
    for at in range(offset, min(offset + VARINT_BYTES_MAX, len(buffer))):
        octet = buffer[at]
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if shift and not octet:
                raise malformed("variable byte integer is longer than needed")
            return value, at + 1
        shift += 7
    if offset + VARINT_BYTES_MAX <= len(buffer):
        raise malformed("variable byte integer of more than four bytes")
    raise cut_short()


def read_binary(buffer: bytes, offset: int) -> tuple[bytes, int]:
    start = offset + 2
    if start > len(buffer):
        raise cut_short()
    end: int = start + unpack_u16(buffer, offset)[0]
    if end > len(buffer):
        raise cut_short()
    return buffer[start:end], end


def read_string(buffer: bytes, offset: int) -> tuple[str, int]:
    """Read a string that may hold any character but U+0000."""
    start = offset + 2
    if start > len(buffer):
        raise cut_short()
    end = start + (buffer[offset] << 8 | buffer[offset + 1])
    if end > len(buffer):
        raise cut_short()
    try:
        text = buffer[start:end].decode()
    except UnicodeDecodeError:
        raise malformed("string is not UTF-8") from None
    if "\0" in text:
        raise malformed("string with U+0000")
    return text, end


def read_name(buffer: bytes, offset: int) -> tuple[str, int]:
    """Read a string that names something: a topic filter, a client, a user."""
    raw, end = read_binary(buffer, offset)
    return decode_name(raw), end


def decode_name(raw: bytes) -> str:
    """Decode what `read_name` reads: it holds no control characters and no non-characters."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise malformed("string is not UTF-8") from None
    if not (text.isascii() and text.isprintable()) and FORBIDDEN_CHARACTERS.search(text):
        raise malformed("string with a character that is not allowed")
    return text


def encode_varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value > VARINT_MAX:
        raise ValueError(f"{value} is too large for a variable byte integer")
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def encode_binary(value: bytes) -> bytes:
    if len(value) > STRING_BYTES_MAX:
        raise ValueError(f"string of {len(value)} bytes")
    return pack_u16(len(value)) + value


def encode_string(value: str) -> bytes:
    return encode_binary(value.encode())


def cut_short() -> Exception:
    return malformed("packet is shorter than its fields")
