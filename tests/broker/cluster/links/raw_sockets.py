"""Sockets with somebody at them who speaks the protocol of links as he likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

from fluffle.broker.cluster.links.handshake import LinkCredentials, LinkHandshake
from fluffle.broker.cluster.links.identity import Boots, Identity, PeerBoots
from fluffle.broker.config.config import ListenAddress
from tests.broker.cluster.links.link_nodes import SECRET


@dataclass
class RawSocket:
    """A socket with somebody at it who keeps to nothing."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def prove(self, us: Identity, node: str | None, secret: bytes = SECRET) -> None:
        """The handshake, as the end that dialled `node`, or that was dialled."""
        boots, peers = PeerBoots(), {"a", "b"}
        credentials = LinkCredentials(us, secret, boots, peers, Boots.since(us.boot))
        handshake = LinkHandshake(credentials, node, challenge=bytes([us.boot.count]) * 32)
        self.writer.write(handshake.start())
        await self.finish(handshake)

    async def finish(self, handshake: LinkHandshake) -> None:
        while handshake.peer is None:
            data = await self.reader.read(1 << 16)
            assert data, "closed in the middle of the handshake"
            self.writer.write(handshake.feed(data))

    def read_no_more(self) -> None:
        """Leave what comes to the kernel."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    async def is_closed(self) -> None:
        """Read until the other end is gone."""
        with suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass


@asynccontextmanager
async def raw_to(address: ListenAddress) -> AsyncIterator[RawSocket]:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield RawSocket(reader, writer)
    finally:
        writer.transport.abort()


class RawListener:
    """Accepts as whoever it likes."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[RawSocket] = asyncio.Queue()
        self._all: list[RawSocket] = []
        self.address: ListenAddress
        self._server: asyncio.Server

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.address = ListenAddress(*self._server.sockets[0].getsockname()[:2])

    async def link(self, us: Identity) -> RawSocket:
        """The next that dials, once it is a link."""
        raw = await self.accepted.get()
        await raw.prove(us, None)
        return raw

    def close(self) -> None:
        self._server.close()
        for raw in self._all:
            raw.writer.transport.abort()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.append(RawSocket(reader, writer))
        self.accepted.put_nowait(self._all[-1])


@asynccontextmanager
async def listening() -> AsyncIterator[RawListener]:
    listener = RawListener()
    await listener.open()
    try:
        yield listener
    finally:
        listener.close()
        await asyncio.sleep(0)
