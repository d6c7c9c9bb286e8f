"""CONNECT: who may come in, and which session a client has."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.base.client_session import ClientSession
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE, REPEATED_AFTER_MS
from fluffle.broker.base.queue_names import subscription_queue
from fluffle.broker.config.config import ListenAddress, MqttConfig
from fluffle.broker.metadata.change import Kind
from fluffle.broker.metadata.metadata import (
    LOCAL_READ_BARRIER,
    Decide,
    Metadata,
    OnLateError,
    ReadBarrier,
    ignore_done,
)
from fluffle.broker.metadata.nodes import NUMBERS_SESSIONS, RegisteredNode
from fluffle.broker.protocols.mqtt.connect_methods import CHECKED_AT_ONCE, TAKEOVER_WAIT_S
from fluffle.broker.protocols.mqtt.connection import REFUSED_LOGIN_WAIT_S
from fluffle.broker.protocols.mqtt.reasons import REFUSED_LOGIN
from fluffle.broker.protocols.mqtt.server import AGAIN_MS, TAKEOVERS_MAX
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.client_sessions import keep_session
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Suback,
    Subscribe,
    Will,
    encode,
)
from fluffle.protocol.mqtt.properties import Properties, PropertyId
from tests.support.definitions import EVERYTHING
from tests.support.edge import Edge
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_nodes import KnowsAll
from tests.support.read_barrier import ManualReadBarrier

OF_NAMES = MqttConfig(cert_client_id_from="subject_alternative_name")


def answer_to(mqtt: MqttEdge, connect: Connect, wait_s: float = 0) -> Connack:
    """The answer to a CONNECT."""
    client = mqtt.accept(connect.version)
    client.send(connect)
    mqtt.edge.advance(wait_s)
    return client.expect(Connack)


@pytest.mark.parametrize(
    ("user", "password", "code"),
    [
        ("guest", b"guest", ReasonCode.SUCCESS),
        (None, None, ReasonCode.SUCCESS),
        ("/:guest", b"guest", ReasonCode.SUCCESS),
        ("guest", b"wrong", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        ("guest", None, ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        ("guest", b"", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        (None, b"guest", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        ("", b"guest", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        ("", None, ReasonCode.SUCCESS),
        ("nobody", b"x", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
        ("elsewhere:guest", b"guest", ReasonCode.BAD_USER_NAME_OR_PASSWORD),
    ],
)
def test_credentials(user: str | None, password: bytes | None, code: ReasonCode) -> None:
    connect = Connect(MQTT_5, "c", user=user, password=password)
    assert answer_to(MqttEdge(), connect, wait_s=3.1).code is code


def test_a_wrong_password_is_logged_with_the_client(caplog: pytest.LogCaptureFixture) -> None:
    client = MqttEdge().accept()
    client.send(Connect(MQTT_5, "meter", user="guest", password=b"wrong"))
    (refused,) = (each for each in caplog.records if each.getMessage() == "authentication_failed")
    assert getattr(refused, FIELDS_ATTRIBUTE)["client"] == "meter"


def test_a_wrong_password_is_answered_late() -> None:
    mqtt = MqttEdge()
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="guest", password=b"wrong"))
    mqtt.edge.advance(2.9)
    assert client.packets() == []
    mqtt.edge.advance(0.2)
    assert client.expect(Connack).code is ReasonCode.BAD_USER_NAME_OR_PASSWORD


def test_nobody_comes_in_without_a_name_where_that_is_not_allowed() -> None:
    mqtt = MqttEdge(MqttConfig(allow_anonymous=False))
    connect = Connect(MQTT_3_1_1, "c")
    assert answer_to(mqtt, connect, 3.1).code is ReasonCode.BAD_USER_NAME_OR_PASSWORD


def test_who_may_not_publish_his_will_is_not_let_in() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.put_permission("alice", "/", Permission(".*", "^$", ".*"))
    connect = Connect(MQTT_5, "c", user="alice", password=b"wonder", will=Will(b"w", b"x"))
    assert answer_to(mqtt, connect).code is ReasonCode.NOT_AUTHORIZED
    connect.will = None
    assert answer_to(mqtt, connect).code is ReasonCode.SUCCESS


def test_a_method_of_authentication_that_is_not_there_is_refused() -> None:
    properties = Properties({PropertyId.AUTHENTICATION_METHOD: "SCRAM"})
    connect = Connect(MQTT_5, "c", properties=properties)
    assert answer_to(MqttEdge(), connect).code is ReasonCode.BAD_AUTHENTICATION_METHOD


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_a_session_that_lasts_is_there_again(version: int) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", version, clean_start=False, expiry_s=60)
    assert not client.connack.session_present
    client.subscribe("a", options=1)
    client.lose()
    publisher = mqtt.connect("p")
    publisher.publish("a", b"while away", 1)
    client = mqtt.connect("c", version, clean_start=False, expiry_s=60)
    assert client.connack.session_present
    assert client.messages() == [("a", b"while away", 1)]


def test_a_session_is_there_without_subscriptions() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c", clean_start=False, expiry_s=60).lose()
    assert mqtt.connect("c", clean_start=False, expiry_s=60).connack.session_present


def test_a_clean_start_ends_the_session_before() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", expiry_s=60)
    client.subscribe("a", options=1)
    client.lose()
    assert mqtt.queue_names == ["mqtt-subscription-cqos1"]
    assert not mqtt.connect("c", expiry_s=60).connack.session_present
    assert mqtt.queue_names == []


def test_a_session_is_asked_for_no_longer_than_it_may_last() -> None:
    mqtt = MqttEdge(MqttConfig(session_expiry_s_max=30))
    client = mqtt.connect("c", expiry_s=60)
    reported = client.connack.properties.integer(PropertyId.SESSION_EXPIRY_INTERVAL, -1)
    assert reported == 30


def test_the_same_client_takes_its_session_over() -> None:
    mqtt = MqttEdge()
    first = mqtt.connect("c", clean_start=False, expiry_s=60)
    first.subscribe("a", options=1)
    second = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert second.connack.session_present
    assert first.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    assert first.transport.is_lost
    mqtt.connect("p").publish("a", b"x")
    assert second.messages() == [("a", b"x", 0)]


def taken_over_later() -> tuple[MqttEdge, ManualMetadata, MqttClient]:
    """A client that has connected anew, where the queues of its connection before are not deleted
    yet."""
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata))
    metadata = mqtt.edge.services.metadata
    assert isinstance(metadata, ManualMetadata)
    first, second = mqtt.accept(), mqtt.accept()
    first.send(Connect(MQTT_5, "c", user="guest", password=b"guest"))
    first.expect(Connack)
    first.send(Subscribe(1, [("a", 1)]))
    commit_all(mqtt, metadata)
    second.send(Connect(MQTT_5, "c", user="guest", password=b"guest"))
    assert len(metadata) == 1
    assert second.packets() == []
    return mqtt, metadata, second


def commit_all(mqtt: MqttEdge, metadata: ManualMetadata) -> None:
    while len(metadata):
        metadata.commit()
        mqtt.edge.run()


def test_who_takes_a_session_over_waits_until_it_is_free() -> None:
    mqtt, metadata, client = taken_over_later()
    mqtt.edge.advance(TAKEOVER_WAIT_S - 0.1)
    assert len(metadata) == 1
    commit_all(mqtt, metadata)
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    mqtt.edge.advance(1)
    assert client.packets() == []
    assert mqtt.server.connected[("/", "c")] is client.connection


@pytest.mark.parametrize("is_first", [True, False])
def test_who_takes_a_session_over_waits_for_that_no_longer_than_five_seconds(
    *, is_first: bool
) -> None:
    """Then what is on record counts: what the connection before has left is deleted with the
    change that this client asks for, whichever of the two comes true first."""
    mqtt, metadata, client = taken_over_later()
    mqtt.edge.advance(5.1)
    assert len(metadata) == 2, "it has gone on"
    if not is_first:
        metadata.commit_last()
    commit_all(mqtt, metadata)
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    assert mqtt.queue_names == []
    client.send(Subscribe(1, [("a", 1)]))
    commit_all(mqtt, metadata)
    assert client.expect(Suback).codes == [ReasonCode.GRANTED_QOS_1]
    assert mqtt.queue_names == ["mqtt-subscription-cqos1"]
    mqtt.edge.advance(TAKEOVER_WAIT_S)
    assert client.packets() == []
    assert mqtt.server.connected[("/", "c")] is client.connection


def test_who_gives_up_while_it_takes_a_session_over_leaves_nothing() -> None:
    mqtt, metadata, client = taken_over_later()
    client.lose()
    mqtt.edge.advance(5.1)
    commit_all(mqtt, metadata)
    assert mqtt.server.connected == {}
    assert mqtt.queue_names == []
    assert mqtt.edge.scheduler.timer_count == 0


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_who_cannot_be_let_in_in_time_hears_that_the_server_is_unavailable(version: int) -> None:
    """The client has done what it has to: it is the cluster that has no majority."""
    mqtt = MqttEdge(edge=Edge(make_metadata=ManualMetadata))
    metadata = mqtt.edge.services.metadata
    assert isinstance(metadata, ManualMetadata)
    client = mqtt.accept(version)
    lasts = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    connect = Connect(version, "c", False, user="guest", password=b"guest", properties=lasts)
    client.send(connect, encode(Subscribe(1, [("a", 1)]), version))
    mqtt.edge.advance(9.9)
    assert client.packets() == []
    mqtt.edge.advance(0.2)
    assert client.packets() == [Connack(ReasonCode.SERVER_UNAVAILABLE)]
    assert client.reasons == (["CONNECT was not answered in time"] if version == MQTT_5 else [])
    assert client.transport.is_lost
    commit_all(mqtt, metadata)
    assert (mqtt.server.connected, mqtt.queue_names) == ({}, [])


def test_whose_user_is_deleted_while_it_takes_a_session_over_is_refused() -> None:
    mqtt, metadata, client = taken_over_later()
    mqtt.edge.editor.delete_user("guest")
    commit_all(mqtt, metadata)
    mqtt.edge.advance(5.1)
    commit_all(mqtt, metadata)
    assert client.expect(Connack).code is ReasonCode.NOT_AUTHORIZED
    assert client.transport.is_lost
    assert mqtt.server.connected == {}


def test_clients_with_one_identifier_are_logged_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each ends the other, and comes again."""
    mqtt = MqttEdge()

    def lines(seconds: float = 1) -> list[tuple[int, object]]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            mqtt.connect("other")
            mqtt.connect("x" * 200)
            mqtt.edge.advance(seconds)
        again = [each for each in caplog.records if each.message == "session_taken_over_again"]
        return [(each.levelno, getattr(each, FIELDS_ATTRIBUTE)) for each in again]

    assert lines() == lines(AGAIN_MS / 1000) == []
    assert lines() == [], "it had been a minute"
    assert lines() == [
        (logging.INFO, {"vhost": "/", "client": "other"}),
        (logging.INFO, {"vhost": "/", "client": "x" * 100}),
    ]
    assert [lines() for _ in range(20)] == [[]] * 20
    lines(REPEATED_AFTER_MS / 1000)
    lines()
    assert len(lines()) == 2
    assert mqtt.server.takeovers.count == 2 * 26


