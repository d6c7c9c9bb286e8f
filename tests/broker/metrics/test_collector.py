"""Metrics of a node, read by Prometheus's own parser."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from math import isnan
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.base.traffic import DISABLED, ClientDrop, DropReason, TrafficLabels
from fluffle.broker.config.config import Config
from fluffle.broker.core.client import SessionCounts
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.settlement import FRONT_RUNS_MAX
from fluffle.broker.metadata.metadata import ignore_done
from fluffle.broker.metrics.collector import NodeCollector, UnackedAges
from fluffle.broker.metrics.endpoint import AGGREGATED, PER_OBJECT, text_page
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, SharedCredit
from fluffle.broker.queues.settings import DeadLetterStrategy
from fluffle.broker.vhosts.retained import size_of
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.methods import Basic, make
from fluffle.protocol.properties import Properties
from tests.broker.queues.queue_harness import ORIGIN, FakeSink
from tests.support.call_count import calls_of
from tests.support.definitions import engine_of
from tests.support.edge import Edge
from tests.support.manual_clock import ManualClock
from tests.support.no_cluster import NoCluster

CONFIG = Config(node_name="fluffle@test")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Node:
    """An edge, and its metrics at different moments."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.clock = ManualClock(now_ms=5_000)
        self.edge.services.alarms.watermarks.memory_bytes_max = 7_000
        self.edge.count()
        self.collector = NodeCollector(
            self.edge.services, CONFIG, self.clock, NoCluster(), self.edge.statistics
        )

    def pieces(self, accept: str = "", *, per_object: bool = False) -> Iterator[bytes]:
        steps = self.collector.steps(PER_OBJECT if per_object else AGGREGATED)
        return text_page(steps, accept).pieces

    def text(self, accept: str = "", *, per_object: bool = False) -> str:
        return b"".join(self.pieces(accept, per_object=per_object)).decode()

    def scrape(self, *, per_object: bool = False) -> Samples:
        text = self.text(per_object=per_object)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.scrape()[name, tuple(sorted(labels.items()))]


@pytest.fixture
def node() -> Node:
    return Node()


def names(samples: Samples) -> set[str]:
    return {name for name, _labels in samples}


def test_dashboards_find_what_they_join_on(node: Node) -> None:
    samples = node.scrape()
    (identity,) = (dict(labels) for name, labels in samples if name == "rabbitmq_identity_info")
    assert identity["rabbitmq_node"] == "fluffle@test"
    assert identity["rabbitmq_endpoint"] == "aggregated"
    assert identity["rabbitmq_cluster_permanent_id"].startswith("rabbitmq-cluster-id-")
    (build,) = (dict(labels) for name, labels in samples if name == "rabbitmq_build_info")
    assert (build["product_name"], build["rabbitmq_version"]) == ("RabbitMQ", "4.3.5")
    assert {"erlang_version", "prometheus_client_version", "prometheus_plugin_version"} < set(build)


OVERVIEW = """
rabbitmq_alarms_free_disk_space_watermark rabbitmq_alarms_memory_used_watermark
rabbitmq_auth_attempts_failed_total rabbitmq_auth_attempts_succeeded_total
rabbitmq_auth_attempts_total rabbitmq_build_info rabbitmq_channels rabbitmq_channels_closed_total
rabbitmq_channels_opened_total rabbitmq_connections rabbitmq_connections_closed_total
rabbitmq_connections_opened_total rabbitmq_consumers rabbitmq_disk_space_available_bytes
rabbitmq_disk_space_available_limit_bytes rabbitmq_erlang_uptime_seconds rabbitmq_global_consumers
rabbitmq_global_messages_acknowledged_total rabbitmq_global_messages_confirmed_total
rabbitmq_global_messages_delivered_consume_auto_ack_total
rabbitmq_global_messages_delivered_consume_manual_ack_total
rabbitmq_global_messages_delivered_get_auto_ack_total
rabbitmq_global_messages_delivered_get_manual_ack_total rabbitmq_global_messages_delivered_total
rabbitmq_global_messages_get_empty_total rabbitmq_global_messages_received_confirm_total
rabbitmq_global_messages_received_total rabbitmq_global_messages_redelivered_total
rabbitmq_global_messages_routed_total rabbitmq_global_messages_unroutable_dropped_total
rabbitmq_global_messages_unroutable_returned_total rabbitmq_global_publishers
rabbitmq_identity_info rabbitmq_process_max_fds rabbitmq_process_open_fds
rabbitmq_process_resident_memory_bytes rabbitmq_queue_consumers rabbitmq_queue_messages
rabbitmq_queue_messages_ready rabbitmq_queue_messages_unacked rabbitmq_queues
rabbitmq_queues_created_total rabbitmq_queues_declared_total rabbitmq_queues_deleted_total
rabbitmq_resident_memory_limit_bytes
"""
"""Names that a RabbitMQ node tells, too, and that its dashboards read."""


