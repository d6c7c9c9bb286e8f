"""Reasons to hold a connection back: alarms, sockets that are full, consumers that are slower."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fluffle.broker.core.input_queue import (
    SECONDS_PER_MESSAGE,
    UNREAD_BYTES_MAX,
    UNREAD_WAIT_S_MAX,
)
from fluffle.broker.core.output_buffer import BURST_BYTES
from fluffle.broker.queues.engine import BEHIND_MESSAGES
from fluffle.protocol.methods import Basic, Connection, Queue, encode_method, make
from tests.support.edge import Client, Edge, publish_frames

# Resource alarms


def test_only_connections_that_publish_are_blocked() -> None:
    edge = Edge()
    publisher, consumer = edge.connect(), edge.connect()
    publisher.declare()
    consumer.consume()
    publisher.publish(b"0")
    assert consumer.bodies() == [b"0"]
    edge.services.alarms.set("memory", low=True)
    edge.services.alarms.set("disk", low=True)
    edge.run()
    publisher.expect_nothing()
    publisher.publish(b"1")
    assert publisher.expect(Connection.Blocked, channel=0).reason == "low on disk & memory"
    publisher.publish(b"2")
    assert not publisher.transport.is_reading()
    consumer.ack(1)
    consumer.declare("another")
    consumer.expect_nothing()


def test_the_last_alarm_that_ends_ends_the_block() -> None:
    edge = Edge()
    publisher, consumer = edge.connect(), edge.connect()
    publisher.declare()
    consumer.consume()
    for resource in ("memory", "disk"):
        edge.services.alarms.set(resource, low=True)
    publisher.publish(b"1")
    publisher.publish(b"2")
    assert publisher.names() == ["Connection.Blocked"]
    edge.services.alarms.set("memory", low=False)
    edge.run()
    publisher.expect_nothing()
    consumer.expect_nothing()
    edge.services.alarms.set("disk", low=False)
    edge.run()
    assert publisher.names() == ["Connection.Unblocked"]
    assert consumer.bodies() == [b"1", b"2"]
    publisher.publish(b"3")
    publisher.expect_nothing()
    assert consumer.bodies() == [b"3"]


def test_a_read_full_of_messages_is_blocked_once() -> None:
    edge = Edge()
    client = edge.connect()
    edge.services.alarms.set("memory", low=True)
    client.send(*(publish_frames(b"x", queue) for queue in ("a", "b", "c")))
    assert client.names() == ["Connection.Blocked"]


def test_what_comes_behind_a_message_waits_with_it() -> None:
    edge = Edge()
    client = edge.connect()
    client.confirm_select()
    edge.services.alarms.set("disk", low=True)
    client.send(publish_frames(b"x"), encode_method(1, Queue.Declare(queue="late")))
    assert client.names() == ["Connection.Blocked"]
    edge.services.alarms.set("disk", low=False)
    edge.run()
    assert client.names() == ["Connection.Unblocked", "Queue.DeclareOk", "Basic.Ack"]


def test_a_message_that_is_not_whole_is_blocked_as_it_starts() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    edge.services.alarms.set("memory", low=True)
    message = publish_frames(b"x" * 200)
    client.send(message[:-100])
    assert client.names() == ["Connection.Blocked"]
    assert not client.transport.is_reading()
    client.send(message[-100:])
    edge.services.alarms.set("memory", low=False)
    edge.run()
    client.expect(Connection.Unblocked, channel=0)
    assert client.ready_count() == 1


def test_a_blocked_client_that_is_lost_hears_of_no_end() -> None:
    edge = Edge()
    client = edge.connect()
    edge.services.alarms.set("memory", low=True)
    client.publish(b"1")
    client.expect(Connection.Blocked, channel=0)
    client.transport.lose()
    edge.services.alarms.set("memory", low=False)
    edge.run()
    client.expect_nothing()


def test_a_client_that_does_not_know_of_blocking_is_blocked_in_silence() -> None:
    edge = Edge()
    client = edge.connect(capabilities=())
    client.declare()
    edge.services.alarms.set("memory", low=True)
    client.publish(b"1")
    assert not client.transport.is_reading()
    edge.services.alarms.set("memory", low=False)
    edge.run()
    assert client.transport.is_reading()
    client.expect_nothing()


def test_what_does_not_publish_goes_on_under_an_alarm() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.publish(b"1", b"2")
    edge.services.alarms.set("memory", low=True)
    client.consume(prefetch=1)
    client.ack(1)
    assert client.bodies() == [b"1", b"2"]
    client.delete()


# Sockets that are full


def test_a_consumer_whose_socket_is_full_waits_and_is_woken() -> None:
    edge = Edge()
    slow, fast = edge.connect(), edge.connect()
    slow.declare()
    slow.consume(no_ack=True)
    slow.transport.is_stuck = True
    fast.publish(*([b"x" * 100_000] * 11))
    assert len(slow.bodies()) == 11
    fast.publish(b"more")
    slow.expect_nothing()
    assert fast.ready_count() == 1
    slow.transport.drain()
    edge.run()
    assert slow.bodies() == [b"more"]


def test_another_consumer_takes_what_a_full_one_cannot() -> None:
    edge = Edge()
    slow, fast = edge.connect(), edge.connect()
    slow.declare()
    slow.consume()
    slow.transport.is_stuck = True
    fast.publish(*([b"x" * 100_000] * 11))
    fast.consume()
    fast.publish(b"1", b"2")
    assert fast.bodies() == [b"1", b"2"]


def test_a_turn_hands_out_no_more_than_a_burst() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.publish(*([b"x" * 10_000] * 500))
    client.feed(encode_method(1, make(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)))
    turns: list[int] = []
    while not turns or edge.scheduler.turn():
        turns.append(sum(len(arrival.body) for arrival in client.arrivals()))
    assert sum(turns) == 5_000_000
    assert max(turns) <= 2 * BURST_BYTES
    assert len([turn for turn in turns if turn]) >= 3


def pile_up(client: Client) -> None:
    """Publish a message of a megabyte that comes back fifty times, and read nothing."""
    client.transport.is_stuck = True
    for _ in range(50):
        client.publish(b"x" * 1_000_000, queue="nowhere", mandatory=True)


def test_who_does_not_read_answers_is_not_read() -> None:
    edge = Edge()
    client = edge.connect()
    pile_up(client)
    buffered_bytes = client.transport.get_write_buffer_size()
    assert UNREAD_BYTES_MAX < buffered_bytes < UNREAD_BYTES_MAX + 2_000_000
    assert not client.transport.is_reading()
    client.transport.drain()
    edge.run()
    assert client.transport.is_reading()
    assert len(client.bodies(Basic.Return)) == 50
    edge.advance(UNREAD_WAIT_S_MAX)
    assert not client.transport.is_lost


def gets_of_a_megabyte(client: Client, count: int) -> bytes:
    """Frames of one read that ask for a message of a megabyte again and again."""
    client.declare()
    client.publish(b"x" * 1_000_000)
    get, nack = Basic.Get(queue="q"), Basic.Nack(0, True, True)
    return (encode_method(1, get) + encode_method(1, nack)) * count


def test_who_asks_for_messages_waits_until_they_are_read() -> None:
    """A short question may have a long answer, and a read holds many of them."""
    edge = Edge()
    client = edge.connect()
    sent = gets_of_a_megabyte(client, 50)
    client.transport.is_stuck = True
    client.send(sent)
    assert 1_000_000 < client.transport.get_write_buffer_size() < 5_000_000
    client.send(sent)
    assert client.transport.get_write_buffer_size() < 5_000_000
    edge.advance(UNREAD_WAIT_S_MAX)
    client.transport.drain()
    edge.run()
    assert client.transport.is_reading()
    assert len(client.bodies(Basic.GetOk)) == 100


def test_long_answers_are_cut_into_turns() -> None:
    edge = Edge()
    client, other = edge.connect(), edge.connect()
    sent = gets_of_a_megabyte(client, 20)
    sizes = [sum(map(len, client.transport.writes))]
    client.feed(sent)
    other.feed(encode_method(1, Queue.Declare(queue="other")))
    sizes.append(sum(map(len, client.transport.writes)))
    while edge.scheduler.turn():
        sizes.append(sum(map(len, client.transport.writes)))
    assert other.names() == ["Queue.DeclareOk"]
    written = [after - before for before, after in pairwise(sizes)]
    assert (len(written) >= 10, max(written) < 2_100_000) == (True, True)


@pytest.mark.parametrize("heartbeat_s", [0, 10])
def test_but_not_for_ever(heartbeat_s: int) -> None:
    """Silence while a client is not read is no silence, so heartbeats do not give it up."""
    edge = Edge()
    client = edge.connect(heartbeat_s=heartbeat_s)
    pile_up(client)
    edge.advance(UNREAD_WAIT_S_MAX - 1)
    assert not client.transport.was_aborted
    edge.advance(2)
    assert client.transport.was_aborted
    assert client.connection.close_reason == "client does not read its answers"
    assert (client.transport.is_lost, edge.scheduler.timer_count) == (True, 0)


def test_nor_when_memory_is_short() -> None:
    edge = Edge()
    client, other = edge.connect(), edge.connect()
    pile_up(client)
    edge.services.connections.relieve()
    edge.run()
    assert client.transport.was_aborted
    other.declare()


# Publishers that are faster than their consumers


def overrun(
    edge: Edge, *, heartbeat_s: int = 0, queue_count: int = 1, excess: int = 10
) -> tuple[Client, Client]:
    """A publisher in debt, and the consumer which holds one message of each queue."""
    publisher, consumer = edge.connect(heartbeat_s=heartbeat_s), edge.connect()
    publisher.declare_exchange("all")
    for number in range(queue_count):
        publisher.declare(f"q{number}")
        publisher.bind(f"q{number}", "all")
        consumer.consume(f"q{number}", f"c{number}", prefetch=1)
    publisher.publish(*([b""] * (BEHIND_MESSAGES + excess)), exchange="all")
    assert len(consumer.bodies()) == queue_count
    return publisher, consumer


def test_a_publisher_in_debt_is_read_again_as_deliveries_pay() -> None:
    edge = Edge()
    publisher, consumer = overrun(edge)
    publisher.publish(b"late", exchange="all")
    assert not publisher.transport.is_reading()
    now_s = edge.scheduler.now_s
    consumer.consume("q0", "unlimited", no_ack=True)
    assert publisher.transport.is_reading()
    rest = consumer.bodies()
    assert (len(rest), rest[-1]) == (BEHIND_MESSAGES + 10, b"late")
    assert edge.scheduler.now_s == now_s


def test_or_when_its_time_is_up() -> None:
    edge = Edge()
    publisher, _consumer = overrun(edge)
    publisher.publish(*([b""] * 100))
    assert not publisher.transport.is_reading()
    edge.advance(SECONDS_PER_MESSAGE * (BEHIND_MESSAGES + 10))
    assert publisher.transport.pause_count >= 1
    edge.advance(SECONDS_PER_MESSAGE * 100)
    assert publisher.transport.is_reading()


def test_a_backlog_without_consumers_holds_nobody() -> None:
    edge = Edge()
    publisher = edge.connect()
    publisher.declare()
    publisher.publish(*([b""] * (BEHIND_MESSAGES + 10)))
    publisher.publish(b"")
    assert publisher.transport.pause_count == 0


def test_a_connection_that_also_consumes_is_exempt() -> None:
    edge = Edge()
    both = edge.connect()
    both.declare()
    both.consume(prefetch=1)
    both.publish(*([b""] * (BEHIND_MESSAGES + 10)))
    both.publish(b"")
    assert both.transport.pause_count == 0


def test_a_debt_ends_with_its_queue() -> None:
    edge = Edge()
    publisher, consumer = overrun(edge)
    assert not publisher.transport.is_reading()
    consumer.send(encode_method(1, Queue.Delete(queue="q0")))
    assert publisher.transport.is_reading()


def test_a_debt_ends_with_its_connection() -> None:
    edge = Edge()
    publisher, _consumer = overrun(edge)
    publisher.transport.lose()
    assert edge.vhost.queues["q0"].blocked_publishers == []
    assert edge.scheduler.timer_count == 0


def test_the_silence_of_a_publisher_in_debt_does_not_count() -> None:
    edge = Edge()
    publisher, consumer = overrun(edge, heartbeat_s=1, queue_count=100, excess=4_000)
    consumer.transport.is_stuck = True
    assert not publisher.transport.is_reading()
    edge.advance(4)
    assert not publisher.transport.is_reading()
    assert not publisher.transport.is_lost
