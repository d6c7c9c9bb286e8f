"""Wills: when they are published, and when they are not."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.base.errors import ConnectionForced, NodeStops
from fluffle.broker.definitions.retained import RetainedLimits
from fluffle.broker.protocols.mqtt.will import decode_record
from fluffle.broker.vhosts.queue_changes import delete_queue
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Connect, Disconnect, Publish, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from fluffle.protocol.mqtt.reader import EVENTS_MAX, Publishes
from tests.support.edge import Edge
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.read_barrier import ManualReadBarrier

WILL = Will(b"w", b"gone", 1)
LATE = Will(b"w", b"gone", 1, delay_s=30)


def watched(mqtt: MqttEdge) -> MqttClient:
    watcher = mqtt.connect("watcher")
    watcher.subscribe("w", options=1)
    return watcher


def operator_closes(client: MqttClient) -> None:
    client.connection.fail(ConnectionForced("closed via management"))


def node_stops(client: MqttClient) -> None:
    client.connection.close(NodeStops("stops"))


def client_is_silent(client: MqttClient) -> None:
    client.edge.advance(30)


def another_takes_over(client: MqttClient) -> None:
    client.mqtt.connect("c", clean_start=False)


def queue_is_deleted(client: MqttClient) -> None:
    vhost = client.edge.vhost
    queue = vhost.queues["mqtt-subscription-cqos1"]
    client.edge.editor.have(partial(delete_queue, vhost, queue))


def the_broker_is_at_fault(client: MqttClient) -> None:
    client.connection.give_up(RuntimeError("a mistake"))


ENDS = (
    operator_closes,
    node_stops,
    client_is_silent,
    another_takes_over,
    queue_is_deleted,
    the_broker_is_at_fault,
)
"""Ends of a connection that no packet of its client causes."""


def test_a_connection_that_is_cut_publishes_its_will() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=WILL).lose()
    assert watcher.messages() == [("w", b"gone", 1)]


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        (ReasonCode.SUCCESS, []),
        (ReasonCode.DISCONNECT_WITH_WILL, [("w", b"gone", 1)]),
        (ReasonCode.UNSPECIFIED_ERROR, [("w", b"gone", 1)]),
    ],
)
def test_who_leaves_says_whether_it_is(
    code: ReasonCode, messages: list[tuple[str, bytes, int]]
) -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=WILL).send(Disconnect(code))
    assert watcher.messages() == messages


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("waits_for", ["alarm", "definitions"])
@pytest.mark.parametrize(
    ("code", "messages", "reason"),
    [
        (ReasonCode.SUCCESS, [], "disconnected by client"),
        (
            ReasonCode.DISCONNECT_WITH_WILL,
            [("w", b"gone", 1)],
            "disconnected by client: DISCONNECT_WITH_WILL",
        ),
    ],
)
def test_who_has_left_says_so_though_a_message_in_front_of_that_waits(
    waits_for: str,
    code: ReasonCode,
    messages: list[tuple[str, bytes, int]],
    reason: str,
    *,
    is_reset: bool,
) -> None:
    """The end of the socket comes first: it comes with DISCONNECT over TLS, and while it waits for
    definitions the socket is read."""
    edge = Edge()
    mqtt = MqttEdge(edge=edge)
    watcher = watched(mqtt)
    edge.services = replace(edge.services, read_barrier=ManualReadBarrier())
    mqtt = MqttEdge(edge=edge)
    client = mqtt.connect("c", will=WILL)
    if waits_for == "alarm":
        edge.services.alarms.set("memory", low=True)
    client.publish("to nobody", qos=1)
    client.send(Disconnect(code))
    assert not client.connection.is_over
    if is_reset:
        client.connection.drop("connection reset by peer")
        edge.run()
    else:
        client.lose()
    assert watcher.messages() == messages
    assert client.connection.close_reason == reason


@pytest.mark.parametrize("how", ["anew", "operator"])
def test_who_has_left_says_so_though_its_connection_is_ended_by_others_first(how: str) -> None:
    """While an alarm holds what is in front of DISCONNECT, the end of the socket is not read."""
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    client = mqtt.connect("c", will=WILL)
    mqtt.edge.services.alarms.set("memory", low=True)
    client.publish("to nobody")
    client.send(Disconnect())
    assert not client.connection.is_over
    if how == "anew":
        mqtt.connect("c")
    else:
        client.connection.close(ConnectionForced("closed by hand"))
    mqtt.edge.run()
    assert client.connection.is_over
    assert watcher.messages() == []


@pytest.mark.parametrize(
    ("waits_for", "end"),
    [
        *(("definitions", end) for end in ENDS),
        *(("alarm", end) for end in ENDS if end is not client_is_silent),  # it is not read then
    ],
)
def test_who_has_left_says_so_though_the_broker_ends_the_connection(
    waits_for: str, end: Callable[[MqttClient], None]
) -> None:
    """No packet of the client is why it ends."""
    edge = Edge()
    watcher = watched(MqttEdge(edge=edge))
    edge.services = replace(edge.services, read_barrier=ManualReadBarrier())
    mqtt = MqttEdge(edge=edge)
    client = mqtt.connect("c", will=WILL, keep_alive_s=10)
    client.subscribe("a", options=1)
    if waits_for == "alarm":
        edge.services.alarms.set("memory", low=True)
    client.publish("to nobody")
    client.send(Disconnect())
    assert not client.connection.is_over
    end(client)
    edge.run()
    assert client.connection.is_over
    assert watcher.messages() == []


@pytest.mark.parametrize("publish_count", [1, 2 * EVENTS_MAX])
def test_who_has_left_says_so_though_that_is_behind_more_than_one_turn_reads(
    publish_count: int,
) -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    client = mqtt.connect("c", will=WILL)
    mqtt.edge.services.alarms.set("memory", low=True)
    publishes = [Publish(b"to/%d" % number, b"") for number in range(publish_count)]
    client.send(*publishes, Disconnect())
    mqtt.edge.run()
    assert not client.connection.is_over
    mqtt.connect("c")
    mqtt.edge.run()
    assert client.connection.is_over
    assert watcher.messages() == []


def test_a_disconnect_that_is_wrong_and_was_not_acted_on_is_why_the_connection_ended() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    client = mqtt.connect("c", will=WILL)
    mqtt.edge.services.alarms.set("memory", low=True)
    client.publish("a")
    expiry = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    client.send(Disconnect(properties=expiry))
    client.lose()
    assert watcher.messages() == [("w", b"gone", 1)]
    assert client.connection.close_reason == "the session does not outlive this"


def test_an_error_of_the_client_publishes_it() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=WILL).send(Connect(5, "c"))
    assert watcher.messages() == [("w", b"gone", 1)]


@pytest.mark.parametrize("end", ENDS)
def test_whatever_else_ends_a_connection_publishes_it(end: Callable[[MqttClient], None]) -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    client = mqtt.connect("c", will=WILL, keep_alive_s=10)
    client.subscribe("a", options=1)
    end(client)
    mqtt.edge.run()
    assert client.transport.is_lost
    assert watcher.messages() == [("w", b"gone", 1)]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_session_that_has_ended_is_gone_and_its_will_is_published_once(leaves: bool) -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", expiry_s=60)
    client = mqtt.connect("c", clean_start=False, will=WILL)
    client.subscribe("a", options=1)
    if leaves:
        client.transport.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert not client.connack.session_present
    assert watcher.messages() == [("w", b"gone", 1)]
    client.lose()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert client.connack.session_present


def test_a_will_waits_for_its_time() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=LATE, expiry_s=60).lose()
    mqtt.edge.advance(29)
    assert watcher.messages() == []
    mqtt.edge.advance(2)
    assert watcher.messages() == [("w", b"gone", 1)]
    assert len(mqtt.server.wills) == 0


def test_the_life_of_a_will_begins_when_it_is_published() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    life = encode_properties(Properties({PropertyId.MESSAGE_EXPIRY_INTERVAL: 10}))
    will = Will(b"w", b"gone", 1, delay_s=30, properties=life)
    mqtt.connect("c", will=will, expiry_s=60).lose()
    mqtt.edge.advance(31)
    run = watcher.expect(Publishes)
    assert (run.properties, run.payloads) == (life, [b"gone"])


def test_a_will_waits_no_longer_than_the_session_lasts() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=LATE, expiry_s=10).lose()
    mqtt.edge.advance(11)
    assert watcher.messages() == [("w", b"gone", 1)]


def test_who_comes_back_to_the_session_calls_it_off() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=LATE, expiry_s=60).lose()
    mqtt.connect("c", clean_start=False, expiry_s=60)
    mqtt.edge.advance(61)
    assert watcher.messages() == []


def test_a_clean_start_ends_the_session_and_so_publishes_it() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=LATE, expiry_s=60).lose()
    mqtt.connect("c", expiry_s=60)
    assert watcher.messages() == [("w", b"gone", 1)]


def test_a_will_that_may_not_be_published_any_more_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    client = mqtt.connect("c", will=WILL)
    mqtt.edge.editor.put_permission("guest", "/", Permission(".*", "^mqtt", ".*"))
    client.lose()
    assert watcher.messages() == []
    assert "will_refused" in caplog.text


def test_a_will_is_published_during_an_alarm() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    client = mqtt.connect("c", will=WILL)
    mqtt.edge.services.alarms.set("memory", low=True)
    client.lose()
    assert watcher.messages() == [("w", b"gone", 1)]


def test_a_will_that_there_is_no_room_to_retain_is_published_all_the_same() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.edge.services.retained._limits = RetainedLimits(messages_max=0, size_bytes_max=0)
    client = mqtt.connect("c", expiry_s=60, will=Will(b"w", b"gone", 1, retain=True))
    client.lose()
    mqtt.edge.run()
    assert watcher.messages() == [("w", b"gone", 1)]
    kept = mqtt.server.kept(("/", "c"))
    assert kept is not None
    assert decode_record(("/", "c"), kept.record) is None, "nothing is left to publish"
    late = mqtt.connect("late")
    late.subscribe("w", options=1)
    assert late.packets() == []


def test_a_will_is_retained_if_it_says_so() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c", will=Will(b"w", b"gone", retain=True)).lose()
    watcher = watched(mqtt)
    assert watcher.messages() == [("w", b"gone", 0)]
