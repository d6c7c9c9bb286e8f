"""Policies for the queues of sessions: they bound what waits for a client that is away."""

# tests: fluffle.broker.protocols.mqtt.subscribe_methods

from __future__ import annotations

from functools import partial

import pytest

from fluffle.broker.definitions.parameters import set_policy
from tests.support.edge import Edge
from tests.support.mqtt_edge import MqttEdge


def bound(edge: Edge, pattern: str, length_max: int) -> None:
    """Have queues keep the newest messages alone, so many."""
    fields = {
        "pattern": pattern,
        "definition": {"max-length": length_max, "overflow": "drop-head"},
        "apply-to": "queues",
    }
    edge.editor.have(partial(set_policy, edge.catalogue, "/", "bound", fields))
    edge.run()


@pytest.mark.parametrize("is_there_first", [False, True])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_policy_drops_the_oldest_of_what_waits_for_a_session(
    qos: int, is_there_first: bool
) -> None:
    mqtt = MqttEdge()
    pattern = "^mqtt-subscription-.*qos[01]$"
    if is_there_first:
        bound(mqtt.edge, pattern, 3)
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("a", options=qos)
    client.lose()
    if not is_there_first:
        bound(mqtt.edge, pattern, 3)
    for number in range(10):
        publisher.publish("a", b"%d" % number, qos)
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.messages() == [("a", b"%d" % number, qos) for number in (7, 8, 9)]


def test_a_policy_for_what_waits_for_qos_0_leaves_the_rest_of_the_session() -> None:
    mqtt = MqttEdge()
    bound(mqtt.edge, "^mqtt-subscription-.*qos0$", 3)
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("a", options=0)
    client.subscribe("b", options=1)
    client.lose()
    for topic, qos in (("a", 0), ("b", 1)):
        for number in range(10):
            publisher.publish(topic, b"%d" % number, qos)
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    came = client.messages()
    assert [payload for topic, payload, _ in came if topic == "a"] == [b"7", b"8", b"9"]
    assert [payload for topic, payload, _ in came if topic == "b"] == [b"%d" % n for n in range(10)]


def test_a_policy_for_no_message_has_none_of_qos_0_wait() -> None:
    mqtt = MqttEdge()
    bound(mqtt.edge, "^mqtt-subscription-.*qos0$", 0)
    client, publisher = mqtt.connect("c", expiry_s=60), mqtt.connect("p")
    client.subscribe("a", options=0)
    publisher.publish("a", b"there")
    assert client.messages() == [("a", b"there", 0)]
    client.lose()
    publisher.publish("a", b"away")
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    publisher.publish("a", b"back")
    assert client.messages() == [("a", b"back", 0)]
