"""What a leader does with messages that nobody wants, that fail too often, or do not fit."""

from __future__ import annotations

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.delivery_counts import NEW
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum.facts import (
    NOBODY,
    DeadLettered,
    DeadLettering,
    Dropped,
    OperationsRefused,
    Reason,
    Requeued,
    RequeueReason,
)
from fluffle.protocol.deaths import DeathReason
from tests.broker.queues.quorum.leading import Bench, full, quorum
from tests.broker.queues.quorum.telling import Told, bodies, with_consumer


def fail(bench: Told, session: int, key: int, times: int) -> None:
    """Reject the first message so often."""
    for ordinal in range(times):
        number = bench.led.sessions._next[session]
        bench.led.settle(
            session, number, key, [(ordinal, range(1, 2))], outcome=Outcome.REJECT_REQUEUED
        )
        bench.turn()
        if ordinal < times - 1:
            bench.settle_down()


def test_who_has_failed_too_often_is_dropped_with_the_last_return() -> None:
    bench, session, key = with_consumer(spec=quorum(delivery_limit=2))
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    fail(bench, session, key, 3)
    assert bench.facts()[:2] == [
        Requeued(key, 2, 3, RequeueReason.REJECTED, 0, [range(1, 2)]),
        Dropped(Reason.DELIVERY_LIMIT, NOBODY, 3, [range(1, 2)]),
    ]
    bench.settle_down()
    assert bench.image.state.live_count == bench.led.queue.in_flight == 0


def test_twenty_failures_are_too_many_by_default() -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    fail(bench, session, key, 20)
    bench.settle_down()
    assert bench.image.state.held_count == 1, "and is handed out for the 21st time"
    bench.led.settle(session, 23, key, [(20, range(1, 2))], outcome=Outcome.NACK_REQUEUED)
    bench.settle_down()
    assert bench.image.state.held_count == 1, "what is given back has not failed"
    bench.led.settle(session, 24, key, [(21, range(1, 2))], outcome=Outcome.LOST)
    bench.settle_down()
    assert bench.image.state.gone[Reason.DELIVERY_LIMIT] == 1


def test_the_dead_are_republished_once_that_is_applied_and_then_gone() -> None:
    bench, session, key = with_consumer(spec=quorum(dead_letter_exchange="dlx"))
    bench.led.publish(session, 2, *bodies(3))
    bench.settle_down()
    bench.now_ms = 7
    tokens = [(0, range(1, 2)), (0, range(3, 4)), (0, range(2, 3))]
    bench.led.settle(session, 5, key, tokens, outcome=Outcome.REJECTED)
    bench.turn()
    runs = [range(1, 5, 2), range(2, 3)]
    assert DeadLettering(Reason.REJECTED, 7, key, 0, runs) in bench.facts()
    assert not bench.died
    bench.commit()
    assert [dead.contents for dead in bench.died] == [[b"body 0"], [b"body 2"], [b"body 1"]]
    assert {(dead.reason, dead.time_ms, dead.counts) for dead in bench.died} == {
        (DeathReason.REJECTED, 7, (1, 1))
    }
    bench.turn()
    assert bench.facts() == [DeadLettered(runs)]
    bench.settle_down()
    assert bench.image.state.live_count == 0


def test_the_next_leader_republishes_what_is_not_known_to_be() -> None:
    bench, session, key = with_consumer(spec=quorum(dead_letter_exchange="dlx"))
    bench.led.publish(session, 2, *bodies(2))
    bench.settle_down()
    bench.now_ms = 7
    bench.led.settle(session, 4, key, [(0, range(1, 3))], outcome=Outcome.REJECTED)
    bench.turn()
    bench.change_leader(1, is_elsewhere=True)
    assert not bench.died
    bench.settle_down()
    assert [(dead.contents, dead.time_ms) for dead in bench.died] == [([b"body 0", b"body 1"], 7)]
    assert bench.image.state.gone[Reason.DEAD_LETTERED] == 2


def outcomes(bench: Told) -> list[e.Done | e.NotTaken]:
    return [told for told in bench.take() if isinstance(told, e.Done | e.NotTaken)]


def test_what_comes_behind_the_one_that_passes_the_limit_is_refused() -> None:
    bench = Told(full(3))
    session = bench.session()
    bench.led.publish(session, 1, *bodies(2))
    bench.led.publish(session, 3, *bodies(4))
    bench.turn()
    assert OperationsRefused(session, 5, 2) in bench.facts()
    bench.settle_down()
    refusal = e.NotTaken(session, 5, 2)
    assert outcomes(bench) == [e.Done(session, 1, 2), e.Done(session, 3, 2), refusal]
    assert bench.image.state.waiting_count == 4
    bench.led.purge(session, 7)
    bench.led.publish(session, 3, *bodies(4))
    bench.led.publish(session, 8, *bodies(1))
    bench.settle_down()
    again = outcomes(bench)
    assert refusal in again, "as it was when it was asked first"
    assert e.Done(session, 8, 1) in again
    assert bench.image.state.waiting_count == 1


