"""Frames and methods that are no frames and no methods, on a connection that is open."""

from __future__ import annotations

import struct
from random import Random

from fluffle.protocol.methods import Basic, Channel, Queue, encode_method, make
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD
from tests.abuse.target import AttackContext
from tests.support.client import raw_frame

FRAME_ERROR, SYNTAX_ERROR, COMMAND_INVALID, CHANNEL_ERROR, UNEXPECTED_FRAME = (
    501,
    502,
    503,
    504,
    505,
)

DECLARE = struct.pack(">HHH", 50, 10, 0)
"""queue.declare up to the name of the queue."""


def malformed_frames(context: AttackContext, chance: Random) -> None:
    """A wrong end, a kind that does not exist, a heartbeat that is none."""
    frame, code = chance.choice(
        (
            (raw_frame(FRAME_METHOD, 1, chance.randbytes(8), end=b"\x00"), FRAME_ERROR),
            (raw_frame(chance.choice((0, 4, 5, 7, 9, 255)), 1, b"x"), FRAME_ERROR),
            (raw_frame(FRAME_HEARTBEAT, 0, b"beat"), FRAME_ERROR),
            (raw_frame(FRAME_HEARTBEAT, 1, b""), UNEXPECTED_FRAME),
            (raw_frame(FRAME_METHOD, 1, b""), FRAME_ERROR),
        )
    )
    with context.log_in(1) as rogue:
        rogue.send(frame)
        rogue.ends(code)


def oversized_frames(context: AttackContext, chance: Random) -> None:
    """Announced far beyond frame_max; none of it is waited for."""
    size = chance.choice((131_073, 1 << 20, (1 << 32) - 1))
    with context.log_in(1) as rogue:
        rogue.send(struct.pack(">BHI", chance.choice((1, 2, 3)), 1, size) + bytes(64))
        rogue.ends(FRAME_ERROR)


def unknown_methods(context: AttackContext, chance: Random) -> None:
    """Classes and methods that do not exist, where RabbitMQ just hangs up."""
    class_id, method_id = chance.choice(((60, 999), (1, 1), (65_535, 65_535), (0, 0)))
    with context.log_in(1) as rogue:
        rogue.send(raw_frame(FRAME_METHOD, 1, struct.pack(">HH", class_id, method_id) + b"x" * 9))
        rogue.ends(COMMAND_INVALID)


def truncated_arguments(context: AttackContext, chance: Random) -> None:
    """A method that ends before its arguments do."""
    whole = encode_method(1, make(Queue.Declare, queue="truncated"))[7:-1]
    cut = chance.randrange(5, len(whole) - 1)
    with context.log_in(1) as rogue:
        rogue.send(raw_frame(FRAME_METHOD, 1, whole[:cut]))
        rogue.ends(FRAME_ERROR, SYNTAX_ERROR)


def endless_shortstr(context: AttackContext, chance: Random) -> None:
    """A short string that is longer than its frame, or is not UTF-8."""
    name = chance.choice(
        (b"\xff" + b"x" * chance.randrange(200), b"\x04\xff\xfe\xfd\xfc" + bytes(5))
    )
    with context.log_in(1) as rogue:
        rogue.send(raw_frame(FRAME_METHOD, 1, DECLARE + name))
        rogue.ends(FRAME_ERROR, SYNTAX_ERROR)


def wrong_channels(context: AttackContext, chance: Random) -> None:
    """Methods, content and closes on channels that are not open, and on none."""
    number = chance.choice((0, 2, 2048, 65_535))
    sent = chance.choice(
        (
            encode_method(number, make(Queue.Declare, queue="nobody")),
            encode_method(number, make(Basic.Ack, delivery_tag=1)),
            encode_method(number, make(Channel.CloseOk)),
            encode_method(number, make(Basic.Publish, exchange="", routing_key="nowhere")),
        )
    )
    with context.log_in(1) as rogue:
        rogue.send(sent)
        rogue.ends(CHANNEL_ERROR, COMMAND_INVALID, UNEXPECTED_FRAME)


def contents_out_of_order(context: AttackContext, chance: Random) -> None:
    """Bodies without a header, headers without a method, methods in the middle of a message."""
    publish = encode_method(1, make(Basic.Publish, exchange="", routing_key="nowhere"))
    header = raw_frame(FRAME_HEADER, 1, struct.pack(">HHQH", 60, 0, 9, 0))
    body = raw_frame(FRAME_BODY, 1, b"body")
    sent = chance.choice(
        (body, header, publish + body, publish + publish, publish + header + header)
    )
    with context.log_in(1) as rogue:
        rogue.send(sent)
        rogue.ends(UNEXPECTED_FRAME)


def noise(context: AttackContext, chance: Random) -> None:
    """Random bytes in the place of frames, on a connection that is open."""
    with context.log_in(1) as rogue:
        rogue.send(chance.randbytes(chance.randrange(64, 4096)) + bytes(64))
        rogue.ends(FRAME_ERROR, UNEXPECTED_FRAME, COMMAND_INVALID, SYNTAX_ERROR)


KINDS = {
    "malformed frames": malformed_frames,
    "oversized frames": oversized_frames,
    "unknown methods": unknown_methods,
    "truncated arguments": truncated_arguments,
    "endless shortstr": endless_shortstr,
    "wrong channels": wrong_channels,
    "contents out of order": contents_out_of_order,
    "noise": noise,
}
