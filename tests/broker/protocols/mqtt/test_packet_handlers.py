"""Packets of an MQTT client: what each does, and in which order."""

from unittest.mock import PropertyMock, patch

from fluffle.broker.protocols.mqtt.packet_keeper import PacketKeeper
from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Auth,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
)
from tests.support.mqtt_edge import MqttEdge


def test_what_comes_behind_a_subscribe_is_acted_on_behind_it() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.send(Subscribe(1, [("a", 0)]), Publish(b"a", b"x"), Pingreq())
    client.expect(Suback)
    kinds = {type(each).__name__ for each in client.packets()}
    assert kinds == {"Publishes", "Pingresp"}


def test_an_alarm_holds_who_publishes_and_nobody_else() -> None:
    mqtt = MqttEdge()
    publisher, client = mqtt.connect("p"), mqtt.connect("c")
    client.subscribe("a", options=1)
    mqtt.edge.services.alarms.set("memory", low=True)
    publisher.publish("a", b"x", 1)
    assert client.packets() == []
    assert publisher.connection.state == "blocked"
    client.send(Pingreq())
    client.expect(Pingresp)
    mqtt.edge.services.alarms.set("memory", low=False)
    mqtt.edge.run()
    assert client.messages() == [("a", b"x", 1)]
    assert publisher.acks() == [(PacketType.PUBACK, 1, ReasonCode.SUCCESS)]


def test_authentication_that_was_not_begun_ends_the_connection() -> None:
    client = MqttEdge().connect("c")
    client.send(Auth(ReasonCode.REAUTHENTICATE))
    assert [type(each) for each in client.packets()] == [Disconnect]


def test_a_receipt_of_the_wrong_kind_in_a_cluster_ends_the_connection_and_loses_nothing() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("a", options=2)
    publisher.publish("a", b"twice", 2)
    publisher.publish("a", b"once", 1)
    messages = [("a", b"twice", 2), ("a", b"once", 1)]
    assert client.messages() == messages
    in_cluster = patch.object(PacketKeeper, "goes_with_messages", PropertyMock(return_value=False))
    with in_cluster:
        client.send(Ack(PacketType.PUBREC, 1), Ack(PacketType.PUBREC, 2))
    assert client.packets() == [Disconnect(ReasonCode.PROTOCOL_ERROR)]
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.messages() == messages
    with in_cluster:
        client.answer(PacketType.PUBREC, 1, 9)
    unknown = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    assert client.acks() == [
        (PacketType.PUBREL, 1, ReasonCode.SUCCESS),
        (PacketType.PUBREL, 9, unknown),
    ]
