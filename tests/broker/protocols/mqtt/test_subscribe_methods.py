"""SUBSCRIBE and UNSUBSCRIBE: queues, bindings, and the answer to each filter."""

from functools import partial
from itertools import pairwise

import pytest

from fluffle.broker.access.access import Permission, TopicPermission
from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.input_queue import EVENT_COST
from fluffle.broker.protocols.mqtt.packet_handlers import on_subscribe, on_unsubscribe
from fluffle.broker.queues.arguments import DeliveryGuarantee
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.settings import EXPIRY_GRACE_MS
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.vhosts import queue_changes
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.topics import LEVELS_MAX
from fluffle.protocol.wire import FieldTable
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttEdge

QOS_0, QOS_1 = "mqtt-subscription-cqos0", "mqtt-subscription-cqos1"


def bound(mqtt: MqttEdge, queue: str) -> list[str]:
    """Routing keys under which a queue is bound to the exchange of MQTT."""
    bindings = mqtt.edge.vhost.topology.bindings_to(DestinationKind.QUEUE, queue)
    assert {each.source for each in bindings} <= {"amq.topic"}
    return sorted(each.routing_key for each in bindings)


def test_each_filter_has_its_answer() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    codes = client.subscribe("a/+", "a#", "#/a", "", "$share/g", "x/#", options=2)
    invalid = ReasonCode.TOPIC_FILTER_INVALID
    granted = ReasonCode.GRANTED_QOS_2
    assert codes == [granted, invalid, invalid, invalid, invalid, granted]
    assert bound(mqtt, QOS_1) == ["a.*", "x.#"]
    assert mqtt.queue_names == [QOS_1]


def test_a_filter_of_too_many_levels_is_refused_alone() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    deepest = "/".join("a" * LEVELS_MAX)
    codes = client.subscribe("ok", deepest, f"{deepest}/a")
    granted = ReasonCode.GRANTED_QOS_1
    assert codes == [granted, granted, ReasonCode.TOPIC_FILTER_INVALID]
    client.publish(deepest, b"x", 0)
    assert client.messages() == [(deepest, b"x", 0)]


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_queues_are_as_with_rabbitmq(version: int) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", version)
    client.subscribe("a", options=0)
    client.subscribe("b", options=1)
    specs = {name: mqtt.edge.vhost.queues[name].spec for name in (QOS_0, QOS_1)}
    assert specs[QOS_0].queue_type.shown == "rabbit_mqtt_qos0_queue"
    assert specs[QOS_1].queue_type.shown == "classic"
    assert specs[QOS_0].guarantee is DeliveryGuarantee.AT_MOST_ONCE
    assert specs[QOS_1].guarantee is DeliveryGuarantee.EXACTLY_ONCE
    assert client.connection.session is not None
    assert mqtt.edge.vhost.queues[QOS_1].owner == client.connection.session.owner


def expires_s(mqtt: MqttEdge, queue: str) -> int | None:
    """After how long a queue expires, by its arguments and in force."""
    found = mqtt.edge.vhost.queues[queue]
    assert isinstance(found, Queue)
    tag, value = found.spec.arguments.get("x-expires", ("l", None))
    if value is None:
        assert found.queue_expiry is None
        return None
    assert (tag, found.settings.expires_ms) == ("l", int(str(value)) + EXPIRY_GRACE_MS)
    return int(str(value)) // 1000


def test_queues_of_a_session_that_lasts_are_kept_as_long_as_it_does() -> None:
    mqtt = MqttEdge(MqttConfig(session_expiry_s_max=3_600))
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=0)
    queue = mqtt.edge.vhost.queues[QOS_0]
    assert queue.owner is None
    assert expires_s(mqtt, QOS_0) == 60
    assert queue.spec.queue_type.shown == "classic"


def test_queues_are_kept_as_long_as_their_session_has_asked_for_last() -> None:
    mqtt = MqttEdge(MqttConfig(session_expiry_s_max=None))
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.subscribe("b", options=1)
    client.lose()
    publisher.publish("b", b"x", 1)
    client = mqtt.connect("c", clean_start=False, expiry_s=300)
    assert client.connack.session_present
    assert client.messages() == [("b", b"x", 1)]
    assert (expires_s(mqtt, QOS_0), expires_s(mqtt, QOS_1)) == (300, 300)
    shorter = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 30})
    client.send(Disconnect(ReasonCode.SUCCESS, properties=shorter))
    assert (expires_s(mqtt, QOS_0), expires_s(mqtt, QOS_1)) == (30, 30)
    client = mqtt.connect("c", MQTT_3_1_1, clean_start=False)
    assert (expires_s(mqtt, QOS_0), expires_s(mqtt, QOS_1)) == (None, None)
    client.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=20)
    assert client.messages() == [("b", b"x", 1)]
    client.lose()
    mqtt.edge.advance(19)
    assert expires_s(mqtt, QOS_1) == 20
    mqtt.edge.advance(2)
    assert not mqtt.edge.vhost.queues.keys() & {QOS_0, QOS_1}


