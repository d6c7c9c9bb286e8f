"""Client connection: an asyncio protocol around the reader, the phases and the channels.

The socket's two directions are those of `SocketConnection`; here is the one place where errors
become close frames.  `input` has the order in which things are done, `event_handlers` says what an
event of a read means, `connection_methods` what methods of the connection mean, `Channels` which
channels are open and what reaches them, `read_holds` why it is not read, `deadlines` what has to be
done in time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from fluffle.broker.alarms import Alarms
from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.errors import (
    BrokerError,
    BrokerFailed,
    ChannelError,
    ConnectionForced,
    NotAllowed,
    NotImplementedHere,
)
from fluffle.broker.base.logs import event
from fluffle.broker.base.traffic import AMQP_091
from fluffle.broker.core.client import Handshake, SessionChannel
from fluffle.broker.core.connections import NO_ANSWER, Silence
from fluffle.broker.core.consumer import deliver_ready
from fluffle.broker.core.input_queue import ReadControl
from fluffle.broker.core.login import HANDSHAKE, check_channel_limit
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.pending_requests import EVENT_BYTES
from fluffle.broker.core.services import Services
from fluffle.broker.core.socket_connection import SocketConnection
from fluffle.broker.metadata.metadata import OnLateError, ignore_done
from fluffle.broker.protocols.amqp091 import (
    basic_methods,
    topology_methods,
    tx_methods,
)
from fluffle.broker.protocols.amqp091.channel import (
    AmqpSession,
    Channel,
    DecodedMethod,
    InputEvent,
    close_for,
    unimplemented,
)
from fluffle.broker.queues.publish_target import BackloggedTarget
from fluffle.protocol.methods import Basic, Method, encode_method, encode_payload, make
from fluffle.protocol.methods import Channel as ChannelMethods
from fluffle.protocol.methods import Connection as ConnectionMethods
from fluffle.protocol.proxy import ForwardedConnection
from fluffle.protocol.reader import MethodReceived, Publishes, Reader, Violation, method_ids
from fluffle.protocol.spec import ProtocolError, ReplyCode


def on_flow(channel: Channel, method: Method) -> None:
    """RabbitMQ holds publishers back by not reading; a client cannot hold it back."""
    assert isinstance(method, ChannelMethods.Flow)
    if not method.active:
        raise NotImplementedHere("active=false")
    channel.reply(make(ChannelMethods.FlowOk, active=True))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    ChannelMethods.Flow: on_flow,
    **basic_methods.HANDLERS,
    **topology_methods.HANDLERS,
    **tx_methods.HANDLERS,
}
"""Handlers of all methods on a channel.

