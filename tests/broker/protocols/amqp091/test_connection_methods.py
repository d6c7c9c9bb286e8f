"""connection.*: the handshake, what each phase listens to, logins, limits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from fluffle.broker.config.config import Limits
from fluffle.broker.core.connections import NOT_LOGGED_IN, Connections
from fluffle.broker.protocols.amqp091.connection import ConnectionState
from fluffle.broker.protocols.amqp091.connection_methods import (
    HEADER_0_9,
    PHASES,
    capabilities_of,
    text_of,
)
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    Queue,
    encode_method,
    field_table,
    octets,
)
from fluffle.protocol.spec import PROTOCOL_HEADER
from fluffle.protocol.wire import encode_table, to_table
from tests.support.edge import Client, Edge, publish_frames, start_ok

TUNE_OK = Connection.TuneOk(2047, 131_072, 0)
CLOSE = Connection.Close(200, "", 0, 0)


def send(client: Client, method: Method) -> None:
    client.send(encode_method(0, method))


def to_start(client: Client) -> None:
    client.send(PROTOCOL_HEADER)


def to_tune(client: Client) -> None:
    to_start(client)
    send(client, start_ok("\0guest\0guest"))


def to_open(client: Client) -> None:
    to_tune(client)
    send(client, TUNE_OK)


def to_running(client: Client) -> None:
    to_open(client)
    send(client, Connection.Open("/"))


def to_closing(client: Client) -> None:
    to_running(client)
    send(client, Connection.TuneOk())


def to_closed(client: Client) -> None:
    to_running(client)
    client.transport.is_stuck = True
    send(client, CLOSE)


TO_PHASE: dict[ConnectionState, Callable[[Client], None]] = {
    ConnectionState.START: to_start,
    ConnectionState.TUNE: to_tune,
    ConnectionState.OPEN: to_open,
    ConnectionState.RUNNING: to_running,
    ConnectionState.CLOSING: to_closing,
    ConnectionState.CLOSED: to_closed,
}
"""In HEADER no method can come: the first eight bytes are the header, whatever they are."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Connection.Start(server_properties={}),
        start_ok("\0guest\0guest"),
        Connection.Secure("challenge"),
        Connection.SecureOk("response"),
        Connection.Tune(),
        TUNE_OK,
        Connection.Open("/"),
        Connection.OpenOk(),
        CLOSE,
        Connection.CloseOk(),
        Connection.Blocked("reason"),
        Connection.Unblocked(),
        Connection.UpdateSecret("secret", "reason"),
        Connection.UpdateSecretOk(),
        Channel.Open(),
        Channel.Close(200, "", 0, 0),
        Queue.Declare(queue="q"),
        Basic.Get(queue="q"),
        Basic.Ack(1),
    )
}
ANSWERS = {
    (ConnectionState.START, "Connection.StartOk"): ["Connection.Tune"],
    (ConnectionState.TUNE, "Connection.TuneOk"): [],
    (ConnectionState.OPEN, "Connection.Open"): ["Connection.OpenOk"],
    (ConnectionState.RUNNING, "Connection.UpdateSecret"): ["Connection.UpdateSecretOk"],
    (ConnectionState.RUNNING, "Connection.Close"): ["Connection.CloseOk"],
    (ConnectionState.CLOSING, "Connection.Close"): ["Connection.CloseOk"],
    (ConnectionState.CLOSING, "Connection.CloseOk"): [],
}
"""Every other method is refused before the end, and ignored from there on."""

