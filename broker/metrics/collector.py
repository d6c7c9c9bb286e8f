"""Collector of a node's metrics: all is read when Prometheus asks, nothing is kept for it.

Names, labels and meanings are those of RabbitMQ's `rabbitmq_prometheus`, so that its dashboards and
alerts work; what has no counterpart here (Erlang's processes, its message store) is left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.base.clock import Clock
from fluffle.broker.base.traffic import AMQP_091, DISABLED, Deaths, Deliveries, DropReason
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.config.config import Config
from fluffle.broker.core.client import ClientChannel, channel_name
from fluffle.broker.core.connections import Connections
from fluffle.broker.core.services import Services
from fluffle.broker.metrics.families import (
    CountedTables,
    NodeTables,
    ObjectTables,
)
from fluffle.broker.metrics.tables import (
    RAFT,
    Step,
    TableView,
    anything,
    counter,
    gauge,
    histogram,
    histograms,
    labelled,
    pieces,
    table_steps,
    text_of,
)
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.settings import DeadLetterStrategy
from fluffle.broker.statistics.statistics import Statistics
from fluffle.protocol.headers import DeathReason

ONCE, SURE = DeadLetterStrategy.AT_MOST_ONCE, DeadLetterStrategy.AT_LEAST_ONCE

TEXTS = {
    DeathReason.EXPIRED: "due to message TTL exceeded",
    DeathReason.REJECTED: "due to basic.reject or basic.nack",
    DeathReason.MAXLEN: "due to overflow drop-head or reject-publish-dlx",
    DeathReason.DELIVERY_LIMIT: "due to delivery-limit exceeded",
}

KINDS = (
    (QueueType.CLASSIC, ONCE), (QueueType.CLASSIC, DISABLED),
    (QueueType.QUORUM, ONCE), (QueueType.QUORUM, SURE), (QueueType.QUORUM, DISABLED),
)  # fmt: skip
"""Types of queues, and the strategies that each can have."""

OF_MQTT = QueueType.MQTT_QOS0, DISABLED
"""Named once something has died in such a queue: there are none without MQTT."""

IMPOSSIBLE = {
    (QueueType.CLASSIC, ONCE, DeathReason.DELIVERY_LIMIT),
    (QueueType.CLASSIC, DISABLED, DeathReason.DELIVERY_LIMIT),
    (QueueType.QUORUM, SURE, DeathReason.MAXLEN),
}


def deaths_of(deaths: Deaths) -> Iterator[Metric]:
    """All of it."""
    for reason, text in TEXTS.items():
        family = counter(
            f"global_messages_dead_lettered_{reason}",
            f"Total number of messages dead-lettered {text}",
        )
        for kind in KINDS:
            if (*kind, reason) not in IMPOSSIBLE:
                labelled(family, deaths.died[(*kind, reason)], **labels_of(*kind))
        if count := deaths.died[(*OF_MQTT, reason)]:
            labelled(family, count, **labels_of(*OF_MQTT))
        yield family
    family = counter(
        "global_messages_dead_lettered_confirmed",
        "Total number of messages dead-lettered and confirmed by target queues",
    )
    labelled(family, deaths.confirmed, **labels_of(QueueType.QUORUM, SURE))
    yield family


def labels_of(queue_type: QueueType, strategy: str) -> dict[str, str]:
    """Labels of dead letters, as RabbitMQ has them."""
    return {
        "queue_type": queue_type.module,
        "dead_letter_strategy": strategy.replace("-", "_"),
    }


NAME, TEXT = (
    "fluffle_channel_unacknowledged_age_seconds",
    "How long the oldest unacknowledged message of a channel, or of all, has been seen to be one",
)


PASSED = (None,) * 64
"""In place of channels that could be looked at while settled messages are passed."""


class UnackedAges:
    """Histogram of the ages of unacknowledged messages: of the oldest one of each channel."""

    def __init__(self, connections: Connections, now_ms: Callable[[], int]) -> None:
        self._connections = connections
        self._now_ms = now_ms
        self._seen: dict[ClientChannel, tuple[int, int]] = {}
        """The delivery tag, and since when; of channels that were there at the last scrape."""

    def steps(self, view: TableView) -> Iterator[Step]:
        """Rows of channels that hold messages; or the greatest age, 0 if none are held."""
        seen: dict[ClientChannel, tuple[int, int]] = {}
        oldest_ms = 0
        if view.has_rows:
            yield [GaugeMetricFamily(NAME, TEXT)]
        for piece in pieces(self._channels()):
            family: Metric = GaugeMetricFamily(NAME, TEXT)
            for name, channel, tag in filter(None, piece):
                seen[channel] = _, since_ms = self._since(channel, tag)
                age_ms = self._now_ms() - since_ms
                oldest_ms = max(oldest_ms, age_ms)
                labelled(family, age_ms / 1_000, channel=text_of(name))
            yield [family] if view.has_rows else []
        self._seen = seen
        if not view.has_rows:
            yield [GaugeMetricFamily(NAME, TEXT, value=oldest_ms / 1_000)]

    def _channels(self) -> Iterator[tuple[str, ClientChannel, int] | None]:
        """None for what holds nothing, and meanwhile where very many were settled and are kept: no
        step looks at many of these."""
        for connection in self._connections:
            yield None
            for channel in tuple(connection.channels):
                while not channel.unacked.pass_settled():
                    yield from PASSED
                tag = channel.unacked.oldest_tag
                yield (channel_name(connection, channel), channel, tag) if tag is not None else None

    def _since(self, channel: ClientChannel, tag: int) -> tuple[int, int]:
        known = self._seen.get(channel)
        return known if known is not None and known[0] == tag else (tag, self._now_ms())


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


class NodeCollector:
    """Collector of one node's metrics.

    It is done in steps, between which the node goes on: none is longer where there are more queues
    or connections.  Counters never go down by that.
    """

    def __init__(
        self,
        services: Services,
        config: Config,
        clock: Clock,
        cluster_view: ClusterView,
        statistics: Statistics | None = None,
    ) -> None:
        """Make the collector; `statistics`: None where nothing is counted by object."""
        self._services = services
        self._config = config
        self.cluster_view = cluster_view
        self._node = NodeTables(services, clock)
        self.objects = ObjectTables(services, cluster_view)
        self._counted = CountedTables(services, statistics).all if statistics is not None else ()
        self._ages = UnackedAges(services.connections, clock.now_ms)

    def steps(self, view: TableView) -> Iterator[Step]:
        """All metrics, a few or none at a time; a family of many samples comes in several parts."""
        yield list(self.identity(view))
        yield from self.node_steps(view)
        for table in (*self.objects.all, *self._counted):
            yield from table_steps(table, view)
        consumer_count = yield from self._queues()
        yield from self._messages()
        yield list(self._deliveries())
        yield list(self._alarms())
        yield list(self._durability())
        yield list(self._sessions())
        yield list(self._retained())
        yield from self._connections(view, consumer_count)
        yield from self._ages.steps(view)
        yield from self._replication(view)

    def detailed_steps(self, view: TableView) -> Iterator[Step]:
        """The families that are asked for, and what they are joined with."""
        yield from self.node_steps(view)
        for table in (*self.objects.all, *self._counted):
            yield from table_steps(table, view)
        yield from self._groups(view)
        cluster_wide = view._replace(prefix="rabbitmq_cluster_")
        for table in self.objects.cluster_wide:
            yield from table_steps(table, cluster_wide)
        yield list(self.identity(view))

    def node_steps(self, view: TableView) -> Iterator[Step]:
        """A node is one row, and nothing of it is a sum."""
        for table in self._node.all:
            yield from table_steps(table, view._replace(has_rows=True, takes=anything))

    def _groups(self, view: TableView) -> Iterator[Step]:
        """Metrics of Raft groups, if there are any."""
        if self.cluster_view.groups and view.wants(RAFT):
            from fluffle.broker.metrics.groups import group_steps  # noqa: PLC0415  as below

            yield from group_steps(self.cluster_view, self._services.vhosts, view)

    def _replication(self, view: TableView) -> Iterator[Step]:
        """Nothing of what a node does not have."""
        cluster = self.cluster_view.cluster
        if cluster is not None:
            from fluffle.broker.metrics.groups import (  # noqa: PLC0415  for these alone
                clock_metrics,
                links_metrics,
                room_metrics,
                split_metrics,
                suspicion_metrics,
            )

            yield list(links_metrics(cluster.links))
            yield list(suspicion_metrics(cluster.running.host.mistakes))
            yield list(clock_metrics(cluster.common_time))
            yield list(room_metrics(cluster.room))
            yield list(split_metrics(cluster.links))
        yield from self._groups(view)

    def identity(self, view: TableView) -> Iterator[Metric]:
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
            rabbitmq_endpoint=view.endpoint,
        )

    def _queues(self) -> Generator[Step, None, int]:
        """Metrics of queues; returns how many consumers those have that are led here."""
        count = consumers = crashed = 0
        for piece in pieces(self.objects.queues_here()):
            led = [
                (queue, queue_counts)
                for _, queue in piece
                if (queue_counts := queue.local_counts) is not None
            ]
            count += len(led)
            consumers += sum(queue_counts.consumers for _, queue_counts in led)
            crashed += sum(queue.damage is not None for queue, _ in led)
            yield []
        traffic = self._services.runtime.traffic
        connections = traffic.connections_opened - traffic.connections_closed
        channels = traffic.channels_opened - traffic.channels_closed
        yield [
            gauge("connections", "Connections currently open", connections),
            gauge("channels", "Channels currently open", channels),
            gauge("queues", "Queues available", count),
            gauge("consumers", "Consumers currently connected", consumers),
            GaugeMetricFamily(
                "fluffle_queues_crashed",
                "Queues that hand out nothing, since what is next cannot be read",
                value=crashed,
            ),
        ]
        return consumers

    def _messages(self) -> Iterator[Step]:
        """Ledgers of channels that end meanwhile are counted once: as they were at the end."""
        confirms: dict[str, tuple[int, int]] = {}
        for traffic in tuple(self._services.runtime.traffic.protocols.values()):
            expected, confirmed = traffic.received_confirm, traffic.confirmed
            for piece in pieces(tuple(traffic.ledgers)):
                expected += sum(ledger.assigned_count for ledger in piece)
                confirmed += sum(ledger.accepted_count for ledger in piece)
                yield []
            confirms[traffic.protocol] = expected, confirmed
        yield list(self._message_counters(confirms))

    def _message_counters(self, confirms: Mapping[str, tuple[int, int]]) -> Iterator[Metric]:
        """`confirms`: by protocol, how many messages were expected to be confirmed, and were."""
        traffic = self._services.runtime.traffic
        rows = [(traffic.protocols[each], *counts) for each, counts in confirms.items()]
        for name, text, values in (
            ("received", "received from publishers", [each.received for each, *_ in rows]),
            (
                "received_confirm",
                "received from publishers expecting confirmations",
                [expected for _, expected, _ in rows],
            ),
            ("confirmed", "confirmed to publishers", [confirmed for *_, confirmed in rows]),
            ("routed", "routed to queues", [each.routed for each, *_ in rows]),
            (
                "unroutable_dropped",
                "published as non-mandatory into an exchange and dropped as unroutable",
                [each.unroutable_dropped for each, *_ in rows],
            ),
            (
                "unroutable_returned",
                "published as mandatory into an exchange and returned to the publisher as "
                "unroutable",
                [each.unroutable_returned for each, *_ in rows],
            ),
        ):
            family = counter(f"global_messages_{name}", f"Total number of messages {text}")
            for (each, *_), value in zip(rows, values, strict=True):
                labelled(family, value, protocol=each.protocol)
            yield family
        yield histograms(
            "rabbitmq_message_size_bytes",
            "Size of messages received from publishers",
            {each.protocol: each.sizes for each, *_ in rows},
            label="protocol",
        )
        yield from self._queue_counters()

    def _queue_counters(self) -> Iterator[Metric]:
        """Counters of what became of messages in queues, whatever published them."""
        traffic = self._services.runtime.traffic
        dropped = CounterMetricFamily(
            "fluffle_dead_letters_dropped",
            "Messages that died and did not get into a queue where they should be",
        )
        for why in DropReason:
            labelled(dropped, traffic.deaths.dropped[why], reason=why)
        yield dropped
        yield from deaths_of(traffic.deaths)
        timed_out = CounterMetricFamily(
            "fluffle_messages_timed_out",
            "Messages that went back to their queue because a client held them for too long",
        )
        protocols = traffic.protocols.values()
        classic = sum(each.from_queues.timed_out for each in protocols)
        labelled(timed_out, classic, queue_type="rabbit_classic_queue")
        quorum = sum(each.from_quorum_queues.timed_out for each in protocols)
        yield labelled(timed_out, quorum, queue_type="rabbit_quorum_queue")
        duplicates = CounterMetricFamily(
            "fluffle_messages_deduplicated",
            "Messages that a queue has dropped because it had had them before",
        )
        for kind in (QueueType.CLASSIC, QueueType.QUORUM):
            labelled(duplicates, traffic.duplicates[kind], queue_type=kind.module)
        yield duplicates

    def _sessions(self) -> Iterator[Metric]:
        """Metrics of sessions that may outlive their connections, and of drops that their clients
        cannot learn of."""
        keepers = self._services.connections.session_keepers
        if not keepers:
            return
        counts = [keeper.session_counts() for keeper in keepers]
        sessions = GaugeMetricFamily(
            "fluffle_sessions", "Sessions of clients, by whether these are connected"
        )
        labelled(sessions, sum(each.connected for each in counts), state="connected")
        yield labelled(sessions, sum(each.away for each in counts), state="away")
        yield CounterMetricFamily(
            "fluffle_sessions_taken_over",
            "Connections that ended since their client had connected anew",
            value=sum(each.taken_over for each in counts),
        )
        yield GaugeMetricFamily(
            "fluffle_shared_subscriptions",
            "Subscriptions of connected clients that these share with others",
            value=sum(each.shared_subscriptions for each in counts),
        )
        dropped = CounterMetricFamily(
            "fluffle_client_messages_dropped",
            "Messages that clients published or were to be given, and that were dropped",
        )
        for traffic in self._services.runtime.traffic.protocols.values():
            for why, count in traffic.dropped.items():
                labelled(dropped, count, protocol=traffic.protocol, reason=why)
        yield dropped

    def _deliveries(self) -> Iterator[Metric]:
        protocols = self._services.runtime.traffic.protocols.values()
        rows: list[tuple[str, str, Deliveries]] = []
        for each in protocols:
            rows.append((each.protocol, "rabbit_classic_queue", each.from_queues))
            rows.append((each.protocol, "rabbit_quorum_queue", each.from_quorum_queues))
            rows.append((each.protocol, "rabbit_volatile_queue", each.replies))
            if each.protocol != AMQP_091.messages:
                rows.append((each.protocol, QueueType.MQTT_QOS0.module, each.from_qos0_queues))
        for name, text, attribute in DELIVERIES:
            family = counter(f"global_messages_{name}", text)
            for protocol, queue_type, deliveries in rows:
                value = getattr(deliveries, attribute)
                labelled(family, value, protocol=protocol, queue_type=queue_type)
            yield family

    def _alarms(self) -> Iterator[Metric]:
        alarms = self._services.alarms
        for name, what, is_raised in (
            ("free_disk_space_watermark", "free disk space watermark", alarms.is_raised("disk")),
            ("memory_used_watermark", "memory watermark", alarms.is_raised("memory")),
        ):
            yield gauge(f"alarms_{name}", f"is 1 if {what} alarm is in effect", is_raised)
        cluster = self.cluster_view.cluster
        links = cluster.links if cluster is not None else None
        yield gauge(
            "unreachable_cluster_peers_count",
            "Number of peers in the cluster the current node cannot reach",
            sum(not links.is_up(node) for node in links.peers) if links is not None else 0,
        )

    def _durability(self) -> Iterator[Metric]:
        """Metrics of commits, for which RabbitMQ has no names."""
        commits = self._services.runtime.commits
        done = commits.done
        seconds, sizes = commits.of_disk
        yield histogram(
            "fluffle_disk_commit_seconds", "How long commits of the store have taken", seconds
        )
        yield histogram(
            "fluffle_disk_commit_bytes", "What commits of the store have written", sizes
        )
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

    def _retained(self) -> Iterator[Metric]:
        """Metrics of retained messages, which are the same on every node of a cluster."""
        messages = GaugeMetricFamily(
            "fluffle_retained_messages", "Messages that topics retain", labels=("vhost",)
        )
        sizes = GaugeMetricFamily(
            "fluffle_retained_bytes",
            "Messages that topics retain, with what their topics take",
            labels=("vhost",),
        )
        for vhost in tuple(self._services.vhosts.values()):
            messages.add_metric((text_of(vhost.name),), vhost.retained.count)
            sizes.add_metric((text_of(vhost.name),), vhost.retained.size_bytes)
        yield messages
        yield sizes

    def _connections(self, view: TableView, consumer_count: int) -> Iterator[Step]:
        """Metrics of publishers, consumers and connections that are not read, with the reason.

        `consumer_count`: of the queues that are led here.  Of a client whose protocol has no
        channels its consumers together are one.
        """
        consumers = Counter(dict.fromkeys(self._services.runtime.traffic.protocols, 0))
        publishers = Counter(dict.fromkeys(self._services.runtime.traffic.protocols, 0))
        states: Counter[str] = Counter()
        if view.has_rows:
            yield [blocked()]
        for piece in pieces(self._services.connections):
            publishers.update(
                connection.session.traffic.protocol
                for connection in piece
                if connection.is_publisher and connection.session is not None
            )
            for connection in piece:
                for channel in () if connection.kind else connection.channels:
                    consumers[channel.session.traffic.protocol] += bool(channel.subscriptions)
                    consumer_count -= len(channel.subscriptions)
            by_state = [(connection.state, connection.name) for connection in piece]
            states.update(state for state, _ in by_state)
            names = [name for state, name in by_state if state == "blocked"]
            yield [blocked(*names)] if view.has_rows else []
        family = gauge("global_publishers", "Current number of connections that have published")
        for protocol, count in publishers.items():
            labelled(family, count, protocol=protocol)
        yield [family]
        consumers[AMQP_091.messages] = max(0, consumer_count)
        family = gauge("global_consumers", "Current number of consumers")
        for protocol, count in consumers.items():
            labelled(family, count, protocol=protocol)
        yield [family]
        family = GaugeMetricFamily(
            "fluffle_connections_by_state", "Connections, by what they do or wait for"
        )
        for state in {"running", "flow", "blocking", "blocked", *states}:
            labelled(family, states[state], state=state)
        yield [family]


def blocked(*names: str) -> Metric:
    """Connections of these names, or some of them."""
    family: Metric = GaugeMetricFamily(
        "fluffle_connection_blocked", "Connections that an alarm keeps from publishing"
    )
    for name in names:
        labelled(family, connection=name)
    return family


def permanent_id(name: str) -> str:
    """In RabbitMQ's form, and always the same: made of the name of the cluster, or of the node."""
    return f"rabbitmq-cluster-id-{hashlib.sha256(name.encode()).hexdigest()[:22]}"
