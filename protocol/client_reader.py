"""Reader for clients: from bytes, cut anywhere, to methods with their messages.  No IO."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from fluffle.protocol.methods import Basic, Method, decode_method
from fluffle.protocol.spec import (
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD_BYTES,
)

WITH_CONTENT = (Basic.Deliver, Basic.GetOk, Basic.Return)


class ReceivedMethod(NamedTuple):
    """A method, with its message if it carries one."""

    channel: int
    method: Method
    properties: bytes = b""
    """Properties as they stand on the wire."""
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method.name} {dict(self.method)}"


class Frame(NamedTuple):
    kind: int
    channel: int
    payload: bytes


class InvalidFrames(Exception):
    """Bytes that are no frames, or frames in an order that there is not."""


class ClientReader:
    """Reader of one connection of a client."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._unfinished: ReceivedMethod | None = None
        self._missing_bytes = -1
        """Bytes missing of its body; -1 before its header."""

    def feed(self, data: bytes) -> Iterator[ReceivedMethod]:
        """Yield what has become whole by these bytes; heartbeats are passed over.

        Raises `InvalidFrames`, and ProtocolError for a method that cannot be read.
        """
        self._buffer += data
        for frame in self._frames():
            received = self._take(frame)
            if received is not None:
                yield received

    def _frames(self) -> Iterator[Frame]:
        while len(self._buffer) >= FRAME_OVERHEAD_BYTES:
            kind, channel, size = struct.unpack_from(">BHI", self._buffer)
            stop = FRAME_OVERHEAD_BYTES + size
            if len(self._buffer) < stop:
                return
            payload, end = bytes(self._buffer[7 : stop - 1]), self._buffer[stop - 1]
            del self._buffer[:stop]
            if end != FRAME_END:
                raise InvalidFrames(f"a frame of kind {kind} and {size} bytes without an end")
            if kind != FRAME_HEARTBEAT:
                yield Frame(kind, channel, payload)

    def _take(self, frame: Frame) -> ReceivedMethod | None:
        if (self._unfinished is None) is not (frame.kind == FRAME_METHOD):
            raise InvalidFrames(f"a frame of kind {frame.kind} after {self._unfinished}")
        if self._unfinished is None:
            received = ReceivedMethod(frame.channel, decode_method(frame.payload))
            if not isinstance(received.method, WITH_CONTENT):
                return received
            self._unfinished, self._missing_bytes = received, -1
            return None
        if (frame.kind == FRAME_HEADER) is not (self._missing_bytes < 0):
            raise InvalidFrames(f"a frame of kind {frame.kind} within {self._unfinished}")
        if frame.kind == FRAME_HEADER:
            (self._missing_bytes,) = struct.unpack_from(">Q", frame.payload, 4)
            self._unfinished = self._unfinished._replace(properties=frame.payload[12:])
        else:
            self._missing_bytes -= len(frame.payload)
            body = self._unfinished.body + frame.payload
            self._unfinished = self._unfinished._replace(body=body)
        if self._missing_bytes:
            return None
        received, self._unfinished = self._unfinished, None
        return received
