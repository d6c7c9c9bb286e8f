"""Ends of MQTT sessions while definitions are under way, and beside the clients of others."""

from functools import partial

import pytest

from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.base.errors import ConnectionForced
from fluffle.broker.protocols.mqtt.channel import Channel
from fluffle.broker.protocols.mqtt.will import encode_record
from fluffle.broker.vhosts.client_sessions import keep_session
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Connect, Disconnect, Subscribe, Will
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttClient, MqttEdge

LATE = Will(b"w", b"gone", 1, delay_s=30)


class SlowMqttEdge(MqttEdge):
    """Node whose definitions change when a test says so."""

    def __init__(self) -> None:
        super().__init__(edge=Edge(make_metadata=ManualMetadata))
        metadata = self.edge.services.metadata
        assert isinstance(metadata, ManualMetadata)
        self.metadata = metadata

    def settle(self) -> None:
        """Have all changes come true."""
        self.edge.run()
        while len(self.metadata):
            self.metadata.commit()
            self.edge.run()

    def begin(
        self,
        client_id: str,
        expiry_s: int,
        *,
        will: Will | None = None,
        clean_start: bool = False,
        version: int = MQTT_5,
    ) -> MqttClient:
        """A client that has sent CONNECT, and is let in once that is kept."""
        client = self.accept(version)
        properties = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s})
        client.send(
            Connect(
                version,
                client_id,
                clean_start,
                user="guest",
                password=b"guest",
                will=will,
                properties=properties,
            )
        )
        return client

    def leave(self, client_id: str, expiry_s: int, *, will: Will | None = None) -> None:
        """Leave a session with a subscription."""
        client = self.begin(client_id, expiry_s, will=will)
        self.settle()
        client.send(Subscribe(1, [("a", 1)]))
        self.settle()
        client.lose()
        self.settle()


def test_who_is_gone_before_the_answer_has_all_his_time_again() -> None:
    mqtt = SlowMqttEdge()
    mqtt.leave("c", 60)
    mqtt.edge.advance(50)
    mqtt.begin("c", 61).lose()
    mqtt.settle()
    mqtt.edge.advance(50)
    mqtt.settle()
    assert len(mqtt.server.states) == 1
    mqtt.edge.advance(12)
    mqtt.settle()
    assert len(mqtt.server.states) == 0
    assert mqtt.queue_names == []


def test_a_session_does_not_expire_while_its_client_is_let_in() -> None:
    mqtt = SlowMqttEdge()
    mqtt.leave("c", 60)
    mqtt.edge.advance(59)
    client = mqtt.begin("c", 60)
    mqtt.edge.advance(5)
    mqtt.settle()
    assert client.expect(Connack).session_present
    assert mqtt.queue_names == ["mqtt-subscription-cqos1"]


def test_a_session_expires_when_its_client_is_not_let_in_after_all() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c", clean_start=False, expiry_s=60).lose()
    mqtt.server.connecting["/", "c"] += 1
    mqtt.edge.advance(61)
    assert "c" in mqtt.edge.vhost.client_sessions.by_client
    mqtt.server.connect_over(("/", "c"), is_let_in=False)
    mqtt.edge.run()
    assert not mqtt.edge.vhost.client_sessions.by_client
    assert not mqtt.server.connecting


def test_a_session_that_ends_while_another_client_is_refused_is_deleted() -> None:
    """The client that connects would have it, or end it; so it is not deleted before."""
    mqtt = MqttEdge()
    mqtt.connect("c", clean_start=False, expiry_s=60).lose()
    client = mqtt.connect("c", clean_start=False)
    client.subscribe("a")
    mqtt.server.connecting["/", "c"] += 2
    client.lose()
    mqtt.server.connect_over(("/", "c"), is_let_in=False)
    assert "c" in mqtt.edge.vhost.client_sessions.by_client
    mqtt.server.connect_over(("/", "c"), is_let_in=False)
    mqtt.edge.run()
    assert not mqtt.edge.vhost.client_sessions.by_client
    assert mqtt.queue_names == []


@pytest.mark.parametrize(("expiry_s", "was_there"), [(60, False), (60, True), (0, True)])
def test_a_session_whose_client_was_refused_before_it_came_true_ends(
    expiry_s: int, *, was_there: bool
) -> None:
    mqtt = SlowMqttEdge()
    if was_there:
        mqtt.leave("c", 30)
    client = mqtt.begin("c", expiry_s)
    mqtt.metadata.give_up()
    assert client.expect(Connack).code.is_error
    mqtt.settle()
    mqtt.edge.advance(61)
    mqtt.settle()
    assert not mqtt.edge.vhost.client_sessions.by_client
    assert mqtt.queue_names == []
    assert len(mqtt.server.states) == 0


def test_a_session_that_another_node_has_on_record_publishes_no_will_here() -> None:
    mqtt = MqttEdge()
    watcher = mqtt.connect("watcher")
    watcher.subscribe("w")
    client = mqtt.connect("c", clean_start=False, expiry_s=60, will=Will(b"w", b"gone"))
    kept = ClientSession("guest", 60, mqtt.server.now_ms(), "another node", encode_record(None))
    mqtt.edge.editor.have(partial(keep_session, mqtt.edge.vhost, "c", kept))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    assert watcher.messages() == []


