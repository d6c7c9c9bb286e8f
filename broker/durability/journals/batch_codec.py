"""A batch of messages as an entry of a log.  Integers are big-endian; numbers are widths in bytes.

    shape:1  runs:4  messages:4
    origins in runs, as in `queues/origin_runs`
    for each message  size:4
    for each message  expiry:8        in shape 2 only: milliseconds since 1970
    contents, one after the other

The store's checksum covers all of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from struct import Struct, pack, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import PagedOutMessages
from fluffle.broker.queues.origin_codec import pack_origins, unpack_origins
from fluffle.storage.errors import StorageError

SHAPE = 1
"""Version: raised when the shape changes; the old one is still read."""
EXPIRING = 2
"""The shape of messages some of which expire."""

HEAD = Struct(">BII")
SIZE_BYTES = 4
EXPIRY_BYTES = 8


def encode(
    origins: Iterable[Origin], contents: Sequence[bytes], expiries: Expiries | None = None
) -> bytes:
    """Encode messages, one origin a content."""
    runs = pack_origins(origins)
    head = HEAD.pack(SHAPE if expiries is None else EXPIRING, len(runs), len(contents))
    sizes = pack(f">{len(contents)}I", *map(len, contents))
    times = b"" if expiries is None else pack(f">{len(expiries)}Q", *expiries)
    return b"".join((head, *runs, sizes, times, *contents))


def decode(payload: bytes) -> PagedOutMessages:
    """Origins, contents and when they expire; equal origins are one object.

    StorageError for another shape, and for what `encode` has never made.
    """
    shape = payload[:1]
    if shape not in (bytes((SHAPE,)), bytes((EXPIRING,))):
        raise StorageError(f"an entry has shape {shape!r}; this version reads up to {EXPIRING}")
    expiries: Expiries | None = None
    try:
        origins, at = _origins(payload)
        sizes = unpack_from(f">{len(origins)}I", payload, at)
        at += SIZE_BYTES * len(sizes)
        if shape[0] == EXPIRING:
            expiries = array("Q", unpack_from(f">{len(origins)}Q", payload, at))
            at += EXPIRY_BYTES * len(sizes)
    except (StructError, ValueError) as error:
        raise StorageError(f"an entry cannot be read: {error}") from error
    if at + sum(sizes) != len(payload):
        raise StorageError(f"an entry of {len(payload)} bytes should have {at + sum(sizes)}")
    contents: list[bytes] = []
    for size in sizes:
        contents.append(payload[at : at + size])
        at += size
    return PagedOutMessages(origins, contents, expiries)


def _origins(payload: bytes) -> tuple[list[Origin], int]:
    """Return the origin of each message, and where they end.  StorageError, struct.error."""
    _shape, run_count, message_count = HEAD.unpack_from(payload)
    if message_count * SIZE_BYTES > len(payload):
        raise StorageError(f"an entry of {len(payload)} bytes is said to hold {message_count}")
    return unpack_origins(payload, HEAD.size, run_count, message_count)
