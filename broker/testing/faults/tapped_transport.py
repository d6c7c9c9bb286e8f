"""`TappedConnection`: what lies between the socket of a client and the connection that serves it.

To the transport of the socket it is the protocol, to the connection it is the transport.  What is
under way stands in two queues, one for each direction, which are empty unless something holds them
up: a connection that is frozen, or one that passes on piece by piece.

`ClientAcceptor` accepts the clients of one broker, with a `TappedConnection` for each.  While it is
shut the address stays its own: a socket that is bound and does not listen refuses all connections.

`FaultScope` is what faults of one broker, or of one virtual host of it, act on.  It remembers those
that last, so that each of them ends with the test at the latest.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, cast

from fluffle.broker.access.access import Access, LoginAnswer, LoginRefused
from fluffle.broker.admin.context import NodeContext
from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.errors import NotFound
from fluffle.broker.core.client import ClientConnection
from fluffle.broker.core.services import Services
from fluffle.broker.core.socket_connection import WRITE_BUFFER_BYTES_MAX
from fluffle.broker.process.environment import BACKLOG, ListeningServer
from fluffle.broker.process.sockets import Acceptor
from fluffle.broker.protocols.amqp091.connection import (
    Connection,
    ConnectionState,
)
from fluffle.broker.testing.recorder import Recorder
from fluffle.broker.testing.timeline import Timeline
from fluffle.broker.vhosts.vhost import VirtualHost

INTRODUCING = (ConnectionState.HEADER, ConnectionState.START)

REASON = "closed by the operator"
NEXT = "next"
"""The name of the connection that is yet to come."""

CLOSE_WAIT_S = 0.1
"""The limit instead of a node's: what a test has left open mostly has no client any more, so that
no answer would come later."""

LINGER_NOT = struct.pack("ii", 1, 0)
"""A socket that is closed with this says RST, and forgets what was to be sent."""


class ByteFilter(Protocol):
    """Filter of the bytes of a connection, apart from delays."""

    def to_client(self, data: bytes) -> bytes:
        """Return which whole frames pass now; `TappedConnection.pass_on` sends the rest later."""

    def from_client(self, data: bytes) -> Iterable[bytes]:
        """Return the same bytes in the parts in which the connection gets them, some of them
        later."""


class WireUnit(Protocol):
    """Frame of AMQP or packet of MQTT, as far as faults of all protocols know it."""

    @property
    def data(self) -> bytes: ...

    @property
    def channel(self) -> int:
        """0 where a protocol has no channels."""

    @property
    def is_confirm(self) -> bool:
        """True if it is the broker's answer to a publish."""

    @property
    def ends_channel(self) -> bool: ...


class TappedClient(ClientConnection, Protocol):
    """Connection of any protocol that has a tap."""

    services: Services

    @property
    def phase(self) -> object: ...

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


Pieces = Callable[[bytes], Iterable[bytes]]
"""Cuts what is written into what goes to the socket at a time."""


