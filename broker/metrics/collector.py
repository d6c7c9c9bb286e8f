"""What Prometheus is told: everything is read when it asks, nothing is kept for it.

Names, labels and meanings are those of RabbitMQ's `rabbitmq_prometheus`, so that its dashboards and
alerts work; what has no counterpart here (Erlang's processes, its message store) is left out.
"""

from __future__ import annotations

import hashlib
import resource
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.chores import in_pieces
from fluffle.broker.clock import Clock
from fluffle.broker.company import Neighbours
from fluffle.broker.config import Config
from fluffle.broker.disk import free_bytes
from fluffle.broker.memory import resident_bytes
from fluffle.broker.metrics.deaths import deaths_of
from fluffle.broker.metrics.families import PIECE, Step, counter, gauge, labelled, text_of
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.server.services import Services
from fluffle.broker.traffic import Deliveries, Dropped
from fluffle.broker.vhost import VirtualHost

PROTOCOL = "amqp091"
OPEN_FILES = Path("/proc/self/fd")

DELIVERIES = (
    ("delivered", "Total number of messages delivered to consumers", "delivered"),
    (
        "delivered_consume_manual_ack",
        "Total number of messages delivered to consumers using basic.consume with manual "
        "acknowledgment",
        "consumed_manual_ack",
    ),
    (
        "delivered_consume_auto_ack",
        "Total number of messages delivered to consumers using basic.consume with automatic "
        "acknowledgment",
        "consumed_auto_ack",
    ),
    (
        "delivered_get_manual_ack",
        "Total number of messages delivered to consumers using basic.get with manual "
        "acknowledgment",
        "got_manual_ack",
    ),
    (
        "delivered_get_auto_ack",
        "Total number of messages delivered to consumers using basic.get with automatic "
        "acknowledgment",
        "got_auto_ack",
    ),
    (
        "get_empty",
        "Total number of times basic.get operations fetched no message",
        "get_empty",
    ),
    ("redelivered", "Total number of messages redelivered to consumers", "redelivered"),
    ("acknowledged", "Total number of messages acknowledged by consumers", "acknowledged"),
)
"""The end of the name, the help, and the attribute of `Deliveries`."""

QUEUE_GAUGES = (
    ("messages_ready", "Messages ready to be delivered to consumers"),
    ("messages_unacked", "Messages delivered to consumers but not yet acknowledged"),
    ("messages", "Sum of ready and unacknowledged messages - total queue depth"),
    ("consumers", "Consumers on a queue"),
)
"""The end of the name, and the help, in the order of `QueueReading.values`."""


class QueueReading(NamedTuple):
    """What a queue was at one moment."""

    vhost: str
    queue: str
    values: tuple[int, int, int, int]
    is_crashed: bool


