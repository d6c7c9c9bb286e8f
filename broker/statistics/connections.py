"""What goes over the sockets of clients.

The connection and its transport are given each other through what counts, and know nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from fluffle.broker.statistics.book import Book, OfVhost
from fluffle.broker.statistics.counts import OF_BYTES, Counts

if TYPE_CHECKING:
    from fluffle.broker.server.connection import Connection


class CountedTransport:
    """Writes, and counts.  Everything else is asked of the transport."""

    __slots__ = ("_counted", "_transport", "_write")

    def __init__(self, transport: asyncio.Transport, counted: CountedConnection) -> None:
        self._transport = transport
        self._write = transport.write
        self._counted = counted

    def write(self, data: bytes) -> None:
        counted = self._counted
        counted.sent_bytes += len(data)
        counted.sent += 1
        self._write(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        pieces = list(pieces)
        counted = self._counted
        counted.sent_bytes += sum(map(len, pieces))
        counted.sent += 1
        self._transport.writelines(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CountedConnection(asyncio.Protocol):
    """A connection as the event loop sees it."""

    __slots__ = (
        "_book", "_connection", "_ended", "_transport", "counts", "of_vhost",
        "received", "received_bytes", "sent", "sent_bytes",
    )  # fmt: skip

    def __init__(
        self, book: Book, connection: Connection, ended: Callable[[Connection], object]
    ) -> None:
        self._book = book
        self._connection = connection
        self._ended = ended
        self._transport: asyncio.Transport
        self.received_bytes = self.received = self.sent_bytes = self.sent = 0
        """Bytes, and how often there were some."""
        self.counts = Counts(OF_BYTES)
        """As they were entered last."""
        self.of_vhost: OfVhost | None = None
        """Where they are entered, once it has opened a virtual host and until it ends."""

    @property
    def pending_bytes(self) -> int:
        """What the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    def enter(self) -> None:
        """Add what is new."""
        received_bytes, sent_bytes = self.counts.values
        new = self.received_bytes - received_bytes, self.sent_bytes - sent_bytes
        if new != (0, 0):
            of_vhost = (self.of_vhost.bytes,) if self.of_vhost is not None else ()
            self._book.enter(0, new, (self.counts, *of_vhost))

    def opened(self, of_vhost: OfVhost) -> None:
        """What has come and gone so far counts there, too."""
        self.enter()
        self.of_vhost = of_vhost
        self._book.enter(0, self.counts.values, (of_vhost.bytes,))

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        counted = CountedTransport(self._transport, self)
        self._connection.connection_made(cast(asyncio.BaseTransport, counted))

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self.received += 1
        self._connection.data_received(data)

    def eof_received(self) -> bool | None:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
        self._ended(self._connection)
