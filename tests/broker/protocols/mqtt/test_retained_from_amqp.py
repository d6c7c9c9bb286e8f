"""Messages that AMQP clients have retained by the header x-mqtt-retain."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Exchange, Queue, Tx

from fluffle.broker.config.config import MqttConfig
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.properties import PropertyId, decode_properties
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.protocol.properties import RETAIN, Properties
from tests.support.edge import Client, Edge, publish_frames
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttEdge

WANTED = Properties(headers={RETAIN: ("t", True), "colour": ("S", b"red")}, delivery_mode=2)


def published(client: Client, key: str, *bodies: bytes, properties: Properties = WANTED) -> None:
    """Publish to the exchange of MQTT, with confirms."""
    client.publish(*bodies, exchange="amq.topic", queue=key, properties=properties)


def retained(mqtt: MqttEdge) -> dict[str, bytes]:
    """Retained messages that a new client gets at once, by topic."""
    client = mqtt.connect("reader")
    client.subscribe("#", options=1)
    runs = [each for each in client.packets() if isinstance(each, Publishes)]
    assert all(run.retain for run in runs)
    client.lose()
    return {run.topic.decode(): run.payloads[-1] for run in runs}


def test_the_last_message_of_a_topic_is_kept_and_confirmed_then() -> None:
    mqtt = MqttEdge()
    live = mqtt.connect("live")
    live.subscribe("home/#", options=1)
    amqp = mqtt.edge.connect()
    amqp.confirm_select()
    published(amqp, "home.attic", b"1", b"2")
    amqp.expect(Basic.Ack)
    (run,) = [each for each in live.packets() if isinstance(each, Publishes)]
    assert (run.retain, run.payloads) == (False, [b"1", b"2"])
    client = mqtt.connect("c")
    client.subscribe("home/+", options=2)
    (sent,) = client.packets()
    assert isinstance(sent, Publishes)
    assert (sent.topic, sent.payloads, sent.qos, sent.retain) == (b"home/attic", [b"2"], 1, True)
    assert decode_properties(sent.properties).user == [("colour", "red")]


def test_an_empty_one_removes_it() -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    published(amqp, "a.b", b"x")
    assert retained(mqtt) == {"a/b": b"x"}
    published(amqp, "a.b", b"")
    assert retained(mqtt) == {}


@pytest.mark.parametrize(
    ("exchange", "header"),
    [
        ("amq.topic", ("t", False)),
        ("amq.topic", ("S", b"true")),
        ("amq.topic", ("I", 1)),
        ("amq.direct", ("t", True)),
        ("", ("t", True)),
    ],
)
def test_nothing_else_is_kept(exchange: str, header: tuple[str, object]) -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    amqp.confirm_select()
    properties = Properties(headers={RETAIN: header})  # type: ignore[dict-item]
    amqp.publish(b"x", exchange=exchange, queue="a.b", properties=properties)
    amqp.expect(Basic.Ack)
    assert mqtt.edge.vhost.retained.count == 0


@pytest.mark.parametrize("key", ["", "a.#", "a.*", "$SYS.broker.uptime", "a\x01"])
def test_a_key_that_is_no_topic_keeps_nothing_and_is_confirmed(key: str) -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    amqp.confirm_select()
    published(amqp, key, b"x")
    amqp.expect(Basic.Ack)
    assert mqtt.edge.vhost.retained.count == 0


def test_what_there_is_no_room_for_is_refused_and_delivered() -> None:
    mqtt = MqttEdge()
    store = mqtt.edge.services.retained
    store._limits = store._limits._replace(messages_max=1)
    live = mqtt.connect("live")
    live.subscribe("#", options=0)
    amqp = mqtt.edge.connect()
    amqp.confirm_select()
    published(amqp, "a", b"x")
    amqp.expect(Basic.Ack)
    published(amqp, "b", b"y")
    amqp.expect(Basic.Nack)
    assert [topic for topic, _, _ in live.messages()] == ["a", "b"]
    assert retained(mqtt) == {"a": b"x"}


def test_where_nothing_is_retained_the_header_says_nothing() -> None:
    mqtt = MqttEdge(MqttConfig(retained=False))
    amqp = mqtt.edge.connect()
    published(amqp, "a", b"x")
    assert mqtt.edge.vhost.retained.count == 0


def test_it_expires_when_it_says_so() -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    for key, ms in (("short", "1000"), ("long", "60000")):
        published(amqp, key, b"x", properties=Properties(headers=WANTED.headers, expiration=ms))
    client = mqtt.connect("c")
    client.subscribe("long", options=0)
    (run,) = client.packets()
    assert isinstance(run, Publishes)
    found = decode_properties(run.properties)
    assert found.integer(PropertyId.MESSAGE_EXPIRY_INTERVAL, 0) == 60
    mqtt.edge.advance(2)
    assert retained(mqtt) == {"long": b"x"}


def test_messages_of_a_transaction_are_kept_when_it_is_committed() -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    amqp.call(Tx.Select(), Tx.SelectOk)
    published(amqp, "a", b"x")
    assert mqtt.edge.vhost.retained.count == 0
    amqp.call(Tx.Commit(), Tx.CommitOk)
    assert retained(mqtt) == {"a": b"x"}


def test_each_message_of_a_run_and_of_several_keys_is_kept() -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    properties = Properties(headers={RETAIN: ("t", True), "CC": ("A", [("S", b"other.key")])})
    published(amqp, "a", b"1", b"2", properties=properties)
    published(amqp, "b", b"3")
    assert retained(mqtt) == {"a": b"2", "b": b"3"}
    assert mqtt.connect("c", MQTT_5).connack.code == 0


def test_of_messages_that_are_routed_apart_the_last_one_stays() -> None:
    mqtt = MqttEdge()
    amqp = mqtt.edge.connect()
    amqp.confirm_select()
    amqp.declare_exchange("behind", "headers")
    amqp.call(
        Exchange.Bind(destination="behind", source="amq.topic", routing_key="#"), Exchange.BindOk
    )
    for colour in ("red", "blue"):
        amqp.declare(colour)
        table: Any = {"colour": ("S", colour.encode()), "x-match": ("S", b"all")}
        amqp.call(Queue.Bind(queue=colour, exchange="behind", arguments=table), Queue.BindOk)
    frames = [
        publish_frames(
            body,
            "a",
            exchange="amq.topic",
            properties=Properties(headers={RETAIN: ("t", True), "colour": ("S", colour)}),
        )
        for body, colour in ((b"1", b"red"), (b"2", b"blue"), (b"3", b"red"), (b"4", b"none"))
    ]
    for count in (3, 4, 2):
        amqp.send(*frames[:count])
        assert retained(mqtt) == {"a": b"%d" % count}


def test_who_publishes_faster_than_that_is_kept_has_to_wait() -> None:
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata))
    metadata = mqtt.edge.services.metadata
    assert isinstance(metadata, ManualMetadata)
    amqp = mqtt.edge.connect()
    store = mqtt.edge.services.retained
    store._limits = store._limits._replace(size_bytes_max=1 << 30)
    for number in range(20):
        published(amqp, f"a.{number}", bytes(1_000_000))
        if store.is_full:
            break
    assert store.is_full
    assert amqp.connection.read_control.holds("full")
    while len(metadata):
        metadata.commit()
        mqtt.edge.run()
    assert not store.is_full
    assert not amqp.connection.read_control.holds("full")
    assert store._waiting_bytes == 0
    assert mqtt.edge.vhost.retained.count == number + 1
