"""msgpack without copying what is large: values as parts, to be sent one behind the other.

Bodies are most of what goes between nodes, and each goes to several.  So a frame that holds large
ones is a list of parts: the bodies as they are, and what stands between them.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Any, TypeAlias

import msgpack

Payload: TypeAlias = bytes | Sequence[bytes]
"""Of a frame: in one, or in parts."""

APART_BYTES_MIN = 4_096
"""From this size on a part more costs less than a copy."""

TEXT_ERRORS = "surrogateescape"
"""Names may hold octets that are not UTF-8."""

BIN_16, BIN_32 = Struct(">BH"), Struct(">BI")
BIN_16_TAG, BIN_32_TAG = 0xC5, 0xC6
BIN_16_BYTES_MAX = 0xFFFF
PACKER_BYTES = 4_096


def pack_apart(value: Any) -> list[bytes]:
    """What `msgpack.packb` makes of lists, tuples and plain values, in parts."""
    parts: list[bytes] = []
    packer = msgpack.Packer(autoreset=False, unicode_errors=TEXT_ERRORS, buf_size=PACKER_BYTES)
    _pack(value, packer, parts)
    parts.append(packer.bytes())
    return parts


def _pack(value: Any, packer: msgpack.Packer, parts: list[bytes]) -> None:
    if isinstance(value, list | tuple):
        packer.pack_array_header(len(value))
        for each in value:
            _pack(each, packer, parts)
    elif isinstance(value, bytes) and len(value) >= APART_BYTES_MIN:
        parts += (packer.bytes() + _head(len(value)), value)
        packer.reset()
    else:
        packer.pack(value)


def _head(size_bytes: int) -> bytes:
    """What is in front of so many bytes."""
    if size_bytes <= BIN_16_BYTES_MAX:
        return BIN_16.pack(BIN_16_TAG, size_bytes)
    return BIN_32.pack(BIN_32_TAG, size_bytes)


def parts_of(payload: Payload) -> Sequence[bytes]:
    return (payload,) if isinstance(payload, bytes) else payload


def size_of(payload: Payload) -> int:
    """In bytes."""
    return len(payload) if isinstance(payload, bytes) else sum(map(len, payload))


def joined(payload: Payload) -> bytes:
    """In one."""
    return payload if isinstance(payload, bytes) else b"".join(payload)
