"""The least of an AMQP client: opens a connection and holds it.

Raw bytes, so that the broker's start is not measured together with a client library's.
"""

import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

HEARTBEAT_S = 60
"""Heartbeat interval that most clients ask for."""
TIMEOUT_S = 10.0


class Address(NamedTuple):
    host: str
    port: int


class ConnectFailed(Exception):
    """The peer refused, went away, or answered with another method than expected."""


class Connection:
    """An open connection; closed by going away."""

    __slots__ = ("_socket", "server_version")

    def __init__(self, connected: socket.socket, server_version: str) -> None:
        self._socket = connected
        self.server_version = server_version

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def open_channel(self) -> None:
        """Channel 1, for `call`."""
        self.call(20, 10, b"\x00", 11)

    def call(self, class_id: int, method_id: int, arguments: bytes, answer_id: int) -> bytes:
        """The arguments of the answer to a method on channel 1, which must be the one named."""
        self._socket.sendall(method(class_id, method_id, arguments, channel=1))
        return expect(self._socket, class_id, answer_id)

    def wait_for(self, seconds: float) -> None:
        """How long answers may take from now on."""
        self._socket.settimeout(seconds)


def open_connection(address: Address) -> Connection:
    """Connects as guest to vhost `/` and returns after connection.open-ok."""
    connected = None
    try:
        connected = socket.create_connection(address, TIMEOUT_S)
        connected.sendall(b"AMQP\x00\x00\x09\x01")
        start = expect(connected, 10, 10)
        connected.sendall(
            method(10, 11, b"\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x0c\x00guest\x00guest\x05en_US")
        )
        tune = expect(connected, 10, 30)
        tune_ok = tune[:6] + struct.pack(">H", HEARTBEAT_S)
        connected.sendall(method(10, 31, tune_ok) + method(10, 40, b"\x01/\x00\x00"))
        expect(connected, 10, 41)
    except (OSError, ConnectFailed) as error:
        if connected:
            connected.close()
        raise ConnectFailed(str(error)) from error
    return Connection(connected, broker_version(start))


def method(class_id: int, method_id: int, arguments: bytes, *, channel: int = 0) -> bytes:
    payload = struct.pack(">HH", class_id, method_id) + arguments
    return struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


def expect(connected: socket.socket, class_id: int, method_id: int) -> bytes:
    """The arguments of the next method, which must be the one named."""
    _kind, _channel, size = struct.unpack(">BHI", receive(connected, 7))
    payload = receive(connected, size + 1)[:-1]
    if struct.unpack_from(">HH", payload) != (class_id, method_id):
        raise ConnectFailed(f"expected method {class_id}.{method_id}, got {payload[:60]!r}")
    return payload[4:]


def receive(connected: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = connected.recv(size - len(received))
        if not more:
            raise ConnectFailed("connection closed by the broker")
        received += more
    return received


def broker_version(start: bytes) -> str:
    """fluffle says in `version` whom it behaves like, and in a property of its own who it is."""
    return text_property(start, b"fluffle_version") or text_property(start, b"version")


def text_property(start: bytes, name: bytes) -> str:
    """A server property in connection.start: a long string behind its name; "" without it."""
    _before, _name, rest = start.partition(bytes([len(name)]) + name + b"S")
    return rest[4 : 4 + int.from_bytes(rest[:4])].decode()
