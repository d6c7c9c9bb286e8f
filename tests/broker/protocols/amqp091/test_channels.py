"""Channels of one connection: opening, closing from both sides, and what is ignored between."""

import pytest

from fluffle.broker.config.config import Limits
from fluffle.broker.protocols.amqp091.connection import LATE_EVENTS_MAX
from fluffle.protocol.methods import Basic, Channel, Connection, Method, Queue, encode_method, make
from tests.support.edge import Edge, publish_frames

MISSING = encode_method(1, make(Queue.Declare, queue="missing", passive=True))
"""A method that closes channel 1 with 404."""


def test_each_channel_has_its_number_and_its_answers() -> None:
    client = Edge().connect()
    client.open_channel(65_535)
    client.open_channel(7)
    for number in (7, 1, 65_535):
        client.declare(f"q{number}", channel=number)


def test_a_second_open_closes_the_connection() -> None:
    client = Edge().connect()
    client.send(encode_method(1, Channel.Open()))
    client.expect_closed(504, "CHANNEL_ERROR - second 'channel.open' seen", ids=(20, 10))


@pytest.mark.parametrize(
    ("sent", "ids"),
    [
        (encode_method(5, Queue.Declare(queue="q")), (50, 10)),
        (encode_method(5, Channel.Close(200, "", 0, 0)), (20, 40)),
        (encode_method(5, Channel.CloseOk()), (20, 41)),
        (encode_method(5, Basic.Ack(1)), (60, 80)),
        (publish_frames(b"x", channel=5), (60, 40)),
        (publish_frames(b"not whole", channel=5)[:-5], (60, 40)),
    ],
)
def test_a_channel_that_is_not_open_takes_only_open(sent: bytes, ids: tuple[int, int]) -> None:
    client = Edge().connect()
    client.send(sent)
    client.expect_closed(504, "CHANNEL_ERROR - expected 'channel.open'", ids=ids)


def test_the_limit_counts_channels_and_not_their_numbers() -> None:
    client = Edge().connect(channels_max=2)
    client.open_channel(900)
    client.send(encode_method(2, Channel.Open()))
    client.expect_closed(
        530,
        "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)",
    )


def test_a_node_without_a_limit_lets_a_client_do_without() -> None:
    client = Edge(Limits(channels_max=0)).connect(channels_max=0)
    for number in range(2, 3_000, 100):
        client.open_channel(number)


CLOSE = encode_method(1, make(Channel.Close, 200, "bye", 0, 0))
DECLARE = encode_method(1, make(Queue.Declare, queue="late"))
LATE = publish_frames(b"x") * 3 + encode_method(1, Basic.Ack(1)) + DECLARE
"""Frames that a client may have sent behind its close of channel 1."""


def test_what_is_sent_behind_a_close_is_dropped() -> None:
    client = Edge().connect()
    client.declare()
    client.send(CLOSE + LATE)
    assert client.names() == ["Channel.CloseOk"]
    client.open_channel()
    assert client.ready_count() == 0
    assert list(client.edge.vhost.queues) == ["q"]


def test_so_is_what_is_on_its_way_then() -> None:
    """Each part of it reaches into the next read, or that has more of it."""
    client = Edge().connect()
    client.send(CLOSE + LATE[:-30])
    client.send(LATE[-30:] + LATE)
    client.send(LATE)
    assert client.names() == ["Channel.CloseOk"]


def test_what_comes_later_on_a_channel_that_was_closed_is_an_error() -> None:
    for before in ((CLOSE,), (CLOSE + LATE, encode_method(2, make(Queue.Declare, queue="q")))):
        client = Edge().connect()
        client.open_channel(2)
        for data in before:
            client.send(data)
        client.expect(Channel.CloseOk)
        client.names()
        client.send(DECLARE)
        client.expect_closed(504, "CHANNEL_ERROR - expected 'channel.open'", ids=(50, 10))


def test_a_close_that_comes_twice_is_answered_twice() -> None:
    client = Edge().connect()
    client.send(CLOSE + CLOSE)
    assert client.names() == ["Channel.CloseOk"] * 2


def test_nobody_may_go_on_for_ever_on_a_channel_that_was_closed() -> None:
    client = Edge().connect()
    client.send(CLOSE + DECLARE * (LATE_EVENTS_MAX + 1))
    client.expect(Channel.CloseOk)
    client.expect_closed(504, "CHANNEL_ERROR - expected 'channel.open'", ids=(50, 10))


def test_a_closed_number_can_be_opened_again() -> None:
    client = Edge().connect()
    client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    client.open_channel()
    client.declare()


