"""Connections where sockets make tests hard: ends, timers, holding back, fairness, faults."""

from __future__ import annotations

import sys
from socket import AF_INET, AF_INET6, AF_UNIX, AddressFamily, socket

import pytest

from fluffle.broker.base.errors import ConnectionForced
from fluffle.broker.core.connections import forced_close
from fluffle.broker.protocols.amqp091 import basic_methods
from fluffle.broker.protocols.amqp091.channel import Channel as ServerChannel
from fluffle.broker.protocols.amqp091.connection import (
    BROKEN_WAIT_S,
    CLOSE_WAIT_S_MAX,
    HANDLERS,
    UNHEARD_BYTES_MAX,
)
from fluffle.broker.protocols.amqp091.connection import Connection as ServerConnection
from fluffle.broker.protocols.amqp091.event_handlers import EVENT_HANDLERS
from fluffle.protocol.methods import (
    Basic,
    Connection,
    Method,
    Queue,
    deliver_prefix,
    encode_method,
    make,
)
from fluffle.protocol.proxy import ForwardedConnection
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.support.edge import HEARTBEAT, Client, Edge, publish_frames
from tests.support.fakes import FakeTransport

CLOSE = encode_method(0, Connection.Close(200, "bye", 0, 0))
CLOSE_OK = encode_method(0, Connection.CloseOk())


def break_off(client: Client) -> None:
    """Let the broker close the connection of `client`, who does not answer yet."""
    client.send(encode_method(1, Basic.Recover(False)))
    client.expect_closed(540, "NOT_IMPLEMENTED - requeue=false", ids=(60, 110))


# Ends


def test_a_client_that_closes_hears_close_ok_and_closes_the_socket() -> None:
    edge = Edge()
    client = edge.connect(heartbeat_s=10)
    client.declare()
    client.call(make(Connection.Close, 200, "bye", 0, 0), Connection.CloseOk, channel=0)
    assert not client.transport.is_closing()
    client.transport.lose()
    assert client.connection.close_reason == "closed by client: 200 bye"
    assert len(edge.services.connections) == 0
    assert edge.scheduler.timer_count == 0


def test_a_close_by_an_operator_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client = Edge().connect()
    with caplog.at_level("INFO"):
        client.connection.fail(ConnectionForced("closed by the operator"))
        client.transport.lose()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "connection_closed")
    ]
    assert client.connection.close_reason == "CONNECTION_FORCED - closed by the operator"


def test_what_a_client_does_wrong_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client = Edge().connect()
    break_off(client)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "connection_error")
    ]


def test_nothing_is_answered_after_a_close() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.confirm_select()
    client.feed(publish_frames(b"x", "nowhere", mandatory=True), CLOSE, publish_frames(b"x"))
    edge.run()
    assert client.names() == ["Basic.Return", "Connection.CloseOk"]
    assert edge.vhost.queues["q"].ready_count == 0


PARTS = (publish_frames(b"x") * 100, encode_method(0, Connection.CloseOk()), b"garbage" * 99)
"""Frames that may come behind a close, and are dropped."""


@pytest.mark.parametrize("is_together", [True, False])
def test_what_is_on_its_way_behind_a_close_is_read_and_dropped(*, is_together: bool) -> None:
    """A client that still writes would hear of a broken pipe in the place of close-ok."""
    edge = Edge()
    client = edge.connect()
    client.declare()
    for data in (CLOSE + b"".join(PARTS),) if is_together else (CLOSE, *PARTS):
        client.send(data)
    assert client.names() == ["Connection.CloseOk"]
    assert not client.transport.is_closing()
    assert client.transport.is_reading()
    assert edge.vhost.queues["q"].ready_count == 0
    client.transport.lose()
    assert (len(edge.services.connections), edge.scheduler.timer_count) == (0, 0)


@pytest.mark.parametrize("heartbeat_s", [0, 4])
def test_who_does_not_close_the_socket_after_close_ok_is_cut_off(heartbeat_s: int) -> None:
    edge = Edge()
    client = edge.connect(heartbeat_s=heartbeat_s)
    client.send(CLOSE)
    writes = len(client.transport.writes)
    edge.advance((heartbeat_s or CLOSE_WAIT_S_MAX) - 0.1)
    assert not client.transport.is_lost
    edge.advance(0.2)
    assert client.transport.was_aborted
    assert client.transport.is_lost
    assert len(client.transport.writes) == writes, "nothing is said behind close-ok"


