"""`ClusterLinks`: the port `Links` over TCP, with the links that are dialled and those accepted.

Each node dials each of its peers and sends over what it dialled; a link is up while that one is.
What peers send comes over what they dialled, and is handed on whether or not our own link to them
is up.

    send --> Peer --> Connection ==== TCP ====> Connection --> InboundLinks --> on_frame
                         ^  beats  <-----------------'

Strangers who dial are few and have little time.  A node that dials again is known by its proof, so
the connection that it had before is ended: one of the two is dead, and it knows which.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter
from random import Random
from typing import Any, NamedTuple

from fluffle.broker.base.clock import Clock, SystemClock
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.links.connection import (
    LinkConnection,
    LinkContext,
    LinkCounters,
    LinkFailure,
    establish,
    link_failure,
)
from fluffle.broker.cluster.links.handshake import CHALLENGE_BYTES, LinkCredentials, LinkHandshake
from fluffle.broker.cluster.links.identity import (
    ADVICE,
    NONE_FORGOTTEN,
    Boots,
    HelloRefusal,
    Identity,
    Incarnations,
    PeerBoots,
    check_name,
)
from fluffle.broker.cluster.links.keepalive import LinkLimits, ReconnectBackoff
from fluffle.broker.cluster.links.tls import LinkCertificates, accept, binding_seen
from fluffle.broker.cluster.ports import (
    FrameKind,
    Links,
    OnFrame,
    OnLink,
    Payload,
    TrafficClass,
)
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.process.sockets import Acceptor, listening_socket
from fluffle.raft.config import NodeId

TICKS_A_BEAT = 2

APART_MS = 300_000
"""How long a node of another cluster is shown after it was met; it is dialled more often."""

CLOSE_WAIT_S = 1.0
"""Time in seconds for the last output, and for the end of TLS."""

OnUp = Callable[[Identity], None]
"""A new link is open to this one."""

OnDown = Callable[[NodeId], None]
"""The link is gone and could not be opened again at once."""

logger = logging.getLogger(__name__)


class LinkTraffic(NamedTuple):
    """The ends of a link, and the bytes of both directions."""

    there: tuple[str, int]
    here: tuple[str, int]
    bytes_in: int
    bytes_out: int


class ClusterLinks:
    """All links of one node.  Made and used in the thread of a running event loop."""

    on_frame: OnFrame
    on_link: OnLink

    def __init__(
        self,
        identity: Identity,
        secret: bytes,
        *,
        certificates: LinkCertificates | None = None,
        boots: PeerBoots | None = None,
        lives: Boots | None = None,
        incarnations: Incarnations = NONE_FORGOTTEN,
        limits: LinkLimits | None = None,
        clock: Clock | None = None,
        chance: Random | None = None,
        admits: bool = False,
    ) -> None:
        """`boots`: what is known of the peers' lives from earlier; `lives`: our own, if there were
        others before.  `admits`: see `LinkCredentials`.

        ValueError without a secret, or for names that are too long.
        """
        if not secret:
            raise ValueError("links need a secret")
        check_name(identity.cluster)
        check_name(identity.node)
        self._peers: dict[NodeId, PeerLink] = {}
        self.reads = {identity.node: identity.reads}
        """Newest version of logs that each node reads, as it said when it was dialled last."""
        self.speaks: dict[NodeId, int] = {}
        """Newest version of links that each node and this one both speak, when it was dialled
        last."""
        self.on_met: Callable[[Identity], None] = nothing_met
        """Called with the node that has dialled us, before the first frame that comes from
        there."""
        self._boots = boots or PeerBoots()
        self._context = LinkContext(
            credentials=LinkCredentials(
                identity,
                secret,
                self._boots,
                self._peers,
                lives or Boots.since(identity.boot),
                incarnations,
                admits=admits,
            ),
            limits=limits or LinkLimits(),
            clock=clock or SystemClock(),
            chance=chance or Random(),
            draw=secrets.token_bytes,
            certificates=certificates,
        )
        self._inbound = InboundLinks(
            self._context, self, on_open=self._on_accepted, on_end=self._on_accepted_end
        )
        self._loop = asyncio.get_running_loop()
        self._ending: set[asyncio.Task[None]] = set()
        """Once they are done nothing is dialled or let in any more."""
        self._ticking = self._loop.call_soon(self._tick_for_ever)

    @property
    def counters(self) -> LinkCounters:
        return self._context.counters

    @property
    def peers(self) -> Collection[NodeId]:
        """Nodes that we dial, linked or not; a live view."""
        return self._peers.keys()

    @property
    def dialled_by(self) -> Collection[NodeId]:
        """Nodes from which there is a link, as they change."""
        return self._inbound.nodes

    @property
    def boots(self) -> PeerBoots:
        """The lives in which nodes are known."""
        return self._boots

    @property
    def carried(self) -> Mapping[NodeId, LinkTraffic]:
        """Traffic of the open connections, by the node dialled."""
        dialled = {node: peer.connection for node, peer in self._peers.items()}
        return {
            node: traffic_of(connection, self._inbound.connection(node))
            for node, connection in dialled.items()
            if connection is not None
        }

    # Links

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        """To a node whose link is down, or of which too much of the class waits: dropped.

        An urgent frame for which there is no room resets the link.  ValueError for a payload above
        `LinkLimits.frame_bytes_max`.
        """
        size = len(payload) if isinstance(payload, bytes) else sum(map(len, payload))
        if size > self._context.limits.frame_bytes_max:
            raise ValueError(f"a frame of {size} bytes is too large for a link")
        peer, counters = self._peers.get(node), self._context.counters
        connection = None if peer is None else peer.last_connection
        if connection is None or not connection.is_open:
            counters.frames_dropped += 1
        elif not connection.send(kind, payload, traffic):
            counters.frames_without_room += 1

    def is_up(self, node: NodeId) -> bool:
        peer = self._peers.get(node)
        return peer is not None and peer.is_up

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        peer = self._peers.get(node)
        connection = None if peer is None else peer.last_connection
        return 0 if connection is None else connection.waiting_bytes(traffic)

    def is_not_running(self, node: NodeId) -> bool:
        """True if the host of a node has said, when it was dialled last, that it does not run."""
        peer = self._peers.get(node)
        return peer is not None and peer.is_not_running

    def hindrance(self, node: NodeId) -> LinkFailure | None:
        """Why there is no link to it, as far as it was dialled."""
        peer = self._peers.get(node)
        return None if peer is None else peer.hindrance

    # Who is there

    @property
    def apart(self) -> list[NodeId]:
        """The nodes met in the last minutes of another cluster of this name and secret."""
        since_ms = self._context.clock.now_ms() - APART_MS
        return sorted(node for node, at_ms in self._context.apart_ms.items() if at_ms >= since_ms)

    @property
    def split(self) -> LinkFailure | None:
        """The advice for nodes of another cluster of this name, if any are `apart`."""
        if not self.apart:
            return None
        return LinkFailure(
            f"cluster_split: met {', '.join(self.apart)}", ADVICE[HelloRefusal.OTHER_CLUSTER]
        )

    @property
    def cluster(self) -> str:
        """The name and mark in the hellos of this node: see `Identity`."""
        return self._context.credentials.us.cluster

    @cluster.setter
    def cluster(self, cluster: str) -> None:
        """Say hello with this name and mark from now on; links that are open stay."""
        credentials = self._context.credentials
        credentials.us = replace(credentials.us, cluster=cluster)

    @property
    def heard(self) -> Sequence[Identity]:
        """The identities that nodes have sent over the links to them that are open."""
        connections = [peer.connection for peer in self._peers.values()]
        return [each.identity for each in connections if each is not None and each.identity]

    @property
    def hosts(self) -> Mapping[NodeId, str]:
        """From where nodes have dialled us."""
        connections = {node: self._inbound.connection(node) for node in self._inbound.nodes}
        return {node: each.ends[0][0] for node, each in connections.items() if each is not None}

    def listen(self, host: str, port: int) -> ListenAddress:
        """Let other nodes dial; what was bound (port 0 picks one).  OSError when it is taken."""
        return self._inbound.listen(host, port)

    def set_peer(self, node: NodeId, host: str, port: int) -> None:
        """Dial this node, from now on at this address, and let it dial us.

        ValueError for our own name, and for one that is too long.
        """
        check_name(node)
        if node == self._context.credentials.us.node:
            raise ValueError(f"{node} is this node")
        address = ListenAddress(host, port)
        if node in self._peers:
            self._peers[node].move(address)
        else:
            self._peers[node] = PeerLink(
                self._context, node, address, on_up=self._on_dialled, on_down=self._on_down
            )

    def remove_peer(self, node: NodeId) -> None:
        """Remove a node that left the cluster; a new node of that name starts anew."""
        peer = self._peers.pop(node, None)
        if peer is not None:
            self.reads.pop(node, None)
            self.speaks.pop(node, None)
            peer.stop("it was removed")
            self._inbound.reset(node, "it was removed")
            self._boots.forget(node)
            if peer.is_up:
                self.on_link(node, self.is_up(node))

    def reset(self, node: NodeId, reason: str) -> None:
        """End the links with a node, of both directions, for what it sent; others are dialled."""
        if node in self._peers:
            self._peers[node].reset(reason)
            self._inbound.reset(node, reason)

    async def stop(self, reason: str = "this node stops") -> None:
        """End all links, for good, and close their sockets; listeners are not called."""
        self._end(reason)
        if self._ending:
            await asyncio.wait(self._ending)
        if not await self._are_closed():
            for connection in list(self._context.sockets):
                connection.abort()
            await self._are_closed()

    def cut_off(self) -> None:
        """Hang up on all without a word, at once; `stop` is still to come."""
        self._end("cut off")
        for connection in list(self._context.sockets):
            connection.abort()

    def _end(self, reason: str) -> None:
        """Dial and accept no more, and close what is open; nothing the second time."""
        self._ticking.cancel()
        self._ending |= self._inbound.stop(reason)
        self._ending |= {peer.stop(reason) for peer in self._peers.values()}
        self._peers.clear()

    def tick(self) -> None:
        """Look which nodes are silent, and send signs of life; a timer does that as well."""
        self._inbound.tick()
        for peer in self._peers.values():
            peer.tick()

    # Within

    def _tick_for_ever(self) -> None:
        delay_s = self._context.limits.beat_ms / 1000 / TICKS_A_BEAT
        self._ticking = self._loop.call_later(delay_s, self._tick_for_ever)
        self.tick()

    async def _are_closed(self) -> bool:
        """True if all sockets are, after some time at most."""
        closing = [connection.closed for connection in self._context.sockets]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_WAIT_S)
        return not self._context.sockets

    def _on_accepted(self, identity: Identity) -> None:
        self.on_met(identity)
        if identity.node in self._peers:
            self._peers[identity.node].heard_from(identity)

    def _on_accepted_end(self, node: NodeId) -> None:
        """Report a node as down if this one has no link to it either: what came over the link that
        has ended, such as alarms, does not count any more."""
        if node in self._peers and not self.is_up(node):
            self._on_down(node)

    def _on_dialled(self, identity: Identity) -> None:
        self.reads[identity.node] = identity.reads
        self.speaks[identity.node] = identity.speaks
        self._inbound.outlived(identity)
        self.on_link(identity.node, self.is_up(identity.node))

    def _on_down(self, node: NodeId) -> None:
        self.on_link(node, self.is_up(node))


class LinkSender:
    """The `FrameSender` of one kind over the links of a node."""

    def __init__(
        self,
        links: ClusterLinks,
        kind: FrameKind,
        traffic: TrafficClass = TrafficClass.NORMAL,
        *,
        since: int = 0,
    ) -> None:
        """`since`: the first version of links that knows such frames."""
        self._links = links
        self._kind = kind
        self._traffic = traffic
        self._since = since

    @property
    def reached(self) -> list[NodeId]:
        return [node for node in self._links.speaks if not self.hindrance(node)]

    def hindrance(self, node: NodeId) -> str:
        if not self._links.is_up(node):
            return "there is no link to it"
        return "" if self.understands(node) else "it is of an earlier version"

    def understands(self, node: NodeId) -> bool:
        return self._links.speaks.get(node, 0) >= self._since or not self._links.is_up(node)

    def send(self, node: NodeId, payload: bytes) -> None:
        if self._links.speaks.get(node, 0) >= self._since:
            self._links.send(node, self._kind, payload, traffic=self._traffic)

    def send_all(self, payload: bytes) -> None:
        for node in tuple(self._links.peers):
            self.send(node, payload)


def nothing_met(_identity: Identity) -> None:
    """Does nothing, where a dialled link has no listener."""


def traffic_of(dialled: LinkConnection, accepted: LinkConnection | None) -> LinkTraffic:
    """The ends are those of the one that was dialled."""
    both = [dialled] if accepted is None else [dialled, accepted]
    bytes_in, bytes_out = (sum(map(attrgetter(name), both)) for name in ("bytes_in", "bytes_out"))
    return LinkTraffic(*dialled.ends, bytes_in, bytes_out)


class PeerLink:
    """Dials for as long as it exists; at most one connection at a time."""

    def __init__(
        self,
        context: LinkContext,
        node: NodeId,
        address: ListenAddress,
        *,
        on_up: OnUp,
        on_down: OnDown,
    ) -> None:
        self._context = context
        self._node = node
        self._address = address
        self._on_up = on_up
        self._on_down = on_down
        self._redial = ReconnectBackoff(context.limits, context.chance.random)
        self.last_connection: LinkConnection | None = None
        """The last connection that was open."""
        self._hurry = asyncio.Event()
        """Set when there is a reason to dial now."""
        self.is_up = False
        """Link state last reported: it stays up while the link is reopened at once."""
        self.is_not_running = False
        """True if its host has said so when it was dialled last: its process is not running."""
        self.hindrance: LinkFailure | None = None
        """Failure of the last dial, or None."""
        self._dialling = self._start(context.limits.handshake_ms)

    @property
    def connection(self) -> LinkConnection | None:
        """Open connection, or None."""
        connection = self.last_connection
        return connection if connection is not None and connection.is_open else None

    def tick(self) -> None:
        if self.last_connection is not None and self.last_connection.is_open:
            self.last_connection.tick()

    def move(self, address: ListenAddress) -> None:
        """Dial another address from now on."""
        if address != self._address:
            self._address = address
            self._dialling.cancel()
            self._context.refusals.forget(self._node)
            self.hindrance = None
            self.reset("it has moved")
            self._dialling = self._start(self._context.limits.reopen_ms)

    def heard_from(self, identity: Identity) -> None:
        """React to a connection from the node: it can be reached, perhaps in a new boot."""
        connection = self.last_connection
        if connection is None or not connection.is_open:
            self._hurry.set()
        elif connection.identity != identity:
            connection.reset("it was started anew")

    def reset(self, reason: str) -> None:
        """End the link, if there is one; another is dialled."""
        if self.last_connection is not None:
            self.last_connection.reset(reason)

    def stop(self, reason: str) -> asyncio.Task[None]:
        """Dial no more, once this is done; what was sent goes as far as the network takes it."""
        self._dialling.cancel()
        self._context.refusals.forget(self._node)
        if self.last_connection is not None:
            self.last_connection.close(reason)
        return self._dialling

    # As the owner of connections

    def on_open(self, connection: LinkConnection, identity: Identity) -> None:
        self.last_connection = connection
        self._redial.opened(self._context.clock.now_ms())
        self._context.counters.opened += 1
        self._context.refusals.forget(self._node)
        self.is_up, self.is_not_running, self.hindrance = True, False, None
        event(
            logger, logging.INFO, "link_up",
            node=self._node, address=self._address, boot=identity.boot.count,
        )  # fmt: skip
        self._on_up(identity)

    def on_frame(self, connection: LinkConnection, kind: FrameKind, payload: bytes) -> None:
        raise AssertionError("frames come over links that others dialled")

    # Within

    def _start(self, within_ms: int) -> asyncio.Task[None]:
        dialling = asyncio.get_running_loop().create_task(self._dial_for_ever(within_ms))
        dialling.add_done_callback(_surface)
        return dialling

    async def _dial_for_ever(self, within_ms: int) -> None:
        """`within_ms`: how long the first connection may take to be a link."""
        limits = self._context.limits
        while True:
            delay_ms = await self._dial(within_ms)
            within_ms = limits.handshake_ms if delay_ms else limits.reopen_ms
            if delay_ms:
                await self._rest(delay_ms)

    async def _rest(self, delay_ms: int) -> None:
        """Wait that long, unless there is a reason to hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_ms / 1000):
                await self._hurry.wait()

    async def _dial(self, within_ms: int) -> int:
        """Dial once and serve the connection to its end; returns the time in ms to wait before the
        next."""
        self._hurry.clear()
        connection = LinkConnection(self._context, self, self._begin, takes_frames=False)
        certificates, address = self._context.certificates, self._address
        connecting = asyncio.get_running_loop().create_connection(
            lambda: connection,
            address.host,
            address.port,
            ssl=certificates.current().dialling if certificates else None,
        )
        if await establish(connection, connecting, within_ms=within_ms):
            await asyncio.wait([connection.ended])
            delay_ms = self._redial.lost(self._context.clock.now_ms())
            reason = connection.ended.result()
            event(logger, logging.WARNING, "link_lost", node=self._node, reason=reason)
        else:
            delay_ms = self._redial.failed()
            self.is_not_running = connection.is_connection_refused
            reason = connection.ended.result()
            self.hindrance = link_failure(self._node, reason, connection.refused)
            self._context.refusals.dialled(self._node, address, reason, connection.refused)
        if delay_ms and self.is_up:
            self.is_up = False
            event(logger, logging.WARNING, "link_down", node=self._node, reason=reason)
            self._on_down(self._node)
        return delay_ms

    def _begin(self, transport: asyncio.Transport) -> LinkHandshake:
        return LinkHandshake(
            self._context.credentials,
            self._node,
            challenge=self._context.draw(CHALLENGE_BYTES),
            binding=binding_seen(transport),
        )