class TappedConnection(asyncio.Protocol):
    """Tapped connection of one client: frozen, cut, or sent in pieces on demand."""

    def __init__(
        self,
        connection: TappedClient,
        opened: Callable[[TappedConnection], None],
        lost: Callable[[TappedConnection], object],
    ) -> None:
        """`opened` is called once the client is there, before it is heard, and `lost` once it is
        gone."""
        self.connection = connection
        self._opened = opened
        self._lost = lost
        self.transport: asyncio.Transport
        self.introduction = b""
        """Bytes that an AMQP client has sent until its handshake was complete."""
        self.vhost_name: str | None = None
        """Virtual host that a client of MQTT has asked for."""
        self.units_of: Callable[[bytes], Iterable[WireUnit]] | None = None
        """Splits what is written into packets; None: it is frames of AMQP."""
        self.when_lost: list[Callable[[], object]] = []
        """Called once the client is gone."""
        self.filters: list[ByteFilter] = []
        self.pieces: Pieces | None = None
        self._freezing: set[object] = set()
        """Faults that have it frozen."""
        self.is_closing = False
        """True if the connection has written its last; the socket closes once it is out."""
        self.is_lost = False
        self._holds_reading = False
        """True if the connection does not want to read now."""
        self._is_socket_full = self._is_full = False
        """True if the connection was paused, by `_is_full`."""
        self._out: deque[bytes] = deque()
        self.held_bytes = 0
        """Bytes on their way to the client."""
        self._in: deque[bytes] = deque()
        self._is_pumping = False
        """True if the next piece goes out in the next round of the loop."""
        self._is_feeding = False
        self._left: dict[str, int] = {}
        """Bytes after which the line is cut, by the end that sends them."""
        self._is_cut = False
        """Nothing passes any more; what has passed still reaches a client that reads slowly."""

    # Calls of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connection.connection_made(cast(asyncio.Transport, ServerTransport(self)))
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_cut:
            self._in.append(data)
            self._feed_connection()

    def pause_writing(self) -> None:
        self._is_socket_full = True
        self._look_whether_full()

    def resume_writing(self) -> None:
        self._is_socket_full = False
        self._look_whether_full()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._drop()
        self._lost(self)
        for forget in self.when_lost:
            forget()
        self.connection.connection_lost(exc)

    # What the connection writes

    def write(self, data: bytes) -> None:
        self._write_filtered(data, self.filters)

    def pass_on(self, data: bytes, *, behind: ByteFilter) -> None:
        """Write what a filter has kept, through those behind it."""
        self._write_filtered(data, self.filters[self.filters.index(behind) + 1 :])

    def _write_filtered(self, data: bytes, filters: list[ByteFilter]) -> None:
        for byte_filter in filters:
            data = byte_filter.to_client(data)
        self._send(data)

    def _send(self, data: bytes) -> None:
        """Write this behind all that is under way."""
        if not data or self.is_lost or self._is_cut:
            return
        self.held_bytes += len(data)
        if self.pieces is None:
            self._out.append(data)
        else:
            self._out.extend(self.pieces(data))
        if not self._is_pumping:
            self._pump()
        self._look_whether_full()

    def _look_whether_full(self) -> None:
        """Pause the connection when too much is under way, and resume it when all of it is with the
        socket, which has room."""
        held_bytes_max = 0 if self._is_full else WRITE_BUFFER_BYTES_MAX
        is_full = self._is_socket_full or self.held_bytes > held_bytes_max
        if is_full == self._is_full or self.is_lost:
            return
        self._is_full = is_full
        if is_full:
            self.connection.pause_writing()
        else:
            self.connection.resume_writing()

    def close(self) -> None:
        """Once all is written."""
        self.is_closing = True
        if not self._is_pumping:
            self._pump()

    def hold_reading(self, *, held: bool) -> None:
        """Hold reading for the connection, or let it go on."""
        self._holds_reading = held
        self._pause_or_not()
        self._feed_connection()

    # What goes wrong

    @property
    def is_frozen(self) -> bool:
        return bool(self._freezing)

    def freeze(self, by: object) -> None:
        """Neither read nor write, without notice."""
        self._freezing.add(by)
        self._pause_or_not()

    def thaw(self, by: object) -> None:
        """Go on where it stopped, unless another scope has it frozen."""
        self._freezing.discard(by)
        if self.is_frozen or self.is_lost:
            return
        if not self._is_pumping:
            self._pump()
        self._pause_or_not()
        self._feed_connection()

    def cut_after(self, count: int, *, sent_by: str) -> None:
        """Be gone once so many more bytes have passed, in the midst of whatever that is.

        `sent_by`: `broker` or `client`.
        """
        self._left[sent_by] = count
        if not count:
            self._cut()
            self.transport.abort()

    def _cut(self) -> None:
        self._is_cut = True
        self._drop()

    def _drop(self) -> None:
        """Drop what is under way."""
        self._out.clear()
        self._in.clear()
        self.held_bytes = 0

    def reset(self) -> None:
        """Be gone without a word, and with nothing of what is under way."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.transport.abort()

    def _pause_or_not(self) -> None:
        if self.is_lost or self.transport.is_closing():
            return
        if self.is_frozen or self._holds_reading:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _pump(self) -> None:
        """Write what may go, all of it or a piece in each round of the loop."""
        self._is_pumping = False
        while self._out and not self.is_frozen:
            piece = self._out.popleft()
            self.held_bytes -= len(piece)
            data, is_last = self._within("broker", piece)
            self.transport.write(data)
            if is_last:
                self._cut()
                self.transport.close()
                return
            if self.pieces is not None:
                self._is_pumping = True
                asyncio.get_running_loop().call_soon(self._pump)
                break
        if self.is_closing and not self._out:
            self.transport.close()
        self._look_whether_full()

    def _feed_connection(self) -> None:
        """Give the connection what it may have, unless it is about to get that."""
        if self._is_feeding:
            return
        self._is_feeding = True
        while self._in and not (self.is_frozen or self.is_lost or self._holds_reading):
            data, is_last = self._within("client", self._in.popleft())
            if self.connection.phase in INTRODUCING:
                self.introduction += data
            if is_last:
                self._cut()
            for part in self._parts(data):
                self.connection.data_received(part)
            if is_last:
                self.transport.abort()
        self._is_feeding = False

    def _parts(self, data: bytes) -> Iterable[bytes]:
        """Yield parts; each is asked for once the connection has acted on those before it."""
        parts: Iterable[bytes] = (data,)
        for byte_filter in self.filters:
            parts = chain.from_iterable(map(byte_filter.from_client, parts))
        return filter(None, parts)

    def _within(self, sender: str, data: bytes) -> tuple[bytes, bool]:
        """Return what of it may still pass, and whether that is the last."""
        left = self._left.get(sender)
        if left is None:
            return data, False
        self._left[sender] = max(left - len(data), 0)
        return data[:left], left <= len(data)


class ServerTransport:
    """Transport of the connection at its end of the tap: what it needs of a transport."""

    def __init__(self, tap: TappedConnection) -> None:
        self._tap = tap

    def write(self, data: bytes) -> None:
        self._tap.write(data)

    def writelines(self, list_of_data: list[bytes]) -> None:
        self._tap.write(b"".join(list_of_data))

    def close(self) -> None:
        self._tap.close()

    def abort(self) -> None:
        self._tap.transport.abort()

    def is_closing(self) -> bool:
        return self._tap.is_closing or self._tap.transport.is_closing()

    def pause_reading(self) -> None:
        self._tap.hold_reading(held=True)

    def resume_reading(self) -> None:
        self._tap.hold_reading(held=False)

    def is_reading(self) -> bool:
        return self._tap.transport.is_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tap.transport.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tap.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._tap.transport.get_write_buffer_size() + self._tap.held_bytes


Make = Callable[[], asyncio.Protocol]
Plan = Callable[[TappedConnection], None]
"""Function that acts on a tap once its client is there."""


class RefusedLogins:
    """`Access` in the eyes of who logs in while logins are refused."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __getattr__(self, name: str) -> object:
        return getattr(self._access, name)

    def login(self, name: str, _password: bytes, answer: LoginAnswer, **_of: object) -> None:
        answer(self.admit(name, from_loopback=True))

    def admit(self, name: str, *, from_loopback: bool) -> LoginRefused:
        del from_loopback
        return LoginRefused(f"user '{name}' may not log in: a test has it so")