def test_the_sessions_that_were_taken_over_are_remembered_in_little_room() -> None:
    mqtt = MqttEdge()
    takeovers = mqtt.server.takeovers
    for number in range(TAKEOVERS_MAX + 1):
        takeovers.note(("/", f"{number}"))
    assert len(takeovers._last_ms) == 1


def test_a_session_that_its_client_has_ended_is_not_taken_over() -> None:
    """DISCONNECT, which says so, waits with the message in front of it for the end of an alarm."""
    mqtt = MqttEdge()
    first = mqtt.connect("c", expiry_s=60)
    first.subscribe("a", options=1)
    mqtt.edge.services.alarms.set("memory", low=True)
    first.publish("b")
    first.send(Disconnect(properties=Properties({PropertyId.SESSION_EXPIRY_INTERVAL: 0})))
    second = mqtt.connect("c", clean_start=False, expiry_s=60)
    assert not second.connack.session_present
    assert mqtt.queue_names == []


def test_who_may_not_have_a_session_takes_it_from_nobody() -> None:
    mqtt = MqttEdge()
    first = mqtt.connect("c", clean_start=False, expiry_s=60)
    first.subscribe("a", options=1)
    mqtt.edge.editor.put_permission("alice", "/", Permission(".*", ".*", "^$"))
    intruder = Connect(MQTT_5, "c", clean_start=False, user="alice", password=b"wonder")
    assert answer_to(mqtt, intruder).code is ReasonCode.NOT_AUTHORIZED
    assert first.packets() == []
    assert mqtt.server.connected[("/", "c")] is first.connection


