"""A queue that is led elsewhere, as a client of this node sees it."""

from __future__ import annotations

from typing import Any

import pytest

from fluffle.broker.base.errors import NotFound
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions import session_client as streams
from fluffle.broker.cluster.queue_sessions.replies import on_not_taken
from fluffle.broker.cluster.queues import pending_replies, remote_consumers
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import QueueCounts
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Queue,
    Tx,
    encode_method,
    make,
    pamqp_table,
)
from tests.broker.cluster.queues.far import Rig, get, get_with_headers


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_is_published_is_delivered(rig: Rig) -> None:
    rig.client.consume()
    rig.client.publish(b"1", b"2")
    assert rig.client.bodies() == [b"1", b"2"]
    assert rig.counts() == (0, 2, 1)
    rig.client.ack(2, multiple=True)
    assert rig.counts() == (0, 0, 1)


def test_confirms_come_once_it_is_committed(rig: Rig) -> None:
    rig.client.confirm_select()
    rig.far.is_committing = False
    rig.client.publish(b"1", b"2")
    rig.client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    ack = rig.client.expect(Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2, True)


def test_get_empties_it_message_by_message(rig: Rig) -> None:
    rig.client.publish(b"1", b"2")
    first = get(rig.client)
    assert first is not None
    assert (first[0], first[1].message_count, first[1].redelivered) == (b"1", 1, False)
    second = get(rig.client, no_ack=True)
    assert second is not None
    assert (second[0], second[1].message_count) == (b"2", 0)
    assert get(rig.client) is None
    assert rig.counts() == (0, 1, 0)
    rig.client.ack(first[1].delivery_tag)
    assert rig.counts() == (0, 0, 0)


def test_channels_get_at_once_and_each_gets_one(rig: Rig) -> None:
    rig.client.open_channel(2)
    rig.client.publish(b"1", b"2")
    rig.client.send(encode_method(1, Basic.Get(queue="q")), encode_method(2, Basic.Get(queue="q")))
    got = {arrival.channel: arrival.body for arrival in rig.client.arrivals()}
    assert got == {1: b"1", 2: b"2"}


def test_purge_declare_and_delete_tell_counts(rig: Rig) -> None:
    rig.client.publish(b"1", b"2", b"3")
    get(rig.client)
    declared = rig.client.declare(passive=True)
    assert (declared.message_count, declared.consumer_count) == (2, 0)
    purged = rig.client.call(make(Queue.Purge, queue="q"), Queue.PurgeOk)
    assert purged.message_count == 2
    assert rig.client.declare(passive=True).message_count == 0


def test_a_purge_that_is_refused_can_be_repeated(rig: Rig) -> None:
    rig.client.publish(b"1")
    rig.far.cut()
    rig.client.send(encode_method(1, Queue.Purge(queue="q")))
    refused = m.Rejected(rig.far.edge.pending.next - 1, 1)
    rig.queue.hear(on_not_taken(rig.far.edge, refused))
    rig.node.run()
    rig.client.expect_channel_closed(
        406, "queue 'q' in vhost '/' is becoming a quorum queue; purge it again"
    )
    rig.far.link()
    again = rig.node.connect()
    assert again.call(make(Queue.Purge, queue="q"), Queue.PurgeOk).message_count == 1


def test_counts_of_what_cannot_be_asked_are_0(rig: Rig) -> None:
    rig.client.publish(b"1")
    rig.far.cut()
    assert rig.client.declare(passive=True).message_count == 0


def test_what_has_not_been_counted_is_not_deleted_under_a_condition() -> None:
    """Its home does not answer, and is not known to be away."""
    rig = Rig(QueueType.CLASSIC)
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.far.cut()
    for conditions in ({"if_empty": True}, {"if_unused": True}):
        client = rig.node.connect()
        client.send(encode_method(1, make(Queue.Delete, queue="q", **conditions)))
        client.expect_channel_closed(404, "down or inaccessible")
        assert rig.node.vhost.has(rig.queue)
    rig.far.link()
    assert rig.client.declare(passive=True).message_count == 0
    rig.node.vhost.check_deletable(rig.queue, unused=True, empty=True)


def test_nobody_uses_a_queue_whose_home_is_away_but_it_may_hold_messages() -> None:
    rig = Rig(QueueType.CLASSIC)
    rig.far.is_away = True
    host = rig.node.vhost
    assert rig.queue.queue_counts == QueueCounts(0, 0, 0)
    with pytest.raises(NotFound, match="down or inaccessible"):
        host.check_deletable(rig.queue, unused=False, empty=True)
    host.check_deletable(rig.queue, unused=True, empty=False)


