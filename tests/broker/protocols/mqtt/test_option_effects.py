"""Options of MQTT, by what its clients notice of them."""

# tests: fluffle.broker.protocols.mqtt.server

from __future__ import annotations

from functools import partial

import pytest

from fluffle.broker.access.access import TopicPermission, User
from fluffle.broker.access.passwords import hashed
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.definitions.parameters import set_policy
from fluffle.broker.protocols.mqtt.connection import Connection
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Will,
    encode,
)
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.protocol.properties import RETAIN
from fluffle.protocol.properties import Properties as AmqpProperties
from tests.support.definitions import EVERYTHING
from tests.support.mqtt_edge import MqttEdge


def logged_in(mqtt: MqttEdge, user: str | None, password: bytes | None) -> Connection | None:
    """The connection of a client that has come with this; None if it is refused, some seconds
    later."""
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user=user, password=password))
    mqtt.edge.advance(3.1)
    code = client.expect(Connack).code
    if code is ReasonCode.SUCCESS:
        return client.connection
    assert code is ReasonCode.BAD_USER_NAME_OR_PASSWORD
    return None


def user_and_vhost(connection: Connection | None) -> tuple[str, str]:
    assert connection is not None, "it was refused"
    assert connection.session is not None
    return connection.session.user.name, connection.session.vhost.name


def with_user(config: MqttConfig, name: str, *vhosts: str) -> MqttEdge:
    """A node with one more user, who may do everything in some virtual hosts."""
    mqtt = MqttEdge(config)
    mqtt.edge.editor.put_user(User(name, hashed(b"wonder")))
    for vhost in vhosts:
        if vhost != "/":
            mqtt.edge.editor.vhost(vhost)
        mqtt.edge.editor.put_permission(name, vhost, EVERYTHING)
    return mqtt


# Logins


def test_who_gives_nothing_is_the_user_that_the_option_names() -> None:
    mqtt = with_user(MqttConfig(anonymous_user="meter", anonymous_password="wonder"), "meter", "/")
    assert user_and_vhost(logged_in(mqtt, None, None)) == ("meter", "/")


@pytest.mark.parametrize(
    "config",
    [
        MqttConfig(anonymous_user="meter", anonymous_password="wrong"),
        MqttConfig(anonymous_user=None),
        MqttConfig(allow_anonymous=False),
    ],
)
def test_who_gives_nothing_is_refused_where_no_such_user_is(config: MqttConfig) -> None:
    mqtt = with_user(config, "meter", "/")
    assert logged_in(mqtt, None, None) is None
    assert user_and_vhost(logged_in(mqtt, "meter", b"wonder")) == ("meter", "/")


def test_who_gives_nothing_and_has_a_certificate_is_the_user_of_that() -> None:
    mqtt = with_user(MqttConfig(cert_login=True), "CN=meter", "/")
    for user, password, found in (
        (None, None, "CN=meter"),
        ("guest", b"guest", "guest"),
    ):
        client = mqtt.accept()
        client.connection.certificate = {"subject": ((("commonName", "meter"),),)}
        client.send(Connect(MQTT_5, "c", user=user, password=password))
        assert client.expect(Connack).code is ReasonCode.SUCCESS
        assert user_and_vhost(client.connection) == (found, "/")


@pytest.mark.parametrize(
    ("name", "vhost", "given"),
    [("a", "x:y", "x:y:a"), ("a", "", ":a"), ("a", "/", "a")],
)
def test_the_virtual_host_stands_before_the_last_colon(name: str, vhost: str, given: str) -> None:
    mqtt = with_user(MqttConfig(), name, vhost)
    assert user_and_vhost(logged_in(mqtt, given, b"wonder")) == (name, vhost)


def test_a_colon_may_be_of_the_user() -> None:
    mqtt = with_user(MqttConfig(ignore_colons_in_user=True), "house:a", "/", "house")
    assert user_and_vhost(logged_in(mqtt, "house:a", b"wonder")) == ("house:a", "/")
    mqtt.edge.editor.put_user(User("a", hashed(b"wonder")))
    mqtt.edge.editor.put_permission("a", "house", EVERYTHING)
    assert logged_in(mqtt, "house:b", b"wonder") is None


def test_who_names_no_virtual_host_is_in_that_of_the_option() -> None:
    mqtt = with_user(MqttConfig(vhost="house"), "a", "/", "house")
    assert user_and_vhost(logged_in(mqtt, "a", b"wonder")) == ("a", "house")
    assert user_and_vhost(logged_in(mqtt, "/:a", b"wonder")) == ("a", "/")


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_connect_has_so_many_octets_and_what_comes_behind_it_more(version: int) -> None:
    whole = encode(Connect(version, "c" * 80), version)
    for limit, is_let_in in ((len(whole), True), (len(whole) - 1, False)):
        mqtt = MqttEdge(MqttConfig(unauthenticated_packet_bytes_max=limit))
        client = mqtt.accept(version)
        client.send(whole)
        if is_let_in:
            assert client.expect(Connack).code is ReasonCode.SUCCESS
            client.publish("a", b"x" * 2 * limit)
            client.send(Pingreq())
            client.expect(Pingresp)
        else:
            assert client.packets() == []
            assert client.transport.is_lost


# The exchange


def with_exchange(config: MqttConfig) -> MqttEdge:
    """A node with one more topic exchange, `devices`."""
    mqtt = MqttEdge(config)
    mqtt.edge.connect().declare_exchange("devices", "topic")
    return mqtt


