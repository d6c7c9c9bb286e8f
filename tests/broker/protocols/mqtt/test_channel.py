"""Channel of an MQTT client: its queues, and what becomes of them."""

from functools import partial

from fluffle.broker.core.client import WITHOUT_CHANNELS
from fluffle.broker.vhosts.queue_changes import delete_queue
from fluffle.protocol.methods import Basic, encode_method, make
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Disconnect
from tests.support.mqtt_edge import MqttEdge


def test_a_client_has_one_channel_that_nobody_lists() -> None:
    (channel,) = MqttEdge().connect("c").connection.channels
    assert channel.number == WITHOUT_CHANNELS


def test_a_client_whose_queue_is_deleted_is_told_and_ends() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    vhost = mqtt.edge.vhost
    mqtt.edge.editor.have(partial(delete_queue, vhost, vhost.queues["mqtt-subscription-cqos1"]))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)]
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
