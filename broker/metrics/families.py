"""Tables of metrics by RabbitMQ's families: of the node, of its objects, of what clients have done.

Channels and connections are called by their names, in the label `channel` that RabbitMQ has for
both.  Counts together are what the node has counted since it started, and not the sum of what is
there still, so that no counter goes down when a channel is closed or a queue is deleted.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import nan
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from fluffle.broker.base.clock import Clock
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.core.client import ClientChannel, channel_name, listed_channels
from fluffle.broker.core.services import Services
from fluffle.broker.metrics.tables import (
    COUNTER,
    Column,
    Kind,
    MetricTable,
    Reading,
    text_of,
)
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.queue_view import head_timestamp
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE
from fluffle.broker.statistics.counters import PUBLISHED
from fluffle.broker.statistics.observer import bytes_of
from fluffle.broker.statistics.statistics import Statistics
from fluffle.broker.statistics.volumes import (
    NAMES,
    NOTHING,
    Held,
    local_part_of,
    note_held,
    volume_row,
)
from fluffle.broker.vhosts.vhost import VirtualHost

if TYPE_CHECKING:
    from fluffle.broker.core.client import ClientChannel, ClientConnection
    from fluffle.broker.statistics.counters import NodeCounters
    from fluffle.broker.statistics.observer import ChannelStatistics


OPEN_FILES = Path("/proc/self/fd")


def columns_of(
    family: str, *columns: tuple[str, str] | tuple[str, str, Kind]
) -> tuple[Column, ...]:
    """Name, help, and the kind if it is no gauge."""
    return tuple(Column(name, text, family, *kind) for name, text, *kind in columns)


CHURN = columns_of(
    "connection_churn_metrics",
    ("connections_opened", "Total number of connections opened", COUNTER),
    ("connections_closed", "Total number of connections closed", COUNTER),
    ("channels_opened", "Total number of channels opened", COUNTER),
    ("channels_closed", "Total number of channels closed", COUNTER),
    ("queues_declared", "Total number of queues declared", COUNTER),
    ("queues_created", "Total number of queues created", COUNTER),
    ("queues_deleted", "Total number of queues deleted", COUNTER),
)
LOGINS = columns_of(
    "auth_attempt_metrics",
    ("auth_attempts", "Total number of authentication attempts", COUNTER),
    ("auth_attempts_succeeded", "Total number of successful authentication attempts", COUNTER),
    ("auth_attempts_failed", "Total number of failed authentication attempts", COUNTER),
)
USE = columns_of(
    "node_coarse_metrics",
    ("process_open_fds", "Open file descriptors"),
    ("process_resident_memory_bytes", "Memory used in bytes"),
    ("disk_space_available_bytes", "Disk space available in bytes"),
)
LIMITS = columns_of(
    "node_metrics",
    ("process_max_fds", "Open file descriptors limit"),
    ("resident_memory_limit_bytes", "Memory high watermark in bytes"),
    ("disk_space_available_limit_bytes", "Free disk space low watermark in bytes"),
    ("erlang_uptime_seconds", "Node uptime"),
)
DISK = columns_of(
    "node_persister_metrics",
    ("io_sync_ops", "Total number of I/O sync operations", COUNTER),
    ("io_sync_time_seconds", "Total I/O sync time", COUNTER),
    ("io_write_bytes", "Total number of I/O bytes written", COUNTER),
)
"""Each commit is one wait for the disk, so RabbitMQ's names for those tell of them."""


