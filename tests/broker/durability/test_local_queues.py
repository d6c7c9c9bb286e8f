"""Local queues: what their node has of them, and nothing once they are deleted."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.protocol.methods import pamqp_table
from fluffle.protocol.wire import to_table
from tests.support.edge import Edge
from tests.support.leaks import garbage, without_collector
from tests.support.mqtt_edge import MqttEdge

pytestmark = pytest.mark.usefixtures(without_collector.__name__)

UNUSED_S = 120
"""Longer than anything waits for a queue."""


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"x-expires": 60_000},
        {"x-max-length": 10},
        {"x-max-length": 10, "x-overflow": "reject-publish"},
        {"x-message-deduplication": True, "x-cache-size": 10},
        {"x-dead-letter-exchange": "amq.fanout", "x-message-ttl": 60_000},
        {"x-max-priority": 5},
        {"x-single-active-consumer": True},
    ],
)
def test_no_cycle_is_left_of_a_queue_that_is_deleted(arguments: dict[str, Any]) -> None:
    edge = Edge()
    client = edge.connect()
    garbage()
    client.declare("q", durable=True, arguments=pamqp_table(to_table(arguments)))
    client.publish(b"a", b"b")
    client.consume("q")
    assert client.bodies() == [b"a", b"b"]
    client.delete("q")
    edge.advance(UNUSED_S)
    assert garbage() == []


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("expiry_s", [0, 60])
def test_no_cycle_is_left_of_the_queue_of_a_session(qos: int, expiry_s: int) -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c", expiry_s=expiry_s), mqtt.connect("p")
    garbage()
    client.subscribe("a", options=qos)
    publisher.publish("a", qos=qos)
    client.lose()
    publisher.lose()
    mqtt.edge.advance(UNUSED_S)
    assert mqtt.queue_names == []
    assert garbage() == []
