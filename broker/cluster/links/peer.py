"""Another node as it is dialled: its address, the link to it, and whether that is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.links.connection import LinkConnection, LinkContext, establish
from fluffle.broker.cluster.links.handshake import CHALLENGE_BYTES, Handshake
from fluffle.broker.cluster.links.identity import Identity
from fluffle.broker.cluster.links.reconnect import ReconnectBackoff
from fluffle.broker.cluster.links.refusals import LinkFailure, link_failure
from fluffle.broker.cluster.links.tls import binding_seen
from fluffle.broker.cluster.msgpack_parts import Payload
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.config.config import ListenAddress
from fluffle.raft.config import NodeId

OnUp = Callable[[Identity], None]
"""A new link is open to this one."""
OnDown = Callable[[NodeId], None]
"""The link is gone and could not be opened again at once."""

logger = logging.getLogger(__name__)


class Peer:
    """Dials for as long as it exists; at most one connection at a time."""

    def __init__(
        self,
        ground: LinkContext,
        node: NodeId,
        address: ListenAddress,
        *,
        on_up: OnUp,
        on_down: OnDown,
    ) -> None:
        self._ground = ground
        self._node = node
        self._address = address
        self._on_up = on_up
        self._on_down = on_down
        self._redial = ReconnectBackoff(ground.tuning, ground.chance.random)
        self._connection: LinkConnection | None = None
        """The last that was open."""
        self._hurry = asyncio.Event()
        """There is a reason to dial now."""
        self.is_up = False
        """What was said last: it stays up while the link is opened again at once."""
        self.is_nobody_there = False
        """Whether its host has said so when it was dialled last: its process is not running."""
        self.hindrance: LinkFailure | None = None
        """What came of dialling it last, if that was no link."""
        self._dialling = self._start(ground.tuning.handshake_ms)

    def send(self, kind: FrameKind, payload: Payload, lane: TrafficClass) -> None:
        """As `Links.send`."""
        connection, counters = self._connection, self._ground.counters
        if connection is None or not connection.is_open:
            counters.frames_dropped += 1
        elif not connection.send(kind, payload, lane):
            counters.frames_without_room += 1

    @property
    def connection(self) -> LinkConnection | None:
        """That which is open, if one is."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    def waiting_bytes(self, lane: TrafficClass) -> int:
        """As `Links.waiting_bytes`."""
        return 0 if self._connection is None else self._connection.waiting_bytes(lane)

    def tick(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.tick()

    def move(self, address: ListenAddress) -> None:
        """It is at another address from now on."""
        if address != self._address:
            self._address = address
            self._dialling.cancel()
            self._ground.refusals.forget(self._node)
            self.hindrance = None
            self.reset("it has moved")
            self._dialling = self._start(self._ground.tuning.reopen_ms)

    def heard_from(self, identity: Identity) -> None:
        """It has dialled us, so it can be reached; maybe in another life than we knew it in."""
        connection = self._connection
        if connection is None or not connection.is_open:
            self._hurry.set()
        elif connection.identity != identity:
            connection.reset("it was started anew")

    def reset(self, reason: str) -> None:
        """End the link, if there is one; another is dialled."""
        if self._connection is not None:
            self._connection.reset(reason)

    def stop(self, reason: str) -> asyncio.Task[None]:
        """Dial no more, once this is done; what was sent goes as far as the network takes it."""
        self._dialling.cancel()
        self._ground.refusals.forget(self._node)
        if self._connection is not None:
            self._connection.close(reason)
        return self._dialling

    # As the owner of connections

    def on_open(self, connection: LinkConnection, identity: Identity) -> None:
        self._connection = connection
        self._redial.opened(self._ground.clock.now_ms())
        self._ground.counters.opened += 1
        self._ground.refusals.forget(self._node)
        self.is_up, self.is_nobody_there, self.hindrance = True, False, None
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
        tuning = self._ground.tuning
        while True:
            delay_ms = await self._dial(within_ms)
            within_ms = tuning.handshake_ms if delay_ms else tuning.reopen_ms
            if delay_ms:
                await self._rest(delay_ms)

    async def _rest(self, delay_ms: int) -> None:
        """Wait that long, unless there is a reason to hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_ms / 1000):
                await self._hurry.wait()

    async def _dial(self, within_ms: int) -> int:
        """One connection, from dialling to its end; how long to wait before the next."""
        self._hurry.clear()
        connection = LinkConnection(self._ground, self, self._begin, takes_frames=False)
        certificates, address = self._ground.certificates, self._address
        connecting = asyncio.get_running_loop().create_connection(
            lambda: connection,
            address.host,
            address.port,
            ssl=certificates.current().dialling if certificates else None,
        )
        if await establish(connection, connecting, within_ms=within_ms):
            await asyncio.wait([connection.ended])
            delay_ms = self._redial.lost(self._ground.clock.now_ms())
            reason = connection.ended.result()
            event(logger, logging.WARNING, "link_lost", node=self._node, reason=reason)
        else:
            delay_ms = self._redial.failed()
            self.is_nobody_there = connection.found_nobody
            reason = connection.ended.result()
            self.hindrance = link_failure(self._node, reason, connection.refused)
            self._ground.refusals.dialled(self._node, address, reason, connection.refused)
        if delay_ms and self.is_up:
            self.is_up = False
            event(logger, logging.WARNING, "link_down", node=self._node, reason=reason)
            self._on_down(self._node)
        return delay_ms

    def _begin(self, transport: asyncio.Transport) -> Handshake:
        return Handshake(
            self._ground.credentials,
            self._node,
            challenge=self._ground.draw(CHALLENGE_BYTES),
            binding=binding_seen(transport),
        )


def _surface(dialling: asyncio.Task[None]) -> None:
    """What whoever was told of a link raised is not swallowed."""
    if not dialling.cancelled():
        dialling.result()
