"""Retained messages: what is kept, and who is sent it when."""

from unittest.mock import patch

import pytest

from fluffle.broker.config.config import MqttConfig
from fluffle.broker.definitions.retained import RetainedLimits
from fluffle.broker.protocols.mqtt.outgoing_publishes import OutgoingPublishes
from fluffle.broker.protocols.mqtt.retained_messages import MESSAGES_AT_ONCE
from fluffle.protocol.methods import pamqp_table
from fluffle.protocol.mqtt.codes import MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import decode_properties
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.protocol.wire import to_table
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttClient, MqttEdge

IF_NEW, NEVER = 1 << 4, 2 << 4


def retained(client: MqttClient) -> list[tuple[bytes, int, bool]]:
    """Take everything, which must be messages: payload, QoS and RETAIN."""
    found: list[tuple[bytes, int, bool]] = []
    for run in client.packets():
        assert isinstance(run, Publishes), run
        found += [(payload, run.qos, run.retain) for payload in run.payloads]
    return found


def test_the_last_message_of_each_topic_is_sent_to_new_subscriptions() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for number, qos in enumerate((0, 1, 2)):
        publisher.publish(f"a/{qos}", b"old", qos, retain=True)
        publisher.publish(f"a/{qos}", b"%d" % number, qos, retain=True)
    client = mqtt.connect("c")
    client.subscribe("a/#", options=2)
    assert retained(client) == [(b"0", 0, True), (b"1", 1, True), (b"2", 2, True)]
    client.subscribe("a/2", options=1)
    assert retained(client) == [(b"2", 1, True)]


def test_what_a_deleted_user_has_retained_stays() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.grant_everything("meter", b"secret", ["/"])
    publisher = mqtt.accept(MQTT_5)
    publisher.send(Connect(MQTT_5, "p", user="meter", password=b"secret"))
    publisher.expect(Connack)
    publisher.publish("a", b"x", 1, retain=True)
    mqtt.edge.editor.delete_user("meter")
    mqtt.edge.run()
    assert publisher.transport.is_lost
    client = mqtt.connect("c")
    client.subscribe("a", options=1)
    assert retained(client) == [(b"x", 1, True)]


def test_a_message_of_qos_2_is_retained_once_though_its_release_comes_over_another_connection() -> (
    None
):
    mqtt = MqttEdge()
    live = mqtt.connect("live")
    live.subscribe("a", options=0)
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.publish("a", b"1", 2, retain=True)
    client.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.send(Publish(b"a", b"1", 2, retain=True, dup=True, packet_id=1))
    client.answer(PacketType.PUBREL, 1)
    assert [code for _, _, code in client.acks()] == [ReasonCode.SUCCESS, ReasonCode.SUCCESS]
    assert live.messages() == [("a", b"1", 0)]
    late = mqtt.connect("late")
    late.subscribe("a", options=1)
    assert late.messages() == [("a", b"1", 1)]


def test_an_empty_message_removes_what_was_kept() -> None:
    mqtt = MqttEdge()
    publisher, live = mqtt.connect("p"), mqtt.connect("live")
    live.subscribe("a", options=0)
    publisher.publish("a", b"x", 1, retain=True)
    publisher.publish("a", b"", 1, retain=True)
    assert retained(live) == [(b"x", 0, False), (b"", 0, False)]
    client = mqtt.connect("c")
    client.subscribe("a", options=0)
    assert client.packets() == []


def test_a_subscription_says_whether_it_wants_them() -> None:
    mqtt = MqttEdge()
    mqtt.connect("p").publish("a", b"x", retain=True)
    client = mqtt.connect("c")
    client.subscribe("a", options=NEVER)
    assert client.packets() == []
    client.subscribe("a", options=IF_NEW)
    assert client.packets() == []
    client.unsubscribe("a")
    client.subscribe("a", options=IF_NEW)
    assert retained(client) == [(b"x", 0, True)]


def test_they_come_with_the_identifier_of_their_subscription() -> None:
    mqtt = MqttEdge()
    mqtt.connect("p").publish("a", b"x", retain=True)
    client = mqtt.connect("c")
    client.subscribe("#", options=NEVER, identifier=3)
    client.subscribe("a", options=0, identifier=4)
    (run,) = client.packets()
    assert isinstance(run, Publishes)
    assert decode_properties(run.properties).subscription_ids == [4]


def test_many_are_sent_as_the_client_acknowledges_them() -> None:
    mqtt = MqttEdge(MqttConfig(prefetch=10))
    publisher = mqtt.connect("p")
    for number in range(90):
        publisher.publish(f"a/{number}", b"x", 1, retain=True)
    publisher.packets()
    client = mqtt.connect("c")
    client.subscribe("a/+", options=1)
    count = 0
    while came := client.packets():
        runs = [run for run in came if isinstance(run, Publishes)]
        ids = [packet_id for run in runs for packet_id in run.packet_ids]
        assert len(ids) <= 10
        count += len(ids)
        client.answer(PacketType.PUBACK, *ids)
    assert count == 90


