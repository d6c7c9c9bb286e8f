"""The TCP connection between two nodes, from its first byte to its end, as asyncio sees it.

After the handshake the two ends differ only in which sends frames.  What is sent in a turn of the
loop goes to the transport at its end, and no more at a time than keeps the network busy: what lies
in the transport or in the kernel goes before all that is urgent and comes later.  Why a connection
has led to no link is logged once, however often it is tried.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, Protocol, cast

from fluffle.broker.base.clock import Clock
from fluffle.broker.base.logs import event, reason_of
from fluffle.broker.cluster.links.chunks import (
    CHUNK_BYTES_MAX,
    HEARTBEAT_CHUNK,
    ChunkDecoder,
    LinkSendQueue,
)
from fluffle.broker.cluster.links.handshake import (
    LinkCredentials,
    LinkHandshake,
    refusal,
    refusal_in,
)
from fluffle.broker.cluster.links.identity import WRONG_PORT, HelloRefusal, Identity, LinkRefused
from fluffle.broker.cluster.links.keepalive import Keepalive, KeepaliveResult, LinkLimits
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.broker.cluster.ports import FrameKind, Payload, TrafficClass
from fluffle.broker.config.config import ListenAddress
from fluffle.raft.config import NodeId

WRITE_BYTES = CHUNK_BYTES_MAX
"""Given to the transport at once, or a piece more; the next when it has given all to the kernel."""

JOINED_BYTES_MAX = 8_192
"""Bytes up to which it costs less to join the parts of a write."""

KINDS: dict[int, FrameKind] = {kind: kind for kind in FrameKind}
"""Kinds of frames by number."""

NOWHERE = ("", 0)
"""Address of a socket that was reset before it could be read."""

NO_KINDS: dict[int, FrameKind] = {}

ENDINGS = {
    KeepaliveResult.SILENT: "nothing was received for too long",
    KeepaliveResult.STUCK: "nothing that was sent is taken",
}

REMEMBERED = (
    HelloRefusal.OLD_BOOT,
    HelloRefusal.FORGOTTEN,
    HelloRefusal.FORMER_NODE,
    HelloRefusal.SECOND_PROCESS,
)

REMEMBERED_PEERS_MAX = 256
"""Peers whose last failure is remembered; beyond, the oldest is forgotten."""

logger = logging.getLogger(__name__)


class LinkCounters:
    """Counters of all links together."""

    def __init__(self) -> None:
        self.bytes_in = 0
        """Handshakes and beats included; without what TLS adds."""
        self.bytes_out = 0
        self.frames_in = 0
        self.frames_out = 0
        """Put into an outbox; those that were in it when their link was lost are among them."""
        self.frames_dropped = 0
        """Frames dropped because the link to their node was down."""
        self.frames_without_room = 0
        """Not taken, because too much waits of their class already."""
        self.opened = 0
        """Links that we dialled, once both ends were proved."""
        self.accepted = 0
        """Links that others dialled, likewise."""
        self.resets = 0
        """Links of either direction that were open and ended."""
        self.refused = dict.fromkeys(HelloRefusal, 0)
        """Hellos that led to no link, whichever end refused, and certificates."""


class LinkFailure(NamedTuple):
    """The reason why there is no link to a node, for people."""

    reason: str
    advice: str | None
    """Advice, if a hello or a certificate is to blame."""
    is_remembered: bool = False
    """True if one of the two was known to the other in a life that its disk does not remember."""


class RefusalLog:
    """The last refusal logged of each node that is dialled, and of each host that dials."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def dialled(
        self, node: NodeId, address: ListenAddress, reason: str, refused: LinkRefused | None
    ) -> None:
        """Record that a dial failed; `refused` if a hello or a certificate is to blame."""
        advice = None if refused is None else advice_to_dialler(refused)
        if self._is_news(node, reason):
            event(
                logger, *heading(refused), peer=node, address=address, reason=reason, advice=advice
            )

    def accepted(
        self, host: str, reason: str, refused: LinkRefused | None, stranger: LinkHandshake | None
    ) -> None:
        """Record that a connection was refused.  A proved name is recorded, too."""
        node = claims = None
        if stranger is not None and stranger.is_proved:
            node = stranger.claims
        elif stranger is not None:
            claims = stranger.claims
        if self._is_news(host if node is None else as_node(host, node), reason):
            event(
                logger, *heading(refused), peer=host, node=node, claims=claims, reason=reason,
                advice=None if refused is None else refused.advice,
            )  # fmt: skip

    def _is_news(self, peer: str, reason: str) -> bool:
        if self._last.get(peer) == reason:
            return False
        self._last[peer] = reason
        if len(self._last) > REMEMBERED_PEERS_MAX:
            del self._last[next(iter(self._last))]
        return True

    def forget(self, node: NodeId) -> None:
        """There is a link to it, or it is dialled elsewhere or no more: what hinders the next is
        news."""
        self._last.pop(node, None)

    def let_in(self, host: str, node: NodeId) -> None:
        """Record a link from the node, likewise."""
        self._last.pop(host, None)
        self._last.pop(as_node(host, node), None)


