"""`AmqpConnection`: a small client of any AMQP 0-9-1 broker, in an asyncio loop.

It logs in, calls methods and sends heartbeats.  The caller that waits reads: there is no task
behind a connection.  Whatever ends it raises `ConnectionEnded`: the peer has closed it or fallen
silent, or the client has waited for too long.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar
from urllib.parse import unquote, urlsplit

from fluffle.protocol.client_reader import ClientReader, InvalidFrames, ReceivedMethod
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.spec import FRAME_END, FRAME_HEARTBEAT, PROTOCOL_HEADER, ProtocolError
from fluffle.protocol.wire import to_table

AMQP_PORT, AMQPS_PORT = 5672, 5671
HEARTBEAT = bytes((FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END))
CHANNELS_MAX = 2_047
FRAME_BYTES_MAX = 131_072
READ_BYTES = 65_536
MethodT = TypeVar("MethodT", bound=Method)
CAPABILITIES = (
    "publisher_confirms",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
)


class ConnectionEnded(ConnectionError):
    """End of a client's connection, for whatever reason."""


class AnswerTimeout(ConnectionEnded, TimeoutError):
    """Answer of a broker that has not come in time."""


class InvalidBytes(ConnectionEnded):
    """Bytes of a broker that are no methods of AMQP."""


class BrokerRefusal(ConnectionEnded):
    """Close of the channel or the connection by the broker, or cancel of a consumer."""

    def __init__(self, text: str, code: int = 0, channel: int = 0) -> None:
        """`channel` is 0 where the connection is closed."""
        super().__init__(text)
        self.code = code
        self.channel = channel


class AmqpAddress(NamedTuple):
    """Parts of an AMQP URL."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    is_encrypted: bool


def address_of(url: str, *, default_host: str = "localhost") -> AmqpAddress:
    """Parse an AMQP URL, which must name a host if `default_host` is empty.  ValueError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may quote a part of the password
        raise invalid_url(url) from None
    host = parts.hostname or default_host
    if parts.scheme not in ("amqp", "amqps") or port == 0 or not host:
        raise invalid_url(url)
    is_encrypted = parts.scheme == "amqps"
    return AmqpAddress(
        host,
        port or (AMQPS_PORT if is_encrypted else AMQP_PORT),
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
        unquote(parts.path.removeprefix("/")) or "/",
        is_encrypted,
    )


def invalid_url(url: str) -> ValueError:
    shown = without_password(url)
    return ValueError(f"write amqp://USER:PASSWORD@HOST:PORT or amqps://…, not {shown}")


def without_password(url: str) -> str:
    """Return a URL, or what was meant as one, with `***` for the user and the password.

    All up to the last `@` goes: an invalid URL does not tell where the password begins.  `NAME=`
    and the scheme before it stay.
    """
    return re.sub(r"^([\w.-]+=)?([a-z]+://)?.*@", r"\1\2***@", url, flags=re.DOTALL)