class NodeTables:
    """Tables about one node as a whole."""

    def __init__(self, services: Services, clock: Clock) -> None:
        self._services = services
        self._clock = clock
        self._started_ms = clock.now_ms()

    @property
    def all(self) -> tuple[MetricTable, ...]:
        return (
            one_row(CHURN, self._churn),
            MetricTable(LOGINS, self._logins),
            one_row(USE, self._use),
            one_row(LIMITS, self._limits),
            one_row(DISK, self._disk),
        )

    def _churn(self) -> tuple[int, ...]:
        traffic = self._services.runtime.traffic
        declared = [vhost.counts for vhost in self._services.vhosts.values()]
        return (
            traffic.connections_opened,
            traffic.connections_closed,
            traffic.channels_opened,
            traffic.channels_closed,
            *(sum(map(attrgetter(what), declared)) for what in ("declared", "created", "deleted")),
        )

    def _logins(self) -> Iterator[Reading]:
        for protocol, logins in self._services.runtime.traffic.logins.items():
            values = logins.attempted, logins.succeeded, logins.failed
            yield Reading({"protocol": protocol}, values)

    def _use(self) -> tuple[float | None, ...]:
        measures = self._services.runtime.measures
        return open_files(), measures.resident_bytes(), measures.free_bytes()

    def _limits(self) -> tuple[float | None, ...]:
        files_max, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        marks, uptime_ms = self._services.alarms.watermarks, self._clock.now_ms() - self._started_ms
        return files_max, marks.memory_bytes_max, marks.disk_free_bytes_min, uptime_ms / 1_000

    def _disk(self) -> tuple[float, ...]:
        done = self._services.runtime.commits.done
        return done.commits, done.seconds, done.written_bytes


def one_row(
    columns: tuple[Column, ...], read: Callable[[], tuple[float | None, ...]], **labels: str
) -> MetricTable:
    return MetricTable(columns, partial(row_of, read, labels))


def row_of(
    read: Callable[[], tuple[float | None, ...]], labels: dict[str, str]
) -> Iterator[Reading]:
    yield Reading(labels, read())


def open_files() -> int | None:
    """Number of open files; None where the system does not say.  Linux does from 6.2 on without
    listing them."""
    if not OPEN_FILES.exists():
        return None
    return OPEN_FILES.stat().st_size or sum(1 for _ in OPEN_FILES.iterdir())


COARSE, CHANNEL = "queue_coarse_metrics", "channel_metrics"

QUEUES = (
    Column("queue_messages_ready", "Messages ready to be delivered to consumers", COARSE),
    Column(
        "queue_messages_unacked",
        "Messages delivered to consumers but not yet acknowledged",
        COARSE,
    ),
    Column(
        "queue_messages", "Sum of ready and unacknowledged messages - total queue depth", COARSE
    ),
    Column("queue_consumers", "Consumers on a queue", "queue_metrics queue_consumer_count"),
)
METRICS = "queue_metrics"
VOLUMES = (
    Column("queue_messages_bytes", "Size in bytes of ready and unacknowledged messages", METRICS),
    Column("queue_messages_ready_bytes", "Size in bytes of ready messages", METRICS),
    Column("queue_messages_unacked_bytes", "Size in bytes of all unacknowledged messages", METRICS),
    Column(
        "queue_messages_ram_bytes",
        "Size of ready and unacknowledged messages stored in memory",
        METRICS,
    ),
    Column("queue_messages_persistent_bytes", "Size in bytes of persistent messages", METRICS),
    Column("queue_messages_ram", "Ready and unacknowledged messages stored in memory", METRICS),
    Column("queue_messages_ready_ram", "Ready messages stored in memory", METRICS),
    Column("queue_messages_unacked_ram", "Unacknowledged messages stored in memory", METRICS),
    Column("queue_messages_persistent", "Persistent messages", METRICS),
    Column("queue_messages_paged_out", "Messages paged out to disk", METRICS),
    Column(
        "queue_messages_paged_out_bytes", "Size in bytes of messages paged out to disk", METRICS
    ),
    Column("queue_process_memory_bytes", "Memory in bytes that a queue takes, about", METRICS),
)
"""In the order of `volumes.NAMES`."""
HEADS = (
    Column(
        "queue_head_message_timestamp",
        "Timestamp of the first message in the queue, if any",
        METRICS,
    ),
)
CONNECTIONS = (Column("connection_channels", "Channels on a connection", "connection_metrics"),)
CHANNELS = (
    Column("channel_consumers", "Consumers on a channel", CHANNEL),
    Column("channel_messages_unacked", "Delivered but not yet acknowledged messages", CHANNEL),
    Column("channel_messages_unconfirmed", "Published but not yet confirmed messages", CHANNEL),
    Column(
        "channel_messages_uncommitted",
        "Messages received in a transaction but not yet committed",
        CHANNEL,
    ),
    Column(
        "channel_acks_uncommitted",
        "Message acknowledgements in a transaction not yet committed",
        CHANNEL,
    ),
    Column("consumer_prefetch", "Limit of unacknowledged messages for each consumer", CHANNEL),
    Column("channel_prefetch", "Limit of unacknowledged messages for a channel", CHANNEL),
)
VHOSTS = (Column("vhost_status", "Whether a given vhost is running", "vhost_status"),)
EXCHANGES = (
    Column(
        "exchange_bindings",
        "Number of bindings for an exchange. This value is cluster-wide.",
        "exchange_bindings",
    ),
    Column(
        "exchange_name",
        "Enumerates exchanges without any additional info. This value is cluster-wide. "
        "A cheaper alternative to `exchange_bindings`",
        "exchange_names",
    ),
)