def _surface(dialling: asyncio.Task[None]) -> None:
    """Raise what a listener of a link has raised."""
    if not dialling.cancelled():
        dialling.result()


class InboundLinks:
    """Accepts, lets in, and hands on what comes."""

    def __init__(
        self,
        context: LinkContext,
        links: Links,
        *,
        on_open: Callable[[Identity], None],
        on_end: Callable[[NodeId], None],
    ) -> None:
        self._context = context
        self._links = links
        self._on_open = on_open
        self._on_last_end = on_end
        self._strangers = Acceptor(self._let_in, clients_max=context.limits.strangers_max)
        self._connections: dict[NodeId, LinkConnection] = {}
        """Open connections by node."""

    def listen(self, host: str, port: int) -> ListenAddress:
        """Accept on an address; what was bound.  OSError when it is taken."""
        listening = listening_socket(host, port)
        self._strangers.open(listening)
        return ListenAddress(*listening.getsockname()[:2])

    def tick(self) -> None:
        for connection in list(self._connections.values()):
            connection.tick()

    @property
    def nodes(self) -> Collection[NodeId]:
        """Nodes from which there is a link."""
        return self._connections.keys()

    def connection(self, node: NodeId) -> LinkConnection | None:
        """Open connection from a node, or None."""
        return self._connections.get(node)

    def reset(self, node: NodeId, reason: str) -> None:
        """End the link from it, if there is one; it will dial again."""
        connection = self._connections.get(node)
        if connection is not None:
            connection.reset(reason)

    def outlived(self, identity: Identity) -> None:
        """Close the connection of a node if it is from another boot."""
        connection = self._connections.get(identity.node)
        if connection is not None and connection.identity != identity:
            connection.reset("it was started anew")

    def stop(self, reason: str) -> set[asyncio.Task[None]]:
        """Accept no more, and end all links; strangers are gone once these are done."""
        for connection in list(self._connections.values()):
            connection.close(reason)
        return self._strangers.close()

    # As the owner of connections

    def on_open(self, connection: LinkConnection, identity: Identity) -> None:
        self.reset(identity.node, "it has dialled again")
        self._connections[identity.node] = connection
        connection.ended.add_done_callback(partial(self._on_end, connection, identity))
        self._context.counters.accepted += 1
        event(logger, logging.INFO, "link_accepted", node=identity.node, boot=identity.boot.count)
        self._on_open(identity)

    def on_frame(self, connection: LinkConnection, kind: FrameKind, payload: bytes) -> None:
        """Pass on a frame of a peer; a node that asks for a cluster, or is asked, is none yet."""
        assert connection.identity is not None
        node = connection.identity.node
        if node in self._context.credentials.peers or kind is FrameKind.FORMATION:
            self._links.on_frame(node, kind, payload)

    # Within

    async def _let_in(self, client: socket.socket, address: tuple[Any, ...]) -> None:
        limits, certificates = self._context.limits, self._context.certificates
        contexts = certificates.current() if certificates else None
        begin = partial(self._begin, contexts.binding if contexts else b"")
        connection = LinkConnection(self._context, self, begin, takes_frames=True)
        connecting = accept(client, contexts.listening if contexts else None, lambda: connection)
        host = str(address[0])
        if await establish(connection, connecting, within_ms=limits.handshake_ms):
            assert connection.identity is not None
            self._context.refusals.let_in(host, connection.identity.node)
        else:
            if not connection.is_begun:
                client.close()  # else it is the transport's, which may still have to say something
            reason = connection.ended.result()
            self._context.refusals.accepted(host, reason, connection.refused, connection.handshake)

    def _begin(self, binding: bytes, transport: asyncio.Transport) -> LinkHandshake:
        challenge = self._context.draw(CHALLENGE_BYTES)
        return LinkHandshake(self._context.credentials, None, challenge=challenge, binding=binding)

    def _on_end(
        self, connection: LinkConnection, identity: Identity, ended: asyncio.Future[str]
    ) -> None:
        event(logger, logging.INFO, "link_ended", node=identity.node, reason=ended.result())
        if self._connections.get(identity.node) is connection:
            del self._connections[identity.node]
            self._on_last_end(identity.node)