class NodeCollector:
    """Reads a node.  `per_object` tells of each queue instead of their sum.

    It is done in steps, between which the node goes on: none is longer where there are more queues
    or connections.  Counters never go down by that.
    """

    __slots__ = ("_clock", "_company", "_config", "_per_object", "_services", "_started_ms")

    def __init__(
        self,
        services: Services,
        config: Config,
        clock: Clock,
        company: Neighbours,
        *,
        per_object: bool = False,
    ) -> None:
        self._services = services
        self._config = config
        self._clock = clock
        self._company = company
        self._started_ms = clock.now_ms()
        self._per_object = per_object

    def steps(self) -> Iterator[Step]:
        """All metrics, a few or none at a time; a family of many samples comes in several parts."""
        yield list(self._identity())
        yield list(self._churn())
        yield from self._queues()
        yield from self._messages()
        yield list(self._deliveries())
        yield list(self._resources())
        yield list(self._durability())
        yield from self._connections()
        yield from self._replication()

    def _replication(self) -> Iterator[Step]:
        """Nothing of what a node does not have."""
        company = self._company
        if not (company.cluster or company.groups):
            return
        from fluffle.broker.metrics.cluster import (  # noqa: PLC0415  for these alone
            clock_metrics,
            group_steps,
            links_metrics,
            room_metrics,
        )

        if company.cluster is not None:
            yield list(links_metrics(company.cluster.links))
            yield list(clock_metrics(company.cluster.common_time))
            yield list(room_metrics(company.cluster.room))
        vhosts = self._services.vhosts
        yield from group_steps(company, vhosts, per_object=self._per_object)

    def _identity(self) -> Iterator[Metric]:
        """Every dashboard of RabbitMQ joins on these two."""
        config = self._config
        cluster = config.cluster.name if config.cluster else config.node_name
        yield labelled(
            gauge("build_info", "Product that this node behaves like, and what it is"),
            rabbitmq_version=config.product_version,
            prometheus_plugin_version=config.product_version,
            prometheus_client_version="",
            erlang_version="",
            product_name=config.product,
            product_version=config.product_version,
            fluffle_version=config.version,
        )
        yield labelled(
            gauge("identity_info", "Node & cluster identity info"),
            rabbitmq_node=config.node_name,
            rabbitmq_cluster=cluster,
            rabbitmq_cluster_permanent_id=permanent_id(cluster),
            rabbitmq_endpoint="per-object" if self._per_object else "aggregated",
        )

    def _churn(self) -> Iterator[Metric]:
        traffic = self._services.traffic
        declared = [vhost.counts for vhost in self._services.vhosts.values()]
        opened, closed = traffic.connections_opened, traffic.connections_closed
        yield counter("connections_opened", "Total number of connections opened", opened)
        yield counter("connections_closed", "Total number of connections closed", closed)
        yield gauge("connections", "Connections currently open", opened - closed)
        opened, closed = traffic.channels_opened, traffic.channels_closed
        yield counter("channels_opened", "Total number of channels opened", opened)
        yield counter("channels_closed", "Total number of channels closed", closed)
        yield gauge("channels", "Channels currently open", opened - closed)
        for what in ("declared", "created", "deleted"):
            total = sum(map(attrgetter(what), declared))
            yield counter(f"queues_{what}", f"Total number of queues {what}", total)
        succeeded, failed = traffic.logins_succeeded, traffic.logins_failed
        for name, kind, value in (
            ("auth_attempts", "", succeeded + failed),
            ("auth_attempts_succeeded", "successful ", succeeded),
            ("auth_attempts_failed", "failed ", failed),
        ):
            family = counter(name, f"Total number of {kind}authentication attempts")
            yield labelled(family, value, protocol=PROTOCOL)

    def _queues(self) -> Iterator[Step]:
        readings: list[QueueReading] = []
        totals, crashed = [0] * len(QUEUE_GAUGES), 0
        for piece in in_pieces(read_queues(self._services.vhosts), PIECE):
            readings += piece
            columns = zip(*(reading.values for reading in piece), strict=True)
            totals = [total + sum(column) for total, column in zip(totals, columns, strict=True)]
            crashed += sum(reading.is_crashed for reading in piece)
            yield []
        _, _, _, consumers = totals
        family = gauge("global_consumers", "Current number of consumers")
        yield [
            gauge("queues", "Queues available", len(readings)),
            gauge("consumers", "Consumers currently connected", consumers),
            labelled(family, consumers, protocol=PROTOCOL),
            GaugeMetricFamily(
                "fluffle_queues_crashed",
                "Queues that hand out nothing, since what is next cannot be read",
                value=crashed,
            ),
        ]
        for column, (name, text) in enumerate(QUEUE_GAUGES):
            if not self._per_object:
                yield [labelled(gauge(f"queue_{name}", text), totals[column])]
                continue
            yield [gauge(f"queue_{name}", text)]
            for piece in in_pieces(readings, PIECE):
                family = gauge(f"queue_{name}", text)
                for vhost, queue, values, _ in piece:
                    labelled(family, values[column], vhost=vhost, queue=queue)
                yield [family]

    def _messages(self) -> Iterator[Step]:
        """Ledgers of channels that end meanwhile are counted once: as they were at the end."""
        traffic = self._services.traffic
        confirm, confirmed, open_count = traffic.received_confirm, traffic.confirmed, 0
        for piece in in_pieces(tuple(traffic.ledgers), PIECE):
            confirm += sum(ledger.assigned_count for ledger in piece)
            confirmed += sum(ledger.accepted_count for ledger in piece)
            open_count += sum(ledger.open_count for ledger in piece)
            yield []
        yield list(self._message_counters(confirm, confirmed))
        yield [
            gauge(
                "channel_messages_unconfirmed",
                "Published but not yet confirmed messages",
                open_count,
            )
        ]

    def _message_counters(self, confirm: int, confirmed: int) -> Iterator[Metric]:
        traffic = self._services.traffic
        for name, text, value in (
            ("received", "received from publishers", traffic.received),
            ("received_confirm", "received from publishers expecting confirmations", confirm),
            ("confirmed", "confirmed to publishers", confirmed),
            ("routed", "routed to queues", traffic.routed),
            (
                "unroutable_dropped",
                "published as non-mandatory into an exchange and dropped as unroutable",
                traffic.unroutable_dropped,
            ),
            (
                "unroutable_returned",
                "published as mandatory into an exchange and returned to the publisher as "
                "unroutable",
                traffic.unroutable_returned,
            ),
        ):
            family = counter(f"global_messages_{name}", f"Total number of messages {text}")
            yield labelled(family, value, protocol=PROTOCOL)
        dropped = CounterMetricFamily(
            "fluffle_dead_letters_dropped",
            "Messages that died and did not get into a queue where they should be",
        )
        for why in Dropped:
            labelled(dropped, traffic.deaths.dropped[why], reason=why)
        yield dropped
        yield from deaths_of(traffic.deaths)
        timed_out = CounterMetricFamily(
            "fluffle_messages_timed_out",
            "Messages that went back to their queue because a client held them for too long",
        )
        labelled(timed_out, traffic.from_queues.timed_out, queue_type="rabbit_classic_queue")
        quorum = traffic.from_quorum_queues.timed_out
        yield labelled(timed_out, quorum, queue_type="rabbit_quorum_queue")
        duplicates = CounterMetricFamily(
            "fluffle_messages_deduplicated",
            "Messages that a queue has dropped because it had had them before",
        )
        for kind in (QueueType.CLASSIC, QueueType.QUORUM):
            labelled(duplicates, traffic.duplicates[kind], queue_type=f"rabbit_{kind}_queue")
        yield duplicates

    def _deliveries(self) -> Iterator[Metric]:
        traffic = self._services.traffic
        by_type: tuple[tuple[str, Deliveries], ...] = (
            ("rabbit_classic_queue", traffic.from_queues),
            ("rabbit_quorum_queue", traffic.from_quorum_queues),
            ("rabbit_volatile_queue", traffic.replies),
        )
        for name, text, attribute in DELIVERIES:
            family = counter(f"global_messages_{name}", text)
            for queue_type, deliveries in by_type:
                value = getattr(deliveries, attribute)
                labelled(family, value, protocol=PROTOCOL, queue_type=queue_type)
            yield family

    def _resources(self) -> Iterator[Metric]:
        config, alarms = self._config, self._services.alarms
        uptime_s = (self._clock.now_ms() - self._started_ms) / 1000
        files_max, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for name, text, value in (
            ("process_open_fds", "Open file descriptors", open_files()),
            ("process_max_fds", "Open file descriptors limit", files_max),
            ("process_resident_memory_bytes", "Memory used in bytes", resident_bytes()),
            (
                "resident_memory_limit_bytes",
                "Memory high watermark in bytes",
                alarms.watermarks.memory_bytes_max,
            ),
            (
                "disk_space_available_bytes",
                "Disk space available in bytes",
                free_bytes(config.data_dir),
            ),
            (
                "disk_space_available_limit_bytes",
                "Free disk space low watermark in bytes",
                alarms.watermarks.disk_free_bytes_min,
            ),
            ("erlang_uptime_seconds", "Node uptime", uptime_s),
            (
                "alarms_memory_used_watermark",
                "is 1 if memory watermark alarm is in effect",
                alarms.is_raised("memory"),
            ),
            (
                "alarms_free_disk_space_watermark",
                "is 1 if free disk space watermark alarm is in effect",
                alarms.is_raised("disk"),
            ),
        ):
            if value is not None:
                yield gauge(name, text, value)

    def _durability(self) -> Iterator[Metric]:
        """Each commit is one wait for the disk, so RabbitMQ's names for those tell of them."""
        commits = self._services.commits
        done = commits.done
        yield counter("io_sync_ops", "Total number of I/O sync operations", done.commits)
        yield counter("io_sync_time_seconds", "Total I/O sync time", done.seconds)
        yield counter("io_write_bytes", "Total number of I/O bytes written", done.written_bytes)
        yield CounterMetricFamily(
            "fluffle_commit_changes",
            "Entries, deletions and definitions that commits have written; with the number of "
            "commits it says how large they are",
            value=done.changes,
        )
        yield GaugeMetricFamily(
            "fluffle_commit_waiting_bytes",
            "Messages that are to be written and not on disk yet",
            value=commits.unwritten_bytes,
        )
        yield GaugeMetricFamily(
            "fluffle_store_bytes", "What the store holds on disk", value=commits.store_bytes
        )

    def _connections(self) -> Iterator[Step]:
        """Who publishes; who is not read, and why, for which RabbitMQ has no name."""
        publishers = 0
        states: Counter[str] = Counter()
        if self._per_object:
            yield [blocked()]
        for piece in in_pieces(self._services.connections, PIECE):
            publishers += sum(connection.is_publisher for connection in piece)
            by_state = [(connection.state, connection.name) for connection in piece]
            states.update(state for state, _ in by_state)
            names = [name for state, name in by_state if state == "blocked"]
            yield [blocked(*names)] if self._per_object else []
        family = gauge("global_publishers", "Current number of connections that have published")
        yield [labelled(family, publishers, protocol=PROTOCOL)]
        family = GaugeMetricFamily(
            "fluffle_connections_by_state", "Connections, by what they do or wait for"
        )
        for state in {"running", "flow", "blocking", "blocked", *states}:
            labelled(family, states[state], state=state)
        yield [family]


