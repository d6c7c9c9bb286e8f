"""A batch of messages as an entry of a log.  Integers are big-endian; numbers are widths in bytes.

    shape:1  runs:4  messages:4
    origins in runs, as in `queues/origin_runs`
    for each message  size:4
    contents, one after the other

The store's checksum covers all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct, pack, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception

from fluffle.broker.message import Origin
from fluffle.broker.queues.origin_runs import pack_origins, unpack_origins
from fluffle.storage.errors import StorageError

SHAPE = 1
"""Whoever changes the shape raises it, and still reads the old one."""

HEAD = Struct(">BII")
SIZE_BYTES = 4


def encode(origins: Iterable[Origin], contents: Sequence[bytes]) -> bytes:
    """One origin a content."""
    runs = pack_origins(origins)
    head = HEAD.pack(SHAPE, len(runs), len(contents))
    sizes = pack(f">{len(contents)}I", *map(len, contents))
    return b"".join((head, *runs, sizes, *contents))


def decode(payload: bytes) -> tuple[list[Origin], list[bytes]]:
    """Origins and contents; equal origins are one object.

    StorageError for another shape, and for what `encode` has never made.
    """
    if payload[:1] != bytes((SHAPE,)):
        raise StorageError(f"an entry has shape {payload[:1]!r}; this version reads shape {SHAPE}")
    try:
        origins, at = _origins(payload)
        sizes = unpack_from(f">{len(origins)}I", payload, at)
    except (StructError, ValueError) as error:
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
    return unpack_origins(payload, HEAD.size, run_count, message_count)
