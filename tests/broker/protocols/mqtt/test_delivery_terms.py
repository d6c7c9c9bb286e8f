"""Clients with a Maximum Packet Size: what is as large as that comes, and nothing larger."""

from __future__ import annotations

import pytest

from fluffle.broker.protocols.mqtt.delivery_terms import PACKET_OVERHEAD_BYTES, publish_bytes
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.hot import build_publishes
from fluffle.protocol.mqtt.packets import Connack, Connect, Publish, encode
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from tests.support.mqtt_edge import MqttClient, MqttEdge

LIMIT_BYTES = 150
TOPIC = "meters/seven"
EXPIRY = Properties({PropertyId.MESSAGE_EXPIRY_INTERVAL: 60})
ALIAS = Properties({PropertyId.TOPIC_ALIAS: 1})


def limited(mqtt: MqttEdge, *, aliases_max: int = 0) -> MqttClient:
    """A client that takes no packet of more than `LIMIT_BYTES`, and whose session lasts."""
    client = mqtt.accept(MQTT_5)
    client._reader.topic_alias_max = aliases_max
    values = {
        PropertyId.MAXIMUM_PACKET_SIZE: LIMIT_BYTES,
        PropertyId.SESSION_EXPIRY_INTERVAL: 60,
        PropertyId.TOPIC_ALIAS_MAXIMUM: aliases_max,
    }
    properties = Properties({key: value for key, value in values.items() if value})
    client.send(Connect(MQTT_5, "c", False, user="guest", password=b"guest", properties=properties))
    client.expect(Connack)
    return client


def sized(
    packet_bytes: int, qos: int, properties: Properties | None = None, topic: str = TOPIC
) -> bytes:
    """A payload with which a packet is so large."""
    packet_id = 1 if qos else 0
    properties = properties or Properties()
    octets = encode_properties(properties)
    for size in range(packet_bytes):
        payload = b"x" * size
        packet = Publish(topic.encode(), payload, qos, packet_id=packet_id, properties=octets)
        if len(encode(packet, MQTT_5)) == packet_bytes:
            return payload
    raise AssertionError("no payload makes such a packet")


def publish(client: MqttClient, payload: bytes, qos: int, properties: Properties) -> None:
    packet_id = client.next_id() if qos else 0
    octets = encode_properties(properties)
    client.send(Publish(TOPIC.encode(), payload, qos, packet_id=packet_id, properties=octets))


SIZES = [LIMIT_BYTES - 1, LIMIT_BYTES, LIMIT_BYTES + 1]
AROUND = pytest.mark.parametrize("packet_bytes", SIZES)


@pytest.mark.parametrize("properties", [Properties(), EXPIRY], ids=["plain", "expiring"])
@pytest.mark.parametrize("is_away", [False, True], ids=["there", "away"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@AROUND
def test_a_message_as_large_as_the_client_takes_comes(
    packet_bytes: int, qos: int, is_away: bool, properties: Properties
) -> None:
    mqtt = MqttEdge()
    client, publisher = limited(mqtt), mqtt.connect("p")
    client.subscribe(TOPIC, options=qos)
    payload = sized(packet_bytes, qos, properties)
    if is_away:
        client.lose()
    publish(publisher, payload, qos, properties)
    if is_away:
        client = limited(mqtt)
    expected = [(TOPIC, payload, qos)] if packet_bytes <= LIMIT_BYTES else []
    assert client.messages() == expected


@AROUND
def test_a_message_that_comes_again_is_as_large_as_it_was(packet_bytes: int) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.subscribe(TOPIC, options=1)
    payload = sized(packet_bytes, 1)
    mqtt.connect("p").publish(TOPIC, payload, 1)
    assert client.messages() == [(TOPIC, payload, 1)]
    client.lose()
    expected = [(TOPIC, payload, 1)] if packet_bytes <= LIMIT_BYTES else []
    assert limited(mqtt).messages() == expected


@pytest.mark.parametrize("properties", [Properties(), EXPIRY], ids=["plain", "expiring"])
@pytest.mark.parametrize("qos", [0, 1])
@AROUND
def test_a_retained_message_as_large_as_the_client_takes_comes(
    packet_bytes: int, qos: int, properties: Properties
) -> None:
    mqtt = MqttEdge()
    publisher, payload = mqtt.connect("p"), sized(packet_bytes, qos, properties)
    octets, packet_id = encode_properties(properties), publisher.next_id()
    publisher.send(
        Publish(TOPIC.encode(), payload, 1, retain=True, packet_id=packet_id, properties=octets)
    )
    client = limited(mqtt)
    client.subscribe(TOPIC, options=qos)
    expected = [(TOPIC, payload, qos)] if packet_bytes <= LIMIT_BYTES else []
    assert client.messages() == expected


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1])
@AROUND
def test_an_alias_that_makes_a_packet_short_enough_has_it_come(
    packet_bytes: int, qos: int, retain: bool
) -> None:
    mqtt = MqttEdge()
    client, publisher = limited(mqtt, aliases_max=1), mqtt.connect("p")
    client.subscribe(TOPIC, options=qos)
    publisher.publish(TOPIC, b"first", qos)
    assert client.messages() == [(TOPIC, b"first", qos)]
    payload = sized(packet_bytes, qos, ALIAS, topic="")
    if retain:
        client.unsubscribe(TOPIC)
    publisher.publish(TOPIC, payload, 1, retain=retain)
    if retain:
        client.subscribe(TOPIC, options=qos)
    expected = [(TOPIC, payload, qos)] if packet_bytes <= LIMIT_BYTES else []
    assert client.messages() == expected


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("properties_bytes", [0, 127, 128, 16_383, 16_384])
@pytest.mark.parametrize("payload_bytes", [0, 50, 119, 127, 128, 16_200, 16_384, 2_097_152])
def test_the_size_is_that_of_the_packet(
    payload_bytes: int, properties_bytes: int, qos: int
) -> None:
    topic, properties, payload = b"a/b", bytes(properties_bytes), bytes(payload_bytes)
    pieces: list[bytes] = []
    packet_ids = [7] if qos else []
    build_publishes(
        pieces,
        topic,
        properties,
        [payload],
        flags=qos << 1,
        version=MQTT_5,
        packet_ids=packet_ids,
    )
    size_bytes = publish_bytes(topic, properties, payload_bytes, qos)
    assert size_bytes == sum(map(len, pieces))
    assert size_bytes <= len(topic) + properties_bytes + payload_bytes + PACKET_OVERHEAD_BYTES
