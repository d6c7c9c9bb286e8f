"""Bytes that no client should send, and those of all clients in pieces of all sizes.

A connection answers or closes, whatever comes; it never takes that for a bug of its own, never
hangs, and leaves nothing behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request

from fluffle.broker.access.access import Access, Permission
from fluffle.broker.config.config import MqttConfig
from fluffle.broker.protocols.mqtt.connection import REFUSED_LOGIN_WAIT_S, Connection
from fluffle.broker.protocols.mqtt.packet_handlers import PACKET_HANDLERS
from fluffle.broker.protocols.mqtt.websocket import WebSockets
from fluffle.protocol.mqtt.codes import MQTT_3_1, MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
)
from fluffle.protocol.mqtt.properties import (
    Properties,
    PropertyId,
    PropertyValue,
    encode_properties,
)
from fluffle.protocol.mqtt.reader import Acks, Event, Publishes
from tests.support.edge import Edge
from tests.support.fakes import FakeTransport
from tests.support.metadata import ManualMetadata
from tests.support.mqtt_edge import MqttClient, MqttEdge

VERSIONS = (MQTT_3_1, MQTT_3_1_1, MQTT_5)
EXPIRY_S_MAX = 60
ALIASED = 1
"""Index of the packet after CONNECT that has a topic alias."""


@pytest.fixture(autouse=True)
def no_bug(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is an error of the broker."""
    with caplog.at_level(logging.ERROR):
        yield
    bugs = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not bugs, [(record.getMessage(), record.exc_info) for record in bugs]


def conversation(version: int) -> list[Packet]:
    """All that a client may say, to itself: it has subscribed to what it publishes."""
    is_v5 = version == MQTT_5
    alias = encode_properties(Properties({PropertyId.TOPIC_ALIAS: 1})) if is_v5 else b""
    values = {PropertyId.SESSION_EXPIRY_INTERVAL: 9, PropertyId.RECEIVE_MAXIMUM: 5}
    packets: list[Packet] = [
        Connect(
            version,
            "c",
            clean_start=False,
            keep_alive_s=30,
            user="guest",
            password=b"guest",
            will=Will(b"w", b"gone", 1, delay_s=3 if is_v5 else 0),
            properties=Properties({**values} if is_v5 else {}),
        ),
        Subscribe(1, [("a/+", 0), ("b", 1), ("c/#", 2)]),
        Publish(b"a/1", b"zero", properties=alias),
        Publish(b"b", b"one", 1, packet_id=2),
        Ack(PacketType.PUBACK, 1),
        Publish(b"c/d", b"two", 2, packet_id=3),
        Ack(PacketType.PUBREL, 3),
        Ack(PacketType.PUBREC, 2),
        Ack(PacketType.PUBCOMP, 2),
        Pingreq(),
        Unsubscribe(4, ["a/+", "x"]),
    ]
    if is_v5:
        packets.append(Ack(PacketType.PUBREC, 9, ReasonCode.QUOTA_EXCEEDED))
    packets.append(Auth() if is_v5 else Disconnect())
    return packets


def octets(packets: list[Packet], version: int) -> bytes:
    return b"".join(encode(each, version) for each in packets)


def make_mqtt(config: MqttConfig | None = None) -> MqttEdge:
    return MqttEdge(config or MqttConfig(session_expiry_s_max=EXPIRY_S_MAX))


def is_waiting_for_its_client(connection: Connection) -> bool:
    """True if all that came has been acted on, and more would be."""
    is_idle = not connection.input.events and not connection.input.waiting.kept
    return is_idle and connection.input.work is None and not connection.reader.is_waiting


def check_answered(client: MqttClient) -> None:
    """Check that the connection is closed, or goes on reading."""
    if client.connection.is_over:
        client.edge.advance(REFUSED_LOGIN_WAIT_S)
    if client.transport.is_closing():
        return
    assert is_waiting_for_its_client(client.connection)
    assert client.transport.is_reading()


def check_no_session(mqtt: MqttEdge) -> None:
    server = mqtt.server
    assert (len(server.states), server.connected, len(server.wills)) == (0, {}, 0)
    assert mqtt.queue_names == []
    assert not mqtt.edge.vhost.client_sessions.by_client


def check_nothing_is_left(mqtt: MqttEdge, timer_count: int) -> None:
    """All clients are gone, and their sessions have expired."""
    edge = mqtt.edge
    edge.advance(EXPIRY_S_MAX + 1)
    check_no_session(mqtt)
    assert [*edge.services.connections] == []
    assert edge.scheduler.timer_count == timer_count


