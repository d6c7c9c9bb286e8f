"""Websockets below MQTT: a handshake by hand, frames, and what hostile clients send."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.typing import Subprotocol
from wsproto import ConnectionType, WSConnection
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

from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt.websocket import (
    CLOSE_WAIT_S,
    HEAD_BYTES_MAX,
    WebSocket,
    WebSocketFailed,
    WebSockets,
)
from tests.support.deadlines import soon
from tests.support.fakes import FakeTransport, Scheduler

HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)
LIMIT = 100


class Inside(asyncio.Protocol):
    """Protocol in a websocket: it notes its events, and answers as a test wants."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.reported: list[str] = []
        self.error: Exception | None = None
        self.on_data: Callable[[bytes], None] = lambda data: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.reported.append("made")

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.on_data(data)

    def eof_received(self) -> None:
        self.reported.append("eof")

    def pause_writing(self) -> None:
        self.reported.append("paused")

    def resume_writing(self) -> None:
        self.reported.append("resumed")

    def connection_lost(self, exc: Exception | None) -> None:
        self.reported.append("lost")
        self.error = exc


class Peer:
    """A client with its end of the wire, and all of the server's by hand."""

    def __init__(self, config: MqttConfig | None = None, sockets: WebSockets | None = None) -> None:
        self.scheduler = Scheduler()
        self.transport = FakeTransport(self.scheduler, {"peername": ("h", 1)})
        self.inside = Inside()
        if sockets is None:
            sockets = WebSockets(
                config or MqttConfig(), self.scheduler.call_later, lambda _forwarded: self.inside
            )
        self.socket: WebSocket = sockets()
        self.transport.connect(self.socket)
        self.client = WSConnection(ConnectionType.CLIENT)
        self._read = 0

    def open(self, path: str = "/ws", *subprotocols: str, **headers: str) -> list[Event]:
        """Ask for a websocket; what is answered."""
        request = Request(
            "localhost",
            path,
            subprotocols=list(subprotocols or ("mqtt",)),
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        )
        self.transport.receive(self.client.send(request))
        return self.heard()

    def send(self, *events: Event) -> None:
        """All of them in one read."""
        self.transport.receive(b"".join(map(self.client.send, events)))

    @property
    def written(self) -> bytes:
        return b"".join(self.transport.writes)

    def heard(self) -> list[Event]:
        """Events since the last call."""
        data = self.written[self._read :]
        self._read += len(data)
        self.client.receive_data(data)
        return list(self.client.events())

    def status(self) -> int:
        """Status of the answer to a refused request."""
        self.scheduler.run()
        assert self.transport.is_lost
        return int(self.written.split(b" ")[1])


def opened(config: MqttConfig | None = None) -> Peer:
    peer = Peer(config)
    assert [type(event) for event in peer.open()] == [AcceptConnection]
    return peer


def closes(events: list[Event]) -> list[int]:
    return [event.code for event in events if isinstance(event, CloseConnection)]


# The request


def test_the_connection_inside_is_there_from_the_first_byte_on() -> None:
    peer = Peer()
    assert peer.inside.reported == ["made"]
    assert peer.inside.transport.get_extra_info("peername") == ("h", 1)
    assert peer.inside.transport.get_extra_info("websocket") is True
    peer.inside.transport.write(b"too early")
    assert peer.written == b""


@pytest.mark.parametrize("path", ["/ws", "/mqtt", "/ws?x=1", "/ws/"])
def test_both_paths_open_it(path: str) -> None:
    (event,) = Peer().open(path)
    assert isinstance(event, AcceptConnection)