def test_every_name_of_the_overview_is_there(node: Node) -> None:
    assert set(OVERVIEW.split()) <= names(node.scrape())


IO = ("io_sync_ops", "io_sync_time_seconds", "io_write_bytes")
"""RabbitMQ's names of disk metrics that have a counterpart."""


def test_what_died_and_is_gone_is_counted(node: Node) -> None:
    node.edge.services.runtime.traffic.deaths.dropped[DropReason.REFUSED] += 3
    for reason, value in (("refused", 3), ("cycle", 0), ("no_room", 0)):
        assert node.value("fluffle_dead_letters_dropped_total", reason=reason) == value


def test_duplicates_are_counted_by_the_type_of_their_queue(node: Node) -> None:
    node.edge.services.runtime.traffic.dropped_duplicates("quorum", 2)
    for kind, value in (("classic", 0), ("quorum", 2)):
        queue_type = f"rabbit_{kind}_queue"
        assert node.value("fluffle_messages_deduplicated_total", queue_type=queue_type) == value


def test_messages_are_followed_through_the_broker(node: Node) -> None:
    client = node.edge.connect()
    client.declare()
    client.confirm_select()
    client.publish(b"1", b"2", b"3")
    client.publish(b"4", queue="nowhere")
    client.arrivals()
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    client.consume(prefetch=1)
    labels = {"protocol": "amqp091"}
    total = "rabbitmq_global_messages_{}_total".format
    for name, value in (
        ("received", 4),
        ("received_confirm", 4),
        ("confirmed", 4),
        ("routed", 3),
        ("unroutable_dropped", 1),
        ("unroutable_returned", 0),
    ):
        assert node.value(total(name), **labels) == value, name
    labels["queue_type"] = "rabbit_classic_queue"
    for name, value in (
        ("delivered", 2),
        ("delivered_get_manual_ack", 1),
        ("delivered_consume_manual_ack", 1),
        ("acknowledged", 0),
    ):
        assert node.value(total(name), **labels) == value, name
    assert node.value("rabbitmq_queue_messages_ready") == 1
    assert node.value("rabbitmq_queue_messages_unacked") == 2
    assert node.value("rabbitmq_queue_messages") == 3
    assert node.value("rabbitmq_consumers") == 1
    assert node.value("rabbitmq_global_publishers", protocol="amqp091") == 1
    assert node.value("rabbitmq_channel_messages_unconfirmed") == 0


