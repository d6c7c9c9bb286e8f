"""Connection of MQTT: how it begins, how it ends, and what the client hears."""

import asyncio
import logging
import socket
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from fluffle.broker.access.access import Permission, User
from fluffle.broker.access.passwords import hashed
from fluffle.broker.base.errors import ConnectionForced, NodeStops
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.core.session import REMEMBERED_WHEN_SHORT_MAX
from fluffle.broker.core.socket_connection import SILENCE_S
from fluffle.broker.node import Node
from fluffle.broker.protocols.mqtt.connection import (
    CLOSE_WAIT_S,
    HELD_BYTES_MAX,
    REFUSED_LOGIN_WAIT_S,
    Connection,
    ConnectionState,
    MqttWaitingRules,
)
from fluffle.broker.protocols.mqtt.packet_handlers import PACKET_HANDLERS
from fluffle.broker.protocols.mqtt.reasons import REFUSED_LOGIN
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5, PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import (
    Ack,
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
from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties
from fluffle.protocol.mqtt.reader import ClientReader
from fluffle.protocol.proxy import ForwardedConnection
from tests.protocol.mqtt.packet_samples import reader_for
from tests.support.deadlines import DEADLINE_S
from tests.support.fakes import FakeTransport
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_restarts import RestartedMqtt
from tests.support.mqtt_socket import MqttSocket, MqttSocketClosed

LEVEL_6 = b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01c"


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_client_is_let_in_and_answered(version: int) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", version)
    assert not client.connack.session_present
    client.send(Pingreq())
    client.expect(Pingresp)
    assert client.connection.state == "running"


def test_a_client_of_version_5_gets_the_limits() -> None:
    mqtt = MqttEdge(MqttConfig(receive_max=7, topic_alias_max=3, keep_alive_s_max=60))
    fields = mqtt.connect("c").connack.properties.values
    assert fields[PropertyId.RECEIVE_MAXIMUM] == 7
    assert fields[PropertyId.TOPIC_ALIAS_MAXIMUM] == 3
    assert fields[PropertyId.SERVER_KEEP_ALIVE] == 60
    assert PropertyId.MAXIMUM_QOS not in fields


def test_a_client_without_a_name_is_given_one() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("")
    name = client.connack.properties.text(PropertyId.ASSIGNED_CLIENT_IDENTIFIER)
    assert name is not None
    assert mqtt.server.states.find(("/", name)) is not None


def test_a_version_that_is_not_known_is_answered_as_all_understand() -> None:
    client = MqttEdge().accept(MQTT_3_1_1)
    client.send(LEVEL_6)
    assert client.transport.writes == [b"\x20\x02\x00\x01"]
    assert client.transport.is_lost


@pytest.mark.parametrize("data", [b"AMQP\x00\x00\x09\x01", b"\xc0\x00", b"\x10\x00", b"\x00"])
def test_what_is_no_connect_is_not_answered(data: bytes) -> None:
    client = MqttEdge().accept()
    client.send(data)
    assert client.transport.writes == []
    assert client.transport.is_lost


@pytest.mark.parametrize(
    ("version", "answer"), [(MQTT_5, [Disconnect(ReasonCode.PROTOCOL_ERROR)]), (MQTT_3_1_1, [])]
)
def test_only_version_5_gets_the_reason_of_its_end(version: int, answer: list[Disconnect]) -> None:
    client = MqttEdge().connect("c", version)
    client.send(Connect(version, "c"))
    assert client.packets() == answer
    assert client.transport.is_lost


def test_a_silent_client_ends_after_one_and_a_half_intervals() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", keep_alive_s=10)
    mqtt.edge.advance(9)
    client.send(Pingreq())
    client.expect(Pingresp)
    mqtt.edge.advance(14)
    assert client.packets() == []
    mqtt.edge.advance(7)
    assert client.packets() == [Disconnect(ReasonCode.KEEP_ALIVE_TIMEOUT)]
    assert client.transport.is_lost


def test_what_a_client_is_sent_does_not_keep_it_alive() -> None:
    mqtt = MqttEdge()
    client, publisher = mqtt.connect("c", keep_alive_s=10), mqtt.connect("p")
    client.subscribe("a", options=0)
    for _ in range(21):
        publisher.publish("a")
        mqtt.edge.advance(1)
    assert client.packets()[-1] == Disconnect(ReasonCode.KEEP_ALIVE_TIMEOUT)


@pytest.mark.parametrize(
    "packet",
    [Pingreq(), Publish(b"a", b"x"), Subscribe(1, [("a", 0)]), Ack(PacketType.PUBACK, 9)],
    ids=lambda packet: type(packet).__name__,
)
def test_whatever_a_client_sends_keeps_it_alive(packet: Packet) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", keep_alive_s=10)
    for _ in range(5):
        mqtt.edge.advance(14)
        client.send(packet)
    assert not client.transport.is_lost


@pytest.mark.parametrize(
    ("version", "asked_s", "is_ended"),
    [(MQTT_5, 1_000, True), (MQTT_5, 0, True), (MQTT_5, 5, True), (MQTT_3_1_1, 1_000, False)],
)
def test_the_keep_alive_of_the_node_is_that_of_a_client_who_was_given_it(
    version: int, asked_s: int, *, is_ended: bool
) -> None:
    """Version 3.1.1 cannot be given one."""
    mqtt = MqttEdge(MqttConfig(keep_alive_s_max=10))
    client = mqtt.connect("c", version, keep_alive_s=asked_s)
    fields = client.connack.properties.values
    given = 10 if version == MQTT_5 and asked_s != 5 else None
    assert fields.get(PropertyId.SERVER_KEEP_ALIVE) == given
    mqtt.edge.advance(21)
    assert client.transport.is_lost == is_ended


def test_a_client_that_is_not_read_is_not_silent() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", keep_alive_s=10)
    mqtt.edge.services.alarms.set("memory", low=True)
    client.publish("a", bytes(HELD_BYTES_MAX))
    assert client.connection.state == "blocked"
    mqtt.edge.advance(1_000)
    assert not client.transport.is_lost
    mqtt.edge.services.alarms.set("memory", low=False)
    mqtt.edge.advance(14.9)
    assert not client.transport.is_lost
    mqtt.edge.advance(6)
    assert client.transport.is_lost


def test_a_client_without_a_keep_alive_may_be_silent() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", keep_alive_s=0)
    mqtt.edge.advance(1_000_000)
    assert not client.transport.is_closing()


def test_a_header_of_a_proxy_says_where_a_client_is() -> None:
    mqtt = MqttEdge()
    header = ForwardedConnection(("192.0.2.1", 1), ("192.0.2.2", 1883))
    connection = Connection(mqtt.server, PACKET_HANDLERS, header)
    transport = FakeTransport(mqtt.edge.scheduler, {"peername": ("127.0.0.1", 2)})
    transport.connect(connection)
    assert connection.name == "192.0.2.1:1 -> 192.0.2.2:1883"
    transport.receive(encode(Connect(MQTT_5, "c"), MQTT_5))
    mqtt.edge.run()
    (connack,) = ClientReader(1 << 10, MQTT_5).feed(b"".join(transport.writes))
    assert isinstance(connack, Connack)
    assert connack.code is ReasonCode.NOT_AUTHORIZED, "guest is not of this machine"


def test_a_client_that_says_nothing_is_hung_up_on_in_time() -> None:
    mqtt = MqttEdge(MqttConfig(login_timeout_ms=2_000))
    client = mqtt.accept()
    mqtt.edge.advance(2.1)
    assert client.transport.is_lost


def test_a_client_that_others_close_gets_their_reason() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.connection.fail(ConnectionForced("closed via management"))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)]
    assert client.reasons == ["closed via management"]


