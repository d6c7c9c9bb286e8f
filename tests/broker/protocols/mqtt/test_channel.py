"""Channel of an MQTT client: its queues, and what becomes of them."""

from functools import partial
from unittest.mock import patch

import pytest

from fluffle.broker.access.access import Permission, TopicPermission
from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.base.errors import BrokerError, NotFound, QueueDeleted, Unreachable
from fluffle.broker.base.queue_names import subscription_queue
from fluffle.broker.core.client import WITHOUT_CHANNELS
from fluffle.broker.core.connections import KeepAlives
from fluffle.broker.definitions.ended_queues import decide_end
from fluffle.broker.metadata.change import Change, Kind
from fluffle.broker.protocols.mqtt.channel import AWAY_RETRY_S
from fluffle.broker.protocols.mqtt.server import deletion
from fluffle.broker.protocols.mqtt.will import encode_record
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Damage
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.changes import declare_exchange
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts.client_sessions import keep_session
from fluffle.broker.vhosts.queue_changes import bind, delete_queue, unbind
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.methods import Basic, encode_method, make
from fluffle.protocol.mqtt.codes import MQTT_5, ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Connect, Disconnect, Subscribe, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from fluffle.protocol.mqtt.reader import Publishes
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttEdge


def test_a_client_has_one_channel_that_nobody_lists() -> None:
    (channel,) = MqttEdge().connect("c").connection.channels
    assert channel.number == WITHOUT_CHANNELS


def test_a_client_whose_queue_is_deleted_is_notified_and_ends() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    vhost = mqtt.edge.vhost
    mqtt.edge.editor.have(partial(delete_queue, vhost, vhost.queues["mqtt-subscription-cqos1"]))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)]
    assert client.reasons == ["queue 'mqtt-subscription-cqos1' in vhost '/' has been deleted"]
    assert client.transport.is_lost


def test_what_is_for_a_client_that_is_away_is_in_its_queue() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    client.lose()
    mqtt.connect("p").publish("a", b"x", 1)
    assert mqtt.edge.vhost.queues["mqtt-subscription-cqos1"].ready_count == 1
    amqp = mqtt.edge.connect()
    amqp.send(encode_method(1, make(Basic.Get, queue="mqtt-subscription-cqos1")))
    assert amqp.take().body == b"x"


QUEUE = "mqtt-subscription-cqos1"


def delete(mqtt: MqttEdge, queue: str) -> None:
    vhost = mqtt.edge.vhost
    mqtt.edge.editor.have(partial(delete_queue, vhost, vhost.queues[queue]))
    mqtt.edge.run()


def connect_of(user: str = "guest", password: bytes = b"guest") -> Connect:
    """A CONNECT that comes back to a session, which is to last."""
    properties = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    return Connect(MQTT_5, "c", False, user=user, password=password, properties=properties)


@pytest.mark.parametrize("is_away", [False, True])
def test_a_session_ends_with_its_queue(*, is_away: bool) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    client.subscribe("b", options=0)
    if is_away:
        client.lose()
    delete(mqtt, QUEUE)
    mqtt.edge.advance(0)
    assert (mqtt.queue_names, mqtt.edge.vhost.client_sessions.by_client) == ([], {})
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert not client.connack.session_present
    assert mqtt.queue_names == []
    client.subscribe("a", options=1)
    mqtt.connect("p").publish("a", b"x", 1)
    assert client.messages() == [("a", b"x", 1)]


def test_a_session_ends_with_its_queue_whose_name_has_a_digest() -> None:
    mqtt, client_id = MqttEdge(), "c" * 300
    client = mqtt.connect(client_id, expiry_s=60)
    client.subscribe("a", options=1)
    client.lose()
    delete(mqtt, subscription_queue(client_id, 1))
    mqtt.edge.advance(0)
    assert mqtt.edge.vhost.client_sessions.by_client == {}


def test_a_session_does_not_end_with_a_queue_of_amqp_that_has_its_name() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c", expiry_s=60).lose()
    mqtt.edge.connect().declare(QUEUE, durable=True)
    delete(mqtt, QUEUE)
    mqtt.edge.advance(0)
    assert mqtt.connect("c", clean_start=False, expiry_s=60).connack.session_present