def test_each_protocol_is_counted_by_itself(node: Node) -> None:
    client = node.edge.connect()
    client.declare()
    client.publish(b"1")
    traffic = node.edge.services.runtime.traffic
    mqtt_5 = TrafficLabels("mqtt50", "mqtt")
    other = traffic.of(mqtt_5)
    assert traffic.of(mqtt_5) is other
    other.received += 2
    other.routed += 3
    other.sizes.add(7, 2)
    other.from_queues.consumed_auto_ack += 4
    other.from_queues.timed_out += 5
    other.ledgers.add(ledger := Confirms())
    ledger.assign(6)
    traffic.logins_of(mqtt_5).failed += 7
    for name, amqp, mqtt in (
        ("rabbitmq_global_messages_received_total", 1, 2),
        ("rabbitmq_global_messages_routed_total", 1, 3),
        ("rabbitmq_global_messages_received_confirm_total", 0, 6),
        ("rabbitmq_message_size_bytes_count", 1, 2),
        ("rabbitmq_global_publishers", 1, 0),
    ):
        assert node.value(name, protocol="amqp091") == amqp, name
        assert node.value(name, protocol="mqtt50") == mqtt, name
    classic = {"queue_type": "rabbit_classic_queue"}
    delivered = "rabbitmq_global_messages_delivered_total"
    assert node.value(delivered, protocol="mqtt50", **classic) == 4
    assert node.value(delivered, protocol="amqp091", **classic) == 0
    other.from_qos0_queues.consumed_auto_ack += 8
    at_most_once = {"queue_type": "rabbit_mqtt_qos0_queue"}
    assert node.value(delivered, protocol="mqtt50", **at_most_once) == 8
    with pytest.raises(KeyError):
        node.value(delivered, protocol="amqp091", **at_most_once)
    assert node.value("fluffle_messages_timed_out_total", **classic) == 5


class Keeper:
    """Keeper of three sessions, as `SessionKeeper`."""

    def session_rows(self) -> Iterator[dict[str, Any]]:
        yield from ()

    def session_counts(self) -> SessionCounts:
        return SessionCounts(connected=1, away=2, taken_over=4, shared_subscriptions=5)


def test_sessions_and_what_their_clients_cannot_get_are_counted_where_there_are_any(
    node: Node,
) -> None:
    assert "fluffle_sessions" not in names(node.scrape())
    services = node.edge.services
    services.connections.session_keepers.append(Keeper())
    traffic = services.runtime.traffic.of(TrafficLabels("mqtt311", "mqtt"))
    traffic.dropped[ClientDrop.PACKET_TOO_LARGE] += 3
    assert node.value("fluffle_sessions", state="connected") == 1
    assert node.value("fluffle_sessions", state="away") == 2
    assert node.value("fluffle_sessions_taken_over_total") == 4
    assert node.value("fluffle_shared_subscriptions") == 5
    dropped = {"protocol": "mqtt311", "reason": "packet_too_large"}
    assert node.value("fluffle_client_messages_dropped_total", **dropped) == 3


def test_retained_messages_are_shown_for_each_virtual_host(node: Node) -> None:
    assert node.value("fluffle_retained_messages", vhost="/") == 0
    kept = RetainedMessage(b"content", b"", "guest", 0, NEVER_EXPIRES_MS)
    node.edge.services.retained.put("/", "a", kept, ignore_done, lambda _error: None)
    node.edge.run()
    assert node.value("fluffle_retained_messages", vhost="/") == 1
    assert node.value("fluffle_retained_bytes", vhost="/") == size_of("a", kept)


def test_totals_survive_those_who_made_them(node: Node) -> None:
    client = node.edge.connect()
    client.confirm_select()
    client.publish(b"1")
    client.arrivals()
    client.close()
    client.transport.lose()
    assert node.value("rabbitmq_global_messages_confirmed_total", protocol="amqp091") == 1
    assert node.value("rabbitmq_connections") == 0
    assert node.value("rabbitmq_connections_opened_total") == 1
    assert node.value("rabbitmq_channels") == 0


def test_each_queue_may_be_asked_for(node: Node) -> None:
    client = node.edge.connect()
    for name in ("a", 'b"\\ '):
        client.declare(name)
        client.publish(b"1", b"2", queue=name)
    client.declare("held")
    client.publish(b"x", queue="held")
    client.call(make(Basic.Get, queue="held"), Basic.GetOk)
    samples = node.scrape(per_object=True)
    for name in ("a", 'b"\\ '):
        assert samples["rabbitmq_queue_messages_ready", (("queue", name), ("vhost", "/"))] == 2
    assert ("rabbitmq_queue_messages_ready", ()) not in samples
    moments = {"rabbitmq_queue_head_message_timestamp"}  # which do not add up
    assert names(node.scrape()) == names(samples) - moments


