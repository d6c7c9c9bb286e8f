"""Connection of a client with one channel at a time; what both sides say goes into a history.

Who waits, hears: there is no task behind a connection.  Whatever ends it raises `ConnectionEnded`:
the peer has closed it or fallen silent, or the client has lost patience.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

from fluffle.broker.torture.history import (
    Asked,
    Closing,
    Complained,
    Connected,
    Ended,
    Note,
    Strange,
    Vouched,
)
from fluffle.protocol.client_reader import ClientReader, InvalidFrames, ReceivedMethod
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.spec import FRAME_END, FRAME_HEARTBEAT, PROTOCOL_HEADER, ReplyCode
from fluffle.protocol.wire import to_table

HEARTBEAT = bytes((FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END))
FRAME_BYTES_MAX = 131_072
READ_BYTES = 65_536
CAPABILITIES = (
    "publisher_confirms",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
)


class ConnectionEnded(Exception):
    """End of a client's connection, for whatever reason."""


class BrokerRefusal(ConnectionEnded):
    """Close of the channel or the connection by the broker, or cancel of a consumer."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class NodeAddress(NamedTuple):
    """Address of a node; several addresses may lead to one."""

    node: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Options of a client: login, heartbeats, and how long it waits."""

    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    beat_s: float = 2.0
    """How often it says that it is there; it asks the same of the broker."""
    silent_beats_max: int = 4
    patience_s: float = 10.0
    """How long an answer may take."""


