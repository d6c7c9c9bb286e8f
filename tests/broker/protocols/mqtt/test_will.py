"""Wills: when they are published, and when they are not."""

from unittest.mock import patch

import pytest

from fluffle.broker.access.users import Permission
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import PublishReceipt
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Connect, Disconnect, Suback, Subscribe, Will
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_nodes import MqttNodes

WILL = Will(b"w", b"gone", 1)
LATE = Will(b"w", b"gone", 1, delay_s=30)


def watched(mqtt: MqttEdge) -> MqttClient:
    watcher = mqtt.connect("watcher")
    watcher.subscribe("w", options=1)
    return watcher


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


def test_an_error_of_the_client_publishes_it() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=WILL).send(Connect(5, "c"))
    assert watcher.messages() == [("w", b"gone", 1)]


def test_a_will_waits_for_its_time() -> None:
    mqtt = MqttEdge()
    watcher = watched(mqtt)
    mqtt.connect("c", will=LATE, expiry_s=60).lose()
    mqtt.edge.advance(29)
    assert watcher.messages() == []
    mqtt.edge.advance(2)
    assert watcher.messages() == [("w", b"gone", 1)]
    assert len(mqtt.server.wills) == 0


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


def record_of(nodes: MqttNodes) -> bytes | None:
    """Record of the session of `c`, which has its will; None if there is no session."""
    kept = nodes.edge.vhost.client_sessions.by_client.get("c")
    return None if kept is None else kept.record


def watched_in_cluster(will: Will, expiry_s: int) -> tuple[MqttNodes, MqttClient, MqttClient]:
    """Return nodes, who is sent wills at `b`, and a client with a will at `a`."""
    nodes = MqttNodes()
    watcher = nodes.begin("b", "watcher")
    nodes.settle()
    watcher.expect(Connack)
    watcher.send(Subscribe(1, [("w", 1)]))
    nodes.settle()
    watcher.expect(Suback)
    client = nodes.begin("a", "c", expiry_s=expiry_s, will=will)
    nodes.settle()
    client.expect(Connack)
    return nodes, watcher, client


@pytest.mark.parametrize(("will", "expiry_s"), [(WILL, 60), (LATE, 60), (LATE, 10)])
@pytest.mark.parametrize("is_accepted", [True, False])
def test_a_will_is_on_record_until_its_queues_have_answered(
    will: Will, expiry_s: int, *, is_accepted: bool
) -> None:
    nodes, _, client = watched_in_cluster(will, expiry_s)
    receipt = PublishReceipt(1)
    with patch.object(Queue, "enqueue", return_value=receipt) as enqueue:
        client.lose()
        nodes.settle()
        nodes.edge.advance(min(will.delay_s, expiry_s) + 1)
        nodes.settle()
        enqueue.assert_called_once()
    assert record_of(nodes)
    receipt.known(0, 1, is_accepted=is_accepted)
    nodes.settle()
    assert record_of(nodes) == (None if expiry_s < 60 else b"")


@pytest.mark.parametrize(("will", "expiry_s"), [(WILL, 60), (LATE, 60), (LATE, 10)])
def test_a_will_comes_once_whenever_its_node_is_killed(will: Will, expiry_s: int) -> None:
    """A queue knows the message that is published once more, as the node is killed between any two
    steps from the end of the connection to that of the record."""
    kill_at, has_work = 0, True
    while has_work:
        nodes, watcher, client = watched_in_cluster(will, expiry_s)
        client.lose()
        nodes.edge.run()
        for step in range(kill_at):
            if nodes.has_work:
                nodes.commit()
            else:
                nodes.edge.advance(will.delay_s + 1)
            has_work = step + 1 < kill_at or record_of(nodes) not in (None, b"")
        nodes.kill("a")
        nodes.settle()
        nodes.edge.advance(will.delay_s + 1)
        nodes.settle()
        assert watcher.messages() == [("w", b"gone", 1)], kill_at
        assert not record_of(nodes)
        kill_at += 1
    assert kill_at > 2


def test_a_session_that_begins_while_the_will_before_it_is_published_stays() -> None:
    nodes, _, client = watched_in_cluster(LATE, 10)
    receipt = PublishReceipt(1)
    with patch.object(Queue, "enqueue", return_value=receipt):
        client.lose()
        nodes.settle()
        nodes.edge.advance(11)
        nodes.settle()
    client = nodes.begin("a", "c", expiry_s=60)
    nodes.settle()
    assert not client.expect(Connack).session_present
    client.lose()
    nodes.settle()
    receipt.known(0, 1, is_accepted=True)
    nodes.settle()
    kept = nodes.edge.vhost.client_sessions.by_client["c"]
    assert (kept.expiry_s, kept.record) == (60, b"")


def test_a_will_is_retained_if_it_says_so() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c", will=Will(b"w", b"gone", retain=True)).lose()
    watcher = watched(mqtt)
    assert watcher.messages() == [("w", b"gone", 0)]