def test_the_filters_of_a_session_are_looked_at_in_steps() -> None:
    mqtt = MqttEdge()
    first = mqtt.connect("c", clean_start=False, expiry_s=60)
    first.subscribe(*(f"a/{number}" for number in range(2 * CHECKED_AT_ONCE)))
    first.lose()
    again = mqtt.accept()
    connect = Connect(MQTT_5, "c", clean_start=False, user="guest", password=b"guest")
    again.transport.receive(encode(connect, MQTT_5))
    assert again.transport.writes == []
    mqtt.edge.run()
    assert again.expect(Connack).session_present
    state = mqtt.server.states.find(("/", "c"))
    assert state is not None
    assert len(state.subscriptions) == 2 * CHECKED_AT_ONCE


def interrupted_resumption(turns: int) -> tuple[MqttEdge, MqttClient]:
    """A client, so many turns after it has come back to a session of many filters."""
    mqtt = MqttEdge()
    first = mqtt.connect("c", clean_start=False, expiry_s=60)
    first.subscribe(*(f"a/{number}" for number in range(2 * CHECKED_AT_ONCE)))
    first.lose()
    again = mqtt.accept()
    connect = Connect(MQTT_5, "c", clean_start=False, user="guest", password=b"guest")
    connect.properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = 60
    again.transport.receive(encode(connect, MQTT_5))
    for _ in range(turns):
        mqtt.edge.scheduler.turn()
    return mqtt, again