def lose_disk(mqtt: MqttEdge) -> None:
    """All that was on this node alone is lost, as the others see it."""
    vhost = mqtt.edge.vhost
    queues = tuple(vhost.queues.values())
    decide = partial(decide_end, mqtt.edge.catalogue, vhost, lambda _definition: True, queues)
    mqtt.edge.editor.have(decide)
    mqtt.edge.advance(0)


def test_a_queue_of_qos_0_is_made_anew_when_its_disk_is_lost() -> None:
    """Without what was in it, which QoS 0 permits; its session goes on."""
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", "b/+", options=0)
    client.lose()
    mqtt.connect("p").publish("a", b"lost")
    lose_disk(mqtt)
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.connack.session_present
    mqtt.connect("p").publish("b/1", b"x")
    assert client.messages() == [("b/1", b"x", 0)]


def test_who_has_published_before_reaches_a_queue_that_is_made_anew() -> None:
    """The route is remembered, and no binding changes."""
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.lose()
    publisher.publish("a", b"lost")
    lose_disk(mqtt)
    publisher.publish("a", b"x")
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.messages() == [("a", b"x", 0)]


def test_a_session_ends_when_the_disk_of_its_queue_of_qos_1_is_lost() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    client.subscribe("b", options=0)
    client.lose()
    lose_disk(mqtt)
    assert (mqtt.queue_names, mqtt.edge.vhost.client_sessions.by_client) == ([], {})


def test_a_session_that_begins_anew_at_another_node_ends_here_without_a_word_of_its_will() -> None:
    """That node has it, with the record of the session."""
    mqtt = MqttEdge()
    spy, will = mqtt.connect("spy"), Will(b"w", b"gone", 1, delay_s=5)
    spy.subscribe("w", options=1)
    client = mqtt.connect("c", expiry_s=60, will=will)
    client.subscribe("a", options=1)
    vhost = mqtt.edge.vhost

    def begin_elsewhere() -> Change:
        kept = ClientSession("guest", 60, 0, "another node", encode_record(None))
        return deletion(vhost, "c", "amq.topic").joined(keep_session(vhost, "c", kept))

    mqtt.edge.editor.have(begin_elsewhere)
    mqtt.edge.advance(10)
    assert client.transport.is_lost
    assert spy.packets() == []
    assert mqtt.server.states.find(("/", "c")) is None
    assert "c" in vhost.client_sessions.by_client


def test_a_subscription_ends_with_its_binding() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", "b", options=1)
    client.lose()
    vhost = mqtt.edge.vhost
    (gone,) = (
        each
        for each in vhost.topology.bindings_to(DestinationKind.QUEUE, QUEUE)
        if each.routing_key == "a"
    )
    mqtt.edge.editor.have(partial(unbind, vhost, gone, None))
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.connack.session_present
    channel = client.connection.channel
    assert channel is not None
    assert list(channel.state.subscriptions) == ["b"]


def test_a_session_whose_queue_may_not_be_read_any_more_is_kept() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.put_permission("alice", "/", Permission(".*", ".*", ".*"))
    client = mqtt.accept()
    client.send(connect_of("alice", b"wonder"))
    client.expect(Connack)
    client.subscribe("a", options=1)
    mqtt.edge.editor.put_permission("alice", "/", Permission(".*", ".*", "^$"))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]
    assert client.reasons == [f"queue '{QUEUE}' in vhost '/' may not be read any more"]
    assert mqtt.queue_names == [QUEUE]


@pytest.mark.parametrize("kind", ["queue", "topic"])
def test_who_may_not_read_a_session_does_not_come_back_to_it(kind: str) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    client.lose()
    mqtt.connect("p").publish("a", b"secret", 1)
    editor = mqtt.edge.editor
    if kind == "queue":
        editor.put_permission("alice", "/", Permission(".*", ".*", "^amq"))
    else:
        editor.put_permission("alice", "/", Permission(".*", ".*", ".*"))
        editor.put_topic_permission("alice", "/", "amq.topic", TopicPermission(".*", "^b$"))
    client = mqtt.accept()
    client.send(connect_of("alice", b"wonder"))
    assert client.packets() == [Connack(ReasonCode.NOT_AUTHORIZED)]
    assert mqtt.edge.vhost.queues[QUEUE].ready_count == 1
    assert mqtt.connect("c", clean_start=False, expiry_s=60).messages() == [("a", b"secret", 1)]


