"""Tables of what clients have done, object by object, by RabbitMQ's families: see
`broker.statistics`.

Together it is what the node has counted since it started, and not the sum of what is there still,
so that no counter goes down when a channel is closed or a queue is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fluffle.broker.core.client import channel_name
from fluffle.broker.core.services import Services
from fluffle.broker.observability.metrics.tables import (
    COUNTER,
    Column,
    Kind,
    Reading,
    Table,
    text_of,
)
from fluffle.broker.observability.statistics.counts import PUBLISHED
from fluffle.broker.observability.statistics.observer import bytes_of
from fluffle.broker.observability.statistics.statistics import Statistics

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, ClientConnection
    from fluffle.broker.observability.statistics.channel_statistics import ChannelStatistics
    from fluffle.broker.observability.statistics.counters import NodeCounters

PUBLISHES = (
    ("messages_published", "Total number of messages published into an exchange"),
    ("messages_confirmed", "Total number of messages published into an exchange and confirmed"),
    (
        "messages_unroutable_returned",
        "Total number of messages published as mandatory into an exchange and returned to the "
        "publisher as unroutable",
    ),
    (
        "messages_unroutable_dropped",
        "Total number of messages published as non-mandatory into an exchange and dropped as "
        "unroutable",
    ),
)
"""In the order of `PUBLISHED`."""

DELIVERIES = (
    (
        "messages_delivered_ack",
        "Total number of messages delivered to consumers in manual acknowledgement mode",
    ),
    (
        "messages_delivered",
        "Total number of messages delivered to consumers in automatic acknowledgement mode",
    ),
    (
        "get_ack",
        "Total number of messages fetched with basic.get in manual acknowledgement mode",
    ),
    ("get", "Total number of messages fetched with basic.get in automatic acknowledgement mode"),
    ("get_empty", "Total number of times basic.get operations fetched no message"),
    ("messages_redelivered", "Total number of messages redelivered to consumers"),
    ("messages_acked", "Total number of messages acknowledged by consumers"),
)
"""In the order of `DELIVERED`, which ends with the sum of some."""


def columns_of(
    owner: str, family: str, names: Sequence[tuple[str, str]], kind: Kind = COUNTER
) -> tuple[Column, ...]:
    return tuple(Column(f"{owner}_{name}", text, family, kind) for name, text in names)


CHANNEL_EXCHANGES = columns_of("channel", "channel_exchange_metrics", PUBLISHES)
CHANNEL_QUEUES = columns_of("channel", "channel_queue_metrics", DELIVERIES)
EXCHANGES = columns_of("exchange", "exchange_metrics", PUBLISHES[:1])
QUEUES = (
    Column(
        "queue_messages_published",
        "Total number of messages published into a queue",
        "queue_delivery_metrics channel_queue_exchange_metrics",
        COUNTER,
    ),
    *columns_of("queue", "queue_delivery_metrics", DELIVERIES),
)
CONNECTION_BYTES = columns_of(
    "connection",
    "connection_coarse_metrics",
    (
        ("incoming_bytes", "Total number of bytes received on a connection"),
        ("outgoing_bytes", "Total number of bytes sent on a connection"),
    ),
)
CONNECTION_PACKETS = (
    *columns_of(
        "connection",
        "connection_metrics",
        (
            ("incoming_packets", "Total number of packets received on a connection"),
            ("outgoing_packets", "Total number of packets sent on a connection"),
        ),
    ),
    Column(
        "connection_pending_packets",
        "Number of bytes waiting to be sent on a connection",
        "connection_metrics",
    ),
)


class CountedTables:
    """Tables made of the statistics of one node."""

    __slots__ = ("_services", "_statistics")

    def __init__(self, services: Services, statistics: Statistics) -> None:
        self._services = services
        self._statistics = statistics

    @property
    def all(self) -> tuple[Table, ...]:
        return (
            Table(CHANNEL_EXCHANGES, self._channel_exchanges, self._published),
            Table(CHANNEL_QUEUES, self._channel_queues, self._delivered),
            Table(EXCHANGES, self._exchanges, lambda: self._published()[:1]),
            Table(
                QUEUES,
                self._queues,
                lambda: (self._services.runtime.traffic.routed, *self._delivered()),
            ),
            Table(CONNECTION_BYTES + CONNECTION_PACKETS, self._connections),
        )

    @property
    def _counters(self) -> NodeCounters:
        """With all that has happened until now."""
        self._statistics.counters.enter_all()
        return self._statistics.counters

    def _published(self) -> tuple[int, ...]:
        return tuple(self._counters.node.values[: len(PUBLISHED)])

    def _delivered(self) -> tuple[int, ...]:
        return tuple(self._counters.node.values[len(PUBLISHED) : -1])

    def _channel_exchanges(self) -> Iterator[Reading | None]:
        """What a channel has published anything to."""
        for connection, channel, counted in self._channels():
            yield None
            for exchange, published in tuple(counted.published.items()):
                yield Reading(
                    {
                        "channel": text_of(channel_name(connection, channel)),
                        "vhost": text_of(channel.session.vhost.name),
                        "exchange": text_of(exchange),
                    },
                    tuple(published.counts.values),
                )

    def _channel_queues(self) -> Iterator[Reading | None]:
        """What a channel has got anything from."""
        for connection, channel, counted in self._channels():
            yield None
            for queue, taken in tuple(counted.taken.items()):
                yield Reading(
                    {
                        "channel": text_of(channel_name(connection, channel)),
                        "vhost": text_of(channel.session.vhost.name),
                        "queue": text_of(queue.name),
                    },
                    tuple(taken.counts.values[: len(DELIVERIES)]),
                )

    def _exchanges(self) -> Iterator[Reading | None]:
        """Those that are there and were used."""
        for vhost, of_vhost in tuple(self._counters.vhosts.items()):
            for exchange, counts in tuple(of_vhost.exchanges.items()):
                name = exchange.spec.name
                labels = {"vhost": text_of(vhost.name), "exchange": text_of(name)}
                is_there = of_vhost.has(exchange)
                yield Reading(labels, tuple(counts.values[:1])) if is_there else None

    def _queues(self) -> Iterator[Reading | None]:
        """The same; each node tells what its own clients have done."""
        for vhost, of_vhost in tuple(self._counters.vhosts.items()):
            for queue, counts in tuple(of_vhost.queues.items()):
                labels = {"vhost": text_of(vhost.name), "queue": text_of(queue.name)}
                yield Reading(labels, tuple(counts.values[:-1])) if vhost.has(queue) else None

    def _connections(self) -> Iterator[Reading]:
        for connection in self._services.connections:
            yield Reading(
                {"channel": text_of(connection.name)},
                (
                    *bytes_of(connection),
                    connection.reads,
                    connection.output.writes,
                    connection.unwritten_bytes,
                ),
            )

    def _channels(self) -> Iterator[tuple[ClientConnection, ClientChannel, ChannelStatistics]]:
        self._statistics.counters.enter_all()
        channels = self._statistics.observer.channels
        for connection in self._services.connections:
            for channel in tuple(connection.channels):
                if (counted := channels.get(channel)) is not None:
                    yield connection, channel, counted
