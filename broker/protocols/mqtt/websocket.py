"""Websockets below MQTT: a protocol of asyncio that hands the bytes of frames to another.

wsproto reads the request and the frames.  The connection inside is there from the first byte on, so
that it counts among those which have not logged in, and hears when it is lost; what it is given is
a transport whose writes are a frame each.  An MQTT packet may span frames, and a frame may hold
many: the payloads of all frames of a read come as one piece.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from enum import Enum, auto
from http import HTTPStatus
from struct import pack
from typing import Any, TypeAlias, cast

from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError, RemoteProtocolError

from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.config.config import MqttConfig
from fluffle.protocol.proxy import ForwardedConnection

SUBPROTOCOLS = ("mqtt", "mqttv3.1")
"""In the order in which we choose."""
USUAL_PATH = "/mqtt"
"""Other brokers have it, and so do the defaults of clients."""
HEAD_BYTES_MAX = 16_384
"""Longest head of the opening request: cookies of a site may be in it."""
NO_HTTP = "the request is not HTTP"
WRONG_PORT = {
    0x10: "a client of MQTT at a port for websockets",
    0x16: "a client of TLS at a port for websockets without TLS",
}
"""Clients of other protocols that have come to the wrong port, by their first octet."""

BLANK_LINE = re.compile(rb"\n\r?\n")
BLANK_LINE_BYTES = 3
CLOSE_WAIT_S = 2.0
"""Time in seconds for which a client is still read after we have closed: closing the socket at once
would give it an error in place of the last output."""
FINAL_BINARY = 0x82
"""First byte of a frame that is a whole binary message."""

MakeInside: TypeAlias = Callable[[ForwardedConnection | None], asyncio.Protocol]


class HandshakeRefused(Exception):
    """A request that opens no websocket, with the answer to it."""

    def __init__(
        self, status: HTTPStatus, text: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(text)
        self.answer = answer(status, text, headers)


class WebSocketFailed(ConnectionError):
    """Reason why a websocket was closed that its client did not close."""


class WebSocketPhase(Enum):
    """Phases of a websocket, in their order."""

    HANDSHAKE = auto()
    OPEN = auto()
    CLOSING = auto()
    """We have closed, and the close of the client is awaited."""
    OVER = auto()


class WebSockets:
    """Websockets of a node: makes one for each client that is let in, and counts them."""

    __slots__ = ("_call_later", "_config", "_make_inside", "_open")

    def __init__(self, config: MqttConfig, call_later: CallLater, make_inside: MakeInside) -> None:
        """`make_inside` makes the MQTT connection in it."""
        self._config = config
        self._call_later = call_later
        self._make_inside = make_inside
        self._open: set[WebSocket] = set()

    def __call__(self, forwarded: ForwardedConnection | None = None, /) -> WebSocket:
        return WebSocket(self._make_inside(forwarded), self._config, self._call_later, self._open)


class WebSocket(asyncio.Protocol):
    """A websocket of one client, from the request that opens it."""

    __slots__ = (
        "_call_later", "_config", "_error", "_frame_bytes", "_frames", "_head", "_inside",
        "_is_paused", "_is_pinged", "_is_read_to_end", "_is_stuck", "_last", "_open", "_phase",
        "_pong", "_read_count", "_seen_count", "_timer", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        inside: asyncio.Protocol,
        config: MqttConfig,
        call_later: CallLater,
        open_sockets: set[WebSocket],
    ) -> None:
        """`open_sockets` holds all that are open, this one as well once it is."""
        self._inside = inside
        self._config = config
        self._call_later = call_later
        self._open = open_sockets
        self._phase = WebSocketPhase.HANDSHAKE
        self._head = bytearray()
        self._frames: Connection
        self._frame_bytes = 0
        """Size so far of the frame that is being read."""
        self._is_read_to_end = False
        """True if no frame can be read any more: the last one was none."""
        self._is_paused = False
        """True if the connection inside wants to read nothing."""
        self._last: CloseConnection | None = None
        """The close that waits for the connection inside to act on what came before it."""
        self._is_stuck = False
        """True if the client reads less than is written to it."""
        self._pong: bytes | None = None
        """The answer that waits for it to read again: the last ping counts, as RFC 6455 allows."""
        self._read_count = self._seen_count = 0
        """How often something came, and how often it had at the last look."""
        self._is_pinged = False
        self._timer: Timer | None = None
        self._error: WebSocketFailed | None = None

    # Calls of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._set_timer(self._config.login_timeout_ms / 1_000, self._miss_request)
        self._inside.connection_made(WebSocketTransport(self, self._transport))

    def data_received(self, data: bytes) -> None:
        self._read_count += 1
        if self._phase is WebSocketPhase.HANDSHAKE:
            self._read_request(data)
        elif self._phase is WebSocketPhase.OPEN:
            self._read_frames(data)
        elif self._phase is WebSocketPhase.CLOSING:
            self._await_close(data)

    def eof_received(self) -> bool | None:
        if self._phase is WebSocketPhase.OPEN:
            self._inside.eof_received()
        return None

    def pause_writing(self) -> None:
        self._is_stuck = True
        self._inside.pause_writing()

    def resume_writing(self) -> None:
        self._is_stuck = False
        is_up = self._phase is WebSocketPhase.OPEN
        if self._pong is not None and is_up and self._frames.state is ConnectionState.OPEN:
            self._transport.write(self._frames.send(Pong(self._pong)))
        self._pong = None
        self._inside.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = WebSocketPhase.OVER
        self._cancel_timer()
        self._open.discard(self)
        self._inside.connection_lost(self._error or exc)

    # What the connection inside asks for

    @property
    def is_closing(self) -> bool:
        is_up = self._phase in (WebSocketPhase.HANDSHAKE, WebSocketPhase.OPEN)
        return not is_up or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` as one frame."""
        if data and self._phase is WebSocketPhase.OPEN:
            self._transport.write(frame_head(len(data)) + data)

    def close(self) -> None:
        """Write what is to be written, and then part."""
        if self._phase is WebSocketPhase.HANDSHAKE:
            self._end()
        elif self._phase is WebSocketPhase.OPEN:
            self._close(CloseReason.NORMAL_CLOSURE, "")

    def abort(self) -> None:
        self._phase = WebSocketPhase.OVER
        self._transport.abort()

    @property
    def is_reading(self) -> bool:
        return not (self._is_paused or self.is_closing)

    def pause_reading(self) -> None:
        if self.is_reading:
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
            self._be_closed_if_read()

    # The request

    def _read_request(self, data: bytes) -> None:
        """Collect the request, and answer it once it is whole; frames may come behind it."""
        begin = max(0, len(self._head) - BLANK_LINE_BYTES)
        self._head += data
        blank = BLANK_LINE.search(self._head, begin)
        size = len(self._head) if blank is None else blank.end()
        try:
            if not 0x41 <= self._head[0] <= 0x5A:  # TLS or bare MQTT; no text would reach it
                self._fail_handshake(WRONG_PORT.get(self._head[0], NO_HTTP), b"")
                return
            if size > HEAD_BYTES_MAX:
                raise HandshakeRefused(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the request is larger than {HEAD_BYTES_MAX} bytes",
                )
            if blank is None:
                return
            self._accept(bytes(self._head[:size]))
        except HandshakeRefused as refusal:
            self._fail_handshake(str(refusal), refusal.answer)
            return
        rest = bytes(self._head[size:])
        self._head.clear()
        if rest:
            self._read_frames(rest)

    def _accept(self, head: bytes) -> None:
        """Open the websocket.  HandshakeRefused."""
        frames, accepted = opened(head, self._config)
        limit = self._config.ws_connections_max
        if limit is not None and len(self._open) >= limit:
            raise HandshakeRefused(
                HTTPStatus.SERVICE_UNAVAILABLE, "there are as many websockets as may be"
            )
        self._frames = frames
        self._phase = WebSocketPhase.OPEN
        self._open.add(self)
        self._transport.write(accepted)
        self._watch()

    def _miss_request(self) -> None:
        late = HandshakeRefused(HTTPStatus.REQUEST_TIMEOUT, "the request takes too long")
        self._fail_handshake(str(late), late.answer)

    def _fail_handshake(self, reason: str, answered: bytes) -> None:
        self._error = WebSocketFailed(reason)
        if answered:
            self._transport.write(answered)
        self._end()

    # Frames

    def _read_frames(self, data: bytes) -> None:
        payloads: list[bytes] = []
        last: CloseConnection | None = None
        self._frames.receive_data(data)
        for event in self._frames.events():
            if isinstance(event, BytesMessage):
                payloads.append(bytes(event.data))
            last = self._closing_event(event)
            if last is not None:
                break
        if received := b"".join(payloads):
            self._inside.data_received(received)
        self._last = last
        self._be_closed_if_read()

    def _closing_event(self, event: Event) -> CloseConnection | None:
        """Act on a frame; the close that it is, or why it ends the websocket."""
        if isinstance(event, BytesMessage):
            self._frame_bytes += len(event.data)
            limit = self._config.ws_frame_bytes_max
            if limit is not None and self._frame_bytes > limit:
                return CloseConnection(CloseReason.MESSAGE_TOO_BIG, "the frame is too large")
            if event.frame_finished:
                self._frame_bytes = 0
        elif isinstance(event, Ping):
            if self._is_stuck:
                self._pong = bytes(event.payload)
            elif self._phase is WebSocketPhase.OPEN:
                self._transport.write(self._frames.send(Pong(event.payload)))
        elif isinstance(event, TextMessage):
            return CloseConnection(CloseReason.UNSUPPORTED_DATA, "MQTT is in binary frames")
        elif isinstance(event, CloseConnection):
            self._is_read_to_end = True
            return event
        return None

    def _be_closed_if_read(self) -> None:
        """The client has closed, or what it sends cannot be read; what came before is acted on."""
        last = self._last
        if last is not None and not self._is_paused:
            self._last = None
            self._be_closed(last)

    def _be_closed(self, last: CloseConnection) -> None:
        is_over = self._phase is WebSocketPhase.OVER
        if self._frames.state is ConnectionState.REMOTE_CLOSING and not is_over:
            if self._phase is WebSocketPhase.OPEN:
                self._inside.eof_received()
            if self._phase is WebSocketPhase.OPEN:
                self._transport.write(self._frames.send(last.response()))
            self._end()
        elif self._frames.state is ConnectionState.CLOSED and not is_over:
            self._end()
        elif self._phase is WebSocketPhase.OPEN:
            self._error = WebSocketFailed(last.reason or "the frames cannot be read")
            self._close(last.code, last.reason or "")

    def _close(self, code: int, reason: str) -> None:
        self._transport.write(self._frames.send(CloseConnection(code, reason)))
        self._phase = WebSocketPhase.CLOSING
        self._set_timer(CLOSE_WAIT_S, self._part)
        self.resume_reading()

    def _await_close(self, data: bytes) -> None:
        """Pass over what comes before the close of the client."""
        if self._is_read_to_end:
            return
        self._frames.receive_data(data)
        if any(isinstance(event, CloseConnection) for event in self._frames.events()):
            self._end()

    def _part(self) -> None:
        """Close the socket of a client that has not closed in time, without waiting for it to read
        an error."""
        if self._error is not None and self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._end()

    def _end(self) -> None:
        self._phase = WebSocketPhase.OVER
        self._cancel_timer()
        self._transport.close()

    # Whether the client is still there

    def _watch(self) -> None:
        self._seen_count = self._read_count
        self._set_timer(self._config.ws_idle_timeout_ms / 2_000, self._look)

    def _look(self) -> None:
        """Ask a silent client with a ping; the silence of one that is not read, or reads slowly,
        does not count."""
        is_silent = self._read_count == self._seen_count
        if not is_silent or self._is_paused or self._is_stuck:
            self._is_pinged = False
        elif self._is_pinged:
            self._error = WebSocketFailed("no answer to a ping")
            self.abort()
            return
        else:
            self._is_pinged = True
            self._transport.write(self._frames.send(Ping()))
        self._watch()

    def _set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._call_later(seconds, act)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class WebSocketTransport(asyncio.Transport):
    """Transport of the connection in a websocket, whose writes are frames."""

    __slots__ = ("_socket", "_transport")

    def __init__(self, socket: WebSocket, transport: asyncio.Transport) -> None:
        super().__init__()
        self._socket = socket
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the socket; `websocket` is True here."""
        return True if name == "websocket" else self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._socket.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self._socket.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._socket.is_closing

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def can_write_eof(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return self._socket.is_reading

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()


def frame_head(size: int) -> bytes:
    """Return what stands before so many bytes in a frame of a server (RFC 6455, section 5.2).

    wsproto would copy the payload twice, which takes longer than to write it: each message to each
    subscriber is a frame.
    """
    if size < 126:
        return bytes((FINAL_BINARY, size))
    if size < 1 << 16:
        return pack(">BBH", FINAL_BINARY, 126, size)
    return pack(">BBQ", FINAL_BINARY, 127, size)


def opened(head: bytes, config: MqttConfig) -> tuple[Connection, bytes]:
    """Return what reads the frames behind a request, and the answer to it.  HandshakeRefused."""
    server = WSConnection(ConnectionType.SERVER)
    try:
        server.receive_data(head)
        request = next(server.events(), None)
        if not isinstance(request, Request):
            raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "there is no request")
        accepted = server.send(AcceptConnection(subprotocol=chosen(request, config)))
    except RemoteProtocolError as error:
        raise refusal_of(error) from error
    except (ProtocolError, UnicodeError) as error:
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "the request cannot be read") from error
    assert server.connection is not None
    return server.connection, accepted


def chosen(request: Request, config: MqttConfig) -> str:
    """Return the subprotocol for a request that may open a websocket.  HandshakeRefused."""
    headers = dict(request.extra_headers)
    if request.target.partition("?")[0].rstrip("/") not in {config.ws_path.rstrip("/"), USUAL_PATH}:
        raise HandshakeRefused(
            HTTPStatus.NOT_FOUND, f"the websocket for MQTT is at {config.ws_path}"
        )
    origin = headers.get(b"origin", b"").decode("latin-1").lower()  # only browsers send one
    if origin and config.ws_origins is not None and origin not in config.ws_origins:
        raise HandshakeRefused(HTTPStatus.FORBIDDEN, "pages of this site may not connect")
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        raise HandshakeRefused(HTTPStatus.BAD_REQUEST, "the request has a body")
    for subprotocol in SUBPROTOCOLS:
        if subprotocol in request.subprotocols:
            return subprotocol
    raise HandshakeRefused(
        HTTPStatus.BAD_REQUEST, "offer the subprotocol mqtt (Sec-WebSocket-Protocol)"
    )


def refusal_of(error: RemoteProtocolError) -> HandshakeRefused:
    """Return the answer to a request that is none for a websocket."""
    status, headers = HTTPStatus.BAD_REQUEST, []
    if isinstance(error.event_hint, RejectConnection):
        status = HTTPStatus(error.event_hint.status_code)
        headers = [(name.decode(), value.decode()) for name, value in error.event_hint.headers]
    return HandshakeRefused(status, str(error), headers)


def answer(status: HTTPStatus, text: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the answer to a request that opens nothing."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(text.encode()) + 1}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join((*lines, "", f"{text}\n")).encode()
