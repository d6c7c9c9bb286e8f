"""Socket of a client, with what each protocol does with it in the same way: an asyncio protocol
around a reader, an input queue and an output buffer.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fluffle.broker.base.logs import event
from fluffle.broker.core.connections import NO_ANSWER, Deadlines
from fluffle.broker.core.input_queue import InputQueue, InputReader, ReadControl, ReadHolds
from fluffle.broker.core.login import expect_login, on_access_change
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.pending_requests import WHOLE_CONNECTION
from fluffle.broker.core.session import REMEMBERED_WHEN_SHORT_MAX
from fluffle.broker.process.sockets import address_of, ends_of, is_loopback, is_unix, shown_address

if TYPE_CHECKING:
    import ssl

    from fluffle.broker.core.client import Handshake
    from fluffle.broker.core.services import Services
    from fluffle.broker.core.session import Session
    from fluffle.broker.process.encryption import PeerCertificate
    from fluffle.protocol.proxy import ForwardedConnection

WRITE_BUFFER_BYTES_MAX = 1_048_576
"""Beyond this in the transport's buffer, consumers of the connection wait."""

SILENCE_S = 0.2
"""Without anything from a client for so long, it has sent all that was on its way."""

E = TypeVar("E")
"""Event that the reader finds."""

logger = logging.getLogger(__name__)