class ObjectTables:
    """Tables of the objects of one node."""

    def __init__(self, services: Services, cluster_view: ClusterView) -> None:
        self._services = services
        self._cluster_view = cluster_view

    @property
    def all(self) -> tuple[MetricTable, ...]:
        """Tables of all objects on this node."""
        return (
            MetricTable(QUEUES, self._queues),
            MetricTable(VOLUMES, self._volumes),
            MetricTable(HEADS, self._heads, nothing_together),
            MetricTable(CONNECTIONS, self._connections),
            MetricTable(CHANNELS, self._channels),
        )

    @property
    def cluster_wide(self) -> tuple[MetricTable, ...]:
        """Tables that are the same on every node of a cluster."""
        return MetricTable(VHOSTS, self._vhosts), MetricTable(EXCHANGES, self._exchanges)

    def queues_here(self) -> Iterator[tuple[VirtualHost, QueueHandle]]:
        """All that there are; others come and go in between."""
        for vhost in tuple(self._services.vhosts.values()):
            for queue in tuple(vhost.queues.values()):
                yield vhost, queue

    def _queues(self) -> Iterator[Reading | None]:
        for vhost, queue in self.queues_here():
            if (queue_counts := queue.local_counts) is None:
                yield None  # the node that leads it reports it
                continue
            ready, unacked, consumers, apart = queue_counts
            labels = {"vhost": text_of(vhost.name), "queue": text_of(queue.name)}
            yield Reading(labels, (ready, unacked, ready + unacked + apart, consumers))

    def _volumes(self) -> Iterator[Reading | None]:
        """The volumes of what is led here, and of what clients of this node have in hands: with
        those of the other nodes it is all."""
        held: Held = {}
        for connection in self._services.connections:
            note_held(connection, held)
            yield None
        for vhost, queue in self.queues_here():
            runs = held.get((vhost.name, queue.name), NOTHING)
            row = volume_row(self._cluster_view, queue, runs)
            if row is None:
                yield None
                continue
            labels = {"vhost": text_of(vhost.name), "queue": text_of(queue.name)}
            yield Reading(labels, tuple(row[name] for name in NAMES))

    def _heads(self) -> Iterator[Reading | None]:
        """The heads of classic queues, as with RabbitMQ."""
        for vhost, queue in self.queues_here():
            led = local_part_of(self._cluster_view, queue)
            if led is None or queue.spec.queue_type is not QueueType.CLASSIC:
                yield None
                continue
            timestamp = head_timestamp(led.ready_view)
            labels = {"vhost": text_of(vhost.name), "queue": text_of(queue.name)}
            yield Reading(labels, (nan if timestamp is None else timestamp,))

    def _connections(self) -> Iterator[Reading]:
        for connection in self._services.connections:
            channels = sum(1 for _ in listed_channels(connection))
            yield Reading({"channel": text_of(connection.name)}, (channels,))

    def _channels(self) -> Iterator[Reading | None]:
        for connection in self._services.connections:
            yield None
            for channel in listed_channels(connection):
                name = text_of(channel_name(connection, channel))
                yield Reading({"channel": name}, channel_values(channel))

    def _vhosts(self) -> Iterator[Reading]:
        for name in tuple(self._services.vhosts):
            yield Reading({"vhost": text_of(name)}, (1,))

    def _exchanges(self) -> Iterator[Reading]:
        """Readings of exchanges, without internal ones and the default one."""
        for vhost in tuple(self._services.vhosts.values()):
            for exchange in tuple(vhost.topology):
                spec = exchange.spec
                if spec.internal or spec.name == DEFAULT_EXCHANGE:
                    continue
                labels = {"vhost": vhost.name, "exchange": spec.name, "type": spec.type}
                labels = {label: text_of(name) for label, name in labels.items()}
                yield Reading(labels, (len(exchange.matcher), 1))


