"""Frames among bytes: as much of the wire as faults have to know.  AMQP 0-9-1 §2.3.5."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from fluffle.protocol.spec import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD_BYTES,
)

HEADER_BYTES = 8
"""Bytes of the protocol header with which a client begins."""

FRAME_BYTES_MAX = 1 << 24
"""Whatever is longer is none."""

KINDS = (
    b"",
    *(bytes([kind]) for kind in (FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT)),
)
"""Bytes that a frame may begin with."""

HEAD_BYTES = 7
"""Bytes of a frame before its payload: kind, channel, size of the payload."""

ACK, NACK, DELIVER = (60, 80), (60, 120), (60, 60)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
START_OK = (10, 11)


class WireFrame(NamedTuple):
    """Frame of the wire, with its bytes."""

    channel: int
    method: tuple[int, int] | None
    """The ids of its class and method; None if it is of another kind."""
    data: bytes

    @property
    def payload(self) -> bytes:
        return self.data[HEAD_BYTES:-1]

    @property
    def is_confirm(self) -> bool:
        """True if a broker confirms or refuses a publish by it."""
        return self.method in (ACK, NACK)

    @property
    def ends_channel(self) -> bool:
        return self.method in (CHANNEL_CLOSE, CHANNEL_CLOSE_OK)

    @property
    def tag(self) -> int:
        """Delivery tag of an ack or nack."""
        return int.from_bytes(self.data[HEAD_BYTES + 4 : HEAD_BYTES + 12], "big")

    @property
    def multiple(self) -> bool:
        """Bit `multiple` of an ack or nack."""
        return bool(self.data[HEAD_BYTES + 12] & 1)


def frames_of(data: bytes) -> Iterator[WireFrame]:
    """Yield the whole frames at the front."""
    at = 0
    while (size := size_at(data, at)) and at + size <= len(data):
        frame = data[at : at + size]
        method = None
        if frame[0] == FRAME_METHOD:
            class_id = int.from_bytes(frame[HEAD_BYTES : HEAD_BYTES + 2], "big")
            method = class_id, int.from_bytes(frame[HEAD_BYTES + 2 : HEAD_BYTES + 4], "big")
        yield WireFrame(int.from_bytes(frame[1:3], "big"), method, frame)
        at += size


def size_at(data: bytes, at: int) -> int:
    """Return the size of the frame that begins there; 0 if that is not known yet."""
    if len(data) < at + HEAD_BYTES:
        return 0
    return int.from_bytes(data[at + 3 : at + HEAD_BYTES], "big") + FRAME_OVERHEAD_BYTES


class FrameSplitter:
    """Splitter of a client's bytes into frames; the protocol header counts as one.

    Bytes that are no frame are passed on as they are from there on.
    """

    def __init__(self, *, waits_for_header: bool) -> None:
        self._left = b""
        self._waits_for_header = waits_for_header
        self._is_lost = False

    def feed(self, data: bytes) -> Iterator[WireFrame]:
        data, self._left = self._left + data, b""
        if self._waits_for_header and len(data) >= HEADER_BYTES:
            self._waits_for_header = False
            yield WireFrame(0, None, data[:HEADER_BYTES])
            data = data[HEADER_BYTES:]
        if not (self._waits_for_header or self._is_lost):
            for frame in frames_of(data):
                if frame.data[-1] != FRAME_END:
                    break
                data = data[len(frame.data) :]
                yield frame
            self._is_lost = not may_begin_a_frame(data)
        if self._is_lost:
            yield WireFrame(0, None, data)
        else:
            self._left = data


def may_begin_a_frame(data: bytes) -> bool:
    """True if it may be the first part of one."""
    size = size_at(data, 0)
    return data[:1] in KINDS and size <= FRAME_BYTES_MAX and not 0 < size <= len(data)


def consumer_tag_of(frame: WireFrame) -> str:
    """Return the consumer tag of a basic.deliver."""
    at = HEAD_BYTES + 4
    return frame.data[at + 1 : at + 1 + frame.data[at]].decode()


def marked_redelivered(frame: WireFrame) -> WireFrame:
    """Build a basic.deliver that says so."""
    at = HEAD_BYTES + 4
    at += 1 + frame.data[at] + 8  # consumer tag, delivery tag
    return frame._replace(data=frame.data[:at] + b"\x01" + frame.data[at + 1 :])


def in_two(frame: WireFrame, chance: Random) -> tuple[WireFrame, ...]:
    """Part of a body as two frames, if it is that."""
    payload = frame.payload
    if frame.data[0] != FRAME_BODY or len(payload) < 2:
        return (frame,)
    at = chance.randrange(1, len(payload))
    return tuple(
        frame._replace(data=frame.data[:3] + len(part).to_bytes(4, "big") + part + frame.data[-1:])
        for part in (payload[:at], payload[at:])
    )