class SocketConnection(asyncio.Protocol, Generic[E]):
    """Base of the connections of all protocols that clients stay connected by.

    Its subclass is a `ClientConnection`, a `LoginClient`, and the `InputHandler` of its input.
    """

    __slots__ = (
        "__weakref__",
        "_forwarded",
        "_transport",
        "certificate",
        "close_reason",
        "deadlines",
        "ends",
        "handshake",
        "heartbeat_s",
        "input",
        "is_from_loopback",
        "name",
        "on_disk_behind",
        "output",
        "read_bytes",
        "read_control",
        "read_holds",
        "reader",
        "reads",
        "services",
        "waiting",
    )
    number = WHOLE_CONNECTION
    end_unasked = "closed by peer without close"
    """Why it is closed, where the client has not said that it goes."""

    def __init__(
        self,
        services: Services,
        reader: InputReader[E],
        handshake: Handshake,
        forwarded: ForwardedConnection | None,
    ) -> None:
        """`forwarded`: addresses that a proxy sent for this connection."""
        self.services = services
        self.reader = reader
        self.handshake = handshake
        self._forwarded = forwarded
        self.name = ""
        self.is_from_loopback = False
        self.certificate: PeerCertificate = {}
        """The client's, if it has been verified."""
        self.close_reason = ""
        self.reads = self.read_bytes = 0
        """How often something came in, and how much."""
        self.heartbeat_s = 0
        """Interval of heartbeats, or of keep alives."""
        self.deadlines = Deadlines(services.runtime.clients_call_later, self)

    @property
    def session(self) -> Session | None:
        """Its session, from its login until it ends."""
        return None

    # Calls of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        services, runtime = self.services, self.services.runtime
        me: Any = self
        stream: Any = transport
        self._transport: asyncio.Transport = stream
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        next_number = services.connections.next_number
        self.ends = peer, here = ends_of(transport, self._forwarded, next_number)
        self.name = f"{shown_address(*peer)} -> {shown_address(*here)}"
        self.certificate = transport.get_extra_info("peercert") or {}
        self.output = OutputBuffer(self._transport, touch=runtime.turn.touch_output_buffer)
        self.read_control = ReadControl(self._transport)
        self.read_holds = ReadHolds(
            self.read_control,
            self.deadlines,
            alarms=services.alarms,
            commits=runtime.commits,
            call_later=runtime.clients_call_later,
            on_blocked=self._on_blocked,
        )
        self.on_disk_behind = self.read_holds.wait_for_disk
        self.input: InputQueue[E] = InputQueue(
            me,
            self.reader,
            services,
            transport=self._transport,
            output=self.output,
            read_control=self.read_control,
            read_holds=self.read_holds,
        )
        self.waiting = self.input.waiting
        services.connections.add(me)
        self.handshake.connected_at_ms = runtime.clock.wall_ms()
        expect_login(me)
        real_host = peer[0] if self._forwarded is None else address_of(transport, "peername")[0]
        if not real_host and not is_unix(transport):
            self.drop("reset before it was accepted")  # its address is not known any more
            return
        hosts = filter(None, (real_host, peer[0]))  # anybody can send a PROXY header
        self.is_from_loopback = all(map(is_loopback, hosts))

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self.read_bytes += len(data)
        self.input.act(data)

    def pause_writing(self) -> None:
        self.output.is_draining = True

    def resume_writing(self) -> None:
        self.output.drained()
        self._go_on_writing()
        self.read_holds.has_read()
        self.input.act_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.close_reason:
            self.close_reason = f"connection lost: {exc}" if exc else self.end_unasked
        self._end_input()
        self.deadlines.end()
        self.read_holds.end()
        me: Any = self
        self.services.connections.discard(me)
        self.end_session()
        self.input.end()
        self.output.discard()
        event(
            logger,
            logging.INFO,
            "connection_closed",
            connection=self.name,
            client=self.handshake.client_id or None,
            reason=self.close_reason,
        )

    # What a protocol adds

    def _go_on_writing(self) -> None:
        """Write what has waited for the socket."""

    def answer_held(self) -> None:
        """Answer what an alarm holds, as far as that needs no messages to be taken."""

    def _end_input(self) -> None:
        """Act on nothing more."""
        self.input.stop()

    def end_session(self) -> None:
        """Stop what the client publishes and is given."""

    def _give_time_to_close(self) -> None:
        """Give the client its time to read what is left for it."""

    # The end

    def finish(self) -> None:
        """Write what is collected, then close the socket once the client has read it."""
        self._end_input()
        self.output.flush()
        if self.output.is_holding:
            self.services.runtime.commits.wait(self, self.output.ticket)
        else:
            self._transport.close()
        self._give_time_to_close()

    def finish_unread(self) -> None:
        """Finish where more input is on its way than was read: have the client close first, for a
        socket that is closed with input unread takes back what was written."""
        if self.output.is_holding or self._transport.get_extra_info("websocket"):
            self.finish()
            return
        self._end_input()
        self.input.discard()
        self.output.flush()
        self.read_control.release_all()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS ends both directions at once
            self._close_once_silent(-1)
        self._give_time_to_close()

    def _close_once_silent(self, reads: int) -> None:
        """Close the socket if nothing has come since it had been read so often, or else later."""
        if self.reads == reads:
            self._transport.close()
        elif not self._transport.is_closing():
            act = partial(self._close_once_silent, self.reads)
            self.services.runtime.clients_call_later(SILENCE_S, act)

    def on_durable(self, _ticket: int) -> None:
        """Send the output that waited for a commit."""
        if not self._transport.is_closing():
            self.finish()

    def drop(self, reason: str = NO_ANSWER) -> None:
        """Act on nothing more, and close the socket without a word; the first reason is the one."""
        self.close_reason = self.close_reason or reason
        self._end_input()
        self._transport.abort()

    # What others ask

    def _on_access(self) -> None:
        """The user, his permissions or the virtual host have changed."""
        if self.session is not None:
            me: Any = self
            on_access_change(self.services, me, self.session)

    def _on_blocked(self, reason: str) -> None:
        """An alarm holds the connection, or does no more."""
        if not reason:
            self.input.act_later()

    def relieve(self) -> None:
        """Memory is short: forget what can be found out again, where that is much.

        A client that leaves so many answers unread that it is not read is ended.
        """
        if self.read_holds.is_unread:
            self.drop()
            return
        self.reader.forget_beyond(REMEMBERED_WHEN_SHORT_MAX)
        if self.session is not None:
            self.session.remember_less()

    @property
    def is_over(self) -> bool:
        """True if nothing more is acted on, and what is left is to close the socket."""
        return self.input.is_over

    @property
    def tls(self) -> ssl.SSLObject | None:
        """TLS object of an encrypted connection."""
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
        return self.session is not None and self.session.route_cache.found_count > 0
