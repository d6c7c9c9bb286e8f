"""Topic aliases towards clients that take some: fewer octets, and the same messages."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt import publish_runs
from fluffle.broker.protocols.mqtt.delivery_terms import (
    ALIASED_TOPIC_BYTES_MAX,
    ALIASED_TOPIC_BYTES_MIN,
)
from fluffle.protocol.mqtt.codes import MQTT_5, PacketType
from fluffle.protocol.mqtt.hot import build_publishes
from fluffle.protocol.mqtt.packets import Connack, Connect, Publish
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.support.mqtt_edge import MqttClient, MqttEdge


def taking(
    mqtt: MqttEdge, aliases_max: int, client_id: str = "c", *, packet_bytes_max: int = 0
) -> MqttClient:
    """A client that takes so many aliases, and remembers them over all that it is sent."""
    client = mqtt.accept(MQTT_5)
    client._reader.topic_alias_max = aliases_max
    values = {
        PropertyId.TOPIC_ALIAS_MAXIMUM: aliases_max,
        PropertyId.SESSION_EXPIRY_INTERVAL: 60,
        PropertyId.MAXIMUM_PACKET_SIZE: packet_bytes_max,
    }
    asked = Properties({key: value for key, value in values.items() if value})
    client.send(
        Connect(
            MQTT_5, client_id, clean_start=False, user="guest", password=b"guest", properties=asked
        )
    )
    client.expect(Connack)
    return client


def octets(client: MqttClient) -> bytes:
    """Bytes written to a client."""
    return b"".join(client.transport.writes)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_is_written_once(qos: int) -> None:
    mqtt = MqttEdge()
    client, publisher = taking(mqtt, 5), mqtt.connect("p")
    client.subscribe("meters/#", options=qos)
    for payload in (b"1", b"2"):
        publisher.publish("meters/seven", payload, qos)
        publisher.publish("meters/eight", payload, qos)
    assert client.messages() == [
        (topic, payload, qos)
        for payload in (b"1", b"2")
        for topic in ("meters/seven", "meters/eight")
    ]
    assert octets(client).count(b"meters/seven") == octets(client).count(b"meters/eight") == 1


def test_a_run_has_the_topic_in_its_first_message_alone() -> None:
    mqtt = MqttEdge()
    client, publisher = taking(mqtt, 5), mqtt.connect("p")
    client.subscribe("meters/#", options=0, identifier=7)
    publisher.send(*(Publish(b"meters/seven", b"%d" % number) for number in range(5)))
    assert [payload for _, payload, _ in client.messages()] == [b"0", b"1", b"2", b"3", b"4"]
    assert octets(client).count(b"meters/seven") == 1


def test_the_first_topics_keep_theirs() -> None:
    mqtt = MqttEdge(MqttConfig(topic_alias_max=2))
    client, publisher = taking(mqtt, 5), mqtt.connect("p")
    client.subscribe("meters/#", options=0)
    topics = [f"meters/{number}" for number in range(3)]
    for topic in topics * 2:
        publisher.publish(topic)
    assert [topic for topic, _, _ in client.messages()] == topics * 2
    assert [octets(client).count(topic.encode()) for topic in topics] == [1, 1, 2]


@pytest.mark.parametrize("size", [ALIASED_TOPIC_BYTES_MIN - 1, ALIASED_TOPIC_BYTES_MAX + 1])
def test_what_saves_nothing_or_is_very_long_has_none(size: int) -> None:
    mqtt = MqttEdge()
    client, publisher = taking(mqtt, 5), mqtt.connect("p")
    client.subscribe("+", options=0)
    topic = "x" * size
    publisher.publish(topic)
    publisher.publish(topic)
    assert client.messages() == [(topic, b"x", 0)] * 2
    assert octets(client).count(topic.encode()) == 2


def test_retained_messages_have_them_too() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    publisher.publish("meters/seven", b"old", 1, retain=True)
    client = taking(mqtt, 5)
    for topic_filter in ("meters/#", "meters/seven"):
        client.subscribe(topic_filter, options=1)
        assert client.messages() == [("meters/seven", b"old", 1)]
    assert octets(client).count(b"meters/seven") == 1


def test_another_connection_begins_afresh() -> None:
    mqtt = MqttEdge()
    client, publisher = taking(mqtt, 5), mqtt.connect("p")
    client.subscribe("meters/#", options=1)
    publisher.publish("meters/seven", b"1", 1)
    client.answer(PacketType.PUBACK, 1)
    publisher.publish("meters/seven", b"2", 1)
    client.messages()
    client.lose()
    client = taking(mqtt, 5)
    assert client.messages() == [("meters/seven", b"2", 1)]
    publisher.publish("meters/seven", b"3", 1)
    assert client.messages() == [("meters/seven", b"3", 1)]
    assert octets(client).count(b"meters/seven") == 1


def test_an_alias_makes_no_packet_too_large() -> None:
    """A message that fits without one, but not with both, is sent without."""
    mqtt = MqttEdge()
    client, publisher = taking(mqtt, 5, packet_bytes_max=60), mqtt.connect("p")
    client.subscribe("meters/#", options=0)
    for size in range(20, 60):
        publisher.publish("meters/seven", b"x" * size)
    sizes = [len(payload) for _, payload, _ in client.messages()]
    assert sizes == list(range(20, sizes[-1] + 1))
    assert sizes[-1] >= 35


def test_who_takes_none_shares_what_is_made_once_and_who_takes_some_does_not_hinder() -> None:
    mqtt = MqttEdge()
    plain = [mqtt.connect(f"plain{number}") for number in range(5)]
    aliased = [taking(mqtt, 5, f"aliased{number}") for number in range(5)]
    for client in (*plain, *aliased):
        client.subscribe("meters/#", options=0)
    publisher = mqtt.connect("p")
    publisher.publish("meters/seven")
    with patch.object(publish_runs, "build_publishes", wraps=build_publishes) as build:
        publisher.send(*(Publish(b"meters/seven", b"%d" % number) for number in range(5)))
    assert build.call_count == 2
    for client in (*plain, *aliased):
        assert len(client.messages()) == 6