@pytest.mark.parametrize("path", ["/devices", "/devices/", "/mqtt"])
def test_the_path_of_the_option_opens_it(path: str) -> None:
    config = MqttConfig(ws_path="/devices")
    (event,) = Peer(config).open(path)
    assert isinstance(event, AcceptConnection)
    peer = Peer(config)
    peer.open("/ws")
    assert peer.status() == 404


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["mqtt"], "mqtt"),
        (["mqttv3.1"], "mqttv3.1"),
        (["mqttv3.1", "mqtt"], "mqtt"),
        (["amqp", "mqtt"], "mqtt"),
    ],
)
def test_the_subprotocol_is_answered(offered: list[str], chosen: str) -> None:
    (event,) = Peer().open("/ws", *offered)
    assert isinstance(event, AcceptConnection)
    assert event.subprotocol == chosen
    assert event.extensions == [], "none is compressed"


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Protocol: mqtt\r\n", b"", 400),
        (b"Protocol: mqtt\r\n", b"Protocol: amqp\r\n", 400),
        (b"GET /ws", b"GET /other", 404),
        (b"GET", b"POST", 400),
        (b"Upgrade: websocket", b"Upgrade: h2c", 400),
        (b"Version: 13", b"Version: 8", 426),
        (b"Sec-WebSocket-Key", b"X-Key", 400),
        (b"Host: localhost\r\n", b"", 400),
        (b"Host: localhost", b"Host: \xff", 400),
        (b"Protocol: mqtt", b"Protocol: \xff", 400),
        (b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 400),
        (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"HTTP/1.1", b"HTTP/one", 400),
    ],
)
def test_what_opens_nothing_is_answered_and_closed(old: bytes, new: bytes, status: int) -> None:
    peer = Peer()
    assert old in HEAD
    peer.transport.receive(HEAD.replace(old, new))
    assert peer.status() == status
    head, _, text = peer.written.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(text)}".encode() in head
    assert peer.inside.reported == ["made", "lost"]
    assert isinstance(peer.inside.error, WebSocketFailed)
    assert str(peer.inside.error) == text.decode().strip()
    if status == 426:
        assert b"Sec-WebSocket-Version: 13" in head.split(b"\r\n")


def test_pages_of_other_sites_may_be_kept_out() -> None:
    config = replace(MqttConfig(), ws_origins=frozenset({"https://a.example"}))
    assert isinstance(Peer(config).open(Origin="https://A.example")[0], AcceptConnection)
    assert isinstance(Peer(config).open()[0], AcceptConnection), "that is no browser"
    assert isinstance(Peer().open(Origin="https://b.example")[0], AcceptConnection)
    (refused,) = Peer(config).open(Origin="https://b.example")[:1]
    assert isinstance(refused, RejectConnection)
    assert refused.status_code == 403


def test_there_are_so_many_websockets_at_most() -> None:
    scheduler, insides = Scheduler(), [Inside() for _ in range(3)]
    spare = iter(insides)
    config = replace(MqttConfig(), ws_connections_max=1)
    sockets = WebSockets(config, scheduler.call_later, lambda _forwarded: next(spare))
    first, second = Peer(sockets=sockets), Peer(sockets=sockets)
    first.open()
    second.transport.receive(HEAD)
    assert second.status() == 503
    first.transport.lose()
    third = Peer(sockets=sockets)
    assert isinstance(third.open()[0], AcceptConnection)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_request_may_come_in_pieces(size: int) -> None:
    peer = Peer()
    for at in range(0, len(HEAD), size):
        assert peer.written == b""
        peer.transport.receive(HEAD[at : at + size])
    assert peer.written.startswith(b"HTTP/1.1 101 ")


def test_frames_may_come_right_behind_the_request() -> None:
    peer = Peer()
    peer.client.send(Request("localhost", "/ws", subprotocols=["mqtt"]))
    other = opened()
    peer.transport.receive(HEAD + other.client.send(BytesMessage(b"connect")))
    assert peer.inside.received == [b"connect"]


def test_a_slow_request_is_cut_off() -> None:
    peer = Peer(replace(MqttConfig(), login_timeout_ms=500))
    for octet in HEAD[:40]:
        peer.transport.receive(bytes((octet,)))
    peer.scheduler.advance(0.4)
    assert peer.written == b""
    peer.scheduler.advance(0.2)
    assert peer.status() == 408