def heading(refused: LinkRefused | None) -> tuple[int, str]:
    """How loudly it is said, and what."""
    if refused is None:
        return logging.WARNING, "link_failed"
    if refused.reason is HelloRefusal.OTHER_CLUSTER and refused.is_proved:
        return logging.ERROR, "cluster_split"
    return logging.WARNING, "link_refused"


def link_failure(node: NodeId, reason: str, refused: LinkRefused | None) -> LinkFailure:
    """Failure of dialling a node; `refused` as `RefusalLog.dialled` has it."""
    if refused is None:
        return LinkFailure(reason, None)
    verdict = f"refused by {node}" if refused.by_peer else f"{node} is refused"
    is_remembered = refused.reason in REMEMBERED
    return LinkFailure(f"{verdict}: {refused.what}", advice_to_dialler(refused), is_remembered)


def as_node(host: str, node: NodeId) -> str:
    """Name of a peer that dials from `host` and has proved to be `node`."""
    return f"{host} {node}"


def advice_to_dialler(refused: LinkRefused) -> str:
    """Return advice for the node that dials, which may have a wrong address."""
    if refused.reason is HelloRefusal.NOT_A_HELLO and not refused.by_peer:
        return WRONG_PORT
    return refused.advice


@dataclass(frozen=True, slots=True)
class LinkContext:
    """Context of the links, one for each node."""

    credentials: LinkCredentials
    limits: LinkLimits
    clock: Clock
    chance: Random
    """Chance, so that nodes do not dial in step."""
    draw: Callable[[int], bytes]
    """Function that gives random bytes for challenges."""
    certificates: LinkCertificates | None = None
    """None: links speak in the clear."""
    counters: LinkCounters = field(default_factory=LinkCounters)
    refusals: RefusalLog = field(default_factory=RefusalLog)
    sockets: set[LinkConnection] = field(default_factory=set)
    """Connections in either direction, linked or not, until they are closed."""
    apart_ms: dict[NodeId, int] = field(default_factory=dict)
    """When a node was met last that is of another cluster of our name and secret."""


class ConnectionOwner(Protocol):
    """The owner of a connection; both methods are called from within a read."""

    def on_open(self, connection: LinkConnection, identity: Identity) -> None:
        """Both ends are proved."""

    def on_frame(self, connection: LinkConnection, kind: FrameKind, payload: bytes) -> None:
        """A frame came; only where frames are taken."""


