"""Observer of connections and channels that has what they do counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.observability.statistics.channel_statistics import ChannelStatistics
from fluffle.broker.observability.statistics.counters import NodeCounters, VhostCounters
from fluffle.broker.observability.statistics.counts import OF_BYTES, Counts
from fluffle.protocol.types import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.base.errors import BrokerError
    from fluffle.broker.core.client import Client, ObservedChannel
    from fluffle.broker.core.session import Session
    from fluffle.broker.queues.queue_api import Consumer


class ConnectionStatistics:
    """Counts of a connection that has opened a virtual host."""

    __slots__ = ("_connection", "_counters", "counts", "vhost_counters")

    def __init__(
        self, counters: NodeCounters, connection: Client, vhost_counters: VhostCounters
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


def bytes_of(connection: Client) -> tuple[int, int]:
    """As `OF_BYTES`."""
    return connection.read_bytes, connection.written_bytes


class StatisticsObserver:
    """Observer of the clients of one node: an `Observer`."""

    __slots__ = ("_connections", "_counters", "channels", "connections")

    def __init__(self, counters: NodeCounters) -> None:
        self._counters = counters
        self.connections: dict[Client, ConnectionStatistics] = {}
        """Those that have opened a virtual host."""
        self._connections: dict[Session, Client] = {}
        self.channels: dict[ObservedChannel, ChannelStatistics] = {}
        """Those that are open."""

    def metadata(self, inner: Metadata, by: ChangedBy) -> Metadata:
        """Definitions are counted where they change."""
        del by
        return inner

    def logged_in(self, connection: Client, mechanism: str, name: str) -> None:
        """`Traffic` counts it."""

    def refused(self, connection: Client, mechanism: str, name: str, reason: str) -> None:
        """`Traffic` counts it."""

    def opened(self, connection: Client, session: Session) -> None:
        self._connections[session] = connection
        vhost_counters = self._counters.of(session.vhost)
        self.connections[connection] = ConnectionStatistics(
            self._counters, connection, vhost_counters
        )

    def closed(self, session: Session) -> None:
        self.connections.pop(self._connections.pop(session)).enter()

    def connection_of(self, channel: ObservedChannel) -> Client:
        """That of an open one."""
        return self._connections[channel.session]

    def channel_opened(self, channel: ObservedChannel) -> ChannelStatistics:
        statistics = self.channels[channel] = ChannelStatistics(self._counters, channel)
        return statistics

    def channel_refused(self, channel: ObservedChannel, error: BrokerError) -> None:
        """It will be closed."""

    def channel_closed(self, channel: ObservedChannel, consumer_count: int) -> None:
        self.channels.pop(channel).end()

    def consumer_started(
        self, channel: ObservedChannel, consumer: Consumer, arguments: FieldTable
    ) -> None:
        """What it gets is counted on its channel."""

    def consumer_ended(self, channel: ObservedChannel, consumer: Consumer) -> None:
        """Nothing is kept of it."""