NEXT = {
    (ConnectionState.START, "Connection.StartOk"): ConnectionState.TUNE,
    (ConnectionState.TUNE, "Connection.TuneOk"): ConnectionState.OPEN,
    (ConnectionState.OPEN, "Connection.Open"): ConnectionState.RUNNING,
    (ConnectionState.RUNNING, "Connection.Close"): ConnectionState.CLOSED,
    (ConnectionState.CLOSING, "Connection.CloseOk"): ConnectionState.CLOSED,
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("phase", TO_PHASE)
def test_every_method_on_channel_0_in_every_phase(phase: ConnectionState, name: str) -> None:
    client = Edge().accept()
    TO_PHASE[phase](client)
    assert client.connection.phase is phase
    client.arrivals()
    send(client, METHODS[name])
    if (phase, name) in ANSWERS:
        assert client.names() == ANSWERS[phase, name]
        assert client.connection.phase is NEXT.get((phase, name), phase)
    elif phase in (ConnectionState.CLOSING, ConnectionState.CLOSED):
        client.expect_nothing()
        assert client.connection.phase is phase
    else:
        index = METHODS[name].index
        text = f"CHANNEL_ERROR - unexpected method in connection state {phase.value}"
        client.expect_closed(504, text, ids=(index >> 16, index & 0xFFFF))
        assert client.connection.phase is ConnectionState.CLOSING


def test_the_table_of_answers_is_that_of_the_phases() -> None:
    handled = {(phase, cls.name) for phase, row in PHASES.items() for cls in row}
    assert handled == set(ANSWERS)


@pytest.mark.parametrize(
    "phase", [ConnectionState.START, ConnectionState.TUNE, ConnectionState.OPEN]
)
@pytest.mark.parametrize(
    "sent",
    [
        encode_method(1, Channel.Open()),
        encode_method(1, Basic.Ack(1)),
        publish_frames(b"x"),
    ],
)
def test_channels_have_to_wait_for_the_connection(phase: ConnectionState, sent: bytes) -> None:
    client = Edge().accept()
    TO_PHASE[phase](client)
    client.arrivals()
    client.send(sent)
    text = f"UNEXPECTED_FRAME - channels have to wait in connection state {phase.value}"
    client.expect_closed(505, text, ids=(0, 0))


# The header


def test_a_client_of_0_9_is_taken_for_one_of_0_9_1() -> None:
    client = Edge().accept()
    client.send(HEADER_0_9)
    client.expect(Connection.Start, channel=0)


@pytest.mark.parametrize("header", [b"AMQP\x03\x01\x00\x00", b"GET / HT", b"AMQP\x00\x00\x09\x02"])
def test_another_header_is_answered_with_ours(header: bytes) -> None:
    client = Edge().accept()
    client.send(header, encode_method(0, CLOSE))
    assert client.transport.writes == [PROTOCOL_HEADER]
    assert client.transport.is_lost


def test_what_is_not_whole_is_waited_for() -> None:
    client = Edge().accept()
    for octet in PROTOCOL_HEADER[:-1]:
        client.send(bytes([octet]))
        client.expect_nothing()
    client.send(PROTOCOL_HEADER[-1:])
    client.expect(Connection.Start, channel=0)


# The handshake


@pytest.mark.parametrize(
    "phase",
    [ConnectionState.HEADER, ConnectionState.START, ConnectionState.TUNE, ConnectionState.OPEN],
)
def test_who_has_not_opened_in_time_is_cut_off_without_a_word(phase: ConnectionState) -> None:
    edge = Edge(Limits(handshake_timeout_ms=2_000))
    client = edge.accept()
    if phase is not ConnectionState.HEADER:
        TO_PHASE[phase](client)
    client.arrivals()
    edge.advance(1.9)
    assert not client.transport.is_lost
    edge.advance(0.2)
    client.expect_nothing()
    assert client.transport.was_aborted
    assert client.transport.is_lost
    assert client.connection.close_reason == "no answer in time"


def test_who_has_opened_may_stay() -> None:
    edge = Edge(Limits(handshake_timeout_ms=2_000))
    client = edge.connect()
    edge.advance(3_600)
    assert not client.transport.is_lost
    client.declare()


def test_start_says_who_we_are() -> None:
    client = Edge().accept()
    client.send(PROTOCOL_HEADER)
    start = client.expect(Connection.Start, channel=0)
    assert (start.version_major, start.version_minor) == (0, 9)
    assert octets(start.mechanisms) == b"PLAIN AMQPLAIN"
    assert octets(start.locales) == b"en_US"
    properties = field_table(start.server_properties)
    assert properties["product"] == ("S", b"RabbitMQ")
    assert properties["capabilities"][1] == to_table(
        dict.fromkeys(
            (
                "publisher_confirms",
                "exchange_exchange_bindings",
                "basic.nack",
                "consumer_cancel_notify",
                "connection.blocked",
                "consumer_priorities",
                "authentication_failure_close",
                "per_consumer_qos",
                "direct_reply_to",
            ),
            True,
        )
    )


def test_tune_proposes_the_limits() -> None:
    client = Edge(Limits(channels_max=7, frame_bytes_max=9_000, heartbeat_s=11)).accept()
    to_start(client)
    client.arrivals()
    tune = client.call(start_ok("\0guest\0guest"), Connection.Tune, channel=0)
    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (7, 9_000, 11)


# Logins


def log_in_as(response: str, **how: object) -> Client:
    client = Edge().accept()
    to_start(client)
    client.arrivals()
    send(client, start_ok(response, **how))  # type: ignore[arg-type]
    return client


REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the "
    "broker logfile."
)


@pytest.mark.parametrize("response", ["\0guest\0wrong", "\0nobody\0guest", "\0guest\0"])
def test_a_login_that_fails_says_no_more_than_that(response: str) -> None:
    client = log_in_as(response)
    client.expect_closed(403, REFUSED, ids=(0, 0))


