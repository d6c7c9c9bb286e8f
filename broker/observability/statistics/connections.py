"""What goes over the socket of one client, which its connection counts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.observability.statistics.counters import Book, OfVhost
from fluffle.broker.observability.statistics.counts import OF_BYTES, Counts

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.connection import Connection


class OnConnection:
    """Of a connection that has opened a virtual host."""

    __slots__ = ("_book", "_connection", "counts", "of_vhost")

    def __init__(self, book: Book, connection: Connection, of_vhost: OfVhost) -> None:
        self._book = book
        self._connection = connection
        self.of_vhost = of_vhost
        self.counts = Counts(OF_BYTES)
        """What is entered."""

    def enter(self) -> None:
        """Add what is new."""
        counted = zip(bytes_of(self._connection), self.counts.values, strict=True)
        new = [now - before for now, before in counted]
        if any(new):
            self._book.enter(0, new, (self.counts, self.of_vhost.bytes))


def bytes_of(connection: Connection) -> tuple[int, int]:
    """As `OF_BYTES`."""
    return connection.read_bytes, connection.outlet.written_bytes
