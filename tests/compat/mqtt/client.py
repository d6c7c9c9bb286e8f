"""A raw MQTT client for scenarios: it sends what it is told and writes down what it hears.

Blocking, with a deadline on every wait.  It may connect several times: what it hears on all its
connections is one transcript, in which a packet identifier keeps its label.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from tests.compat.mqtt.packets import (
    FIVE,
    PINGREQ,
    Connect,
    Heard,
    Kind,
    Labels,
    Properties,
    Publish,
    answer,
    decode,
    disconnect,
    shown,
    subscribe,
    unsubscribe,
)

DEADLINE_S = 10.0
CLOSED = "socket closed"


class Closed(Exception):
    """The peer has closed the socket."""


class Client:
    """Client with one identifier, or none; it connects with `connect` or `open`."""

    def __init__(self, address: tuple[str, int], client_id: str, version: int = FIVE) -> None:
        self.version = version
        self.client_id = client_id
        self.transcript: list[str] = []
        self.heard: list[Heard] = []
        self._address = address
        self._labels = Labels()
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._last_id = 0
        self._untaken: list[Heard] = []
        """Messages that came while something else was waited for."""

    # Connecting

    def connect(self) -> None:
        """A socket, nothing sent."""
        self.close()
        self._buffer = b""
        self._socket = socket.create_connection(self._address, DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self, **options: Any) -> Heard | None:
        """CONNECT with these fields; the CONNACK, of which code and session are written down."""
        self.connect()
        return self.log_in(**options)

    def log_in(self, **options: Any) -> Heard | None:
        """CONNECT on the socket that there is."""
        connect = Connect(**{"client_id": self.client_id, "version": self.version, **options})
        self.send(connect.encode())
        heard = self._until(Kind.CONNACK, write=False)
        if heard is not None:
            self.note(f"CONNACK(present={int(heard.is_present)}, code=0x{heard.code:02x})")
        return heard

    def quietly(self, **options: Any) -> Client:
        """Open the connection without recording it: for scenarios about something else."""
        before = len(self.transcript)
        self.open(**options)
        assert self.heard[-1].code == 0, self.heard[-1]
        del self.transcript[before:]
        return self

    def close(self) -> None:
        """Hang up without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def leave(self, code: int | None = None, properties: Properties | None = None) -> None:
        """DISCONNECT, and wait until the broker has closed."""
        self.send(disconnect(code, properties))
        self._until_closed()
        self.close()

    # Sending

    def send(self, *packets: bytes) -> None:
        """Bytes as they are; a peer that has closed is no error, and is heard of later."""
        assert self._socket is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(b"".join(packets))

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def publish(
        self, topic: str | bytes, payload: bytes | str = b"", **fields: Any
    ) -> Heard | None:
        """The whole exchange of a PUBLISH with its QoS; its last answer."""
        qos = fields.get("qos", 0)
        if qos:
            fields.setdefault("packet_id", self.next_id())
        message = Publish(topic, payload, **fields)
        self.send(message.encode(self.version))
        if not qos:
            return None
        last = self.expect(Kind.PUBACK, Kind.PUBREC)
        if last is not None and last.kind is Kind.PUBREC and (last.code or 0) < 0x80:
            self.send(answer(Kind.PUBREL, message.packet_id))
            last = self.expect(Kind.PUBCOMP)
        return last

    def subscribe(
        self, *filters: str | tuple[str | bytes, int], properties: Properties = ()
    ) -> Heard | None:
        """SUBSCRIBE, with QoS 1 where no options are named; the SUBACK."""
        wanted = [each if isinstance(each, tuple) else (each, 1) for each in filters]
        self.send(subscribe(self.next_id(), wanted, self.version, properties))
        return self.expect(Kind.SUBACK)

    def unsubscribe(self, *filters: str) -> Heard | None:
        self.send(unsubscribe(self.next_id(), filters, self.version))
        return self.expect(Kind.UNSUBACK)

    # Hearing

    def next(self) -> Heard:
        """The next packet, not written down; Closed at the end, TimeoutError if nothing comes."""
        assert self._socket is not None
        while True:
            size = self._packet_bytes()
            if size is not None and len(self._buffer) >= size[0] + size[1]:
                first, body = self._buffer[0], self._buffer[size[0] : size[0] + size[1]]
                self._buffer = self._buffer[size[0] + size[1] :]
                heard = decode(first, body, self.version)
                self.heard.append(heard)
                return heard
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError as error:
                raise Closed from error
            if not data:
                raise Closed
            self._buffer += data

    def _packet_bytes(self) -> tuple[int, int] | None:
        """Sizes of the header and of the body of the packet in the buffer, if known."""
        size = 0
        for position, byte in enumerate(self._buffer[1:5]):
            size |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                return position + 2, size
        return None

    def _until(self, *kinds: Kind, write: bool = True) -> Heard | None:
        """The next of these kinds; None if the broker closes instead.  Others are written down."""
        while True:
            try:
                heard = self.next()
            except Closed:
                if self.transcript[-1:] != [CLOSED]:
                    self.note(CLOSED)
                return None
            if write or heard.kind not in kinds:
                self.note(shown(heard, self._labels))
            if heard.kind in kinds:
                return heard
            if heard.kind is Kind.PUBLISH:
                self._untaken.append(heard)

    def expect(self, *kinds: Kind, times: int = 1) -> Heard | None:
        """Listen until so many of these kinds have been heard; the last, or None at the end."""
        heard: Heard | None = None
        for _ in range(times):
            heard = self._until(*kinds)
            if heard is None:
                return None
        return heard

    def settle(self) -> None:
        """Show that nothing more came before the answer to a PINGREQ, or that the broker closed."""
        self.send(PINGREQ)
        self._until(Kind.PINGRESP)

    def ended(self) -> None:
        """Listen until the broker has closed, and write that down."""
        while self._until(Kind.AUTH) is not None:
            pass

    def _until_closed(self) -> None:
        try:
            while True:
                self.note(shown(self.next(), self._labels))
        except Closed:
            pass

    def take(self, times: int = 1, *, acknowledge: bool = True) -> list[Heard]:
        """So many messages, each answered as its QoS wants."""
        taken: list[Heard] = []
        for _ in range(times):
            heard = self._untaken.pop(0) if self._untaken else self.expect(Kind.PUBLISH)
            if heard is None:
                break
            taken.append(heard)
            if acknowledge:
                self.acknowledge(heard)
        return taken

    def until(self, payload: bytes) -> list[Heard]:
        """Take messages until one has this payload."""
        taken: list[Heard] = []
        while not taken or taken[-1].publish is None or taken[-1].publish.payload != payload:
            one = self.take()
            if not one:
                break
            taken += one
        return taken

    def acknowledge(self, heard: Heard) -> None:
        """The client's half of the exchange that a message with QoS begins."""
        assert heard.publish is not None
        if heard.publish.qos == 1:
            self.send(answer(Kind.PUBACK, heard.packet_id))
        elif heard.publish.qos == 2:
            self.send(answer(Kind.PUBREC, heard.packet_id))
            if self.expect(Kind.PUBREL) is not None:
                self.send(answer(Kind.PUBCOMP, heard.packet_id))

    def note(self, line: str) -> None:
        self.transcript.append(line)