EXPIRY_S, DELAY_S = 60, 30
BEFORE, AFTER = Will(b"w", b"before", 1, delay_s=DELAY_S), Will(b"w", b"after", 1, delay_s=DELAY_S)


def late_resumption(turns: int, away_s: float) -> tuple[MqttEdge, MqttClient, MqttClient]:
    """A client, so many turns after it has come back from so many seconds to a session of many
    filters and with a will, and one that sees its wills."""
    mqtt = MqttEdge()
    watcher = mqtt.connect("watcher")
    watcher.subscribe("w")
    first = mqtt.connect("c", clean_start=False, expiry_s=EXPIRY_S, will=BEFORE)
    first.subscribe(*(f"a/{number}" for number in range(2 * CHECKED_AT_ONCE)))
    first.lose()
    mqtt.edge.advance(away_s)
    again = mqtt.accept()
    connect = Connect(MQTT_5, "c", clean_start=False, user="guest", password=b"guest", will=AFTER)
    connect.properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = EXPIRY_S
    again.transport.receive(encode(connect, MQTT_5))
    for _ in range(turns):
        mqtt.edge.scheduler.turn()
    return mqtt, again, watcher


def test_a_will_that_waited_is_not_published_while_subscriptions_are_restored() -> None:
    for turns in count(1):
        mqtt, again, watcher = late_resumption(turns, DELAY_S - 0.1)
        is_let_in = bool(again.transport.writes)
        kept = mqtt.edge.vhost.client_sessions.by_client["c"]
        if kept.ended_at_ms:
            continue  # its session is not yet this client's
        mqtt.edge.scheduler.fire(0.2)
        mqtt.edge.run()
        assert again.expect(Connack).session_present, turns
        assert watcher.messages() == [], turns
        again.lose()
        mqtt.edge.advance(DELAY_S + 1)
        assert watcher.messages() == [("w", b"after", 1)], turns
        if is_let_in:
            return


