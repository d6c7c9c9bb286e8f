"""Replies that vouch for a client's settlements at a queue that is led elsewhere."""

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
from tests.broker.cluster.queues.session_queue_harness import CAME_BACK, QueueHarness, get


@pytest.fixture
def harness() -> QueueHarness:
    return QueueHarness()


def acked(harness: QueueHarness) -> None:
    """A message is acknowledged, and nothing is committed."""
    harness.client.publish(b"1", b"2")
    assert get(harness.client) is not None
    harness.far.is_committing = False
    harness.client.ack(1)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (make(Queue.Declare, queue="q", passive=True), Queue.DeclareOk),
        (Basic.Qos(prefetch_count=1), Basic.QosOk),
        (Channel.Close(200, "", 0, 0), Channel.CloseOk),
    ],
)
def test_an_answer_waits_until_what_was_acked_is_committed(
    harness: QueueHarness, method: Method, answer: type[Method]
) -> None:
    acked(harness)
    harness.client.send(encode_method(1, method))
    harness.client.expect_nothing()
    harness.far.is_committing = True
    harness.run()
    harness.client.expect(answer)
    harness.far.elect()
    assert harness.counts() == (1, 0, 0)


def test_the_end_of_a_connection_waits_for_what_was_acked_on_its_channels(
    harness: QueueHarness,
) -> None:
    harness.client.open_channel(2)
    acked(harness)
    harness.client.send(encode_method(0, Connection.Close(200, "", 0, 0)))
    harness.client.expect_nothing()
    harness.far.is_committing = True
    harness.run()
    harness.client.expect(Connection.CloseOk, 0)
    harness.far.elect()
    assert harness.counts() == (1, 0, 0)


def test_what_is_acked_waits_for_nothing_that_was_acked_before(
    harness: QueueHarness,
) -> None:
    acked(harness)
    harness.client.send(encode_method(1, Basic.Nack(2, False, True)))
    harness.client.expect_channel_closed(406, "unknown delivery tag 2")


def test_a_get_waits_where_it_is_answered(harness: QueueHarness) -> None:
    acked(harness)
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    harness.client.expect_nothing()
    harness.far.is_committing = True
    harness.run()
    assert harness.client.take().body == b"2"


def test_a_commit_of_a_transaction_vouches_for_what_it_settles(
    harness: QueueHarness,
) -> None:
    harness.client.publish(b"m")
    harness.client.call(Tx.Select(), Tx.SelectOk)
    assert get(harness.client) is not None
    harness.far.is_committing = False
    harness.client.send(encode_method(1, Basic.Ack(1, False)), encode_method(1, Tx.Commit()))
    harness.client.expect_nothing()
    harness.far.is_committing = True
    harness.run()
    harness.client.expect(Tx.CommitOk)


def test_nothing_is_vouched_for_without_a_leader(harness: QueueHarness) -> None:
    acked(harness)
    harness.far.cut()
    harness.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    harness.node.advance(pending_replies.ANSWER_S_MAX)
    harness.client.expect_closed(541, "settling messages of quorum queue 'q' in vhost '/'")


def test_nothing_is_vouched_for_in_a_session_that_is_lost(harness: QueueHarness) -> None:
    acked(harness)
    harness.far.cut()
    harness.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    harness.far.elect()  # without what was not committed
    harness.far.cut()
    harness.far.is_committing = True
    harness.far.forget_node()
    harness.node.run()
    harness.client.expect_channel_closed(406, CAME_BACK)


def lost(harness: QueueHarness) -> None:
    """A client acknowledges what it has got, nobody hears of it, and it comes back."""
    harness.client.publish(b"1")
    assert get(harness.client) is not None
    harness.far.cut()
    harness.client.ack(1)
    harness.far.forget_node()
    harness.node.run()
    harness.client.expect_nothing()
    assert harness.counts() == (1, 0, 0)


ENDS = [
    (1, make(Queue.Declare, queue="q", passive=True), Queue.DeclareOk),
    (1, Basic.Get(queue="q"), Basic.GetOk),
    (1, Channel.Close(200, "", 0, 0), Channel.CloseOk),
    (0, Connection.Close(200, "", 0, 0), Connection.CloseOk),
]


@pytest.mark.parametrize(("channel", "method", "_answer"), ENDS)
def test_nothing_is_vouched_for_that_came_back(
    harness: QueueHarness, channel: int, method: Method, _answer: type[Method]
) -> None:
    lost(harness)
    harness.client.send(encode_method(channel, method))
    if channel:
        harness.client.expect_channel_closed(406, CAME_BACK)
    else:
        harness.client.expect_closed(406, CAME_BACK)


@pytest.mark.parametrize(("channel", "method", "answer"), ENDS)
def test_what_came_back_before_is_acknowledged_in_vain(
    harness: QueueHarness, channel: int, method: Method, answer: type[Method]
) -> None:
    """RabbitMQ says nothing of that either (rule 15)."""
    harness.client.publish(b"1")
    assert get(harness.client) is not None
    harness.far.forget_node()
    harness.node.run()
    harness.client.ack(1)
    assert harness.counts() == (1, 0, 0)
    harness.client.send(encode_method(channel, method))
    harness.client.expect(answer, channel)


def test_a_transaction_of_what_came_back_before_is_committed(harness: QueueHarness) -> None:
    harness.client.publish(b"1")
    assert get(harness.client) is not None
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.far.forget_node()
    harness.node.run()
    harness.client.send(encode_method(1, Basic.Ack(1, False)), encode_method(1, Tx.Commit()))
    harness.client.expect(Tx.CommitOk)
    assert harness.counts() == (1, 0, 0)


def test_what_came_back_is_reported_to_whoever_settled_it(harness: QueueHarness) -> None:
    harness.client.open_channel(2)
    lost(harness)
    harness.client.send(encode_method(2, Basic.Qos(prefetch_count=1)))
    harness.client.expect(Basic.QosOk, 2)


def test_who_gives_back_what_came_back_has_what_it_wants(harness: QueueHarness) -> None:
    harness.client.publish(b"1")
    assert get(harness.client) is not None
    harness.far.forget_node()
    harness.node.run()
    harness.client.send(encode_method(1, Basic.Nack(1, False, True)))
    harness.client.call(Basic.Qos(prefetch_count=1), Basic.QosOk)


def test_what_the_leader_took_back_is_not_vouched_for(harness: QueueHarness) -> None:
    """The node was silent for too long when the acknowledgement arrived."""
    harness.client.publish(b"1")
    assert get(harness.client) is not None
    harness.far.cut()
    harness.client.ack(1)
    harness.far.led.sessions.tick(CONSUMER_DISCONNECTED_MS)
    harness.far.link()
    harness.node.run()
    assert harness.counts() == (1, 0, 0)
    harness.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    harness.client.expect_channel_closed(406, CAME_BACK)


def test_what_nobody_knows_of_a_get_or_a_purge_is_said(harness: QueueHarness) -> None:
    purging = harness.node.connect()
    harness.client.publish(b"1")
    harness.far.cut()
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    purging.send(encode_method(1, Queue.Purge(queue="q")))
    harness.far.forget_node()
    harness.node.run()
    harness.client.expect_closed(541, "Cannot get a message from queue")
    purging.expect_closed(541, "purging quorum queue 'q' in vhost '/'")
    assert harness.counts() == (1, 0, 0)


def test_a_queue_that_is_deleted_has_settled_everything(harness: QueueHarness) -> None:
    acked(harness)
    harness.client.send(encode_method(1, Basic.Qos(prefetch_count=1)))
    harness.delete()
    harness.client.expect(Basic.QosOk)