@pytest.mark.parametrize("kind", ["at once", "later"])
def test_a_client_whose_queue_is_another_s_alone_is_notified(kind: str) -> None:
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata) if kind == "later" else None)
    edge, metadata = mqtt.edge, mqtt.edge.services.metadata

    def settle() -> None:
        edge.run()
        while isinstance(metadata, ManualMetadata) and len(metadata):
            metadata.commit()
            edge.run()

    client = mqtt.accept()
    client.send(connect_of())
    settle()
    client.send(Subscribe(1, [("a", 1)]))
    settle()
    client.lose()
    settle()
    edge.connect().consume(QUEUE, exclusive=True)
    client = mqtt.accept()
    client.send(connect_of())
    settle()
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    assert client.packets() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]
    assert client.transport.is_lost


def test_a_client_may_hold_messages_for_as_long_as_it_lives() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    queue = mqtt.edge.vhost.queues[QUEUE]
    assert isinstance(queue, Queue)
    queue._overdue.go_by(queue, 1000)
    mqtt.connect("p").publish("a", b"x", 1)
    mqtt.edge.advance(120)
    assert all(isinstance(each, Publishes) for each in client.packets())
    assert not client.transport.is_lost


def test_a_bug_when_a_client_comes_in_ends_its_connection_and_no_more() -> None:
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata))
    edge, metadata = mqtt.edge, mqtt.edge.services.metadata
    assert isinstance(metadata, ManualMetadata)
    client = mqtt.accept()
    client.send(connect_of())
    with patch.object(KeepAlives, "add", side_effect=ValueError("a bug")):
        metadata.commit()
        edge.run()
    client.expect(Connack)
    assert client.packets() == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
    assert client.transport.is_lost


def test_a_client_whose_queue_of_qos_0_has_damage_is_disconnected() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=0)
    client.lose()
    queue = mqtt.edge.vhost.queues["mqtt-subscription-cqos0"]
    assert isinstance(queue, Queue)
    queue.damage = Damage("here", "it is missing")
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.transport.is_lost


@pytest.mark.parametrize("error", [Unreachable, NotFound])
def test_a_queue_of_qos_0_that_is_not_at_its_node_is_asked_for_again_in_a_while(
    error: type[BrokerError],
) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=0)
    client.lose()
    with patch.object(VirtualHost, "attach", side_effect=error("not there")) as attach:
        client = mqtt.connect("c", clean_start=False, expiry_s=60)
        mqtt.edge.advance(AWAY_RETRY_S - 1)
    assert (attach.call_count, client.transport.is_lost) == (1, False)
    mqtt.connect("p").publish("a", b"x")
    assert client.messages() == []
    mqtt.edge.advance(1)
    assert client.messages() == [("a", b"x", 0)]


def test_a_queue_of_qos_0_that_was_renewed_meanwhile_is_asked_for_again_at_once() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=0)
    client.lose()
    with patch.object(VirtualHost, "attach", side_effect=[QueueDeleted("not there")]) as attach:
        client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert attach.call_count == 1
    mqtt.edge.advance(0)
    mqtt.connect("p").publish("a", b"x")
    assert client.messages() == [("a", b"x", 0)]


def test_a_queue_of_qos_0_is_renewed_without_a_change_of_its_bindings() -> None:
    """With its last binding an auto-delete exchange would go."""
    mqtt, queue = MqttEdge(), "mqtt-subscription-cqos0"
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=0)
    client.lose()
    vhost, have = mqtt.edge.vhost, mqtt.edge.editor.have
    spec = ExchangeSpec("x", "fanout", durable=True, auto_delete=True)
    have(lambda: declare_exchange(vhost.topology, spec))
    have(partial(bind, vhost, Binding("x", queue, DestinationKind.QUEUE, ""), None))
    lost, bindings = vhost.queues[queue], vhost.topology.bindings_to(DestinationKind.QUEUE, queue)
    change = decide_end(mqtt.edge.catalogue, vhost, lambda _definition: True, (lost,))
    assert [fact.kind for fact in (*change.removes, *change.puts)] == [Kind.QUEUE, Kind.QUEUE]
    have(lambda: change)
    mqtt.edge.run()
    assert vhost.queues[queue] is not lost
    assert vhost.topology.bindings_to(DestinationKind.QUEUE, queue) == bindings
    assert len(bindings) == 2