def test_closing_and_opening_again_in_one_read_keeps_the_message_behind() -> None:
    client = Edge().connect()
    client.declare()
    message = publish_frames(b"x" * 100)
    close = encode_method(1, Channel.Close(200, "", 0, 0))
    client.send(close, encode_method(1, Channel.Open()), message[:70])
    client.send(message[70:])
    assert client.names() == ["Channel.CloseOk", "Channel.OpenOk"]
    assert client.ready_count() == 1


def test_a_soft_error_closes_its_channel_only() -> None:
    client = Edge().connect()
    client.open_channel(2)
    client.send(MISSING)
    close = client.expect_channel_closed(404, "NOT_FOUND - no queue 'missing' in vhost '/'")
    assert (close.class_id, close.method_id) == (50, 10)
    client.declare(channel=2)


IGNORED: list[Method] = [Queue.Declare(queue="q"), Basic.Ack(9), Basic.Get(queue="q")]


def test_a_channel_that_we_closed_hears_only_closes() -> None:
    client = Edge().connect()
    client.send(MISSING)
    client.expect_channel_closed(404)
    client.send(publish_frames(b"x"), *(encode_method(1, method) for method in IGNORED))
    client.expect_nothing()
    client.send(encode_method(1, Channel.CloseOk()))
    client.open_channel()


def test_closes_that_cross_are_both_answered() -> None:
    client = Edge().connect()
    client.send(MISSING, encode_method(1, Channel.Close(200, "", 0, 0)))
    assert client.names() == ["Channel.Close", "Channel.CloseOk"]
    client.send(encode_method(1, Channel.CloseOk()))
    client.open_channel()


def test_a_number_is_free_once_our_close_is_answered_and_not_before() -> None:
    client = Edge().connect()
    client.send(MISSING, encode_method(1, Channel.Open()))
    client.expect_channel_closed(404)
    client.expect_closed(504, "CHANNEL_ERROR - second 'channel.open' seen")


def test_nothing_behind_an_error_counts() -> None:
    client = Edge().connect()
    client.declare()
    client.send(publish_frames(b"before"), MISSING, publish_frames(b"behind"), MISSING)
    client.expect_channel_closed(404)
    client.expect_nothing()
    client.open_channel(2)
    assert client.ready_count(channel=2) == 1


@pytest.mark.parametrize("cut", [1, 20, 45, 60, 75, 120])
def test_a_message_of_which_half_was_read_at_an_error_is_ignored_whole(cut: int) -> None:
    client = Edge().connect()
    client.declare()
    message = publish_frames(b"x" * 100)
    client.send(MISSING, message[:cut])
    client.send(message[cut:], publish_frames(b"another"))
    client.expect_channel_closed(404)
    client.expect_nothing()
    client.send(encode_method(1, Channel.CloseOk()))
    client.open_channel()
    assert client.ready_count() == 0


def test_an_unexpected_close_ok_is_refused() -> None:
    client = Edge().connect()
    client.send(encode_method(1, Channel.CloseOk()))
    client.expect_closed(503, ids=(20, 41))


def test_methods_of_the_connection_on_a_channel_are_refused() -> None:
    client = Edge().connect()
    client.send(encode_method(1, Connection.Close(200, "", 0, 0)))
    client.expect_closed(503, "COMMAND_INVALID - unimplemented method", ids=(10, 50))


def test_what_is_unacknowledged_goes_back_when_its_channel_closes() -> None:
    client = Edge().connect()
    client.open_channel(2)
    client.declare()
    client.publish(b"1", b"2", b"3")
    client.consume(prefetch=2)
    assert client.bodies() == [b"1", b"2"]
    client.ack(1)
    assert client.bodies() == [b"3"]
    client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    client.consume(channel=2)
    again = client.arrivals()
    assert [(a.body, a.method["redelivered"]) for a in again] == [(b"2", True), (b"3", True)]


def test_what_is_unacknowledged_goes_back_when_we_close_the_channel() -> None:
    client = Edge().connect()
    client.open_channel(2)
    client.declare()
    client.publish(b"1", b"2")
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    client.ack(9)
    client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 9")
    assert client.ready_count(channel=2) == 2


def test_flow_cannot_be_turned_off() -> None:
    client = Edge().connect()
    assert client.call(Channel.Flow(True), Channel.FlowOk).active is True
    client.send(encode_method(1, Channel.Flow(False)))
    client.expect_closed(540, "NOT_IMPLEMENTED - active=false", ids=(20, 20))