def connected_alice(mqtt: MqttEdge) -> MqttClient:
    editor = mqtt.edge.editor
    editor.put_user(User("alice", hashed(b"wonder")))
    editor.vhost("house")
    editor.put_permission("alice", "house", Permission(".*", ".*", ".*"))
    client = mqtt.accept()
    client.send(Connect(MQTT_5, "c", user="house:alice", password=b"wonder"))
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    return client


@pytest.mark.parametrize("gone", ["user", "virtual host"])
def test_a_client_whose_user_or_virtual_host_is_gone_is_disconnected(gone: str) -> None:
    mqtt = MqttEdge()
    client = connected_alice(mqtt)
    if gone == "user":
        mqtt.edge.editor.delete_user("alice")
    else:
        mqtt.edge.editor.delete_vhost("house")
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)]
    assert len(client.reasons) == 1
    assert client.transport.is_lost


def test_another_password_counts_from_the_next_login_on() -> None:
    mqtt = MqttEdge()
    client = connected_alice(mqtt)
    mqtt.edge.editor.put_user(User("alice", hashed(b"changed")))
    client.send(Pingreq())
    client.expect(Pingresp)


def test_a_right_to_publish_that_is_taken_away_is_gone_at_once() -> None:
    mqtt = MqttEdge()
    client = connected_alice(mqtt)
    client.publish("a", qos=1)
    ((_, _, code),) = client.acks()
    assert not code.is_error
    mqtt.edge.editor.put_permission("alice", "house", Permission(".*", "^$", ".*"))
    client.publish("a", qos=1)
    ((_, _, code),) = client.acks()
    assert code is ReasonCode.NOT_AUTHORIZED


