"""Costs of a connection: calls of Python, and nothing once it has ended, without the collector.

Clients of MQTT come and go by the thousand, and most of them say little.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from weakref import ref

import pytest

from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5
from fluffle.protocol.mqtt.packets import Connect, Disconnect, Pingreq, Publish, encode
from tests.house.publish_path import FOLDERS
from tests.support.leaks import garbage, without_collector
from tests.support.mqtt_edge import MqttClient, MqttEdge

MINUTES_S = 120
"""Longer than anything waits for a client."""

pytestmark = pytest.mark.usefixtures(without_collector.__name__)


CONNECT_CALLS_MAX = {MQTT_3_1_1: 265, MQTT_5: 269}
"""Most calls of a client that connects, pings and leaves, by version, without lines of the log."""


SUBSCRIBERS = 20
DELIVERY_CALLS_MAX = {0: 5, 1: 66}
"""Most calls for each subscriber that is sent a lone message, by QoS, up to the write."""


def calls_of_product(act: Callable[[], object]) -> int:
    """How many functions of the product `act` calls."""
    count = 0

    def notice(frame: FrameType, kind: str, _argument: object) -> None:
        nonlocal count
        count += kind == "call" and frame.f_code.co_filename.startswith(FOLDERS)

    sys.setprofile(notice)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def leave(client: MqttClient) -> None:
    client.send(Disconnect())


def lose(client: MqttClient) -> None:
    client.transport.lose()


def come_back(client: MqttClient) -> None:
    """Take the session over."""
    client.mqtt.connect("meter").send(Disconnect())


@pytest.mark.parametrize("expiry_s", [0, 60])
@pytest.mark.parametrize("end", [leave, lose, come_back])
def test_nothing_keeps_a_connection_alive_that_has_ended(
    end: Callable[[MqttClient], None], expiry_s: int
) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("meter", expiry_s=expiry_s)
    garbage()
    left = ref(client.connection)
    end(client)
    if not client.transport.is_lost:
        lose(client)
    mqtt.edge.advance(MINUTES_S)
    del client
    assert left() is None
    assert garbage() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("expiry_s", [0, 60])
@pytest.mark.parametrize("end", [leave, lose, come_back])
def test_nothing_keeps_a_connection_alive_that_has_published(
    end: Callable[[MqttClient], None], expiry_s: int, qos: int
) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("meter", expiry_s=expiry_s)
    garbage()
    left = ref(client.connection)
    client.publish("a", qos=qos, retain=True)
    client.transport.receive(encode(Publish(b"a", b"x", qos, packet_id=9 if qos else 0), MQTT_5))
    end(client)
    if not client.transport.is_lost:
        lose(client)
    mqtt.edge.advance(MINUTES_S)
    del client
    assert left() is None
    assert garbage() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("expiry_s", [0, 60])
@pytest.mark.parametrize("end", [leave, lose, come_back])
def test_nothing_keeps_a_connection_alive_that_has_subscribed(
    end: Callable[[MqttClient], None], expiry_s: int, qos: int
) -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("meter", expiry_s=expiry_s), mqtt.connect("p")
    publisher.publish("a", qos=1, retain=True)
    garbage()
    left = ref(client.connection)
    assert client.subscribe("a", "$share/g/b", options=qos)
    publisher.publish("a", qos=qos)
    publisher.publish("b", qos=qos)
    end(client)
    if not client.transport.is_lost:
        lose(client)
    mqtt.edge.advance(MINUTES_S)
    del client
    assert left() is None
    assert garbage() == []


@pytest.mark.parametrize("version", CONNECT_CALLS_MAX)
def test_a_client_that_comes_and_goes_costs_few_calls(version: int) -> None:
    mqtt = MqttEdge()
    connect = Connect(version, "meter", True, 60, user="guest", password=b"guest")
    said = [encode(each, version) for each in (connect, Pingreq(), Disconnect())]

    def come_and_go() -> None:
        client = mqtt.accept(version)
        for octets in said:
            client.send(octets)
        assert len(client.transport.writes) == 2
        assert client.transport.is_lost

    come_and_go()
    assert calls_of_product(come_and_go) <= CONNECT_CALLS_MAX[version]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_lone_message_costs_few_calls_for_each_subscriber(qos: int) -> None:
    def calls_to(subscribers: int) -> int:
        mqtt = MqttEdge()
        for number in range(subscribers):
            mqtt.connect(f"display-{number}", MQTT_3_1_1).subscribe("a", options=qos)
        publisher = mqtt.connect("meter", MQTT_3_1_1)
        publish = encode(Publish(b"a", b"x", qos, packet_id=qos), MQTT_3_1_1)
        publisher.send(publish)
        return calls_of_product(lambda: publisher.send(publish))

    few, many = calls_to(1), calls_to(1 + SUBSCRIBERS)
    assert (many - few) / SUBSCRIBERS <= DELIVERY_CALLS_MAX[qos]
