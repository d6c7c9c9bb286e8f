"""Tables and properties: cut short, of unknown types, nested deeply, endless."""

from __future__ import annotations

import struct
from random import Random

from fluffle.protocol.methods import Basic, encode_method, make
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from tests.abuse.target import AttackContext, UnexpectedAnswer
from tests.support.client import raw_frame

FRAME_ERROR, SYNTAX_ERROR, INTERNAL_ERROR = 501, 502, 541
HAS_HEADERS = 0x2000
DECLARE = struct.pack(">HHH", 50, 10, 0) + b"\x05table\x00"
"""queue.declare up to its arguments."""
PUBLISH = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))


def table(fields: bytes, announced: int | None = None) -> bytes:
    """A field table of these bytes, honest about its length or not."""
    return struct.pack(">I", len(fields) if announced is None else announced) + fields


def field(name: bytes, tag: bytes, value: bytes = b"") -> bytes:
    return bytes([len(name)]) + name + tag + value


def nested(depth: int) -> bytes:
    """A table in a table in a table."""
    fields = b""
    for _ in range(depth):
        fields = field(b"t", b"F", table(fields))
    return fields


def declare_with(fields: bytes, announced: int | None = None) -> bytes:
    return raw_frame(FRAME_METHOD, 1, DECLARE + table(fields, announced))


def message_with(headers: bytes) -> bytes:
    """A message without a body whose headers are these bytes."""
    properties = struct.pack(">H", HAS_HEADERS) + headers
    return PUBLISH + raw_frame(FRAME_HEADER, 1, struct.pack(">HHQ", 60, 0, 0) + properties)


def truncated_tables(context: AttackContext, chance: Random) -> None:
    """Tables and strings in them that end before they say."""
    sent = chance.choice(
        (
            declare_with(b"", announced=chance.randrange(1, 1 << 32)),
            declare_with(field(b"s", b"S", struct.pack(">I", 1 << 31) + b"x")),
            declare_with(field(b"l", b"l", b"\x00" * 7)),
            message_with(table(b"", announced=1 << 31)),
            message_with(table(field(b"A", b"A", struct.pack(">I", 99)))),
        )
    )
    with context.log_in(1) as rogue:
        rogue.send(sent)
        rogue.ends(FRAME_ERROR, SYNTAX_ERROR)


def unknown_types(context: AttackContext, chance: Random) -> None:
    """Values with a tag that stands for nothing."""
    fields = field(b"u", chance.choice((b"\x00", b"z", b"\xff", b"?")), b"value")
    with context.log_in(1) as rogue:
        rogue.send(chance.choice((declare_with(fields), message_with(table(fields)))))
        rogue.ends(FRAME_ERROR, SYNTAX_ERROR)


def deep_tables(context: AttackContext, chance: Random) -> None:
    """Send tables nested as deep as a frame has room for."""
    fields = nested(chance.choice((200, 2_000, 10_000)))
    with context.log_in(1) as rogue:
        rogue.send(chance.choice((declare_with(fields), message_with(table(fields)))))
        rogue.ends(FRAME_ERROR, SYNTAX_ERROR)


def header_floods(context: AttackContext, chance: Random) -> None:
    """Messages with headers as large as a frame, all of them different: read, and then dropped."""
    fields = b"".join(field(b"%06d" % number, b"l", chance.randbytes(8)) for number in range(8_000))
    with context.log_in(1) as rogue:
        rogue.send(
            b"".join(message_with(table(fields + field(b"n", b"t", b"%c" % n))) for n in range(8))
        )
        rogue.client.settle(1)
        if rogue.client.transcript:
            raise UnexpectedAnswer(rogue.client.transcript[-1])


def bodies_in_crumbs(context: AttackContext, chance: Random) -> None:
    """A message whose body comes one byte a frame, and with nothing in between."""
    size = chance.randrange(1_000, 5_000)
    crumbs = raw_frame(FRAME_BODY, 1, b"") + raw_frame(FRAME_BODY, 1, b"x")
    header = raw_frame(FRAME_HEADER, 1, struct.pack(">HHQH", 60, 0, size, 0))
    with context.log_in(1) as rogue:
        rogue.send(PUBLISH + header + crumbs * size)
        rogue.client.settle(1)
        if rogue.client.transcript:
            raise UnexpectedAnswer(rogue.client.transcript[-1])


KINDS = {
    "truncated tables": truncated_tables,
    "unknown types": unknown_types,
    "deep tables": deep_tables,
    "header floods": header_floods,
    "bodies in crumbs": bodies_in_crumbs,
}
