"""`Proxy`: a TCP link that can be cut, slowed and reset, one direction at a time; `Mesh`: many.

While a direction is cut, nothing goes through it, not even that an end has closed; what was sent
meanwhile arrives when it is mended, as after a partition.  To both ends it looks like a network
that says nothing.  While a direction is slowed, everything arrives so much later, however much it
is: a long way, not a narrow one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import permutations
from typing import Self

CHUNK_BYTES = 65_536
CHUNKS_UNDER_WAY_MAX = 512
"""In one direction of one connection; then its sender is not read any more."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a socket that is closed says so with RST, and at once."""


class ProxyDirection:
    """Traffic of a proxy in one direction."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._cuts = 0
        self._is_whole = asyncio.Event()
        self._is_whole.set()

    @property
    def is_cut(self) -> bool:
        return self._cuts > 0

    def cut(self) -> None:
        """Cut the direction; it has to be mended as often as it is cut."""
        self._cuts += 1
        self._is_whole.clear()

    def mend(self) -> None:
        self._cuts = max(0, self._cuts - 1)
        if not self._cuts:
            self._is_whole.set()

    def restore(self) -> None:
        """Restore the direction, whatever was done to it."""
        self.delay_s, self._cuts = 0.0, 0
        self._is_whole.set()

    async def passed(self, sent_at_s: float) -> None:
        """Return when what was sent at a time of the loop has come through."""
        await self._is_whole.wait()
        late_s = asyncio.get_running_loop().time() - sent_at_s
        if self.delay_s > late_s:
            await asyncio.sleep(self.delay_s - late_s)
            await self._is_whole.wait()


class Proxy:
    """Stands before a peer that may be away; as a context it listens."""

    def __init__(self, host: str, port: int) -> None:
        """`host` and `port` are those of the peer."""
        self.forth = ProxyDirection()
        """From those that connect to the peer."""
        self.back = ProxyDirection()
        self.port = 0
        self._peer = host, port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        await asyncio.gather(*self._links, return_exceptions=True)

    def reset(self) -> None:
        """Reset every connection there is, with RST to both ends."""
        for link in self._links:
            link.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # it was reset, and only `__aexit__` waits for this task
        finally:
            self._links.discard(task)
            break_off(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.forth.passed(asyncio.get_running_loop().time())
        try:
            peer_reader, peer_writer = await asyncio.open_connection(*self._peer)
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, peer_writer, self.forth))
                both.create_task(pump(peer_reader, writer, self.back))
        finally:
            break_off(peer_writer)


class UnderWay:
    """Bytes that were sent in one direction and have not arrived, with the times when they were
    sent."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Semaphore(CHUNKS_UNDER_WAY_MAX)

    async def send(self, data: bytes) -> None:
        await self._has_room.acquire()
        self.add(data)

    def add(self, data: bytes) -> None:
        """Add data, with or without room for it."""
        self._chunks.append((asyncio.get_running_loop().time(), data))
        self._has_some.set()

    async def next(self) -> tuple[float, bytes]:
        """Take the oldest chunk, which is under way no more."""
        while not self._chunks:
            self._has_some.clear()
            await self._has_some.wait()
        self._has_room.release()
        return self._chunks.popleft()


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: ProxyDirection
) -> None:
    """Pump bytes both ways until one of the two has ended."""
    under_way = UnderWay()
    sending = asyncio.create_task(send(reader, under_way))
    try:
        with suppress(OSError):
            await arrive(under_way, writer, flow)
            await sending  # it raises if the sender has not closed in order
            writer.write_eof()
            return
        break_off(writer)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def send(reader: asyncio.StreamReader, under_way: UnderWay) -> None:
    """Put into transit all that the sender sends, and nothing as the last."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            await under_way.send(data)
    finally:
        under_way.add(b"")


async def arrive(under_way: UnderWay, writer: asyncio.StreamWriter, flow: ProxyDirection) -> None:
    """Return with the last."""
    while True:
        sent_at_s, data = await under_way.next()
        await flow.passed(sent_at_s)
        if not data:
            return
        writer.write(data)
        await writer.drain()


def break_off(writer: asyncio.StreamWriter) -> None:
    """Close with RST, if it is not closed."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@dataclass(slots=True)
class Mesh:
    """The links between the nodes: from each to each other, the proxy that it connects through."""

    proxies: dict[tuple[str, str], Proxy] = field(default_factory=dict)

    def flows(self, source: str, destination: str) -> tuple[ProxyDirection, ProxyDirection]:
        """Directions from one node to the other, whichever of them connected."""
        return self.proxies[source, destination].forth, self.proxies[destination, source].back

    def cut(self, source: str, destination: str) -> None:
        for flow in self.flows(source, destination):
            flow.cut()

    def mend(self, source: str, destination: str) -> None:
        for flow in self.flows(source, destination):
            flow.mend()

    def delay(self, source: str, destination: str, seconds: float) -> None:
        for flow in self.flows(source, destination):
            flow.delay_s = seconds

    def reset(self, one: str, other: str) -> None:
        for pair in ((one, other), (other, one)):
            self.proxies[pair].reset()

    async def isolate(self, node: str) -> None:
        for source, destination in self._pairs_of(node):
            self.cut(source, destination)

    async def rejoin(self, node: str) -> None:
        for source, destination in self._pairs_of(node):
            self.mend(source, destination)

    def _pairs_of(self, node: str) -> list[tuple[str, str]]:
        return [pair for pair in self.proxies if node in pair]


@asynccontextmanager
async def mesh(ports: Mapping[str, int]) -> AsyncIterator[Mesh]:
    """Proxies between nodes that listen for each other on these ports of this machine."""
    async with AsyncExitStack() as stack:
        proxies = {
            (source, destination): await stack.enter_async_context(
                Proxy("127.0.0.1", ports[destination])
            )
            for source, destination in permutations(ports, 2)
        }
        yield Mesh(proxies)
