"""Sessions over the end of a node: what is there when it comes up, wherever it was killed."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from fluffle.broker.definitions.changes import doom, unfinished
from fluffle.broker.definitions.retained import RetainedLimits
from fluffle.broker.metadata.change import Kind
from fluffle.protocol.methods import Queue, encode_method, make, pamqp_table
from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Connack,
    Disconnect,
    Publish,
    Suback,
    Subscribe,
    Will,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import Acks, Publishes
from fluffle.protocol.wire import to_table
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_restarts import RestartedMqtt

LASTS: dict[str, Any] = {"clean_start": False, "expiry_s": 3600}


def listed(row: dict[str, Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Return the subscriptions and queues of a session as it is listed, in an order of its own."""
    subscriptions = [tuple(each.values()) for each in row["subscriptions"]]
    return sorted(subscriptions, key=str), sorted(row["queues"])


def subscribed(node: RestartedMqtt, client: MqttClient, *filters: str, options: int = 1) -> None:
    client.send(Subscribe(client.next_id(), [(each, options) for each in filters]))
    node.settle()
    assert client.expect(Suback).codes == [ReasonCode(options & 3)] * len(filters)


def watched(node: RestartedMqtt, topic: str = "w") -> MqttClient:
    watcher = node.connect("watcher", **LASTS)
    if not watcher.connack.session_present:
        subscribed(node, watcher, topic)
    return watcher


def published(node: RestartedMqtt, topic: str, payload: bytes, qos: int = 1) -> None:
    client = node.connect("p")
    client.publish(topic, payload, qos)
    node.settle()
    client.send(Disconnect())
    node.settle()


def test_a_session_without_subscriptions_is_there_again() -> None:
    node = RestartedMqtt()
    assert not node.connect("c", **LASTS).connack.session_present
    node.kill()
    assert node.connect("c", **LASTS).connack.session_present


def test_who_was_let_in_has_his_session_whatever_happens_then() -> None:
    """The content of CONNACK has been committed."""
    node = RestartedMqtt()
    client = node.begin("c", **LASTS)
    assert client.packets() == []
    node.commit()
    assert client.packets() == []
    node.wake()
    client.expect(Connack)
    node.kill()
    assert node.connect("c", **LASTS).connack.session_present


def test_subscriptions_are_as_they_were() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    subscribed(node, client, "a/+", options=2)
    subscribed(node, client, "a/b", options=1 | 8)
    subscribed(node, client, "z", options=0)
    before = node.mqtt.server.states.open(("/", "c")).subscriptions
    assert len(before) == 3
    node.kill()
    again = node.connect("c", **LASTS)
    assert node.mqtt.server.states.open(("/", "c")).subscriptions == before
    published(node, "a/b", b"x", 2)
    published(node, "z", b"y", 1)
    assert again.messages() == [("a/b", b"x", 2), ("z", b"y", 0)]


def test_subscriptions_are_listed_though_their_client_is_not_back() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    subscribed(node, client, "a/+", "$share/g/s", options=1 | 8)
    subscribed(node, client, "z", options=0)
    (before,) = map(listed, node.mqtt.server.session_rows())
    assert len(before[0]) == len(before[1]) == 3
    node.kill()
    (row,) = node.mqtt.server.session_rows()
    assert row["connection"] == ""
    assert listed(row) == before
    node.connect("c", **LASTS)
    (row,) = node.mqtt.server.session_rows()
    assert row["connection"]
    assert listed(row) == before


def test_what_was_published_meanwhile_is_there() -> None:
    node = RestartedMqtt()
    subscribed(node, node.connect("c", **LASTS), "a")
    node.kill()
    published(node, "a", b"1")
    node.kill()
    published(node, "a", b"2")
    node.kill()
    assert node.connect("c", **LASTS).messages() == [("a", b"1", 1), ("a", b"2", 1)]


def test_what_waited_when_the_node_was_killed_has_dup_though_it_was_never_sent() -> None:
    """The node cannot know: a classic queue does not write what it has handed out."""
    node = RestartedMqtt()
    subscribed(node, node.connect("c", **LASTS), "a")
    node.kill()
    published(node, "a", b"1")
    node.kill()
    published(node, "a", b"2")
    runs = [each for each in node.connect("c", **LASTS).packets() if isinstance(each, Publishes)]
    assert [(run.dup, payload) for run in runs for payload in run.payloads] == [
        (True, b"1"),
        (False, b"2"),
    ]