def test_a_queue_that_refuses_does_until_four_fifths_of_its_limit_wait() -> None:
    bench = Told(full(10))
    session = bench.session()
    bench.led.publish(session, 1, *bodies(12))
    number = 13
    for _ in range(3):
        bench.led.get(session, number, 1, no_ack=True)
        bench.led.publish(session, number + 1, *bodies(1))
        number += 2
    bench.settle_down()
    refused = [told.first for told in outcomes(bench) if isinstance(told, e.NotTaken)]
    assert refused == [12, 14, 16], "with 10 and 9 that wait"
    assert bench.image.state.waiting_count == 9


def test_the_next_leader_takes_what_fits_again() -> None:
    bench = Told(full(10))
    session = bench.session()
    bench.led.publish(session, 1, *bodies(12))
    bench.led.get(session, 13, 1, no_ack=True)
    bench.led.get(session, 14, 1, no_ack=True)
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=True)
    bench.take()
    session = bench.session()
    bench.led.publish(session, 15, *bodies(3))
    bench.settle_down()
    assert [told.count for told in outcomes(bench)] == [2, 1]


def test_what_is_handed_out_at_once_fits() -> None:
    spec = full(2)
    bench, session, _key = with_consumer(prefetch=5, spec=spec)
    bench.led.publish(session, 2, *bodies(9))
    bench.settle_down()
    assert sum(told.count for told in outcomes(bench) if isinstance(told, e.Done)) == 8
    assert (bench.image.state.held_count, bench.image.state.waiting_count) == (5, 3)


def test_other_queues_drop_what_is_in_front() -> None:
    for overflow in (None, "drop-head", "reject-publish-dlx"):
        bench = Told(full(2, overflow))
        session = bench.session()
        bench.led.publish(session, 1, *bodies(9))
        bench.turn()
        assert Dropped(Reason.MAXLEN, NOBODY, 0, [range(1, 8)]) in bench.facts()
        bench.settle_down()
        assert outcomes(bench) == [e.Done(session, 1, 9)]
        assert bench.image.state.waiting_count == 2


def test_what_came_back_is_dropped_first_and_what_is_handed_out_is_not() -> None:
    spec = quorum(max_length=2, dead_letter_exchange="dlx")
    bench, session, key = with_consumer(prefetch=3, spec=spec)
    bench.led.publish(session, 2, *bodies(5))
    bench.settle_down()
    assert not bench.died
    bench.led.detach(session, 7, key)
    bench.led.settle(session, 8, key, [(0, range(2, 3))], outcome=Outcome.NACK_REQUEUED)
    bench.settle_down()
    [dead] = bench.died
    assert (dead.reason, dead.contents, dead.counts) == (DeathReason.MAXLEN, [b"body 1"], NEW)
    assert (bench.image.state.waiting_count, bench.image.state.held_count) == (2, 2)


def test_what_has_died_elsewhere_is_taken_while_the_disk_lets_no_publish_in() -> None:
    """As long as the log takes anything; then it waits."""
    bench = Told()
    session = bench.session()
    bench.settle_down()
    bench.may_grow = False
    bench.led.publish(session, 1, *bodies(2))
    bench.settle_down()
    assert bench.take() == [e.NotTaken(session, 1, 2)]
    for number, past in ((3, MessageAnnotations.DIED), (4, MessageAnnotations.REDIRECTED)):
        bench.led.publish(session, number, [Origin("dlx", "key", past)], [b"dead"])
        bench.settle_down()
        assert bench.take() == [e.Done(session, number, 1)]
    bench.is_open = False
    bench.led.publish(session, 5, [Origin("dlx", "key", MessageAnnotations.DIED)], [b"dead"])
    bench.settle_down()
    assert not bench.take(), "neither taken nor refused"
    bench.is_open = True
    bench.touch()
    bench.settle_down()
    assert bench.take() == [e.Done(session, 5, 1)]
    assert bench.image.state.live_count == 3


def test_what_need_not_arrive_counts_for_no_limit_once_another_leads() -> None:
    bench = Bench(quorum(dead_letter_exchange="dlx"))
    edge = bench.open_edge()
    bench.attach(edge)
    bench.publish(edge, 3)
    bench.settle_down()
    bench.end(edge, [1, 2, 3], Outcome.REJECTED)
    bench.turn()
    bench.commit()
    assert bench.image.state.pending.count == 3
    bench.change_leader(0, is_elsewhere=True)
    bench.settle_down()
    assert (bench.led.outbox.count, len(bench.dead)) == (0, 6)