def test_a_reason_is_left_out_where_it_has_no_room() -> None:
    mqtt = MqttEdge()
    for reason, limit_bytes in (("closed via management", 20), ("\x07", 0)):
        client = mqtt.accept(MQTT_5)
        limit = Properties({PropertyId.MAXIMUM_PACKET_SIZE: limit_bytes or 1_000})
        client.send(Connect(MQTT_5, "c", properties=limit))
        client.expect(Connack)
        client.connection.fail(ConnectionForced(reason))
        mqtt.edge.run()
        assert client.packets() == [Disconnect(ReasonCode.ADMINISTRATIVE_ACTION)]
        assert client.reasons == []


def test_each_disconnect_and_refusal_says_why() -> None:
    mqtt = MqttEdge(MqttConfig(connections_max=2))
    first = mqtt.connect("c")
    second = mqtt.connect("c")
    assert first.packets() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)]
    assert first.reasons == ["session taken over"]
    second.send(Connect(MQTT_5, "c"))
    assert second.packets() == [Disconnect(ReasonCode.PROTOCOL_ERROR)]
    assert second.reasons == ["second CONNECT"]
    mqtt.connect("a")
    mqtt.connect("b")
    third = mqtt.accept()
    third.send(Connect(MQTT_5, "c"))
    assert third.expect(Connack).code is ReasonCode.QUOTA_EXCEEDED
    assert third.reasons == ["there are as many connections as may be"]


def test_a_refused_login_does_not_say_what_is_wrong() -> None:
    mqtt = MqttEdge()
    for user in ("guest", "nowhere:guest", "stranger"):
        client = mqtt.accept()
        client.send(Connect(MQTT_5, "c", user=user, password=b"wrong"))
        mqtt.edge.advance(REFUSED_LOGIN_WAIT_S)
        assert client.expect(Connack).code is ReasonCode.BAD_USER_NAME_OR_PASSWORD
        assert client.reasons == [REFUSED_LOGIN]


@pytest.mark.parametrize("limit_bytes", [20, 60])
def test_a_reason_that_has_no_room_is_left_out_of_a_refusal(limit_bytes: int) -> None:
    mqtt = MqttEdge(MqttConfig(connections_max=0))
    client = mqtt.accept()
    limit = Properties({PropertyId.MAXIMUM_PACKET_SIZE: limit_bytes})
    client.send(Connect(MQTT_5, "c", properties=limit))
    client.expect(Connack)
    assert len(client.reasons) == (limit_bytes == 60)


def test_the_log_names_the_client_of_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("meter")
    with caplog.at_level(logging.INFO):
        client.send(b"\xff")
        client.lose()
    assert [
        (record.message, getattr(record, FIELDS_ATTRIBUTE)["client"]) for record in caplog.records
    ] == [("connection_error", "meter"), ("connection_closed", "meter")]