def test_a_client_that_cannot_hear_of_a_failed_login_is_hung_up() -> None:
    client = log_in_as("\0guest\0wrong", capabilities=())
    client.expect_nothing()
    assert client.transport.is_lost
    assert client.connection.close_reason == "user 'guest' gave a wrong password"


def test_a_failed_login_is_logged_without_the_password(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_in_as("\0guest\0secret-word", name="the client")
    (record,) = caplog.records
    assert record.__dict__["fluffle_fields"] == {
        "connection": "127.0.0.1:40000 -> 127.0.0.1:5672",
        "user": "guest",
        "mechanism": "PLAIN",
        "client": "the client",
        "reason": "user 'guest' gave a wrong password",
    }
    assert "secret-word" not in caplog.text


@pytest.mark.parametrize("response", ["guest", "\0guest", "\0a\0b\0c", ""])
def test_a_malformed_plain_response_is_a_syntax_error(response: str) -> None:
    log_in_as(response).expect_closed(502, "SYNTAX_ERROR - ")


def amqplain(**fields: str | int) -> str:
    return encode_table(to_table(fields))[4:].decode()


def test_amqplain_logs_in() -> None:
    response = amqplain(LOGIN="alice", PASSWORD="wonder")
    log_in_as(response, mechanism="AMQPLAIN").expect(Connection.Tune, channel=0)


@pytest.mark.parametrize("response", [amqplain(LOGIN="alice"), "\x05LOGIN", ""])
def test_a_malformed_amqplain_response_is_a_syntax_error(response: str) -> None:
    log_in_as(response, mechanism="AMQPLAIN").expect_closed(502, "SYNTAX_ERROR - AMQPLAIN")


@pytest.mark.parametrize(
    "response", [amqplain(LOGIN="alice", PASSWORD=1), amqplain(LOGIN=7, PASSWORD="wonder")]
)
def test_a_login_of_another_type_fails_as_a_wrong_one(response: str) -> None:
    log_in_as(response, mechanism="AMQPLAIN").expect_closed(403, "ACCESS_REFUSED - Login was")


def test_a_certificate_without_a_name_is_nobody_s() -> None:
    """Definitions may bring a user whose name is empty: he has a password."""
    edge = Edge()
    edge.editor.grant_everything("", b"secret", ["/"])
    client = edge.accept_from(peername=("127.0.0.1", 1), peercert={"subject": ()})
    to_start(client)
    client.arrivals()
    send(client, start_ok("", mechanism="EXTERNAL"))
    client.expect_closed(403, "ACCESS_REFUSED - Login was")


def test_a_mechanism_may_be_switched_off() -> None:
    edge = Edge()
    edge.services = replace(edge.services, mechanisms=("AMQPLAIN", "EXTERNAL"))
    (client := edge.accept()).send(PROTOCOL_HEADER)
    assert octets(client.expect(Connection.Start, channel=0).mechanisms) == b"AMQPLAIN"
    send(client, start_ok("\0guest\0guest"))
    client.expect_closed(503, "COMMAND_INVALID - unknown authentication mechanism 'PLAIN'")


def test_an_unknown_mechanism_is_refused() -> None:
    client = log_in_as("", mechanism="EXTERNAL")
    client.expect_closed(503, "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'")


@pytest.mark.parametrize(
    ("peer", "user", "is_let_in"),
    [
        (("192.0.2.1", 4), "guest", False),
        (("192.0.2.1", 4), "alice", True),
        (("::1", 4), "guest", True),
        (("::ffff:127.0.0.1", 4), "guest", True),
        (("::ffff:192.0.2.1", 4), "guest", False),
    ],
)
def test_guest_comes_from_this_machine(peer: tuple[str, int], user: str, is_let_in: bool) -> None:
    client = Edge().accept(peer)
    to_start(client)
    client.arrivals()
    send(client, start_ok(f"\0{user}\0" + {"guest": "guest", "alice": "wonder"}[user]))
    assert client.names() == ["Connection.Tune" if is_let_in else "Connection.Close"]


# Limits


@pytest.mark.parametrize(
    ("channels_max", "frame_bytes_max", "text"),
    [
        (2_048, 131_072, "channel_max = 2048 is higher than the maximum allowed value (2047)"),
        (0, 131_072, "channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
        (1, 131_073, "frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (1, 0, "frame_max = 0 (no limit) is higher than the maximum allowed value (131072)"),
        (1, 8_191, "frame_max = 8191 is lower than the minimum allowed value (8192)"),
    ],
)
def test_limits_are_not_negotiable_upwards(
    channels_max: int, frame_bytes_max: int, text: str
) -> None:
    client = Edge().accept()
    to_tune(client)
    client.arrivals()
    send(client, Connection.TuneOk(channels_max, frame_bytes_max, 0))
    client.expect_closed(530, f"NOT_ALLOWED - negotiated {text}", ids=(10, 31))


@pytest.mark.parametrize(("channels_max", "frame_bytes_max"), [(1, 8_192), (2_047, 131_072)])
def test_limits_at_their_ends_are_allowed(channels_max: int, frame_bytes_max: int) -> None:
    client = Edge().connect(channels_max=channels_max, frame_bytes_max=frame_bytes_max)
    client.declare()


def test_frames_may_be_larger_once_that_is_agreed() -> None:
    client = Edge().accept()
    to_tune(client)
    client.arrivals()
    client.send(encode_method(0, Connection.TuneOk(2047, 131_072, 0)))
    send(client, Connection.Open("/"))
    client.expect(Connection.OpenOk, channel=0)
    client.open_channel()
    client.declare()
    client.publish(b"x" * 131_064)
    assert client.ready_count() == 1


def test_a_handshake_may_come_in_one_piece() -> None:
    """The limits that a client agrees to count for the frames behind it, in the same read too."""
    client = Edge().accept()
    client.send(
        PROTOCOL_HEADER,
        *(encode_method(0, method) for method in (start_ok("\0guest\0guest"), TUNE_OK)),
        encode_method(0, Connection.Open("/")),
        encode_method(1, Channel.Open()),
        encode_method(1, Queue.Declare(queue="q")),
        publish_frames(b"x" * 20_000),
        encode_method(1, Basic.Get(queue="q")),
    )
    *handshake, got = client.arrivals()
    assert [arrival.method.name for arrival in handshake] == [
        "Connection.Start",
        "Connection.Tune",
        "Connection.OpenOk",
        "Channel.OpenOk",
        "Queue.DeclareOk",
    ]
    assert got.body == b"x" * 20_000


def test_a_handshake_that_fails_ends_what_came_behind_it() -> None:
    client = Edge().accept()
    behind = (encode_method(0, Connection.Open("foo")), publish_frames(b"x" * 5_000))
    client.send(PROTOCOL_HEADER, encode_method(0, start_ok("\0guest\0wrong")), *behind)
    client.expect(Connection.Start, channel=0)
    client.expect_closed(403, "ACCESS_REFUSED - Login was refused")
    client.expect_nothing()
    send(client, Connection.CloseOk())
    assert (client.transport.is_lost, client.transport.was_aborted) == (True, False)


def test_before_that_frames_are_small() -> None:
    client = Edge().accept()
    to_start(client)
    client.arrivals()
    send(client, start_ok("\0guest\0" + "x" * 9_000))
    client.expect_closed(501, "FRAME_ERROR - ")


def test_an_unknown_vhost_cannot_be_opened() -> None:
    client = Edge().accept()
    to_open(client)
    client.arrivals()
    send(client, Connection.Open("foo"))
    client.expect_closed(530, "NOT_ALLOWED - vhost foo not found", ids=(10, 40))


def test_violations_close_the_connection_at_any_time() -> None:
    client = Edge().connect()
    client.send(b"\x01\x00\x01\x00\x00\x00\x01\x00\x00")
    client.expect_closed(501, "FRAME_ERROR - frame end octet is 0, not 206", ids=(0, 0))


def test_an_unknown_method_closes_the_connection() -> None:
    client = Edge().connect()
    client.send(b"\x01\x00\x01\x00\x00\x00\x04\x00\x63\x00\x07\xce")
    client.expect_closed(503, "COMMAND_INVALID - unimplemented method 99.7", ids=(99, 7))


# Words


def test_client_properties_of_the_wrong_kind_say_nothing() -> None:
    assert capabilities_of({}) == frozenset()
    assert capabilities_of(to_table({"capabilities": "all"})) == frozenset()
    mixed = to_table({"capabilities": {"a": True, "b": False, "c": "yes"}})
    assert capabilities_of(mixed) == {"a"}
    assert text_of(to_table({"name": 7}), "name") == ""
    assert text_of({"name": ("S", b"caf\xff")}, "name") == "caf\N{REPLACEMENT CHARACTER}"


def test_who_has_not_logged_in_makes_room_for_others() -> None:
    edge = Edge()
    edge.services = replace(edge.services, connections=Connections(strangers_max=2))
    known = edge.connect()
    silent, speaking = edge.accept(), edge.accept()
    to_start(speaking)
    another = edge.connect()  # the third that has not logged in when it comes
    assert silent.connection.close_reason == NOT_LOGGED_IN
    assert silent.transport.is_closing()
    others = [edge.accept() for _ in range(2)]
    assert speaking.connection.close_reason == NOT_LOGGED_IN
    for client in (known, another, *others):
        assert not client.transport.is_closing()
    silent.connection.connection_lost(None)
    assert len(edge.services.connections) == 5