def test_a_large_request_is_not_collected() -> None:
    peer = Peer()
    line = b"X-Header: " + b"x" * 1000 + b"\r\n"
    peer.transport.receive(HEAD[:-2])
    sent = 0
    while not peer.written:
        peer.transport.receive(line)
        sent += len(line)
        assert sent < 2 * HEAD_BYTES_MAX
    peer.transport.receive(line * 1000)
    assert peer.status() == 431
    whole = Peer()
    whole.transport.receive(HEAD[:-2] + line * 1000 + b"\r\n")
    assert whole.status() == 431


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x16\x03\x01\x02\x00", "a client of TLS at a port for websockets without TLS"),
        (b"\x10\x0c\x00\x04MQTT", "a client of MQTT at a port for websockets"),
        (b"\r\n\r\n", "the request is not HTTP"),
    ],
)
def test_what_is_not_http_is_hung_up_on(data: bytes, reason: str) -> None:
    peer = Peer()
    peer.transport.receive(data)
    peer.scheduler.run()
    assert (peer.transport.is_lost, peer.written) == (True, b"")
    assert str(peer.inside.error) == reason


# Frames


def test_frames_of_a_read_come_as_one_piece() -> None:
    peer = opened()
    peer.send(BytesMessage(b"a"), BytesMessage(b"", message_finished=False), BytesMessage(b"bc"))
    peer.send(BytesMessage(b"de", message_finished=False))
    peer.send(Ping(b"amid"), BytesMessage(b"f"))
    assert peer.inside.received == [b"abc", b"de", b"f"]


def test_a_frame_may_come_byte_by_byte() -> None:
    peer = opened()
    for octet in peer.client.send(BytesMessage(b"payload")):
        peer.transport.receive(bytes((octet,)))
    assert b"".join(peer.inside.received) == b"payload"


