"""What an answer vouches for, of what a client has settled at a queue that is led elsewhere."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions.session_server import CONSUMER_DISCONNECTED_MS
from fluffle.broker.cluster.queues import pending_replies
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    Queue,
    Tx,
    encode_method,
    make,
)
from tests.broker.cluster.queues.far import CAME_BACK, Rig, get


@pytest.fixture
def rig() -> Rig:
    return Rig()


def acked(rig: Rig) -> None:
    """A message is acknowledged, and nothing is committed."""
    rig.client.publish(b"1", b"2")
    assert get(rig.client) is not None
    rig.far.is_committing = False
    rig.client.ack(1)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (make(Queue.Declare, queue="q", passive=True), Queue.DeclareOk),
        (Basic.Qos(prefetch_count=1), Basic.QosOk),
        (Channel.Close(200, "", 0, 0), Channel.CloseOk),
    ],
)
def test_an_answer_waits_until_what_was_acked_is_committed(
    rig: Rig, method: Method, answer: type[Method]
) -> None:
    acked(rig)
    rig.client.send(encode_method(1, method))
    rig.client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    rig.client.expect(answer)
    rig.far.elect()
    assert rig.counts() == (1, 0, 0)


def test_the_end_of_a_connection_waits_for_what_was_acked_on_its_channels(rig: Rig) -> None:
    rig.client.open_channel(2)
    acked(rig)
    rig.client.send(encode_method(0, Connection.Close(200, "", 0, 0)))
    rig.client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    rig.client.expect(Connection.CloseOk, 0)
    rig.far.elect()
    assert rig.counts() == (1, 0, 0)


def test_what_is_acked_waits_for_nothing_that_was_acked_before(rig: Rig) -> None:
    acked(rig)
    rig.client.send(encode_method(1, Basic.Nack(2, False, True)))
    rig.client.expect_channel_closed(406, "unknown delivery tag 2")


def test_a_get_waits_where_it_is_answered(rig: Rig) -> None:
    acked(rig)
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    rig.client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    assert rig.client.take().body == b"2"


def test_a_commit_of_a_transaction_vouches_for_what_it_settles(rig: Rig) -> None:
    rig.client.publish(b"m")
    rig.client.call(Tx.Select(), Tx.SelectOk)
    assert get(rig.client) is not None
    rig.far.is_committing = False
    rig.client.send(encode_method(1, Basic.Ack(1, False)), encode_method(1, Tx.Commit()))
    rig.client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    rig.client.expect(Tx.CommitOk)


def test_nothing_is_vouched_for_without_a_leader(rig: Rig) -> None:
    acked(rig)
    rig.far.cut()
    rig.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    rig.node.advance(pending_replies.ANSWER_S_MAX)
    rig.client.expect_closed(541, "settling messages of quorum queue 'q' in vhost '/'")


def test_nothing_is_vouched_for_in_a_session_that_is_lost(rig: Rig) -> None:
    acked(rig)
    rig.far.cut()
    rig.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    rig.far.elect()  # without what was not committed
    rig.far.cut()
    rig.far.is_committing = True
    rig.far.forget_node()
    rig.node.run()
    rig.client.expect_channel_closed(406, CAME_BACK)


def lost(rig: Rig) -> None:
    """A client acknowledges what it has got, nobody hears of it, and it comes back."""
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.far.cut()
    rig.client.ack(1)
    rig.far.forget_node()
    rig.node.run()
    rig.client.expect_nothing()
    assert rig.counts() == (1, 0, 0)


ENDS = [
    (1, make(Queue.Declare, queue="q", passive=True), Queue.DeclareOk),
    (1, Basic.Get(queue="q"), Basic.GetOk),
    (1, Channel.Close(200, "", 0, 0), Channel.CloseOk),
    (0, Connection.Close(200, "", 0, 0), Connection.CloseOk),
]


@pytest.mark.parametrize(("channel", "method", "_answer"), ENDS)
def test_nothing_is_vouched_for_that_came_back(
    rig: Rig, channel: int, method: Method, _answer: type[Method]
) -> None:
    lost(rig)
    rig.client.send(encode_method(channel, method))
    if channel:
        rig.client.expect_channel_closed(406, CAME_BACK)
    else:
        rig.client.expect_closed(406, CAME_BACK)


@pytest.mark.parametrize(("channel", "method", "answer"), ENDS)
def test_what_came_back_before_is_acknowledged_in_vain(
    rig: Rig, channel: int, method: Method, answer: type[Method]
) -> None:
    """RabbitMQ says nothing of that either (rule 15)."""
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.far.forget_node()
    rig.node.run()
    rig.client.ack(1)
    assert rig.counts() == (1, 0, 0)
    rig.client.send(encode_method(channel, method))
    rig.client.expect(answer, channel)


def test_a_transaction_of_what_came_back_before_is_committed(rig: Rig) -> None:
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.client.call(Tx.Select(), Tx.SelectOk)
    rig.far.forget_node()
    rig.node.run()
    rig.client.send(encode_method(1, Basic.Ack(1, False)), encode_method(1, Tx.Commit()))
    rig.client.expect(Tx.CommitOk)
    assert rig.counts() == (1, 0, 0)


def test_what_came_back_is_told_to_whoever_settled_it(rig: Rig) -> None:
    rig.client.open_channel(2)
    lost(rig)
    rig.client.send(encode_method(2, Basic.Qos(prefetch_count=1)))
    rig.client.expect(Basic.QosOk, 2)


def test_who_gives_back_what_came_back_has_what_it_wants(rig: Rig) -> None:
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.far.forget_node()
    rig.node.run()
    rig.client.send(encode_method(1, Basic.Nack(1, False, True)))
    rig.client.call(Basic.Qos(prefetch_count=1), Basic.QosOk)


def test_what_the_leader_took_back_is_not_vouched_for(rig: Rig) -> None:
    """It had not heard of the node for too long, when the acknowledgement arrived."""
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.far.cut()
    rig.client.ack(1)
    rig.far.led.sessions.tick(CONSUMER_DISCONNECTED_MS)
    rig.far.link()
    rig.node.run()
    assert rig.counts() == (1, 0, 0)
    rig.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    rig.client.expect_channel_closed(406, CAME_BACK)


def test_what_nobody_knows_of_a_get_or_a_purge_is_said(rig: Rig) -> None:
    purging = rig.node.connect()
    rig.client.publish(b"1")
    rig.far.cut()
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    purging.send(encode_method(1, Queue.Purge(queue="q")))
    rig.far.forget_node()
    rig.node.run()
    rig.client.expect_closed(541, "Cannot get a message from queue")
    purging.expect_closed(541, "purging quorum queue 'q' in vhost '/'")
    assert rig.counts() == (1, 0, 0)


def test_a_queue_that_is_deleted_has_settled_everything(rig: Rig) -> None:
    acked(rig)
    rig.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    rig.delete()
    rig.client.expect(Basic.QosOk)