def test_a_session_does_not_expire_while_subscriptions_are_restored() -> None:
    for turns in count(1):
        mqtt, again, _ = late_resumption(turns, EXPIRY_S - 0.1)
        is_let_in = bool(again.transport.writes)
        if mqtt.edge.vhost.client_sessions.by_client["c"].ended_at_ms:
            continue
        mqtt.edge.scheduler.fire(0.2)
        mqtt.edge.run()
        assert again.expect(Connack).session_present, turns
        again.lose()
        mqtt.edge.advance(EXPIRY_S + 1)
        assert not mqtt.edge.vhost.client_sessions.by_client, turns
        if is_let_in:
            return


def test_a_user_who_is_deleted_while_subscriptions_are_restored_is_refused() -> None:
    """In whichever turn; the session waits, and ends in its time."""
    for turns in count(1):
        mqtt, again = interrupted_resumption(turns)
        if again.transport.writes:
            return
        mqtt.edge.editor.delete_user("guest")
        mqtt.edge.run()
        mqtt.edge.advance(REFUSED_LOGIN_WAIT_S)
        assert again.expect(Connack).code is ReasonCode.NOT_AUTHORIZED, turns
        assert ("/", "c") not in mqtt.server.connected
        mqtt.edge.advance(60)
        assert not mqtt.edge.vhost.client_sessions.by_client, turns


def check_only_session(mqtt: MqttEdge) -> None:
    """Its subscriptions are its bindings."""
    state = mqtt.server.states.find(("/", "c"))
    queue = subscription_queue("c", 1)
    found = queue_changes.subscriptions(mqtt.edge.vhost, mqtt.server.config.exchange, queue)
    filters = {each.topic_filter for _, each in found}
    assert filters == (set() if state is None else state.subscriptions.keys())


@pytest.mark.parametrize("clean_start", [False, True])
def test_a_client_that_comes_while_subscriptions_are_restored_is_the_only_one(
    *, clean_start: bool
) -> None:
    """In whichever turn, and however many that are."""
    for turns in count():
        mqtt, again = interrupted_resumption(turns)
        is_let_in, other = bool(again.transport.writes), mqtt.accept()
        connect = Connect(MQTT_5, "c", clean_start, user="guest", password=b"guest")
        other.transport.receive(encode(connect, MQTT_5))
        mqtt.edge.run()
        alive = [each for each in (again, other) if not each.transport.is_closing()]
        assert len(alive) == 1, turns
        assert mqtt.server.connected == {("/", "c"): alive[0].connection}
        assert not mqtt.server.connecting
        check_only_session(mqtt)
        alive[0].lose()
        mqtt.edge.advance(61)
        assert mqtt.queue_names == []
        assert not mqtt.edge.vhost.client_sessions.by_client
        if is_let_in:
            assert turns > 5, "it was let in by steps"
            return


def test_who_leaves_while_its_subscriptions_are_restored_leaves_its_session() -> None:
    for turns in count():
        mqtt, again = interrupted_resumption(turns)
        is_let_in = bool(again.transport.writes)
        again.lose()
        assert mqtt.server.connected == {}
        assert not mqtt.server.connecting
        mqtt.edge.advance(59)
        third = mqtt.connect("c", clean_start=False)
        assert third.connack.session_present
        third.publish("a/1", b"x")
        assert third.messages() == [("a/1", b"x", 0)], turns
        third.lose()
        if is_let_in:
            return


def test_a_client_that_leaves_while_the_filters_of_a_session_are_looked_at_is_forgotten() -> None:
    mqtt = MqttEdge()
    first = mqtt.connect("c", clean_start=False, expiry_s=60)
    first.subscribe(*(f"a/{number}" for number in range(2 * CHECKED_AT_ONCE)))
    again = mqtt.accept()
    connect = Connect(MQTT_5, "c", clean_start=False, user="guest", password=b"guest")
    again.transport.receive(encode(connect, MQTT_5))
    again.lose()
    mqtt.edge.run()
    assert first.packets() == []
    assert mqtt.server.connected[("/", "c")] is first.connection