def test_a_close_by_an_operator_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("meter")
    with caplog.at_level(logging.INFO):
        client.connection.fail(ConnectionForced("closed via management"))
        client.connection.fail(ConnectionForced("again"))
        client.lose()
    (record,) = caplog.records
    fields = getattr(record, FIELDS_ATTRIBUTE)
    assert (record.levelname, record.message) == ("INFO", "connection_closed")
    assert fields["reason"] == "closed via management"
    assert client.expect(Disconnect).code is ReasonCode.ADMINISTRATIVE_ACTION


async def test_who_sends_too_large_a_packet_hears_why_though_he_sends_it_to_the_end(
    tmp_path: Path,
) -> None:
    config = Config(
        listen=ListenAddress("127.0.0.1", 0),
        data_dir=tmp_path,
        mqtt=MqttConfig(listen=(ListenAddress("127.0.0.1", 0),)),
    )
    node = Node(config)
    await node.start()
    await asyncio.to_thread(send_too_much, node.addresses["mqtt"])
    await node.stop("test")


def test_over_tls_who_has_sent_too_large_a_packet_is_closed_once_it_is_silent() -> None:
    mqtt = MqttEdge(MqttConfig(packet_bytes_max=1_000))
    client = mqtt.connect("c")
    client.transport.can_write_eof = lambda: False  # type: ignore[method-assign]
    client.transport.receive(encode(Publish(b"t", bytes(2_000)), MQTT_5)[:1_500])
    mqtt.edge.advance(SILENCE_S / 2)
    client.transport.receive(bytes(100))
    mqtt.edge.advance(SILENCE_S)
    assert not client.transport.is_closing()
    mqtt.edge.advance(SILENCE_S)
    assert client.transport.is_lost
    assert not client.transport.was_aborted
    assert client.packets() == [Disconnect(ReasonCode.PACKET_TOO_LARGE)]


def test_over_tls_who_never_stops_to_send_is_dropped_in_time() -> None:
    mqtt = MqttEdge(MqttConfig(packet_bytes_max=1_000))
    client = mqtt.connect("c")
    client.transport.can_write_eof = lambda: False  # type: ignore[method-assign]
    client.transport.receive(encode(Publish(b"t", bytes(2_000)), MQTT_5)[:1_500])
    while not client.transport.is_lost:
        client.transport.receive(bytes(100))
        mqtt.edge.advance(SILENCE_S / 2)
    assert mqtt.edge.scheduler.now_s == pytest.approx(CLOSE_WAIT_S)
    assert client.transport.was_aborted


def send_too_much(address: tuple[str, int]) -> None:
    """Send a packet of 20 MiB, whole, and read then."""
    with socket.create_connection(address, DEADLINE_S) as connected:
        client = MqttSocket(connected)
        client.connect()
        client.socket.sendall(encode(Publish(b"t", bytes(20 << 20)), MQTT_5))
        packet = client.next()
        assert isinstance(packet, Disconnect)
        assert packet.code is ReasonCode.PACKET_TOO_LARGE
        with pytest.raises(MqttSocketClosed):
            client.next()


def test_a_bug_ends_one_connection_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    mqtt = MqttEdge()
    client, other = mqtt.connect("c"), mqtt.connect("d")
    client.connection.give_up(ValueError("a bug"))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.UNSPECIFIED_ERROR)]
    assert "a handler failed" in caplog.text
    other.send(Pingreq())
    other.expect(Pingresp)


def test_nothing_is_left_of_a_connection_that_has_ended() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c", keep_alive_s=10)
    client.subscribe("a", options=1)
    client.lose()
    assert mqtt.queue_names == []
    assert len(mqtt.server.states) == len(mqtt.server.connected) == 0
    assert len(mqtt.edge.services.connections) == 0
    assert mqtt.edge.scheduler.timer_count == 0


def test_what_a_client_sends_with_its_connect_is_acted_on_behind_it() -> None:
    client = MqttEdge().accept()
    connect = Connect(MQTT_5, "c", user="guest", password=b"guest")
    client.send(connect, Pingreq())
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    client.expect(Pingresp)


def memory_of(value: object) -> int:
    """Bytes of what only `value` leads to; small numbers and constants are there once for all."""
    if isinstance(value, int) or value is None:
        return 0
    inner: list[object] = []
    if isinstance(value, list | tuple):
        inner = [*value]
    elif isinstance(value, dict):
        inner = [*value.values()]
    elif is_dataclass(value):
        inner = [getattr(value, each.name) for each in fields(value)]
    return sys.getsizeof(value) + sum(map(memory_of, inner))


