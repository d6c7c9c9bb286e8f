"""Counters of MQTT clients: by the version that they speak, and by session."""

from __future__ import annotations

from itertools import chain

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.base.logs import REPEATED_AFTER_MS
from fluffle.broker.base.traffic import ClientDrop, ClientTraffic
from fluffle.broker.config.config import Config, MqttConfig
from fluffle.broker.metrics.collector import NodeCollector
from fluffle.broker.metrics.endpoint import AGGREGATED
from fluffle.broker.protocols.mqtt.conversion import LONG_BYTES
from fluffle.broker.protocols.mqtt.server import TRAFFIC_LABELS
from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.packets import Connack, Connect, Publish, Suback, Subscribe, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from tests.support.edge import Client, Edge
from tests.support.manual_clock import ManualClock
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_nodes import MqttNodes
from tests.support.no_cluster import NoCluster


def of(mqtt: MqttEdge, version: int) -> ClientTraffic:
    return mqtt.edge.services.runtime.traffic.of(TRAFFIC_LABELS[version])


def confirms(traffic: ClientTraffic) -> tuple[int, int]:
    """Messages that were to be confirmed, and were."""
    ledgers = traffic.ledgers
    return (
        traffic.received_confirm + sum(each.assigned_count for each in ledgers),
        traffic.confirmed + sum(each.accepted_count for each in ledgers),
    )


def test_all_versions_are_in_metrics_before_anybody_speaks_them() -> None:
    traffic = MqttEdge().edge.services.runtime.traffic
    assert set(traffic.protocols) == {"amqp091", "mqtt310", "mqtt311", "mqtt50"}
    assert set(traffic.logins) == {"amqp091", "mqtt"}


def test_messages_count_for_the_version_of_their_client() -> None:
    mqtt = MqttEdge()
    publisher, subscriber = mqtt.connect("p", 4), mqtt.connect("s", 5)
    subscriber.subscribe("a", options=2)
    for qos in (0, 1, 2):
        publisher.publish("a", qos=qos)
    publisher.publish("nowhere", qos=1)
    old, new = of(mqtt, 4), of(mqtt, 5)
    assert (old.received, old.routed, old.unroutable_dropped) == (4, 3, 1)
    assert confirms(old) == (3, 3)
    assert (new.received, confirms(new)) == (0, (0, 0))
    assert (new.from_queues.consumed_manual_ack, old.from_queues.delivered) == (3, 0)
    publisher.lose()
    assert (old.received_confirm, old.confirmed, len(old.ledgers)) == (3, 3, 0)


def test_a_message_counts_as_delivered_once_though_both_queues_had_it() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("a", options=0)
    client.subscribe("+", options=1)
    client.publish("a", qos=1)
    traffic = of(mqtt, 5)
    assert traffic.routed == 2
    assert traffic.from_queues.delivered + traffic.from_qos0_queues.delivered == 1
    assert sum(traffic.dropped.values()) == 0


def test_what_is_too_large_for_its_client_is_dropped_and_said() -> None:
    mqtt = MqttEdge()
    client = mqtt.accept(5)
    limit = Properties({PropertyId.MAXIMUM_PACKET_SIZE: 100})
    client.send(Connect(5, "c", user="guest", password=b"guest", properties=limit))
    client.packets()
    client.subscribe("a", options=1)
    mqtt.connect("p").publish("a", b"x" * 200, qos=1)
    traffic = of(mqtt, 5)
    assert traffic.dropped[ClientDrop.PACKET_TOO_LARGE] == 1
    assert traffic.from_queues.delivered == 0


def test_a_retained_message_that_is_too_large_for_its_client_is_dropped_and_said() -> None:
    mqtt = MqttEdge()
    mqtt.connect("p").publish("a", b"x" * 200, qos=1, retain=True)
    client = mqtt.accept(5)
    limit = Properties({PropertyId.MAXIMUM_PACKET_SIZE: 100})
    client.send(Connect(5, "c", user="guest", password=b"guest", properties=limit))
    client.packets()
    client.subscribe("a", options=1)
    assert client.messages() == []
    assert of(mqtt, 5).dropped[ClientDrop.PACKET_TOO_LARGE] == 1


def unanswerable(mqtt: MqttEdge) -> MqttClient:
    """A client without the right to publish, that is not ended for it and has no answer for it."""
    client = mqtt.connect("c", 4)
    mqtt.edge.editor.put_permission("guest", "/", Permission("", "", ""))
    return client


def test_what_may_not_be_published_and_cannot_be_refused_is_dropped_and_said() -> None:
    mqtt = MqttEdge(MqttConfig(disconnect_on_unauthorized=False))
    client = unanswerable(mqtt)
    client.publish("a")
    client.publish("a", qos=1)
    assert of(mqtt, 4).dropped[ClientDrop.NOT_AUTHORIZED] == 2
    assert of(mqtt, 4).received == 0


def test_what_cannot_be_retained_is_said() -> None:
    mqtt = MqttEdge()
    retained = mqtt.edge.services.retained
    retained._limits = retained._limits._replace(messages_max=1)
    client = mqtt.connect("c", 4)
    for topic in ("a", "b"):
        client.publish(topic, retain=True)
    assert of(mqtt, 4).dropped[ClientDrop.NOT_RETAINED] == 1
    assert mqtt.edge.vhost.retained.count == 1


