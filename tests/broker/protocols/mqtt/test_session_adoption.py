"""Sessions of a lost node, and when another does what is due of them."""

from functools import partial

from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt.session_state import NEVER_S
from fluffle.broker.protocols.mqtt.will import PendingWill, encode_record
from fluffle.broker.vhosts.client_sessions import keep_session
from fluffle.broker.vhosts.queue_changes import delete_queue
from fluffle.protocol.mqtt.packets import Will
from tests.support.mqtt_edge import MqttEdge

LATE = Will(b"w", b"gone", 1, delay_s=30)


def test_sessions_of_a_lost_node_are_adopted_when_something_is_due() -> None:
    mqtt = MqttEdge()
    watcher = mqtt.connect("watcher")
    watcher.subscribe("w")
    by_client = mqtt.edge.vhost.client_sessions.by_client
    will = PendingWill(("/", "c"), "guest", LATE, (("there", 1), ("here", 2)), "there")
    now_ms = mqtt.server.now_ms()
    for client_id, ended_at_ms, expiry_s in (("c", now_ms, 60), ("d", 0, 60), ("e", now_ms, 300)):
        record = encode_record(will if client_id == "c" else None)
        kept = ClientSession("guest", expiry_s, ended_at_ms, "lost", record)
        mqtt.edge.editor.have(partial(keep_session, mqtt.edge.vhost, client_id, kept))
    is_lost = True
    mqtt.server.adoption.node_lost("lost", lambda: is_lost)
    here = mqtt.edge.services.owners.node
    assert {client_id: kept.node for client_id, kept in by_client.items()} == {
        "c": "lost",
        "d": here,
        "e": "lost",
    }
    mqtt.edge.advance(31)
    assert watcher.messages() == [("w", b"gone", 1)]
    assert by_client["c"].node == here
    assert not by_client["c"].record
    mqtt.edge.advance(30)
    assert list(by_client) == ["e"]
    is_lost = False
    mqtt.edge.advance(300)
    found = {client_id: kept.node for client_id, kept in by_client.items()}
    assert found == {"e": "lost"}, "it is back, and does what is due itself"


def test_a_session_without_end_of_a_lost_node_ends_with_its_queue() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=NEVER_S)
    client.subscribe("a", options=1)
    client.lose()
    mqtt.edge.advance(0)
    vhost, have = mqtt.edge.vhost, mqtt.edge.editor.have
    kept = vhost.client_sessions.by_client["c"]._replace(node="lost")
    have(partial(keep_session, vhost, "c", kept))
    mqtt.server.adoption.node_lost("lost", lambda: True)
    mqtt.edge.advance(3600)
    assert vhost.client_sessions.by_client == {"c": kept}
    have(partial(delete_queue, vhost, vhost.queues["mqtt-subscription-cqos1"]))
    mqtt.edge.advance(0)
    assert vhost.client_sessions.by_client == {}


def test_a_session_that_has_moved_meanwhile_is_left_alone() -> None:
    mqtt = MqttEdge()
    vhost, ended_at_ms = mqtt.edge.vhost, mqtt.server.now_ms()
    kept = ClientSession("guest", 60, ended_at_ms, "lost", encode_record(None))
    mqtt.edge.editor.have(partial(keep_session, vhost, "c", kept))
    mqtt.server.adoption.node_lost("lost", lambda: True)
    mqtt.edge.editor.have(partial(keep_session, vhost, "c", kept._replace(node="another")))
    mqtt.edge.advance(61)
    found = vhost.client_sessions.by_client
    assert {client_id: kept.node for client_id, kept in found.items()} == {"c": "another"}


def test_a_session_without_end_of_a_node_that_is_back_is_left_alone() -> None:
    mqtt = MqttEdge(MqttConfig(session_expiry_s_max=None))
    mqtt.connect("c", expiry_s=NEVER_S).lose()
    vhost, have, is_lost = mqtt.edge.vhost, mqtt.edge.editor.have, True
    kept = vhost.client_sessions.by_client["c"]._replace(node="lost")
    have(partial(keep_session, vhost, "c", kept))
    mqtt.server.adoption.node_lost("lost", lambda: is_lost)
    assert len(mqtt.server.adoption) == 0, "nothing is due of it"
    is_lost = False
    have(partial(keep_session, vhost, "c", kept._replace(expiry_s=0)))
    mqtt.edge.advance(0)
    assert vhost.client_sessions.by_client["c"].node == "lost"