def send_octets(mqtt: MqttEdge, version: int, *pieces: bytes) -> MqttClient:
    """A client that has sent so much, and been answered."""
    client = mqtt.accept(version)
    for piece in pieces:
        if not client.transport.is_lost:
            client.send(piece)
    return client


def warmed() -> tuple[MqttEdge, int]:
    """A server, and how many timers it has when it has nothing to do."""
    mqtt = make_mqtt()
    mqtt.connect("warm").lose()
    mqtt.edge.advance(EXPIRY_S_MAX + 1)
    return mqtt, mqtt.edge.scheduler.timer_count


@pytest.mark.parametrize("version", VERSIONS)
def test_every_prefix_is_answered_or_ends_the_connection(version: int) -> None:
    mqtt, timer_count = warmed()
    said = octets(conversation(version), version)
    for stop in range(len(said) + 1):
        client = send_octets(mqtt, version, said[:stop])
        check_answered(client)
        client.lose()
        check_nothing_is_left(mqtt, timer_count)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_mutation_of_one_octet_is_answered_or_ends_the_connection(version: int) -> None:
    mqtt, timer_count = warmed()
    said = octets(conversation(version), version)
    for at, octet in enumerate(said):
        others = {octet ^ 1 << bit for bit in range(8)} | {0x00, 0xFF, (octet + 1) & 0xFF}
        for other in sorted(others - {octet}):
            client = send_octets(mqtt, version, said[:at] + bytes([other]) + said[at + 1 :])
            check_answered(client)
            client.lose()
        check_nothing_is_left(mqtt, timer_count)


def everything_with_properties() -> list[Packet]:
    """All that a client of 5.0 may say with properties, and AUTH, to itself."""
    user = [("name", "value"), ("name", "")]
    p = PropertyId
    message: dict[PropertyId, PropertyValue] = {
        p.PAYLOAD_FORMAT_INDICATOR: 1,
        p.MESSAGE_EXPIRY_INTERVAL: 9,
        p.CONTENT_TYPE: "text",
        p.RESPONSE_TOPIC: "r",
        p.CORRELATION_DATA: b"\0",
    }
    asked: dict[PropertyId, PropertyValue] = {
        p.SESSION_EXPIRY_INTERVAL: 9,
        p.AUTHENTICATION_METHOD: "PLAIN",
        p.REQUEST_PROBLEM_INFORMATION: 1,
        p.REQUEST_RESPONSE_INFORMATION: 1,
        p.RECEIVE_MAXIMUM: 5,
        p.TOPIC_ALIAS_MAXIMUM: 3,
        p.MAXIMUM_PACKET_SIZE: 1_000,
    }
    shown: dict[PropertyId, PropertyValue] = {
        p.AUTHENTICATION_METHOD: "PLAIN",
        p.AUTHENTICATION_DATA: b"\0guest\0guest",
    }
    aliased = encode_properties(Properties({**message, p.TOPIC_ALIAS: 2}, user))
    alias = encode_properties(Properties({p.TOPIC_ALIAS: 2}))
    will = Will(
        b"w", b"gone", 1, delay_s=3, properties=encode_properties(Properties(message, user))
    )
    left: dict[PropertyId, PropertyValue] = {p.SESSION_EXPIRY_INTERVAL: 5, p.REASON_STRING: "bye"}
    return [
        Connect(5, "c", False, 30, will=will, properties=Properties(asked, user)),
        Auth(ReasonCode.CONTINUE_AUTHENTICATION, Properties(dict(shown), user)),
        Subscribe(1, [("a/+", 1)], Properties(user=user, subscription_ids=[7])),
        Publish(b"a/1", b"x", 1, packet_id=2, properties=aliased),
        Publish(b"", b"y", 2, packet_id=3, properties=alias),
        Ack(PacketType.PUBACK, 1, properties=Properties({p.REASON_STRING: "done"}, user)),
        Unsubscribe(4, ["a/+"], Properties(user=user)),
        Auth(ReasonCode.REAUTHENTICATE, Properties(dict(shown))),
        Disconnect(ReasonCode.DISCONNECT_WITH_WILL, Properties(left, user)),
    ]