@pytest.mark.parametrize("size", [1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_a_write_is_a_frame(size: int) -> None:
    peer = opened()
    peer.inside.transport.write(b"x" * size)
    peer.inside.transport.writelines([b"ab", b"cd"])
    peer.inside.transport.write(b"")
    first, second = peer.heard()
    assert first == BytesMessage(b"x" * size)
    assert second == BytesMessage(b"abcd")


def test_a_ping_is_answered() -> None:
    peer = opened()
    peer.send(Ping(b"1"), Pong(b"unasked"), Ping(b"2"))
    assert peer.heard() == [Pong(b"1"), Pong(b"2")]


def test_pings_of_a_client_that_reads_nothing_pile_up_nothing() -> None:
    peer = opened()
    peer.inside.transport.set_write_buffer_limits(high=LIMIT)
    peer.transport.is_stuck = True
    peer.inside.transport.write(b"x" * 2 * LIMIT)
    assert peer.inside.reported[-1] == "paused"
    before = peer.inside.transport.get_write_buffer_size()
    for number in range(1000):
        peer.send(Ping(b"%d" % number))
    assert peer.inside.transport.get_write_buffer_size() == before
    peer.transport.drain()
    assert peer.inside.reported[-1] == "resumed"
    assert peer.heard()[-1] == Pong(b"999")


def test_a_connection_inside_that_reads_nothing_is_not_read() -> None:
    peer = opened()
    transport = peer.inside.transport
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    peer.send(BytesMessage(b"later"))
    assert peer.inside.received == []
    transport.resume_reading()
    peer.scheduler.run()
    assert peer.inside.received == [b"later"]


def test_text_is_refused() -> None:
    peer = opened()
    peer.send(BytesMessage(b"before"), TextMessage("text"), BytesMessage(b"behind"))
    assert peer.inside.received == [b"before"]
    assert closes(peer.heard()) == [CloseReason.UNSUPPORTED_DATA]
    assert peer.inside.transport.is_closing()
    peer.inside.transport.write(b"too late")
    assert peer.heard() == []
    peer.scheduler.advance(CLOSE_WAIT_S)
    assert peer.inside.reported == ["made", "lost"]
    assert str(peer.inside.error) == "MQTT is in binary frames"


def test_a_frame_may_be_too_large_before_it_has_come() -> None:
    peer = opened(replace(MqttConfig(), ws_frame_bytes_max=LIMIT))
    peer.send(*[BytesMessage(b"x" * LIMIT, message_finished=False)] * 3)
    assert len(b"".join(peer.inside.received)) == 3 * LIMIT
    frame = peer.client.send(BytesMessage(b"x" * 10 * LIMIT))
    peer.transport.receive(frame[: 2 * LIMIT])
    assert closes(peer.heard()) == [CloseReason.MESSAGE_TOO_BIG]


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x01a",  # not masked
        b"\x82\xfe\x00\x01....a",  # a length that is longer than it needs to be
        b"\x82\xff" + b"\xff" * 8 + b"....",
        b"\xc2\x81....a",  # a reserved bit
        b"\x83\x81....a",  # an opcode that there is not
        b"\x09\x81....a",  # a ping in pieces
        b"\x89\xfe\x00\x80....",  # a ping of 128 bytes
        b"\x80\x81....a",  # goes on with nothing
        b"\x88\x81....a",  # a close with half a code
        b"\x88\x82....\xc5\xc6",  # a close with a code that nobody sends
    ],
)
def test_what_is_no_frame_ends_it(frame: bytes) -> None:
    peer = opened()
    peer.send(BytesMessage(b"before"))
    peer.transport.receive(frame)
    peer.transport.receive(peer.client.send(BytesMessage(b"behind")))
    assert peer.inside.received == [b"before"]
    assert closes(peer.heard())[0] in {CloseReason.PROTOCOL_ERROR, *range(1000, 1012)}
    peer.scheduler.advance(CLOSE_WAIT_S)
    assert isinstance(peer.inside.error, WebSocketFailed)


def test_a_huge_frame_is_handed_on_as_it_comes() -> None:
    peer = opened()
    peer.transport.receive(b"\x82\xff" + (1 << 62).to_bytes(8) + b"\0" * 4)
    for _ in range(3):
        peer.transport.receive(b"x" * 1000)
    assert peer.inside.received == [b"x" * 1000] * 3


# The end


def test_the_close_of_a_client_is_answered() -> None:
    peer = opened()
    peer.send(BytesMessage(b"last"), CloseConnection(1001, "gone"))
    assert closes(peer.heard()) == [1001]
    peer.scheduler.run()
    assert peer.inside.received == [b"last"]
    assert peer.inside.reported == ["made", "eof", "lost"]
    assert peer.inside.error is None


def test_the_close_of_a_client_waits_while_what_came_before_it_does() -> None:
    peer = opened()
    transport = peer.inside.transport
    peer.inside.on_data = lambda _data: transport.pause_reading()
    peer.send(BytesMessage(b"last"), CloseConnection(1001, "gone"))
    peer.scheduler.run()
    assert (closes(peer.heard()), peer.inside.reported) == ([], ["made"])
    transport.resume_reading()
    peer.scheduler.run()
    assert closes(peer.heard()) == [1001]
    assert peer.inside.reported == ["made", "eof", "lost"]


def test_a_ping_in_front_of_the_close_of_a_client_that_waits_is_not_answered() -> None:
    """The answer waits for the client to read, the close for what came before it."""
    peer = opened()
    transport = peer.inside.transport
    transport.set_write_buffer_limits(high=LIMIT)
    peer.transport.is_stuck = True
    transport.write(b"x" * 2 * LIMIT)
    peer.inside.on_data = lambda _data: transport.pause_reading()
    peer.send(Ping(b"1"), BytesMessage(b"last"), CloseConnection(1001, "gone"))
    peer.transport.drain()
    assert peer.inside.reported == ["made", "paused", "resumed"]
    transport.resume_reading()
    peer.scheduler.run()
    assert closes(peer.heard()) == [1001]
    assert peer.inside.reported == ["made", "paused", "resumed", "eof", "lost"]


