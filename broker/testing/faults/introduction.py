"""Client properties, read again from what a client has sent."""

from __future__ import annotations

from typing import Any

from fluffle.broker.definitions.values import plain
from fluffle.broker.testing.faults.frames import HEADER_BYTES, START_OK, frames_of
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.methods import Connection, decode_method, field_table


def client_properties(heard: bytes) -> dict[str, Any]:
    """Of connection.start-ok, in what a client has sent from the protocol header on."""
    for frame in frames_of(heard[HEADER_BYTES:]):
        if frame.method == START_OK:
            try:
                method = decode_method(frame.payload)
            except ProtocolError:
                return {}  # the connection says what is wrong with it
            assert isinstance(method, Connection.StartOk)
            return plain(field_table(method.client_properties))
    return {}
