"""The client of tests, benchmarks and torture, against a broker and against peers that are none."""

from __future__ import annotations

import asyncio

import pytest

from fluffle.broker import Broker
from fluffle.broker.amqp_client import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    HEARTBEAT,
    AmqpAddress,
    AmqpConnection,
    BrokerRefusal,
    ClientOptions,
    ConnectionEnded,
    InvalidBytes,
    address_of,
    open_streams,
)
from fluffle.broker.config.config import Config, Limits, ListenAddress
from fluffle.protocol.client_reader import ClientReader
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Queue,
    encode_method,
    make,
)
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.support.peer import peer


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


@pytest.mark.parametrize(
    "url",
    [
        "http://app:s3cret@h",
        "amqp://app:s3cret@h:0",
        "amqp://app:s3cret@h:x",
        "amqp://app:s3/cret@h",
        "amqp://app:s@3cret@[::1",
        "app:s3cret@h",
        "amqps//app:s3cret@h",
    ],
)
def test_an_invalid_url_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"\*\*\*@") as invalid:
        address_of(url)
    assert "s3" not in str(invalid.value)
    assert "3cret" not in str(invalid.value)
    assert invalid.value.__cause__ is None
    assert invalid.value.__suppress_context__ or invalid.value.__context__ is None


def test_a_url_without_a_host_can_be_refused() -> None:
    assert address_of("amqp://h", default_host="").host == "h"
    with pytest.raises(ValueError, match="HOST"):
        address_of("amqp://", default_host="")


async def test_a_client_takes_limits_below_its_own() -> None:
    limits = Limits(channels_max=10, frame_bytes_max=8_192)
    config = Config(listen=ListenAddress("127.0.0.1", 0), limits=limits)
    async with Broker(config) as broker:
        at = address_of(broker.url)
        client = await AmqpConnection.connect((at.host, at.port), ClientOptions())
        assert client.frame_bytes_max == 8_192
        await client.call(make(Channel.Open), 10)
        client.abort()


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ((10, 8_192), (10, 8_192)),
        ((0, 0), (CHANNELS_MAX, FRAME_BYTES_MAX)),
        ((65_535, 1 << 20), (CHANNELS_MAX, FRAME_BYTES_MAX)),
    ],
)
async def test_the_lower_limit_of_both_ends_is_taken(
    offered: tuple[int, int], taken: tuple[int, int]
) -> None:
    tuned: list[Connection.TuneOk] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PROTOCOL_HEADER))
        for method in (make(Connection.Start), make(Connection.Tune, *offered, 0)):
            writer.write(encode_method(0, method))
        client_reader = ClientReader()
        while data := await reader.read(4_096):
            for received in client_reader.feed(data):
                if isinstance(received.method, Connection.TuneOk):
                    tuned.append(received.method)
                    writer.write(encode_method(0, Connection.OpenOk()))

    async with peer(talk) as address:
        client = await AmqpConnection.connect(address, ClientOptions())
        client.abort()
    assert [(each.channel_max, each.frame_max) for each in tuned] == [taken]
    assert client.frame_bytes_max == taken[1]


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


async def test_a_hang_up_is_a_connection_error() -> None:
    async def talk(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """Hang up."""

    async with peer(talk) as address:
        with pytest.raises(ConnectionError):
            await AmqpConnection.connect(address, ClientOptions(beat_s=0))


async def test_a_call_without_an_answer_is_a_timeout() -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    options = ClientOptions(beat_s=0, timeout_s=0.01)
    async with peer(talk) as address:
        client = AmqpConnection(await open_streams(address, ClientOptions()), options)
        with pytest.raises(TimeoutError, match=r"no answer to Channel.Open") as failed:
            await client.call(make(Channel.Open))
        client.abort()
    assert isinstance(failed.value, ConnectionEnded)


async def test_an_answer_that_does_not_come_is_waited_for_so_long() -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    options = ClientOptions(beat_s=0, timeout_s=0.01)
    async with peer(talk) as address:
        client = AmqpConnection(await open_streams(address, ClientOptions()), options)
        with pytest.raises(ConnectionEnded, match="no answer to the login"):
            await client.log_in()
        client.abort()


async def test_nobody_listens() -> None:
    async def talk(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """Say nothing."""

    async with peer(talk) as address:
        pass
    with pytest.raises(ConnectionEnded, match="no connection"):
        await AmqpConnection.connect(address, ClientOptions())
