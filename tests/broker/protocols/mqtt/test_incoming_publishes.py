"""Messages of an MQTT client: when they are answered, and that they are taken once."""

from unittest.mock import patch

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.route_lookup import LookupTooLong, RouteCache
from fluffle.broker.protocols.mqtt.incoming_publishes import IncomingPublishes
from fluffle.protocol.methods import pamqp_table
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Ack, Connack, Disconnect, Publish, Subscribe, encode
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.mqtt.reader import Acks, Publishes
from fluffle.protocol.wire import to_table
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_restarts import RestartedMqtt

PUBACK, PUBREC, PUBREL, PUBCOMP = (
    PacketType.PUBACK,
    PacketType.PUBREC,
    PacketType.PUBREL,
    PacketType.PUBCOMP,
)
OK = ReasonCode.SUCCESS


def subscribed(mqtt: MqttEdge, *filters: str, options: int = 2) -> MqttClient:
    """A client that hears what is published to these topics."""
    client = mqtt.connect("subscriber")
    client.subscribe(*filters, options=options)
    return client


def test_a_message_of_qos_1_is_answered_and_of_qos_0_is_not() -> None:
    mqtt = MqttEdge()
    subscriber, client = subscribed(mqtt, "#"), mqtt.connect("c")
    client.publish("a", b"0")
    assert client.packets() == []
    packet_id = client.publish("a", b"1", 1)
    assert client.acks() == [(PUBACK, packet_id, OK)]
    assert subscriber.messages() == [("a", b"0", 0), ("a", b"1", 1)]


def test_version_5_hears_that_nobody_has_got_a_message() -> None:
    mqtt = MqttEdge()
    five, three = mqtt.connect("c"), mqtt.connect("d", MQTT_3_1_1)
    assert five.publish("a", b"", 1) == 1
    assert five.acks() == [(PUBACK, 1, ReasonCode.NO_MATCHING_SUBSCRIBERS)]
    three.publish("a", b"", 1)
    assert three.acks() == [(PUBACK, 1, OK)]


def test_a_message_of_qos_2_is_taken_once() -> None:
    mqtt = MqttEdge()
    subscriber, client = subscribed(mqtt, "#"), mqtt.connect("c")
    packet = Publish(b"a", b"once", 2, packet_id=7)
    client.send(packet)
    packet.dup = True
    client.send(packet, packet)
    assert client.acks() == [(PUBREC, 7, OK)] * 3
    client.answer(PUBREL, 7)
    assert client.acks() == [(PUBCOMP, 7, OK)]
    assert subscriber.messages() == [("a", b"once", 2)]
    client.send(packet)
    assert subscriber.messages() == [("a", b"once", 2)]


def test_a_message_of_qos_2_that_comes_again_after_a_reconnection_is_taken_once() -> None:
    mqtt = MqttEdge()
    subscriber = subscribed(mqtt, "#")
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.send(Publish(b"a", b"once", 2, packet_id=7))
    client.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.send(Publish(b"a", b"once", 2, dup=True, packet_id=7))
    assert client.acks() == [(PUBREC, 7, OK)]
    client.answer(PUBREL, 7)
    assert client.acks() == [(PUBCOMP, 7, OK)]
    assert subscriber.messages() == [("a", b"once", 2)]


@pytest.mark.parametrize(
    ("version", "code"), [(MQTT_5, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND), (MQTT_3_1_1, OK)]
)
def test_a_release_of_nothing_is_answered(version: int, code: ReasonCode) -> None:
    client = MqttEdge().connect("c", version)
    client.answer(PUBREL, 9)
    assert client.acks() == [(PUBCOMP, 9, code)]


def test_answers_come_in_the_order_of_the_messages() -> None:
    mqtt = MqttEdge()
    subscribed(mqtt, "#")
    client = mqtt.connect("c")
    packets = [
        Publish(b"a" if packet_id % 3 else b"b", b"", 1 + packet_id % 2, packet_id=packet_id)
        for packet_id in range(1, 30)
    ]
    client.send(*packets)
    acks = client.acks()
    assert [packet_id for _kind, packet_id, _code in acks] == list(range(1, 30))
    assert {kind for kind, packet_id, _ in acks if packet_id % 2} == {PUBREC}