def test_a_clean_start_leaves_nothing() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    subscribed(node, client, "a", options=2)
    client.publish("b", b"x", 2)
    node.settle()
    node.kill()
    client = node.connect("c", clean_start=True)
    assert not client.connack.session_present
    published(node, "a", b"x")
    assert client.packets() == []
    assert node.mqtt.queue_names == []
    assert not node.mqtt.edge.vhost.client_sessions.by_client
    assert not node.mqtt.edge.vhost.client_sessions.packets
    client.lose()
    node.settle()
    node.kill()
    assert len(node.mqtt.server.states) == 0
    assert not node.connect("c", **LASTS).connack.session_present


def test_time_goes_on_while_the_node_is_away() -> None:
    node = RestartedMqtt()
    client = node.connect("c", clean_start=False, expiry_s=60)
    subscribed(node, client, "a")
    client.lose()
    node.settle()
    node.advance(30)
    node.kill(away_s=20)
    assert len(node.mqtt.server.states) == 1
    node.advance(9)
    assert len(node.mqtt.server.states) == 1
    node.advance(2)
    assert len(node.mqtt.server.states) == 0
    assert node.mqtt.queue_names == []
    assert not node.mqtt.edge.vhost.client_sessions.by_client
    node.kill()
    assert not node.connect("c", **LASTS).connack.session_present


def test_what_has_ended_while_the_node_was_away_is_gone() -> None:
    node = RestartedMqtt()
    client = node.connect("c", clean_start=False, expiry_s=60)
    subscribed(node, client, "a")
    client.lose()
    node.settle()
    node.kill(away_s=61)
    again = node.connect("c", **LASTS)
    assert not again.connack.session_present
    published(node, "a", b"x")
    assert again.packets() == []


def test_who_was_connected_at_the_end_has_all_his_time() -> None:
    node = RestartedMqtt()
    subscribed(node, node.connect("c", clean_start=False, expiry_s=60), "a")
    node.advance(1000)
    node.kill(away_s=1000)
    node.advance(59)
    assert len(node.mqtt.server.states) == 1
    node.kill()
    node.advance(2)
    assert len(node.mqtt.server.states) == 0
    assert node.mqtt.queue_names == []


@pytest.mark.parametrize("delay_s", [0, 30])
def test_the_will_of_who_was_connected_is_published_once(delay_s: int) -> None:
    node = RestartedMqtt()
    watched(node)
    node.connect("c", **LASTS, will=Will(b"w", b"gone", 1, delay_s=delay_s))
    node.kill()
    node.advance(delay_s + 1)
    for _ in range(3):
        node.kill()
        node.advance(100)
    watcher = watched(node)
    assert watcher.messages() == [("w", b"gone", 1)]


def test_a_will_waits_over_the_end_of_a_node_and_is_published_once() -> None:
    node = RestartedMqtt()
    watched(node)
    node.connect("c", **LASTS, will=Will(b"w", b"gone", 1, delay_s=30)).lose()
    node.settle()
    node.advance(10)
    node.kill(away_s=10)
    watcher = watched(node)
    node.advance(9)
    assert watcher.packets() == []
    node.advance(2)
    assert watcher.messages() == [("w", b"gone", 1)]
    watcher.answer(PacketType.PUBACK, 1)
    node.settle()
    node.kill()
    node.advance(100)
    assert watched(node).packets() == []


def test_who_comes_back_after_the_end_of_a_node_calls_his_will_off() -> None:
    node = RestartedMqtt()
    watched(node)
    node.connect("c", **LASTS, will=Will(b"w", b"gone", 1, delay_s=30)).lose()
    node.settle()
    node.kill()
    node.connect("c", **LASTS)
    node.advance(100)
    node.kill()
    node.advance(100)
    assert watched(node).packets() == []


def test_who_left_in_order_has_no_will_after_the_end_of_a_node() -> None:
    node = RestartedMqtt()
    watched(node)
    node.connect("c", **LASTS, will=Will(b"w", b"gone", 1)).send(Disconnect())
    node.settle()
    node.kill()
    node.advance(100)
    assert watched(node).packets() == []