@pytest.mark.parametrize("arguments", [{}, {"x-binding-key": ("S", b"a.*")}])
def test_a_subscription_that_is_imported_holds_until_its_client_says_it_anew(
    arguments: FieldTable,
) -> None:
    """RabbitMQ's definitions have bindings for subscriptions of MQTT, and not their options."""
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("x", options=1)
    for key, there in {"a.*": arguments, "b": {}}.items():
        binding = Binding("amq.topic", QOS_1, DestinationKind.QUEUE, key, there)
        decide = partial(queue_changes.bind, mqtt.edge.vhost, binding, None)
        mqtt.edge.services.metadata.ensure(decide)
    publisher.publish("a/1", b"imported", 2)
    assert client.messages() == [("a/1", b"imported", 1)]
    client.subscribe("a/+", options=2)
    publisher.publish("a/1", b"anew", 2)
    assert client.messages() == [("a/1", b"anew", 2)]
    assert client.unsubscribe("a/+", "b", "b/#") == [
        ReasonCode.SUCCESS,
        ReasonCode.SUCCESS,
        ReasonCode.NO_SUBSCRIPTION_EXISTED,
    ]
    publisher.publish("a/1", b"none", 2)
    publisher.publish("b", b"none", 2)
    assert client.packets() == []
    assert bound(mqtt, QOS_1) == ["x"]


def test_the_same_filter_has_one_subscription_with_its_last_options() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.subscribe("a", options=1)
    assert (bound(mqtt, QOS_0), bound(mqtt, QOS_1)) == ([], ["a"])
    publisher.publish("a", b"x", 1)
    assert client.messages() == [("a", b"x", 1)]
    client.subscribe("a", options=0)
    assert (bound(mqtt, QOS_0), bound(mqtt, QOS_1)) == (["a"], [])
    publisher.publish("a", b"y", 1)
    assert client.messages() == [("a", b"y", 0)]


def test_what_is_unsubscribed_is_not_delivered_any_more() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c"), mqtt.connect("p")
    client.subscribe("a", "b", options=1)
    assert client.unsubscribe("a", "a", "x", "x#") == [
        ReasonCode.SUCCESS,
        ReasonCode.NO_SUBSCRIPTION_EXISTED,
        ReasonCode.NO_SUBSCRIPTION_EXISTED,
        ReasonCode.TOPIC_FILTER_INVALID,
    ]
    publisher.publish("a", b"x")
    publisher.publish("b", b"y")
    assert client.messages() == [("b", b"y", 0)]


def test_a_filter_that_may_not_be_read_is_refused_and_the_others_are_not() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    permission = TopicPermission(write=".*", read="^news[.]")
    mqtt.edge.editor.put_topic_permission("guest", "/", "amq.topic", permission)
    codes = client.subscribe("news/a", "secret", options=1)
    assert codes == [ReasonCode.GRANTED_QOS_1, ReasonCode.NOT_AUTHORIZED]
    assert bound(mqtt, QOS_1) == ["news.a"]
    (reason,) = client.reasons
    assert reason.startswith("read access to topic 'secret' in exchange 'amq.topic'")


def test_a_virtual_host_without_room_for_queues_refuses_a_subscription() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.vhost("/", limits=VhostLimits(max_queues=1))
    client = mqtt.connect("c")
    assert client.subscribe("a", options=1) == [ReasonCode.GRANTED_QOS_1]
    assert client.subscribe("b", options=0) == [ReasonCode.QUOTA_EXCEEDED]
    assert client.reasons == [
        f"cannot declare queue '{QOS_0}': queue limit in vhost '/' (1) is reached"
    ]


@pytest.mark.parametrize("wants_reasons", [False, True])
def test_a_suback_has_a_reason_if_the_client_wants_one(*, wants_reasons: bool) -> None:
    mqtt = MqttEdge()
    client = mqtt.accept()
    asked = Properties({PropertyId.REQUEST_PROBLEM_INFORMATION: int(wants_reasons)})
    client.send(Connect(MQTT_5, "c", properties=asked))
    client.expect(Connack)
    assert client.subscribe("a#") == [ReasonCode.TOPIC_FILTER_INVALID]
    assert client.reasons == ["topic filter 'a#' is not valid"] * wants_reasons


def test_many_filters_are_bound_some_in_each_turn() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    filters = [(f"a/{number}", 1) for number in range(1_000)]
    client.transport.receive(encode(Subscribe(1, filters), MQTT_5) + encode(Pingreq(), MQTT_5))
    channel = client.connection.channel
    assert channel is not None
    state = channel.state
    counts = [len(state.subscriptions)]
    while mqtt.edge.scheduler.turn():
        counts.append(len(state.subscriptions))
    assert counts[-1] == 1_000
    assert all(after - before <= 64 for before, after in pairwise([0, *counts]))
    assert len(client.expect(Suback).codes) == 1_000
    client.expect(Pingresp)


