"""A client on a real socket, with or without TLS, which reads frame by frame."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fluffle.protocol.methods import Connection, Method, decode_method, encode_method, octets
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.support.edge import start_ok


class SocketClient:
    """The client's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def method(self) -> Method:
        """The next method that comes."""
        head = await self.reader.readexactly(7)
        payload = await self.reader.readexactly(int.from_bytes(head[3:]) + 1)
        return decode_method(payload[:-1])

    async def greet(self) -> list[str]:
        """Say hello; the mechanisms that are offered."""
        self.writer.write(PROTOCOL_HEADER)
        start = await self.method()
        assert isinstance(start, Connection.Start)
        return octets(start.mechanisms).decode().split()

    async def authenticate(self, response: str, mechanism: str = "PLAIN") -> Method:
        """The answer to start-ok: tune, or a close."""
        self.writer.write(encode_method(0, start_ok(response, mechanism=mechanism)))
        return await self.method()

    async def log_in(self, response: str = "\0guest\0guest", mechanism: str = "PLAIN") -> None:
        """From the protocol header to connection.open-ok."""
        await self.greet()
        assert isinstance(await self.authenticate(response, mechanism), Connection.Tune)
        self.writer.write(encode_method(0, Connection.TuneOk(2047, 131_072, 0)))
        self.writer.write(encode_method(0, Connection.Open("/")))
        assert isinstance(await self.method(), Connection.OpenOk)


@asynccontextmanager
async def connected_client(
    address: tuple[str, int], tls: ssl.SSLContext | None = None
) -> AsyncIterator[SocketClient]:
    """A client of that address."""
    name = "localhost" if tls else None
    reader, writer = await asyncio.open_connection(*address, ssl=tls, server_hostname=name)
    try:
        yield SocketClient(reader, writer)
    finally:
        writer.close()