def test_more_than_may_be_under_way_ends_version_5() -> None:
    mqtt = MqttEdge(MqttConfig(receive_max=3))
    client = mqtt.connect("c")
    client.send(*(Publish(b"a", b"", 2, packet_id=packet_id) for packet_id in range(1, 5)))
    assert client.packets()[-1] == Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)


def test_a_client_of_version_3_1_1_is_not_read_while_so_many_are_under_way() -> None:
    node = RestartedMqtt()
    node.connect("away", clean_start=False, expiry_s=60).send(Subscribe(1, [("a", 1)]))
    node.settle()
    client = node.connect("c", MQTT_3_1_1)
    under_way = MqttConfig().receive_max
    client.send(*(Publish(b"a", b"", 1, packet_id=number + 1) for number in range(under_way)))
    assert client.transport.is_reading()
    client.send(Publish(b"a", b"", 1, packet_id=under_way + 1))
    assert not client.transport.is_reading()
    node.settle()
    assert client.transport.is_reading()
    assert len(client.acks()) == under_way + 1


@pytest.mark.parametrize(
    ("version", "answers"),
    [
        (MQTT_5, [(PUBACK, 1, OK), (PUBACK, 2, ReasonCode.QUOTA_EXCEEDED)]),
        (MQTT_3_1_1, [(PUBACK, 1, OK)]),
    ],
)
def test_what_a_full_queue_rejects_is_answered_where_there_is_a_code(
    version: int, answers: list[tuple[PacketType, int, ReasonCode]]
) -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    full = to_table({"x-max-length": 1, "x-overflow": "reject-publish"})
    amqp.declare("full", arguments=pamqp_table(full))
    amqp.bind("full", "amq.topic", "a")
    client = mqtt.connect("c", version)
    client.publish("a", qos=1)
    client.publish("a", qos=1)
    assert client.acks() == answers


def test_messages_of_qos_2_that_are_not_safe_yet_count_once() -> None:
    mqtt = MqttEdge(MqttConfig(receive_max=3))
    client = mqtt.connect("c")
    client.send(*(Publish(b"%d" % number, b"", 2, packet_id=number) for number in (1, 2, 3)))
    assert client.acks() == [(PUBREC, number, OK) for number in (1, 2, 3)]
    client.send(Publish(b"a", b"", 1, packet_id=4))
    assert client.packets() == [Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)]


def test_messages_of_qos_2_that_come_again_count_once() -> None:
    mqtt = MqttEdge(MqttConfig(receive_max=3))
    packets = [Publish(b"a", b"", 2, packet_id=number) for number in (1, 2, 3)]
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.send(*packets)
    client.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    for packet in packets:
        packet.dup = True
    client.send(*packets)
    assert client.acks() == [(PUBREC, number, OK) for number in (1, 2, 3)]


def test_releases_of_something_and_of_nothing_are_answered_in_their_order() -> None:
    client = MqttEdge().connect("c")
    client.send(Publish(b"a", b"", 2, packet_id=2), Publish(b"a", b"", 2, packet_id=3))
    client.acks()
    client.answer(PUBREL, 1, 2, 3, 2)
    unknown = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    assert client.acks() == [
        (PUBCOMP, 1, unknown),
        (PUBCOMP, 2, OK),
        (PUBCOMP, 3, OK),
        (PUBCOMP, 2, unknown),
    ]


