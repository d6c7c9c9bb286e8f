"""What sockets make hard to test of a connection: ends, timers, holding back, fairness, bugs."""

from __future__ import annotations

from fluffle.broker.server.connection import CLOSE_WAIT_S_MAX
from fluffle.broker.server.lifecycle import forced
from fluffle.protocol.methods import Basic, Connection, Queue, encode_method, make
from tests.support.edge import Client, Edge, publish_frames

CLOSE = encode_method(0, Connection.Close(200, "bye", 0, 0))
CLOSE_OK = encode_method(0, Connection.CloseOk())


def break_off(client: Client) -> None:
    """Let the broker close the connection of `client`, who does not answer yet."""
    client.send(encode_method(1, Basic.Recover(False)))
    client.expect_closed(540, "NOT_IMPLEMENTED - requeue=false", ids=(60, 110))


# Ends


def test_a_client_that_closes_hears_close_ok_and_the_socket_goes() -> None:
    edge = Edge()
    client = edge.connect()
    client.close()
    assert (client.transport.is_lost, client.transport.was_aborted) == (True, False)
    assert client.connection.close_reason == "closed by client: 200 bye"
    assert len(edge.services.connections) == 0
    assert edge.scheduler.timer_count == 0


def test_nothing_is_answered_after_a_close() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.confirm_select()
    client.feed(publish_frames(b"x", "nowhere", mandatory=True), CLOSE, publish_frames(b"x"))
    edge.run()
    assert client.names() == ["Basic.Return", "Connection.CloseOk"]
    assert edge.vhost.queues["q"].ready_count == 0


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
    lost.feed(encode_method(1, Queue.Declare(queue="a")))
    other.feed(encode_method(1, Queue.Declare(queue="b")))
    lost.transport.lose()
    edge.run()
    assert other.names() == ["Queue.DeclareOk"]


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
    client.connection.fail(forced("shutdown"))
    edge.run()
    client.expect_closed(320, "CONNECTION_FORCED - broker forced connection closure with reason")
    assert client.transport.is_reading()
    edge.services.alarms.set("memory", low=False)
    edge.run()
    client.expect_nothing()
    client.send(CLOSE_OK)
    assert (client.transport.is_lost, client.transport.was_aborted) == (True, False)