def test_what_is_in_queues_is_measured(node: Node) -> None:
    client = node.edge.connect()
    for name in ("a", "b"):
        client.declare(name)
        client.publish(b"123", b"45", queue=name)
    client.call(make(Basic.Get, queue="b"), Basic.GetOk)
    samples = node.scrape(per_object=True)
    for name, ready_bytes, unacked_bytes in (("a", 5, 0), ("b", 2, 3)):
        labels = ("queue", name), ("vhost", "/")
        assert samples["rabbitmq_queue_messages_bytes", labels] == 5
        assert samples["rabbitmq_queue_messages_ready_bytes", labels] == ready_bytes
        assert samples["rabbitmq_queue_messages_unacked_bytes", labels] == unacked_bytes
        assert samples["rabbitmq_queue_messages_ram", labels] == 2
        assert isnan(samples["rabbitmq_queue_head_message_timestamp", labels])
    assert node.scrape()["rabbitmq_queue_messages_bytes", ()] == 10


def test_names_that_are_no_utf_8_are_spelled_out(node: Node) -> None:
    node.edge.connect().declare("ü")
    node.edge.vhost.name = "v\udcff"
    labels = ("queue", "ü"), ("vhost", "v\\udcff")
    assert node.scrape(per_object=True)["rabbitmq_queue_messages_ready", labels] == 0


def test_resources_and_alarms(node: Node) -> None:
    node.clock.advance(2_500)
    assert node.value("rabbitmq_erlang_uptime_seconds") == 2.5
    assert node.value("rabbitmq_resident_memory_limit_bytes") == 7_000
    assert node.value("rabbitmq_disk_space_available_limit_bytes") == 50_000_000
    assert node.value("rabbitmq_alarms_memory_used_watermark") == 0
    node.edge.services.alarms.set("memory", low=True)
    assert node.value("rabbitmq_alarms_memory_used_watermark") == 1
    assert node.value("rabbitmq_alarms_free_disk_space_watermark") == 0


def test_commits_are_counted_with_their_size(node: Node) -> None:
    client = node.edge.connect()
    client.declare("q", durable=True)
    before = {name: node.value(f"rabbitmq_{name}_total") for name in IO}
    changes = node.value("fluffle_commit_changes_total")
    client.publish(b"x" * 1_000, b"y" * 1_000, properties=Properties(delivery_mode=2))
    after = {name: node.value(f"rabbitmq_{name}_total") for name in IO}
    assert after["io_sync_ops"] == before["io_sync_ops"] + 1
    assert after["io_sync_time_seconds"] > before["io_sync_time_seconds"]
    assert 2_000 <= after["io_write_bytes"] - before["io_write_bytes"] <= 2_200
    assert node.value("fluffle_commit_changes_total") == changes + 1, "a batch is one entry"
    assert node.value("fluffle_commit_waiting_bytes") == 0
    assert node.value("fluffle_store_bytes") > 2_000


def test_who_is_blocked_is_notified(node: Node) -> None:
    publisher, consumer = node.edge.connect(), node.edge.connect()
    node.edge.services.alarms.set("memory", low=True)
    publisher.publish(b"x")
    by_state = "fluffle_connections_by_state"
    assert node.value(by_state, state="blocked") == node.value(by_state, state="blocking") == 1
    blocked = [
        dict(labels)["connection"]
        for name, labels in node.scrape(per_object=True)
        if name == "fluffle_connection_blocked"
    ]
    assert blocked == [publisher.connection.name]
    node.edge.services.alarms.set("memory", low=False)
    assert node.value(by_state, state="blocked") == 0
    assert node.value(by_state, state="running") == 2
    assert consumer.connection.state == "running"


