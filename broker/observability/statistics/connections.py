"""What goes over the socket of one client, which its connection counts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.observability.statistics.counters import NodeCounters, VhostCounters
from fluffle.broker.observability.statistics.counts import OF_BYTES, Counts

if TYPE_CHECKING:
    from fluffle.broker.protocols.amqp091.connection import Connection


class ConnectionStatistics:
    """Of a connection that has opened a virtual host."""

    __slots__ = ("_connection", "_counters", "counts", "vhost_counters")

    def __init__(
        self, counters: NodeCounters, connection: Connection, vhost_counters: VhostCounters
    ) -> None:
        self._counters = counters
        self._connection = connection
        self.vhost_counters = vhost_counters
        self.counts = Counts(OF_BYTES)
        """What is entered."""

    def enter(self) -> None:
        """Add what is new."""
        counted = zip(bytes_of(self._connection), self.counts.values, strict=True)
        new = [now - before for now, before in counted]
        if any(new):
            self._counters.enter(0, new, (self.counts, self.vhost_counters.bytes))


def bytes_of(connection: Connection) -> tuple[int, int]:
    """As `OF_BYTES`."""
    return connection.read_bytes, connection.output.written_bytes