def test_what_a_get_and_a_purge_tell_is_no_count(rig: Rig) -> None:
    """They say nothing of consumers, and of messages in hands."""
    rig.client.publish(b"1", b"2")
    assert get(rig.client) is not None
    assert rig.queue.counts_error is not None
    rig.client.call(make(Queue.Purge, queue="q"), Queue.PurgeOk)
    assert rig.queue.counts_error is not None
    rig.client.declare(passive=True)
    assert rig.queue.counts_error is None


def test_what_is_given_back_says_how_often(rig: Rig) -> None:
    rig.client.publish(b"m")
    headers: list[Any] = []
    for method in (Basic.Nack(0, True, True), Basic.Reject(2, True), Basic.Recover(True)):
        headers.append(get_with_headers(rig.client))
        rig.client.send(encode_method(1, method))
    rig.client.expect(Basic.RecoverOk)
    headers.append(get_with_headers(rig.client))
    assert headers == [
        (False, None),
        (True, {"x-acquired-count": ("l", 1)}),
        (True, {"x-acquired-count": ("l", 2), "x-delivery-count": ("l", 1)}),
        (True, {"x-acquired-count": ("l", 3), "x-delivery-count": ("l", 1)}),
    ]


def test_a_consumer_gets_no_more_than_its_prefetch(rig: Rig) -> None:
    rig.client.consume(prefetch=2)
    rig.client.publish(*(b"%d" % n for n in range(5)))
    assert rig.client.bodies() == [b"0", b"1"]
    rig.client.ack(1)
    assert rig.client.bodies() == [b"2"]
    rig.client.ack(3, multiple=True)
    assert rig.client.bodies() == [b"3", b"4"]


