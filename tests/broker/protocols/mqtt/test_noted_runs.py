"""Runs of messages of QoS 2 in a cluster, whose packets are noted before they are published."""

# tests: fluffle.broker.protocols.mqtt.incoming_publishes

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.base.client_session import INCOMING
from fluffle.broker.base.traffic import ClientDrop
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.core.publisher import Publisher
from fluffle.broker.core.route_lookup import LookupTooLong
from fluffle.broker.protocols.mqtt.incoming_publishes import NotedRun
from fluffle.protocol.methods import Queue, encode_method, make, pamqp_table
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Publish, Suback, Subscribe
from fluffle.protocol.mqtt.reader import Publishes
from fluffle.protocol.wire import FieldTable, to_table
from tests.support.mqtt_edge import MqttClient
from tests.support.mqtt_nodes import MqttNodes

ONE, MANY = [b"0"], [b"1", b"2", b"3", b"4", b"5"]


class Clients:
    """A publisher and a subscriber, at two nodes."""

    def __init__(self, version: int = MQTT_5, config: MqttConfig | None = None) -> None:
        self.nodes = MqttNodes()
        if config is not None:
            self.nodes.nodes["a"].server.config = config
        self.publisher = self.nodes.begin("a", "p", version)
        self.subscriber = self.nodes.begin("b", "s")
        self.nodes.settle()
        self.publisher.expect(Connack)
        self.subscriber.expect(Connack)
        self.subscriber.send(Subscribe(1, [("t", 2)]))
        self.nodes.settle()
        self.subscriber.expect(Suback)

    def publish(self, payloads: list[bytes]) -> None:
        """Send messages in one read; the first packet is 10, and so on."""
        packets = [Publish(b"t", each, 2, packet_id=10 + int(each)) for each in payloads]
        self.publisher.send(*packets)

    @property
    def noted(self) -> list[int]:
        """Packets of the publisher that are noted."""
        return self.nodes.edge.vhost.client_sessions.numbers("p", INCOMING)


def declare(nodes: MqttNodes, arguments: FieldTable) -> None:
    """Declare a queue of AMQP that is bound to the topic."""
    amqp = nodes.edge.connect()
    queue = make(Queue.Declare, queue="q", arguments=pamqp_table(arguments))
    bind = make(Queue.Bind, queue="q", exchange="amq.topic", routing_key="t")
    amqp.send(encode_method(1, queue))
    nodes.settle()
    amqp.send(encode_method(1, bind))
    nodes.settle()


def payloads_of(client: MqttClient) -> list[bytes]:
    runs = [run for run in client.packets() if isinstance(run, Publishes)]
    return [payload for run in runs for payload in run.payloads]


def recs(*codes: ReasonCode) -> list[tuple[PacketType, int, ReasonCode]]:
    return [(PacketType.PUBREC, 11 + at, code) for at, code in enumerate(codes)]


def test_messages_of_one_read_are_published_together() -> None:
    clients, publish_batch = Clients(), Publisher.publish_batch
    with patch.object(
        Publisher, "publish_batch", autospec=True, side_effect=publish_batch
    ) as published:
        clients.publish(MANY)
        clients.nodes.settle()
    assert published.call_count == 1
    assert payloads_of(clients.subscriber) == MANY
    assert clients.publisher.acks() == recs(*[ReasonCode.SUCCESS] * 5)
    assert clients.noted == [11, 12, 13, 14, 15]


def test_a_run_that_takes_long_to_route_is_not_overtaken() -> None:
    clients, publish, runs = Clients(), NotedRun.publish, list[NotedRun]()

    def first_is_long(run: NotedRun, *rest: object) -> None:
        runs.append(run)
        if len(runs) == 1:
            raise LookupTooLong
        publish(run, *rest)  # type: ignore[arg-type]

    with patch.object(NotedRun, "publish", first_is_long):
        with clients.nodes.reading():
            clients.publish(ONE)
            clients.publish(MANY)
        clients.nodes.settle()
    assert payloads_of(clients.subscriber) == ONE + MANY
    assert [packet_id for _, packet_id, _ in clients.publisher.acks()] == [10, 11, 12, 13, 14, 15]


def test_what_a_queue_refuses_of_a_run_may_come_again() -> None:
    """A queue of AMQP has room for two."""
    clients = Clients()
    nodes = clients.nodes
    declare(nodes, to_table({"x-max-length": 2, "x-overflow": "reject-publish"}))
    clients.publish(MANY)
    nodes.settle()
    refused = ReasonCode.QUOTA_EXCEEDED
    assert clients.publisher.acks() == recs(*[ReasonCode.SUCCESS] * 2, *[refused] * 3)
    assert clients.noted == [11, 12]
    clients.publish(MANY)
    nodes.settle()
    assert clients.publisher.acks() == recs(*[ReasonCode.SUCCESS] * 2, *[refused] * 3)


