"""What a client says of itself, which its connection need not remember."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fluffle.broker.definitions.values import plain
from fluffle.broker.testing.faults.frames import HEADER_BYTES, START_OK, frames_of
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.methods import Connection, decode_method, field_table

BYTES_MAX = 1 << 17
"""Whoever has not introduced himself by then does not."""


class Introduction:
    """A `Shape` that only listens, until connection.start-ok."""

    __slots__ = ("_heard", "client_properties", "has_begun")

    def __init__(self) -> None:
        self._heard: bytes | None = b""
        """From the protocol header on; None once all is known."""
        self.has_begun = False
        """Whether anything has been heard."""
        self.client_properties: dict[str, Any] = {}

    def to_client(self, data: bytes) -> bytes:
        return data

    def from_client(self, data: bytes) -> Iterable[bytes]:
        self.has_begun = True
        if self._heard is not None:
            self._heard += data
            self._look(self._heard[HEADER_BYTES:])
        return (data,)

    def _look(self, data: bytes) -> None:
        for frame in frames_of(data):
            if frame.method == START_OK:
                self._heard = None
                self._read(frame.payload)
                return
        if len(data) > BYTES_MAX:
            self._heard = None

    def _read(self, payload: bytes) -> None:
        try:
            method = decode_method(payload)
        except ProtocolError:
            return  # the connection says what is wrong with it
        assert isinstance(method, Connection.StartOk)
        self.client_properties = plain(field_table(method.client_properties))