def test_openmetrics_is_reported_to_who_asks_for_it(node: Node) -> None:
    assert node.text("application/openmetrics-text; version=1.0.0").endswith("\n# EOF\n")


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_pieces_come_to_what_one_would_be(
    node: Node, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    client = node.edge.connect()
    for number in range(7):
        client.declare(f"q{number}")
    whole = node.text(accept, per_object=True)
    monkeypatch.setattr("fluffle.broker.metrics.tables.PIECE", 2)
    pieces = node.text(accept, per_object=True)
    assert without_process(pieces) == without_process(whole)
    assert whole.count("# EOF\n") == bool(accept)


def without_process(text: str) -> list[str]:
    """Lines that are the same a moment later."""
    return [line for line in text.splitlines() if "process_" not in line]


def most_calls_of_a_step(node: Node, *, per_object: bool) -> int:
    pieces = node.pieces(per_object=per_object)
    counts: list[int] = []
    found: list[bytes | None] = [b""]
    while found[-1] is not None:
        counts.append(calls_of(lambda: found.append(next(pieces, None))))
    return max(counts)


def crowd(node: Node, names: range) -> None:
    """Each has a queue, a channel in confirm mode, and is blocked."""
    for number in names:
        client = node.edge.connect()
        client.declare(f"q{number}")
        client.confirm_select()
        client.publish(b"x")


@pytest.mark.parametrize("per_object", [False, True])
def test_no_step_is_more_work_where_there_is_more_to_tell(
    node: Node, monkeypatch: pytest.MonkeyPatch, per_object: bool
) -> None:
    monkeypatch.setattr("fluffle.broker.metrics.tables.PIECE", 20)
    node.edge.services.alarms.set("memory", low=True)
    crowd(node, range(40))
    few = most_calls_of_a_step(node, per_object=per_object)
    crowd(node, range(40, 340))
    assert most_calls_of_a_step(node, per_object=per_object) <= few * 1.1


def test_a_channel_that_ends_during_a_scrape_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluffle.broker.metrics.tables.PIECE", 1)
    steps_before_the_end = count()
    is_over = False
    while not is_over:
        node = Node()
        clients = [node.edge.connect() for _ in range(3)]
        for client in clients:
            client.confirm_select()
            client.publish(b"x")
            client.arrivals()
        pieces = node.pieces("application/openmetrics-text; version=1.0.0")
        text = b"".join(islice(pieces, next(steps_before_the_end)))
        is_over = text.endswith(b"# EOF\n")
        clients[1].close()
        text += b"".join(pieces)
        for name in ("received_confirm", "confirmed"):
            assert f'messages_{name}_total{{protocol="amqp091"}} 3.0\n'.encode() in text


def test_deaths_are_counted_by_what_queues_are_and_want(node: Node) -> None:
    deaths = node.edge.services.runtime.traffic.deaths
    sure = QueueType.QUORUM, DeadLetterStrategy.AT_LEAST_ONCE
    deaths.died[*sure, DeathReason.REJECTED] += 3
    deaths.confirmed += 2
    labels = {"queue_type": "rabbit_quorum_queue", "dead_letter_strategy": "at_least_once"}
    dead = "rabbitmq_global_messages_dead_lettered_"
    assert node.value(f"{dead}rejected_total", **labels) == 3
    assert node.value(f"{dead}confirmed_total", **labels) == 2
    assert node.value(f"{dead}expired_total", **labels) == 0
    once = {"queue_type": "rabbit_classic_queue", "dead_letter_strategy": "at_most_once"}
    assert node.value(f"{dead}maxlen_total", **once) == 0
    deaths.died[QueueType.CLASSIC, DISABLED, DeathReason.MAXLEN] += 4
    disabled = once | {"dead_letter_strategy": "disabled"}
    assert node.value(f"{dead}maxlen_total", **disabled) == 4
    for_mqtt = disabled | {"queue_type": "rabbit_mqtt_qos0_queue"}
    with pytest.raises(KeyError):
        node.value(f"{dead}maxlen_total", **for_mqtt)
    deaths.died[QueueType.MQTT_QOS0, DISABLED, DeathReason.MAXLEN] += 5
    assert node.value(f"{dead}maxlen_total", **for_mqtt) == 5


def test_sizes_of_messages_are_counted_by_their_bodies(node: Node) -> None:
    client = node.edge.connect()
    client.declare()
    labels = {"protocol": "amqp091"}
    size = "rabbitmq_message_size_bytes"
    client.publish(b"x" * 100, b"y" * 100)
    client.publish(b"x" * 101, properties=Properties(content_type="text/plain"))
    client.publish(b"")
    assert node.value(f"{size}_bucket", le="100.0", **labels) == 3
    assert node.value(f"{size}_bucket", le="1000.0", **labels) == 4
    assert node.value(f"{size}_bucket", le="+Inf", **labels) == 4
    assert node.value(f"{size}_count", **labels) == 4
    assert node.value(f"{size}_sum", **labels) == 301


def test_messages_that_came_together_count_as_if_they_were_alike(node: Node) -> None:
    client = node.edge.connect()
    client.declare()
    client.publish(b"x", b"x" * 299)
    size = "rabbitmq_message_size_bytes"
    assert node.value(f"{size}_bucket", le="100.0", protocol="amqp091") == 0
    assert node.value(f"{size}_bucket", le="1000.0", protocol="amqp091") == 2
    assert node.value(f"{size}_sum", protocol="amqp091") == 300


def test_the_age_of_what_is_unacknowledged_counts_from_when_it_was_seen(node: Node) -> None:
    client = node.edge.connect()
    client.declare()
    client.publish(b"1", b"2")
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    age = "fluffle_channel_unacknowledged_age_seconds"
    for passed_ms, expected in ((0, 0), (1_500, 1.5), (500, 2)):
        node.clock.advance(passed_ms)
        assert node.value(age) == expected
    (row,) = (labels for name, labels in node.scrape(per_object=True) if name == age)
    assert row == (("channel", f"{client.connection.name} (1)"),)
    client.ack(2)
    node.clock.advance(1_000)
    assert node.value(age) == 3, "the first is still there"
    client.ack(1)
    assert node.value(age) == 0
    assert all(name != age for name, _ in node.scrape(per_object=True))


def test_settled_messages_that_are_kept_are_passed_in_steps(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction keeps them, and the first one is settled last."""
    client = node.edge.connect()
    client.declare()
    (channel,) = client.connection.channels
    channel.unacked.keep()
    runs = 30 * FRONT_RUNS_MAX
    queue = engine_of(node.edge.vhost, "q")
    holder = Consumer("c", queue, FakeSink(), shared=SharedCredit())
    for _ in range(runs):
        channel.unacked.number(DeliveryBatch(holder, [ORIGIN], [b""], [0], redelivered=False))
    assert len(channel.unacked.take(2, runs - 1)[0]) == runs - 2
    assert len(channel.unacked.take(1, 1)[0]) == 1
    looked_at, most = 0, 0
    was_settled = vars(DeliveryBatch)["is_settled"].fget

    def is_settled(run: DeliveryBatch) -> bool:
        nonlocal looked_at
        looked_at += 1
        return bool(was_settled(run))

    monkeypatch.setattr(DeliveryBatch, "is_settled", property(is_settled))
    ages = UnackedAges(node.edge.services.connections, lambda: 5_000)
    for _ in ages.steps(PER_OBJECT):
        most, looked_at = max(most, looked_at), 0
    assert FRONT_RUNS_MAX < most < 10 * FRONT_RUNS_MAX
    assert channel.unacked.oldest_tag == runs


def test_commits_of_the_store_are_counted_by_time_and_size(node: Node) -> None:
    client = node.edge.connect()
    client.declare("q", durable=True)
    before = node.value("fluffle_disk_commit_seconds_count")
    small = node.value("fluffle_disk_commit_bytes_bucket", le="1000.0")
    client.publish(b"x" * 1_001, properties=Properties(delivery_mode=2))
    assert node.value("fluffle_disk_commit_seconds_count") == before + 1
    assert node.value("fluffle_disk_commit_bytes_count") == before + 1
    assert node.value("fluffle_disk_commit_bytes_bucket", le="1000.0") == small