def nothing_together() -> tuple[float, ...]:
    """Moments do not add up."""
    return ()


def channel_values(channel: ClientChannel) -> tuple[int, ...]:
    """In the order of `CHANNELS`."""
    transaction, confirms = channel.transaction, channel.confirms
    published = transaction.message_count if transaction is not None else 0
    settled = transaction.settled_count if transaction is not None else 0
    return (
        len(channel.subscriptions),
        len(channel.unacked),
        confirms.open_count if confirms is not None else 0,
        published,
        settled,
        channel.prefetch,
        channel.shared_credit.limit,
    )


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


def counted_columns(
    owner: str, family: str, names: Sequence[tuple[str, str]], kind: Kind = COUNTER
) -> tuple[Column, ...]:
    return tuple(Column(f"{owner}_{name}", text, family, kind) for name, text in names)


CHANNEL_EXCHANGES = counted_columns("channel", "channel_exchange_metrics", PUBLISHES)
CHANNEL_QUEUES = counted_columns("channel", "channel_queue_metrics", DELIVERIES)
COUNTED_EXCHANGES = counted_columns("exchange", "exchange_metrics", PUBLISHES[:1])
COUNTED_QUEUES = (
    Column(
        "queue_messages_published",
        "Total number of messages published into a queue",
        "queue_delivery_metrics channel_queue_exchange_metrics",
        COUNTER,
    ),
    *counted_columns("queue", "queue_delivery_metrics", DELIVERIES),
)
CONNECTION_BYTES = counted_columns(
    "connection",
    "connection_coarse_metrics",
    (
        ("incoming_bytes", "Total number of bytes received on a connection"),
        ("outgoing_bytes", "Total number of bytes sent on a connection"),
    ),
)
CONNECTION_PACKETS = (
    *counted_columns(
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

    def __init__(self, services: Services, statistics: Statistics) -> None:
        self._services = services
        self._statistics = statistics

    @property
    def all(self) -> tuple[MetricTable, ...]:
        return (
            MetricTable(CHANNEL_EXCHANGES, self._channel_exchanges, self._published),
            MetricTable(CHANNEL_QUEUES, self._channel_queues, self._delivered),
            MetricTable(COUNTED_EXCHANGES, self._exchanges, lambda: self._published()[:1]),
            MetricTable(
                COUNTED_QUEUES,
                self._queues,
                lambda: (self._services.runtime.traffic.routed, *self._delivered()),
            ),
            MetricTable(CONNECTION_BYTES + CONNECTION_PACKETS, self._connections),
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
        """Readings of the exchanges that each channel has published to."""
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
        """Readings of the queues that each channel was delivered from."""
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
        """Readings of existing exchanges that were used."""
        for vhost, of_vhost in tuple(self._counters.vhosts.items()):
            for exchange, counts in tuple(of_vhost.exchanges.items()):
                name = exchange.spec.name
                labels = {"vhost": text_of(vhost.name), "exchange": text_of(name)}
                is_there = of_vhost.has(exchange)
                yield Reading(labels, tuple(counts.values[:1])) if is_there else None

    def _queues(self) -> Iterator[Reading | None]:
        """Readings of queues; each node counts what its own clients have done."""
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
            for channel in listed_channels(connection):
                if (counted := channels.get(channel)) is not None:
                    yield connection, channel, counted