MANY = [f"a/{number}" for number in range(2_000)]
PAIRS = Properties(user=[(name, "") for name in MANY])


@pytest.mark.parametrize(
    "packets",
    [
        [Publish(b"a", b"", 1, packet_id=number) for number in range(1, 1_000)],
        [Publish(b"a", b"x" * 1_000) for _ in range(1_000)],
        [Publish(b"a" * 60_000, b"")],
        [Publish(b"a", b"", properties=encode_properties(PAIRS))],
        [Subscribe(1, [(each, 1) for each in MANY])],
        [Subscribe(1, [("\U0001f407" + "a" * 60_000, 1)])],
        [Unsubscribe(1, MANY)],
        [Unsubscribe(1, ["a"], PAIRS)],
        [Ack(PacketType.PUBACK, number) for number in range(1, 1_000)],
        [Ack(PacketType.PUBACK, 1, ReasonCode.NOT_AUTHORIZED, PAIRS)],
        [Connect(MQTT_5, "c", properties=PAIRS)],
        [Connect(MQTT_5, "c" * 60_000, user="u" * 60_000, password=b"p" * 60_000)],
        [Connect(MQTT_5, "c", will=Will(b"w", b"x" * 60_000))],
        [Disconnect(properties=Properties({PropertyId.REASON_STRING: "x" * 60_000}))],
        [Pingreq()],
    ],
)
def test_what_waits_is_weighed_as_the_memory_that_it_takes(packets: list[Packet]) -> None:
    reader = reader_for(packets[0], MQTT_5)
    events = reader.feed(b"".join(encode(each, MQTT_5) for each in packets))
    while reader.is_waiting:
        events += reader.go_on()
    taken_bytes = sum(map(memory_of, events))
    weight = sum(map(MqttWaitingRules().size_of, events))
    assert taken_bytes - 256 * len(events) <= weight <= 2 * taken_bytes + 256 * len(packets)


def test_a_client_leaves() -> None:
    client = MqttEdge().connect("c")
    client.send(Disconnect(), Pingreq())
    assert client.packets() == []
    assert client.transport.is_lost
    assert client.connection.close_reason == "disconnected by client"


@pytest.mark.parametrize("kind", [PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBCOMP])
def test_acknowledgements_wait_for_the_login(kind: PacketType) -> None:
    """Early acknowledgements came to a connection without a channel, and ended the node."""
    mqtt = MqttEdge(MqttConfig())
    client = mqtt.accept()
    wrong = Connect(MQTT_5, "c", user="guest", password=b"wrong")
    client.send(wrong, Ack(kind, 1), b"\x00\x00")
    assert client.packets() == []
    mqtt.edge.advance(3.1)
    assert client.expect(Connack).code is ReasonCode.BAD_USER_NAME_OR_PASSWORD


def test_who_remembers_much_forgets_it_when_memory_is_short() -> None:
    mqtt = MqttEdge()
    many, few, publisher = mqtt.connect("many"), mqtt.connect("few"), mqtt.connect("p")
    many.subscribe("m/+", options=1)
    few.subscribe("f/+", options=1)
    for client, count in (("m", REMEMBERED_WHEN_SHORT_MAX + 1), ("f", 3)):
        for number in range(count):
            publisher.publish(f"{client}/{number}")

    def remembered(client: MqttClient) -> tuple[int, int]:
        channel = client.connection.channel
        assert channel is not None
        (writer,) = channel.writers.values()
        return len(writer._forms), len(channel.state._matches)

    mqtt.edge.services.connections.relieve()
    assert (remembered(many), remembered(few)) == ((0, 0), (3, 3))
    many.packets()
    publisher.publish("m/0")
    assert many.messages() == [("m/0", b"x", 0)]


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_a_node_that_stops_names_other_servers(version: int) -> None:
    mqtt = MqttEdge(MqttConfig(server_reference="b:1883 c:1883"))
    client, new = mqtt.connect("c", version), mqtt.accept(version)
    new.connection.phase = ConnectionState.LOGIN
    new.connection.terms.version = version
    for each in (client, new):
        each.connection.close(NodeStops("stops"))
    mqtt.edge.run()
    reference = Properties({PropertyId.SERVER_REFERENCE: "b:1883 c:1883"})
    is_five = version == MQTT_5
    disconnect = Disconnect(ReasonCode.USE_ANOTHER_SERVER, reference)
    assert client.packets() == ([disconnect] if is_five else [])
    connack = new.expect(Connack)
    assert connack.properties == (reference if is_five else Properties())
    other = ReasonCode.USE_ANOTHER_SERVER if is_five else ReasonCode.SERVER_UNAVAILABLE
    assert connack.code is other