def test_ten_thousand_that_match_are_sent_some_a_turn() -> None:
    mqtt = MqttEdge()
    mqtt.connect("p").publish("a", b"x", retain=True)
    topics, scheduler = mqtt.edge.vhost.retained, mqtt.edge.scheduler
    message = topics.find("a")
    assert message is not None
    for number in range(10_000):
        topics.put(f"b/{number}", message)
    client, polite = mqtt.connect("c"), mqtt.connect("d")
    client.transport.receive(encode(Subscribe(1, [("b/#", 0)]), MQTT_5))
    counts: list[int] = []
    while sum(counts) < 10_000:
        polite.transport.receive(encode(Pingreq(), MQTT_5))
        assert scheduler.turn(), counts
        assert polite.packets() == [Pingresp()]
        client.transport.drain()
        came = [each for each in client.packets() if isinstance(each, Publishes)]
        counts.append(sum(len(run.payloads) for run in came))
    assert sum(counts) == 10_000
    assert counts[0] <= 2 * MESSAGES_AT_ONCE, "some come with the SUBACK, and a turn's"
    assert max(counts[1:]) <= MESSAGES_AT_ONCE


def test_one_that_was_not_acknowledged_comes_again() -> None:
    mqtt = MqttEdge()
    mqtt.connect("p").publish("a", b"x", 1, retain=True)
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    (first,) = client.packets()
    client.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    (again,) = client.packets()
    assert isinstance(first, Publishes)
    assert isinstance(again, Publishes)
    assert (again.packet_ids, again.payloads, again.dup) == (first.packet_ids, [b"x"], True)
    client.answer(PacketType.PUBACK, *again.packet_ids)
    client.lose()
    assert mqtt.connect("c", clean_start=False, expiry_s=60).packets() == []


def received(client: MqttClient) -> list[int]:
    """Take everything; the packet identifiers of the messages of QoS 1 among it."""
    runs = [run for run in client.packets() if isinstance(run, Publishes)]
    return [packet_id for run in runs for packet_id in run.packet_ids]


def with_many(count: int, prefetch: int) -> MqttEdge:
    """A node that has retained messages, and sends so many without an answer."""
    mqtt = MqttEdge(MqttConfig(prefetch=prefetch))
    publisher = mqtt.connect("p")
    for number in range(count):
        publisher.publish(f"a/{number}", b"x", 1, retain=True)
    return mqtt


def test_a_session_goes_on_with_them_over_another_connection() -> None:
    mqtt = with_many(30, prefetch=10)
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a/+", options=1)
    client.answer(PacketType.PUBACK, *received(client)[:4])
    client.lose()
    client, count = mqtt.connect("c", clean_start=False, expiry_s=60), 4
    while ids := received(client):
        count += len(ids)
        client.answer(PacketType.PUBACK, *ids)
    assert count >= 30


def test_a_subscription_of_qos_0_needs_no_window() -> None:
    mqtt = with_many(30, prefetch=10)
    client = mqtt.connect("c")
    client.subscribe("a/+", options=1)
    assert len(received(client)) == 10
    client.subscribe("a/7", options=0)
    assert client.messages() == [("a/7", b"x", 0)]
    client.subscribe("a/+", options=NEVER)
    assert len(client.messages()) == 20


def test_a_cursor_is_made_when_its_turn_comes() -> None:
    mqtt = with_many(30, prefetch=10)
    client = mqtt.connect("c")
    client.subscribe("a/+", *(f"b/{number}/#" for number in range(100)), options=1)
    assert len(received(client)) == 10
    state = mqtt.server.states.find(("/", "c"))
    assert state is not None
    cursors = [*state.retained[1].values()]
    assert (len(cursors), sum(each is not None for each in cursors)) == (101, 1)


def test_nothing_more_is_sent_for_a_subscription_that_has_ended() -> None:
    mqtt = with_many(30, prefetch=10)
    client = mqtt.connect("c")
    client.subscribe("a/+", options=1)
    ids = received(client)
    assert len(ids) == 10
    client.unsubscribe("a/+")
    client.answer(PacketType.PUBACK, *ids)
    assert received(client) == []


