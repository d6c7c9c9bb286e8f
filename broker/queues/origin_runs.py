"""The origins of messages that lie together, as bytes.  Integers are big-endian.

    for each run      messages:4  exchange_size:1  key_size:1  exchange  key

A run is consecutive messages of one origin.  Names may hold octets that are not UTF-8.
"""

from collections.abc import Iterable
from itertools import groupby
from struct import Struct

from fluffle.broker.message import Origin

RUN = Struct(">IBB")


def pack_origins(origins: Iterable[Origin]) -> list[bytes]:
    """One piece a run, to be joined."""
    pieces = []
    for origin, same in groupby(origins):
        exchange = origin.exchange.encode(errors="surrogateescape")
        key = origin.routing_key.encode(errors="surrogateescape")
        pieces.append(RUN.pack(len(list(same)), len(exchange), len(key)) + exchange + key)
    return pieces


def unpack_origins(data: bytes, at: int, runs: int, messages: int) -> tuple[list[Origin], int]:
    """The origin of each message, and where they end; equal ones are one object.

    Raises `ValueError` or `struct.error` for what `pack_origins` has never made.
    """
    known: dict[tuple[bytes, bytes], Origin] = {}
    origins: list[Origin] = []
    for _ in range(runs):
        count, exchange_size, key_size = RUN.unpack_from(data, at)
        key_at = at + RUN.size + exchange_size
        at = key_at + key_size
        names = data[key_at - exchange_size : key_at], data[key_at:at]
        if names not in known:
            known[names] = Origin(*(name.decode(errors="surrogateescape") for name in names))
        if count > messages - len(origins):
            raise ValueError(f"an entry of {messages} messages has runs of more")
        origins += [known[names]] * count
    if len(origins) != messages:
        raise ValueError(f"an entry of {messages} messages has runs of {len(origins)}")
    return origins, at
