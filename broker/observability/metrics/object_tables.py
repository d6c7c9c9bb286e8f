"""Tables of queues, connections, channels, exchanges and vhosts, by RabbitMQ's families.

Channels and connections are called by their names, in the label `channel` that RabbitMQ has for
both.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan

from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.core.client import ClientChannel, channel_name
from fluffle.broker.core.services import Services
from fluffle.broker.observability.metrics.tables import Column, Reading, Table, text_of
from fluffle.broker.observability.statistics.volumes import (
    NAMES,
    NOTHING,
    Held,
    led_here,
    note_held,
    volume_row,
)
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.queue_view import head_timestamp
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE
from fluffle.broker.vhosts.vhost import VirtualHost

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

    __slots__ = ("_company", "_services")

    def __init__(self, services: Services, company: ClusterView) -> None:
        self._services = services
        self._company = company

    @property
    def all(self) -> tuple[Table, ...]:
        """Of what lives on this node."""
        return (
            Table(QUEUES, self._queues),
            Table(VOLUMES, self._volumes),
            Table(HEADS, self._heads, nothing_together),
            Table(CONNECTIONS, self._connections),
            Table(CHANNELS, self._channels),
        )

    @property
    def cluster_wide(self) -> tuple[Table, ...]:
        """Every node of a cluster tells the same of these."""
        return Table(VHOSTS, self._vhosts), Table(EXCHANGES, self._exchanges)

    def queues_here(self) -> Iterator[tuple[VirtualHost, QueueHandle]]:
        """All that there are; others come and go in between."""
        for vhost in tuple(self._services.vhosts.values()):
            for queue in tuple(vhost.queues.values()):
                yield vhost, queue

    def _queues(self) -> Iterator[Reading | None]:
        for vhost, queue in self.queues_here():
            if (queue_counts := queue.local_counts) is None:
                yield None  # the node that leads it tells of it
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
            row = volume_row(self._company, queue, runs)
            if row is None:
                yield None
                continue
            labels = {"vhost": text_of(vhost.name), "queue": text_of(queue.name)}
            yield Reading(labels, tuple(row[name] for name in NAMES))

    def _heads(self) -> Iterator[Reading | None]:
        """The heads of classic queues, as with RabbitMQ."""
        for vhost, queue in self.queues_here():
            led = led_here(self._company, queue)
            if led is None or queue.spec.queue_type is not QueueType.CLASSIC:
                yield None
                continue
            timestamp = head_timestamp(led.shelf)
            labels = {"vhost": text_of(vhost.name), "queue": text_of(queue.name)}
            yield Reading(labels, (nan if timestamp is None else timestamp,))

    def _connections(self) -> Iterator[Reading]:
        for connection in self._services.connections:
            channels = sum(1 for _ in connection.channels)
            yield Reading({"channel": text_of(connection.name)}, (channels,))

    def _channels(self) -> Iterator[Reading | None]:
        for connection in self._services.connections:
            yield None
            for channel in tuple(connection.channels):
                name = text_of(channel_name(connection, channel))
                yield Reading({"channel": name}, channel_values(channel))

    def _vhosts(self) -> Iterator[Reading]:
        for name in tuple(self._services.vhosts):
            yield Reading({"vhost": text_of(name)}, (1,))

    def _exchanges(self) -> Iterator[Reading]:
        """Those that are not internal, nor the default one."""
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
