"""MQTT server of a node: sessions that wait for their clients, and end in time."""

from itertools import count

import pytest

from fluffle.broker.config.config import MqttConfig
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.protocols.mqtt.connect_methods import CHECKED_AT_ONCE
from fluffle.broker.protocols.mqtt.connection import client_properties
from fluffle.broker.protocols.mqtt.session_state import NEVER_S
from fluffle.protocol.mqtt.codes import MQTT_5
from fluffle.protocol.mqtt.packets import Connack, Connect, Disconnect, encode
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.support.mqtt_edge import MqttEdge


def test_a_session_ends_when_its_client_has_been_away_for_long_enough() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    mqtt.edge.advance(120)
    assert mqtt.queue_names == ["mqtt-subscription-cqos1"]
    client.lose()
    mqtt.edge.advance(59)
    assert len(mqtt.server.states) == 1
    mqtt.edge.advance(2)
    assert len(mqtt.server.states) == 0
    assert mqtt.queue_names == []
    assert not mqtt.connect("c", clean_start=False, expiry_s=60).connack.session_present


def test_who_comes_back_has_all_his_time_again() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c", expiry_s=60).lose()
    mqtt.edge.advance(50)
    mqtt.connect("c", clean_start=False, expiry_s=60).lose()
    mqtt.edge.advance(50)
    assert mqtt.connect("c", clean_start=False, expiry_s=60).connack.session_present


def test_a_client_may_end_its_session_when_it_leaves() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    properties = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 0})
    client.send(Disconnect(properties=properties))
    assert mqtt.queue_names == []
    assert not mqtt.connect("c", clean_start=False).connack.session_present


def test_the_wish_of_a_client_that_has_no_session_to_keep_is_refused() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    properties = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    client.send(Disconnect(properties=properties))
    assert [type(each) for each in client.packets()] == [Disconnect]
    assert len(mqtt.server.states) == 0


def test_sessions_are_reported_also_when_their_clients_are_away() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("meter", clean_start=False, expiry_s=60)
    client.subscribe("home/#", options=1)
    (keeper,) = mqtt.edge.services.connections.session_keepers
    (row,) = keeper.session_rows()
    assert row == {
        "vhost": "/",
        "client_id": "meter",
        "user": "guest",
        "connection": client.connection.name,
        "expiry_s": 60,
        "expires_at_ms": None,
        "subscriptions": [
            {"topic_filter": "home/#", "qos": 1, "options": 1, "subscription_id": None}
        ],
        "queues": ["mqtt-subscription-meterqos1"],
        "packets_from_client": 0,
        "packets_to_client": 0,
    }
    mqtt.edge.advance(10)
    client.lose()
    left_at_ms = mqtt.server.now_ms()
    mqtt.edge.advance(10)
    (away,) = keeper.session_rows()
    assert (away["connection"], away["user"]) == ("", "guest")
    assert away["expires_at_ms"] == left_at_ms + 60_000
    mqtt.edge.advance(49.9)
    assert len([*keeper.session_rows()]) == 1
    mqtt.edge.advance(0.2)
    assert [*keeper.session_rows()] == []


def test_a_session_that_never_ends_is_reported_so() -> None:
    mqtt = MqttEdge(MqttConfig(session_expiry_s_max=None))
    mqtt.connect("meter", clean_start=False, expiry_s=NEVER_S).lose()
    (row,) = mqtt.server.session_rows()
    assert (row["connection"], row["expiry_s"], row["expires_at_ms"]) == ("", None, None)


def test_a_client_says_who_it_is_as_rabbitmq_lists_it() -> None:
    properties = client_properties("meter", [("site", "attic"), ("site", "cellar")])
    assert plain(properties) == {"client_id": "meter", "user_property": {"site": "cellar"}}
    assert plain(client_properties("meter", [])) == {"client_id": "meter"}


def test_a_session_may_ask_for_more_time_when_it_comes_back() -> None:
    """Its queues expired by the time that it had asked for at first."""
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    client.lose()
    mqtt.connect("c", clean_start=False, expiry_s=3_600).lose()
    mqtt.connect("p").publish("a", b"x", 1)
    mqtt.edge.advance(1_000)
    client = mqtt.connect("c", clean_start=False, expiry_s=3_600)
    assert client.connack.session_present
    assert client.messages() == [("a", b"x", 1)]


@pytest.mark.parametrize("expiry_s", [0, 60])
def test_a_client_may_leave_while_another_takes_its_session_over(*, expiry_s: int) -> None:
    """In whichever turn: the session goes on, or is new."""
    for turns in count():
        mqtt = MqttEdge()
        first = mqtt.connect("c", clean_start=False, expiry_s=60)
        first.subscribe(*(f"a/{number}" for number in range(2 * CHECKED_AT_ONCE)))
        again = mqtt.accept()
        lasts = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 60})
        again.transport.receive(encode(Connect(MQTT_5, "c", False, properties=lasts), MQTT_5))
        for _ in range(turns):
            mqtt.edge.scheduler.turn()
        is_let_in = bool(again.transport.writes)
        if not first.transport.is_closing():
            ended = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s})
            first.transport.receive(encode(Disconnect(properties=ended), MQTT_5))
        mqtt.edge.run()
        present = again.expect(Connack).session_present
        assert mqtt.server.connected == {("/", "c"): again.connection}
        assert not mqtt.server.connecting
        state = mqtt.server.states.find(("/", "c"))
        assert state is not None
        assert len(state.subscriptions) == (2 * CHECKED_AT_ONCE if present else 0)
        assert present or expiry_s == 0
        if is_let_in:
            assert turns > 2, "it was let in by steps"
            break
