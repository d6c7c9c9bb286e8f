"""Frames among bytes: as much of the wire as faults have to know.  AMQP 0-9-1 §2.3.5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fluffle.protocol.spec import FRAME_METHOD, FRAME_OVERHEAD_BYTES

HEAD_BYTES = 7
"""Of a frame before its payload: kind, channel, size of the payload."""

ACK, NACK, DELIVER = (60, 80), (60, 120), (60, 60)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
START_OK = (10, 11)


class Frame(NamedTuple):
    """One of them, with its bytes."""

    channel: int
    method: tuple[int, int] | None
    """The ids of its class and method; None if it is of another kind."""
    data: bytes

    @property
    def payload(self) -> bytes:
        return self.data[HEAD_BYTES:-1]

    @property
    def tag(self) -> int:
        """Of an ack or nack."""
        return int.from_bytes(self.data[HEAD_BYTES + 4 : HEAD_BYTES + 12], "big")

    @property
    def multiple(self) -> bool:
        """Of an ack or nack."""
        return bool(self.data[HEAD_BYTES + 12] & 1)


def frames_of(data: bytes) -> Iterator[Frame]:
    """The whole frames at the front."""
    at = 0
    while (size := size_at(data, at)) and at + size <= len(data):
        frame = data[at : at + size]
        method = None
        if frame[0] == FRAME_METHOD:
            class_id = int.from_bytes(frame[HEAD_BYTES : HEAD_BYTES + 2], "big")
            method = class_id, int.from_bytes(frame[HEAD_BYTES + 2 : HEAD_BYTES + 4], "big")
        yield Frame(int.from_bytes(frame[1:3], "big"), method, frame)
        at += size


def size_at(data: bytes, at: int) -> int:
    """Of the frame that begins there; 0 if that cannot be told yet."""
    if len(data) < at + HEAD_BYTES:
        return 0
    return int.from_bytes(data[at + 3 : at + HEAD_BYTES], "big") + FRAME_OVERHEAD_BYTES