class TappedAddress:
    """Address on which clients are accepted, or refused for a while: a `ListeningServer`."""

    def __init__(self, make: Make, listening: socket.socket) -> None:
        self._make = make
        self._address = listening.family, listening.getsockname()
        self._protocol = listening.proto
        self._acceptor: Acceptor | None = None
        """None while no client is let in."""
        self._kept: socket.socket | None = None
        """Bound to the address meanwhile."""
        self._listen(listening)

    def _listen(self, listening: socket.socket) -> None:
        listening.listen(BACKLOG)
        self._acceptor = Acceptor(self._let_in)
        self._acceptor.open(listening)

    def _bound(self) -> socket.socket:
        """Bind the address again, unless another process has.  OSError."""
        family, address = self._address
        if family == socket.AF_UNIX:
            Path(address).unlink(missing_ok=True)
        bound = socket.socket(family, proto=self._protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound

    async def _let_in(self, client: socket.socket, _address: tuple[Any, ...]) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._make, client)

    def shut(self) -> None:
        """Refuse new connections.  OSError if another process has taken the address: it answers
        now."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
            self._kept = self._bound()

    def open(self) -> None:
        """Accept again.  OSError as above."""
        if self._acceptor is None:
            bound, self._kept = self._kept or self._bound(), None
            self._listen(bound)

    def close(self) -> None:
        for each in (self._kept, self._acceptor):
            if each is not None:
                each.close()


def is_mqtt(connection: object) -> bool:
    from fluffle.broker.protocols.mqtt.connection import Connection as MqttConnection  # noqa: PLC0415  if it is used

    return isinstance(connection, MqttConnection)


class ClientAcceptor:
    """Acceptor of the clients of one broker."""

    def __init__(
        self, recorder: Recorder, filter_packets: Callable[[TappedConnection, ClientAcceptor], None]
    ) -> None:
        """`filter_packets` puts a filter into the tap of a connection of MQTT."""
        self._filter_packets = filter_packets
        self.timeline_of: Callable[[str], Timeline] = recorder.of
        """Returns the timeline of a virtual host."""
        self.packet_rules: list[Any] = []
        """Rules for packets of MQTT, of all scopes: each a `mqtt.PacketRule`."""
        self._entries: list[TappedAddress] = []
        self._taps: dict[TappedConnection, None] = {}
        self.plans: deque[Plan] = deque()
        """Plans for the next clients, one each."""
        self.lasting_plans: dict[object, Plan] = {}
        """Plans for every new client, by the fault that asked for them."""
        self.refusing_logins: set[object] = set()
        """Faults that have logins refused."""
        self._shutting: set[object] = set()
        """Faults that have the acceptor shut."""

    async def accept(self, make: Make, listening: socket.socket) -> ListeningServer:
        """Return an `outside.Accept`."""
        entry = TappedAddress(lambda: self._tap(make()), listening)
        self._entries.append(entry)
        return entry

    def shut(self, by: object) -> None:
        """Refuse connections, as if there were no broker; those that are open stay."""
        self._shutting.add(by)
        for entry in self._entries:
            entry.shut()

    def open(self, by: object) -> None:
        """Accept again, unless another scope has it shut."""
        self._shutting.discard(by)
        for entry in () if self._shutting else self._entries:
            entry.open()

    def taps(self) -> Iterator[TappedConnection]:
        """Return the connections that are open, in the order in which they came."""
        return iter(tuple(self._taps))

    def _tap(self, connection: asyncio.Protocol) -> asyncio.Protocol:
        """Tap a connection of AMQP or of MQTT; those of websockets stay as they are."""
        is_amqp = isinstance(connection, Connection)
        if not is_amqp and not is_mqtt(connection):
            return connection
        client = cast(TappedClient, connection)
        if self.refusing_logins:
            access = cast(Access, RefusedLogins(client.services.access))
            client.services = replace(client.services, access=access)
        tap = TappedConnection(client, self._opened, self._taps.pop)
        if not is_amqp:
            self._filter_packets(tap, self)
        return tap

    def _opened(self, tap: TappedConnection) -> None:
        self._taps[tap] = None
        for plan in self.lasting_plans.values():
            plan(tap)
        if self.plans:
            self.plans.popleft()(tap)


@dataclass(slots=True, eq=False)
class FaultScope:
    """Used in the loop of the broker."""

    parts: NodeContext
    acceptor: ClientAcceptor
    call_later: CallLater
    """Goes by the clock that can be moved."""
    vhost_name: str | None
    """None for all virtual hosts."""
    _in_effect: dict[object, tuple[str, Callable[[], None]]] = field(
        default_factory=dict, init=False
    )
    """In words, with what ends it; by what it is done to, or is called."""

    def taps(self) -> Iterator[TappedConnection]:
        """Return those of the clients that have opened the virtual host."""
        return (tap for tap in self.acceptor.taps() if self.has(tap))

    def has(self, tap: TappedConnection) -> bool:
        session = tap.connection.session
        name = tap.vhost_name if session is None else session.vhost.name
        return self.vhost_name in (None, name)

    def tap(self, name: str) -> TappedConnection:
        """That of a connection, by its name, the one that its client has given it, or the client
        identifier of MQTT.  NotFound."""
        for tap in self.taps():
            connection = tap.connection
            handshake = connection.handshake
            if name in (connection.name, handshake.client_name, handshake.client_id):
                return tap
        there = ", ".join(repr(tap.connection.name) for tap in self.taps()) or "none"
        raise NotFound(f"no connection '{name}', but: {there}")

    def vhost(self) -> VirtualHost:
        """Return the virtual host, or the first of the broker."""
        return self.parts.vhost(self.vhost_name or self.parts.config.vhosts[0])

    # Faults that last

    def begin(self, key: object, what: str, end: Callable[[], None]) -> None:
        """Something goes wrong from now on, until `end` is called; what was so before goes on.

        `key` tells it from all else, and `what` says it in words, which may be those of another.
        """
        self._in_effect.setdefault(key, (what, end))

    def end(self, key: object) -> None:
        """End a fault; nothing if it is not in effect."""
        if key in self._in_effect:
            _what, end = self._in_effect.pop(key)
            end()

    @property
    def in_effect(self) -> list[str]:
        """Faults that are in effect, in words."""
        return [what for what, _end in self._in_effect.values()]

    def mend(self) -> None:
        """End all faults.  What the end of one raises comes once all have ended."""
        with ExitStack() as ending:
            for _what, end in self._in_effect.values():
                ending.callback(end)
            self._in_effect.clear()

    @property
    def place(self) -> str:
        """Name of the virtual host, or of all, in words."""
        return f"vhost '{self.vhost_name}'" if self.vhost_name is not None else "the broker"

    def __repr__(self) -> str:
        return f"<faults of {self.place}: {', '.join(self.in_effect) or 'none'}>"
