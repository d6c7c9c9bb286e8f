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
from struct import error as StructError  # noqa: N812  it is an exception

from fluffle.broker.message import Origin
from fluffle.storage.errors import StorageError

SHAPE = 1
"""Whoever changes the shape raises it, and still reads the old one."""

HEAD = Struct(">BII")
RUN = Struct(">IBB")
SIZE_BYTES = 4


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
    """Origins and contents; equal origins are one object.

    StorageError for another shape, and for what `encode` has never made.
    """
    if payload[:1] != bytes((SHAPE,)):
        raise StorageError(f"an entry has shape {payload[:1]!r}; this version reads shape {SHAPE}")
    try:
        origins, at = _origins(payload)
        sizes = unpack_from(f">{len(origins)}I", payload, at)
    except StructError as error:
        raise StorageError(f"an entry cannot be read: {error}") from error
    at += SIZE_BYTES * len(sizes)
    if at + sum(sizes) != len(payload):
        raise StorageError(f"an entry of {len(payload)} bytes should have {at + sum(sizes)}")
    contents: list[bytes] = []
    for size in sizes:
        contents.append(payload[at : at + size])
        at += size
    return origins, contents


def _origins(payload: bytes) -> tuple[list[Origin], int]:
    """The origin of each message, and where they end.  StorageError, struct.error."""
    _shape, run_count, message_count = HEAD.unpack_from(payload)
    if message_count * SIZE_BYTES > len(payload):
        raise StorageError(f"an entry of {len(payload)} bytes is said to hold {message_count}")
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
        if count > message_count - len(origins):
            raise StorageError(f"an entry of {message_count} messages has runs of more")
        origins += [known[names]] * count
    if len(origins) != message_count:
        raise StorageError(f"an entry of {message_count} messages has runs of {len(origins)}")
    return origins, at