def lower_limit(ours: int, theirs: int | None) -> int:
    """Return the lower one of two limits; 0 of the peer sets none."""
    return min(ours, theirs) if theirs else ours


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Options of a client: login, heartbeats, and how long it waits."""

    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    beat_s: float = 2.0
    """How often it says that it is there; it asks the same of the broker.  0: never."""
    silent_beats_max: int = 4
    timeout_s: float = 10.0
    """How long an answer may take."""


class AmqpConnection:
    """Connection to a broker; methods that arrive go to the functions registered with `on`."""

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client_options: ClientOptions,
    ) -> None:
        self.client_options = client_options
        self.received_count = 0
        """Methods that were sent to us so far."""
        self.frame_bytes_max = FRAME_BYTES_MAX
        """Limit of a frame in both directions, the lower one of ours and the broker's."""
        self._reader, self._writer = streams
        self.port: int = self._writer.get_extra_info("sockname")[1]
        """Our own, by which a connection is known at the other end."""
        self._client_reader = ClientReader()
        self._received: deque[ReceivedMethod] = deque()
        self._handlers: dict[type[Method], Callable[[ReceivedMethod], None]] = {
            Connection.Close: self._on_close,
            Channel.Close: self._on_close,
            Basic.Cancel: self._on_cancel,
        }
        self._sent_at = asyncio.get_running_loop().time()

    @classmethod
    async def connect(
        cls, address: tuple[str, int], client_options: ClientOptions, *, is_encrypted: bool = False
    ) -> Self:
        """Log in; no channel is open.  `ConnectionEnded` if that is refused or takes too long."""
        streams = await open_streams(address, client_options, is_encrypted=is_encrypted)
        connection = cls(streams, client_options)
        try:
            await connection.log_in()
        except BaseException:
            connection.abort()
            raise
        return connection

    async def log_in(self) -> None:
        """Say hello, and open the virtual host."""
        client_options = self.client_options
        async with self.deadline("no answer to the login"):
            self.write(PROTOCOL_HEADER)
            await self._expect(Connection.Start)
            response = f"\0{client_options.user}\0{client_options.password}"
            capabilities = to_table({"capabilities": dict.fromkeys(CAPABILITIES, True)})
            properties = pamqp_table(capabilities)
            self.send(make(Connection.StartOk, properties, "PLAIN", response, "en_US"), channel=0)
            tune = await self._expect(Connection.Tune)
            channels_max = lower_limit(CHANNELS_MAX, tune.channel_max)
            self.frame_bytes_max = lower_limit(FRAME_BYTES_MAX, tune.frame_max)
            beat_s = client_options.beat_s
            heartbeat_s = max(1, round(2 * beat_s)) if beat_s else 0
            tune_ok = make(Connection.TuneOk, channels_max, self.frame_bytes_max, heartbeat_s)
            self.send(tune_ok, make(Connection.Open, virtual_host=client_options.vhost), channel=0)
            await self._expect(Connection.OpenOk)

    async def _expect(self, cls: type[MethodT]) -> MethodT:
        while not isinstance(method := (await self.receive()).method, cls):
            pass
        return method

    def on(self, cls: type[Method], act: Callable[[ReceivedMethod], None]) -> None:
        """Call `act` with each method of this class that comes."""
        self._handlers[cls] = act

    def abort(self) -> None:
        """Hang up, without a word to the broker."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Hang up once all is written, and return when the socket is closed."""
        self._writer.close()
        try:
            async with asyncio.timeout(self.client_options.timeout_s):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            return

    # Receiving

    async def receive(self) -> ReceivedMethod:
        """Return the next method, after it was acted on."""
        while not self._received:
            data = await self._read()
            try:
                self._received.extend(self._client_reader.feed(data))
            except (InvalidFrames, ProtocolError) as error:
                raise InvalidBytes(f"invalid bytes: {error}") from error
        reply = self._received.popleft()
        self.received_count += 1
        act = self._handlers.get(type(reply.method))
        if act is not None:
            act(reply)
        return reply

    async def listen(self, seconds: float) -> None:
        """Act on what comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.receive()
        except TimeoutError:
            return

    async def call(self, method: Method, channel: int = 1) -> ReceivedMethod:
        """Send a method and return its answer."""
        self.send(method, channel=channel)
        async with self.deadline(f"no answer to {method.name}"):
            while (reply := await self.receive()).method.name not in method.valid_responses:
                pass
        return reply

    @asynccontextmanager
    async def deadline(self, why: str) -> AsyncIterator[None]:
        """Raise `AnswerTimeout` unless whatever is waited for in it comes soon."""
        try:
            async with asyncio.timeout(self.client_options.timeout_s):
                yield
        except TimeoutError as error:
            raise AnswerTimeout(why) from error

    async def _read(self) -> bytes:
        """Read some bytes.  Heartbeats are sent as long as a caller waits here."""
        loop = asyncio.get_running_loop()
        beat_s, silent_beats = self.client_options.beat_s, 0
        while silent_beats < self.client_options.silent_beats_max:
            if beat_s and loop.time() - self._sent_at > beat_s:
                self.write(HEARTBEAT)
            try:
                async with asyncio.timeout(beat_s or None):
                    data = await self._reader.read(READ_BYTES)
            except TimeoutError:
                silent_beats += 1
                continue
            except OSError as error:
                raise ConnectionEnded(str(error)) from error
            if not data:
                raise ConnectionEnded("the peer closed the connection")
            return data
        raise ConnectionEnded("the peer is silent")

    def _on_close(self, reply: ReceivedMethod) -> None:
        method = reply.method
        assert isinstance(method, Channel.Close | Connection.Close)
        raise BrokerRefusal(method.reply_text or "", method.reply_code or 0, reply.channel)

    def _on_cancel(self, reply: ReceivedMethod) -> None:
        raise BrokerRefusal(f"{reply.method.name}: the consumer was ended", channel=reply.channel)

    # Sending

    def send(self, *methods: Method, channel: int = 1) -> None:
        """Send methods, without waiting for an answer."""
        self.write(b"".join(encode_method(channel, method) for method in methods))

    def write(self, data: bytes) -> None:
        """Write frames as they are.  That a connection is gone is heard of later."""
        if not self._writer.transport.is_closing():
            self._writer.write(data)
            self._sent_at = asyncio.get_running_loop().time()


async def open_streams(
    address: tuple[str, int], client_options: ClientOptions, *, is_encrypted: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a broker.  `ConnectionEnded` if that fails or takes too long."""
    try:
        async with asyncio.timeout(client_options.timeout_s):
            return await asyncio.open_connection(*address, ssl=is_encrypted or None)
    except TimeoutError as error:
        raise AnswerTimeout("no connection: it takes too long") from error
    except OSError as error:
        raise ConnectionEnded(f"no connection: {error}") from error
