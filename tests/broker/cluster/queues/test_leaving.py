"""Clients of a queue that is led elsewhere that wait no longer, or want nothing more of it."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queues import pending_replies
from fluffle.protocol.methods import Basic, Queue, encode_method, make
from tests.broker.cluster.queues.far import Rig, get, get_with_headers
from tests.support.edge import publish_frames


@pytest.fixture
def rig() -> Rig:
    return Rig()


# What takes too long


def test_without_a_leader_a_get_fails_in_time(rig: Rig) -> None:
    rig.far.cut()
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    rig.node.advance(pending_replies.ANSWER_S_MAX - 1)
    rig.client.expect_nothing()
    rig.node.advance(1)
    rig.client.expect_closed(541, "Cannot get a message from queue 'queue 'q' in vhost '/''")


def test_a_get_from_a_queue_that_has_crashed_fails(rig: Rig) -> None:
    rig.far.cut()
    rig.client.send(encode_method(1, Basic.Get(queue="q")))
    rig.queue.hear([happened.Got(1, 2, None, is_crashed=True)])
    rig.node.run()
    text = "queue 'q' in vhost '/' has crashed and failed to restart"
    rig.client.expect_channel_closed(404, text)


def give_up_getting(rig: Rig, *, no_ack: bool) -> None:
    late = rig.node.connect()
    late.send(encode_method(1, Basic.Get(queue="q", no_ack=no_ack)))
    rig.far.cut()
    rig.node.advance(pending_replies.ANSWER_S_MAX)
    late.expect_closed(541, "Cannot get a message")


@pytest.mark.parametrize("no_ack", [False, True])
def test_what_could_not_be_got_in_time_is_not_got_later(rig: Rig, *, no_ack: bool) -> None:
    rig.client.publish(b"m")
    rig.far.cut()
    for _ in range(3):
        give_up_getting(rig, no_ack=no_ack)
    rig.far.elect()
    rig.node.run()
    assert rig.counts() == (1, 0, 0)
    assert get_with_headers(rig.client) == (False, None)


@pytest.mark.parametrize("no_ack", [False, True])
@pytest.mark.parametrize("how", ["answered late", "answered by the next leader"])
def test_what_was_got_and_not_told_in_time_comes_back(rig: Rig, how: str, *, no_ack: bool) -> None:
    rig.client.publish(b"m")
    rig.far.is_committing = False
    give_up_getting(rig, no_ack=no_ack)
    rig.far.commit()
    rig.far.is_committing = True
    if how == "answered late":
        rig.far.link()
    else:
        rig.far.elect()
    rig.node.run()
    assert rig.counts() == (1, 0, 0)
    assert get_with_headers(rig.client) == (True, {"x-acquired-count": ("l", 1)})
    assert len(rig.far.edge.pending) == 0


@pytest.mark.parametrize("is_known", [False, True])
def test_what_could_not_be_purged_in_time_is_not_purged_later(rig: Rig, *, is_known: bool) -> None:
    late = rig.node.connect()
    if is_known:
        rig.far.is_committing = False
    else:
        rig.far.cut()
    late.send(encode_method(1, make(Queue.Purge, queue="q")))
    rig.far.cut()
    rig.node.advance(pending_replies.ANSWER_S_MAX)
    late.expect_closed(541, "timed out purging quorum queue 'q' in vhost '/'")
    rig.far.commit()
    rig.far.is_committing = True
    rig.client.publish(b"m")
    rig.far.elect()
    rig.node.run()
    assert rig.counts() == (1, 0, 0)
    assert len(rig.far.edge.pending) == 0


def test_a_publisher_before_a_purge_that_was_given_up_keeps_its_messages(rig: Rig) -> None:
    rig.client.publish(b"m")
    rig.far.cut()
    late = rig.node.connect()
    late.send(encode_method(1, make(Queue.Purge, queue="q")))
    rig.node.advance(pending_replies.ANSWER_S_MAX)
    rig.far.link()
    rig.node.run()
    assert rig.counts() == (1, 0, 0)


def test_of_what_was_got_without_acknowledgement_nothing_stays(rig: Rig) -> None:
    for _ in range(3):
        client = rig.node.connect()
        client.publish(b"m")
        assert get(client, no_ack=True) is not None
        assert rig.counts() == (0, 0, 0)
        client.close()
    assert rig.queue._seats == {}


def test_who_gets_without_acknowledgement_and_is_gone_loses_nothing(rig: Rig) -> None:
    rig.client.publish(b"m")
    going = rig.node.connect()
    rig.far.is_committing = False
    going.send(encode_method(1, Basic.Get(queue="q", no_ack=True)))
    going.transport.lose()
    rig.far.is_committing = True
    assert rig.counts() == (1, 0, 0)
    assert rig.queue._seats == {}


# Consumers that cancel


def test_what_comes_behind_a_cancel_stays(rig: Rig) -> None:
    rig.client.consume()
    rig.client.feed(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    rig.client.feed(publish_frames(b"m"))
    rig.node.run()
    assert rig.client.names() == ["Basic.CancelOk"]
    assert get_with_headers(rig.client) == (False, None)


def cancel_while_messages_come(rig: Rig, *, no_ack: bool) -> None:
    rig.client.consume(no_ack=no_ack)
    rig.far.is_committing = False
    rig.client.publish(b"1", b"2")
    rig.client.send(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    rig.client.expect_nothing()


def commit(rig: Rig) -> None:
    rig.far.is_committing = True
    rig.run()


@pytest.mark.parametrize("no_ack", [False, True])
def test_what_is_on_its_way_to_who_cancels_comes_before_the_answer(
    rig: Rig, *, no_ack: bool
) -> None:
    cancel_while_messages_come(rig, no_ack=no_ack)
    commit(rig)
    assert rig.client.names() == ["Basic.Deliver", "Basic.Deliver", "Basic.CancelOk"]
    rig.client.publish(b"3")
    assert rig.counts() == (1, 0 if no_ack else 2, 0)
    assert (rig.queue._takers, rig.queue._by_number) == ({}, {})
    if not no_ack:
        rig.client.ack(2, multiple=True)
    assert rig.counts() == (1, 0, 0)
    assert rig.queue._seats == {}


def test_who_cancels_and_is_gone_gives_back_what_was_on_its_way(rig: Rig) -> None:
    cancel_while_messages_come(rig, no_ack=False)
    rig.client.transport.lose()
    commit(rig)
    assert rig.counts() == (2, 0, 0)
    assert rig.queue._seats == {}


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_cancel_is_answered_by_the_next_leader(rig: Rig, *, no_ack: bool) -> None:
    cancel_while_messages_come(rig, no_ack=no_ack)
    rig.far.cut()
    rig.far.elect()
    commit(rig)
    assert rig.client.names() == ["Basic.CancelOk"]
    assert rig.counts() == (2, 0, 0)
    assert rig.queue._seats == {}


def test_who_cancels_hears_nothing_else_when_the_queue_is_deleted(rig: Rig) -> None:
    cancel_while_messages_come(rig, no_ack=True)
    rig.delete()
    assert rig.client.names() == ["Basic.CancelOk"]


def test_without_a_leader_a_cancel_fails_in_time_and_comes_true_later(rig: Rig) -> None:
    rig.client.consume()
    rig.far.cut()
    rig.client.send(encode_method(1, make(Basic.Cancel, consumer_tag="c")))
    rig.node.advance(pending_replies.ANSWER_S_MAX - 1)
    rig.client.expect_nothing()
    rig.node.advance(1)
    rig.client.expect_closed(541, "timed out")
    rig.far.link()
    rig.node.run()
    assert rig.counts() == (0, 0, 0)
    assert (rig.queue._takers, rig.queue._seats) == ({}, {})