def read_queues(vhosts: Mapping[str, VirtualHost]) -> Iterator[QueueReading]:
    """All queues that this node leads; others come and go in between."""
    for vhost in tuple(vhosts.values()):
        name = text_of(vhost.name)
        for queue in tuple(vhost.queues.values()):
            if (tally := queue.here) is None:
                continue  # the node that leads it tells of it
            ready, unacked, consumers, apart = tally
            values = ready, unacked, ready + unacked + apart, consumers
            yield QueueReading(name, text_of(queue.name), values, queue.damage is not None)


def blocked(*names: str) -> Metric:
    """Connections of these names, or some of them."""
    family: Metric = GaugeMetricFamily(
        "fluffle_connection_blocked", "Connections that an alarm keeps from publishing"
    )
    for name in names:
        labelled(family, connection=name)
    return family


def open_files() -> int | None:
    """None where the system does not tell.  Linux does from 6.2 on without listing them."""
    if not OPEN_FILES.exists():
        return None
    return OPEN_FILES.stat().st_size or sum(1 for _ in OPEN_FILES.iterdir())


def permanent_id(name: str) -> str:
    """In RabbitMQ's form, and always the same: made of the name of the cluster, or of the node."""
    return f"rabbitmq-cluster-id-{hashlib.sha256(name.encode()).hexdigest()[:22]}"
