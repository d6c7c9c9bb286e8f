"""Nodes that have nothing but links, and a network between them that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from ssl import SSLContext

from fluffle.broker.base.clock import Clock
from fluffle.broker.cluster.links.identity import Boot, HelloRefusal, Identity, PeerBoots
from fluffle.broker.cluster.links.keepalive import LinkLimits
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.config.config import ListenAddress
from fluffle.raft.config import NodeId
from tests.support.loop_turns import turns_until

SECRET = b"correct horse battery staple"
SWIFT = LinkLimits(
    settled_ms=0, redial_ms=5, redial_ms_max=20, beat_ms=20, reopen_ms=20_000, handshake_ms=20_000
)
"""Links that nobody waits for, and that have time on a busy machine: tests wait for what comes."""


def identity(node: NodeId, boot: int = 1, cluster: str = "rabbits") -> Identity:
    """Each reads as many versions of logs as it has had boots."""
    return Identity(cluster, node, Boot(boot, node.encode().ljust(16, b".")[:16]), reads=boot)


class Node:
    """Links, and what they reported."""

    def __init__(
        self,
        name: NodeId,
        *,
        boot: int = 1,
        secret: bytes = SECRET,
        limits: LinkLimits = SWIFT,
        clock: Clock | None = None,
        boots: PeerBoots | None = None,
        certificates: LinkCertificates | None = None,
    ) -> None:
        self.name = name
        self.links = ClusterLinks(
            identity(name, boot), secret, limits=limits, clock=clock, boots=boots,
            certificates=certificates, chance=Random(name),
        )  # fmt: skip
        self.frames: list[tuple[NodeId, FrameKind, bytes]] = []
        self.reported: list[tuple[NodeId, bool]] = []
        """Each time a link was said to be up or down."""
        self._changed = asyncio.Event()
        self.links.on_frame = self._on_frame
        self.links.on_link = self._on_link
        self.address = self.links.listen("127.0.0.1", 0)

    def knows(self, other: Node, address: ListenAddress | None = None) -> None:
        """Have another node as a peer, at its own address or that of something in between."""
        where = address or other.address
        self.links.set_peer(other.name, where.host, where.port)

    def send(self, to: NodeId, payload: bytes, traffic: TrafficClass = TrafficClass.NORMAL) -> None:
        self.links.send(to, FrameKind.SESSION, payload, traffic=traffic)

    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.frames]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is; looked at whenever something was reported or came."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def reports_of(self, count: int) -> list[bool]:
        """Reported link states, once there are `count`."""
        await self.until(lambda: len(self.reported) >= count)
        return [is_up for _, is_up in self.reported]

    async def has_read(self, total: int) -> None:
        """Wait until so many bytes came over all links."""
        await turns_until(lambda: self.links.counters.bytes_in >= total)

    async def has_refused(self, reason: HelloRefusal, times: int) -> None:
        """Wait until so many hellos led to nothing for that reason, whichever end refused."""
        await turns_until(lambda: self.links.counters.refused[reason] >= times)

    def _on_frame(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        self.frames.append((node, kind, payload))
        self._changed.set()

    def _on_link(self, node: NodeId, is_up: bool) -> None:
        assert self.links.is_up(node) == is_up
        self.reported.append((node, is_up))
        self._changed.set()


@asynccontextmanager
async def stopping(*nodes: Node) -> AsyncIterator[None]:
    """Stop them in the end, and let their sockets close."""
    try:
        yield
    finally:
        for node in nodes:
            await node.links.stop()
        await asyncio.sleep(0)


async def linked(one: Node, other: Node) -> None:
    """Two nodes that know each other, once links of both directions are up."""
    one.knows(other)
    other.knows(one)
    await one.reports_of(1)
    await other.reports_of(1)


class ProxiedLink:
    """Hands the bytes of connections on, until it is cut; then, if `refuse`, it lets nobody in."""

    def __init__(
        self, to: ListenAddress, accepts: SSLContext | None, dials: SSLContext | None
    ) -> None:
        self._to = to
        self._accepts = accepts
        self._dials = dials
        self._server: asyncio.Server
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.address: ListenAddress

    async def open(self) -> None:
        self._server = await asyncio.start_server(
            self._on_client, "127.0.0.1", 0, ssl=self._accepts
        )
        self.address = ListenAddress(*self._server.sockets[0].getsockname()[:2])

    def cut(self) -> None:
        """Reset all connections that are open."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def refuse(self) -> None:
        """Let nobody in any more."""
        self._server.close()

    async def close(self) -> None:
        self.refuse()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        self._tasks.add(asyncio.create_task(self._join(reader, writer)))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection(
                self._to.host, self._to.port, ssl=self._dials
            )
        except OSError:
            writer.transport.abort()
            return
        self._ends.append(here)
        await asyncio.gather(self._hand_on(reader, here), self._hand_on(there, writer))

    async def _hand_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.transport.abort()


@asynccontextmanager
async def wire_to(
    node: Node, *, accepts: SSLContext | None = None, dials: SSLContext | None = None
) -> AsyncIterator[ProxiedLink]:
    """In front of a node; with TLS of its own, if that is given."""
    wire = ProxiedLink(node.address, accepts, dials)
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()
