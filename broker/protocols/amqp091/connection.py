"""Client connection: an asyncio protocol around the reader, the phases and the channels.

This file owns the socket's two directions, and the one place where errors become close frames.
`input` has the order in which things are done, `event_handlers` says what an event of a read means,
`connection_methods` what methods of the connection mean, `channels` what the others mean,
`read_holds` why it is not read, `deadlines` what has to be done in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from fluffle.broker.alarms.alarms import Alarms
from fluffle.broker.base.errors import BrokerError, BrokerFailed
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import AMQP_091
from fluffle.broker.core import admission
from fluffle.broker.core.client import Handshake
from fluffle.broker.core.connections import NO_ANSWER, Deadlines, Silence
from fluffle.broker.core.input_queue import InputQueue, ReadControl, ReadHolds
from fluffle.broker.core.login import HANDSHAKE, expect_login
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.pending_requests import EVENT_BYTES, WHOLE_CONNECTION
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import REMEMBERED_WHEN_SHORT_MAX
from fluffle.broker.metadata.metadata import OnLateError, ignore_done
from fluffle.broker.process.encryption import PeerCertificate
from fluffle.broker.process.sockets import (
    address_of,
    ends_of,
    is_loopback,
    is_unix,
    shown_address,
)
from fluffle.broker.protocols.amqp091.channel import (
    AmqpSession,
    Channel,
    DecodedMethod,
    Occurrence,
    close_for,
)
from fluffle.broker.protocols.amqp091.channels import Channels
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.runtime.commits import WaitingCall
from fluffle.protocol.events import MethodReceived, Publishes, Violation, method_ids
from fluffle.protocol.methods import Connection as Methods
from fluffle.protocol.methods import Method, encode_method, encode_payload, make
from fluffle.protocol.proxy import ForwardedConnection
from fluffle.protocol.reader import Reader
from fluffle.protocol.spec import ProtocolError

if TYPE_CHECKING:
    import ssl


WRITE_BUFFER_BYTES_MAX = 1_048_576
"""Beyond this in the transport's buffer, consumers of the connection wait."""

UNHEARD_BYTES_MAX = 64 * 1_048_576
"""So much of what was on its way when a client closed is read, and dropped: beyond, and it is cut
off."""

MISSED_HEARTBEATS = "missed heartbeats from client"

CLOSE_WAIT_S_MAX = 30
"""RabbitMQ waits this long for close-ok, or the heartbeat interval if that is shorter."""

BROKEN_WAIT_S = 3
"""Time in seconds before closing after a malformed frame, as in RabbitMQ: nothing behind it can be
read, so no answer comes."""

NO_IDS = (0, 0)

DECLARING = (40, 50)
"""The classes of exchanges and queues, …"""

READING = ((60, 20), (60, 70))
"""… and basic.consume and basic.get."""

logger = logging.getLogger(__name__)


class ConnectionState(Enum):
    """Where a connection stands; it only moves on.  The values are RabbitMQ's words for it."""

    HEADER = "pre_init"
    START = "starting"
    SECURE = "securing"
    TUNE = "tuning"
    OPEN = "opening"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


def state_of(phase: ConnectionState, alarms: Alarms, holds: Callable[[str], bool]) -> str:
    """State by RabbitMQ's name: `blocking` is a connection that would be blocked if it
    published."""
    if phase is not ConnectionState.RUNNING:
        return str(phase.value)
    if holds("alarm"):
        return "blocked"
    if alarms.reason:
        return "blocking"
    return "flow" if holds("flow") or holds("disk") else "running"


class AmqpHandshake(Handshake):
    """Handshake of AMQP, with what else the client can do."""

    __slots__ = ("capabilities",)

    def __init__(self) -> None:
        super().__init__()
        self.capabilities: frozenset[str] = frozenset()

    @property
    def wants_blocked(self) -> bool:
        return "connection.blocked" in self.capabilities


class ChannelRules:
    """Rules for events that have to wait, as `WaitingRules`: they do so with their channels."""

    def number_of(self, occurrence: Occurrence) -> int | None:
        """The channel; None for a violation, behind which nothing comes."""
        return None if isinstance(occurrence, Violation) else occurrence.channel

    def size_of(self, occurrence: Occurrence) -> int:
        """Bytes that it costs to keep an event."""
        if isinstance(occurrence, Publishes):
            return EVENT_BYTES * len(occurrence.contents) + occurrence.content_bytes
        if isinstance(occurrence, DecodedMethod):
            return EVENT_BYTES + len(encode_payload(occurrence.method))
        payload = occurrence.payload if isinstance(occurrence, MethodReceived) else b""
        return EVENT_BYTES + len(payload)

    def asks_definitions(self, occurrence: Occurrence) -> bool:
        """True if it is a publish, a declaration or the like, or asks for messages."""
        ids = ids_of(occurrence)
        return isinstance(occurrence, Publishes) or ids[0] in DECLARING or ids in READING