class WebMqttClient:
    """Client that says in frames of a websocket what it has to say."""

    def __init__(self, mqtt: MqttEdge) -> None:
        self.edge = mqtt.edge
        self.transport = FakeTransport(self.edge.scheduler, {"peername": ("127.0.0.1", 40_000)})
        self.connection = Connection(mqtt.server, PACKET_HANDLERS)
        call_later, config = self.edge.scheduler.call_later, mqtt.server.config
        self.transport.connect(WebSockets(config, call_later, lambda _forwarded: self.connection)())
        self._frames = WSConnection(ConnectionType.CLIENT)
        request = Request(host="localhost", target="/ws", subprotocols=["mqtt"])
        self.transport.receive(self._frames.send(request))
        self._frames.receive_data(b"".join(self.transport.writes))
        assert [type(each) for each in self._frames.events()] == [AcceptConnection]

    def send(self, piece: bytes) -> None:
        self.transport.receive(self._frames.send(BytesMessage(piece)))
        self.edge.run()

    def lose(self) -> None:
        self.transport.lose()
        self.edge.run()


def spoilt(octets: bytes) -> Iterator[bytes]:
    """Each prefix, and each octet in turn as another one."""
    for at, octet in enumerate(octets):
        yield octets[:at]
        for other in {octet ^ 1, octet ^ 0xFF}:
            yield octets[:at] + bytes([other]) + octets[at + 1 :]


@pytest.mark.parametrize("is_web", [False, True])
@pytest.mark.parametrize("at", range(len(everything_with_properties())))
def test_each_packet_with_properties_that_is_spoilt_is_answered_or_ends_the_connection(
    at: int, *, is_web: bool
) -> None:
    mqtt, timer_count = warmed()
    said = [encode(each, MQTT_5) for each in everything_with_properties()]
    for wrong in spoilt(said[at]):
        client = WebMqttClient(mqtt) if is_web else mqtt.accept()
        for piece in (*said[:at], wrong, *said[at + 1 :]):
            if not client.transport.is_lost and not client.connection.is_over:
                client.send(piece)
        if not client.connection.is_over:
            is_asked = client.connection.is_logging_in  # for AUTH, and all else waits
            assert is_asked or is_waiting_for_its_client(client.connection)
            assert client.transport.is_reading()
        client.lose()
    check_nothing_is_left(mqtt, timer_count)


def test_all_packets_with_properties_are_allowed() -> None:
    """Else those that are spoilt would be refused for another reason."""
    mqtt = make_mqtt()
    client = mqtt.accept()
    for each in everything_with_properties():
        assert not client.connection.is_over, each
        client.send(each)
    came = client.packets()
    assert not [each for each in came if isinstance(each, Disconnect)], came
    assert {"Auth", "Connack", "Suback", "Unsuback", "PUBLISH 1", "PUBREC"} <= said_by_kind(
        came
    ).keys()


def said_by_kind(events: list[Event]) -> dict[str, list[object]]:
    """Received events by kind: of each kind in its order, and not by runs."""
    found: dict[str, list[object]] = {}
    for each in events:
        if isinstance(each, Publishes):
            for index, payload in enumerate(each.payloads):
                packet_id = each.packet_ids[index] if each.packet_ids else 0
                one = replace(
                    each, payloads=[payload], packet_ids=[packet_id], content_bytes=len(payload)
                )
                found.setdefault(f"PUBLISH {each.qos}", []).append(one)
        elif isinstance(each, Acks):
            found.setdefault(each.kind.name, []).extend(each.packet_ids)
        else:
            found.setdefault(type(each).__name__, []).append(each)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_in_pieces_is_answered_as_what_comes_at_once(version: int) -> None:
    own = [
        each
        for each in conversation(version)[:-1]
        if not (isinstance(each, Ack) and each.kind is not PacketType.PUBREL)
    ]  # what it was sent is answered once that has come
    said = octets(own, version)
    expected = said_by_kind(send_octets(make_mqtt(), version, said).packets())
    splits = [[said[:at], said[at:]] for at in range(1, len(said))]
    splits.append([bytes([octet]) for octet in said])
    for pieces in splits:
        client = send_octets(make_mqtt(), version, *pieces)
        assert said_by_kind(client.packets()) == expected, [len(piece) for piece in pieces]