def test_a_release_that_says_that_nothing_is_known_of_the_message_ends_it() -> None:
    client = MqttEdge().connect("c")
    client.publish("a", b"", 2)
    client.acks()
    for code in (OK, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND):
        client.send(Ack(PUBREL, 1, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
        assert client.acks() == [(PUBCOMP, 1, code)]


def forbid_writing(mqtt: MqttEdge) -> None:
    mqtt.edge.editor.put_permission("guest", "/", Permission(".*", "^mqtt", ".*"))
    mqtt.edge.run()


def test_who_may_not_publish_is_notified_and_stays() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    forbid_writing(mqtt)
    client.publish("a", b"", 0)
    assert client.packets() == []
    client.publish("a", b"", 1)
    client.publish("a", b"", 2)
    refused = ReasonCode.NOT_AUTHORIZED
    assert client.acks() == [(PUBACK, 1, refused), (PUBREC, 2, refused)]
    assert not client.transport.is_lost


@pytest.mark.parametrize(
    "code", [ReasonCode.NOT_AUTHORIZED, ReasonCode.QUOTA_EXCEEDED], ids=lambda code: code.name
)
def test_a_message_of_qos_2_that_is_refused_leaves_its_identifier_free(code: ReasonCode) -> None:
    """The exchange ends with its PUBREC."""
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    if code is ReasonCode.NOT_AUTHORIZED:
        forbid_writing(mqtt)
    else:
        amqp = mqtt.edge.connect()
        full = to_table({"x-max-length": 1, "x-overflow": "reject-publish"})
        amqp.declare("full", arguments=pamqp_table(full))
        amqp.bind("full", "amq.topic", "a")
        client.publish("a", qos=1)
        client.acks()
    for _ in range(2):
        client.send(Publish(b"a", b"x", 2, packet_id=7))
        assert client.acks() == [(PUBREC, 7, code)]
    client.answer(PUBREL, 7)
    assert client.acks() == [(PUBCOMP, 7, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)]
    client.send(Publish(b"b", b"x", 1, packet_id=7))
    ((_, packet_id, _),) = client.acks()
    assert packet_id == 7


def test_what_was_taken_while_it_might_be_stays_so() -> None:
    """The message comes again in one read with one that may not be published any more."""
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.publish("a", b"1", 2)
    client.acks()
    forbid_writing(mqtt)
    client.send(*[Publish(b"a", b"", 2, packet_id=each) for each in (1, 2)])
    assert client.acks() == [(PUBREC, 1, OK), (PUBREC, 2, ReasonCode.NOT_AUTHORIZED)]
    client.answer(PUBREL, 1, 2)
    unknown = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    assert client.acks() == [(PUBCOMP, 1, OK), (PUBCOMP, 2, unknown)]


def test_who_may_not_publish_is_disconnected_where_that_is_wanted() -> None:
    mqtt = MqttEdge(MqttConfig(disconnect_on_unauthorized=True))
    client = mqtt.connect("c")
    forbid_writing(mqtt)
    client.publish("a", b"", 0)
    assert client.packets() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]


def test_only_a_client_that_cannot_be_notified_is_disconnected() -> None:
    mqtt = MqttEdge(MqttConfig(disconnect_on_unauthorized=True))
    client, old = mqtt.connect("c"), mqtt.connect("d", MQTT_3_1_1)
    mqtt.edge.editor.put_permission("guest", "/", Permission("", "", ""))
    client.publish("a", b"", 1)
    client.publish("a", b"", 2)
    refused = ReasonCode.NOT_AUTHORIZED
    assert client.acks() == [(PUBACK, 1, refused), (PUBREC, 2, refused)]
    assert client.subscribe("a", "b") == [refused, refused]
    assert not client.transport.is_lost
    old.publish("a", b"", 1)
    assert old.packets() == []
    assert old.transport.is_lost


def test_topics_are_exact_between_clients_of_mqtt() -> None:
    mqtt = MqttEdge()
    subscriber = subscribed(mqtt, "a.b", "+/c", options=0)
    client = mqtt.connect("c")
    for topic in ("a.b", "a/b", "x.y/c", "x/y/c"):
        client.publish(topic, topic.encode())
    assert [topic for topic, _, _ in subscriber.messages()] == ["a.b", "x.y/c"]


@pytest.mark.parametrize("is_released_first", [False, True])
def test_what_comes_again_more_than_once_before_it_is_safe_is_answered_as_often(
    *, is_released_first: bool
) -> None:
    node = RestartedMqtt()
    client = node.connect("c", clean_start=False, expiry_s=60)
    packet = Publish(b"a", b"once", 2, packet_id=7)
    client.send(packet)
    assert client.packets() == []
    client.lose()
    client, packet.dup = node.begin("c", clean_start=False, expiry_s=60), True
    client.send(packet, packet)
    if is_released_first:
        client.answer(PUBREL, 7)
    client.publish("a", b"", 1)
    node.settle()
    client.expect(Connack)
    acks = client.acks()
    assert acks.count((PUBREC, 7, OK)) == 2
    assert acks.count((PUBCOMP, 7, OK)) == is_released_first
    assert [ack[:2] for ack in acks if ack[0] is PUBACK] == [(PUBACK, 1)]


def test_the_publisher_of_a_lost_connection_ends_once_its_messages_are_safe() -> None:
    """However often a client is cut off: else each of its connections would be counted for ever."""
    node = RestartedMqtt()
    client = node.connect("c", clean_start=False, expiry_s=60)
    ledgers = client.connection.channel.session.traffic.ledgers  # type: ignore[union-attr]
    assert not ledgers
    for packet_id in (7, 8, 9):
        client.send(Publish(b"a", b"once", 2, packet_id=packet_id))
        client.lose()
        assert len(ledgers) == 1, "its last message is not safe yet"
        node.settle()
        assert not ledgers
        client = node.connect("c", clean_start=False, expiry_s=60)
    assert client.connection.channel.state.incoming == dict.fromkeys((7, 8, 9))  # type: ignore[union-attr]


def test_what_has_come_before_is_answered_once_if_a_route_takes_long_to_find() -> None:
    client = MqttEdge().connect("c")
    client.send(Publish(b"a", b"", 2, packet_id=7))
    assert client.acks() == [(PUBREC, 7, OK)]
    again = [Publish(b"b", b"", 2, packet_id=packet_id) for packet_id in (7, 8)]
    with patch.object(RouteCache, "run_at_once", side_effect=LookupTooLong):
        client.send(*again)
    assert client.acks() == [(PUBREC, 7, OK), (PUBREC, 8, OK)]


def test_an_identifier_of_qos_2_under_way_is_none_for_qos_1() -> None:
    mqtt = MqttEdge()
    subscriber = subscribed(mqtt, "a", options=1)
    client = mqtt.connect("c")
    client.send(Publish(b"a", b"twice", 2, packet_id=7))
    assert client.acks() == [(PUBREC, 7, OK)]
    messages = [(6, b"6"), (7, b"no"), (8, b"8")]
    client.send(*(Publish(b"a", payload, 1, packet_id=number) for number, payload in messages))
    assert sorted(client.acks(), key=lambda ack: ack[1]) == [
        (PUBACK, 6, OK),
        (PUBACK, 7, ReasonCode.PACKET_IDENTIFIER_IN_USE),
        (PUBACK, 8, OK),
    ]
    client.send(Publish(b"a", b"no", 1, packet_id=7))
    assert client.acks() == [(PUBACK, 7, ReasonCode.PACKET_IDENTIFIER_IN_USE)]
    client.answer(PUBREL, 7)
    client.expect(Acks)
    client.send(Publish(b"a", b"yes", 1, packet_id=7))
    assert client.acks() == [(PUBACK, 7, OK)]
    assert [payload for _, payload, _ in subscriber.messages()] == [b"twice", b"6", b"8", b"yes"]


@pytest.mark.parametrize("with_expiry", [False, True])
def test_very_many_properties_are_converted_in_steps_and_in_order(*, with_expiry: bool) -> None:
    mqtt = MqttEdge()
    subscriber, client = subscribed(mqtt, "a", options=1), mqtt.connect("c")
    user = [(f"name {number % 1_500}", f"value {number}") for number in range(2_000)]
    said = Properties(user=user)
    if with_expiry:
        said.values[PropertyId.MESSAGE_EXPIRY_INTERVAL] = 60
    octets = [
        encode(Publish(b"a", b"%d" % number, 1, packet_id=number, properties=raw), MQTT_5)
        for number, raw in enumerate((b"", encode_properties(said), b""), start=1)
    ]
    raw = encode_properties(said)
    assert sum(1 for _ in mqtt.server.converter.convert_in_steps(raw, 1)) == 3
    taken = IncomingPublishes.take_in_steps
    with patch.object(
        IncomingPublishes, "take_in_steps", autospec=True, side_effect=taken
    ) as steps:
        client.send(*octets)
    assert steps.call_count == 1
    assert client.acks() == [(PUBACK, number, OK) for number in (1, 2, 3)]
    runs = [each for each in subscriber.packets() if isinstance(each, Publishes)]
    assert [payload for run in runs for payload in run.payloads] == [b"1", b"2", b"3"]
    (long,) = (run for run in runs if run.properties)
    found = decode_properties(long.properties)
    assert found.user == user
    assert (found.integer(PropertyId.MESSAGE_EXPIRY_INTERVAL, 0) > 0) == with_expiry