@pytest.mark.parametrize("right", ["write", "topic"])
def test_a_client_may_end_what_it_may_not_begin_any_more(right: str) -> None:
    """UNSUBSCRIBE asks no right, as mosquitto asks none by an `acl_file`.  A client that may not
    read its queue any more is ended before it can ask."""
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.subscribe("a", "$share/g/b", options=1)
    if right == "topic":
        none = TopicPermission("^$", "^$")
        mqtt.edge.editor.put_topic_permission("guest", "/", "amq.topic", none)
    else:
        mqtt.edge.editor.put_permission("guest", "/", Permission(".*", "^$", ".*"))
    mqtt.edge.run()
    assert client.subscribe("c") == [ReasonCode.NOT_AUTHORIZED]
    assert client.unsubscribe("a", "$share/g/b", "c") == [
        ReasonCode.SUCCESS,
        ReasonCode.SUCCESS,
        ReasonCode.NO_SUBSCRIPTION_EXISTED,
    ]
    assert bound(mqtt, QOS_1) == []


def test_many_filters_are_unbound_some_in_each_turn() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    filters = [f"a/{number}" for number in range(1_000)]
    client.subscribe(*filters, options=1)
    octets = encode(Unsubscribe(2, [*filters, "x#", "a/0"]), MQTT_5)
    client.transport.receive(octets + encode(Pingreq(), MQTT_5))
    channel = client.connection.channel
    assert channel is not None
    state = channel.state
    counts = [len(state.subscriptions)]
    while mqtt.edge.scheduler.turn():
        counts.append(len(state.subscriptions))
    assert counts[-1] == 0
    assert all(before - after <= 64 for before, after in pairwise([1_000, *counts]))
    assert client.expect(Unsuback).codes == [
        *[ReasonCode.SUCCESS] * 1_000,
        ReasonCode.TOPIC_FILTER_INVALID,
        ReasonCode.NO_SUBSCRIPTION_EXISTED,
    ]
    client.expect(Pingresp)


def test_who_goes_while_filters_are_unbound_leaves_nothing_behind() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    filters = [f"a/{number}" for number in range(300)]
    client.subscribe(*filters, options=1)
    client.transport.receive(encode(Unsubscribe(2, filters), MQTT_5))
    client.lose()
    assert mqtt.queue_names == []
    assert len(mqtt.server.states) == 0


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_who_cannot_be_unsubscribed_goes_on_until_he_is(version: int) -> None:
    """UNSUBACK before 5.0 has no code, so that it would say that the subscriptions have ended.
    S3 4.8.0-2: what cannot be done for a while ends the connection."""
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata))
    metadata = mqtt.edge.services.metadata
    assert isinstance(metadata, ManualMetadata)
    client, publisher = mqtt.accept(version), mqtt.accept()
    client.send(Connect(version, "c", user="guest", password=b"guest"))
    publisher.send(Connect(MQTT_5, "p", user="guest", password=b"guest"))
    client.send(Subscribe(1, [("a", 1), ("$share/g/b", 1)]))
    commit_all(mqtt, metadata)
    client.expect(Connack)
    client.expect(Suback)
    client.send(Unsubscribe(2, ["a", "$share/g/b"]))
    metadata.give_up_last()
    mqtt.edge.run()
    if version == MQTT_3_1_1:
        assert client.packets() == []
        assert client.transport.is_lost
        return
    assert client.expect(Unsuback).codes == [ReasonCode.UNSPECIFIED_ERROR] * 2
    publisher.publish("a", b"1", 1)
    publisher.publish("b", b"2", 1)
    assert client.messages() == [("a", b"1", 1), ("b", b"2", 1)]
    commit_all(mqtt, metadata)  # it comes true after all, and the group is there anew
    publisher.publish("a", b"1", 1)
    publisher.publish("b", b"2", 1)
    assert client.messages() == [("b", b"2", 1)]
    client.send(Unsubscribe(3, ["a", "$share/g/b"]))
    commit_all(mqtt, metadata)
    assert client.expect(Unsuback).codes == [ReasonCode.SUCCESS] * 2
    publisher.publish("b", b"2", 1)
    assert client.packets() == []


def commit_all(mqtt: MqttEdge, metadata: ManualMetadata) -> None:
    while len(metadata):
        metadata.commit()
        mqtt.edge.run()


def test_a_filter_costs_as_much_as_a_packet() -> None:
    """A turn of a client that floods a node has no hundreds of filters."""
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    packet = Subscribe(1, [(f"a/{number}", 0) for number in range(100)])
    assert on_subscribe(client.connection, packet) == 33 * EVENT_COST
    mqtt.edge.run()
    assert len(client.connection.channel.state.subscriptions) == 100  # type: ignore[union-attr]
    unsubscribe = Unsubscribe(2, ["a/1"])
    assert on_unsubscribe(client.connection, unsubscribe) == 2 * EVENT_COST