def test_the_close_of_a_client_that_waits_answers_that_of_the_connection_inside() -> None:
    peer = opened()
    transport = peer.inside.transport
    peer.inside.on_data = lambda _data: transport.pause_reading()
    peer.send(BytesMessage(b"last"), CloseConnection(1001, "gone"))
    transport.close()
    peer.scheduler.run()
    assert closes(peer.heard()) == [1000]
    assert peer.inside.reported == ["made", "lost"]
    assert peer.transport.is_lost


def test_what_is_written_before_the_end_arrives_and_the_close_of_the_client_is_awaited() -> None:
    peer = opened()
    peer.inside.transport.pause_reading()
    peer.inside.transport.write(b"disconnect")
    peer.inside.transport.close()
    message, close = peer.heard()
    assert message == BytesMessage(b"disconnect")
    assert isinstance(close, CloseConnection)
    peer.scheduler.run()
    assert not peer.transport.is_lost
    peer.transport.receive(peer.client.send(close.response()))
    peer.scheduler.run()
    assert peer.inside.reported == ["made", "lost"]


def test_what_comes_while_the_close_is_awaited_is_dropped() -> None:
    peer = opened()
    peer.inside.transport.close()
    peer.send(BytesMessage(b"late"), Ping(b"late"))
    assert peer.inside.received == []
    assert closes(peer.heard()) == [1000]
    peer.scheduler.advance(CLOSE_WAIT_S)
    assert peer.transport.is_lost


def test_a_client_may_close_while_the_connection_inside_does() -> None:
    peer = opened()
    peer.inside.on_data = lambda _data: peer.inside.transport.close()
    peer.send(BytesMessage(b"disconnect"), CloseConnection(1000))
    peer.scheduler.run()
    assert peer.transport.is_lost
    assert peer.inside.reported == ["made", "lost"]


def test_a_client_that_got_the_reason_and_reads_nothing_is_cut_off() -> None:
    peer = opened()
    peer.transport.is_stuck = True
    peer.inside.transport.write(b"x" * LIMIT)
    peer.send(TextMessage("text"))
    peer.scheduler.advance(CLOSE_WAIT_S)
    assert peer.transport.was_aborted


def test_a_connection_inside_may_end_it_at_any_time() -> None:
    for begin in (Peer, opened):
        peer = begin()
        peer.inside.transport.abort()
        peer.inside.transport.write(b"late")
        peer.inside.transport.close()
        peer.transport.receive(HEAD)
        peer.scheduler.run()
        assert (peer.transport.was_aborted, peer.transport.is_lost) == (True, True)
        assert peer.scheduler.timer_count == 0
    early = Peer()
    early.inside.transport.close()
    early.scheduler.run()
    assert early.inside.reported == ["made", "lost"]


def test_a_socket_that_its_client_has_closed_is_reported_before_it_is_lost() -> None:
    early = Peer()
    early.socket.eof_received()
    assert early.inside.reported == ["made"], "nothing was opened"
    peer = opened()
    assert not peer.socket.eof_received(), "the transport is to close"
    peer.transport.lose()
    peer.scheduler.run()
    assert peer.inside.reported == ["made", "eof", "lost"]


def test_a_lost_socket_is_reported() -> None:
    peer = opened()
    error = ConnectionResetError()
    peer.transport.lose(error)
    assert peer.inside.error is error
    assert peer.scheduler.timer_count == 0


# Whether the client is still there


