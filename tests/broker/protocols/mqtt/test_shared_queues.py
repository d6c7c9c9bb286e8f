"""Shared subscriptions: one queue a group, each message to one member, and what ends with whom."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import pytest

from fluffle.broker.access.access import Permission, TopicPermission
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.queue_names import shared_queue
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.topology import BindingRequest
from fluffle.broker.protocols.mqtt.session_state import NO_LOCAL, RETAIN_AS_PUBLISHED
from fluffle.broker.routing import changes
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of, shown_arguments
from fluffle.broker.vhosts.queue_changes import bind, delete_queue
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Ack, Disconnect, Publish, Suback, Subscribe
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.mqtt.reader import Publishes
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_restarts import RestartedMqtt

GROUP = "$share/g/a/#"
QUEUE = shared_queue("g", "a/#")


def runs(client: MqttClient) -> list[Publishes]:
    """Take everything, which must be messages."""
    came = client.packets()
    assert all(isinstance(each, Publishes) for each in came), came
    return [each for each in came if isinstance(each, Publishes)]


def payloads(client: MqttClient) -> list[bytes]:
    return [payload for run in runs(client) for payload in run.payloads]


def members(mqtt: MqttEdge, count: int, **terms: object) -> list[MqttClient]:
    """Members of the group."""
    clients = [mqtt.connect(f"m{number}", **terms) for number in range(count)]  # type: ignore[arg-type]
    for client in clients:
        assert client.subscribe(GROUP, options=1) == [ReasonCode.GRANTED_QOS_1]
    return clients


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_member(version: int, qos: int) -> None:
    mqtt = MqttEdge()
    clients = [mqtt.connect(f"m{number}", version) for number in range(3)]
    for client in clients:
        assert client.subscribe(GROUP, options=qos) == [ReasonCode(qos)]
    publisher = mqtt.connect("p")
    for number in range(30):
        publisher.publish(f"a/{number}", b"%d" % number, qos)
    heard = [payloads(client) for client in clients]
    assert sorted(map(len, heard)) == [10, 10, 10]
    assert sorted(each for some in heard for each in some) == sorted(b"%d" % n for n in range(30))
    assert mqtt.queue_names == [QUEUE]


def test_groups_and_those_who_are_in_none_have_each_message() -> None:
    mqtt = MqttEdge()
    one, other, alone = mqtt.connect("one"), mqtt.connect("other"), mqtt.connect("alone")
    one.subscribe("$share/g/a/#", "$share/g/b", options=1)
    other.subscribe("$share/h/a/#", options=1)
    alone.subscribe("a/+", options=0)
    mqtt.connect("p").publish("a/b", b"x", 1)
    assert one.messages() == other.messages() == [("a/b", b"x", 1)]
    assert alone.messages() == [("a/b", b"x", 0)]


def test_who_is_in_a_group_may_subscribe_for_himself_too() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe(GROUP, "a/b", options=1)
    mqtt.connect("p").publish("a/b", b"x", 1)
    assert client.messages() == [("a/b", b"x", 1)] * 2
    client.unsubscribe(GROUP)
    mqtt.connect("p").publish("a/b", b"y", 1)
    assert client.messages() == [("a/b", b"y", 1)]


def test_each_member_has_its_own_qos_options_and_identifier() -> None:
    mqtt = MqttEdge()
    low, high = mqtt.connect("low"), mqtt.connect("high")
    low.subscribe(GROUP, options=0, identifier=7)
    high.subscribe(GROUP, options=2 | RETAIN_AS_PUBLISHED, identifier=8)
    publisher = mqtt.connect("p")
    for number in range(4):
        publisher.send(Publish(b"a", b"x", 1, retain=True, packet_id=number + 1))
    for client, expected in ((low, (0, False, [7])), (high, (1, True, [8]))):
        came = runs(client)
        assert sum(len(run.payloads) for run in came) == 2
        for run in came:
            found = decode_properties(run.properties).subscription_ids
            assert (run.qos, run.retain, found) == expected
    assert mqtt.edge.vhost.queues[QUEUE].in_flight == 2  # those of QoS 0 are settled


def test_a_member_that_subscribes_again_has_its_last_options() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe(GROUP, options=0, identifier=7)
    client.subscribe(GROUP, options=1)
    publisher.publish("a", b"x", 1)
    (run,) = runs(client)
    assert (run.qos, run.properties) == (1, b"")
    bindings = mqtt.edge.vhost.topology.bindings_to(DestinationKind.QUEUE, QUEUE)
    assert [each.routing_key for each in bindings] == ["a.#"]


def test_nobody_is_sent_what_is_retained() -> None:
    mqtt = MqttEdge()
    mqtt.connect("p").publish("a", b"kept", retain=True)
    client = mqtt.connect("c")
    client.subscribe(GROUP, options=1)
    assert client.packets() == []
    mqtt.connect("p").publish("a", b"new", retain=True)
    assert client.messages() == [("a", b"new", 0)]


@pytest.mark.parametrize(
    "name", ["$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#/a", "$share/g#/a"]
)
def test_a_group_has_a_name_and_a_filter(name: str) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    assert client.subscribe(name) == [ReasonCode.TOPIC_FILTER_INVALID]
    assert client.unsubscribe(name) == [ReasonCode.TOPIC_FILTER_INVALID]
    assert mqtt.queue_names == []


def test_no_local_is_for_nobody_who_shares() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    name = GROUP.encode()
    body = b"\x00\x01\x00" + len(name).to_bytes(2) + name + bytes((1 | NO_LOCAL,))
    client.send(b"\x82" + bytes((len(body),)) + body)
    assert client.packets() == [Disconnect(ReasonCode.PROTOCOL_ERROR)]


def test_a_topic_that_looks_like_a_group_is_a_topic() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("$share/g/a", options=0)
    mqtt.connect("p").publish("$share/g/a", b"x")
    assert client.packets() == []


# What is under way


@pytest.mark.parametrize("expiry_s", [0, 60])
def test_what_a_member_had_not_acknowledged_goes_to_another(expiry_s: int) -> None:
    mqtt = MqttEdge()
    one, other = members(mqtt, 2, expiry_s=expiry_s)
    publisher = mqtt.connect("p")
    for number in range(6):
        publisher.publish("a", b"%d" % number, 1)
    had = payloads(one)
    assert len(had) == 3
    payloads(other)
    one.lose()
    came = runs(other)
    assert [payload for run in came for payload in run.payloads] == had
    assert not any(run.dup for run in came)  # to this client it was never sent
    if expiry_s:
        back = mqtt.connect("m0", clean_start=False, expiry_s=expiry_s)
        assert back.connack.session_present
        assert payloads(back) == []


def test_a_message_of_qos_2_stays_with_a_session_that_lasts() -> None:
    mqtt = MqttEdge()
    one = mqtt.connect("one", expiry_s=60)
    other = mqtt.connect("other", expiry_s=60)
    one.subscribe(GROUP, options=2)
    mqtt.connect("p").publish("a", b"x", 2)
    (run,) = runs(one)
    other.subscribe(GROUP, options=2)
    one.lose()
    assert other.packets() == []
    back = mqtt.connect("one", clean_start=False, expiry_s=60)
    (again,) = runs(back)
    assert (again.dup, again.retain, again.payloads) == (True, False, [b"x"])
    assert list(again.packet_ids) == list(run.packet_ids)
    back.answer(PacketType.PUBREC, *again.packet_ids)
    assert back.acks() == [(PacketType.PUBREL, run.packet_ids[0], ReasonCode.SUCCESS)]
    assert mqtt.edge.vhost.queues[QUEUE].in_flight == 0
    back.answer(PacketType.PUBCOMP, *again.packet_ids)
    back.lose()
    assert mqtt.connect("one", clean_start=False, expiry_s=60).packets() == []


def test_it_has_less_time_left_when_it_is_sent_again() -> None:
    mqtt = MqttEdge()
    one, publisher = mqtt.connect("one", expiry_s=600), mqtt.connect("p")
    one.subscribe(GROUP, options=2)
    properties = encode_properties(Properties({PropertyId.MESSAGE_EXPIRY_INTERVAL: 100}))
    publisher.send(Publish(b"a", b"x", 2, packet_id=1, properties=properties))
    said = []
    for waited_s in (30, 100):
        (run,) = runs(one)
        said.append(decode_properties(run.properties).values[PropertyId.MESSAGE_EXPIRY_INTERVAL])
        one.lose()
        mqtt.edge.advance(waited_s)
        one = mqtt.connect("one", clean_start=False, expiry_s=600)
    (run,) = runs(one)
    said.append(decode_properties(run.properties).values[PropertyId.MESSAGE_EXPIRY_INTERVAL])
    assert said == [100, 70, 1]


@pytest.mark.parametrize("end", ["expires", "clean start", "moves"])
def test_it_goes_to_another_when_that_session_ends(end: str) -> None:
    mqtt = MqttEdge()
    one, other = mqtt.connect("one", expiry_s=60), mqtt.connect("other")
    one.subscribe(GROUP, options=2)
    mqtt.connect("p").publish("a", b"x", 2)
    assert payloads(one) == [b"x"]
    other.subscribe(GROUP, options=2)
    one.lose()
    assert other.packets() == []
    if end == "expires":
        mqtt.edge.advance(61)
    elif end == "clean start":
        mqtt.connect("one")
    else:
        state = mqtt.server.states.find(("/", "one"))
        assert state is not None
        mqtt.server._forget(state)
        mqtt.edge.run()
    assert payloads(other) == [b"x"]


def test_one_that_a_member_refuses_goes_to_nobody_else() -> None:
    mqtt = MqttEdge()
    one, other = members(mqtt, 2)
    mqtt.connect("p").publish("a", b"x", 1)
    first = next(each for each in (one, other) if (came := runs(each)))
    first.send(Ack(PacketType.PUBACK, came[0].packet_ids[0], ReasonCode.UNSPECIFIED_ERROR))
    assert [*one.packets(), *other.packets()] == []
    assert mqtt.edge.vhost.queues[QUEUE].ready_count == 0
    assert mqtt.edge.vhost.queues[QUEUE].in_flight == 0


def test_all_queues_of_a_client_have_its_window_together() -> None:
    mqtt = MqttEdge(MqttConfig(prefetch=3))
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("own", "$share/g/a", "$share/g/b", options=2)
    for topic in ("own", "a", "b"):
        for number in range(3):
            publisher.publish(topic, b"%d" % number, 2)
    heard: list[tuple[bytes, bytes]] = []
    while came := runs(client):
        ids = [each for run in came for each in run.packet_ids]
        assert len(ids) <= 3
        heard += [(run.topic, payload) for run in came for payload in run.payloads]
        client.answer(PacketType.PUBREC, *ids)
        assert len(client.acks()) == len(ids)  # and nothing but PUBREL: the places are taken
        client.answer(PacketType.PUBCOMP, *ids)
    expected = [(topic, b"%d" % number) for topic in (b"a", b"b", b"own") for number in range(3)]
    assert sorted(heard) == expected


def test_a_full_member_is_passed_over() -> None:
    mqtt = MqttEdge(MqttConfig(prefetch=2))
    one, other = members(mqtt, 2)
    publisher = mqtt.connect("p")
    for number in range(4):
        publisher.publish("a", b"%d" % number, 1)
    assert len(payloads(one)) == len(payloads(other)) == 2
    for number in range(4, 10):
        publisher.publish("a", b"%d" % number, 1)
    channel = other.connection.channel
    assert channel is not None
    heard: list[bytes] = []
    other.answer(PacketType.PUBACK, *channel.outgoing._sent)
    while came := runs(other):
        heard += [payload for run in came for payload in run.payloads]
        other.answer(PacketType.PUBACK, *(each for run in came for each in run.packet_ids))
    assert heard == [b"%d" % number for number in range(4, 10)]
    assert one.packets() == []


# Members that come and go


def test_shared_subscriptions_of_connected_clients_are_counted() -> None:
    mqtt = MqttEdge()
    one, other = members(mqtt, 2, expiry_s=60)
    one.subscribe("$share/h/b", GROUP, "b")
    assert mqtt.server.session_counts().shared_subscriptions == 3
    one.unsubscribe("$share/h/b")
    one.unsubscribe("$share/h/b")
    assert mqtt.server.session_counts().shared_subscriptions == 2
    one.lose()
    other.lose()
    assert mqtt.server.session_counts().shared_subscriptions == 0


def test_the_queue_ends_with_its_last_member() -> None:
    mqtt = MqttEdge()
    one, other = members(mqtt, 2)
    one.lose()
    assert mqtt.queue_names == [QUEUE]
    assert other.unsubscribe(GROUP, GROUP) == [
        ReasonCode.SUCCESS,
        ReasonCode.NO_SUBSCRIPTION_EXISTED,
    ]
    assert mqtt.queue_names == []
    mqtt.connect("p").publish("a", b"x", 1)
    assert other.packets() == []
    assert other.subscribe(GROUP) == [ReasonCode.GRANTED_QOS_1]
    mqtt.connect("p").publish("a", b"y", 1)
    assert payloads(other) == [b"y"]


def test_who_leaves_a_group_may_acknowledge_what_he_has() -> None:
    mqtt = MqttEdge()
    one, other = members(mqtt, 2)
    publisher = mqtt.connect("p")
    for number in range(4):
        publisher.publish("a", b"%d" % number, 1)
    (first, *_) = came = runs(one)
    one.unsubscribe(GROUP)
    payloads(other)
    one.answer(PacketType.PUBACK, *first.packet_ids)
    publisher.publish("a", b"next", 1)
    assert payloads(other) == [b"next"]
    one.lose()
    left = [payload for run in came for payload in run.payloads][len(first.payloads) :]
    assert payloads(other) == left


def test_messages_wait_in_the_group_while_all_members_are_away() -> None:
    mqtt = MqttEdge()
    one, other = members(mqtt, 2, expiry_s=60)
    one.lose()
    other.lose()
    publisher = mqtt.connect("p")
    for number in range(4):
        publisher.publish("a", b"%d" % number, 1)
    assert mqtt.edge.vhost.queues[QUEUE].ready_count == 4
    back = mqtt.connect("m1", clean_start=False, expiry_s=60)
    assert back.connack.session_present
    assert payloads(back) == [b"%d" % number for number in range(4)]
    mqtt.edge.advance(61)
    assert mqtt.queue_names == [QUEUE]
    back.lose()
    mqtt.edge.advance(61)
    assert mqtt.queue_names == []


@pytest.mark.parametrize("expiry_s", [0, 60])
def test_who_is_taken_over_goes_on_as_member_only_with_his_session(expiry_s: int) -> None:
    mqtt = MqttEdge()
    before, other = members(mqtt, 2, expiry_s=expiry_s)
    after = mqtt.connect("m0", clean_start=False, expiry_s=expiry_s)
    assert before.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    publisher = mqtt.connect("p")
    for number in range(4):
        publisher.publish("a", b"%d" % number, 1)
    assert (len(payloads(after)), len(payloads(other))) == ((2, 2) if expiry_s else (0, 4))


def test_a_clean_start_leaves_the_groups_of_the_session_before() -> None:
    mqtt = MqttEdge()
    (client,) = members(mqtt, 1, expiry_s=60)
    client.lose()
    assert mqtt.queue_names == [QUEUE]
    mqtt.connect("m0")
    assert mqtt.queue_names == []


def test_a_session_that_lasts_no_longer_leaves_its_groups_at_its_end() -> None:
    mqtt = MqttEdge()
    (client,) = members(mqtt, 1, expiry_s=60)
    client.send(Disconnect(properties=Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 0})))
    assert mqtt.queue_names == []


def delete_group(mqtt: MqttEdge) -> None:
    vhost = mqtt.edge.vhost
    mqtt.edge.editor.have(partial(delete_queue, vhost, vhost.queues[QUEUE]))
    mqtt.edge.run()


def test_a_queue_that_is_deleted_under_its_members_is_made_anew() -> None:
    mqtt = MqttEdge()
    clients = members(mqtt, 2, expiry_s=60)
    for client in clients:
        client.subscribe("own", options=1, identifier=3)
    delete_group(mqtt)
    assert mqtt.server.session_counts().shared_subscriptions == 2
    publisher = mqtt.connect("p")
    for number in range(4):
        publisher.publish("a", b"%d" % number, 1)
    publisher.publish("own", b"own", 1)
    for client in clients:
        assert sorted(map(len, payloads(client))) == [1, 1, 3]


def test_it_is_made_anew_for_a_member_that_comes_back() -> None:
    mqtt = MqttEdge()
    (client,) = members(mqtt, 1, expiry_s=60)
    client.subscribe("own", options=1)
    client.lose()
    mqtt.connect("p").publish("own", b"kept", 1)
    delete_group(mqtt)
    back = mqtt.connect("m0", clean_start=False, expiry_s=60)
    assert back.connack.session_present
    mqtt.connect("p").publish("a", b"new", 1)
    assert payloads(back) == [b"kept", b"new"]


def test_a_member_that_may_not_make_it_anew_is_disconnected() -> None:
    mqtt = MqttEdge()
    (client,) = members(mqtt, 1, expiry_s=60)
    mqtt.edge.editor.put_permission("guest", "/", Permission("^mqtt-subscription-", ".*", ".*"))
    mqtt.edge.run()
    delete_group(mqtt)
    assert client.packets() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]


def test_no_queue_is_there_without_a_member() -> None:
    """A queue is declared and bound in one change, or is not there."""
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    with patch.object(changes, "subscribe", side_effect=PreconditionFailed("no")):
        assert client.subscribe(GROUP) == [ReasonCode.QUOTA_EXCEEDED]
    assert mqtt.queue_names == []


def test_a_queue_of_others_is_no_group() -> None:
    """A user who could bind with such arguments would have it deleted."""
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    amqp.declare("orders")
    arguments = arguments_of(FilterBinding("x", group="g", member="m"))
    binding = Binding("amq.topic", "orders", DestinationKind.QUEUE, "x", arguments)
    session = mqtt.connect("other").connection.session
    assert session is not None
    with pytest.raises(PreconditionFailed):
        BindingRequest(session, binding).decide()
    vhost = mqtt.edge.vhost
    mqtt.edge.editor.have(partial(bind, vhost, binding, None))  # as an import of definitions
    mqtt.connect("m", expiry_s=60).lose()
    assert not mqtt.connect("m", clean_start=False, expiry_s=60).packets()
    mqtt.connect("m").lose()
    assert "orders" in mqtt.queue_names


def test_little_is_remembered_of_what_went_to_others() -> None:
    mqtt = MqttEdge()
    taker, other = members(mqtt, 2, expiry_s=60)
    publisher = mqtt.connect("p")
    for _ in range(3):
        for number in range(6):
            publisher.publish("a", b"%d" % number, 1)
        taker.lose()
        came = runs(other)
        other.answer(PacketType.PUBACK, *(each for run in came for each in run.packet_ids))
        state = mqtt.server.states.find(("/", "m0"))
        assert state is not None
        assert len(state.unfinished[QUEUE]) == 3
        taker = mqtt.connect("m0", clean_start=False, expiry_s=60)


def test_a_group_gets_no_figures_of_the_broker() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    assert client.subscribe("$share/g/$SYS/#") == [ReasonCode.TOPIC_FILTER_INVALID]


# What others see


def test_the_queue_is_one_that_lasts_and_is_bound_by_each_member() -> None:
    mqtt = MqttEdge(MqttConfig(session_expiry_s_max=3_600))
    members(mqtt, 2)
    queue = mqtt.edge.vhost.queues[QUEUE]
    assert (queue.owner, queue.spec.durable, queue.spec.auto_delete) == (None, True, False)
    assert queue.spec.arguments == {"x-expires": ("l", 3_600_000)}
    bindings = mqtt.edge.vhost.topology.bindings_to(DestinationKind.QUEUE, QUEUE)
    assert [shown_arguments(each) for each in bindings] == [
        {"x-binding-key": ("S", b"a.#")},
        {"x-binding-key": ("S", b"a.#")},
    ]
    mqtt.connect("p").publish("a", b"x", 1)
    assert queue.ready_count + queue.in_flight == 1
    assert sorted(each.tag for each in queue.consumers) == [QUEUE, QUEUE]


def test_a_session_is_listed_with_what_it_shares() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("meter", expiry_s=60)
    client.subscribe(GROUP, options=1)
    (row,) = mqtt.server.session_rows()
    assert row["subscriptions"] == [
        {"topic_filter": GROUP, "qos": 1, "options": 1, "subscription_id": None}
    ]
    assert row["queues"] == [QUEUE]


def test_names_are_those_of_amqp_and_no_two_groups_have_the_same() -> None:
    long = "g" * 300
    names = [
        shared_queue(group, topic_filter)
        for group in ("g", long, long[1:])
        for topic_filter in ("a", "b")
    ]
    assert names[0].startswith("mqtt-shared-g-")
    assert len(set(names)) == len(names)
    assert max(map(len, names)) == 255


def test_a_group_needs_the_rights_of_a_subscription() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    permission = TopicPermission(write=".*", read="^news[.]")
    mqtt.edge.editor.put_topic_permission("guest", "/", "amq.topic", permission)
    codes = client.subscribe("$share/g/news/a", "$share/g/secret", options=1)
    assert codes == [ReasonCode.GRANTED_QOS_1, ReasonCode.NOT_AUTHORIZED]
    own = Permission("^mqtt-subscription-", ".*", "^(mqtt-subscription-|amq[.]topic)")
    mqtt.edge.editor.put_permission("guest", "/", own)
    mqtt.edge.run()
    client = mqtt.connect("d")
    assert client.subscribe("news/a", "$share/h/news/a") == [
        ReasonCode.GRANTED_QOS_1,
        ReasonCode.NOT_AUTHORIZED,
    ]


def test_who_may_not_read_the_queue_any_more_does_not_come_back() -> None:
    mqtt = MqttEdge()
    (client,) = members(mqtt, 1, expiry_s=60)
    client.lose()
    own = Permission(".*", ".*", "^(mqtt-subscription-|amq[.]topic)")
    mqtt.edge.editor.put_permission("guest", "/", own)
    with pytest.raises(AssertionError, match="NOT_AUTHORIZED"):
        mqtt.connect("m0", clean_start=False, expiry_s=60)


# The end of the node


def join(node: RestartedMqtt, client: MqttClient) -> None:
    client.send(Subscribe(client.next_id(), [(GROUP, 2)]))
    node.settle()
    assert client.expect(Suback).codes == [ReasonCode.GRANTED_QOS_2]


def test_what_is_acknowledged_for_a_group_outlives_the_node() -> None:
    node = RestartedMqtt()
    join(node, node.connect("lasting", expiry_s=60))
    join(node, node.connect("passing"))
    publisher = node.connect("p")
    for number in range(4):
        publisher.send(Publish(b"a", b"%d" % number, 2, packet_id=number + 1))
        node.settle()
    node.kill()
    bindings = node.mqtt.edge.vhost.topology.bindings_to(DestinationKind.QUEUE, QUEUE)
    assert len(bindings) == 1
    back = node.connect("lasting", clean_start=False, expiry_s=60)
    node.settle()
    assert back.connack.session_present
    came = [each for each in back.packets() if isinstance(each, Publishes)]
    assert sorted(payload for run in came for payload in run.payloads) == [
        b"%d" % number for number in range(4)
    ]


def test_a_group_of_connections_alone_ends_with_the_node() -> None:
    node = RestartedMqtt()
    join(node, node.connect("c"))
    assert node.mqtt.queue_names == [QUEUE]
    node.kill()
    assert node.mqtt.queue_names == []