def test_who_writes_without_end_behind_a_close_is_cut_off() -> None:
    client = Edge().connect()
    client.send(CLOSE)
    part = bytes(1 << 20)
    for _ in range(UNHEARD_BYTES_MAX >> 20):
        client.transport.receive(part)
    assert not client.transport.was_aborted
    client.transport.receive(b"1")
    assert client.transport.was_aborted


def test_a_publisher_that_was_held_up_is_read_again_after_its_close() -> None:
    """Else what it still writes would fill its socket, and it would not hear close-ok."""
    edge = Edge()
    client, other = edge.connect(), edge.connect()
    other.declare()
    other.consume()
    other.transport.is_stuck = True
    for _ in range(20):
        client.send(publish_frames(bytes(1000)) * 1000)
    assert not client.transport.is_reading()
    client.feed(CLOSE)
    edge.advance(1)
    client.expect(Connection.CloseOk, channel=0)
    assert client.transport.is_reading()


def test_after_our_close_only_the_answer_counts() -> None:
    client = Edge().connect()
    client.declare()
    break_off(client)
    client.send(
        publish_frames(b"x", "nowhere", mandatory=True),
        encode_method(1, Queue.Declare(queue="late")),
        encode_method(9, Basic.Ack(1)),
        encode_method(0, Connection.TuneOk()),
    )
    client.expect_nothing()
    assert list(client.edge.vhost.queues) == ["q"]
    client.send(CLOSE_OK)
    assert (client.transport.is_lost, client.transport.was_aborted) == (True, False)


def test_closes_that_cross_are_both_answered() -> None:
    client = Edge().connect()
    break_off(client)
    client.send(CLOSE)
    assert client.names() == ["Connection.CloseOk"]
    assert not client.transport.is_lost
    client.send(CLOSE_OK)
    assert client.transport.is_lost


def test_who_does_not_answer_a_close_is_cut_off() -> None:
    client = Edge().connect()
    break_off(client)
    client.edge.advance(CLOSE_WAIT_S_MAX - 0.1)
    assert not client.transport.is_lost
    client.edge.advance(0.2)
    assert client.transport.was_aborted
    assert client.transport.is_lost


def test_who_has_a_shorter_heartbeat_is_cut_off_sooner() -> None:
    client = Edge().connect(heartbeat_s=4)
    break_off(client)
    client.edge.advance(4)
    assert client.transport.was_aborted


def test_who_can_be_read_no_more_is_cut_off_soon() -> None:
    client = Edge().connect()
    client.send(b"\x01\x00\x01\x00\x00\x00\x00\x00")
    client.expect_closed(501)
    client.send(CLOSE_OK)
    assert not client.transport.is_lost
    client.edge.advance(BROKEN_WAIT_S)
    assert client.transport.is_lost


def test_who_does_not_read_the_answer_to_its_close_is_cut_off() -> None:
    client = Edge().connect()
    client.transport.is_stuck = True
    client.send(CLOSE)
    assert not client.transport.is_lost
    client.edge.advance(CLOSE_WAIT_S_MAX)
    assert client.transport.was_aborted
    assert client.transport.is_lost


def test_nothing_is_written_to_a_socket_that_is_lost() -> None:
    edge = Edge()
    lost, other = edge.connect(), edge.connect()
    other.declare()
    other.consume()
    lost.feed(encode_method(1, Queue.Delete(queue="q")))
    lost.transport.lose()
    edge.run()
    assert other.names() == ["Basic.Cancel"]
    lost.expect_nothing()


def test_a_lost_connection_leaves_nothing_behind() -> None:
    edge = Edge()
    lost, other = edge.connect(heartbeat_s=10), edge.connect()
    lost.declare("own", exclusive=True)
    other.declare("q")
    other.publish(b"1", b"2")
    lost.consume(prefetch=1)
    assert lost.bodies() == [b"1"]
    lost.transport.lose(ConnectionResetError("reset by peer"))
    edge.run()
    assert lost.connection.close_reason == "connection lost: reset by peer"
    assert list(edge.vhost.queues) == ["q"]
    assert edge.vhost.queues["q"].consumer_count == 0
    assert other.ready_count() == 2
    assert edge.scheduler.timer_count == 0