def test_a_user_who_is_deleted_while_his_filters_are_looked_at_is_refused() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.put_permission("alice", "/", Permission(".*", ".*", ".*"))
    connect = Connect(MQTT_5, "c", clean_start=False, user="alice", password=b"wonder")
    connect.properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = 60
    first = mqtt.accept()
    first.send(connect)
    first.expect(Connack)
    first.subscribe(*(f"a/{number}" for number in range(2 * CHECKED_AT_ONCE)))
    first.lose()
    again = mqtt.accept()
    again.transport.receive(encode(connect, MQTT_5))
    mqtt.edge.editor.delete_user("alice")
    mqtt.edge.run()
    assert again.expect(Connack).code is ReasonCode.NOT_AUTHORIZED
    assert again.transport.is_lost


def test_who_only_may_connect_twice_in_two_virtual_hosts_is_not_asked_here() -> None:
    mqtt = MqttEdge()
    mqtt.connect("c")
    assert mqtt.server.states.find(("other", "c")) is None
    assert mqtt.server.states.find(("/", "c")) is not None


@pytest.mark.parametrize(
    ("config", "client_id", "code"),
    [
        (MqttConfig(), "any", ReasonCode.SUCCESS),
        (OF_NAMES, "meter-7", ReasonCode.SUCCESS),
        (OF_NAMES, "meter-8", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID),
        (OF_NAMES, "", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID),
        (replace(OF_NAMES, cert_san_index=1), "meter-7", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID),
        (
            replace(OF_NAMES, cert_san_type="uri", cert_san_index=0),
            "urn:meter:7",
            ReasonCode.SUCCESS,
        ),
        (MqttConfig(cert_client_id_from="distinguished_name"), "CN=m", ReasonCode.SUCCESS),
        (
            MqttConfig(cert_client_id_from="distinguished_name"),
            "m",
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
        ),
    ],
)
def test_an_identifier_may_have_to_be_that_of_the_certificate(
    config: MqttConfig, client_id: str, code: ReasonCode
) -> None:
    mqtt = MqttEdge(config)
    client = mqtt.accept()
    client.connection.certificate = {
        "subject": ((("commonName", "m"),),),
        "subjectAltName": (("DNS", "meter-7"), ("URI", "urn:meter:7")),
    }
    client.send(Connect(MQTT_5, client_id, user="guest", password=b"guest"))
    assert client.expect(Connack).code is code
    without = Connect(MQTT_5, client_id, user="guest", password=b"guest")
    assert answer_to(mqtt, without).code is ReasonCode.SUCCESS, "who shows none has any"


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
@pytest.mark.parametrize("of_user", [False, True])
def test_limits_of_connections_of_a_user_and_of_a_virtual_host(
    version: int, *, of_user: bool
) -> None:
    mqtt = MqttEdge()
    editor, guest = mqtt.edge.editor, mqtt.edge.catalogue.access.users["guest"]
    if of_user:
        editor.put_user(replace(guest, limits=UserLimits(max_connections=1)))
    else:
        editor.vhost("/", limits=VhostLimits(max_connections=1))
    first = mqtt.connect("a", version)
    connect = Connect(version, "b", user="guest", password=b"guest")
    code = ReasonCode.QUOTA_EXCEEDED if version == MQTT_5 else ReasonCode.NOT_AUTHORIZED
    assert answer_to(mqtt, connect).code is code
    first.lose()
    assert answer_to(mqtt, connect).code is ReasonCode.SUCCESS


def test_a_wrong_password_is_noticed_before_a_limit() -> None:
    """RabbitMQ looks for a full virtual host before it looks at the password."""
    mqtt = MqttEdge()
    mqtt.edge.editor.vhost("/", limits=VhostLimits(max_connections=0))
    connect = Connect(MQTT_5, "c", user="guest", password=b"wrong")
    assert answer_to(mqtt, connect, 3.1).code is ReasonCode.BAD_USER_NAME_OR_PASSWORD
    connect.password = b"guest"
    assert answer_to(mqtt, connect).code is ReasonCode.QUOTA_EXCEEDED


def test_who_may_not_enter_a_virtual_host_hears_so_at_once() -> None:
    mqtt = MqttEdge()
    mqtt.edge.editor.vhost("house")
    connect = Connect(MQTT_5, "c", user="house:guest", password=b"guest")
    assert answer_to(mqtt, connect).code is ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize(("user", "password"), [("guest", b"guest"), (None, None)])
