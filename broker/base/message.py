"""Messages below the protocols: where each was published, and its content as bytes.

A message is its `Origin` and its content, the header and body frames in canonical form
(`protocol/properties`).  Nothing is decoded until something asks, and a backlogged message is
one bytes object, no instance of a class: the collector never has to walk a backlog.

Origins of messages that lie together are packed so; integers are big-endian:

    for each run      messages:4  exchange_size:1  key_size:1  exchange  key

The two upper bits of how many messages there are say what their past is.  A run is consecutive
messages of one origin.  Names may hold octets that are not UTF-8.

What an origin has besides stands in front of its run, in runs of no messages: each blind key as the
key of one without an exchange, and its annotations, in chunks, as the exchanges of some without a
key.  A node that does not know of them passes over these; one that knows of blind keys alone takes
chunks for keys that are empty.
"""

from collections.abc import Iterable
from enum import IntEnum
from itertools import groupby
from struct import Struct
from typing import NamedTuple


class MessageAnnotations(IntEnum):
    """Facts about a message that the broker knows and its bytes do not contain.  On disk as it is
    here."""

    NONE = 0
    """Message published by a client; its death headers are not trusted."""
    DIED = 1
    """Message that died in a queue; the broker wrote its death headers."""
    REDIRECTED = 2
    """The same, and the queue has given it a routing key: those of its headers lead nowhere."""


ANNOTATIONS_BYTES_MAX = 65_536
"""The protocol that publishes a message keeps its annotations below."""

KEYED = 0b1000_0000
"""Bit of the first octet of annotations: a key of the message follows it.  It is the same when the
message is published again, and a queue that takes keys knows it by that."""

KEY_BYTES = 16

REMEMBERED_BYTES_MAX = 255
"""Annotations that are longer are not kept in any table of origins."""


def with_key(annotations: bytes, key: bytes) -> bytes:
    """Return annotations that have a key."""
    return bytes((annotations[0] | KEYED,)) + key + annotations[1:]


def key_in(annotations: bytes) -> bytes:
    """Return the key that annotations have; none if they have none."""
    is_keyed = annotations and annotations[0] & KEYED
    return annotations[1 : 1 + KEY_BYTES] if is_keyed else b""


def without_key(annotations: bytes) -> bytes:
    """Return annotations as they are without a key."""
    if not key_in(annotations):
        return annotations
    return bytes((annotations[0] & ~KEYED,)) + annotations[1 + KEY_BYTES :]


class Origin:
    """The exchange and the routing key under which messages were published, and what the protocol
    that published them has annotated.

    A virtual host interns its origins, so that equal ones are one object and compare by `is`; not
    all of them, since its table is bounded, and has none that `may_be_long`: two objects may be
    equal, and only work is lost by it.
    """

    __slots__ = ("annotations", "blind_keys", "exchange", "key", "past", "routing_key")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        past: MessageAnnotations = MessageAnnotations.NONE,
        blind_keys: tuple[str, ...] = (),
        annotations: bytes = b"",
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.past = past
        self.blind_keys = blind_keys
        """Routing keys of the BCC header, which no consumer may see: they are needed again when a
        message dies."""
        self.annotations = annotations
        """Octets of the protocol that published the messages, which alone reads them: what the
        canonical content cannot say.  They last as long as the message does, also when it dies.
        Where a queue gives it another routing key (`MessageAnnotations.REDIRECTED`), what they say
        of where it was published holds no more."""
        self.key = key_in(annotations)
        """Key of the one message that has it; none for most."""

    @property
    def may_be_long(self) -> bool:
        """True if it has something beside its names that a table should not keep."""
        is_long = len(self.annotations) > REMEMBERED_BYTES_MAX
        return is_long or bool(self.blind_keys or self.key)

    def __repr__(self) -> str:
        return f"Origin({self.exchange!r}, {self.routing_key!r}, {self.past!r})"


ORIGINS_MAX = 65_536
"""Origins are interned until there are so many; then afresh, and older messages keep theirs."""


class Origins:
    """The origins of one virtual host."""

    __slots__ = ("_origins",)

    def __init__(self) -> None:
        self._origins: dict[tuple[str, str, MessageAnnotations, bytes], Origin] = {}

    def of(
        self,
        exchange: str,
        routing_key: str,
        past: MessageAnnotations = MessageAnnotations.NONE,
        blind_keys: tuple[str, ...] = (),
        annotations: bytes = b"",
    ) -> Origin:
        """Return the one object for this exchange, routing key, past and annotations; a new one if
        it may be long."""
        if blind_keys or len(annotations) > REMEMBERED_BYTES_MAX or key_in(annotations):
            return Origin(exchange, routing_key, past, blind_keys, annotations)
        key = (exchange, routing_key, past, annotations)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = Origin(exchange, routing_key, past, (), annotations)
            self._origins[key] = origin
        return origin


NEVER_EXPIRES_MS = 0
"""In the place of a time: it does not come."""


class RetainedMessage(NamedTuple):
    """Message that is kept as the last of its topic."""

    content: bytes
    annotations: bytes
    """Annotations of the protocol that published it: see `Origin.annotations`."""
    user: str
    """Name of the user who published it."""
    stored_at_ms: int
    """Since 1970, as is the next."""
    expires_at_ms: int = NEVER_EXPIRES_MS


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
