"""Dead letters of a leader: messages that were rejected, failed too often, or did not fit."""

from __future__ import annotations

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.delivery_counts import NEW
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import (
    NO_HOLDER,
    DeadLettered,
    DeadLettering,
    Dropped,
    OperationsRejected,
    RemovalReason,
    Requeued,
    RequeueReason,
)
from fluffle.protocol.headers import DeathReason
from tests.broker.queues.quorum.entry_harness import EntryHarness, bodies, with_consumer
from tests.broker.queues.quorum.leader_harness import LeaderHarness, full, quorum


def fail(harness: EntryHarness, session: int, key: int, times: int) -> None:
    """Reject the first message so often."""
    for ordinal in range(times):
        number = harness.led.sessions._next[session]
        harness.led.settle(
            session, number, key, [(ordinal, range(1, 2))], outcome=Outcome.REJECT_REQUEUED
        )
        harness.turn()
        if ordinal < times - 1:
            harness.settle_down()


def test_who_has_failed_too_often_is_dropped_with_the_last_return() -> None:
    harness, session, key = with_consumer(spec=quorum(delivery_limit=2))
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    fail(harness, session, key, 3)
    assert harness.facts()[:2] == [
        Requeued(key, 2, 3, RequeueReason.REJECTED, 0, [range(1, 2)]),
        Dropped(RemovalReason.DELIVERY_LIMIT, NO_HOLDER, 3, [range(1, 2)]),
    ]
    harness.settle_down()
    assert harness.image.state.live_count == harness.led.queue.in_flight == 0


def test_twenty_failures_are_too_many_by_default() -> None:
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    fail(harness, session, key, 20)
    harness.settle_down()
    assert harness.image.state.held_count == 1, "and is handed out for the 21st time"
    harness.led.settle(session, 23, key, [(20, range(1, 2))], outcome=Outcome.NACK_REQUEUED)
    harness.settle_down()
    assert harness.image.state.held_count == 1, "what is given back has not failed"
    harness.led.settle(session, 24, key, [(21, range(1, 2))], outcome=Outcome.LOST)
    harness.settle_down()
    assert harness.image.state.gone[RemovalReason.DELIVERY_LIMIT] == 1


def test_the_dead_are_republished_once_that_is_applied_and_then_gone() -> None:
    harness, session, key = with_consumer(spec=quorum(dead_letter_exchange="dlx"))
    harness.led.publish(session, 2, *bodies(3))
    harness.settle_down()
    harness.now_ms = 7
    tokens = [(0, range(1, 2)), (0, range(3, 4)), (0, range(2, 3))]
    harness.led.settle(session, 5, key, tokens, outcome=Outcome.REJECTED)
    harness.turn()
    runs = [range(1, 5, 2), range(2, 3)]
    assert DeadLettering(RemovalReason.REJECTED, 7, key, 0, runs) in harness.facts()
    assert not harness.died
    harness.commit()
    assert [dead.contents for dead in harness.died] == [[b"body 0"], [b"body 2"], [b"body 1"]]
    assert {(dead.reason, dead.time_ms, dead.counts) for dead in harness.died} == {
        (DeathReason.REJECTED, 7, (1, 1))
    }
    harness.turn()
    assert harness.facts() == [DeadLettered(runs)]
    harness.settle_down()
    assert harness.image.state.live_count == 0


def test_the_next_leader_republishes_what_is_not_known_to_be() -> None:
    harness, session, key = with_consumer(spec=quorum(dead_letter_exchange="dlx"))
    harness.led.publish(session, 2, *bodies(2))
    harness.settle_down()
    harness.now_ms = 7
    harness.led.settle(session, 4, key, [(0, range(1, 3))], outcome=Outcome.REJECTED)
    harness.turn()
    harness.change_leader(1, is_elsewhere=True)
    assert not harness.died
    harness.settle_down()
    assert [(dead.contents, dead.time_ms) for dead in harness.died] == [([b"body 0", b"body 1"], 7)]
    assert harness.image.state.gone[RemovalReason.DEAD_LETTERED] == 2


def outcomes(harness: EntryHarness) -> list[m.DoneReply | m.RejectedReply]:
    return [
        reply
        for reply in harness.take_messages()
        if isinstance(reply, m.DoneReply | m.RejectedReply)
    ]


def test_what_comes_behind_the_one_that_passes_the_limit_is_refused() -> None:
    harness = EntryHarness(full(3))
    session = harness.session()
    harness.led.publish(session, 1, *bodies(2))
    harness.led.publish(session, 3, *bodies(4))
    harness.turn()
    assert OperationsRejected(session, 5, 2) in harness.facts()
    harness.settle_down()
    refusal = m.RejectedReply(5, 2)
    assert outcomes(harness) == [
        m.DoneReply(1, 2),
        m.DoneReply(3, 2),
        refusal,
    ]
    assert harness.image.state.waiting_count == 4
    harness.led.purge(session, 7)
    harness.led.publish(session, 3, *bodies(4))
    harness.led.publish(session, 8, *bodies(1))
    harness.settle_down()
    again = outcomes(harness)
    assert refusal in again, "as it was when it was asked first"
    assert m.DoneReply(8, 1) in again
    assert harness.image.state.waiting_count == 1


