"""Packets of QoS 2 of sessions that last are noted before they are answered."""

from unittest.mock import patch

from fluffle.broker.base.client_session import INCOMING, OUTGOING
from fluffle.broker.protocols.mqtt.incoming_publishes import IncomingPublishes
from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Disconnect, Publish
from tests.support.mqtt_edge import MqttClient, MqttEdge


def numbers(mqtt: MqttEdge, direction: str) -> list[int]:
    return mqtt.edge.vhost.client_sessions.numbers("c", direction)


def lasting(mqtt: MqttEdge) -> MqttClient:
    return mqtt.connect("c", clean_start=False, expiry_s=60)


def test_a_packet_from_the_client_is_noted_until_it_is_released() -> None:
    mqtt = MqttEdge()
    client = lasting(mqtt)
    client.send(*(Publish(b"a", b"x", 2, packet_id=packet_id) for packet_id in (4, 2)))
    assert numbers(mqtt, INCOMING) == [4, 2]
    assert [ack[:2] for ack in client.acks()] == [(PacketType.PUBREC, 4), (PacketType.PUBREC, 2)]
    client.answer(PacketType.PUBREL, 4)
    assert numbers(mqtt, INCOMING) == [2]


def test_a_packet_to_the_client_is_noted_from_its_receipt_to_its_end() -> None:
    mqtt = MqttEdge()
    client = lasting(mqtt)
    client.subscribe("a", options=2)
    mqtt.connect("p").publish("a", b"x", 2)
    assert client.messages() == [("a", b"x", 2)]
    assert numbers(mqtt, OUTGOING) == []
    client.answer(PacketType.PUBREC, 1)
    assert numbers(mqtt, OUTGOING) == [1]
    assert client.acks() == [(PacketType.PUBREL, 1, ReasonCode.SUCCESS)]
    client.answer(PacketType.PUBCOMP, 1)
    assert numbers(mqtt, OUTGOING) == []


def test_nothing_is_noted_of_a_session_that_ends_with_its_connection() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.send(Publish(b"a", b"x", 2, packet_id=1))
    assert numbers(mqtt, INCOMING) == []
    assert len(mqtt.edge.vhost.client_sessions) == 0


def test_a_session_that_lasts_is_kept_from_its_begin_to_its_end() -> None:
    mqtt = MqttEdge()
    client = lasting(mqtt)
    sessions = mqtt.edge.vhost.client_sessions.by_client
    assert (sessions["c"].expiry_s, sessions["c"].ended_at_ms) == (60, 0)
    client.lose()
    assert sessions["c"].ended_at_ms > 0
    mqtt.edge.advance(61)
    assert sessions == {}


def test_what_fails_once_a_packet_is_noted_ends_one_connection() -> None:
    mqtt = MqttEdge()
    client, other = lasting(mqtt), mqtt.connect("d", expiry_s=60)
    failing = patch.object(IncomingPublishes, "_forgotten", side_effect=ValueError)
    with failing:
        client.answer(PacketType.PUBREL, 4)
    assert client.packets() == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
    other.send(Publish(b"a", b"x", 2, packet_id=1))
    assert other.acks() == [(PacketType.PUBREC, 1, ReasonCode.SUCCESS)]
