"""Publishers of MQTT are not read while queues, the disk or an alarm cannot take more."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from fluffle.broker.core.input_queue import OWED_MESSAGES_MAX, SECONDS_PER_MESSAGE
from fluffle.broker.protocols.mqtt.connection import HELD_BYTES_MAX, PACKET_BYTES
from fluffle.broker.queues import engine
from fluffle.broker.queues.publish_target import BackloggedTarget
from fluffle.protocol.mqtt.codes import MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties
from fluffle.protocol.mqtt.reader import EVENTS_MAX, Publishes
from tests.support.edge import Edge
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.read_barrier import ManualReadBarrier


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


def set_alarms(mqtt: MqttEdge, *resources: str, low: bool = True) -> None:
    for each in resources:
        mqtt.edge.services.alarms.set(each, low=low)
    mqtt.edge.run()


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm_holds_a_publisher_until_the_last_is_cleared(resource: str) -> None:
    """A client that connects meanwhile is let in, and held once it publishes."""
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    set_alarms(mqtt, "memory", "disk")
    late = mqtt.connect("late")
    for client in (publisher, late):
        assert client.connection.state == "running"
        client.publish("a", qos=1)
        assert client.connection.state == "blocked"
        assert client.packets() == []
    set_alarms(mqtt, resource, low=False)
    assert publisher.connection.state == "blocked"
    set_alarms(mqtt, "memory", "disk", low=False)
    for client in (publisher, late):
        assert (client.connection.state, client.connection.is_read) == ("running", True)
        assert client.acks() == [(PacketType.PUBACK, 1, ReasonCode.NO_MATCHING_SUBSCRIBERS)]


def test_a_ping_that_waited_for_definitions_is_answered_though_an_alarm_came_meanwhile() -> None:
    read_barrier, edge = ManualReadBarrier(), Edge()
    edge.services = replace(edge.services, read_barrier=read_barrier)
    mqtt = MqttEdge(edge=edge)
    client = mqtt.connect("c")
    client.publish("to nobody", qos=1)
    client.send(Pingreq())
    set_alarms(mqtt, "memory")
    read_barrier.confirm()
    mqtt.edge.run()
    assert client.connection.state == "blocked"
    assert client.packets() == [Pingresp()]
    set_alarms(mqtt, "memory", low=False)
    assert client.acks() == [(PacketType.PUBACK, 1, ReasonCode.NO_MATCHING_SUBSCRIBERS)]


@pytest.mark.parametrize("is_one_read", [False, True])
def test_a_client_that_an_alarm_holds_is_answered_its_pings(is_one_read: bool) -> None:
    mqtt = MqttEdge()
    subscriber = mqtt.connect("s")
    subscriber.subscribe("#", options=0)
    publisher = mqtt.connect("p", keep_alive_s=5)
    set_alarms(mqtt, "memory")
    messages = [Publish(b"a", b"%d" % number) for number in range(3)]
    packets: list[Publish | Pingreq] = [messages[0], Pingreq(), messages[1], messages[2], Pingreq()]
    if is_one_read:
        publisher.send(*packets)
    else:
        for packet in packets:
            publisher.send(packet)
    assert publisher.packets() == [Pingresp(), Pingresp()]
    for _ in range(4):
        mqtt.edge.advance(5)
        publisher.send(Pingreq())
        assert publisher.packets() == [Pingresp()]
    assert publisher.connection.state == "blocked"
    assert subscriber.packets() == []
    set_alarms(mqtt, "memory", low=False)
    assert [payload for _, payload, _ in subscriber.messages()] == [b"0", b"1", b"2"]
    publisher.send(Pingreq())
    assert publisher.packets() == [Pingresp()]


def test_a_client_that_is_dead_is_missed_while_an_alarm_holds_it() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p", keep_alive_s=5)
    set_alarms(mqtt, "memory")
    publisher.publish("a")
    mqtt.edge.advance(11)
    assert publisher.expect(Disconnect).code is ReasonCode.KEEP_ALIVE_TIMEOUT


def test_a_client_that_an_alarm_holds_is_not_read_when_much_of_it_waits() -> None:
    """Its keep alive does not count then, and counts anew behind the alarm."""
    mqtt = MqttEdge()
    publisher = mqtt.connect("p", keep_alive_s=5)
    set_alarms(mqtt, "memory")
    count = 0
    while publisher.connection.is_read:
        publisher.publish("a", qos=1)
        count += 1
    assert count == HELD_BYTES_MAX // (PACKET_BYTES + 1) + 1
    mqtt.edge.advance(600)
    assert publisher.packets() == []
    set_alarms(mqtt, "memory", low=False)
    assert len(publisher.acks()) == count
    mqtt.edge.advance(5)
    assert publisher.packets() == []
    mqtt.edge.advance(12)
    assert publisher.expect(Disconnect).code is ReasonCode.KEEP_ALIVE_TIMEOUT


def test_packets_of_a_client_that_an_alarm_holds_may_come_in_pieces() -> None:
    mqtt = MqttEdge()
    subscriber = mqtt.connect("s")
    subscriber.subscribe("#", options=0)
    publisher = mqtt.connect("p")
    set_alarms(mqtt, "memory")
    publisher.publish("first")
    octets = encode(Publish(b"second", b"x" * 2000), MQTT_5) + encode(Pingreq(), MQTT_5)
    for piece in (octets[:1400], octets[1400:-1], octets[-1:]):
        publisher.send(piece)
    assert publisher.packets() == [Pingresp()]
    set_alarms(mqtt, "memory", low=False)
    assert [topic for topic, _, _ in subscriber.messages()] == ["first", "second"]


@pytest.mark.parametrize("what", ["empty messages", "filters", "properties"])
def test_a_client_that_an_alarm_holds_is_not_read_behind_many_small_things(what: str) -> None:
    """Small things take more memory than octets, in one packet or run as in many."""
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    set_alarms(mqtt, "memory")
    publisher.publish("a")
    for count, is_read in ((20, True), (70, False)):
        if what == "empty messages":
            publisher.send(
                *[Publish(b"a", b"", 1, packet_id=1 + number) for number in range(count)]
            )
        elif what == "filters":
            publisher.send(Subscribe(1, [(f"{number}", 0) for number in range(2 * count)]))
        else:
            user = [("", "")] * count
            publisher.send(Ack(PacketType.PUBACK, 1, properties=Properties(user=user)))
        assert publisher.connection.is_read == is_read


def test_a_client_that_an_alarm_holds_is_read_on_for_so_many_bytes() -> None:
    """An acknowledgement is kept as its identifier, which is less than what has come."""
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    set_alarms(mqtt, "memory")
    publisher.publish("a")
    for _ in range(2):
        assert publisher.connection.is_read
        publisher.send(*[Ack(PacketType.PUBACK, 1 + number) for number in range(2_100)])
    assert not publisher.connection.is_read


@pytest.mark.parametrize("what", ["many", "large", "disconnect", "wrong", "unread"])
def test_a_client_that_an_alarm_holds_is_not_read_behind(what: str) -> None:
    """A client is not read where that would cost memory, or where the end of its socket may come
    before its messages are taken."""
    mqtt = MqttEdge()
    subscriber = mqtt.connect("s")
    subscriber.subscribe("#", options=0)
    publisher = mqtt.connect("p")
    set_alarms(mqtt, "memory")
    publisher.publish("first")
    assert publisher.connection.is_read
    large = encode(Publish(b"large", b"x" * 100_000), MQTT_5)
    if what == "many":
        publisher.send(*[Publish(b"%d" % number, b"x") for number in range(EVENTS_MAX + 1)])
    elif what == "large":
        publisher.send(large[:HELD_BYTES_MAX])
    elif what == "disconnect":
        publisher.send(Disconnect())
    elif what == "wrong":
        publisher.send(b"\xff")
    else:
        publisher.connection.pause_writing()
        publisher.send(Pingreq())
    assert not publisher.connection.is_read
    assert subscriber.packets() == []
    set_alarms(mqtt, "memory", low=False)
    assert subscriber.messages()[0][0] == "first"
    assert publisher.connection.is_over is (what in ("disconnect", "wrong"))
    if what == "large":
        assert publisher.connection.is_read
        publisher.send(large[HELD_BYTES_MAX:])
        assert [topic for topic, _, _ in subscriber.messages()] == ["large"]


def test_a_second_alarm_holds_what_the_first_has_held() -> None:
    mqtt = MqttEdge()
    publisher = mqtt.connect("p")
    for _ in range(2):
        set_alarms(mqtt, "memory")
        publisher.send(Publish(b"a", b"x", 1, packet_id=1), Pingreq())
        assert publisher.packets() == [Pingresp()]
        assert publisher.connection.is_read
        set_alarms(mqtt, "memory", low=False)
        assert [packet_id for _, packet_id, _ in publisher.acks()] == [1]