def test_a_session_that_is_asked_to_last_for_ever_does() -> None:
    mqtt = SlowMqttEdge()
    mqtt.leave("c", 60)
    mqtt.begin("c", 0xFFFFFFFF).lose()
    mqtt.settle()
    mqtt.edge.advance(70)
    mqtt.settle()
    assert len(mqtt.server.states) == 1


def test_a_will_that_waits_is_kept_by_who_is_gone_before_the_answer() -> None:
    mqtt = SlowMqttEdge()
    watcher = mqtt.begin("watcher", 0, clean_start=True)
    mqtt.settle()
    watcher.send(Subscribe(1, [("w", 1)]))
    mqtt.settle()
    watcher.packets()
    mqtt.leave("c", 600, will=LATE)
    mqtt.begin("c", 600).lose()
    mqtt.settle()
    assert mqtt.edge.vhost.client_sessions.by_client["c"].record
    mqtt.edge.advance(31)
    mqtt.settle()
    assert watcher.messages() == [("w", b"gone", 1)]
    assert not mqtt.edge.vhost.client_sessions.by_client["c"].record


def test_the_end_of_a_connection_leaves_the_queues_of_its_successor() -> None:
    """The client had connected to another node, which knew nothing of the connection before."""
    here = MqttEdge()
    there = MqttEdge(edge=here.edge)
    before = here.connect("c")
    after = there.connect("c")
    after.subscribe("a")
    before.lose()
    assert after.packets() == []
    assert here.queue_names == ["mqtt-subscription-cqos1"]
    after.lose()
    assert here.queue_names == []


@pytest.mark.parametrize("clean_start", [True, False])
def test_a_queue_that_is_exclusive_to_another_protocol_is_left(*, clean_start: bool) -> None:
    mqtt = MqttEdge()
    owner = mqtt.edge.connect()
    owner.declare("mqtt-subscription-cqos1", exclusive=True)
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", clean_start, user="guest", password=b"guest"))
    assert client.expect(Connack).code is ReasonCode.NOT_AUTHORIZED
    assert mqtt.queue_names == ["mqtt-subscription-cqos1"]


def test_a_bug_at_the_end_of_a_connection_leaves_its_session_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mqtt = MqttEdge()
    before = mqtt.connect("c", will=Will(b"w", b"gone"))

    def fail(_channel: Channel) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Channel, "close", fail)
    after = mqtt.connect("c")
    monkeypatch.undo()
    assert before.transport.is_lost
    assert "failed" in caplog.text
    assert mqtt.server.connected[("/", "c")] is after.connection


def test_who_has_no_session_any_more_keeps_nobody_waiting() -> None:
    client = MqttEdge().connect("c")
    client.connection.end_session()
    calls: list[str] = []
    client.connection.end_session(lambda: calls.append("done"))
    assert calls == ["done"]


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_who_is_closed_before_the_answer_is_answered_by_connack(version: int) -> None:
    mqtt = SlowMqttEdge()
    client = mqtt.begin("c", 60, version=version)
    client.connection.fail(ConnectionForced("closed via management"))
    mqtt.settle()
    (answer,) = client.packets()
    assert isinstance(answer, Connack)
    assert answer.code.is_error
    assert client.transport.is_lost


def test_a_session_that_ended_with_its_connection_is_not_there_again() -> None:
    """Though its queues are being deleted still."""
    mqtt = SlowMqttEdge()
    client = mqtt.begin("c", 0)
    mqtt.settle()
    client.send(Subscribe(1, [("a", 1)]))
    mqtt.settle()
    client.lose()
    after = mqtt.begin("c", 0)
    mqtt.settle()
    answer = after.expect(Connack)
    assert (answer.code, answer.session_present) == (ReasonCode.SUCCESS, False)
    assert after.packets() == []
    after.send(Subscribe(1, [("a", 1)]))
    mqtt.settle()
    assert mqtt.queue_names == ["mqtt-subscription-cqos1"]


def test_a_session_is_kept_until_the_connection_ends_that_is_its_last() -> None:
    """So the next start of the node knows that it has ended, should the node end before."""
    mqtt = MqttEdge()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.subscribe("a")
    client.lose()
    client = mqtt.connect("c", clean_start=False)
    assert client.connack.session_present
    kept = mqtt.edge.vhost.client_sessions.by_client["c"]
    assert (kept.expiry_s, kept.ended_at_ms) == (0, 0)
    after_crash = MqttEdge(edge=mqtt.edge)
    after_crash.server.restore()
    mqtt.edge.run()
    assert mqtt.queue_names == []
    assert not mqtt.edge.vhost.client_sessions.by_client


def test_a_session_that_was_resumed_for_the_last_time_ends_with_its_connection() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", clean_start=False, expiry_s=60)
    client.subscribe("a")
    client.send(Disconnect())
    mqtt.connect("c", clean_start=False).lose()
    assert mqtt.queue_names == []
    assert not mqtt.edge.vhost.client_sessions.by_client


def test_who_comes_to_another_node_takes_over_also_what_does_not_last() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", clean_start=False)
    client.subscribe("a")
    kept = ClientSession("guest", 60, 0, "another node", encode_record(None))
    mqtt.edge.editor.have(partial(keep_session, mqtt.edge.vhost, "c", kept))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    assert mqtt.queue_names == []
    assert mqtt.edge.vhost.client_sessions.by_client["c"] == kept
