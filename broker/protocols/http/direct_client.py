"""AMQP client within this process for a user of the management API: what he asks for is done,
allowed and refused as for any client, because it is the same connection that does it.

    async with direct_channel(services, user, "/", ends) as channel:
        await channel.call(make(Queue.Declare, queue="orders"))
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from fluffle.broker.access.users import User
from fluffle.broker.admin.local_client import in_time
from fluffle.broker.core.services import Services
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.protocols.amqp091.connection_methods import let_in
from fluffle.protocol.client_reader import ClientReader, ReceivedMethod
from fluffle.protocol.methods import Basic, Channel, Method, encode_method, make
from fluffle.protocol.methods import Connection as Methods
from fluffle.protocol.properties import build_content, split_content
from fluffle.protocol.proxy import Address
from fluffle.protocol.spec import PROTOCOL_HEADER, ReplyCode

CHANNEL = 1


class Addresses(NamedTuple):
    """Addresses of both ends of a request."""

    peer: Address
    here: Address


class ClosedByBroker(Exception):
    """Error that the broker has closed the channel or the connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        """`NAME - explanation`."""

    @property
    def explanation(self) -> str:
        return self.text.partition(" - ")[2]


class InMemoryTransport(asyncio.Transport):
    """Transport without a socket: the client reads at once what the connection writes."""

    def __init__(self, ends: Addresses, client: DirectChannel) -> None:
        super().__init__({"peername": ends.peer, "sockname": ends.here})
        self._client = client
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._client.data_received(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def pause_reading(self) -> None:
        """Who waits for each answer needs not be held up."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._client.lost)

    def abort(self) -> None:
        self.close()


class DirectChannel:
    """The one channel of a connection.  Whatever it awaits may raise `ClosedByBroker` or
    TimeoutError."""

    def __init__(self, services: Services, user: User, ends: Addresses) -> None:
        self._reader = ClientReader()
        self._received: deque[ReceivedMethod] = deque()
        self._has_events = asyncio.Event()
        self._connection = Connection(services)
        self._transport = InMemoryTransport(ends, self)
        self._connection.connection_made(self._transport)
        self._connection.data_received(PROTOCOL_HEADER)
        let_in(self._connection, user)

    async def open(self, vhost: str) -> None:
        self._send(0, make(Methods.Open, virtual_host=vhost))
        await self._answer_to(Methods.Open)
        await self.call(make(Channel.Open))

    async def call(self, method: Method) -> ReceivedMethod:
        """Have something done, and return once it is."""
        self.send(method)
        return await self._answer_to(type(method))

    def send(self, method: Method) -> None:
        """Have something done that is not answered."""
        self._send(CHANNEL, method)

    def publish(self, exchange: str, routing_key: str, raw_properties: bytes, body: bytes) -> None:
        """`mandatory`: what leads nowhere comes back before it is confirmed."""
        method = make(Basic.Publish, exchange=exchange, routing_key=routing_key, mandatory=True)
        content = build_content(raw_properties, body)
        frame_bytes_max = self._connection.services.limits.message_bytes_max
        frames = split_content(content, CHANNEL, frame_bytes_max)
        self._connection.data_received(encode_method(CHANNEL, method) + frames)

    async def next(self, *kinds: type[Method]) -> ReceivedMethod:
        """The next method of one of these kinds."""
        while True:
            event = await self._next()
            if isinstance(event.method, kinds):
                return event

    async def close(self) -> None:
        """Close the channel; what was settled is so when this returns."""
        await self.call(make(Channel.Close, ReplyCode.REPLY_SUCCESS, "", 0, 0))

    def abort(self) -> None:
        """End the connection; what it holds is requeued."""
        self._connection.close_reason = "done"
        self._transport.abort()

    # What the transport delivers

    def data_received(self, data: bytes) -> None:
        """Something the connection says."""
        self._received.extend(self._reader.feed(data))
        self._has_events.set()

    def lost(self) -> None:
        """The connection has ended."""
        self._connection.connection_lost(None)
        self._has_events.set()

    def _send(self, channel: int, method: Method) -> None:
        self._connection.data_received(encode_method(channel, method))

    async def _answer_to(self, kind: type[Method]) -> ReceivedMethod:
        async with in_time(kind.name):
            while True:
                event = await self._next()
                if event.method.name in kind.valid_responses:
                    return event

    async def _next(self) -> ReceivedMethod:
        while not self._received:
            if self._transport.is_closing():
                text = f"CONNECTION_FORCED - {self._connection.close_reason}"
                raise ClosedByBroker(ReplyCode.CONNECTION_FORCED, text)
            self._has_events.clear()
            await self._has_events.wait()
        event = self._received.popleft()
        if isinstance(event.method, Channel.Close | Methods.Close):
            raise ClosedByBroker(event.method.reply_code or 0, event.method.reply_text)
        return event


@asynccontextmanager
async def direct_channel(
    services: Services, user: User, vhost: str, ends: Addresses
) -> AsyncIterator[DirectChannel]:
    """Of a connection that is there as long as the block lasts."""
    channel = DirectChannel(services, user, ends)
    try:
        await channel.open(vhost)
        yield channel
    finally:
        channel.abort()