def test_clients_publish_and_subscribe_to_the_exchange_of_the_option() -> None:
    mqtt = with_exchange(MqttConfig(exchange="devices"))
    client, amqp = mqtt.connect("c"), mqtt.edge.connect()
    client.subscribe("a/+", options=1)
    for queue, exchange in (("there", "devices"), ("elsewhere", "amq.topic")):
        amqp.declare(queue)
        amqp.bind(queue, exchange, "#")
    client.publish("a/b", b"mqtt", 1)
    amqp.publish(b"amqp", exchange="devices", queue="a.b")
    amqp.publish(b"amqp", b"amqp", exchange="amq.topic", queue="a.b")
    came = [each for each in client.packets() if isinstance(each, Publishes)]
    assert [payload for run in came for payload in run.payloads] == [b"mqtt", b"amqp"]
    assert (amqp.ready_count("there"), amqp.ready_count("elsewhere")) == (2, 2)


def test_rights_and_retained_messages_are_those_of_that_exchange() -> None:
    mqtt = with_exchange(MqttConfig(exchange="devices"))
    mqtt.edge.editor.put_topic_permission("guest", "/", "amq.topic", TopicPermission("^$", "^$"))
    mqtt.edge.editor.put_topic_permission("guest", "/", "devices", TopicPermission("^a", "^a"))
    client = mqtt.connect("c")
    client.publish("b", b"x", 1, retain=True)
    client.publish("a", b"x", 1, retain=True)
    assert [code for _, _, code in client.acks()] == [
        ReasonCode.NOT_AUTHORIZED,
        ReasonCode.NO_MATCHING_SUBSCRIBERS,
    ]
    assert client.subscribe("b", "a/#") == [ReasonCode.NOT_AUTHORIZED, ReasonCode.GRANTED_QOS_1]
    assert client.messages() == [("a", b"x", 1)]
    amqp = mqtt.edge.connect()
    retained = AmqpProperties(headers={RETAIN: ("t", True)})
    for exchange in ("devices", "amq.topic"):
        amqp.publish(exchange.encode(), exchange=exchange, queue="a.kept", properties=retained)
    reader = mqtt.connect("reader")
    reader.subscribe("a/kept", options=1)
    assert [payload for _, payload, _ in reader.messages()] == [b"devices"]


def test_without_its_exchange_nothing_is_taken_and_each_client_hears_so() -> None:
    """Where no answer can say so the connection ends: a message is not lost in silence."""
    mqtt = with_exchange(MqttConfig(exchange="devices"))
    client, old = mqtt.connect("c"), mqtt.connect("old", MQTT_3_1_1)
    client.publish("a", b"x", 1)
    client.acks()
    mqtt.edge.editor.inside("/").delete_exchange("devices")
    missing = ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
    for qos, kind in ((1, PacketType.PUBACK), (2, PacketType.PUBREC)):
        packet_id = client.publish("a", b"x", qos)
        assert client.acks() == [(kind, packet_id, missing)]
    assert client.subscribe("a") == [missing]
    assert old.subscribe("a") == [ReasonCode.UNSPECIFIED_ERROR]
    client.publish("a", b"x", 0)
    assert client.packets() == [Disconnect(missing)]
    old.publish("a", b"x", 1)
    assert old.transport.is_lost
    late = mqtt.accept()
    late.send(Connect(MQTT_5, "w", will=Will(b"w", b"gone")))
    assert late.expect(Connack).code is missing


# Queues


def test_policies_leave_the_queue_of_qos_0_of_a_connection_alone() -> None:
    mqtt = MqttEdge()
    fields = {
        "pattern": "^mqtt-subscription-",
        "definition": {"max-length": 0, "message-ttl": 0},
        "apply-to": "all",
    }
    mqtt.edge.editor.have(partial(set_policy, mqtt.edge.catalogue, "/", "none", fields))
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.connection.pause_writing()
    publisher.publish("a", b"1")
    publisher.publish("a", b"2")
    client.connection.resume_writing()
    mqtt.edge.run()
    assert [payload for _, payload, _ in client.messages()] == [b"1", b"2"]


def test_a_mailbox_without_a_limit_drops_nothing() -> None:
    mqtt = MqttEdge(MqttConfig(mailbox_soft_limit=0))
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.connection.pause_writing()
    for number in range(1000):
        publisher.publish("a", b"%d" % number)
    client.connection.resume_writing()
    mqtt.edge.run()
    assert [payload for _, payload, _ in client.messages()] == [b"%d" % n for n in range(1000)]


# Sparkplug


def test_the_version_of_sparkplug_is_a_topic_to_mqtt_and_one_word_to_amqp() -> None:
    mqtt = MqttEdge(MqttConfig(sparkplug=True))
    mqtt.edge.editor.put_topic_permission(
        "guest", "/", "amq.topic", TopicPermission(r"^spBv1___0\.plant\.", r"^spBv1___0\.")
    )
    client, amqp = mqtt.connect("c"), mqtt.edge.connect()
    amqp.declare("q")
    amqp.bind("q", "amq.topic", "spBv1___0.*.NBIRTH")
    assert client.subscribe("spBv1.0/+/NBIRTH", "spAv1.0/#") == [
        ReasonCode.GRANTED_QOS_1,
        ReasonCode.NOT_AUTHORIZED,
    ]
    client.publish("spBv1.0/plant/NBIRTH", b"mqtt", 1, retain=True)
    (run, _) = client.packets()
    assert isinstance(run, Publishes)
    assert (run.topic, run.payloads) == (b"spBv1.0/plant/NBIRTH", [b"mqtt"])
    assert amqp.ready_count() == 1
    amqp.publish(b"amqp", exchange="amq.topic", queue="spBv1___0.plant.NBIRTH")
    assert client.messages() == [("spBv1.0/plant/NBIRTH", b"amqp", 0)]
    assert client.subscribe("spBv1.0/plant/#") == [ReasonCode.GRANTED_QOS_1]
    assert client.messages() == [("spBv1.0/plant/NBIRTH", b"mqtt", 1)]
