"""A queue that is led elsewhere, as a client of this node sees it."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.base.errors import NotFound
from fluffle.broker.base.traffic import AMQP_091
from fluffle.broker.cluster.queue_sessions import session_client as streams
from fluffle.broker.cluster.queue_sessions.replies import on_rejected
from fluffle.broker.cluster.queues import pending_replies, session_consumers
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import QueueCounts
from fluffle.broker.queues.quorum import messages as m
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Queue,
    Tx,
    encode_method,
    make,
    pamqp_table,
)
from tests.broker.cluster.queues.session_queue_harness import (
    QueueHarness,
    get,
    get_with_headers,
)
from tests.support.edge import Client


@pytest.fixture
def harness() -> QueueHarness:
    return QueueHarness()


def publish_confirmed(client: Client) -> None:
    client.publish(b"3")
    client.expect(Basic.Ack)


def acknowledge_one(harness: QueueHarness) -> None:
    """Acknowledge a message, which its leader need not know at once."""
    got = get(harness.client)
    assert got is not None
    harness.client.ack(got[1].delivery_tag)
    assert harness.far.session.deferrable == 1


def test_what_is_published_is_delivered(harness: QueueHarness) -> None:
    harness.client.consume()
    harness.client.publish(b"1", b"2")
    assert harness.client.bodies() == [b"1", b"2"]
    assert harness.counts() == (0, 2, 1)
    harness.client.ack(2, multiple=True)
    assert harness.counts() == (0, 0, 1)


def test_confirms_come_once_it_is_committed(harness: QueueHarness) -> None:
    harness.client.confirm_select()
    harness.far.is_committing = False
    harness.client.publish(b"1", b"2")
    harness.client.expect_nothing()
    harness.far.is_committing = True
    harness.run()
    ack = harness.client.expect(Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2, True)


def test_get_empties_it_message_by_message(harness: QueueHarness) -> None:
    harness.client.publish(b"1", b"2")
    first = get(harness.client)
    assert first is not None
    assert (first[0], first[1].message_count, first[1].redelivered) == (b"1", 1, False)
    second = get(harness.client, no_ack=True)
    assert second is not None
    assert (second[0], second[1].message_count) == (b"2", 0)
    assert get(harness.client) is None
    assert harness.counts() == (0, 1, 0)
    harness.client.ack(first[1].delivery_tag)
    assert harness.counts() == (0, 0, 0)


def test_what_follows_an_acknowledgement_is_sent_with_it_at_once(harness: QueueHarness) -> None:
    """Acknowledgements alone may wait for others, and nothing waits behind them."""
    harness.client.confirm_select()
    harness.client.publish(b"1", b"2")
    harness.client.expect(Basic.Ack)
    acknowledge_one(harness)
    publish_confirmed(harness.client)
    acknowledge_one(harness)
    assert get(harness.client) is not None


def test_channels_get_at_once_and_each_gets_one(harness: QueueHarness) -> None:
    harness.client.open_channel(2)
    harness.client.publish(b"1", b"2")
    harness.client.send(
        encode_method(1, Basic.Get(queue="q")), encode_method(2, Basic.Get(queue="q"))
    )
    got = {arrival.channel: arrival.body for arrival in harness.client.arrivals()}
    assert got == {1: b"1", 2: b"2"}


def test_purge_declare_and_delete_tell_counts(harness: QueueHarness) -> None:
    harness.client.publish(b"1", b"2", b"3")
    get(harness.client)
    declared = harness.client.declare(passive=True)
    assert (declared.message_count, declared.consumer_count) == (2, 0)
    purged = harness.client.call(make(Queue.Purge, queue="q"), Queue.PurgeOk)
    assert purged.message_count == 2
    assert harness.client.declare(passive=True).message_count == 0


def test_a_purge_that_is_refused_can_be_repeated(harness: QueueHarness) -> None:
    harness.client.publish(b"1")
    harness.far.cut()
    harness.client.send(encode_method(1, Queue.Purge(queue="q")))
    refused = m.RejectedReply(harness.far.session.pending.next - 1, 1)
    harness.queue.on_events(on_rejected(harness.far.session, refused))
    harness.node.run()
    harness.client.expect_channel_closed(
        406, "queue 'q' in vhost '/' is becoming a quorum queue; purge it again"
    )
    harness.far.link()
    again = harness.node.connect()
    assert again.call(make(Queue.Purge, queue="q"), Queue.PurgeOk).message_count == 1


def test_counts_of_what_cannot_be_asked_are_0(harness: QueueHarness) -> None:
    harness.client.publish(b"1")
    harness.far.cut()
    assert harness.client.declare(passive=True).message_count == 0


def test_what_has_not_been_counted_is_not_deleted_under_a_condition() -> None:
    """Its home does not answer, and is not known to be away."""
    harness = QueueHarness(QueueType.CLASSIC)
    harness.client.publish(b"1")
    assert get(harness.client) is not None
    harness.far.cut()
    for conditions in ({"if_empty": True}, {"if_unused": True}):
        client = harness.node.connect()
        client.send(encode_method(1, make(Queue.Delete, queue="q", **conditions)))
        client.expect_channel_closed(404, "down or inaccessible")
        assert harness.node.vhost.has(harness.queue)
    harness.far.link()
    assert harness.client.declare(passive=True).message_count == 0
    harness.node.vhost.check_deletable(harness.queue, unused=True, empty=True)


def test_nobody_uses_a_queue_whose_home_is_away_but_it_may_hold_messages() -> None:
    harness = QueueHarness(QueueType.CLASSIC)
    harness.far.is_away = True
    host = harness.node.vhost
    assert harness.queue.queue_counts == QueueCounts(0, 0, 0)
    with pytest.raises(NotFound, match="down or inaccessible"):
        host.check_deletable(harness.queue, unused=False, empty=True)
    host.check_deletable(harness.queue, unused=True, empty=False)


def test_what_a_get_and_a_purge_tell_is_no_count(harness: QueueHarness) -> None:
    """Such replies do not contain the number of consumers or of held messages."""
    harness.client.publish(b"1", b"2")
    assert get(harness.client) is not None
    assert harness.queue.counts_error is not None
    harness.client.call(make(Queue.Purge, queue="q"), Queue.PurgeOk)
    assert harness.queue.counts_error is not None
    harness.client.declare(passive=True)
    assert harness.queue.counts_error is None


def test_what_is_given_back_says_how_often(harness: QueueHarness) -> None:
    harness.client.publish(b"m")
    headers: list[Any] = []
    for method in (Basic.Nack(0, True, True), Basic.Reject(2, True), Basic.Recover(True)):
        headers.append(get_with_headers(harness.client))
        harness.client.send(encode_method(1, method))
    harness.client.expect(Basic.RecoverOk)
    headers.append(get_with_headers(harness.client))
    assert headers == [
        (False, None),
        (True, {"x-acquired-count": ("l", 1)}),
        (True, {"x-acquired-count": ("l", 2), "x-delivery-count": ("l", 1)}),
        (True, {"x-acquired-count": ("l", 3), "x-delivery-count": ("l", 1)}),
    ]


def test_a_consumer_gets_no_more_than_its_prefetch(harness: QueueHarness) -> None:
    harness.client.consume(prefetch=2)
    harness.client.publish(*(b"%d" % n for n in range(5)))
    assert harness.client.bodies() == [b"0", b"1"]
    harness.client.ack(1)
    assert harness.client.bodies() == [b"2"]
    harness.client.ack(3, multiple=True)
    assert harness.client.bodies() == [b"3", b"4"]


def test_a_consumer_without_prefetch_gets_everything(harness: QueueHarness) -> None:
    count = 5 * session_consumers.WINDOW_MAX
    harness.client.consume()
    for _ in range(5):
        harness.client.publish(*[b"m"] * (count // 5))
    assert len(harness.client.bodies()) == count
    harness.client.ack(count, multiple=True)
    assert harness.counts() == (0, 0, 1)


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_client_that_does_not_read_is_sent_little(harness: QueueHarness, *, no_ack: bool) -> None:
    harness.client.consume(no_ack=no_ack)
    harness.client.transport.is_stuck = True
    content = b"m" * 100_000
    for _ in range(20):
        harness.client.publish(*[content] * 5)
    ready, unacked, _ = harness.counts()
    assert ready >= 50
    assert unacked == (0 if no_ack else 100 - ready)
    harness.client.transport.drain()
    harness.run()
    assert len(harness.client.bodies()) == 100
    assert harness.counts()[0] == 0


def test_consumers_take_turns_and_the_higher_priority_comes_first(
    harness: QueueHarness,
) -> None:
    other = harness.node.connect()
    for client, tag, priority in ((harness.client, "low", 0), (other, "high", 5)):
        arguments = pamqp_table({"x-priority": ("I", priority)})
        client.call(Basic.Qos(prefetch_count=2), Basic.QosOk)
        consume = make(Basic.Consume, queue="q", consumer_tag=tag, arguments=arguments)
        client.call(consume, Basic.ConsumeOk)
    harness.client.publish(b"1", b"2", b"3")
    assert other.bodies() == [b"1", b"2"]
    assert harness.client.bodies() == [b"3"]


def test_after_a_cancel_nothing_is_delivered_and_what_was_can_be_acked(
    harness: QueueHarness,
) -> None:
    harness.client.consume(prefetch=1)
    harness.client.publish(b"1", b"2")
    assert harness.client.bodies() == [b"1"]
    harness.client.call(make(Basic.Cancel, consumer_tag="c"), Basic.CancelOk)
    assert harness.counts() == (1, 1, 0)
    harness.client.ack(1)
    assert harness.counts() == (1, 0, 0)
    harness.client.expect_nothing()


@pytest.mark.parametrize("how", ["channel", "connection", "socket"])
def test_an_end_gives_back_what_is_in_hands_and_counts(harness: QueueHarness, how: str) -> None:
    ending = harness.node.connect()
    ending.publish(b"1", b"2", b"3")
    get(ending)
    ending.consume(prefetch=1)
    assert ending.bodies() == [b"2"]
    assert harness.counts() == (1, 2, 1)
    if how == "channel":
        ending.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    elif how == "connection":
        ending.close()
    else:
        ending.transport.lose()
    assert harness.counts() == (3, 0, 0)
    lost = [get_with_headers(harness.client) for _ in range(3)]
    counts = {"x-acquired-count": ("l", 1), "x-delivery-count": ("l", 1)}
    assert sorted(lost, key=str) == [(False, None), (True, counts), (True, counts)]


def test_a_deleted_queue_confirms_and_cancels(harness: QueueHarness) -> None:
    harness.client.confirm_select()
    harness.client.consume()
    harness.far.is_committing = False
    harness.client.publish(b"1")
    harness.delete()
    assert sorted(harness.client.names()) == ["Basic.Ack", "Basic.Cancel"]


def test_a_deleted_queue_ends_whoever_waits_for_it(harness: QueueHarness) -> None:
    waiting = harness.node.connect()
    harness.far.cut()
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    waiting.send(encode_method(1, make(Basic.Consume, queue="q")))
    harness.delete()
    for client in (harness.client, waiting):
        client.expect_channel_closed(404, "no queue 'q' in vhost '/'")


def test_without_a_leader_a_consumer_fails_in_time_and_is_not_attached_later(
    harness: QueueHarness,
) -> None:
    harness.far.cut()
    harness.client.send(encode_method(1, make(Basic.Consume, queue="q")))
    harness.node.advance(pending_replies.ANSWER_S_MAX)
    harness.client.expect_closed(541, "timed out consuming from quorum queue 'q' in vhost '/'")
    harness.far.link()
    harness.node.run()
    assert harness.counts() == (0, 0, 0)


def test_without_a_leader_messages_wait_and_are_confirmed_once(
    harness: QueueHarness,
) -> None:
    harness.client.confirm_select()
    harness.far.cut()
    harness.client.publish(b"1")
    harness.node.advance(600)
    harness.client.expect_nothing()
    harness.far.elect()
    harness.node.run()
    assert harness.client.names() == ["Basic.Ack"]
    assert harness.counts() == (1, 0, 0)


def test_publishers_stop_while_too_much_waits_and_go_on(harness: QueueHarness) -> None:
    harness.far.cut()
    body = b"m" * 1_000_000
    sent = 0
    while harness.client.transport.is_reading():
        harness.client.publish(body)
        sent += 1
    assert sent * len(body) <= streams.PENDING_BYTES_MAX + 2 * len(body)
    harness.node.advance(60)
    assert not harness.client.transport.is_reading()
    harness.far.link()
    harness.node.run()
    assert harness.client.transport.is_reading()
    assert harness.counts() == (sent, 0, 0)


def fill(harness: QueueHarness) -> int:
    """Publish to a queue without a leader until publishers are blocked; returns the number of
    operations."""
    publisher = harness.node.connect()
    harness.far.cut()
    while publisher.transport.is_reading():
        publisher.publish(b"m" * 1_000_000)
    return len(harness.far.session.pending)


def test_who_gets_purges_or_consumes_waits_while_too_much_is_pending(
    harness: QueueHarness,
) -> None:
    before = fill(harness)
    purging, consuming = harness.node.connect(), harness.node.connect()
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    purging.send(encode_method(1, Queue.Purge(queue="q")))
    consuming.send(encode_method(1, make(Basic.Consume, queue="q")))
    harness.node.advance(1)
    assert len(harness.far.session.pending) == before
    for client in (harness.client, purging, consuming):
        client.expect_nothing()
    harness.far.link()
    harness.node.run()
    assert harness.client.names()[0] == "Basic.GetOk"
    purging.expect(Queue.PurgeOk)
    consuming.expect(Basic.ConsumeOk)
    assert harness.counts() == (0, 1, 1)


def test_what_waits_like_that_is_given_up_in_time_and_never_asked(
    harness: QueueHarness,
) -> None:
    before = fill(harness)
    for _ in range(3):
        client = harness.node.connect()
        client.send(encode_method(1, Basic.Get(queue="q")))
        leaving = harness.node.connect()
        leaving.send(encode_method(1, make(Basic.Consume, queue="q")))
        leaving.transport.lose()
        harness.node.advance(pending_replies.ANSWER_S_MAX)
        client.expect_closed(541, "Cannot get a message from queue")
    assert len(harness.far.session.pending) == before
    harness.far.link()
    harness.node.run()
    assert harness.counts() == (before, 0, 0)


def test_what_waits_like_that_ends_with_the_queue(harness: QueueHarness) -> None:
    fill(harness)
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    harness.delete()
    harness.client.expect_channel_closed(404, "no queue 'q' in vhost '/'")


def test_what_a_client_holds_takes_no_room_here_nor_where_it_is_led(
    harness: QueueHarness,
) -> None:
    harness.client.consume()
    harness.client.publish(b"1", b"2")
    other = harness.node.connect()
    other.publish(b"3")
    assert harness.client.bodies() == [b"1", b"2", b"3"]
    channels = harness.client.connection.open_channels
    assert channels is not None
    channel = channels.find(1)
    assert channel is not None
    kept = [each for run in channel.unacked._runs for each in run.contents]
    (holder,) = harness.far.led.leadership.holders._held.values()
    led = [
        each for _run, delivery_batch in holder.delivery_batches for each in delivery_batch.contents
    ]
    assert kept == led == [b""] * 3
    harness.client.send(encode_method(1, Basic.Recover(requeue=True)))
    harness.client.expect(Basic.RecoverOk)
    assert sorted(harness.client.bodies()) == [b"1", b"2", b"3"]


def test_a_new_leader_changes_nothing_for_who_holds_messages(harness: QueueHarness) -> None:
    harness.client.consume(prefetch=2)
    harness.client.publish(b"1", b"2", b"3")
    assert harness.client.bodies() == [b"1", b"2"]
    harness.far.elect()
    harness.node.run()
    harness.client.expect_nothing()
    harness.client.ack(1)
    arrival = harness.client.take()
    assert (arrival.body, arrival.method["redelivered"]) == (b"3", False)
    assert harness.counts() == (0, 2, 1)


def test_acks_reach_the_next_leader_also_after_the_connection_is_gone(
    harness: QueueHarness,
) -> None:
    ending = harness.node.connect()
    harness.client.publish(b"1", b"2")
    ending.consume()
    assert ending.bodies() == [b"1", b"2"]
    harness.far.cut()
    ending.send(encode_method(1, Basic.Ack(1, False)))
    ending.transport.lose()
    harness.far.elect()
    harness.node.run()
    assert harness.counts() == (1, 0, 0)
    got = get(harness.client)
    assert got is not None
    assert got[0] == b"2"


def test_a_lost_session_cancels_and_takes_no_late_acks(harness: QueueHarness) -> None:
    harness.client.consume()
    harness.client.publish(b"1")
    assert harness.client.bodies() == [b"1"]
    harness.far.forget_node()
    harness.node.run()
    assert harness.client.names() == ["Basic.Cancel"]
    assert harness.counts() == (1, 0, 0)
    harness.client.ack(1)
    harness.client.expect_nothing()
    assert harness.counts() == (1, 0, 0)
    harness.client.consume()
    assert harness.client.bodies() == [b"1"]


def test_what_was_published_in_a_lost_session_is_nacked(harness: QueueHarness) -> None:
    harness.client.confirm_select()
    harness.client.publish(b"0")
    harness.client.arrivals()
    harness.far.cut()
    harness.client.publish(b"1")
    harness.far.forget_node()
    harness.node.run()
    assert harness.client.names() == ["Basic.Nack"]
    harness.client.publish(b"2")
    assert harness.client.names() == ["Basic.Ack"]


def test_a_transaction_is_committed_with_the_queue(harness: QueueHarness) -> None:
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.client.publish(b"1", b"2")
    harness.far.is_committing = False
    harness.client.send(encode_method(1, Tx.Commit()))
    harness.client.expect_nothing()
    harness.far.is_committing = True
    harness.run()
    harness.client.expect(Tx.CommitOk)
    assert harness.counts() == (2, 0, 0)


# What RabbitMQ refuses of quorum queues, and what it does not


def test_a_limit_that_consumers_share_is_refused_when_one_begins(
    harness: QueueHarness,
) -> None:
    other = harness.node.connect()
    harness.client.consume()
    harness.client.call(
        Basic.Qos(prefetch_count=2, global_=True), Basic.QosOk
    )  # too late to matter
    harness.client.publish(b"1", b"2", b"3")
    assert len(harness.client.bodies()) == 3
    other.call(Basic.Qos(prefetch_count=2, global_=True), Basic.QosOk)
    other.send(encode_method(1, make(Basic.Consume, queue="q")))
    other.expect_closed(540, "queue 'q' in vhost '/' does not support global qos", (60, 20))


def test_a_shared_limit_counts_nothing_of_quorum_queues(harness: QueueHarness) -> None:
    harness.client.declare("classic")
    harness.client.consume()
    harness.client.call(Basic.Qos(prefetch_count=2, global_=True), Basic.QosOk)
    harness.client.consume("classic", "d")
    harness.client.publish(b"1", b"2", b"3")
    assert len(harness.client.bodies()) == 3
    harness.client.publish(b"4", queue="classic")
    assert harness.client.bodies() == [b"4"]


def test_what_is_delivered_is_counted_by_the_type_of_its_queue(
    harness: QueueHarness,
) -> None:
    harness.client.publish(b"1", b"2")
    harness.client.consume(prefetch=1)
    assert harness.client.bodies() == [b"1"]
    harness.client.ack(1)
    harness.client.arrivals()
    assert get(harness.client) is None
    deliveries = harness.node.services.runtime.traffic.of(AMQP_091).from_quorum_queues
    counted = (deliveries.consumed_manual_ack, deliveries.acknowledged, deliveries.get_empty)
    assert counted == (2, 1, 1)
    assert harness.node.services.runtime.traffic.of(AMQP_091).from_queues.delivered == 0