basic.publish and basic.ack come as batches and have no row here; connection.* and channel.open,
close and close-ok belong to the connection."""


VOUCHING = {ChannelMethods.Close, *HANDLERS} - {
    Basic.Nack,
    Basic.Reject,
    Basic.RecoverAsync,
    Basic.CancelOk,
}
"""Methods whose answers say that all is so that was settled on their channel."""


CONNECTION_CLASS = 10

NO_METHOD = (0, 0)

LATE_EVENTS_MAX = 4096
"""Most events on a channel behind its close; an event is a run of messages, or a method."""


class Channels:
    """A channel is open, or closing (we sent close and wait for close-ok), or does not exist.

    Of one that its client has closed more may be on its way, which is dropped: what was read with
    the close, and what each read after that one brings, until one brings nothing of it.
    """

    __slots__ = ("_closing", "_has_late", "_late", "_limit", "_open", "_session")

    def __init__(self, session: AmqpSession, limit: int) -> None:
        self._session = session
        self._limit = limit
        """How many there may be at once, those that wait for close-ok included; 0 is no limit."""
        self._open: dict[int, Channel] = {}
        self._closing: set[int] = set()
        self._late: dict[int, int] = {}
        """How much has come for those that their client has just closed."""
        self._has_late = False
        """True if some of it came with this read."""

    def find(self, number: int) -> Channel | None:
        """The channel; None while it is closing.  ChannelError when it does not exist."""
        channel = self._open.get(number)
        if channel is None and number not in self._closing and not self._is_late(number):
            raise ChannelError("expected 'channel.open'")
        return channel

    def _is_late(self, number: int) -> bool:
        """True if something came that its client had sent behind the close of this channel."""
        count = self._late.get(number, LATE_EVENTS_MAX)
        if count < LATE_EVENTS_MAX:
            self._late[number] = count + 1
            self._has_late = True
        return count < LATE_EVENTS_MAX

    def end_read(self, *, is_amid: bool) -> None:
        """All that was read has been acted on.  `is_amid`: the last of it is not whole."""
        if self._late and not (self._has_late or is_amid):
            self._late.clear()
        self._has_late = False

    def opened(self, number: int) -> Channel | None:
        """The channel, if it is open."""
        return self._open.get(number)

    def has(self, channel: SessionChannel) -> bool:
        """True if a channel, not another one of its number, is open."""
        return self._open.get(channel.number) is channel

    def __iter__(self) -> Iterator[Channel]:
        """Open channels."""
        return iter(self._open.values())

    @property
    def have_consumers(self) -> bool:
        return any(channel.subscriptions for channel in self._open.values())

    def on_method(self, number: int, method: Method) -> None:
        """Give a method to its channel, or to the table if it is about the channel itself."""
        if number in self._closing:
            self._on_method_while_closing(number, method)
        elif isinstance(method, ChannelMethods.Open):
            self._on_open(number)
        elif (channel := self.find(number)) is None:
            if isinstance(method, ChannelMethods.Close):  # once more
                self._send(number, make(ChannelMethods.CloseOk))
        elif isinstance(method, ChannelMethods.Close):
            deliver_ready(channel)  # mutant: CO5
            self._end(number)
            self._send(number, make(ChannelMethods.CloseOk))
            self._late[number] = 0
        elif type(method) in HANDLERS:
            HANDLERS[type(method)](channel, method)
        else:
            raise unimplemented()

    def close(self, number: int, error: BrokerError, ids: tuple[int, int]) -> bool:
        """Close a channel on which something was wrong; False when there is no such channel, or
        the end of the connection was asked for, which the end of a channel would not answer."""
        if number not in self._open or ids[0] == CONNECTION_CLASS:
            return False
        event(
            logger,
            logging.ERROR,
            "channel_error",
            connection=self._session.name,
            channel=number,
            error=error.reply_text,
        )
        for observer in self._session.observers:
            observer.channel_refused(self._open[number], error)
        self._end(number)
        self._closing.add(number)
        self._send(number, close_for(ChannelMethods.Close, error, ids))
        return True

    def refuse(self, channel: Channel, error: BrokerError) -> None:
        """Close a channel for something that its client did not ask for, unless it has ended."""
        if self.has(channel):
            self.close(channel.number, error, NO_METHOD)

    def end_all(self) -> None:
        """The connection ends, and every channel with it; what fails in one is logged."""
        for number in tuple(self._open):
            call_listener(partial(self._end, number))

    def _on_open(self, number: int) -> None:
        if number in self._open:
            raise second_open()
        count = len(self._open) + len(self._closing)
        if self._limit and count >= self._limit:
            raise ProtocolError(  # about no method, as RabbitMQ puts it
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened ({count}) has reached the negotiated channel_max "
                f"({self._limit})",
            )
        try:
            check_channel_limit(self._session.access, self._session.user)
        except NotAllowed as refused:  # about no method, too
            raise ProtocolError(ReplyCode.NOT_ALLOWED, refused.explanation) from None
        self._late.pop(number, None)
        channel = Channel(number, self._session, self)
        observer = self._session.open_channel(channel)
        self._open[number] = channel
        channel.observer = channel.settlements.observer = channel.publisher.observer = observer
        self._send(number, make(ChannelMethods.OpenOk, channel_id=""))

    def _on_method_while_closing(self, number: int, method: Method) -> None:
        """Only close-ok frees the number; of the rest only a close is answered."""
        if isinstance(method, ChannelMethods.CloseOk):
            self._closing.remove(number)
        elif isinstance(method, ChannelMethods.Close):
            self._send(number, make(ChannelMethods.CloseOk))
        elif isinstance(method, ChannelMethods.Open):
            raise second_open()

    def _end(self, number: int) -> None:
        channel = self._open.pop(number)
        consumer_count = len(channel.subscriptions)
        try:
            channel.close()
        finally:
            self._session.end_channel(channel, consumer_count)

    def _send(self, number: int, method: Method) -> None:
        self._session.output.add(encode_method(number, method))


def second_open() -> BrokerError:
    return ChannelError("second 'channel.open' seen")


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


def state_of(phase: ConnectionState, alarms: Alarms, read_control: ReadControl) -> str:
    """State by RabbitMQ's name: `blocking` is a connection that would be blocked if it
    published."""
    if phase is not ConnectionState.RUNNING:
        return str(phase.value)
    if read_control.holds("alarm"):
        return "blocked"
    if alarms.reason:
        return "blocking"
    return "flow" if read_control.is_slowed else "running"


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

    def number_of(self, input_event: InputEvent) -> int | None:
        """The channel; None for a violation, behind which nothing comes."""
        return None if isinstance(input_event, Violation) else input_event.channel

    def size_of(self, input_event: InputEvent) -> int:
        """Bytes that it costs to keep an event."""
        if isinstance(input_event, Publishes):
            return EVENT_BYTES * len(input_event.contents) + input_event.content_bytes
        if isinstance(input_event, DecodedMethod):
            return EVENT_BYTES + len(encode_payload(input_event.method))
        payload = input_event.payload if isinstance(input_event, MethodReceived) else b""
        return EVENT_BYTES + len(payload)

    def asks_definitions(self, input_event: InputEvent) -> bool:
        """True if it is a publish, a declaration or the like, or asks for messages."""
        ids = ids_of(input_event)
        return isinstance(input_event, Publishes) or ids[0] in DECLARING or ids in READING


class Connection(SocketConnection[InputEvent]):
    """A socket and everything that lives and dies with it: a `ClientConnection`, the
    `InputHandler` of its input, and the `Waiter` of what concerns all of it."""

    __slots__ = ("_session", "_unheard_bytes", "event_handlers", "open_channels", "phase")
    waiting_rules = ChannelRules()
    client_errors = (BrokerError, ProtocolError)
    reader: Reader
    handshake: AmqpHandshake
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
        limits = services.limits
        reader = Reader(
            frame_bytes_max=limits.initial_frame_bytes_max,
            message_bytes_max=limits.message_bytes_max,
            unfinished_bytes_max=limits.unfinished_bytes_max,
        )
        super().__init__(services, reader, AmqpHandshake(), forwarded)
        self.event_handlers = event_handlers
        self.phase = ConnectionState.HEADER
        self._session: AmqpSession | None = None
        self.open_channels: Channels | None = None
        """Invariant: there is a session while there are channels, and only in phase RUNNING."""
        self._unheard_bytes = 0
        """Bytes that came behind its close."""

    # Calls of the transport

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self.read_bytes += len(data)
        if self.input.is_over:
            self._pass_over(len(data))
            return
        self.input.act(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._session is not None:
            self._session.inbox.filled()

    def _go_on_writing(self) -> None:
        if self._session is not None:
            self._session.inbox.drained()

    @property
    def is_open(self) -> bool:
        """True if what has waited is still wanted."""
        return self.phase not in (ConnectionState.CLOSING, ConnectionState.CLOSED)

    # Errors

    def refuse(self, error: Exception, input_event: InputEvent) -> None:
        """Close the channel or the connection on which something was wrong, and say what."""
        if isinstance(error, ProtocolError):
            self.fail(error, (error.class_id, error.method_id))
            return
        assert isinstance(error, BrokerError)
        ids, channels = ids_of(input_event), self.open_channels if error.is_soft else None
        if not (channels and channels.close(input_event.channel, error, ids)):
            self.fail(error, ids)

    def give_up(self, error: Exception, input_event: InputEvent | None = None) -> None:
        """The broker itself is at fault: say so here, and keep the other connections.

        Unless what it believes is wrong: then it must end before it says so to others.
        """
        ids = ids_of(input_event) if input_event is not None else NO_IDS
        if isinstance(error, AssertionError):
            self.services.runtime.on_fatal(error)
        logger.error("a handler failed on %s, method %s", self.name, ids, exc_info=error)
        self.fail(BrokerFailed(), ids)

    def fail(self, error: BrokerError | ProtocolError, ids: tuple[int, int] = NO_IDS) -> None:
        """Close the connection, and log what was wrong.  Nothing was if an operator closes it, its
        user or its virtual host is gone, or the node stops: the line of its end says so."""
        if self.phase not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            if not isinstance(error, ConnectionForced):
                text = error.reply_text
                event(logger, logging.ERROR, "connection_error", connection=self.name, error=text)
            self.close(error, ids)

    def close(self, error: BrokerError | ProtocolError, ids: tuple[int, int] = NO_IDS) -> None:
        """Say why the connection is closed; from here on only the answer to that counts."""
        self.close_reason = error.reply_text
        self.phase = ConnectionState.CLOSING
        self.reader.close()
        self.end_session()
        self.read_holds.hear()
        self.input.act_later()
        self.send(close_for(ConnectionMethods.Close, error, ids))
        self._give_time_to_close()

    # Called by `connection_methods`

    def send(self, method: Method) -> None:
        """Send a method of the connection itself, at the end of this turn."""
        self.output.add(encode_method(0, method))

    def tuned(self, frame_bytes_max: int, heartbeat_s: int) -> None:
        """The limits have been negotiated; 0 is no limit and no heartbeat."""
        self.reader.frame_bytes_max = frame_bytes_max or self.services.limits.message_bytes_max
        self.heartbeat_s = heartbeat_s
        if heartbeat_s:
            beating = HeartbeatTimer(self._transport, self.output, lambda: self.reads)
            wait_s = heartbeat_s / BEATS_PER_INTERVAL
            self.deadlines.check_every(wait_s, "heartbeat", beating.beat, MISSED_HEARTBEATS)

    def begin(self, session: AmqpSession) -> None:
        """The client may open channels."""
        self.phase = ConnectionState.RUNNING
        self.reader.open()
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

    def finish(self, *, is_client_to_close: bool = False) -> None:
        """Write what is collected, then close the socket once the peer has read it."""
        if is_client_to_close:
            self._leave_to_client()
            return
        super().finish()

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
        self._give_time_to_close()
        self.input.discard()
        self.read_holds.hear()
        self.read_control.release("busy")
        if self.heartbeat_s:
            self.deadlines.met("heartbeat")

    def _pass_over(self, size_bytes: int) -> None:
        """Note bytes that are dropped."""
        self._unheard_bytes += size_bytes
        if self._unheard_bytes > UNHEARD_BYTES_MAX:
            self.drop("client writes on after its close")

    @property
    def is_logging_in(self) -> bool:
        """True if it waits for the outcome of its login."""
        return self.phase is ConnectionState.SECURE

    @property
    def handshake_timeout_s(self) -> float:
        """How long the client may take until it has opened a virtual host."""
        return self.services.limits.handshake_timeout_ms / 1000

    @property
    def channels(self) -> Iterable[Channel]:
        return self.open_channels or ()

    @property
    def session(self) -> AmqpSession | None:
        return self._session

    @property
    def state(self) -> str:
        """RabbitMQ's word for what it is doing, and for why it is not read."""
        return state_of(self.phase, self.services.alarms, self.read_control)

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        """Messages went to a queue that is behind: pause, unless acks come this way and help."""
        if self._session is None:  # they are put into their queues when it has ended
            return
        if target.is_full:
            self.read_holds.wait_for_room(target)
        elif self.open_channels and not self.open_channels.have_consumers:
            self.read_holds.owe(target, count)

    def _give_time_to_close(self) -> None:
        """Give the peer its time to answer, or to read what is left for it."""
        can_answer = not self.reader.is_broken
        wait_s = close_wait_s(self.heartbeat_s, can_answer=can_answer)
        self.deadlines.give("close", wait_s, NO_ANSWER)

    def _on_blocked(self, reason: str) -> None:
        super()._on_blocked(reason)
        if self.handshake.wants_blocked:
            blocked, unblocked = ConnectionMethods.Blocked, ConnectionMethods.Unblocked
            self.send(make(blocked, reason=reason) if reason else make(unblocked))


def ids_of(input_event: InputEvent) -> tuple[int, int]:
    """Class and method, for errors about it."""
    return input_event.ids if isinstance(input_event, DecodedMethod) else method_ids(input_event)


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