class Connection(asyncio.Protocol):
    """A socket and everything that lives and dies with it: a `ClientConnection`, the
    `InputHandler` of its input, and the `Waiter` of what concerns all of it."""

    number = WHOLE_CONNECTION
    waiting_rules = ChannelRules()
    client_errors = (BrokerError, ProtocolError)
    kind = "network"
    protocol = "AMQP 0-9-1"
    protocol_row: Mapping[str, Any] = MappingProxyType({})
    traffic_labels = AMQP_091

    def __init__(
        self,
        services: Services,
        event_handlers: Mapping[type, Callable[..., int]],
        forwarded: ForwardedConnection | None = None,
    ) -> None:
        """`event_handlers`: those of `event_handlers`, which stand above this file."""
        self.services = services
        self.event_handlers = event_handlers
        self._forwarded = forwarded
        """Addresses that a proxy sent for this connection, or None."""
        self.phase = ConnectionState.HEADER
        self.handshake = AmqpHandshake()
        self.name = ""
        self.is_from_loopback = False
        self.certificate: PeerCertificate = {}
        """The client's, if it has been verified."""
        self.close_reason = ""
        self._session: AmqpSession | None = None
        self.open_channels: Channels | None = None
        """Invariant: there is a session while there are channels, and only in phase RUNNING."""
        self.reads = self.read_bytes = 0
        """How often something came in, and how much."""
        self.heartbeat_s = 0
        self._unheard_bytes = 0
        """Bytes that came behind its close."""
        self._is_finishing = False
        """True if the socket is closed once all is written."""
        self.deadlines = Deadlines(services.runtime.clients_call_later, self._hang_up)
        self._reader = Reader(
            frame_bytes_max=services.limits.initial_frame_bytes_max,
            message_bytes_max=services.limits.message_bytes_max,
            unfinished_bytes_max=services.limits.unfinished_bytes_max,
        )

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        next_number = self.services.connections.next_number
        self.ends = peer, here = ends_of(transport, self._forwarded, next_number)
        self.name = f"{shown_address(*peer)} -> {shown_address(*here)}"
        self.certificate = transport.get_extra_info("peercert") or {}
        self.output = OutputBuffer(
            self._transport, touch=self.services.runtime.turn.touch_output_buffer
        )
        self._read_control = ReadControl(self._transport)
        self.read_holds = ReadHolds(
            self._read_control,
            self.deadlines,
            alarms=self.services.alarms,
            commits=self.services.runtime.commits,
            call_later=self.services.runtime.clients_call_later,
            on_blocked=self._on_blocked,
        )
        self.on_disk_behind = self.read_holds.wait_for_disk
        self.input: InputQueue[Occurrence] = InputQueue(
            self,
            self._reader,
            self.services,
            transport=self._transport,
            output=self.output,
            read_control=self._read_control,
            read_holds=self.read_holds,
        )
        self.waiting = self.input.waiting
        self.services.connections.add(self)
        self.handshake.connected_at_ms = self.services.runtime.clock.wall_ms()
        expect_login(self)
        real_host, _port = address_of(transport, "peername")
        if not real_host and not is_unix(transport):
            self._hang_up("reset before it was accepted")  # so that nobody can say who that was
            return
        hosts = filter(None, (real_host, peer[0]))  # anybody can send a PROXY header
        self.is_from_loopback = all(map(is_loopback, hosts))

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self.read_bytes += len(data)
        if self.input.is_over:
            self._pass_over(len(data))
            return
        self.input.act(data)

    def pause_writing(self) -> None:
        self.output.is_draining = True
        if self._session is not None:
            self._session.inbox.filled()

    def resume_writing(self) -> None:
        self.output.drained()
        if self._session is not None:
            self._session.inbox.drained()
        self.read_holds.has_read()
        self.input.act_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.close_reason:
            self.close_reason = f"connection lost: {exc}" if exc else "closed by peer without close"
        self._end_input()
        self.deadlines.end()
        self.read_holds.end()
        self.services.connections.discard(self)
        self.end_session()
        self.input.end()
        self.output.discard()
        event(
            logger,
            logging.INFO,
            "connection_closed",
            connection=self.name,
            reason=self.close_reason,
        )

    @property
    def is_open(self) -> bool:
        """True if what has waited is still wanted."""
        return self.phase not in (ConnectionState.CLOSING, ConnectionState.CLOSED)

    # Errors

    def refuse(self, error: Exception, occurrence: Occurrence) -> None:
        """Close the channel or the connection on which something was wrong, and say what."""
        if isinstance(error, ProtocolError):
            self.fail(error, (error.class_id, error.method_id))
            return
        assert isinstance(error, BrokerError)
        ids, channels = ids_of(occurrence), self.open_channels if error.is_soft else None
        if not (channels and channels.close(occurrence.channel, error, ids)):
            self.fail(error, ids)

    def give_up(self, error: Exception, occurrence: Occurrence | None = None) -> None:
        """The broker itself is at fault: say so here, and keep the other connections.

        Unless what it believes is wrong: then it must end before it says so to others.
        """
        ids = ids_of(occurrence) if occurrence is not None else NO_IDS
        if isinstance(error, AssertionError):
            self.services.runtime.on_fatal(error)
        logger.error("a handler failed on %s, method %s", self.name, ids, exc_info=error)
        self.fail(BrokerFailed(), ids)

    def fail(self, error: BrokerError | ProtocolError, ids: tuple[int, int] = NO_IDS) -> None:
        """Log what was wrong, and close the connection."""
        if self.phase not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            text = error.reply_text
            event(logger, logging.ERROR, "connection_error", connection=self.name, error=text)
            self.close(error, ids)

    def close(self, error: BrokerError | ProtocolError, ids: tuple[int, int] = NO_IDS) -> None:
        """Say why the connection is closed; from here on only the answer to that counts."""
        self.close_reason = error.reply_text
        self.phase = ConnectionState.CLOSING
        self._reader.close()
        self.end_session()
        self.read_holds.hear()
        self.input.act_later()
        self.send(close_for(Methods.Close, error, ids))
        self._part_in_time()

    # Called by `connection_methods`

    def send(self, method: Method) -> None:
        """Send a method of the connection itself, at the end of this turn."""
        self.output.add(encode_method(0, method))

    def tuned(self, frame_bytes_max: int, heartbeat_s: int) -> None:
        """The limits have been negotiated; 0 is no limit and no heartbeat."""
        self._reader.frame_bytes_max = frame_bytes_max or self.services.limits.message_bytes_max
        self.heartbeat_s = heartbeat_s
        if heartbeat_s:
            beating = HeartbeatTimer(self._transport, self.output, lambda: self.reads)
            wait_s = heartbeat_s / BEATS_PER_INTERVAL
            self.deadlines.check_every(wait_s, "heartbeat", beating.beat, MISSED_HEARTBEATS)

    def begin(self, session: AmqpSession) -> None:
        """The client may open channels."""
        self.phase = ConnectionState.RUNNING
        self._reader.open()
        self._session = session
        self.open_channels = Channels(session, self.handshake.channels_max)
        self.input.begin(session, self.open_channels)
        self.deadlines.met(HANDSHAKE)
        self.read_holds.listen()
        session.listen(self._on_access)

    def end_session(
        self, done: Callable[[], None] = ignore_done, late: OnLateError | None = None
    ) -> None:
        """Close all channels and delete the queues that only this connection could use: `done` is
        called once they are gone, `late` if that takes too long."""
        session, channels = self._session, self.open_channels
        if channels is None or session is None:
            return
        channels.end_all()
        self.open_channels = self._session = None
        self.input.end_session()
        session.end(done, late)

    def _on_access(self) -> None:
        """The user, his permissions or the virtual host have changed."""
        assert self._session is not None
        admission.on_change(self.services, self, self._session)

    def finish(self, *, is_client_to_close: bool = False) -> None:
        """Write what is collected, then close the socket once the peer has read it."""
        if is_client_to_close:
            self._leave_to_client()
            return
        self._end_input()
        self._is_finishing = True
        self.output.flush()
        if self.output.is_holding:
            self.services.runtime.commits.wait(WaitingCall(self._on_written), self.output.ticket)
        else:
            self._transport.close()
        self._part_in_time()

    def _end_input(self) -> None:
        """Act on nothing more."""
        self.phase = ConnectionState.CLOSED
        self.input.stop()

    def _leave_to_client(self) -> None:
        """Act on nothing more, and leave it to the client to close the socket, which it does once
        it has read what it waits for.

        It may have more on its way, and is still writing: from a socket that was closed under it,
        or half closed, it would hear an error in the place of the answer.  So that is read, and
        dropped.
        """
        self._end_input()
        self._part_in_time()
        self.input.discard()
        self.read_holds.hear()
        self._read_control.release("busy")
        if self.heartbeat_s:
            self.deadlines.met("heartbeat")

    def _pass_over(self, size_bytes: int) -> None:
        """Note bytes that are dropped."""
        self._unheard_bytes += size_bytes
        if self._unheard_bytes > UNHEARD_BYTES_MAX:
            self._hang_up("client writes on after its close")

    def _on_written(self) -> None:
        """The commit that its last words have waited for has been done."""
        if self._is_finishing and not self._transport.is_closing():
            self.finish()

    def drop(self, reason: str = NO_ANSWER) -> None:
        """Close the socket without a word; by default the peer has had its time."""
        self._hang_up(reason)

    def _hang_up(self, reason: str) -> None:
        """Act on nothing more and close the socket as it is; the first reason is the one."""
        self.close_reason = self.close_reason or reason
        self._end_input()
        self._transport.abort()

    @property
    def is_logging_in(self) -> bool:
        """True if it waits for the outcome of its login."""
        return self.phase is ConnectionState.SECURE

    @property
    def handshake_timeout_s(self) -> float:
        """How long the client may take until it has opened a virtual host."""
        return self.services.limits.handshake_timeout_ms / 1000

    @property
    def is_over(self) -> bool:
        """True if nothing more is acted on, and what is left is to close the socket."""
        return self.input.is_over

    @property
    def channels(self) -> Iterable[Channel]:
        return self.open_channels or ()

    @property
    def session(self) -> AmqpSession | None:
        return self._session

    @property
    def state(self) -> str:
        """RabbitMQ's word for what it is doing, and for why it is not read."""
        return state_of(self.phase, self.services.alarms, self._read_control.holds)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """TLS object of the connection, or None."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return tls

    @property
    def is_encrypted(self) -> bool:
        return self.tls is not None

    @property
    def writes(self) -> int:
        """How often the socket was given something."""
        return self.output.writes

    @property
    def written_bytes(self) -> int:
        """Bytes that the socket has taken."""
        return self.output.written_bytes

    @property
    def unwritten_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def is_publisher(self) -> bool:
        """True if it has published."""
        return self._session is not None and self._session.route_cache.found_count > 0

    def relieve(self) -> None:
        """Memory is short: forget what can be found out again, where that is much.

        A client that leaves so many answers unread that it is not read is ended.
        """
        if self.read_holds.is_unread:
            self.drop()
            return
        self._reader.forget_beyond(REMEMBERED_WHEN_SHORT_MAX)
        if self._session is not None:
            self._session.remember_less()

    def on_behind(self, target: PublishTarget, count: int) -> None:
        """Messages went to a queue that is behind: pause, unless acks come this way and help."""
        if self._session is None:  # they are put into their queues when it has ended
            return
        if target.is_full:
            self.read_holds.wait_for_room(target)
        elif self.open_channels and not self.open_channels.have_consumers:
            self.read_holds.owe(target, count)

    def _part_in_time(self) -> None:
        """Give the peer its time to answer, or to read what is left for it."""
        can_answer = not self._reader.is_broken
        wait_s = close_wait_s(self.heartbeat_s, can_answer=can_answer)
        self.deadlines.give("close", wait_s, NO_ANSWER)

    def _on_blocked(self, reason: str) -> None:
        """An alarm holds the connection, or does no more."""
        if not reason:
            self.input.act_later()
        if self.handshake.wants_blocked:
            self.send(make(Methods.Blocked, reason=reason) if reason else make(Methods.Unblocked))


def ids_of(occurrence: Occurrence) -> tuple[int, int]:
    """Class and method, for errors about it."""
    return occurrence.ids if isinstance(occurrence, DecodedMethod) else method_ids(occurrence)


def close_wait_s(heartbeat_s: int, *, can_answer: bool) -> int:
    """How long a client has to answer our close, and to read it."""
    wait_s = min(heartbeat_s or CLOSE_WAIT_S_MAX, CLOSE_WAIT_S_MAX)
    return wait_s if can_answer else min(wait_s, BROKEN_WAIT_S)


BEATS_PER_INTERVAL = 2
SILENT_INTERVALS_MAX = 2
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class HeartbeatTransport(Protocol):
    """The part of asyncio's transport that heartbeats need."""

    def is_reading(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class HeartbeatTimer:
    """Heartbeats of one connection, in both directions."""

    __slots__ = ("_beats", "_heard", "_line", "_output", "_silence", "_writes")

    def __init__(
        self, line: HeartbeatTransport, output: OutputBuffer, heard: Callable[[], int]
    ) -> None:
        """`heard`: how often something has come from the client."""
        self._line = line
        self._output = output
        self._heard = heard
        self._silence = Silence(SILENT_INTERVALS_MAX, heard())
        self._writes = output.writes
        """Number of writes at the last beat."""
        self._beats = 0

    def beat(self) -> bool:
        """Half an interval has passed: write a heartbeat unless something was written since the
        last one.  False if the client is silent for too long."""
        self._beats += 1
        if self._beats % BEATS_PER_INTERVAL == 0:
            is_read = self._line.is_reading()
            if self._silence.is_too_long(self._heard(), is_read=is_read):
                return False
        output = self._output
        if output.writes == self._writes:
            self._line.write(HEARTBEAT_FRAME)
            output.writes += 1
            output.written_bytes += len(HEARTBEAT_FRAME)
        self._writes = output.writes
        return True
