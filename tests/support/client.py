"""A raw AMQP client for tests: it sends whatever it is given and writes down what it hears.

Blocking, with a deadline on every wait.  What is heard becomes lines of a transcript that two
brokers can be compared by: a method with its arguments, a message with properties and body, the
end of the connection.  Tables are shown with their type tags and sorted by name, because RabbitMQ
re-sorts the headers of messages and the order of a table says nothing.
"""

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    decode_method,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.properties import (
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    split_content,
)
from fluffle.protocol.spec import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    PROTOCOL_HEADER,
)
from fluffle.protocol.wire import FieldTable, to_table

DEADLINE_S = 30.0
FRAME_BYTES_MAX = 131_072

CAPABILITIES = (
    "publisher_confirms",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
)


class Closed(Exception):
    """The peer has closed the socket."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Frame as it came."""

    kind: int
    channel: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """Event received: a method, with its message if it carries one."""

    channel: int
    method: Method
    properties: Properties | None = None
    body: bytes = b""

    @property
    def name(self) -> str:
        return self.method.name

    def __str__(self) -> str:
        line = f"[{self.channel}] {show_method(self.method)}"
        if self.properties is None:
            return line
        return f"{line} {show_properties(self.properties)} {show_body(self.body)}"


def raw_frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    """A frame of any content, well-formed or not."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


class Client:
    """AMQP connection.  `transcript` holds what it has heard since `record` was called."""

    def __init__(self, host: str, port: int) -> None:
        connected = socket.create_connection((host, port), DEADLINE_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin(connected)

    @classmethod
    def connected_by(cls, connected: socket.socket) -> Self:
        """A client of a socket that is connected already."""
        client = cls.__new__(cls)
        client._begin(connected)
        return client

    def _begin(self, connected: socket.socket) -> None:
        self.transcript: list[str] = []
        self.heard: list[Heard] = []
        self._recording = False
        self._buffer = b""
        self._at = 0
        """How much of it has been heard: to cut off each frame of a megabyte would take seconds."""
        self.socket = connected

    # Sending

    def send_bytes(self, data: bytes) -> None:
        """Bytes as they are; a peer that has closed already is no error, and is heard of later."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def send(self, channel: int, *methods: Method) -> None:
        """Methods, without waiting for an answer."""
        self.send_bytes(b"".join(encode_method(channel, method) for method in methods))

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        properties: Properties | None = None,
        **flags: bool,
    ) -> None:
        """basic.publish; `flags` are mandatory and immediate."""
        method = make(Basic.Publish, exchange=exchange, routing_key=routing_key, **flags)
        content = build_content(encode_properties(properties or Properties()), body)
        frames = split_content(content, channel, FRAME_BYTES_MAX)
        self.send_bytes(encode_method(channel, method) + frames)

    # Hearing

    def frame(self) -> Frame:
        """The next frame; Closed at the end, TimeoutError when nothing comes."""
        while True:
            at, unheard_bytes = self._at, len(self._buffer) - self._at
            if unheard_bytes >= 8:
                kind, channel, size = struct.unpack_from(">BHI", self._buffer, at)
                if kind == PROTOCOL_HEADER[0]:
                    self._at = at + 8
                    return Frame(kind, 0, self._buffer[at : at + 8])
                if unheard_bytes >= size + 8:
                    self._at = at + 8 + size
                    return Frame(kind, channel, self._buffer[at + 7 : at + 7 + size])
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError as error:
                raise Closed from error
            if not data:
                raise Closed
            self._buffer, self._at = self._buffer[self._at :] + data, 0

    def next(self) -> Heard:
        """The next method with its message; heartbeats are passed over."""
        frame = self.frame()
        while frame.kind == FRAME_HEARTBEAT:
            frame = self.frame()
        if frame.kind == PROTOCOL_HEADER[0]:
            self._note(f"protocol header {list(frame.payload)}")
            return self.next()
        assert frame.kind == FRAME_METHOD, frame
        method = decode_method(frame.payload)
        properties, body = None, b""
        if isinstance(method, Basic.Deliver | Basic.GetOk | Basic.Return):
            header = self.frame()
            assert (header.kind, header.channel) == (FRAME_HEADER, frame.channel), header
            size = struct.unpack_from(">Q", header.payload, 4)[0]
            properties = decode_properties(header.payload[12:])
            while len(body) < size:
                part = self.frame()
                assert (part.kind, part.channel) == (FRAME_BODY, frame.channel), part
                body += part.payload
        heard = Heard(frame.channel, method, properties, body)
        self.heard.append(heard)
        self._note(str(heard))
        return heard

    def expect(self, name: str, count: int = 1) -> list[Heard]:
        """Listen until methods called `name` (`Basic.Deliver`) have been heard `count` times."""
        found: list[Heard] = []
        while len(found) < count:
            heard = self.next()
            if heard.name == name:
                found.append(heard)
        return found

    def call(self, channel: int, method: Method) -> Heard:
        """Send a method and listen for its answer, or for the close that it earns."""
        self.send(channel, method)
        answers = {*method.valid_responses, "Channel.Close", "Connection.Close"}
        heard = self.next()
        while heard.name not in answers:
            heard = self.next()
        return heard

    def settle(self, channel: int) -> None:
        """Listen until everything sent so far has been acted on: a round trip of basic.qos.

        It sets prefetch 0 for consumers to come.  The answer is not written down; a channel or
        connection that is closed meanwhile is, and ends the wait.
        """
        self.send(channel, make(Basic.Qos, prefetch_count=0))
        while True:
            try:
                heard = self._unwritten()
            except Closed:
                self._note("socket closed")
                return
            if heard.name == "Basic.QosOk":
                return
            self._note(str(heard))
            if heard.name == "Connection.Close":
                return
            if heard.name == "Channel.Close" and heard.channel == channel:
                return

    def _unwritten(self) -> Heard:
        """Next event, which the caller records."""
        recording, self._recording = self._recording, False
        try:
            return self.next()
        finally:
            self._recording = recording

    def until_closed(self) -> None:
        """Listen until the peer has closed the socket, answering nothing."""
        try:
            while True:
                self.next()
        except Closed:
            self._note("socket closed")

    def end(self) -> None:
        """Listen until the peer ends the connection: with a close, or by closing the socket."""
        try:
            while self.next().name != "Connection.Close":
                pass
        except Closed:
            self._note("socket closed")

    # Verbs

    def open(
        self,
        *,
        vhost: str = "/",
        user: str = "guest",
        password: str = "guest",
        capabilities: Sequence[str] = CAPABILITIES,
        frame_max: int = FRAME_BYTES_MAX,
        channel_max: int = 2047,
        heartbeat: int = 0,
    ) -> Self:
        """The whole handshake; nothing of it is written down."""
        self.send_bytes(PROTOCOL_HEADER)
        self.expect("Connection.Start")
        self.send(0, start_ok(user, password, capabilities))
        self.expect("Connection.Tune")
        self.send(
            0,
            make(
                Connection.TuneOk,
                channel_max=channel_max,
                frame_max=frame_max,
                heartbeat=heartbeat,
            ),
            make(Connection.Open, virtual_host=vhost),
        )
        self.expect("Connection.OpenOk")
        self.record()
        return self

    def channel(self, number: int = 1) -> int:
        """Open a channel, which is not written down, unlike what is heard meanwhile; its number."""
        self.send(number, make(Channel.Open))
        while True:
            heard = self._unwritten()
            if heard.name == "Channel.OpenOk" and heard.channel == number:
                return number
            self._note(str(heard))
            if heard.name == "Connection.Close":
                return number

    def record(self) -> None:
        """Write down what is heard from now on."""
        self._recording = True

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, line: str) -> None:
        if self._recording:
            self.transcript.append(line)