def test_a_node_that_stops_and_knows_no_others_says_so() -> None:
    mqtt = MqttEdge()
    client = mqtt.connect("c")
    client.connection.close(NodeStops("stops"))
    client.connection.close(ConnectionForced("twice"))
    mqtt.edge.run()
    assert client.packets() == [Disconnect(ReasonCode.SERVER_SHUTTING_DOWN)]


def test_who_takes_no_packet_that_large_hears_of_no_other_server() -> None:
    mqtt = MqttEdge(MqttConfig(server_reference="b.example:1883 c.example:1883"))
    clients = [mqtt.accept(MQTT_5) for _ in range(2)]
    for client, size in zip(clients, (30, 60), strict=True):
        asked = Properties({PropertyId.MAXIMUM_PACKET_SIZE: size})
        client.send(Connect(MQTT_5, f"c{size}", user="guest", password=b"guest", properties=asked))
        client.expect(Connack)
        client.connection.close(NodeStops("stops"))
        mqtt.edge.run()
    assert [client.expect(Disconnect).code for client in clients] == [
        ReasonCode.SERVER_SHUTTING_DOWN,
        ReasonCode.USE_ANOTHER_SERVER,
    ]


@pytest.mark.parametrize("cert_login", [False, True])
def test_a_connection_shows_the_name_of_its_certificate(cert_login: bool) -> None:
    """RabbitMQ's `ssl_login_name`, whether the client logs in by its certificate or not."""
    mqtt = MqttEdge(MqttConfig(cert_login=cert_login))
    mqtt.edge.editor.put_user(User("CN=meter", None))
    mqtt.edge.editor.put_permission("CN=meter", "/", Permission(".*", ".*", ".*"))
    client = mqtt.accept(MQTT_5)
    client.connection.certificate = {"subject": ((("commonName", "meter"),),)}
    user, password = (None, None) if cert_login else ("guest", b"guest")
    client.send(Connect(MQTT_5, "c", user=user, password=password))
    assert client.expect(Connack).code is ReasonCode.SUCCESS
    row = client.connection.protocol_row
    assert row["ssl_login_name"] == "CN=meter"
    assert mqtt.connect("d").connection.protocol_row["ssl_login_name"] == "none"


def test_a_connection_shows_what_rabbitmq_lists_of_it() -> None:
    mqtt = MqttEdge(MqttConfig(prefetch=7))
    will = Will(b"gone/c", b"bye")
    client = mqtt.accept(MQTT_5)
    fields = Properties(user=[("site", "cellar"), ("site", "attic")])
    client.send(Connect(MQTT_5, "c", user="guest", password=b"guest", will=will, properties=fields))
    client.expect(Connack)
    client.subscribe("a", options=1)
    client.publish("a", qos=1)
    client.publish("a", qos=0)
    row = client.connection.protocol_row
    assert row["user_property"] == [["site", "cellar"], ["site", "attic"]]
    assert (row["prefetch"], row["will_msg"]) == (7, "gone/c")
    assert (row["messages_unconfirmed"], row["messages_unacknowledged"]) == (0, 1)


def test_a_connection_shows_how_many_of_its_messages_are_not_safe_yet() -> None:
    node = RestartedMqtt()
    client = node.connect("c", expiry_s=60)
    client.send(Subscribe(1, [("a", 1)]))
    node.settle()
    client.publish("a", qos=1)
    assert client.connection.protocol_row["messages_unconfirmed"] == 1
    node.settle()
    assert client.connection.protocol_row["messages_unconfirmed"] == 0
