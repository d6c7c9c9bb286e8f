"""The client of tests, benchmarks and torture, against a broker and against peers that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from fluffle.broker import Broker
from fluffle.broker.amqp_client import (
    HEARTBEAT,
    AmqpAddress,
    AmqpConnection,
    BrokerRefusal,
    ClientOptions,
    ConnectionEnded,
    InvalidBytes,
    address_of,
)
from fluffle.protocol.methods import Basic, Channel, Connection, Queue, encode_method, make
from fluffle.protocol.spec import PROTOCOL_HEADER


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://", AmqpAddress("localhost", 5672, "guest", "guest", "/", False)),
        ("amqps://h", AmqpAddress("h", 5671, "guest", "guest", "/", True)),
        ("amqp://a%40b:c%2Fd@[::1]:7/%2Fv", AmqpAddress("::1", 7, "a@b", "c/d", "/v", False)),
    ],
)
def test_a_url_has_defaults_and_is_unquoted(url: str, address: AmqpAddress) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize("url", ["", "localhost:5672", "http://h", "amqp://h:0", "amqp://h:x"])
def test_no_other_url_is_taken(url: str) -> None:
    with pytest.raises(ValueError, match=r"amqp|Port"):
        address_of(url)


async def test_a_refusal_names_its_channel_and_leaves_the_others() -> None:
    async with Broker() as broker:
        at = address_of(broker.url)
        client = await AmqpConnection.connect((at.host, at.port), ClientOptions(beat_s=0))
        for channel in (1, 2):
            await client.call(make(Channel.Open), channel)
        with pytest.raises(BrokerRefusal, match="no queue 'missing'") as refused:
            await client.call(make(Queue.Declare, queue="missing", passive=True), 2)
        assert (refused.value.code, refused.value.channel) == (404, 2)
        answer = await client.call(make(Queue.Declare, queue="there"), 1)
        assert isinstance(answer.method, Queue.DeclareOk)
        await client.close()


async def test_what_comes_is_handed_to_who_has_asked_for_it() -> None:
    async with Broker() as broker:
        at = address_of(broker.url)
        client = await AmqpConnection.connect((at.host, at.port), ClientOptions())
        bodies: list[bytes] = []
        client.on(Basic.Deliver, lambda reply: bodies.append(reply.body))
        await client.call(make(Channel.Open))
        await client.call(make(Queue.Declare, queue="q"))
        await broker.vhost().publish("", "q", b"first")
        await client.call(make(Basic.Consume, queue="q"))
        while not bodies:
            await client.receive()
        assert bodies == [b"first"]
        client.abort()


async def test_a_login_that_is_refused_ends_the_connection() -> None:
    async with Broker() as broker:
        at = address_of(broker.url)
        with pytest.raises(BrokerRefusal, match="ACCESS_REFUSED") as refused:
            await AmqpConnection.connect((at.host, at.port), ClientOptions(password="wrong"))
        assert refused.value.channel == 0


@asynccontextmanager
async def peer(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, int]]:
    """A server that is no broker; its address."""

    talks: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.ensure_future(accept(reader, writer)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await asyncio.gather(*talks)


async def test_bytes_that_are_no_frames_end_the_connection() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request")

    async with peer(talk) as address:
        with pytest.raises(ConnectionEnded):
            await AmqpConnection.connect(address, ClientOptions())


async def test_a_frame_without_an_end_is_no_frame() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_method(0, make(Connection.Tune))[:-1] + b"\x00")

    async with peer(talk) as address:
        with pytest.raises(InvalidBytes, match="without an end"):
            await AmqpConnection.connect(address, ClientOptions())


async def test_who_waits_sends_heartbeats_and_gives_up_a_silent_peer() -> None:
    heard = b""

    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        while data := await reader.read(100):
            heard += data

    async with peer(talk) as address:
        with pytest.raises(ConnectionEnded, match="the peer is silent"):
            await AmqpConnection.connect(address, ClientOptions(beat_s=0.01, silent_beats_max=3))
    assert heard.startswith(PROTOCOL_HEADER)
    assert set(heard.removeprefix(PROTOCOL_HEADER).split(HEARTBEAT)) <= {b""}


async def test_an_answer_that_does_not_come_is_waited_for_so_long() -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(talk) as address:
        with pytest.raises(ConnectionEnded, match="no answer to the login"):
            await AmqpConnection.connect(address, ClientOptions(beat_s=0, timeout_s=0.01))


async def test_nobody_listens() -> None:
    async def talk(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """Say nothing."""

    async with peer(talk) as address:
        pass
    with pytest.raises(ConnectionEnded, match="no connection"):
        await AmqpConnection.connect(address, ClientOptions())