class LinkConnection(asyncio.Protocol):
    """Either end of a connection.  Its maker hands it to `establish`."""

    def __init__(
        self,
        context: LinkContext,
        owner: ConnectionOwner,
        begin: Callable[[asyncio.Transport], LinkHandshake],
        *,
        takes_frames: bool,
    ) -> None:
        """`begin` is called once there is a transport."""
        self._context = context
        self._owner = owner
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self.handshake: LinkHandshake | None = None
        """Begun as soon as there is a transport."""
        self._takes_frames = takes_frames
        self._decoder = ChunkDecoder(
            KINDS if takes_frames else NO_KINDS, frame_bytes_max=context.limits.frame_bytes_max
        )
        self._send_queue = LinkSendQueue(context.limits.waiting_bytes_max)
        self._keepalive = Keepalive(context.clock.now_ms(), context.limits)
        self.bytes_in = self.bytes_out = 0
        """Bytes of this connection, counted as in `LinkCounters`."""
        self._is_full = False
        """The transport has something that the kernel does not take."""
        self._is_flush_due = False
        self.is_begun = False
        """True once there is a transport."""
        self.identity: Identity | None = None
        """Identity of the peer, once proved."""
        self.is_open = False
        """Frames may be sent and received: from the proof to the end."""
        self.refused: LinkRefused | None = None
        """Why this never was a link, if a hello or a certificate is to blame."""
        self.is_connection_refused = False
        """True if the dialled host has refused the connection: no process listens there."""
        self.opened: asyncio.Future[bool] = self._loop.create_future()
        """False: it ended before."""
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why; known before the socket is closed."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """The socket is."""

    # What its owner calls

    def send(self, kind: FrameKind, payload: Payload, traffic: TrafficClass) -> bool:
        """True if there was room; an urgent frame for which there is none ends the connection."""
        if not self._send_queue.put(traffic, kind, payload):
            if traffic is TrafficClass.URGENT:
                self.reset("too much waits that is urgent")
            return False
        self._context.counters.frames_out += 1
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._fill)
        return True

    def waiting_bytes(self, traffic: TrafficClass) -> int:
        """Bytes that wait in a class, as `Links.waiting_bytes`."""
        return self._send_queue.waiting_bytes[traffic]

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Addresses of its socket: the peer's, and ours."""
        said = map(self._transport.get_extra_info, ("peername", "sockname"))
        there, here = (each or NOWHERE for each in said)
        return (there[0], there[1]), (here[0], here[1])

    def tick(self) -> None:
        """Several times a beat, while it is open."""
        if self._transport.is_closing():
            return  # it has failed, and says so in a later turn of the loop
        is_waiting = self._is_full or self._send_queue.is_held_back
        finding = self._keepalive.tick(self._context.clock.now_ms(), is_waiting=is_waiting)
        if finding is KeepaliveResult.BEAT_DUE and not self._is_full:
            self._write(HEARTBEAT_CHUNK)
        elif finding in ENDINGS:
            self.reset(ENDINGS[finding])

    def reset(self, reason: str) -> None:
        """End it at once; what waits is forgotten."""
        if not self.ended.done():
            self._end(reason)
            self.abort()

    def abort(self) -> None:
        """Wait no longer for the socket to close."""
        if self.is_begun:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """End it behind what the transport takes now of that which waits."""
        if self.is_open:
            self._fill()
            self._end(reason)
            if self._is_full:
                self.abort()
            else:
                self._transport.close()
        else:
            self.reset(reason)

    def refuse(self, refused: LinkRefused) -> None:
        """Refuse the link, and send the reason unless it came from the other end, or that would not
        understand it."""
        self.refused = refused
        self._context.counters.refused[refused.reason] += 1
        if refused.reason is HelloRefusal.OTHER_CLUSTER and refused.is_proved:
            assert self.handshake is not None, "it was proved by this"
            self._context.apart_ms[self.handshake.claims or ""] = self._context.clock.now_ms()
        is_sent = not refused.by_peer and refused.reason is not HelloRefusal.NOT_A_HELLO
        if is_sent and self.is_begun and not (self.ended.done() or self._transport.is_closing()):
            self._write(refused.proof + refusal(refused.reason))
            self._end(str(refused))
            self._transport.close()
        else:
            self.reset(str(refused))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_begun = True
        self._context.sockets.add(self)
        if self.ended.done():
            self.abort()
            return
        # So it says when it holds anything, and again when it holds nothing.
        self._transport.set_write_buffer_limits(high=1, low=0)
        bound_unsent(self._transport)
        self.handshake = self._begin(self._transport)
        if hello := self.handshake.start():
            self._write(hello)

    def data_received(self, data: bytes) -> None:
        self._context.counters.bytes_in += len(data)
        self.bytes_in += len(data)
        self._keepalive.has_heard = True
        if self.identity is None and not self.ended.done():
            data = self._greet(data)
        if self.is_open:
            self._take(data)

    def eof_received(self) -> None:
        self.reset("closed by it")

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._keepalive.has_moved = True
        self._fill()
        if self._decoder.is_ack_due:
            self._acknowledge()

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, ssl.SSLError) and not self.opened.done():
            self.refuse(LinkRefused(HelloRefusal.TLS, detail=reason_of(error)))
        self.reset("closed by it" if error is None else reason_of(error))
        self._context.sockets.discard(self)
        self.closed.set_result(None)

    # Within

    def _greet(self, data: bytes) -> bytes:
        """Go on with the handshake; what came behind it."""
        handshake = self.handshake
        assert handshake is not None
        try:
            answer = handshake.feed(data)
        except LinkRefused as refused:
            self.refuse(refused)
            return b""
        if answer:
            self._write(answer)
        if handshake.peer is None:
            return b""
        self.identity = handshake.peer
        self.is_open = True
        self.opened.set_result(True)
        self._owner.on_open(self, self.identity)
        return handshake.take_rest()

    def _take(self, data: bytes) -> None:
        for kind, payload in self._decoder.feed(data):
            if not self.is_open:
                return
            self._context.counters.frames_in += 1
            self._owner.on_frame(self, KINDS[kind], payload)
        if self._decoder.fault is not None:
            refused = refusal_in(data)
            self.reset(str(refused or f"it sent what is no frame: {self._decoder.fault}"))
        elif self._takes_frames:
            if self._decoder.is_ack_due:
                self._acknowledge()
        else:
            self._on_acknowledged()

    def _acknowledge(self) -> None:
        """Say what was read, unless it does not read what we say."""
        if self.is_open and not self._is_full and (said := self._decoder.acknowledge()):
            self._write(said)

    def _on_acknowledged(self) -> None:
        for traffic, size in enumerate(self._decoder.acknowledged):
            if size:
                self._decoder.acknowledged[traffic] = 0
                self._keepalive.has_moved = True
                try:
                    self._send_queue.acknowledge(TrafficClass(traffic), size)
                except ValueError as error:
                    self.reset(f"it says what cannot be: {error}")
        self._fill()

    def _fill(self) -> None:
        """Give the transport what may go now."""
        self._is_flush_due = False
        if self._transport.is_closing():
            return
        while self.is_open and not self._is_full and (parts := self._send_queue.take(WRITE_BYTES)):
            size = sum(map(len, parts))
            self._note_sent(size)
            if size <= JOINED_BYTES_MAX:
                self._transport.write(b"".join(parts))
            else:
                self._transport.writelines(parts)
            if size < WRITE_BYTES:
                return  # nothing else may go now

    def _write(self, data: bytes) -> None:
        self._note_sent(len(data))
        self._transport.write(data)

    def _note_sent(self, size: int) -> None:
        self._context.counters.bytes_out += size
        self.bytes_out += size
        self._keepalive.has_sent = True

    def _end(self, reason: str) -> None:
        self.is_open = False
        if self.identity is not None:
            self._context.counters.resets += 1
        else:
            self.opened.set_result(False)
        self.ended.set_result(reason)
        self._send_queue = LinkSendQueue(self._context.limits.waiting_bytes_max)
        self._decoder = ChunkDecoder(NO_KINDS, frame_bytes_max=0)