class ClientConnection:
    """Connection to a node; methods that arrive go to the functions registered with `on`."""

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        name: str,
        note: Note,
        client_options: ClientOptions,
    ) -> None:
        self.name = name
        self.note = note
        self.client_options = client_options
        self.received_count = 0
        """Methods that were sent to us so far."""
        self.is_closing = False
        """What comes on the channel is of no interest any more."""
        self._reader, self._writer = streams
        self.port: int = self._writer.get_extra_info("sockname")[1]
        """Our own, by which a connection is known at the other end."""
        self._client_reader = ClientReader()
        self._received: deque[ReceivedMethod] = deque()
        self._handlers: dict[type[Method], Callable[[ReceivedMethod], None]] = {
            Connection.Blocked: self._on_blocked,
            Connection.Close: self._on_connection_close,
            Channel.Close: self._on_channel_close,
            Basic.Cancel: self._on_cancel,
        }
        self._channel = 0
        self._sent_at = asyncio.get_running_loop().time()

    @classmethod
    async def connect(
        cls, to: NodeAddress, name: str, note: Note, client_options: ClientOptions
    ) -> Self:
        """Log in and open a channel.  `ConnectionEnded` if that is refused or takes too long."""
        try:
            async with asyncio.timeout(client_options.patience_s):
                streams = await asyncio.open_connection(to.host, to.port)
        except (OSError, TimeoutError) as error:
            raise ConnectionEnded(f"no connection: {error}") from error
        note(Connected(name, to.node))
        connection = cls(streams, name, note, client_options)
        try:
            async with connection.patience("no answer to the login"):
                await connection._log_in()
            await connection.open_channel()
        except BaseException as error:
            connection.end(error)
            raise
        return connection

    async def _log_in(self) -> None:
        client_options = self.client_options
        self.write(PROTOCOL_HEADER)
        await self._expect(Connection.Start)
        response = f"\0{client_options.user}\0{client_options.password}"
        capabilities = to_table({"capabilities": dict.fromkeys(CAPABILITIES, True)})
        properties = pamqp_table(capabilities)
        self._send_on(0, make(Connection.StartOk, properties, "PLAIN", response, "en_US"))
        await self._expect(Connection.Tune)
        tune_ok = make(
            Connection.TuneOk, 2047, FRAME_BYTES_MAX, max(1, round(2 * client_options.beat_s))
        )
        self._send_on(0, tune_ok, make(Connection.Open, virtual_host=client_options.vhost))
        await self._expect(Connection.OpenOk)

    async def _expect(self, cls: type[Method]) -> None:
        while not isinstance((await self.receive()).method, cls):
            pass

    @property
    def channel(self) -> str:
        """Name of the channel."""
        return f"{self.name}#{self._channel}"

    def on(self, cls: type[Method], act: Callable[[ReceivedMethod], None]) -> None:
        self._handlers[cls] = act

    def end(self, error: BaseException | None) -> None:
        """Hang up, without a word to the broker.  `error` is why; a complaint is written down."""
        if isinstance(error, BrokerRefusal) and error.code != ReplyCode.CONNECTION_FORCED:
            self.note(Complained(self.name, " ".join(str(error).split())))
        self.note(Ended(self.channel, str(error or "it is done")))
        self._writer.transport.abort()

    # Hearing

    async def receive(self) -> ReceivedMethod:
        """Return the next method, after it was acted on."""
        while not self._received:
            data = await self._read()
            try:
                self._received.extend(self._client_reader.feed(data))
            except (InvalidFrames, ProtocolError) as error:
                self.note(Strange(f"{self.name} heard {error}"))
                raise ConnectionEnded("nonsense") from error
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

    async def call(self, method: Method) -> ReceivedMethod:
        """Send a method and hear its answer, which vouches for everything before."""
        self.note(Asked(self.channel))
        self.send(method)
        async with self.patience(f"no answer to {method.name}"):
            while (reply := await self.receive()).method.name not in method.valid_responses:
                pass
        self.note(Vouched(self.channel))
        return reply

    @asynccontextmanager
    async def patience(self, why: str) -> AsyncIterator[None]:
        """Raise `ConnectionEnded` unless whatever is waited for in it comes soon."""
        try:
            async with asyncio.timeout(self.client_options.patience_s):
                yield
        except TimeoutError as error:
            raise ConnectionEnded(why) from error

    async def _read(self) -> bytes:
        """Read some bytes.  Heartbeats are sent as long as a caller waits here."""
        loop = asyncio.get_running_loop()
        silent_beats = 0
        while silent_beats < self.client_options.silent_beats_max:
            if loop.time() - self._sent_at > self.client_options.beat_s:
                self.write(HEARTBEAT)
            try:
                async with asyncio.timeout(self.client_options.beat_s):
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

    def _on_blocked(self, reply: ReceivedMethod) -> None:
        assert isinstance(reply.method, Connection.Blocked)
        self.note(Complained(self.name, f"{reply.method.name}: {reply.method.reason}"))

    def _on_connection_close(self, reply: ReceivedMethod) -> None:
        assert isinstance(reply.method, Connection.Close)
        raise BrokerRefusal(reply.method.reply_text, reply.method.reply_code or 0)

    def _on_channel_close(self, reply: ReceivedMethod) -> None:
        assert isinstance(reply.method, Channel.Close)
        raise BrokerRefusal(reply.method.reply_text, reply.method.reply_code or 0)

    def _on_cancel(self, reply: ReceivedMethod) -> None:
        raise BrokerRefusal(f"{reply.method.name}: the consumer was ended")

    # Speaking

    def send(self, *methods: Method) -> None:
        self._send_on(1, *methods)

    def _send_on(self, channel: int, *methods: Method) -> None:
        self.write(b"".join(encode_method(channel, method) for method in methods))

    def write(self, data: bytes) -> None:
        """Frames as they are.  That a connection is gone is heard of later."""
        if not self._writer.transport.is_closing():
            self._writer.write(data)
            self._sent_at = asyncio.get_running_loop().time()

    async def open_channel(self) -> None:
        self._channel += 1
        self.is_closing = False
        await self.call(make(Channel.Open))

    async def close_channel(self) -> None:
        """Close the channel with all unsettled deliveries."""
        self.note(Closing(self.channel))
        self.is_closing = True
        await self.call(make(Channel.Close, 200, "", 0, 0))
        self.note(Ended(self.channel, "it was closed"))

    async def replace_channel(self, why: str) -> None:
        """Open another channel for one that the broker has closed."""
        self.note(Ended(self.channel, why))
        self.send(make(Channel.CloseOk))
        await self.open_channel()
