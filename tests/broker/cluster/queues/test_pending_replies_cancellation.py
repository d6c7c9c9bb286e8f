"""Clients of a queue that is led elsewhere that wait no longer, or want nothing more of it."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queues import pending_replies
from fluffle.broker.queues.quorum import messages as m
from fluffle.protocol.methods import Basic, Queue, encode_method, make
from tests.broker.cluster.queues.session_queue_harness import (
    QueueHarness,
    get,
    get_with_headers,
)
from tests.support.edge import publish_frames


@pytest.fixture
def harness() -> QueueHarness:
    return QueueHarness()


# What takes too long


def test_without_a_leader_a_get_fails_in_time(harness: QueueHarness) -> None:
    harness.far.cut()
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    harness.node.advance(pending_replies.ANSWER_S_MAX - 1)
    harness.client.expect_nothing()
    harness.node.advance(1)
    harness.client.expect_closed(541, "Cannot get a message from queue 'queue 'q' in vhost '/''")


def test_a_get_from_a_queue_that_has_crashed_fails(harness: QueueHarness) -> None:
    harness.far.cut()
    harness.client.send(encode_method(1, Basic.Get(queue="q")))
    harness.queue.on_events([m.GetAnswer(1, 7, 2, [], is_crashed=True)])
    harness.node.run()
    text = "queue 'q' in vhost '/' has crashed and failed to restart"
    harness.client.expect_channel_closed(404, text)


def give_up_getting(harness: QueueHarness, *, no_ack: bool) -> None:
    late = harness.node.connect()
    late.send(encode_method(1, Basic.Get(queue="q", no_ack=no_ack)))
    harness.far.cut()
    harness.node.advance(pending_replies.ANSWER_S_MAX)
    late.expect_closed(541, "Cannot get a message")


@pytest.mark.parametrize("no_ack", [False, True])
def test_what_could_not_be_got_in_time_is_not_got_later(
    harness: QueueHarness, *, no_ack: bool
) -> None:
    harness.client.publish(b"m")
    harness.far.cut()
    for _ in range(3):
        give_up_getting(harness, no_ack=no_ack)
    harness.far.elect()
    harness.node.run()
    assert harness.counts() == (1, 0, 0)
    assert get_with_headers(harness.client) == (False, None)


@pytest.mark.parametrize("no_ack", [False, True])
@pytest.mark.parametrize("how", ["answered late", "answered by the next leader"])
def test_what_was_got_and_not_reported_in_time_comes_back(
    harness: QueueHarness, how: str, *, no_ack: bool
) -> None:
    harness.client.publish(b"m")
    harness.far.is_committing = False
    give_up_getting(harness, no_ack=no_ack)
    harness.far.commit()
    harness.far.is_committing = True
    if how == "answered late":
        harness.far.link()
    else:
        harness.far.elect()
    harness.node.run()
    assert harness.counts() == (1, 0, 0)
    assert get_with_headers(harness.client) == (True, {"x-acquired-count": ("l", 1)})
    assert len(harness.far.session.pending) == 0


@pytest.mark.parametrize("is_known", [False, True])
def test_what_could_not_be_purged_in_time_is_not_purged_later(
    harness: QueueHarness, *, is_known: bool
) -> None:
    late = harness.node.connect()
    if is_known:
        harness.far.is_committing = False
    else:
        harness.far.cut()
    late.send(encode_method(1, make(Queue.Purge, queue="q")))
    harness.far.cut()
    harness.node.advance(pending_replies.ANSWER_S_MAX)
    late.expect_closed(541, "timed out purging quorum queue 'q' in vhost '/'")
    harness.far.commit()
    harness.far.is_committing = True
    harness.client.publish(b"m")
    harness.far.elect()
    harness.node.run()
    assert harness.counts() == (1, 0, 0)
    assert len(harness.far.session.pending) == 0


def test_a_publisher_before_a_purge_that_was_given_up_keeps_its_messages(
    harness: QueueHarness,
) -> None:
    harness.client.publish(b"m")
    harness.far.cut()
    late = harness.node.connect()
    late.send(encode_method(1, make(Queue.Purge, queue="q")))
    harness.node.advance(pending_replies.ANSWER_S_MAX)
    harness.far.link()
    harness.node.run()
    assert harness.counts() == (1, 0, 0)


def test_of_what_was_got_without_acknowledgement_nothing_stays(
    harness: QueueHarness,
) -> None:
    for _ in range(3):
        client = harness.node.connect()
        client.publish(b"m")
        assert get(client, no_ack=True) is not None
        assert harness.counts() == (0, 0, 0)
        client.close()
    assert harness.queue._slots == {}


def test_who_gets_without_acknowledgement_and_is_gone_loses_nothing(
    harness: QueueHarness,
) -> None:
    harness.client.publish(b"m")
    going = harness.node.connect()
    harness.far.is_committing = False
    going.send(encode_method(1, Basic.Get(queue="q", no_ack=True)))
    going.transport.lose()
    harness.far.is_committing = True
    assert harness.counts() == (1, 0, 0)
    assert harness.queue._slots == {}


# Consumers that cancel


def test_what_comes_behind_a_cancel_stays(harness: QueueHarness) -> None:
    harness.client.consume()
    harness.client.feed(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    harness.client.feed(publish_frames(b"m"))
    harness.node.run()
    assert harness.client.names() == ["Basic.CancelOk"]
    assert get_with_headers(harness.client) == (False, None)


def cancel_while_messages_come(harness: QueueHarness, *, no_ack: bool) -> None:
    harness.client.consume(no_ack=no_ack)
    harness.far.is_committing = False
    harness.client.publish(b"1", b"2")
    harness.client.send(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    harness.client.expect_nothing()


def commit(harness: QueueHarness) -> None:
    harness.far.is_committing = True
    harness.run()


@pytest.mark.parametrize("no_ack", [False, True])
def test_what_is_on_its_way_to_who_cancels_comes_before_the_answer(
    harness: QueueHarness, *, no_ack: bool
) -> None:
    cancel_while_messages_come(harness, no_ack=no_ack)
    commit(harness)
    assert harness.client.names() == ["Basic.Deliver", "Basic.Deliver", "Basic.CancelOk"]
    harness.client.publish(b"3")
    assert harness.counts() == (1, 0 if no_ack else 2, 0)
    assert (harness.queue._attached, harness.queue._by_number) == ({}, {})
    if not no_ack:
        harness.client.ack(2, multiple=True)
    assert harness.counts() == (1, 0, 0)
    assert harness.queue._slots == {}


def test_who_cancels_and_is_gone_gives_back_what_was_on_its_way(
    harness: QueueHarness,
) -> None:
    cancel_while_messages_come(harness, no_ack=False)
    harness.client.transport.lose()
    commit(harness)
    assert harness.counts() == (2, 0, 0)
    assert harness.queue._slots == {}


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_cancel_is_answered_by_the_next_leader(harness: QueueHarness, *, no_ack: bool) -> None:
    cancel_while_messages_come(harness, no_ack=no_ack)
    harness.far.cut()
    harness.far.elect()
    commit(harness)
    assert harness.client.names() == ["Basic.CancelOk"]
    assert harness.counts() == (2, 0, 0)
    assert harness.queue._slots == {}


def test_who_cancels_hears_nothing_else_when_the_queue_is_deleted(
    harness: QueueHarness,
) -> None:
    cancel_while_messages_come(harness, no_ack=True)
    harness.delete()
    assert harness.client.names() == ["Basic.CancelOk"]


def test_without_a_leader_a_cancel_fails_in_time_and_comes_true_later(
    harness: QueueHarness,
) -> None:
    harness.client.consume()
    harness.far.cut()
    harness.client.send(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    harness.node.advance(pending_replies.ANSWER_S_MAX - 1)
    harness.client.expect_nothing()
    harness.node.advance(1)
    harness.client.expect_closed(541, "timed out")
    harness.far.link()
    harness.node.run()
    assert harness.counts() == (0, 0, 0)
    assert (harness.queue._attached, harness.queue._slots) == ({}, {})