# What comes before the answer to CONNECT


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Logins that wait, to be called: passwords are compared elsewhere."""
    pending: list[Callable[[], None]] = []
    login = Access.login

    def later(*args: Any, **named: Any) -> None:
        pending.append(partial(login, *args, **named))

    monkeypatch.setattr(Access, "login", later)
    return pending


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("at", range(len(conversation(MQTT_5))))
def test_what_comes_before_the_login_is_answered_waits_for_it(
    logins: list[Callable[[], None]], version: int, at: int
) -> None:
    connect, *others = conversation(version)
    if at >= len(others) or (version == MQTT_5 and at == ALIASED):
        return  # aliases may be used once it is known how many there may be
    mqtt = make_mqtt()
    at_once = send_octets(mqtt, version, encode(connect, version))
    logins.pop()()
    mqtt.edge.run()
    at_once.send(encode(others[at], version))
    expected = said_by_kind(at_once.packets())
    at_once.lose()
    mqtt.edge.advance(EXPIRY_S_MAX + 1)
    early = send_octets(mqtt, version, octets([connect, others[at]], version))
    assert early.packets() == []
    logins.pop()()
    mqtt.edge.run()
    assert said_by_kind(early.packets()) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_no_packet_is_refused_behind_the_answer_to_connect(
    logins: list[Callable[[], None]], version: int
) -> None:
    mqtt = make_mqtt()
    said = encode(conversation(version)[0], version) + b"\x00\x00"
    client = send_octets(mqtt, version, said)
    assert client.packets() == []
    logins.pop()()
    mqtt.edge.run()
    came = client.packets()
    assert isinstance(came[0], Connack)
    assert came[1:] == ([Disconnect(ReasonCode.MALFORMED_PACKET)] if version == MQTT_5 else [])
    assert client.transport.is_lost


# Identifiers of packets to a client


def check_identifiers(client: MqttClient) -> None:
    """Check that each identifier in use belongs to something."""
    channel = client.connection.channel
    assert channel is not None
    state, sent = channel.state, channel.outgoing._sent.keys()
    unfinished = {each.packet_id for queue in state.unfinished.values() for each in queue.values()}
    assert state.packet_ids.used == {*unfinished, *state.released, *sent}
    assert not unfinished & {*sent, *state.released}
    assert not sent & state.released.keys()
    assert state.direct.keys() <= sent


def receiver(mqtt: MqttEdge, *qos: int) -> MqttClient:
    """A client whose session lasts, and that is sent messages of such QoS."""
    client = mqtt.connect("r", clean_start=False, expiry_s=EXPIRY_S_MAX)
    if not client.connack.session_present:
        client.subscribe("a", options=2)
    publisher = mqtt.connect("p")
    for number, each in enumerate(qos):
        publisher.publish("a", b"%d" % number, each)
    publisher.lose()
    return client


def ids_of(client: MqttClient) -> list[int]:
    return [
        packet_id
        for run in client.packets()
        if isinstance(run, Publishes)
        for packet_id in run.packet_ids
    ]


def test_an_answer_to_nothing_frees_no_identifier_of_what_comes_again() -> None:
    mqtt = make_mqtt(MqttConfig(prefetch=1))
    client = receiver(mqtt, 1, 1)
    assert ids_of(client) == [1]
    client.lose()
    client = receiver(mqtt)
    assert ids_of(client) == [1]
    client.answer(PacketType.PUBACK, 2, 1)
    check_identifiers(client)
    client.lose()
    client = mqtt.connect("r", clean_start=False, expiry_s=EXPIRY_S_MAX)
    check_identifiers(client)


@pytest.mark.parametrize("kind", [PacketType.PUBACK, PacketType.PUBREC])
def test_a_refusal_of_what_is_not_sent_frees_no_identifier(kind: PacketType) -> None:
    mqtt = make_mqtt()
    client = receiver(mqtt, 2, 2)
    assert ids_of(client) == [1, 2]
    client.answer(PacketType.PUBREC, 1, 1)
    client.packets()
    check_identifiers(client)
    client.send(Ack(kind, 1, ReasonCode.UNSPECIFIED_ERROR))
    if client.connection.channel is not None:
        check_identifiers(client)


def test_a_message_that_is_received_twice_takes_one_place_in_the_window() -> None:
    mqtt = make_mqtt(MqttConfig(prefetch=1))
    client = receiver(mqtt, 2, 2)
    assert ids_of(client) == [1]
    client.answer(PacketType.PUBREC, 1, 1)
    client.answer(PacketType.PUBCOMP, 1, 1)
    assert len(ids_of(client)) == 1
    check_identifiers(client)


def test_a_client_that_never_completes_is_not_sent_more_over_later_connections() -> None:
    mqtt = make_mqtt(MqttConfig(prefetch=2))
    client = receiver(mqtt, 2, 2, 2, 2)
    taken = ids_of(client)
    client.answer(PacketType.PUBREC, *taken)
    for _ in range(3):
        client.lose()
        client = mqtt.connect("r", clean_start=False, expiry_s=EXPIRY_S_MAX)
        assert ids_of(client) == []
        check_identifiers(client)
    client.answer(PacketType.PUBCOMP, *taken)
    assert len(ids_of(client)) == 2
    check_identifiers(client)


def test_retained_messages_take_places_in_the_window_too() -> None:
    mqtt = make_mqtt(MqttConfig(prefetch=2))
    publisher = mqtt.connect("p")
    for name in "123":
        publisher.publish(f"x/{name}", b"kept", 1, retain=True)
    client = receiver(mqtt, 1)
    (first,) = ids_of(client)
    client.subscribe("x/#", options=1)
    (second,) = ids_of(client)
    publisher = mqtt.connect("p")
    publisher.publish("a", b"more", 1)
    assert ids_of(client) == []
    client.answer(PacketType.PUBACK, first, second)
    later = ids_of(client)
    assert len(later) == 2
    client.answer(PacketType.PUBACK, *later)
    assert len(ids_of(client)) == 1
    check_identifiers(client)


# More than may be under way


def test_a_client_may_send_all_again_that_it_may_have_under_way() -> None:
    mqtt = make_mqtt(MqttConfig(receive_max=3))
    for _ in range(2):
        client = mqtt.connect("c", clean_start=False, expiry_s=EXPIRY_S_MAX)
        client.send(*(Publish(b"t", b"x", 2, packet_id=each) for each in (1, 2, 3)))
        assert [each[1] for each in client.acks()] == [1, 2, 3]
        client.lose()


@pytest.mark.parametrize("version", VERSIONS)
def test_no_more_messages_of_qos_2_are_taken_than_may_be_under_way(version: int) -> None:
    mqtt = make_mqtt(MqttConfig(receive_max=3))
    client = mqtt.connect("c", version)
    client.send(*(Publish(b"t", b"x", 2, packet_id=each) for each in range(1, 6)))
    if version == MQTT_5:
        assert client.packets() == [Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)]
    else:
        assert [each[1] for each in client.acks()] == [1, 2, 3, 4, 5]  # it has not heard of it


# Who is there, and who is not any more


def make_slow() -> tuple[MqttEdge, Callable[[], None]]:
    """A server whose definitions change when all other nodes know, which is when the second is
    called."""
    edge = Edge(make_metadata=ManualMetadata)
    metadata = edge.services.metadata
    assert isinstance(metadata, ManualMetadata)

    def settle() -> None:
        edge.run()
        while len(metadata):
            metadata.commit()
            edge.run()

    return MqttEdge(MqttConfig(session_expiry_s_max=EXPIRY_S_MAX), edge), settle


def test_a_refused_clean_start_leaves_the_session_as_it_was() -> None:
    mqtt = make_mqtt()
    client = receiver(mqtt)
    client.lose()
    mqtt.edge.editor.put_permission("alice", "/", Permission("^$", ".*", ".*"))
    stranger = mqtt.accept()
    stranger.send(Connect(MQTT_5, "r", user="alice", password=b"wonder"))
    assert stranger.expect(Connack).code is ReasonCode.NOT_AUTHORIZED
    client = receiver(mqtt, 1)
    assert client.connack.session_present
    assert client.messages() == [("a", b"0", 1)]


def send_connect(mqtt: MqttEdge, expiry_s: int) -> MqttClient:
    """A client that waits for the answer to its CONNECT."""
    client = mqtt.accept()
    properties = Properties({PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s})
    client.send(Connect(MQTT_5, "c", user="guest", password=b"guest", properties=properties))
    return client


@pytest.mark.parametrize("expiry_s", [0, EXPIRY_S_MAX])
def test_who_leaves_before_his_clean_start_is_done_leaves_no_session(expiry_s: int) -> None:
    mqtt, settle = make_slow()
    client = send_connect(mqtt, EXPIRY_S_MAX)
    settle()
    client.send(Subscribe(1, [("a", 1)]))
    settle()
    client.lose()
    settle()
    early = send_connect(mqtt, expiry_s)
    early.lose()
    settle()
    mqtt.edge.advance(EXPIRY_S_MAX + 1)
    settle()
    check_no_session(mqtt)


@pytest.mark.parametrize("clean_start", [False, True])
def test_of_many_that_come_for_one_session_one_has_it(clean_start: bool) -> None:
    mqtt, settle = make_slow()
    first = mqtt.connect("c")
    first.send(Subscribe(1, [("a", 1)]))
    settle()
    others = [mqtt.accept() for _ in range(3)]
    for other in others:  # the queues of the first are being deleted meanwhile
        other.send(Connect(MQTT_5, "c", clean_start, user="guest", password=b"guest"))
    settle()
    alive = [each for each in (first, *others) if not each.transport.is_closing()]
    assert len(alive) == 1
    assert mqtt.server.connected == {("/", "c"): alive[0].connection}
    alive[0].send(Subscribe(1, [("b", 1)]), Publish(b"b", b"x", 1, packet_id=2))
    settle()
    assert any(isinstance(each, Publishes) for each in alive[0].packets())
    alive[0].lose()
    settle()
    check_no_session(mqtt)


@pytest.mark.parametrize("expiry_s", [0, EXPIRY_S_MAX])
@pytest.mark.parametrize("steps", range(3))
def test_who_leaves_before_his_subscriptions_are_there_consumes_nothing(
    steps: int, expiry_s: int
) -> None:
    mqtt, settle = make_slow()
    client = send_connect(mqtt, expiry_s)
    settle()
    client.send(Subscribe(1, [("a", 1), ("b", 0)]))
    metadata = mqtt.edge.services.metadata
    assert isinstance(metadata, ManualMetadata)
    for _ in range(steps):
        metadata.commit()
        mqtt.edge.run()
    client.lose()
    settle()
    assert sum(queue.consumer_count for queue in mqtt.edge.vhost.queues.values()) == 0
    mqtt.edge.advance(EXPIRY_S_MAX + 1)
    settle()
    check_no_session(mqtt)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_identifier_of_sixty_kilobytes(version: int) -> None:
    mqtt, timer_count = warmed()
    name = "x" * 60_000
    client = mqtt.accept(version)
    client.send(
        Connect(version, name, user="guest", password=b"guest", will=Will(b"w", b"gone", 1)),
        Subscribe(1, [("a", 1), ("b", 0), ("w", 1)]),
        Publish(b"a", b"x", 1, packet_id=2),
    )
    check_answered(client)
    client.lose()
    check_nothing_is_left(mqtt, timer_count)


def test_a_client_identifier_of_sixty_four_kibibytes_is_too_large() -> None:
    mqtt, timer_count = warmed()
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "x" * 0xFFFF, user="guest", password=b"guest"))
    assert client.transport.is_lost
    assert client.packets() == [], "its version is not read before its length"
    check_nothing_is_left(mqtt, timer_count)


def test_hundreds_of_clients_that_come_back_at_once_all_have_their_sessions() -> None:
    """The node reads them all in one turn, in which it answers one that was there before."""
    mqtt = make_mqtt()
    connects = [
        Connect(MQTT_5, f"c{number}", clean_start=False, user="guest", password=b"guest")
        for number in range(200)
    ]
    for connect in connects:
        connect.properties.values[PropertyId.SESSION_EXPIRY_INTERVAL] = EXPIRY_S_MAX
        client = mqtt.accept()
        client.send(connect, Subscribe(1, [("a", 1)]))
        client.lose()
    polite, clients = mqtt.connect("polite"), [mqtt.accept() for _ in connects]
    for client, connect in zip(clients, connects, strict=True):
        client.transport.receive(encode(connect, MQTT_5))
    polite.transport.receive(encode(Pingreq(), MQTT_5))
    mqtt.edge.scheduler.turn()
    assert polite.packets() == [Pingresp()]
    mqtt.edge.run()
    assert all(client.expect(Connack).session_present for client in clients)
    polite.publish("a", b"x", 1)
    for client in clients:
        assert ids_of(client) == [1]
        client.lose()
    polite.lose()
    mqtt.edge.advance(EXPIRY_S_MAX + 1)
    check_no_session(mqtt)


def test_a_subscription_without_the_right_is_answered() -> None:
    mqtt = make_mqtt()
    mqtt.edge.editor.put_permission("alice", "/", Permission("^$", ".*", ".*"))
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="alice", password=b"wonder"))
    client.expect(Connack)
    assert client.subscribe("a", "b", options=1) == [ReasonCode.NOT_AUTHORIZED] * 2
    client.publish("a", b"x", 1)
    assert client.acks() == [(PacketType.PUBACK, 2, ReasonCode.NO_MATCHING_SUBSCRIBERS)]
