"""Codec of the origins of messages that lie together.  Integers are big-endian.

    for each run      messages:4  exchange_size:1  key_size:1  exchange  key

The two upper bits of how many messages there are say what their past is.  A run is consecutive
messages of one origin.  Names may hold octets that are not UTF-8.

What an origin has besides stands in front of its run, in runs of no messages: each blind key as the
key of one without an exchange, and its annotations, in chunks, as the exchanges of some without a
key.  A node that does not know of them passes over these; one that knows of blind keys alone takes
chunks for keys that are empty.
"""

from collections.abc import Iterable
from itertools import groupby
from struct import Struct

from fluffle.broker.base.message import MessageAnnotations, Origin

RUN = Struct(">IBB")
PAST_SHIFT = 30
MESSAGES_MASK = (1 << PAST_SHIFT) - 1
CHUNK_BYTES = 255


def pack_origins(origins: Iterable[Origin]) -> list[bytes]:
    """Pack origins, one piece for each run of equal ones; the caller joins them."""
    pieces: list[bytes] = []
    for origin, same in groupby(origins):
        exchange = origin.exchange.encode(errors="surrogateescape")
        key = origin.routing_key.encode(errors="surrogateescape")
        pieces += map(pack_blind_key, origin.blind_keys)
        if origin.annotations:
            pieces += pack_annotations(origin.annotations)
        head = origin.past << PAST_SHIFT | len(list(same))
        pieces.append(RUN.pack(head, len(exchange), len(key)) + exchange + key)
    return pieces


def pack_blind_key(key: str) -> bytes:
    """Encode a key as a run of no messages."""
    name = key.encode(errors="surrogateescape")
    return RUN.pack(0, 0, len(name)) + name


def pack_annotations(annotations: bytes) -> list[bytes]:
    """Encode annotations as runs of no messages."""
    chunks = (
        annotations[start : start + CHUNK_BYTES]
        for start in range(0, len(annotations), CHUNK_BYTES)
    )
    return [RUN.pack(0, len(chunk), 0) + chunk for chunk in chunks]


def unpack_origins(data: bytes, at: int, runs: int, messages: int) -> tuple[list[Origin], int]:
    """The origin of each message, and where they end; equal ones are one object.

    Raises `ValueError` or `struct.error` for what `pack_origins` has never made.
    """
    known: dict[tuple[bytes, bytes, int, tuple[bytes, ...], bytes], Origin] = {}
    origins: list[Origin] = []
    blind: tuple[bytes, ...] = ()
    chunks: list[bytes] = []
    for _ in range(runs):
        head, exchange_size, key_size = RUN.unpack_from(data, at)
        count, past = head & MESSAGES_MASK, head >> PAST_SHIFT
        key_at = at + RUN.size + exchange_size
        at = key_at + key_size
        if not count:
            if exchange_size:
                chunks.append(data[key_at - exchange_size : key_at])
            else:
                blind += (data[key_at:at],)
            continue
        annotations = b""
        if chunks:
            annotations = b"".join(chunks)
            chunks = []
        names = data[key_at - exchange_size : key_at], data[key_at:at], past, blind, annotations
        if names not in known:
            exchange, key, *keys = map(text_of, (*names[:2], *blind))
            known[names] = Origin(exchange, key, MessageAnnotations(past), tuple(keys), annotations)
        blind = ()
        if count > messages - len(origins):
            raise ValueError(f"an entry of {messages} messages has runs of more")
        origins += [known[names]] * count
    if len(origins) != messages:
        raise ValueError(f"an entry of {messages} messages has runs of {len(origins)}")
    return origins, at


def text_of(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