def test_a_consumer_without_prefetch_gets_everything(rig: Rig) -> None:
    count = 5 * remote_consumers.WINDOW_MAX
    rig.client.consume()
    for _ in range(5):
        rig.client.publish(*[b"m"] * (count // 5))
    assert len(rig.client.bodies()) == count
    rig.client.ack(count, multiple=True)
    assert rig.counts() == (0, 0, 1)


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_client_that_does_not_read_is_sent_little(rig: Rig, *, no_ack: bool) -> None:
    rig.client.consume(no_ack=no_ack)
    rig.client.transport.is_stuck = True
    content = b"m" * 100_000
    for _ in range(20):
        rig.client.publish(*[content] * 5)
    ready, unacked, _ = rig.counts()
    assert ready >= 50
    assert unacked == (0 if no_ack else 100 - ready)
    rig.client.transport.drain()
    rig.run()
    assert len(rig.client.bodies()) == 100
    assert rig.counts()[0] == 0


def test_consumers_take_turns_and_the_higher_priority_comes_first(rig: Rig) -> None:
    other = rig.node.connect()
    for client, tag, priority in ((rig.client, "low", 0), (other, "high", 5)):
        arguments = pamqp_table({"x-priority": ("I", priority)})
        client.call(Basic.Qos(prefetch_count=2), Basic.QosOk)
        consume = make(Basic.Consume, queue="q", consumer_tag=tag, arguments=arguments)
        client.call(consume, Basic.ConsumeOk)
    rig.client.publish(b"1", b"2", b"3")
    assert other.bodies() == [b"1", b"2"]
    assert rig.client.bodies() == [b"3"]


def test_after_a_cancel_nothing_is_delivered_and_what_was_can_be_acked(rig: Rig) -> None:
    rig.client.consume(prefetch=1)
    rig.client.publish(b"1", b"2")
    assert rig.client.bodies() == [b"1"]
    rig.client.call(make(Basic.Cancel, consumer_tag="c"), Basic.CancelOk)
    assert rig.counts() == (1, 1, 0)
    rig.client.ack(1)
    assert rig.counts() == (1, 0, 0)
    rig.client.expect_nothing()


@pytest.mark.parametrize("how", ["channel", "connection", "socket"])
def test_an_end_gives_back_what_is_in_hands_and_counts(rig: Rig, how: str) -> None:
    ending = rig.node.connect()
    ending.publish(b"1", b"2", b"3")
    get(ending)
    ending.consume(prefetch=1)
    assert ending.bodies() == [b"2"]
    assert rig.counts() == (1, 2, 1)
    if how == "channel":
        ending.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    elif how == "connection":
        ending.close()
    else:
        ending.transport.lose()
    assert rig.counts() == (3, 0, 0)
    lost = [get_with_headers(rig.client) for _ in range(3)]
    counts = {"x-acquired-count": ("l", 1), "x-delivery-count": ("l", 1)}
    assert sorted(lost, key=str) == [(False, None), (True, counts), (True, counts)]


def test_a_deleted_queue_confirms_and_cancels(rig: Rig) -> None:
    rig.client.confirm_select()
    rig.client.consume()
    rig.far.is_committing = False
    rig.client.publish(b"1")
    rig.delete()
    assert sorted(rig.client.names()) == ["Basic.Ack", "Basic.Cancel"]


def test_a_deleted_queue_ends_whoever_waits_for_it(rig: Rig) -> None:
    waiting = rig.node.connect()
    rig.far.cut()
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    waiting.send(encode_method(1, make(Basic.Consume, queue="q")))
    rig.delete()
    for client in (rig.client, waiting):
        client.expect_channel_closed(404, "no queue 'q' in vhost '/'")


def test_without_a_leader_a_consumer_fails_in_time_and_is_not_attached_later(rig: Rig) -> None:
    rig.far.cut()
    rig.client.send(encode_method(1, make(Basic.Consume, queue="q")))
    rig.node.advance(pending_replies.ANSWER_S_MAX)
    rig.client.expect_closed(541, "timed out consuming from quorum queue 'q' in vhost '/'")
    rig.far.link()
    rig.node.run()
    assert rig.counts() == (0, 0, 0)


def test_without_a_leader_messages_wait_and_are_confirmed_once(rig: Rig) -> None:
    rig.client.confirm_select()
    rig.far.cut()
    rig.client.publish(b"1")
    rig.node.advance(600)
    rig.client.expect_nothing()
    rig.far.elect()
    rig.node.run()
    assert rig.client.names() == ["Basic.Ack"]
    assert rig.counts() == (1, 0, 0)


def test_publishers_stop_while_too_much_waits_and_go_on(rig: Rig) -> None:
    rig.far.cut()
    body = b"m" * 1_000_000
    sent = 0
    while rig.client.transport.is_reading():
        rig.client.publish(body)
        sent += 1
    assert sent * len(body) <= streams.PENDING_BYTES_MAX + 2 * len(body)
    rig.node.advance(60)
    assert not rig.client.transport.is_reading()
    rig.far.link()
    rig.node.run()
    assert rig.client.transport.is_reading()
    assert rig.counts() == (sent, 0, 0)


def fill(rig: Rig) -> int:
    """Nobody leads the queue, and so much is pending that publishers stop; how many operations."""
    publisher = rig.node.connect()
    rig.far.cut()
    while publisher.transport.is_reading():
        publisher.publish(b"m" * 1_000_000)
    return len(rig.far.edge.pending)


def test_who_gets_purges_or_consumes_waits_while_too_much_is_pending(rig: Rig) -> None:
    before = fill(rig)
    purging, consuming = rig.node.connect(), rig.node.connect()
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    purging.send(encode_method(1, Queue.Purge(queue="q")))
    consuming.send(encode_method(1, make(Basic.Consume, queue="q")))
    rig.node.advance(1)
    assert len(rig.far.edge.pending) == before
    for client in (rig.client, purging, consuming):
        client.expect_nothing()
    rig.far.link()
    rig.node.run()
    assert rig.client.names()[0] == "Basic.GetOk"
    purging.expect(Queue.PurgeOk)
    consuming.expect(Basic.ConsumeOk)
    assert rig.counts() == (0, 1, 1)


def test_what_waits_like_that_is_given_up_in_time_and_never_asked(rig: Rig) -> None:
    before = fill(rig)
    for _ in range(3):
        client = rig.node.connect()
        client.send(encode_method(1, Basic.Get(queue="q")))
        leaving = rig.node.connect()
        leaving.send(encode_method(1, make(Basic.Consume, queue="q")))
        leaving.transport.lose()
        rig.node.advance(pending_replies.ANSWER_S_MAX)
        client.expect_closed(541, "Cannot get a message from queue")
    assert len(rig.far.edge.pending) == before
    rig.far.link()
    rig.node.run()
    assert rig.counts() == (before, 0, 0)


def test_what_waits_like_that_ends_with_the_queue(rig: Rig) -> None:
    fill(rig)
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    rig.delete()
    rig.client.expect_channel_closed(404, "no queue 'q' in vhost '/'")


def test_what_a_client_holds_takes_no_room_here_nor_where_it_is_led(rig: Rig) -> None:
    rig.client.consume()
    rig.client.publish(b"1", b"2")
    other = rig.node.connect()
    other.publish(b"3")
    assert rig.client.bodies() == [b"1", b"2", b"3"]
    channels = rig.client.connection.open_channels
    assert channels is not None
    channel = channels.find(1)
    assert channel is not None
    kept = [each for run in channel.unacked._runs for each in run.contents]
    (holder,) = rig.far.led.leadership.holders._held.values()
    led = [
        each for _run, delivery_batch in holder.delivery_batches for each in delivery_batch.contents
    ]
    assert kept == led == [b""] * 3
    rig.client.send(encode_method(1, Basic.Recover(requeue=True)))
    rig.client.expect(Basic.RecoverOk)
    assert sorted(rig.client.bodies()) == [b"1", b"2", b"3"]


def test_a_new_leader_changes_nothing_for_who_holds_messages(rig: Rig) -> None:
    rig.client.consume(prefetch=2)
    rig.client.publish(b"1", b"2", b"3")
    assert rig.client.bodies() == [b"1", b"2"]
    rig.far.elect()
    rig.node.run()
    rig.client.expect_nothing()
    rig.client.ack(1)
    arrival = rig.client.take()
    assert (arrival.body, arrival.method["redelivered"]) == (b"3", False)
    assert rig.counts() == (0, 2, 1)


def test_acks_reach_the_next_leader_also_after_the_connection_is_gone(rig: Rig) -> None:
    ending = rig.node.connect()
    rig.client.publish(b"1", b"2")
    ending.consume()
    assert ending.bodies() == [b"1", b"2"]
    rig.far.cut()
    ending.send(encode_method(1, Basic.Ack(1, False)))
    ending.transport.lose()
    rig.far.elect()
    rig.node.run()
    assert rig.counts() == (1, 0, 0)
    got = get(rig.client)
    assert got is not None
    assert got[0] == b"2"


def test_a_lost_session_cancels_and_takes_no_late_acks(rig: Rig) -> None:
    rig.client.consume()
    rig.client.publish(b"1")
    assert rig.client.bodies() == [b"1"]
    rig.far.forget_node()
    rig.node.run()
    assert rig.client.names() == ["Basic.Cancel"]
    assert rig.counts() == (1, 0, 0)
    rig.client.ack(1)
    rig.client.expect_nothing()
    assert rig.counts() == (1, 0, 0)
    rig.client.consume()
    assert rig.client.bodies() == [b"1"]


def test_what_was_published_in_a_lost_session_is_nacked(rig: Rig) -> None:
    rig.client.confirm_select()
    rig.client.publish(b"0")
    rig.client.arrivals()
    rig.far.cut()
    rig.client.publish(b"1")
    rig.far.forget_node()
    rig.node.run()
    assert rig.client.names() == ["Basic.Nack"]
    rig.client.publish(b"2")
    assert rig.client.names() == ["Basic.Ack"]


def test_a_transaction_is_committed_with_the_queue(rig: Rig) -> None:
    rig.client.call(Tx.Select(), Tx.SelectOk)
    rig.client.publish(b"1", b"2")
    rig.far.is_committing = False
    rig.client.send(encode_method(1, Tx.Commit()))
    rig.client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    rig.client.expect(Tx.CommitOk)
    assert rig.counts() == (2, 0, 0)


# What RabbitMQ refuses of quorum queues, and what it does not


def test_a_limit_that_consumers_share_is_refused_when_one_begins(rig: Rig) -> None:
    other = rig.node.connect()
    rig.client.consume()
    rig.client.call(Basic.Qos(prefetch_count=2, global_=True), Basic.QosOk)  # too late to matter
    rig.client.publish(b"1", b"2", b"3")
    assert len(rig.client.bodies()) == 3
    other.call(Basic.Qos(prefetch_count=2, global_=True), Basic.QosOk)
    other.send(encode_method(1, make(Basic.Consume, queue="q")))
    other.expect_closed(540, "queue 'q' in vhost '/' does not support global qos", (60, 20))


def test_a_shared_limit_counts_nothing_of_quorum_queues(rig: Rig) -> None:
    rig.client.declare("classic")
    rig.client.consume()
    rig.client.call(Basic.Qos(prefetch_count=2, global_=True), Basic.QosOk)
    rig.client.consume("classic", "d")
    rig.client.publish(b"1", b"2", b"3")
    assert len(rig.client.bodies()) == 3
    rig.client.publish(b"4", queue="classic")
    assert rig.client.bodies() == [b"4"]


def test_what_is_delivered_is_counted_by_the_type_of_its_queue(rig: Rig) -> None:
    rig.client.publish(b"1", b"2")
    rig.client.consume(prefetch=1)
    assert rig.client.bodies() == [b"1"]
    rig.client.ack(1)
    rig.client.arrivals()
    assert get(rig.client) is None
    deliveries = rig.node.services.runtime.traffic.from_quorum_queues
    counted = (deliveries.consumed_manual_ack, deliveries.acknowledged, deliveries.get_empty)
    assert counted == (2, 1, 1)
    assert rig.node.services.runtime.traffic.from_queues.delivered == 0
