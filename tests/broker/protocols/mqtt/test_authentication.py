"""Enhanced authentication: SASL by CONNECT and AUTH, and again while connected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.access.access import Access, Permission, User
from fluffle.broker.access.access import PasswordChecksOverloaded as Overloaded
from fluffle.broker.access.passwords import hashed
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.login import MECHANISMS
from fluffle.protocol.mqtt.codes import MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Unsubscribe,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.support.mqtt_edge import MqttClient, MqttEdge

METHOD, DATA = PropertyId.AUTHENTICATION_METHOD, PropertyId.AUTHENTICATION_DATA
CONTINUE, AGAIN = ReasonCode.CONTINUE_AUTHENTICATION, ReasonCode.REAUTHENTICATE
GUEST = b"\0guest\0guest"


def properties(method: str = "PLAIN", data: bytes | None = None) -> Properties:
    values: dict[PropertyId, object] = {METHOD: method}
    if data is not None:
        values[DATA] = data
    return Properties(values)  # type: ignore[arg-type]


def begun(
    mqtt: MqttEdge, method: str = "PLAIN", data: bytes | None = None, client_id: str = "c"
) -> MqttClient:
    """A client that has sent CONNECT with a method."""
    client = mqtt.accept(MQTT_5)
    client.send(Connect(MQTT_5, client_id, properties=properties(method, data)))
    return client


def let_in(mqtt: MqttEdge) -> MqttClient:
    client = begun(mqtt, data=GUEST)
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    return client


def with_alice(mqtt: MqttEdge) -> None:
    """Have a second user."""
    mqtt.edge.editor.put_user(User("alice", hashed(b"wonder")))
    mqtt.edge.editor.put_permission("alice", "/", Permission(".*", ".*", ".*"))


def test_what_comes_with_the_method_is_enough() -> None:
    connack = begun(MqttEdge(), data=GUEST).expect(Connack)
    assert connack.code is ReasonCode.SUCCESS
    assert connack.properties.text(METHOD) == "PLAIN"


def test_who_sends_nothing_with_it_is_asked() -> None:
    mqtt = MqttEdge()
    client = begun(mqtt)
    assert client.packets() == [Auth(CONTINUE, properties())]
    client.send(Auth(CONTINUE, properties(data=GUEST)), Subscribe(1, [("a", 0)]))
    assert client.expect(Connack).properties.text(METHOD) == "PLAIN"
    assert client.connection.session is not None
    assert client.connection.session.user.name == "guest"
    assert client.connection.handshake.mechanism == "PLAIN"
    mqtt.connect("p").publish("a")
    assert len(client.packets()) == 2


def test_a_small_packet_is_reported_the_method_all_the_same() -> None:
    client = MqttEdge().accept(MQTT_5)
    asked = properties(data=GUEST)
    asked.values[PropertyId.MAXIMUM_PACKET_SIZE] = 20
    client.send(Connect(MQTT_5, "c", properties=asked))
    assert client.expect(Connack).properties.values == {METHOD: "PLAIN"}


def test_a_user_may_name_his_virtual_host() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.vhost("v")
    mqtt.edge.editor.put_permission("guest", "v", Permission(".*", ".*", ".*"))
    client = begun(mqtt, data=b"\0v:guest\0guest")
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    assert client.connection.session is not None
    assert client.connection.session.vhost.name == "v"
    client.send(Auth(AGAIN, properties(data=b"\0v:guest\0guest")))
    assert client.packets() == [Auth(ReasonCode.SUCCESS, properties())]


def test_the_user_and_the_password_of_connect_do_not_count() -> None:
    client = MqttEdge().accept(MQTT_5)
    asked = properties(data=GUEST)
    client.send(Connect(MQTT_5, "c", user="nobody", password=b"x", properties=asked))
    assert client.expect(Connack).code is ReasonCode.SUCCESS


@pytest.mark.parametrize("data", [b"\0guest\0wrong", b"guest", b"", b"\0nobody\0guest"])
def test_who_is_not_believed_hears_so_late(data: bytes) -> None:
    mqtt = MqttEdge()
    client = begun(mqtt, data=data)
    assert client.packets() == []
    mqtt.edge.advance(3)
    assert client.packets() == [Connack(ReasonCode.BAD_USER_NAME_OR_PASSWORD)]


def test_each_mechanism_is_a_method_with_what_is_asked_for_and_without() -> None:
    """The mechanisms are those of the core, without AMQPLAIN, which is of AMQP."""
    assert MECHANISMS.keys() == {"PLAIN", "EXTERNAL"}
    mqtt = MqttEdge()
    mqtt.server.services = replace(mqtt.edge.services, mechanisms=tuple(MECHANISMS))
    mqtt.edge.editor.put_user(User("CN=meter"))
    mqtt.edge.editor.put_permission("CN=meter", "/", Permission(".*", ".*", ".*"))
    for method in MECHANISMS:
        for data in (GUEST, None):
            client = mqtt.accept(MQTT_5)
            client.connection.certificate = {"subject": ((("commonName", "meter"),),)}
            client.send(Connect(MQTT_5, method, properties=properties(method, data)))
            if method == "PLAIN" and data is None:
                assert client.packets() == [Auth(CONTINUE, properties(method))]
                client.send(Auth(CONTINUE, properties(method, GUEST)))
            assert client.expect(Connack).code is ReasonCode.SUCCESS


@pytest.mark.parametrize(
    "method",
    ["SCRAM-SHA-1", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "AMQPLAIN", "plain", ""],
)
def test_a_method_that_is_not_offered_is_refused(method: str) -> None:
    client = begun(MqttEdge(), method, GUEST)
    assert client.packets() == [Connack(ReasonCode.BAD_AUTHENTICATION_METHOD)]


@pytest.mark.parametrize(
    "packet",
    [
        Auth(AGAIN, properties(data=GUEST)),
        Auth(CONTINUE, properties("EXTERNAL", GUEST)),
    ],
)
def test_a_wrong_answer_is_a_protocol_error(packet: Auth) -> None:
    client = begun(MqttEdge())
    client.expect(Auth)
    client.send(packet)
    assert client.packets() == [Connack(ReasonCode.PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    "packet",
    [Publish(b"a", b"x"), Publish(b"a", b"x", 1, packet_id=1), Subscribe(1, [("a", 0)]),
     Unsubscribe(1, ["a"]), Pingreq(), Ack(PacketType.PUBREL, 1), Connect(MQTT_5, "c")],
)  # fmt: skip
def test_who_sends_something_else_than_the_answer_hears_so_at_once(packet: Packet) -> None:
    client = begun(MqttEdge())
    client.expect(Auth)
    client.send(packet)
    assert client.packets() == [Connack(ReasonCode.PROTOCOL_ERROR)]
    assert client.transport.is_closing()


def test_who_does_not_answer_has_to_go() -> None:
    mqtt = MqttEdge(MqttConfig(login_timeout_ms=5_000))
    client = begun(mqtt)
    client.expect(Auth)
    mqtt.edge.advance(5.1)
    assert client.packets() == []
    assert client.transport.is_lost
    assert mqtt.edge.scheduler.timer_count == 0


def test_who_leaves_instead_of_answering_is_gone_at_once() -> None:
    mqtt = MqttEdge()
    client = begun(mqtt)
    client.expect(Auth)
    client.send(Disconnect())
    assert client.packets() == []
    assert client.transport.is_closing()
    assert client.connection.close_reason == "disconnected by client"
    client.lose()
    assert mqtt.edge.scheduler.timer_count == 0


def test_a_client_that_shows_again_who_it_is_leaves_behind_what_it_has_sent() -> None:
    mqtt = MqttEdge()
    watcher, client = mqtt.connect("watcher"), let_in(mqtt)
    watcher.subscribe("a", options=1)
    client.send(Auth(AGAIN, properties()))
    client.expect(Auth)
    client.send(Publish(b"a", b"last", 1, packet_id=1), Disconnect())
    assert watcher.messages() == [("a", b"last", 1)]
    assert client.transport.is_closing()


def test_a_client_shows_again_who_it_is_as_often_as_it_wants() -> None:
    mqtt = MqttEdge()
    client = let_in(mqtt)
    done = Auth(ReasonCode.SUCCESS, properties())
    client.send(Auth(AGAIN, properties(data=GUEST)))
    assert client.packets() == [done]
    client.send(Auth(AGAIN, properties()))
    assert client.packets() == [Auth(CONTINUE, properties())]
    client.publish("nowhere", b"", 1)
    assert len(client.acks()) == 1
    client.send(Auth(CONTINUE, properties(data=GUEST)))
    assert client.packets() == [done]
    mqtt.edge.advance(60)
    assert not client.transport.is_lost


def test_who_comes_while_too_many_passwords_are_compared_hears_that_and_may_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mqtt = MqttEdge()
    clients = {again: let_in(mqtt) if again else mqtt.accept() for again in (False, True)}
    monkeypatch.setattr(
        Access, "login", lambda _self, _name, _password, answer, **_: answer(Overloaded())
    )
    clients[False].send(Connect(MQTT_5, "d", user="guest", password=b"guest"))
    assert clients[False].packets() == [Connack(ReasonCode.SERVER_BUSY)]
    clients[True].send(Auth(AGAIN, properties(data=GUEST)))
    assert clients[True].packets() == [Disconnect(ReasonCode.SERVER_BUSY)]
    assert all(each.transport.is_lost for each in clients.values())


def test_a_certificate_is_a_method_with_nothing_to_say() -> None:
    mqtt = MqttEdge()
    mqtt.server.services = replace(mqtt.edge.services, mechanisms=("EXTERNAL",))
    mqtt.edge.editor.put_user(User("CN=meter"))
    mqtt.edge.editor.put_permission("CN=meter", "/", Permission(".*", ".*", ".*"))
    assert begun(mqtt, "EXTERNAL").expect(Connack).code is ReasonCode.BAD_AUTHENTICATION_METHOD
    client = mqtt.accept(MQTT_5)
    client.connection.certificate = {"subject": ((("commonName", "meter"),),)}
    client.send(Connect(MQTT_5, "c", properties=properties("EXTERNAL")))
    assert client.expect(Connack).properties.text(METHOD) == "EXTERNAL"
    client.send(Auth(AGAIN, properties("EXTERNAL")))
    assert client.packets() == [Auth(ReasonCode.SUCCESS, properties("EXTERNAL"))]


@pytest.mark.parametrize("data", [b"\0guest\0wrong", b"guest", b"\0alice\0wonder"])
def test_who_shows_something_else_is_ended(data: bytes) -> None:
    mqtt = MqttEdge()
    with_alice(mqtt)
    client = let_in(mqtt)
    client.send(Auth(AGAIN, properties(data=data)))
    assert client.packets() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]
    assert client.connection.session is None


@pytest.mark.parametrize(
    "packets",
    [
        [Auth(CONTINUE, properties(data=GUEST))],
        [Auth(AGAIN, properties("EXTERNAL"))],
        [Auth(AGAIN, properties()), Auth(AGAIN, properties(data=GUEST))],
    ],
)
def test_what_does_not_belong_there_is_a_protocol_error(packets: list[Auth]) -> None:
    client = let_in(MqttEdge())
    client.send(*packets)
    assert client.packets()[-1] == Disconnect(ReasonCode.PROTOCOL_ERROR)
