"""What Prometheus is told: everything is read when it asks, nothing is kept for it.

Names, labels and meanings are those of RabbitMQ's `rabbitmq_prometheus`, so that its dashboards and
alerts work; what has no counterpart here (Erlang's processes, its message store) is left out.
"""

from __future__ import annotations

import hashlib
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fluffle.broker.clock import Clock
from fluffle.broker.config import Config
from fluffle.broker.disk import free_bytes
from fluffle.broker.memory import resident_bytes
from fluffle.broker.queues.engine import Queue
from fluffle.broker.server.services import Services
from fluffle.broker.traffic import Deliveries

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

QUEUE_GAUGES: tuple[tuple[str, str, Callable[[Queue], int]], ...] = (
    (
        "messages_ready",
        "Messages ready to be delivered to consumers",
        lambda queue: queue.ready_count,
    ),
    (
        "messages_unacked",
        "Messages delivered to consumers but not yet acknowledged",
        lambda queue: queue.in_flight,
    ),
    (
        "messages",
        "Sum of ready and unacknowledged messages - total queue depth",
        lambda queue: queue.ready_count + queue.in_flight,
    ),
    ("consumers", "Consumers on a queue", lambda queue: queue.consumer_count),
)
"""As DELIVERIES, with what it is of a queue."""


class NodeCollector(Collector):
    """Reads a node.  `per_object` tells of each queue instead of their sum."""

    __slots__ = ("_clock", "_config", "_endpoint", "_per_object", "_services", "_started_ms")

    def __init__(
        self, services: Services, config: Config, clock: Clock, *, per_object: bool = False
    ) -> None:
        self._services = services
        self._config = config
        self._clock = clock
        self._started_ms = clock.now_ms()
        self._per_object = per_object

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._identity()
        yield from self._churn()
        yield from self._queues()
        yield from self._messages()
        yield from self._deliveries()
        yield from self._resources()
        yield from self._durability()
        yield from self._holding_back()

    def _identity(self) -> Iterator[Metric]:
        """Every dashboard of RabbitMQ joins on these two."""
        config = self._config
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
            rabbitmq_cluster=config.node_name,
            rabbitmq_cluster_permanent_id=permanent_id(config.node_name),
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

    def _queues(self) -> Iterator[Metric]:
        queues = [
            (text_of(vhost.name), queue)
            for vhost in self._services.vhosts.values()
            for queue in vhost.queues.values()
        ]
        consumers = sum(queue.consumer_count for _, queue in queues)
        publishers = sum(connection.is_publisher for connection in self._services.connections)
        yield gauge("queues", "Queues available", len(queues))
        yield gauge("consumers", "Consumers currently connected", consumers)
        family = gauge("global_consumers", "Current number of consumers")
        yield labelled(family, consumers, protocol=PROTOCOL)
        family = gauge("global_publishers", "Current number of connections that have published")
        yield labelled(family, publishers, protocol=PROTOCOL)
        yield GaugeMetricFamily(
            "fluffle_queues_crashed",
            "Queues that hand out nothing, since what is next cannot be read",
            value=sum(queue.damage is not None for _, queue in queues),
        )
        for name, text, value in QUEUE_GAUGES:
            family = gauge(f"queue_{name}", text)
            if self._per_object:
                for vhost, queue in queues:
                    labelled(family, value(queue), vhost=vhost, queue=text_of(queue.name))
            else:
                labelled(family, sum(value(queue) for _, queue in queues))
            yield family

    def _messages(self) -> Iterator[Metric]:
        traffic = self._services.traffic
        connections = self._services.connections
        ledgers = [
            channel.confirms
            for connection in connections
            for channel in connection.channels
            if channel.confirms is not None
        ]
        confirm = traffic.received_confirm + sum(ledger.assigned_count for ledger in ledgers)
        confirmed = traffic.confirmed + sum(ledger.accepted_count for ledger in ledgers)
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
        open_count = sum(ledger.open_count for ledger in ledgers)
        yield gauge(
            "channel_messages_unconfirmed", "Published but not yet confirmed messages", open_count
        )

    def _deliveries(self) -> Iterator[Metric]:
        traffic = self._services.traffic
        by_type: tuple[tuple[str, Deliveries], ...] = (
            ("rabbit_classic_queue", traffic.from_queues),
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
                config.memory_bytes_max,
            ),
            (
                "disk_space_available_bytes",
                "Disk space available in bytes",
                free_bytes(config.data_dir),
            ),
            (
                "disk_space_available_limit_bytes",
                "Free disk space low watermark in bytes",
                config.disk_free_bytes_min,
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

    def _holding_back(self) -> Iterator[Metric]:
        """Who is not read, and why; RabbitMQ has no name for it."""
        connections = self._services.connections
        family = GaugeMetricFamily(
            "fluffle_connections_by_state", "Connections, by what they do or wait for"
        )
        states = Counter(connection.state for connection in connections)
        for state in {"running", "flow", "blocking", "blocked", *states}:
            labelled(family, states[state], state=state)
        yield family
        if self._per_object:
            family = GaugeMetricFamily(
                "fluffle_connection_blocked", "Connections that an alarm keeps from publishing"
            )
            for connection in connections:
                if connection.state == "blocked":
                    labelled(family, connection=connection.name)
            yield family


def gauge(name: str, text: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"rabbitmq_{name}", text, value=value)


def counter(name: str, text: str, value: float | None = None) -> CounterMetricFamily:
    """`_total` is added to its name."""
    return CounterMetricFamily(f"rabbitmq_{name}", text, value=value)


def labelled(family: Metric, value: float = 1, **labels: str) -> Metric:
    """Add a sample to a family."""
    suffix = "_total" if family.type == "counter" else ""
    family.add_sample(family.name + suffix, labels, value)
    return family


def text_of(name: str) -> str:
    """A name as UTF-8, which the page is in; octets in it that are none are spelled out."""
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


def open_files() -> int | None:
    """None where the system does not tell."""
    return sum(1 for _ in OPEN_FILES.iterdir()) if OPEN_FILES.exists() else None


def permanent_id(node_name: str) -> str:
    """In RabbitMQ's form, and the same for the whole life of a node: made of its name."""
    return f"rabbitmq-cluster-id-{hashlib.sha256(node_name.encode()).hexdigest()[:22]}"
