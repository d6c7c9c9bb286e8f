"""Packets of an MQTT client: what each does, and in which order."""

from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
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
