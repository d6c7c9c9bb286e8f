"""An AMQP client for what tests ask of a broker that is somewhere else: `ExternalVhost`.

One connection and two channels: on one it looks and publishes, which may close that, on the other
it holds messages, which a close would give back.  It is opened when it is needed, and again after
an error.  One thing at a time; each has its time.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from fluffle.broker.testing.urls import address_of
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Method,
    Queue,
    decode_method,
    encode_method,
    make,
)
from fluffle.protocol.properties import (
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    split_content,
)
from fluffle.protocol.spec import FRAME_BODY, FRAME_HEARTBEAT, PROTOCOL_HEADER

FRAME_BYTES_MAX = 131_072
PATIENCE_S = 10.0
"""A broker that has not answered by then never will."""

LOOKING, HOLDING = 1, 2
"""Channels."""


class RequestRefused(Exception):
    """The broker has closed the channel or the connection: its code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def refused(close: Channel.Close | Connection.Close) -> RequestRefused:
    return RequestRefused(close.reply_code or 0, close.reply_text or "")


class ReceivedMethod(NamedTuple):
    """A method with its message, if it carries one."""

    method: Method
    properties: Properties | None = None
    body: bytes = b""


class Client:
    """In the loop of who uses it."""

    def __init__(self, url: str) -> None:
        self._address = address_of(url)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._open: set[int] = set()
        self._lock = asyncio.Lock()

    async def counts(self, queue: str) -> tuple[int, int] | None:
        """Return how many messages are ready, and how many consumers there are; None without a
        queue."""
        declare = make(Queue.Declare, queue=queue, passive=True)
        async with self._turn(LOOKING):
            try:
                answer = (await self._call(LOOKING, declare)).method
            except RequestRefused as refused:
                if refused.code == 404:
                    return None
                raise
        assert isinstance(answer, Queue.DeclareOk)
        return answer.message_count or 0, answer.consumer_count or 0

    async def publish(
        self, exchange: str, routing_key: str, properties: Properties, body: bytes
    ) -> bool:
        """Whether it has led somewhere.  Refused, also by a queue."""
        method = make(Basic.Publish, exchange=exchange, routing_key=routing_key, mandatory=True)
        content = split_content(
            build_content(encode_properties(properties), body), LOOKING, FRAME_BYTES_MAX
        )
        async with self._turn(LOOKING):
            self._write(encode_method(LOOKING, method) + content)
            arrival, has_led = await self._next(), True
            if isinstance(arrival.method, Basic.Return):
                arrival, has_led = await self._next(), False
        if isinstance(arrival.method, Basic.Nack):
            raise RequestRefused(0, "a queue has refused the message")
        return has_led

    async def purge(self, queue: str) -> int:
        """Return how many messages there were.  Refused."""
        async with self._turn(LOOKING):
            answer = (await self._call(LOOKING, make(Queue.Purge, queue=queue))).method
        assert isinstance(answer, Queue.PurgeOk)
        return answer.message_count or 0

    async def get(self, queue: str) -> ReceivedMethod | None:
        """Return the next message.  Refused."""
        async with self._turn(HOLDING):
            arrival = await self._call(HOLDING, make(Basic.Get, queue=queue))
        return arrival if isinstance(arrival.method, Basic.GetOk) else None

    def settle(self, method: Method) -> None:
        """Ack or reject what was got; it is in vain if the connection has gone since."""
        if self._streams is not None and HOLDING in self._open:
            self._write(encode_method(HOLDING, method))

    async def close(self) -> None:
        """Close; unacknowledged messages are requeued."""
        if self._streams is not None:
            writer = self._streams[1]
            self._drop()
            try:
                await asyncio.wait_for(writer.wait_closed(), PATIENCE_S)
            except (OSError, TimeoutError):
                return

    @asynccontextmanager
    async def _turn(self, channel: int) -> AsyncIterator[None]:
        """Be alone on an open channel; who is cut short on it leaves no half of a conversation."""
        async with self._lock:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._opened(channel)
                    yield
            except RequestRefused:
                raise
            except BaseException:
                self._drop()
                raise

    async def _opened(self, channel: int) -> None:
        if self._streams is None:
            await self._connect()
        if channel not in self._open:
            await self._call(channel, make(Channel.Open))
            self._open.add(channel)
            if channel == LOOKING:
                await self._call(channel, make(Confirm.Select))

    async def _connect(self) -> None:
        """Connect and log in.  OSError; Refused."""
        at = self._address
        self._streams = await asyncio.open_connection(at.host, at.port, ssl=at.is_encrypted or None)
        self._write(PROTOCOL_HEADER)
        await self._next()
        start_ok = make(
            Connection.StartOk,
            client_properties={},
            mechanism="PLAIN",
            response=f"\0{at.user}\0{at.password}",
        )
        tune = (await self._call(0, start_ok)).method
        assert isinstance(tune, Connection.Tune)
        tune_ok = make(
            Connection.TuneOk, channel_max=HOLDING, frame_max=FRAME_BYTES_MAX, heartbeat=0
        )
        self._write(encode_method(0, tune_ok))
        await self._call(0, make(Connection.Open, virtual_host=at.vhost))

    async def _call(self, channel: int, method: Method) -> ReceivedMethod:
        self._write(encode_method(channel, method))
        return await self._next()

    async def _next(self) -> ReceivedMethod:
        """Return the next method.  Refused; ConnectionError when the broker has hung up."""
        channel, payload = await self._frame()
        method = decode_method(payload)
        if isinstance(method, Channel.Close):
            self._write(encode_method(channel, make(Channel.CloseOk)))
            self._open.discard(channel)
            raise refused(method)
        if isinstance(method, Connection.Close):
            self._write(encode_method(0, make(Connection.CloseOk)))
            self._drop()
            raise refused(method)
        if not isinstance(method, Basic.GetOk | Basic.Return):
            return ReceivedMethod(method)
        _channel, header = await self._frame()
        size, body = struct.unpack_from(">Q", header, 4)[0], b""
        while len(body) < size:
            body += (await self._frame())[1]
        return ReceivedMethod(method, decode_properties(header[12:]), body)

    async def _frame(self) -> tuple[int, bytes]:
        """Return channel and payload of a frame; heartbeats are passed over."""
        assert self._streams is not None
        reader = self._streams[0]
        try:
            kind, channel, size = struct.unpack(">BHI", await reader.readexactly(7))
            payload = (await reader.readexactly(size + 1))[:-1]
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the broker has closed the connection") from error
        assert kind == FRAME_HEARTBEAT or kind <= FRAME_BODY, kind
        return await self._frame() if kind == FRAME_HEARTBEAT else (channel, payload)

    def _write(self, data: bytes) -> None:
        assert self._streams is not None
        self._streams[1].write(data)

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None
        self._open.clear()