def test_what_a_lost_connection_held_needs_no_collector() -> None:
    """The collector may run much later, since it is configured to run rarely."""
    edge = Edge()
    client = edge.connect()
    client.declare(exclusive=True)
    client.publish(b"x", b"x")
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    queue = edge.vhost.queues["q"]
    flood = [encode_method(1, Queue.Declare(queue="q", exclusive=True))] * 1_000
    client.feed(*flood, publish_frames(b"begun")[:-1])
    client.transport.lose()
    edge.run()
    assert sys.getrefcount(queue) == 2, "somebody remembers the queue"
    assert not client.connection.input.events
    assert client.connection.reader._pending == []


def test_exclusive_queues_are_gone_before_close_ok() -> None:
    edge = Edge()
    owner, other = edge.connect(), edge.connect()
    owner.declare("own", exclusive=True)
    other.send(encode_method(1, make(Queue.Declare, queue="own", passive=True)))
    other.expect_channel_closed(405, "RESOURCE_LOCKED - cannot obtain exclusive access")
    owner.feed(CLOSE)
    assert owner.transport.writes[-1].endswith(encode_method(0, Connection.CloseOk()))
    assert "own" not in edge.vhost.queues


def test_a_publisher_under_an_alarm_is_read_again_when_it_is_closed() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    edge.services.alarms.set("memory", low=True)
    client.publish(b"x")
    client.expect(Connection.Blocked, channel=0)
    client.connection.fail(forced_close("shutdown"))
    edge.run()
    client.expect_closed(320, "CONNECTION_FORCED - broker forced connection closure with reason")
    assert client.transport.is_reading()
    edge.services.alarms.set("memory", low=False)
    edge.run()
    client.expect_nothing()
    client.send(CLOSE_OK)
    assert (client.transport.is_lost, client.transport.was_aborted) == (True, False)


# Heartbeats


def test_heartbeats_leave_when_nothing_else_does() -> None:
    client = Edge().connect(heartbeat_s=10)
    for _ in range(4):
        client.edge.advance(5)
        client.send(HEARTBEAT)
    client.expect_nothing()
    sent = client.heartbeat_count
    assert sent == 3, "one each half interval, but for the first, in which the handshake was"
    client.edge.advance(4)
    client.declare()
    client.edge.advance(1)
    client.expect_nothing()
    assert client.heartbeat_count == sent


def test_a_silent_client_is_given_up_without_a_word() -> None:
    client = Edge().connect(heartbeat_s=10)
    client.edge.advance(29.9)
    assert not client.transport.is_lost
    client.edge.advance(0.1)
    assert client.transport.was_aborted
    client.expect_nothing()
    assert client.connection.close_reason == "missed heartbeats from client"


def test_any_bytes_are_a_sign_of_life() -> None:
    client = Edge().connect(heartbeat_s=10)
    for octet in publish_frames(b"x")[:20]:
        client.edge.advance(9)
        client.send(bytes([octet]))
    assert not client.transport.is_lost


def test_without_heartbeats_silence_is_allowed() -> None:
    client = Edge().connect(heartbeat_s=0)
    client.edge.advance(100_000)
    client.expect_nothing()
    assert (client.transport.is_lost, client.heartbeat_count) == (False, 0)


def test_the_silence_of_a_client_that_is_not_read_does_not_count() -> None:
    edge = Edge()
    client = edge.connect(heartbeat_s=10)
    client.declare()
    edge.services.alarms.set("memory", low=True)
    client.publish(b"x")
    edge.advance(300)
    assert not client.transport.is_lost
    client.expect(Connection.Blocked, channel=0)
    client.expect_nothing()
    assert client.heartbeat_count >= 59
    edge.services.alarms.set("memory", low=False)
    edge.advance(30)
    assert client.transport.was_aborted


def test_what_one_read_brings_is_answered_by_one_write() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.consume(no_ack=True)
    client.confirm_select()
    written = len(client.transport.writes)
    client.send(
        *(publish_frames(b"x") for _ in range(20)),
        encode_method(1, Queue.Declare(queue="another")),
    )
    assert len(client.transport.writes) == written + 1
    assert client.names() == ["Queue.DeclareOk", "Basic.Ack", *["Basic.Deliver"] * 20]