LONGEST, TOO_LONG = "a" + "/b" * 127, "a" + "/b" * 127 + "c"
"""The longest topic that AMQP has a routing key for, and one that is an octet longer."""


def bound_to_all(edge: Edge) -> Client:
    """A client of AMQP with a queue that is bound to every routing key."""
    amqp = edge.connect()
    amqp.declare("all")
    amqp.bind("all", "amq.topic", "#")
    return amqp


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_has_a_topic_too_long_for_amqp_is_dropped_there_and_said(
    qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    mqtt = MqttEdge()
    amqp = bound_to_all(mqtt.edge)
    subscriber, publisher = mqtt.connect("s"), mqtt.connect("p", 4)
    subscriber.subscribe("#", options=0)
    publisher.publish(LONGEST, qos=qos)
    assert of(mqtt, 4).dropped[ClientDrop.TOPIC_TOO_LONG] == 0
    publisher.publish(TOO_LONG, qos=qos)
    run = [Publish(TOO_LONG.encode(), b"x", qos, packet_id=qos and 10 + at) for at in range(3)]
    publisher.send(*run)
    assert [topic for topic, *_ in subscriber.messages()] == [LONGEST] + [TOO_LONG] * 4
    assert amqp.ready_count("all") == 1
    assert of(mqtt, 4).dropped[ClientDrop.TOPIC_TOO_LONG] == 4
    assert caplog.messages == ["topic_too_long_for_amqp"]
    mqtt.edge.advance(REPEATED_AFTER_MS / 1000)
    publisher.publish(TOO_LONG, qos=qos)
    assert caplog.messages == ["topic_too_long_for_amqp"] * 2


def test_what_takes_steps_to_convert_has_a_topic_too_long_too() -> None:
    mqtt = MqttEdge()
    properties = encode_properties(Properties(user=[("name", "v" * LONG_BYTES)]))
    mqtt.connect("p").send(Publish(TOO_LONG.encode(), b"x", properties=properties))
    assert of(mqtt, 5).dropped[ClientDrop.TOPIC_TOO_LONG] == 1


def test_what_may_not_be_published_is_not_too_long() -> None:
    mqtt = MqttEdge(MqttConfig(disconnect_on_unauthorized=False))
    unanswerable(mqtt).publish(TOO_LONG)
    assert of(mqtt, 4).dropped[ClientDrop.TOPIC_TOO_LONG] == 0


def test_a_will_with_a_topic_too_long_for_amqp_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mqtt = MqttEdge()
    amqp = bound_to_all(mqtt.edge)
    watcher = mqtt.connect("w")
    watcher.subscribe("a/#")
    mqtt.connect("c", 4, will=Will(TOO_LONG.encode(), b"gone", 1)).lose()
    assert watcher.messages() == [(TOO_LONG, b"gone", 1)]
    assert amqp.ready_count("all") == 0
    assert of(mqtt, 5).dropped[ClientDrop.TOPIC_TOO_LONG] == 1
    assert "topic_too_long_for_amqp" in caplog.messages


def test_a_packet_that_is_noted_first_in_a_cluster_is_counted_too() -> None:
    nodes = MqttNodes()
    publisher, subscriber = nodes.begin("a", "p"), nodes.begin("b", "s")
    nodes.settle()
    publisher.expect(Connack)
    subscriber.expect(Connack)
    subscriber.send(Subscribe(1, [("#", 2)]))
    nodes.settle()
    subscriber.expect(Suback)
    publisher.send(*(Publish(TOO_LONG.encode(), b"x", 2, packet_id=1 + at) for at in range(2)))
    nodes.settle()
    assert subscriber.messages() == [(TOO_LONG, b"x", 2)] * 2
    traffic = publisher.edge.services.runtime.traffic.of(TRAFFIC_LABELS[5])
    assert traffic.dropped[ClientDrop.TOPIC_TOO_LONG] == 2


def test_sessions_are_counted_by_whether_their_clients_are_there() -> None:
    mqtt = MqttEdge()
    mqtt.connect("a", expiry_s=60)
    mqtt.connect("a", expiry_s=60)
    mqtt.connect("b", expiry_s=60).lose()
    mqtt.connect("c")
    (keeper,) = mqtt.edge.services.connections.session_keepers
    counts = keeper.session_counts()
    assert (counts.connected, counts.away, counts.taken_over) == (2, 1, 1)


def test_acknowledgements_count_for_the_version_too() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", 3)
    client.subscribe("a", options=1)
    client.publish("a", qos=1)
    client.answer(PacketType.PUBACK, 1)
    assert of(mqtt, 3).from_queues.acknowledged == 1


def test_a_client_is_one_consumer_however_many_queues_it_has() -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    amqp.declare()
    amqp.consume()
    client = mqtt.connect("c", 4)
    mqtt.connect("d", 4)
    client.subscribe("a", options=0)
    client.subscribe("b", options=1)
    collector = NodeCollector(mqtt.edge.services, Config(), ManualClock(), NoCluster())
    found = {
        sample.labels["protocol"]: sample.value
        for family in chain.from_iterable(collector.steps(AGGREGATED))
        if family.name == "rabbitmq_global_consumers"
        for sample in family.samples
    }
    assert found == {"amqp091": 1, "mqtt310": 0, "mqtt311": 1, "mqtt50": 0}