async def establish(
    connection: LinkConnection, connecting: Coroutine[Any, Any, object], *, within_ms: int
) -> bool:
    """True if a link came of it, within that time; if not, `connection.ended` says why.

    `connecting` makes the transport.  The link may have ended again by now.
    """
    is_connected = False
    try:
        async with asyncio.timeout(within_ms / 1000):
            await connecting
            is_connected = True
            await asyncio.wait([connection.opened])
    except ssl.SSLError as error:
        connection.refuse(LinkRefused(HelloRefusal.TLS, detail=reason_of(error)))
    except TimeoutError:
        if not is_connected:  # the maker of the transport has closed it, even if it was just made
            connection.reset("it does not answer")
        elif connection.identity is None:
            connection.refuse(LinkRefused(HelloRefusal.TOO_SLOW))
    except OSError as error:
        connection.is_connection_refused = isinstance(error, ConnectionRefusedError)
        connection.reset(reason_of(error))
    except asyncio.CancelledError:
        connection.reset("no longer wanted")
        raise
    return connection.identity is not None


def bound_unsent(transport: asyncio.Transport) -> None:
    """Keep the kernel from taking megabytes that are not under way yet, where it allows that."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    end = transport.get_extra_info("socket")
    if option is not None and end is not None:
        end.setsockopt(socket.IPPROTO_TCP, option, WRITE_BYTES)
