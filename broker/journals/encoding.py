"""A batch of messages as an entry of a log.  Integers are big-endian; numbers are widths in bytes.

    shape:1  runs:4  messages:4
    for each run      messages:4  exchange_size:1  key_size:1  exchange  key
    for each message  size:4
    contents, one after the other

A run is consecutive messages of one origin.  The store's checksum covers all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from struct import Struct, pack, unpack_from

from fluffle.broker.message import Origin
from fluffle.storage.errors import StorageError

SHAPE = 1
"""Whoever changes the shape raises it, and still reads the old one."""

HEAD = Struct(">BII")
RUN = Struct(">IBB")


def encode(origins: Iterable[Origin], contents: Sequence[bytes]) -> bytes:
    """One origin a content."""
    pieces = [b""]
    for origin, same in groupby(origins):
        exchange = origin.exchange.encode(errors="surrogateescape")
        key = origin.routing_key.encode(errors="surrogateescape")
        pieces += (RUN.pack(len(list(same)), len(exchange), len(key)), exchange, key)
    pieces[0] = HEAD.pack(SHAPE, len(pieces) // 3, len(contents))
    pieces.append(pack(f">{len(contents)}I", *map(len, contents)))
    return b"".join((*pieces, *contents))


def decode(payload: bytes) -> tuple[list[Origin], list[bytes]]:
    """Origins and contents; equal origins are one object.  StorageError for another shape."""
    shape, run_count, message_count = HEAD.unpack_from(payload)
    if shape != SHAPE:
        raise StorageError(f"an entry has shape {shape}; this version reads shape {SHAPE}")
    at = HEAD.size
    known: dict[tuple[bytes, bytes], Origin] = {}
    origins: list[Origin] = []
    for _ in range(run_count):
        count, exchange_size, key_size = RUN.unpack_from(payload, at)
        key_at = at + RUN.size + exchange_size
        at = key_at + key_size
        names = payload[key_at - exchange_size : key_at], payload[key_at:at]
        if names not in known:
            known[names] = Origin(*(name.decode(errors="surrogateescape") for name in names))
        origins += [known[names]] * count
    sizes = unpack_from(f">{message_count}I", payload, at)
    at += 4 * message_count
    contents: list[bytes] = []
    for size in sizes:
        contents.append(payload[at : at + size])
        at += size
    return origins, contents