# Our own mistakes


class Bug(Exception):
    """Error that no handler should raise."""


def stumble(_channel: ServerChannel, _method: Method) -> None:
    raise Bug


def test_a_bug_closes_one_connection_and_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edge = Edge()
    unlucky, other = edge.connect(), edge.connect()
    other.declare()
    unlucky.consume()
    other.publish(b"1")
    assert unlucky.bodies() == [b"1"]
    monkeypatch.setitem(HANDLERS, Queue.Purge, stumble)
    unlucky.feed(encode_method(1, Queue.Purge(queue="q")), publish_frames(b"2"))
    other.feed(publish_frames(b"3"))
    edge.run()
    unlucky.expect_closed(541, "INTERNAL_ERROR - ", ids=(50, 30))
    unlucky.expect_nothing()
    assert "a handler failed" in caplog.text
    assert "raise Bug" in caplog.text
    assert other.ready_count() == 2
    unlucky.send(CLOSE_OK)
    assert unlucky.transport.is_lost


def test_a_bug_in_delivering_closes_the_consumer_and_not_the_publisher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edge = Edge()
    publisher, unlucky, other = edge.connect(), edge.connect(), edge.connect()
    publisher.declare()
    publisher.confirm_select()
    unlucky.consume(tag="unlucky")
    other.consume(tag="other")

    def stumble_for_one(channel: int, tag: str, *names: str) -> tuple[bytes, bytes, bytes]:
        if tag == "unlucky":
            raise Bug
        return deliver_prefix(channel, tag, *names)

    monkeypatch.setattr(basic_methods, "deliver_prefix", stumble_for_one)
    publisher.publish(b"1", b"2", b"3", b"4")
    assert publisher.names() == ["Basic.Ack"]
    unlucky.expect_closed(541, "INTERNAL_ERROR - ", ids=(0, 0))
    assert sorted(other.bodies()) == [b"1", b"2", b"3", b"4"]


def test_addresses_are_named_as_rabbitmq_names_them() -> None:
    assert Edge().accept(("10.1.2.3", 7)).connection.name == "10.1.2.3:7 -> 127.0.0.1:5672"
    assert Edge().accept(("::1", 7)).connection.name == "[::1]:7 -> 127.0.0.1:5672"


@pytest.mark.parametrize("path", ["", "/run/client.sock", None])
def test_who_comes_through_a_unix_socket_is_on_this_machine(path: str | None) -> None:
    with socket(AF_UNIX) as unix:
        client = Edge().accept_from(socket=unix, peername=path)
        client.log_in(user="guest")


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_a_peer_that_is_gone_before_it_is_accepted_logs_in_from_nowhere(
    family: AddressFamily, caplog: pytest.LogCaptureFixture
) -> None:
    edge = Edge()
    with socket(family) as reset, caplog.at_level("INFO"):
        client = edge.accept_from(socket=reset, peername=None)
        assert client.transport.was_aborted
        client.send(PROTOCOL_HEADER)
    client.expect_nothing()
    assert len(edge.services.connections) == edge.scheduler.timer_count == 0
    assert client.connection.close_reason == "reset before it was accepted"
    assert caplog.messages == ["connection_closed"]


@pytest.mark.parametrize(
    ("real", "source", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "127.0.0.1", True),
        ("203.0.113.9", "127.0.0.1", False),
        ("127.0.0.1", "203.0.113.9", False),
    ],
)
def test_a_header_makes_nobody_local_who_is_not(real: str, source: str, is_local: bool) -> None:
    edge = Edge()
    connection = ServerConnection(
        edge.services, EVENT_HANDLERS, ForwardedConnection((source, 1), ("127.0.0.1", 5672))
    )
    FakeTransport(edge.scheduler, {"peername": (real, 2)}).connect(connection)
    assert connection.name.startswith(f"{source}:1 -> ")
    assert connection.is_from_loopback is is_local


def test_who_is_gone_behind_a_header_is_not_local() -> None:
    edge = Edge()
    connection = ServerConnection(
        edge.services, EVENT_HANDLERS, ForwardedConnection(("127.0.0.1", 1), ("127.0.0.1", 5672))
    )
    transport = FakeTransport(edge.scheduler, {"peername": None})
    transport.connect(connection)
    assert transport.was_aborted
    assert not connection.is_from_loopback
