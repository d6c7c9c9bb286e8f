"""Limits on idle clients: a bounded number of connections of aiohttp's, each with deadlines.

aiohttp waits for ever for the head of a first request, and for a client that does not read what it
has asked for.  Here both have their time, and there are only so many connections: of those on
which nobody has logged in the oldest makes room, so that nobody without a password keeps out who
has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast

from fluffle.broker.base.clock import Timer

END_OF_HEAD = b"\r\n\r\n"


class ClientLimits(NamedTuple):
    """Limits on the connections of clients."""

    connections_max: int = 512
    """Browsers have some each, and tools one."""
    head_s: float = 10.0
    """From a connection until the head of its first request is whole; aiohttp sees to the rest."""
    reading_s: float = 30.0
    """Time in seconds for which a client may read nothing of what it is sent."""


class ConnectionGuard:
    """The open connections, and their deadlines."""

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Timer],
        limits: ClientLimits = ClientLimits(),  # noqa: B008  a tuple of numbers
    ) -> None:
        self._call_later = call_later
        self._limits = limits
        self._open: set[GuardedConnection] = set()
        self._unauthenticated: dict[asyncio.BaseTransport, GuardedConnection] = {}
        """Open connections without a login, by their transports, the oldest first."""

    def over(self, served: asyncio.Protocol) -> GuardedConnection:
        """A connection that `served` is to answer."""
        return GuardedConnection(served, self)

    def admits(self, connection: GuardedConnection, transport: asyncio.BaseTransport) -> bool:
        """True if there may be another one; if need be, one without a login makes room."""
        if len(self._open) >= self._limits.connections_max:
            if not self._unauthenticated:
                return False
            oldest = next(iter(self._unauthenticated))
            self.forget(self._unauthenticated[oldest], oldest)
            cast(asyncio.Transport, oldest).abort()
        self._open.add(connection)
        self._unauthenticated[transport] = connection
        return True

    def logged_in(self, transport: asyncio.BaseTransport | None) -> None:
        """Keep a connection on which a user has logged in."""
        if transport is not None:
            self._unauthenticated.pop(transport, None)

    def forget(self, connection: GuardedConnection, transport: asyncio.BaseTransport) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)
        self._unauthenticated.pop(transport, None)

    def until_head(self, act: Callable[[], None]) -> Timer:
        """Runs it unless a head has come by then."""
        return self._call_later(self._limits.head_s, act)

    def until_read(self, act: Callable[[], None]) -> Timer:
        """Runs it unless the client has taken all by then."""
        return self._call_later(self._limits.reading_s, act)


class GuardedConnection(asyncio.Protocol):
    """A connection with deadlines; all that comes goes on to the protocol that answers."""

    def __init__(self, served: asyncio.Protocol, watch: ConnectionGuard) -> None:
        self._served = served
        self._watch = watch
        self._transport: asyncio.Transport
        self._head: Timer | None = None
        """Runs until the first head is whole."""
        self._reading: Timer | None = None
        """Runs while the client does not read."""
        self._seen = b""
        """The last of what has come, which may be the begin of the end of a head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._served.connection_made(transport)
        if not self._watch.admits(self, transport):
            self._transport.abort()
            return
        self._head = self._watch.until_head(self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._reading):
            if timer is not None:
                timer.cancel()
        self._watch.forget(self, self._transport)
        self._served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            seen = self._seen + data
            if END_OF_HEAD in seen:
                self._head.cancel()
                self._head, seen = None, b""
            self._seen = seen[1 - len(END_OF_HEAD) :]
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received()

    def pause_writing(self) -> None:
        self._expect_reading()
        self._served.pause_writing()

    def _expect_reading(self) -> None:
        """Hang up unless the client has taken some of what waits for it, time and again."""
        waiting_bytes = self._transport.get_write_buffer_size()

        def look() -> None:
            if self._transport.get_write_buffer_size() < waiting_bytes:
                self._expect_reading()
            else:
                self._transport.abort()

        self._reading = self._watch.until_read(look)

    def resume_writing(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._served.resume_writing()