def test_only_the_message_that_is_not_retained_is_refused() -> None:
    """The last message of a run is retained; the others are in their queues, and that is all."""
    clients = Clients()
    retained = clients.nodes.edge.services.retained
    assert retained is not None
    retained._limits = retained._limits._replace(messages_max=0)
    with clients.nodes.reading():
        clients.publisher.send(
            *[Publish(b"t", each, 2, retain=True, packet_id=10 + int(each)) for each in MANY[:3]]
        )
    clients.nodes.settle()
    assert payloads_of(clients.subscriber) == MANY[:3]
    assert clients.publisher.acks() == recs(
        ReasonCode.SUCCESS, ReasonCode.SUCCESS, ReasonCode.QUOTA_EXCEEDED
    )
    assert clients.noted == [11, 12]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_run_that_may_not_be_published_is_refused_as_a_whole(leaves: bool) -> None:
    clients = Clients()
    clients.publish(MANY)
    edge = clients.nodes.edge
    edge.editor.put_permission("guest", "/", Permission(".*", "^mqtt", ".*"))
    edge.run()
    if leaves:
        clients.publisher.lose()
    clients.nodes.settle()
    assert payloads_of(clients.subscriber) == []
    if not leaves:
        assert clients.publisher.acks() == recs(*[ReasonCode.NOT_AUTHORIZED] * 5)
        assert clients.noted == []


def test_before_5_0_a_run_that_may_not_be_published_is_answered_as_if_it_had_been() -> None:
    clients = Clients(MQTT_3_1_1)
    edge = clients.nodes.edge
    clients.publish(MANY)
    edge.editor.put_permission("guest", "/", Permission(".*", "^mqtt", ".*"))
    clients.nodes.settle()
    assert clients.publisher.acks() == recs(*[ReasonCode.SUCCESS] * 5)
    assert payloads_of(clients.subscriber) == []
    assert clients.publisher.connection.session is not None
    dropped = clients.publisher.connection.session.traffic.dropped
    assert dropped[ClientDrop.NOT_AUTHORIZED] == 5
    clients.publisher.answer(PacketType.PUBREL, 11, 12, 13, 14, 15)
    clients.nodes.settle()
    assert [kind for kind, _, _ in clients.publisher.acks()] == [PacketType.PUBCOMP] * 5
    assert clients.noted == []


def test_before_5_0_who_may_not_publish_a_run_is_disconnected_where_that_is_wanted() -> None:
    clients = Clients(MQTT_3_1_1, MqttConfig(disconnect_on_unauthorized=True))
    clients.publish(MANY)
    edge = clients.nodes.edge
    edge.editor.put_permission("guest", "/", Permission(".*", "^mqtt", ".*"))
    clients.nodes.settle()
    assert clients.publisher.packets() == []
    assert clients.publisher.transport.is_lost
    assert payloads_of(clients.subscriber) == []


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_message_whose_refusal_is_not_said_comes_once_to_queues_that_have_it(
    node: str, *, is_refused: bool
) -> None:
    """The client hears of nothing, and sends it again with the identifier that it had.

    `is_refused`: whether its connection ends once the message is, while that is forgotten."""
    clients = Clients()
    nodes, subscriber = clients.nodes, clients.subscriber
    retained = nodes.edge.services.retained
    assert retained is not None
    retained._limits = retained._limits._replace(messages_max=1)
    other = nodes.begin("a", "other")
    nodes.settle()
    first, last = Publish(b"u", b"0", retain=True), Publish(b"t", b"1", 2, True, packet_id=11)
    if is_refused:
        other.send(first)
        nodes.settle()
    clients.publisher.send(last)
    other.send(first)  # one that is retained, before the other cannot be
    nodes.commit()
    assert clients.noted == [11]
    clients.publisher.lose()
    nodes.settle()
    assert payloads_of(subscriber) == [b"1"]
    clients.publisher = nodes.begin(node, "p")
    nodes.settle()
    assert clients.publisher.expect(Connack).session_present
    clients.publisher.send(replace(last, dup=True))
    nodes.settle()
    assert clients.publisher.acks() == recs(ReasonCode.QUOTA_EXCEEDED)
    assert payloads_of(subscriber) == []
    assert clients.noted == []


def test_what_is_refused_without_a_word_comes_once_to_queues_that_have_it() -> None:
    """Before 5.0 a refusal is not said, and the client sends the message again."""
    clients = Clients(MQTT_3_1_1)
    nodes, subscriber = clients.nodes, clients.subscriber
    declare(nodes, to_table({"x-max-length": 2, "x-overflow": "reject-publish"}))
    clients.publish(MANY)
    nodes.settle()
    assert clients.publisher.acks() == recs(*[ReasonCode.SUCCESS] * 2)
    assert payloads_of(subscriber) == MANY
    clients.publisher.lose()
    clients.publisher = nodes.begin("b", "p", MQTT_3_1_1)
    nodes.settle()
    clients.publish(MANY[2:])
    nodes.settle()
    assert payloads_of(subscriber) == []
