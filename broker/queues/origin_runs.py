"""The origins of messages that lie together, as bytes.  Integers are big-endian.

    for each run      messages:4  exchange_size:1  key_size:1  exchange  key

The two upper bits of how many messages there are say what their past is.  A run is consecutive
messages of one origin.  Names may hold octets that are not UTF-8.
"""

from collections.abc import Iterable
from itertools import groupby
from struct import Struct

from fluffle.broker.message import Origin, Past

RUN = Struct(">IBB")
PAST_SHIFT = 30
MESSAGES_MASK = (1 << PAST_SHIFT) - 1


def pack_origins(origins: Iterable[Origin]) -> list[bytes]:
    """One piece a run, to be joined."""
    pieces = []
    for origin, same in groupby(origins):
        exchange = origin.exchange.encode(errors="surrogateescape")
        key = origin.routing_key.encode(errors="surrogateescape")
        head = origin.past << PAST_SHIFT | len(list(same))
        pieces.append(RUN.pack(head, len(exchange), len(key)) + exchange + key)
    return pieces


def unpack_origins(data: bytes, at: int, runs: int, messages: int) -> tuple[list[Origin], int]:
    """The origin of each message, and where they end; equal ones are one object.

    Raises `ValueError` or `struct.error` for what `pack_origins` has never made.
    """
    known: dict[tuple[bytes, bytes, int], Origin] = {}
    origins: list[Origin] = []
    for _ in range(runs):
        head, exchange_size, key_size = RUN.unpack_from(data, at)
        count, past = head & MESSAGES_MASK, head >> PAST_SHIFT
        key_at = at + RUN.size + exchange_size
        at = key_at + key_size
        names = data[key_at - exchange_size : key_at], data[key_at:at], past
        if names not in known:
            exchange, key = (name.decode(errors="surrogateescape") for name in names[:2])
            known[names] = Origin(exchange, key, Past(past))
        if count > messages - len(origins):
            raise ValueError(f"an entry of {messages} messages has runs of more")
        origins += [known[names]] * count
    if len(origins) != messages:
        raise ValueError(f"an entry of {messages} messages has runs of {len(origins)}")
    return origins, at