def test_guest_comes_from_this_machine_alone(user: str | None, password: bytes | None) -> None:
    client = MqttEdge().accept(peer=("192.0.2.1", 40_000))
    client.send(Connect(MQTT_5, "c", user=user, password=password))
    assert client.expect(Connack).code is ReasonCode.NOT_AUTHORIZED
    assert client.reasons == [REFUSED_LOGIN]


@pytest.mark.parametrize("asks", [False, True])
def test_response_information_is_for_who_asks(*, asks: bool) -> None:
    mqtt = MqttEdge(MqttConfig(response_information="answers/"))
    asked = Properties({PropertyId.REQUEST_RESPONSE_INFORMATION: int(asks)})
    properties = answer_to(mqtt, Connect(MQTT_5, "c", properties=asked)).properties.values
    assert properties.get(PropertyId.RESPONSE_INFORMATION) == ("answers/" if asks else None)


def test_there_may_be_so_many_connections_and_no_more() -> None:
    mqtt = MqttEdge(MqttConfig(connections_max=1))
    first = mqtt.connect("a")
    assert answer_to(mqtt, Connect(MQTT_5, "b")).code is ReasonCode.QUOTA_EXCEEDED
    first.lose()
    assert answer_to(mqtt, Connect(MQTT_5, "b")).code is ReasonCode.SUCCESS


def test_nobody_comes_in_before_all_nodes_know_what_mqtt_writes() -> None:
    mqtt = MqttEdge()
    address = ListenAddress("127.0.0.1", 1)
    old = RegisteredNode(address, boot=1, nonce=b"", id=1, knows=NUMBERS_SESSIONS - 1)
    nodes = mqtt.edge.services.nodes
    assert isinstance(nodes, dict)
    nodes["b"] = old
    connect = Connect(MQTT_5, "c")
    assert answer_to(mqtt, connect).code is ReasonCode.SERVER_UNAVAILABLE
    nodes["b"] = old._replace(knows=NUMBERS_SESSIONS)
    assert answer_to(mqtt, connect).code is ReasonCode.SUCCESS


@pytest.mark.parametrize(
    ("parameters", "has_certificate", "user", "vhost"),
    [
        ({}, False, "guest", "/"),
        ({"mqtt_port_to_vhost_mapping": {"1883": "port"}}, False, "guest", "port"),
        ({"mqtt_port_to_vhost_mapping": {"1884": "port"}}, False, "guest", "/"),
        ({"mqtt_port_to_vhost_mapping": {"1883": "port"}}, False, "name:guest", "name"),
        ({"mqtt_port_to_vhost_mapping": {"1883": "port"}}, True, "guest", "port"),
        ({"mqtt_default_vhosts": {"CN=meter": "cert"}}, False, "guest", "/"),
        ({"mqtt_default_vhosts": {"CN=other": "cert"}}, True, "name:guest", "name"),
        (
            {
                "mqtt_default_vhosts": {"CN=meter": "cert"},
                "mqtt_port_to_vhost_mapping": {"1883": "port"},
            },
            True,
            "guest",
            "cert",
        ),
        ({"mqtt_port_to_vhost_mapping": ["1883"]}, False, "guest", "/"),
    ],
)
def test_global_parameters_name_the_virtual_host(
    parameters: dict[str, object], has_certificate: bool, user: str, vhost: str
) -> None:
    """RabbitMQ's `get_vhost`: for a certificate before the user name, for a port behind it."""
    mqtt = MqttEdge(MqttConfig(cert_login=has_certificate))
    for name in ("port", "cert", "name"):
        mqtt.edge.editor.vhost(name)
        mqtt.edge.editor.put_permission("guest", name, Permission(".*", ".*", ".*"))
    for name, value in parameters.items():
        mqtt.edge.catalogue.kept.entries[Kind.GLOBAL_PARAMETER][name,] = {
            "name": name,
            "value": value,
        }
    client = mqtt.accept(MQTT_5)
    if has_certificate:
        client.connection.certificate = {"subject": ((("commonName", "meter"),),)}
    client.send(Connect(MQTT_5, "c", user=user, password=b"guest"))
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    assert client.connection.session is not None
    assert client.connection.session.vhost.name == vhost


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_virtual_host_that_is_not_there_is_found_missing_before_the_login(
    is_alone: bool,
) -> None:
    """RabbitMQ looks for it first: the user has not logged in, which counts as a failed login."""
    mqtt = MqttEdge(edge=edge_with(LOCAL_READ_BARRIER if is_alone else KnowsAll()))
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="nowhere:guest", password=b"guest"))
    mqtt.edge.advance(3.1)
    assert client.expect(Connack).code is ReasonCode.BAD_USER_NAME_OR_PASSWORD
    logins = mqtt.edge.services.runtime.traffic.logins["mqtt"]
    assert (logins.succeeded, logins.failed) == (0, 1)