def test_a_silent_client_is_asked_and_then_cut_off() -> None:
    peer = opened(replace(MqttConfig(), ws_idle_timeout_ms=2_000))
    peer.scheduler.advance(1.0)
    assert peer.heard() == [Ping(b"")]
    peer.send(Pong(b""))
    peer.scheduler.advance(1.0)
    assert peer.heard() == []
    peer.scheduler.advance(1.0)
    assert peer.heard() == [Ping(b"")]
    peer.scheduler.advance(1.0)
    assert peer.transport.was_aborted
    assert str(peer.inside.error) == "no answer to a ping"


def test_silence_does_not_count_while_nothing_is_read() -> None:
    peer = opened(replace(MqttConfig(), ws_idle_timeout_ms=2_000))
    peer.inside.transport.pause_reading()
    peer.scheduler.advance(10)
    assert not peer.transport.was_aborted
    peer.inside.transport.resume_reading()
    peer.scheduler.advance(3)
    assert peer.transport.was_aborted


# Over a real socket


class Echo(Inside):
    """Protocol that sends back its input, and closes when asked to."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)
        if data == b"close":
            self.transport.close()


async def test_a_client_library_talks_over_a_socket() -> None:
    loop, insides = asyncio.get_running_loop(), [Echo(), Echo(), Echo()]
    spare = iter(insides)
    sockets = WebSockets(MqttConfig(), loop.call_later, lambda _forwarded: next(spare))
    server = await loop.create_server(sockets, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    url = f"ws://{host}:{port}/ws"
    async with server, soon():
        async with connect(url, subprotocols=[Subprotocol("mqtt")]) as client:
            assert client.subprotocol == "mqtt"
            await client.send(b"x" * 200_000)
            received = b""
            while len(received) < 200_000:
                piece = await client.recv()
                assert isinstance(piece, bytes)
                received += piece
            assert received == b"x" * 200_000
            await (await client.ping())
            await client.send(b"close")
            assert await client.recv() == b"close"
            with pytest.raises(ConnectionClosedOK):
                await client.recv()
        async with connect(url, subprotocols=[Subprotocol("mqtt")]) as client:
            await client.send("text")
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == CloseReason.UNSUPPORTED_DATA
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 400


# Every prefix and every mutation


def mutations(data: bytes) -> Iterator[bytes]:
    """Each byte in turn is another one, of its bits or at random."""
    chance = random.Random(0)
    for at, octet in enumerate(data):
        for other in {*(octet ^ 1 << bit for bit in range(8)), chance.randrange(256)} - {octet}:
            yield data[:at] + bytes((other,)) + data[at + 1 :]


def assert_ends_well(peer: Peer) -> None:
    """Check that it is closed, with an answer or without, as soon as the client goes or is late."""
    peer.scheduler.advance(10_000)
    assert peer.transport.is_lost
    assert peer.inside.reported[-1] == "lost"
    assert peer.scheduler.timer_count == 0


def test_each_mutation_of_a_request_is_answered_or_closed() -> None:
    for data in mutations(HEAD):
        peer = Peer()
        peer.transport.receive(data)
        assert peer.written.startswith(b"HTTP/1.1 ") or not peer.written
        assert_ends_well(peer)


def test_each_prefix_of_a_request_is_closed_in_time() -> None:
    for size in range(1, len(HEAD)):
        peer = Peer()
        peer.transport.receive(HEAD[:size])
        assert_ends_well(peer)


def test_each_mutation_and_prefix_of_frames_is_read_or_closed() -> None:
    client = opened().client
    frames = b"".join(
        client.send(event)
        for event in (
            BytesMessage(b"a" * 130),
            BytesMessage(b"bb", message_finished=False),
            Ping(b"ping"),
            BytesMessage(b"c"),
            CloseConnection(1000, "done"),
        )
    )
    for data in (*mutations(frames), *(frames[:size] for size in range(1, len(frames)))):
        peer = opened()
        peer.transport.receive(data)
        peer.scheduler.run()
        assert_ends_well(peer)