def test_what_cannot_be_retained_is_answered_and_its_identifier_is_free() -> None:
    mqtt = MqttEdge()
    live = mqtt.connect("live")
    live.subscribe("a", options=0)
    mqtt.edge.services.retained._limits = RetainedLimits(messages_max=0, size_bytes_max=0)
    client = mqtt.connect("c")
    for kind, qos in ((PacketType.PUBACK, 1), (PacketType.PUBREC, 2)):
        packet_id = client.publish("a", b"1", qos, retain=True)
        assert client.acks() == [(kind, packet_id, ReasonCode.QUOTA_EXCEEDED)]
        client.send(Publish(b"a", b"2", qos, packet_id=packet_id))
        assert client.acks() == [(kind, packet_id, ReasonCode.SUCCESS)]
    assert live.messages() == [("a", payload, 0) for payload in (b"1", b"2") * 2]
    old = mqtt.connect("old", 4)
    packet_id = old.publish("a", b"1", 1, retain=True)
    assert old.acks() == [(PacketType.PUBACK, packet_id, ReasonCode.SUCCESS)]


@pytest.mark.parametrize(("kind", "qos"), [(PacketType.PUBACK, 1), (PacketType.PUBREC, 2)])
def test_only_the_message_of_a_run_that_is_not_retained_is_refused(
    kind: PacketType, qos: int
) -> None:
    """The last message of a run is retained; the others are in their queues, and that is all."""
    mqtt = MqttEdge()
    live = mqtt.connect("live")
    live.subscribe("a", options=0)
    mqtt.edge.services.retained._limits = RetainedLimits(messages_max=0, size_bytes_max=0)
    client = mqtt.connect("c")
    payloads = (b"1", b"2", b"3")
    run = [Publish(b"a", each, qos, retain=True, packet_id=int(each)) for each in payloads]
    client.send(*run)
    codes = [ReasonCode.SUCCESS, ReasonCode.SUCCESS, ReasonCode.QUOTA_EXCEEDED]
    answers = [(kind, packet_id, code) for packet_id, code in enumerate(codes, start=1)]
    assert client.acks() == answers
    assert live.messages() == [("a", payload, 0) for payload in payloads]
    if qos == 2:
        client.send(*run)
        assert client.acks() == [answers[0], answers[1], answers[2]]
        assert live.messages() == [("a", b"3", 0)], "what is refused is new when it comes again"


def test_a_run_that_a_queue_refuses_in_part_and_that_is_not_retained_is_refused_for_both() -> None:
    mqtt = MqttEdge()
    mqtt.edge.services.retained._limits = RetainedLimits(messages_max=0, size_bytes_max=0)
    amqp = mqtt.edge.connect()
    full = to_table({"x-max-length": 1, "x-overflow": "reject-publish"})
    amqp.declare("full", arguments=pamqp_table(full))
    amqp.bind("full", "amq.topic", "a")
    client = mqtt.connect("c")
    client.send(*(Publish(b"a", b"x", 2, retain=True, packet_id=each) for each in (1, 2, 3)))
    assert [code for _, _, code in client.acks()] == [
        ReasonCode.SUCCESS,
        ReasonCode.QUOTA_EXCEEDED,
        ReasonCode.QUOTA_EXCEEDED,
    ]


def test_nothing_is_retained_where_that_is_switched_off() -> None:
    mqtt = MqttEdge(MqttConfig(retained=False))
    client = mqtt.connect("c")
    client.publish("a", b"x", 1, retain=True)
    assert client.packets() == [Disconnect(ReasonCode.RETAIN_NOT_SUPPORTED)]


def test_a_bug_in_a_later_turn_ends_one_connection() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for number in range(100):
        publisher.publish(f"a/{number}", retain=True)
    client, other = mqtt.connect("c"), mqtt.connect("o")
    other.subscribe("b", options=0)
    client.transport.receive(encode(Subscribe(1, [("a/#", 0)]), client.version))
    with patch.object(OutgoingPublishes, "send", side_effect=RuntimeError("a bug")):
        mqtt.edge.run()
    assert client.packets()[-1] == Disconnect(ReasonCode.UNSPECIFIED_ERROR)
    publisher.publish("b")
    assert other.messages() == [("b", b"x", 0)]


def test_a_flood_of_retained_messages_is_not_read_faster_than_it_is_kept() -> None:
    """QoS 0 has no answer for which a client could wait."""
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata))
    metadata, store = mqtt.edge.services.metadata, mqtt.edge.services.retained
    assert isinstance(metadata, ManualMetadata)
    store._limits = store._limits._replace(size_bytes_max=1 << 30)
    flooder = mqtt.connect("flooder")
    for number in range(20):
        flooder.publish(f"a/{number}", bytes(1_000_000), retain=True)
        if not flooder.transport.is_reading():
            break
    assert number < 10
    assert store.is_full
    while len(metadata):
        metadata.commit()
        mqtt.edge.run()
    assert flooder.transport.is_reading()
    flooder.publish("b", b"x", retain=True)
    while len(metadata):
        metadata.commit()
        mqtt.edge.run()
    assert mqtt.edge.vhost.retained.count == number + 2
