"""Client connection: an asyncio protocol around the reader, the phases and the channels.

This file owns the socket's two directions, the order in which things are done, and the one place
where errors become close frames.  `event_handlers` says what an event of a read means,
`connection_methods` what methods of the connection mean, `channels` what the others mean,
`read_holds` why it is not read, `deadlines` what has to be done in time.
Input comes as batches: all events of a read, then the confirms they earned, then (in `Turn`) one
write.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from fluffle.broker.base.errors import BrokerError, BrokerFailed
from fluffle.broker.base.logs import event
from fluffle.broker.core import admission
from fluffle.broker.core.client import SessionChannel
from fluffle.broker.core.connections import NO_ANSWER, Deadlines
from fluffle.broker.core.login import HANDSHAKE, expect_login
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.read_control import UNREAD_BYTES_MAX, ReadControl, ReadHolds
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import REMEMBERED_WHEN_SHORT_MAX
from fluffle.broker.metadata.metadata import ABSENCE_ERRORS, OnLateError, ignore_done
from fluffle.broker.process.encryption import PeerCertificate
from fluffle.broker.process.sockets import (
    address_of,
    ends_of,
    is_loopback,
    is_reset,
    is_unix,
    shown_address,
)
from fluffle.broker.protocols.amqp091 import connection_methods
from fluffle.broker.protocols.amqp091.channel import AmqpSession, Channel, close_for
from fluffle.broker.protocols.amqp091.channels import Channels
from fluffle.broker.protocols.amqp091.connection_methods import ConnectionState
from fluffle.broker.protocols.amqp091.event_handlers import (
    EVENT_HANDLERS,
    METHOD_COST,
    TURN_COST_MAX,
    LongEvent,
    is_settled,
    may_be_answered_too_soon,
)
from fluffle.broker.protocols.amqp091.pending_requests import (
    DeferredEvent,
    Occurrence,
    WaitingChannels,
)
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.protocol.events import method_ids
from fluffle.protocol.methods import Connection as Methods
from fluffle.protocol.methods import Method, encode_method, make
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

NO_IDS = (0, 0)

logger = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """A socket and everything that lives and dies with it: a `ClientConnection`."""

    kind = "network"
    protocol = "AMQP 0-9-1"

    def __init__(self, services: Services, forwarded: ForwardedConnection | None = None) -> None:
        self.services = services
        self._forwarded = forwarded
        """For whom a proxy made this connection."""
        self.phase = ConnectionState.HEADER
        self.handshake = connection_methods.AmqpHandshake()
        self.name = ""
        self.is_from_loopback = False
        self.certificate: PeerCertificate = {}
        """The client's, if it has been verified."""
        self.close_reason = ""
        self._session: AmqpSession | None = None
        self.open_channels: Channels | None = None
        """Invariant: there is a session while there are channels, and only in phase RUNNING."""
        self.pending: deque[Occurrence] = deque()
        """What has been read and not acted on: empty between turns, unless there is very much."""
        self.work: LongEvent | None = None
        """An event that takes long: nothing that came behind it is acted on before it ends."""
        self.waiting = WaitingChannels(self._go_on, services.connections.deferred)
        self.is_asking = False
        """Whether its last method was answered with a message."""
        self.reads = self.read_bytes = 0
        """How often something came in, and how much."""
        self.heartbeat_s = 0
        self._unheard_bytes = 0
        """Bytes that came behind its close."""
        self._is_finishing = False
        """Whether the socket is closed once all is written."""
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
        self.output = OutputBuffer(self._transport, touch=self.services.runtime.turn.touch_outlet)
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
        if self.phase is ConnectionState.CLOSED:
            self._pass_over(len(data))
            return
        self._act(data)

    def pause_writing(self) -> None:
        self.output.is_draining = True
        if self._session is not None:
            self._session.inbox.filled()

    def resume_writing(self) -> None:
        self.output.drained()
        if self._session is not None:
            self._session.inbox.drained()
        self.read_holds.has_read()
        self._act_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.close_reason:
            self.close_reason = f"connection lost: {exc}" if exc else "closed by peer without close"
        self.phase = ConnectionState.CLOSED
        self.deadlines.end()
        self.read_holds.end()
        self.services.connections.discard(self)
        self.end_session()
        self.waiting.clear()
        self.output.discard()
        self.pending.clear()
        self.work = None
        self._reader.discard()
        event(
            logger,
            logging.INFO,
            "connection_closed",
            connection=self.name,
            reason=self.close_reason,
        )

    # What came in

    def _act(self, data: bytes = b"") -> None:
        """Act on what was read; if it is much, on the rest in the next turn or once it drains."""
        busy, shares = self.services.connections.busy, self.services.connections.shares
        busy.discard(self)
        if self.is_over:
            return
        if not data and is_reset(self._transport):
            self._hang_up("connection reset by peer")  # and nobody wants what it had begun
            return
        until_s = shares.begin(self, len(busy))
        if data:
            self.pending.extend(self._reader.feed(data))
        has_enough = self.output.has_enough and self.is_asking
        if self._read_control.holds("alarm") or has_enough or self.waiting.is_blocking:
            self._read_control.hold("busy")
            self._wait_for_commit()
            return
        ends_turn = self.services.runtime.turn.begin()
        if ends_turn and self._session is not None:
            self._session.has_put = False
        try:
            self._act_on_events(max(METHOD_COST, TURN_COST_MAX // (1 + len(busy))), until_s)
            if self._session is not None and self._session.confirming:
                self._session.confirm()
        finally:
            if ends_turn:
                self.services.runtime.turn.end(len(data))
        if self.output.is_draining and self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self.read_holds.wait_until_read()
        is_used_up = shares.end(until_s)
        if not (self.pending or self._reader.is_waiting or is_used_up or self.work):
            if self.open_channels is not None:
                self.open_channels.end_read(is_amid=self._reader.is_amid)
            self._read_control.release("busy")
        elif self.phase is not ConnectionState.CLOSED:
            self._read_control.hold("busy")
            self._act_later()

    def _act_later(self) -> None:
        """Go on in the next turn, if there is anything to go on with."""
        busy = self.services.connections.busy
        if self._read_control.holds("busy") and self not in busy:
            busy.add(self)
            self.services.runtime.turn.call_soon(self._act)

    def _act_on_events(self, cost_max: int, until_s: float) -> None:
        """Act for so much and so long, and on one event at least; `cost_max` is more than 0."""
        events, cost, now_s = self.pending, 0, self.services.connections.shares.now_s
        while cost < cost_max and self.phase is not ConnectionState.CLOSED:
            if self.work is not None:
                cost += self._work_on(self.work, until_s)
                if now_s() >= until_s:
                    break
                continue
            if not events:
                if not self._reader.is_waiting:
                    break
                events.extend(self._reader.go_on())
                if now_s() >= until_s:
                    break
                continue
            occurrence = events.popleft()
            if self.waiting.kept and (wait_cost := self._wait(occurrence)):
                cost += wait_cost
                continue
            try:
                cost += EVENT_HANDLERS[type(occurrence)](self, occurrence)
            except (BrokerError, ProtocolError) as error:
                cost += METHOD_COST
                if not self._doubts(error, occurrence):
                    self._refuse(error, occurrence.channel, ids_at(occurrence))
            except Exception as error:  # noqa: BLE001 - a bug ends one connection, not the node
                self.give_up(error, ids_at(occurrence))
            if now_s() >= until_s:
                break

    def _work_on(self, work: LongEvent, until_s: float) -> int:
        """Go on with what takes long, for so long; what that costs."""
        now_s, cost, goes_on = self.services.connections.shares.now_s, 0, True
        try:
            while goes_on and cost < METHOD_COST:
                cost += 1
                goes_on = self._wants(work) and work.go_on()
                if now_s() >= until_s:
                    break
        except (BrokerError, ProtocolError) as error:
            goes_on = False
            if not self._doubts(error, work.event):
                self._refuse(error, work.event.channel, ids_at(work.event))
        except Exception as error:  # noqa: BLE001 - as in `_act_on_events`
            goes_on = False
            self.give_up(error, ids_at(work.event))
        if not goes_on and self.work is work:
            self.work = None
        return cost

    def _wants(self, work: LongEvent) -> bool:
        """Whether the channel of the work has not ended, maybe in a step of it."""
        return work.channel is None or self._is_there(work.channel)

    def _doubts(self, error: BrokerError | ProtocolError, occurrence: Occurrence) -> bool:
        """Whether it is said only once more is known; then the channel waits for that."""
        read_barrier, channels = self.waiting.read_barrier, self.open_channels
        if type(error) not in ABSENCE_ERRORS or read_barrier.is_complete or channels is None:
            return False
        if isinstance(occurrence, DeferredEvent) and is_settled(self, occurrence):
            return False
        channel = channels.opened(occurrence.channel)
        if channel is None or not may_be_answered_too_soon(occurrence):
            return False
        self.waiting.begin(channel.number)
        self.waiting.keeps(occurrence)
        ids = ids_at(occurrence)

        def refuse(error: BrokerError) -> None:
            def act() -> None:
                raise error

            self.waiting.over(channel, ids, act)

        read_barrier.ask(partial(self.waiting.over, channel, ids, ignore_done), refuse)
        return True

    def _wait(self, occurrence: Occurrence) -> int:
        """Let it wait with its channel, or all with it, if it has to; what that costs."""
        if not self.waiting.keeps(occurrence):
            if not self.waiting.blocks(occurrence):
                return 0
            self.pending.appendleft(occurrence)
        return TURN_COST_MAX if self.waiting.is_blocking else METHOD_COST

    def _go_on(
        self, channel: SessionChannel | None, ids: tuple[int, int], act: Callable[[], None]
    ) -> None:
        """Act on a channel that has waited, if it is still there, and on what came for it; None is
        the connection itself."""
        number = channel.number if channel is not None else 0
        kept = self.waiting.end(number)  # `act` may wait anew
        try:
            if self._is_there(channel):
                act()
        except (BrokerError, ProtocolError) as error:
            self._refuse(error, number, ids)
        except Exception as error:  # noqa: BLE001 - as in `_act_on_events`
            self.give_up(error, ids)
        if self.open_channels is not None:
            self.pending.extendleft(reversed(kept))
        if self.pending and self.phase is not ConnectionState.CLOSED:
            self._read_control.hold("busy")
        self._act_later()

    def _is_there(self, channel: SessionChannel | None) -> bool:
        """Whether what has waited is still wanted."""
        if channel is None:
            return self.phase not in (ConnectionState.CLOSING, ConnectionState.CLOSED)
        return self.open_channels is not None and self.open_channels.has(channel)

    # Errors

    def _refuse(
        self, error: BrokerError | ProtocolError, channel: int, ids: tuple[int, int]
    ) -> None:
        """Close the channel or the connection on which something was wrong, and say what."""
        if isinstance(error, ProtocolError):
            self.fail(error, (error.class_id, error.method_id))
            return
        channels = self.open_channels if error.is_soft else None
        if not (channels and channels.close(channel, error, ids)):
            self.fail(error, ids)

    def give_up(self, error: Exception, ids: tuple[int, int] = NO_IDS) -> None:
        """The broker itself is at fault: say so here, and keep the other connections.

        Unless what it believes is wrong: then it must end before it says so to others.
        """
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
        self._act_later()
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
            beating = HeartbeatTimer(Heartbeat(), self._transport, self.output, lambda: self.reads)
            wait_s = heartbeat_s / BEATS_PER_INTERVAL
            self.deadlines.check_every(wait_s, "heartbeat", beating.beat, MISSED_HEARTBEATS)

    def begin(self, session: AmqpSession) -> None:
        """The client may open channels."""
        self.phase = ConnectionState.RUNNING
        self._reader.open()
        self._session = session
        self.waiting.read_barrier = session.read_barrier
        self.open_channels = Channels(session, self.handshake.channels_max)
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
        self.work = None
        self.open_channels = self._session = None
        self.waiting.clear()
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
        self.phase, self._is_finishing = ConnectionState.CLOSED, True
        self.output.flush()
        if not self._wait_for_commit():
            self._transport.close()
        self._part_in_time()

    def _leave_to_client(self) -> None:
        """Act on nothing more, and leave it to the client to close the socket, which it does once
        it has read what it waits for.

        It may have more on its way, and is still writing: from a socket that was closed under it,
        or half closed, it would hear an error in the place of the answer.  So that is read, and
        dropped.
        """
        self.phase = ConnectionState.CLOSED
        self._part_in_time()
        self.pending.clear()
        self._reader.discard()
        self.read_holds.hear()
        self._read_control.release("busy")
        if self.heartbeat_s:
            self.deadlines.met("heartbeat")

    def _pass_over(self, size_bytes: int) -> None:
        """Note bytes that are dropped."""
        self._unheard_bytes += size_bytes
        if self._unheard_bytes > UNHEARD_BYTES_MAX:
            self._hang_up("client writes on after its close")

    def _wait_for_commit(self) -> bool:
        """Go on when what is held back has gone out; whether anything is."""
        if self.output.is_holding:
            self.services.runtime.commits.wait(self, self.output.ticket)
        return self.output.is_holding

    def on_durable(self, _ticket: int) -> None:
        """The commit that was waited for has been done."""
        if self.phase is not ConnectionState.CLOSED:
            self._act_later()
        elif self._is_finishing and not self._transport.is_closing():
            self.finish()

    def drop(self, reason: str = NO_ANSWER) -> None:
        """Close the socket without a word; by default the peer has had its time."""
        self._hang_up(reason)

    def _hang_up(self, reason: str) -> None:
        """Act on nothing more and close the socket as it is; the first reason is the one."""
        self.close_reason = self.close_reason or reason
        self.phase = ConnectionState.CLOSED
        self._transport.abort()

    @property
    def is_logging_in(self) -> bool:
        """Whether it waits for the outcome of its login."""
        return self.phase is ConnectionState.SECURE

    @property
    def handshake_timeout_s(self) -> float:
        """How long the client may take until it has opened a virtual host."""
        return self.services.limits.handshake_timeout_ms / 1000

    @property
    def is_over(self) -> bool:
        """Whether nothing more is acted on, and what is left is to close the socket."""
        return self.phase is ConnectionState.CLOSED

    @property
    def channels(self) -> Iterable[Channel]:
        return self.open_channels or ()

    @property
    def session(self) -> AmqpSession | None:
        return self._session

    @property
    def state(self) -> str:
        """RabbitMQ's word for what it is doing, and for why it is not read."""
        return connection_methods.state_of(
            self.phase, self.services.alarms, self._read_control.holds
        )

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What knows how it is encrypted, if it is."""
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
        """What the socket has taken."""
        return self.output.written_bytes

    @property
    def unwritten_bytes(self) -> int:
        """What the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def is_publisher(self) -> bool:
        """Whether it has published."""
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
        wait_s = connection_methods.close_wait_s(self.heartbeat_s, can_answer=can_answer)
        self.deadlines.give("close", wait_s, NO_ANSWER)

    def _on_blocked(self, reason: str) -> None:
        """An alarm holds the connection, or does no more."""
        if not reason:
            self._act_later()
        if self.handshake.wants_blocked:
            self.send(make(Methods.Blocked, reason=reason) if reason else make(Methods.Unblocked))


def ids_at(occurrence: Occurrence) -> tuple[int, int]:
    """Class and method, as `method_ids` gives them, also of what has waited."""
    return method_ids(occurrence.event if isinstance(occurrence, DeferredEvent) else occurrence)


BEATS_PER_INTERVAL = 2
SILENT_INTERVALS_MAX = 2
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class HeartbeatAction(Enum):
    """Action due after a beat."""

    NOTHING = auto()
    SEND = auto()
    GIVE_UP = auto()


class Heartbeat:
    """Heartbeat state of one connection, in both directions."""

    __slots__ = ("_beats", "_silent_intervals", "heard", "spoke")

    def __init__(self) -> None:
        self.heard = False
        """Whether anything came in since it was last reset here."""
        self.spoke = False
        """Whether anything was written since the last beat."""
        self._beats = 0
        self._silent_intervals = 0

    def beat(self, *, listening: bool) -> HeartbeatAction:
        """Half an interval has passed.  Without `listening` silence does not count."""
        self._beats += 1
        if self._beats % BEATS_PER_INTERVAL == 0:
            silent = listening and not self.heard
            self._silent_intervals = self._silent_intervals + 1 if silent else 0
            self.heard = False
            if self._silent_intervals >= SILENT_INTERVALS_MAX:
                return HeartbeatAction.GIVE_UP
        spoke, self.spoke = self.spoke, False
        return HeartbeatAction.NOTHING if spoke else HeartbeatAction.SEND


class HeartbeatTransport(Protocol):
    """The part of asyncio's transport that heartbeats need."""

    def is_reading(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class HeartbeatTimer:
    """The heartbeats of one connection, both ways."""

    __slots__ = ("_heard", "_heartbeat", "_line", "_output", "_reads", "_writes")

    def __init__(
        self,
        heartbeat: Heartbeat,
        line: HeartbeatTransport,
        output: OutputBuffer,
        heard: Callable[[], int],
    ) -> None:
        """`heard`: how often something has come from the client."""
        self._heartbeat = heartbeat
        self._line = line
        self._output = output
        self._heard = heard
        self._reads, self._writes = heard(), output.writes

    def beat(self) -> bool:
        """Half an interval has passed.  False if the client is silent for too long."""
        heartbeat, output, reads = self._heartbeat, self._output, self._heard()
        heartbeat.heard |= reads != self._reads
        heartbeat.spoke |= output.writes != self._writes
        self._reads = reads
        verdict = heartbeat.beat(listening=self._line.is_reading())
        if verdict is HeartbeatAction.SEND:
            self._line.write(HEARTBEAT_FRAME)
            output.writes += 1
            output.written_bytes += len(HEARTBEAT_FRAME)
        self._writes = output.writes
        return verdict is not HeartbeatAction.GIVE_UP