def test_a_queue_that_refuses_does_until_four_fifths_of_its_limit_wait() -> None:
    harness = EntryHarness(full(10))
    session = harness.session()
    harness.led.publish(session, 1, *bodies(12))
    number = 13
    for _ in range(3):
        harness.led.get(session, number, 1, no_ack=True)
        harness.led.publish(session, number + 1, *bodies(1))
        number += 2
    harness.settle_down()
    refused = [reply.first for reply in outcomes(harness) if isinstance(reply, m.RejectedReply)]
    assert refused == [12, 14, 16], "with 10 and 9 that wait"
    assert harness.image.state.waiting_count == 9


def test_the_next_leader_takes_what_fits_again() -> None:
    harness = EntryHarness(full(10))
    session = harness.session()
    harness.led.publish(session, 1, *bodies(12))
    harness.led.get(session, 13, 1, no_ack=True)
    harness.led.get(session, 14, 1, no_ack=True)
    harness.settle_down()
    harness.change_leader(0, is_elsewhere=True)
    harness.take()
    session = harness.session()
    harness.led.publish(session, 15, *bodies(3))
    harness.settle_down()
    assert [reply.count for reply in outcomes(harness)] == [2, 1]


def test_what_is_handed_out_at_once_fits() -> None:
    spec = full(2)
    harness, session, _key = with_consumer(prefetch=5, spec=spec)
    harness.led.publish(session, 2, *bodies(9))
    harness.settle_down()
    assert sum(reply.count for reply in outcomes(harness) if isinstance(reply, m.DoneReply)) == 8
    assert (harness.image.state.held_count, harness.image.state.waiting_count) == (5, 3)


def test_other_queues_drop_what_is_in_front() -> None:
    for overflow in (None, "drop-head", "reject-publish-dlx"):
        harness = EntryHarness(full(2, overflow))
        session = harness.session()
        harness.led.publish(session, 1, *bodies(9))
        harness.turn()
        assert Dropped(RemovalReason.MAXLEN, NO_HOLDER, 0, [range(1, 8)]) in harness.facts()
        harness.settle_down()
        assert outcomes(harness) == [m.DoneReply(1, 9)]
        assert harness.image.state.waiting_count == 2


def test_what_came_back_is_dropped_first_and_what_is_handed_out_is_not() -> None:
    spec = quorum(max_length=2, dead_letter_exchange="dlx")
    harness, session, key = with_consumer(prefetch=3, spec=spec)
    harness.led.publish(session, 2, *bodies(5))
    harness.settle_down()
    assert not harness.died
    harness.led.detach(session, 7, key)
    harness.led.settle(session, 8, key, [(0, range(2, 3))], outcome=Outcome.NACK_REQUEUED)
    harness.settle_down()
    [dead] = harness.died
    assert (dead.reason, dead.contents, dead.counts) == (DeathReason.MAXLEN, [b"body 1"], NEW)
    assert (harness.image.state.waiting_count, harness.image.state.held_count) == (2, 2)


def test_what_has_died_elsewhere_is_taken_while_the_disk_lets_no_publish_in() -> None:
    """The message waits only if the log accepts nothing at all."""
    harness = EntryHarness()
    session = harness.session()
    harness.settle_down()
    harness.may_grow = False
    harness.led.publish(session, 1, *bodies(2))
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.RejectedReply(1, 2))]
    for number, past in ((3, MessageAnnotations.DIED), (4, MessageAnnotations.REDIRECTED)):
        harness.led.publish(session, number, [Origin("dlx", "key", past)], [b"dead"])
        harness.settle_down()
        assert harness.take() == [m.Effect(session, m.DoneReply(number, 1))]
    harness.is_open = False
    harness.led.publish(session, 5, [Origin("dlx", "key", MessageAnnotations.DIED)], [b"dead"])
    harness.settle_down()
    assert not harness.take(), "neither taken nor refused"
    harness.is_open = True
    harness.touch()
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.DoneReply(5, 1))]
    assert harness.image.state.live_count == 3


def test_what_need_not_arrive_counts_for_no_limit_once_another_leads() -> None:
    harness = LeaderHarness(quorum(dead_letter_exchange="dlx"))
    edge = harness.open_edge()
    harness.attach(edge)
    harness.publish(edge, 3)
    harness.settle_down()
    harness.end(edge, [1, 2, 3], Outcome.REJECTED)
    harness.turn()
    harness.commit()
    assert harness.image.state.pending.count == 3
    harness.change_leader(0, is_elsewhere=True)
    harness.settle_down()
    assert (harness.led.outbox.count, len(harness.dead)) == (0, 6)