def start_ok(
    user: str = "guest",
    password: str = "guest",
    capabilities: Sequence[str] = CAPABILITIES,
    mechanism: str = "PLAIN",
) -> Method:
    """connection.start-ok with PLAIN credentials."""
    properties = to_table({"capabilities": dict.fromkeys(capabilities, True)})
    response: Any = f"\0{user}\0{password}".encode()
    return make(
        Connection.StartOk,
        client_properties=pamqp_table(properties),
        mechanism=mechanism,
        response=response,
    )


def show_method(method: Method) -> str:
    """`Queue.DeclareOk(queue='q', message_count=0, consumer_count=0)`."""
    shown = ", ".join(f"{name}={show(getattr(method, name))}" for name in method.attributes())
    return f"{method.name}({shown})"


def show_properties(properties: Properties) -> str:
    """The properties that are there: `{delivery_mode=2, headers={a: S b'x'}}`."""
    present = ((item.name, getattr(properties, item.name)) for item in fields(properties))
    return (
        "{"
        + ", ".join(f"{name}={show(value)}" for name, value in present if value is not None)
        + "}"
    )


def show_body(body: bytes) -> str:
    """A body; a long one by its length and ends."""
    return repr(body) if len(body) <= 64 else f"{body[:8]!r}…{body[-8:]!r} ({len(body)} bytes)"


def show(value: object) -> str:
    """An argument; tables with tags, sorted by name."""
    return SHOWN.get(type(value), repr)(value)


def show_table(table: Any) -> str:
    fields_of: FieldTable = table
    shown = (f"{name}: {tag} {show(value)}" for name, (tag, value) in sorted(fields_of.items()))
    return "{" + ", ".join(shown) + "}"


def show_array(items: Any) -> str:
    return "[" + ", ".join(f"{tag} {show(value)}" for tag, value in items) + "]"


SHOWN: dict[type, Callable[[Any], str]] = {dict: show_table, list: show_array}
