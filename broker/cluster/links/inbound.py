"""Links that other nodes dial: strangers at the door, and who has been let in.

Strangers are few and have little time.  A node that dials again is known by its proof, so the
connection that it had before is ended: one of the two is dead, and it knows which.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.links.connection import LinkConnection, LinkContext, establish
from fluffle.broker.cluster.links.handshake import CHALLENGE_BYTES, Handshake
from fluffle.broker.cluster.links.identity import Identity
from fluffle.broker.cluster.links.tls import accept
from fluffle.broker.cluster.ports import FrameKind, OnFrame
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.process.sockets import Acceptor, listening_socket
from fluffle.raft.config import NodeId

logger = logging.getLogger(__name__)


class InboundLinks:
    """Accepts, lets in, and hands on what comes."""

    def __init__(
        self, ground: LinkContext, *, on_open: Callable[[Identity], None], on_frame: OnFrame
    ) -> None:
        self._ground = ground
        self._on_open = on_open
        self._on_frame = on_frame
        self._strangers = Acceptor(self._let_in, clients_max=ground.tuning.strangers_max)
        self._connections: dict[NodeId, LinkConnection] = {}
        """Those that are open."""

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
        """From whom there is a link."""
        return self._connections.keys()

    def connection(self, node: NodeId) -> LinkConnection | None:
        """That which is open from it, if one is."""
        return self._connections.get(node)

    def reset(self, node: NodeId, reason: str) -> None:
        """End the link from it, if there is one; it will dial again."""
        connection = self._connections.get(node)
        if connection is not None:
            connection.reset(reason)

    def outlived(self, identity: Identity) -> None:
        """It is known in this life: a link from another ends."""
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
        self._ground.counters.accepted += 1
        event(logger, logging.INFO, "link_accepted", node=identity.node, boot=identity.boot.count)
        self._on_open(identity)

    def on_frame(self, connection: LinkConnection, kind: FrameKind, payload: bytes) -> None:
        assert connection.identity is not None
        self._on_frame(connection.identity.node, kind, payload)

    # Within

    async def _let_in(self, client: socket.socket, address: tuple[Any, ...]) -> None:
        tuning, certificates = self._ground.tuning, self._ground.certificates
        contexts = certificates.current() if certificates else None
        begin = partial(self._begin, contexts.binding if contexts else b"")
        connection = LinkConnection(self._ground, self, begin, takes_frames=True)
        connecting = accept(client, contexts.listening if contexts else None, lambda: connection)
        host = str(address[0])
        if await establish(connection, connecting, within_ms=tuning.handshake_ms):
            assert connection.identity is not None
            self._ground.refusals.let_in(host, connection.identity.node)
        else:
            if not connection.is_begun:
                client.close()  # else it is the transport's, which may still have to say something
            reason = connection.ended.result()
            self._ground.refusals.accepted(host, reason, connection.refused, connection.handshake)

    def _begin(self, binding: bytes, transport: asyncio.Transport) -> Handshake:
        challenge = self._ground.draw(CHALLENGE_BYTES)
        return Handshake(self._ground.credentials, None, challenge=challenge, binding=binding)

    def _on_end(
        self, connection: LinkConnection, identity: Identity, ended: asyncio.Future[str]
    ) -> None:
        if self._connections.get(identity.node) is connection:
            del self._connections[identity.node]
        event(logger, logging.INFO, "link_ended", node=identity.node, reason=ended.result())
