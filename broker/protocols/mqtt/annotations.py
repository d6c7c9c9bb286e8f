"""Annotations of MQTT's messages: what their content, which is AMQP's, cannot say.

    0        1       2
    +--------+-------+--------------+----------------+-------------------+
    | version| flags | topic        | client id      | properties        |
    |   1    |       | u16, UTF-8   | u8, octets     | as in PUBLISH     |
    +--------+-------+--------------+----------------+-------------------+

    flags   1 2   QoS under which it was published
            4     RETAIN
            8     there is a topic; else it is what becomes of the routing key
            16    the client id is a digest of one that is longer than 64 bytes
            32    there are properties; else the content says them, all in the order of an encoder
            64    there is a Payload Format Indicator, and 128 says which

A message of which must be known that it comes again has a key behind the first octet, whose upper
bit is set then (`base.message.with_key`).

One value is shared by the messages of a run, and by all that differ in nothing of this: a client
that publishes to many topics has one, unless their names have dots or stars.

A version that is not known here was written by a newer node, and so it is passed over: then a
message is taken for one of AMQP.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from fluffle.broker.base.message import without_key

VERSION = 1

QOS_MASK = 0b0000_0011
RETAIN = 0b0000_0100
HAS_TOPIC = 0b0000_1000
IS_DIGEST = 0b0001_0000
HAS_PROPERTIES = 0b0010_0000
HAS_FORMAT = 0b0100_0000
FORMAT_IS_TEXT = 0b1000_0000

CLIENT_ID_BYTES_MAX = 64
"""Longest client identifier that is kept; of a longer one its digest is, so that annotations are
not much larger than what was sent."""
DIGEST_BYTES = 16


class Annotations(NamedTuple):
    """Facts about an MQTT message that its content does not say."""

    qos: int
    retain: bool
    client: bytes
    """Mark of the publisher, made by `client_mark`."""
    topic: str | None = None
    """None if it is what becomes of the routing key."""
    properties: bytes | None = None
    """Properties of PUBLISH that are passed on; None if the content says them."""
    payload_format: int | None = None
    """Payload Format Indicator, if there are no `properties`."""


def client_mark(client_id: str) -> bytes:
    """Return what annotations say of a client: its identifier, or a digest of a long one."""
    octets = client_id.encode()
    if len(octets) <= CLIENT_ID_BYTES_MAX:
        return b"\0" + octets
    return b"\1" + sha256(octets).digest()[:DIGEST_BYTES]


def pack(annotations: Annotations) -> bytes:
    """Return annotations as bytes that are kept with messages."""
    qos, retain, client, topic, properties, payload_format = annotations
    flags = qos | (RETAIN if retain else 0)
    parts = [b"", bytes((len(client) - 1,)), client[1:]]
    if client[0]:
        flags |= IS_DIGEST
    if topic is not None:
        flags |= HAS_TOPIC
        octets = topic.encode()
        parts[:1] = [b"", len(octets).to_bytes(2), octets]
    if properties is not None:
        flags |= HAS_PROPERTIES
        parts.append(properties)
    elif payload_format is not None:
        flags |= HAS_FORMAT | (FORMAT_IS_TEXT if payload_format else 0)
    parts[0] = bytes((VERSION, flags))
    return b"".join(parts)


def unpack(octets: bytes) -> Annotations | None:
    """Read annotations; None if there are none, or of a version that is not known here."""
    octets = without_key(octets)
    if not octets or octets[0] != VERSION:
        return None
    flags, at = octets[1], 2
    topic = None
    if flags & HAS_TOPIC:
        end = at + 2 + int.from_bytes(octets[at : at + 2])
        topic, at = octets[at + 2 : end].decode(), end
    end = at + 1 + octets[at]
    client = (b"\1" if flags & IS_DIGEST else b"\0") + octets[at + 1 : end]
    return Annotations(
        flags & QOS_MASK,
        bool(flags & RETAIN),
        client,
        topic,
        octets[end:] if flags & HAS_PROPERTIES else None,
        int(bool(flags & FORMAT_IS_TEXT)) if flags & HAS_FORMAT else None,
    )
