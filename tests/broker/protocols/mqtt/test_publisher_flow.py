"""Publishers of MQTT are not read while queues, the disk or an alarm cannot take more."""

from collections.abc import Callable
from typing import cast

import pytest

from fluffle.broker.core.input_queue import OWED_MESSAGES_MAX, SECONDS_PER_MESSAGE
from fluffle.broker.queues import engine
from fluffle.broker.queues.publish_target import BackloggedTarget
from fluffle.protocol.mqtt.codes import PacketType
from fluffle.protocol.mqtt.events import Publishes
from fluffle.protocol.mqtt.packets import Pingreq, Pingresp, Publish
from tests.support.mqtt_edge import MqttClient, MqttEdge


def slow_subscriber(mqtt: MqttEdge, monkeypatch: pytest.MonkeyPatch) -> MqttClient:
    """A subscriber of QoS 1 that acknowledges nothing: its queue is behind from the first on."""
    monkeypatch.setattr(engine, "BEHIND_MESSAGES", 0)
    subscriber = mqtt.connect("slow", expiry_s=60)
    subscriber.subscribe("a", options=1)
    return subscriber


def flood(publisher: MqttClient, count: int) -> None:
    """Publish messages of QoS 0, in one read."""
    publisher.send(*[Publish(b"a", b"x")] * count)


def fill(mqtt: MqttEdge) -> None:
    """Publish what the subscriber's window takes, and one more that waits, by another client."""
    filler = mqtt.connect("filler")
    packet = Publish(b"a", b"x", 1, packet_id=1)
    window = mqtt.server.config.prefetch
    for _ in range(window + 1):
        filler.send(packet)
    assert mqtt.edge.vhost.queues["mqtt-subscription-slowqos1"].ready_count == 1


def flooded(mqtt: MqttEdge) -> MqttClient:
    """A publisher that owes as many messages as it may to a queue that is behind."""
    fill(mqtt)
    publisher = mqtt.connect("p", keep_alive_s=1)
    for packet_id in range(1, OWED_MESSAGES_MAX + 1):
        publisher.send(Publish(b"a", b"x", 1, packet_id=packet_id))
    return publisher


def test_a_publisher_whose_queue_is_behind_is_not_read_until_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mqtt = MqttEdge()
    slow_subscriber(mqtt, monkeypatch)
    publisher = flooded(mqtt)
    assert publisher.connection.state == "flow"
    assert not publisher.connection.is_read
    mqtt.edge.advance(OWED_MESSAGES_MAX * SECONDS_PER_MESSAGE)
    assert publisher.connection.state == "running"
    assert publisher.connection.is_read


def test_a_publisher_is_read_once_the_subscriber_has_taken_what_it_owes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mqtt = MqttEdge()
    subscriber = slow_subscriber(mqtt, monkeypatch)
    publisher = flooded(mqtt)
    assert publisher.connection.state == "flow"
    while runs := [each for each in subscriber.packets() if isinstance(each, Publishes)]:
        subscriber.answer(PacketType.PUBACK, *(i for run in runs for i in run.packet_ids or ()))
    assert publisher.connection.state == "running"


def test_a_client_that_also_subscribes_is_read_whatever_its_queues_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If it is not read, it cannot acknowledge what its own queue waits for."""
    mqtt = MqttEdge()
    slow_subscriber(mqtt, monkeypatch)
    fill(mqtt)
    publisher = mqtt.connect("p")
    publisher.subscribe("b")
    for packet_id in range(1, OWED_MESSAGES_MAX + 1):
        publisher.send(Publish(b"a", b"x", 1, packet_id=packet_id))
    assert publisher.connection.state == "running"


class Full:
    """A queue that takes nothing for now: a `BackloggedTarget`."""

    name = "full"
    is_full = True

    def __init__(self) -> None:
        self.blocked_publishers: list[object] = []


@pytest.mark.parametrize("also_subscribes", [False, True])
def test_a_publisher_whose_queue_takes_nothing_is_in_flow(also_subscribes: bool) -> None:
    mqtt, full = MqttEdge(), Full()
    client = mqtt.connect("p")
    if also_subscribes:
        client.subscribe("b")
    target = cast(BackloggedTarget, full)
    client.connection.on_behind(target, 1)
    assert (client.connection.state, client.connection.is_read) == ("flow", False)
    (publisher,) = target.blocked_publishers
    publisher.paid(target, 0)
    assert (client.connection.state, client.connection.is_read) == ("running", True)


def test_a_publisher_is_in_flow_while_the_disk_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    mqtt, waiting = MqttEdge(), list[Callable[[], None]]()
    client = mqtt.connect("p")
    commits = type(mqtt.edge.services.runtime.commits)
    monkeypatch.setattr(commits, "when_caught_up", lambda _commits, act: waiting.append(act))
    client.connection.on_disk_behind()
    assert (client.connection.state, client.connection.is_read) == ("flow", False)
    (caught_up,) = waiting
    caught_up()
    assert (client.connection.state, client.connection.is_read) == ("running", True)


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm_holds_a_publisher_until_the_last_is_cleared(resource: str) -> None:
    """Its PINGREQ is not read either; a client that connects meanwhile is read until it
    publishes."""
    mqtt = MqttEdge()
    alarms = mqtt.edge.services.alarms
    publisher = mqtt.connect("p")
    for each in ("memory", "disk"):
        alarms.set(each, low=True)
    late = mqtt.connect("late")
    for client in (publisher, late):
        assert client.connection.state == "running"
        client.publish("a")
        client.send(Pingreq())
        assert (client.connection.state, client.connection.is_read) == ("blocked", False)
        assert client.packets() == []
    alarms.set(resource, low=False)
    assert publisher.connection.state == "blocked"
    for each in ("memory", "disk"):
        alarms.set(each, low=False)
    mqtt.edge.run()
    for client in (publisher, late):
        assert (client.connection.state, client.connection.is_read) == ("running", True)
        client.expect(Pingresp)