def test_a_virtual_host_that_was_made_at_another_node_is_waited_for() -> None:
    read_barrier = ManualReadBarrier()
    mqtt = MqttEdge(edge=edge_with(read_barrier))
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="late:guest", password=b"guest"))
    mqtt.edge.run()
    assert (len(read_barrier), client.packets()) == (1, [])
    mqtt.edge.editor.vhost("late")
    mqtt.edge.editor.put_permission("guest", "late", EVERYTHING)
    read_barrier.confirm()
    mqtt.edge.run()
    assert client.expect(Connack).code is ReasonCode.SUCCESS


def test_a_client_that_goes_while_its_virtual_host_is_looked_for_has_not_logged_in() -> None:
    read_barrier = ManualReadBarrier()
    mqtt = MqttEdge(edge=edge_with(read_barrier))
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="nowhere:guest", password=b"guest"))
    mqtt.edge.run()
    client.lose()
    read_barrier.confirm()
    logins = mqtt.edge.services.runtime.traffic.logins["mqtt"]
    assert (logins.succeeded, logins.failed) == (0, 0)


def test_a_login_whose_virtual_host_cannot_be_looked_for_has_failed() -> None:
    read_barrier = ManualReadBarrier()
    mqtt = MqttEdge(edge=edge_with(read_barrier))
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="nowhere:guest", password=b"guest"))
    mqtt.edge.run()
    read_barrier.fail()
    mqtt.edge.run()
    assert client.expect(Connack).code is ReasonCode.NOT_AUTHORIZED
    logins = mqtt.edge.services.runtime.traffic.logins["mqtt"]
    assert (logins.succeeded, logins.failed) == (0, 1)


class AskingMetadata:
    """Definitions of a node that is not alone: it asks before it says that a change is none."""

    def __init__(self, inner: Metadata, read_barrier: ReadBarrier) -> None:
        self._inner = inner
        self._read_barrier = read_barrier

    def change(self, decide: Decide, done: Callable[[], None], failed: OnLateError) -> None:
        change = partial(self._inner.change, decide, done, failed)
        if decide().changes_nothing:
            self._read_barrier.ask(change, failed)
        else:
            change()

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        self._inner.ensure(decide, done, late)


def test_that_there_is_no_session_is_said_once_the_node_knows_what_others_do() -> None:
    read_barrier = ManualReadBarrier()
    edge = edge_with(read_barrier)
    asking = AskingMetadata(edge.services.metadata, read_barrier)
    edge.services = replace(edge.services, metadata=asking)
    mqtt = MqttEdge(edge=edge)
    clean, client = mqtt.accept(), mqtt.accept()
    clean.send(Connect(MQTT_5, "clean", clean_start=True))
    client.send(Connect(MQTT_5, "c", clean_start=False))
    mqtt.edge.run()
    assert not clean.expect(Connack).session_present
    assert client.packets() == []
    vhost = edge.services.vhosts["/"]
    elsewhere = ClientSession("guest", 3600, 1, "elsewhere", b"")
    edge.editor.have(lambda: keep_session(vhost, "c", elsewhere))
    read_barrier.confirm()
    mqtt.edge.run()
    assert client.expect(Connack).session_present


def edge_with(read_barrier: ReadBarrier) -> Edge:
    edge = Edge()
    edge.services = replace(edge.services, read_barrier=read_barrier)
    return edge