def test_who_ended_his_session_when_he_left_has_none() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    subscribed(node, client, "a")
    client.send(Disconnect(properties=Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 0})))
    node.settle()
    node.kill()
    assert node.mqtt.queue_names == []
    assert not node.connect("c", **LASTS).connack.session_present


def test_a_new_expiry_at_the_end_of_a_connection_counts() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    client.send(Disconnect(properties=Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 10})))
    node.settle()
    node.kill(away_s=11)
    assert not node.connect("c", **LASTS).connack.session_present


def test_a_virtual_host_goes_with_its_sessions() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    subscribed(node, client, "a", options=2)
    client.publish("b", b"x", 2)
    node.settle()
    edge = node.mqtt.edge
    edge.services.metadata.ensure(lambda: doom(edge.catalogue, "/"))
    for decide in unfinished(edge.catalogue):
        edge.services.metadata.ensure(decide)
    node.settle()
    assert len(node.mqtt.server.states) == 0
    assert edge.durability.store.catalog.by_kind() == {}


@pytest.mark.parametrize("record", [b"\xc1", b"\x01", msgpack.packb(["a", "b"]), b"\xd4"])
def test_a_session_goes_on_without_a_will_that_this_version_cannot_read(
    record: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    node = RestartedMqtt()
    node.connect("c", **LASTS, will=Will(b"w", b"gone", 1, delay_s=60)).lose()
    node.settle()
    kept = node.mqtt.server.kept(("/", "c"))
    assert kept is not None
    facts = node.mqtt.edge.durability.facts
    facts.put(Kind.CLIENT_SESSION, ("/", "c"), kept._replace(record=record))
    node.settle()
    node.kill()
    assert len(node.mqtt.server.wills) == 0
    assert "will_unreadable" in caplog.text
    assert node.connect("c", **LASTS).connack.session_present


def test_releases_come_again_in_the_order_of_the_receipts() -> None:
    node = RestartedMqtt()
    client = node.connect("c", **LASTS)
    subscribed(node, client, "a", options=2)
    for number in range(12):
        published(node, "a", b"%d" % number, 2)
    client.packets()
    order = [10, 2, 9, 1, 12]
    for packet_id in order:
        client.answer(PacketType.PUBREC, packet_id)
        node.settle()
    node.kill()
    client = node.connect("c", **LASTS)
    released = [
        packet_id
        for each in client.packets()
        if isinstance(each, Acks) and each.kind is PacketType.PUBREL
        for packet_id in each.packet_ids
    ]
    assert released == order


@pytest.mark.parametrize("by", ["queue", "retained"])
def test_the_identifier_of_a_message_that_was_refused_is_that_of_the_next(by: str) -> None:
    """The packet is forgotten before PUBREC says that: after the end of the node the next message
    would be taken for the one that was refused."""
    node = RestartedMqtt()
    client, watcher = node.connect("c", **LASTS), watched(node)
    if by == "retained":
        node.mqtt.edge.services.retained._limits = RetainedLimits(0, 0)
    else:
        amqp = node.mqtt.edge.connect()
        full = to_table({"x-max-length": 1, "x-overflow": "reject-publish"})
        amqp.send(encode_method(1, make(Queue.Declare, queue="q", arguments=pamqp_table(full))))
        node.settle()
        bind = make(Queue.Bind, queue="q", exchange="amq.topic", routing_key="w")
        amqp.send(encode_method(1, bind))
        node.settle()
        published(node, "w", b"first")
        assert len(watcher.messages()) == 1
    client.packets()
    client.send(Publish(b"w", b"refused", 2, retain=by == "retained", packet_id=7))
    while not (answers := client.packets()):
        assert node.commit()
        node.wake()
    assert answers == [Ack(PacketType.PUBREC, 7, ReasonCode.QUOTA_EXCEEDED)]
    node.kill()
    client, watcher = node.connect("c", **LASTS), watched(node)
    watcher.packets()
    if by == "queue":
        amqp = node.mqtt.edge.connect()
        amqp.send(encode_method(1, make(Queue.Purge, queue="q")))
        node.settle()
    client.send(Publish(b"w", b"next", 2, packet_id=7))
    node.settle()
    assert client.acks() == [(PacketType.PUBREC, 7, ReasonCode.SUCCESS)]
    assert [payload for _, payload, _ in watcher.messages()] == [b"next"]
