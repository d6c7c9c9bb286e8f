"""Frames as clients send them, and readers to give them to."""

from struct import pack

from pamqp import body, commands, frame, header, heartbeat

from fluffle.protocol.properties import build_content
from fluffle.protocol.reader import Event, HeaderReceived, MessageStarted, Publishes, Reader
from fluffle.protocol.spec import PROTOCOL_HEADER, ReplyCode

FRAME_BYTES_MAX = 128
MESSAGE_BYTES_MAX = 1000
UNFINISHED_BYTES_MAX = 4000
PERSISTENT = commands.Basic.Properties(delivery_mode=2)
HEARTBEAT = frame.marshal(heartbeat.Heartbeat(), 0)


def make_reader(frame_bytes_max: int = FRAME_BYTES_MAX) -> Reader:
    return Reader(
        frame_bytes_max=frame_bytes_max,
        message_bytes_max=MESSAGE_BYTES_MAX,
        unfinished_bytes_max=UNFINISHED_BYTES_MAX,
    )


def open_reader(frame_bytes_max: int = FRAME_BYTES_MAX) -> Reader:
    """A reader that takes all there is."""
    reader = make_reader(frame_bytes_max)
    assert reader.feed(PROTOCOL_HEADER) == [HeaderReceived(PROTOCOL_HEADER)]
    reader.open()
    return reader


def method(channel: int, command: frame.FrameTypes) -> bytes:
    return frame.marshal(command, channel)


def raw(kind: int, channel: int, payload: bytes, end: int = 0xCE) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def publish(channel: int, key: str = "key") -> bytes:
    return method(channel, commands.Basic.Publish(exchange="ex", routing_key=key))


def content_header(channel: int, body_bytes: int) -> bytes:
    return frame.marshal(header.ContentHeader(0, body_bytes, PERSISTENT), channel)


def content_body(channel: int, octets: bytes) -> bytes:
    return frame.marshal(body.ContentBody(octets), channel)


def content(channel: int, *pieces: bytes) -> bytes:
    """Header and body frames, one a piece."""
    frames = [content_header(channel, sum(map(len, pieces)))]
    return b"".join(frames + [content_body(channel, piece) for piece in pieces])


OUTLINE = b"\x10\x00\x02"
"""Outline of `PERSISTENT`, which has no other properties."""


def stored(octets: bytes) -> bytes:
    return build_content(OUTLINE, octets)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    return method(channel, commands.Basic.Ack(tag, multiple))


def published(channel: int, *bodies: bytes, key: str = "key") -> Publishes:
    contents = [stored(octets) for octets in bodies]
    methods = [publish(channel, key)] * len(contents)
    return Publishes(channel, methods, contents, sum(map(len, contents)), OUTLINE)


def feed(reader: Reader, data: bytes) -> list[Event]:
    """Events for `data`, without the starts of messages, which depend on how it is cut."""
    return [event for event in reader.feed(data) if not isinstance(event, MessageStarted)]


UNEXPECTED, FRAME_ERROR = ReplyCode.UNEXPECTED_FRAME, ReplyCode.FRAME_ERROR
NOT_METHOD = "expected method frame, got non method frame instead"
