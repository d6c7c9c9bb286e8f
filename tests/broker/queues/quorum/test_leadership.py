"""The leader of a replicated queue: see `leading` for what is checked all along."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from fluffle.broker.queues import ready_list, requeue
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum import entries, leadership, message_reader, ready_ranges
from fluffle.broker.queues.quorum.consumer_terms import Terms
from fluffle.broker.queues.quorum.encoding import decode, encode
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    Acted,
    Delivered,
    DeliveredWithoutAck,
    Reason,
    Requeued,
    RequeueReason,
    SessionId,
    Settled,
)
from tests.broker.queues.quorum.edges import Edge
from tests.broker.queues.quorum.leading import Bench, full, quorum
from tests.broker.queues.quorum.make import ORIGIN
from tests.broker.queues.quorum.steps import rest, step
from tests.broker.queues.quorum.telling import Told, bodies, with_consumer
from tests.suite.seeds import seeds


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few messages are a backlog that leaves memory."""
    for module in (ready_list, ready_ranges):
        monkeypatch.setattr(module, "SEGMENT_MESSAGES_MAX", 4)
    monkeypatch.setattr(ready_list, "FRONT_SEGMENTS", 1)
    monkeypatch.setattr(ready_list, "RECENT_SEGMENTS", 1)
    monkeypatch.setattr(requeue, "FETCH_MESSAGES_MAX", 2)
    monkeypatch.setattr(entries, "COMPACT_ENTRIES", 2)
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 3)


@pytest.fixture(autouse=True)
def _everything_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


KINDS = [
    quorum(dead_letter_exchange="dlx", delivery_limit=1),
    quorum(dead_letter_exchange="dlx"),
    quorum(delivery_limit=0),
    quorum(delivery_limit=-1),
    quorum(dead_letter_exchange="dlx", message_ttl=200),
    quorum(message_ttl=100),
    full(7),
    full(1, overflow=None),
    QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True),
    quorum(delayed_retry_type="all", delayed_retry_min=40, delayed_retry_max=90),
    quorum(delayed_retry_type="failed", delayed_retry_min=200, delivery_limit=3),
]
"""Of queues, in which messages end otherwise."""


PRIORITIES = None, None, 0, 3, 5, 31, 200
"""Of messages, some of which wait with others that have come back."""


BROUGHT = Counts(1, 1), Counts(4, 2)


def whatever(
    seed: int,
    steps: int,
    priorities: Sequence[int | None] = (),
    brought: Sequence[Counts] = (),
) -> None:
    chance, bench = Random(seed), Bench(KINDS[seed % len(KINDS)], priorities)
    if brought:
        bench.bring(*brought)
    for _ in range(steps):
        step(bench, chance)
        if chance.random() < 0.08:
            rest(bench)
    rest(bench)
    bench.outlive()


@seeds(10)
def test_whatever_happens(seed: int) -> None:
    whatever(seed, steps=150)


@seeds(10)
def test_whatever_happens_with_priorities(seed: int) -> None:
    whatever(seed, steps=150, priorities=PRIORITIES)


@seeds(22)
@pytest.mark.parametrize("priorities", [(), PRIORITIES])
def test_whatever_has_died_elsewhere(seed: int, priorities: Sequence[int | None]) -> None:
    whatever(seed, steps=150, priorities=priorities, brought=BROUGHT)


@seeds(range(100, 103), at_night=250, slow=True)
@pytest.mark.parametrize("priorities", [(), PRIORITIES])
@pytest.mark.parametrize("brought", [(), BROUGHT])
def test_much_of_whatever_happens(
    seed: int, priorities: Sequence[int | None], brought: Sequence[Counts]
) -> None:
    whatever(seed, steps=250, priorities=priorities, brought=brought)


def test_nothing_leaves_before_its_entry_is_applied() -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(2))
    bench.turn()
    assert (bench.take(), len(bench.proposals)) == ([], 1)
    bench.commit()
    done, delivery = bench.take()
    assert done == e.Done(session, 2, 2)
    assert isinstance(delivery, e.Delivery)
    assert delivery.holder == key
    assert bench.left == [[b"body 0", b"body 1"]]


def test_a_batch_and_its_hand_outs_are_one_entry_and_dealt_out_in_one_fact() -> None:
    bench, session, key = with_consumer()
    bench.led.attach(session, 2, Terms(1, "other"))
    bench.settle_down()
    bench.led.publish(session, 3, *bodies(4))
    bench.turn()
    (payload, _on_fate) = bench.proposals[0]
    batch = decode(payload)
    assert batch.enqueued is not None
    assert batch.enqueued.count == 4
    assert Delivered(0, [key, key + 1], [range(1, 5)]) in batch.facts


def test_hand_outs_to_one_consumer_are_one_run() -> None:
    bench, session, key = with_consumer(prefetch=3)
    bench.led.publish(session, 2, *bodies(9))
    bench.settle_down()
    bench.led.settle(session, 11, key, [(0, range(1, 2)), (0, range(2, 4))], outcome=Outcome.ACKED)
    bench.turn()
    assert Settled(key, 0, [range(1, 4)]) in bench.facts()
    assert Delivered(0, [key], [range(4, 7)]) in bench.facts()


def test_what_many_operations_say_is_said_once() -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(3))
    bench.settle_down()
    for number in range(3):
        token = (0, range(1 + number, 2 + number))
        bench.led.settle(session, 5 + number, key, [token], outcome=Outcome.ACKED)
    bench.turn()
    assert bench.facts() == [Settled(key, 0, [range(1, 4)]), Acted(session, 5, 3)]


def test_what_needs_no_ack_is_handed_over() -> None:
    bench, session, key = with_consumer(no_ack=True)
    bench.led.publish(session, 2, *bodies(2))
    bench.turn()
    assert DeliveredWithoutAck(0, [key], [range(1, 3)]) in bench.facts()
    bench.settle_down()
    assert bench.image.state.live_count == 0


@pytest.mark.parametrize(
    ("outcome", "how", "failed"),
    [
        (Outcome.NACK_REQUEUED, RequeueReason.NACKED, 0),
        (Outcome.REJECT_REQUEUED, RequeueReason.REJECTED, 1),
        (Outcome.LOST, RequeueReason.LOST, 1),
        (Outcome.SUSPECTED, RequeueReason.SUSPECTED, 0),
        (Outcome.UNSENT, RequeueReason.UNKNOWN, 0),
    ],
)
def test_what_comes_back(outcome: Outcome, how: RequeueReason, failed: int) -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    bench.led.settle(session, 3, key, [(0, range(1, 2))], outcome=outcome)
    bench.turn()
    assert Requeued(key, 0, failed, how, 0, [range(1, 2)]) in bench.facts()
    bench.settle_down()
    *_, again = bench.take()
    assert isinstance(again, e.Delivery)
    assert again.delivery_batch.redelivered
    assert again.delivery_batch.counts == (1, failed)


def test_a_token_that_has_ended_ends_nothing_and_that_is_on_record() -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(2))
    bench.settle_down()
    bench.led.settle(session, 4, key, [(0, range(1, 2))], outcome=Outcome.NACK_REQUEUED)
    bench.settle_down()
    bench.take()
    bench.led.settle(session, 5, key, [(0, range(1, 3))], outcome=Outcome.ACKED)
    bench.settle_down()
    assert bench.take() == [e.NotTaken(session, 5, 1)]
    assert bench.led.queue.in_flight == 1
    assert bench.image.state.sessions[session].refused
    assert bench.image.state.gone[Reason.ACKED] == 1


def test_what_is_given_back_too_late_is_done_all_the_same() -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    for number in (3, 4):
        bench.led.settle(session, number, key, [(0, range(1, 2))], outcome=Outcome.NACK_REQUEUED)
    bench.turn()
    assert Acted(session, 3, 2) in bench.facts()


def test_what_was_done_is_answered_again_and_not_done_again() -> None:
    bench, session, _key = with_consumer()
    bench.led.publish(session, 2, *bodies(2))
    bench.settle_down()
    bench.take()
    bench.led.attach(session, 1, Terms(1, "tag"))
    bench.led.publish(session, 2, *bodies(3))
    bench.settle_down()
    *told, delivery = bench.take()
    assert told == [e.Answer(session, 1, 2), e.Done(session, 2, 2), e.Done(session, 4, 1)]
    assert isinstance(delivery, e.Delivery)
    assert bench.image.state.next_sequence == 4
    assert bench.led.queue.consumer_count == 1


def test_what_has_ended_is_not_delivered_again() -> None:
    bench, session, key = with_consumer()
    bench.led.publish(session, 2, *bodies(3))
    bench.settle_down()
    bench.take()
    assert bench.led.on_record.holds(session) == [(key, 0, range(1, 4))]
    bench.led.settle(session, 5, key, [(0, range(3, 4))], outcome=Outcome.ACKED)
    bench.led.deliver_again(key, [(0, range(1, 2)), (0, range(2, 3)), (0, range(3, 4))])
    bench.turn()
    bench.led.settle(session, 6, key, [(0, range(2, 3))], outcome=Outcome.ACKED)
    bench.settle_down()
    again = [effect for effect in bench.take() if isinstance(effect, e.Delivery)]
    assert bench.left[1:] == [[b"body 0"]]
    assert not again[0].delivery_batch.redelivered


def test_what_comes_too_soon_is_not_done() -> None:
    bench, session, _key = with_consumer()
    bench.led.publish(session, 3, *bodies(2))
    bench.settle_down()
    assert bench.take() == [e.Expected(session, 2)]
    assert bench.image.state.next_sequence == 1


def test_an_outcome_is_kept_until_its_edge_knows_it() -> None:
    bench, session, _key = with_consumer()
    bench.led.sessions.acknowledge(session, 1)
    bench.turn()
    assert not bench.proposals, "nothing is kept of what is below"
    bench.led.sessions.acknowledge(session, 2)
    bench.turn()
    assert bench.facts() == [Acknowledged(session, 2)]
    bench.settle_down()
    assert bench.image.state.sessions[session].answers == {}


def test_basic_get() -> None:
    bench = Told()
    session = bench.session()
    bench.led.get(session, 1, 7, no_ack=False)
    bench.led.publish(session, 2, *bodies(3))
    bench.led.get(session, 5, 7, no_ack=False)
    bench.led.get(session, 6, 7, no_ack=True)
    bench.settle_down()
    got = [effect for effect in bench.take() if isinstance(effect, e.GetResult)]
    assert [effect.delivery_batch is not None for effect in got] == [False, True, True]
    assert bench.left == [[b"body 0"], [b"body 1"]]
    assert bench.led.on_record.holds(session) == [(got[1].holder, 0, range(1, 2))]
    bench.led.detach(session, 7, got[1].holder, outcome=Outcome.LOST)
    bench.settle_down()
    assert bench.led.queue.ready_count == 2
    assert bench.image.state.holders == {}


def test_a_purge_takes_what_waits_wherever_it_is() -> None:
    bench, session, key = with_consumer(prefetch=2)
    for number in range(30):
        bench.led.publish(session, 2 + number, *bodies(1))
        bench.settle_down()
    bench.led.settle(session, 32, key, [(0, range(1, 3))], outcome=Outcome.NACK_REQUEUED)
    bench.led.detach(session, 33, key)
    bench.take()
    bench.led.purge(session, 34)
    bench.settle_down()
    assert e.Answer(session, 34, 30) in bench.take()
    assert bench.image.state.live_count == 0


def test_a_purge_takes_what_has_come_back_in_front_of_what_is_on_disk() -> None:
    bench, session, key = with_consumer(prefetch=2)
    bench.led.publish(session, 2, *bodies(5))
    bench.settle_down()
    bench.led.settle(session, 7, key, [(0, range(1, 3))], outcome=Outcome.NACK_REQUEUED)
    bench.led.detach(session, 8, key)
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)
    bench.led.purge(bench.session(), 9)
    bench.settle_down()
    assert bench.image.state.live_count == 0


def test_queue_time_goes_on_when_the_clock_is_put_back() -> None:
    bench, session, _key = with_consumer()
    for now_ms, stamp_ms in ((1_000, 1_000), (400, 1_000), (1_001, 1_601)):
        bench.now_ms = now_ms
        bench.led.publish(session, bench.image.state.sessions[session].next, *bodies(1))
        bench.turn()
        assert decode(bench.proposals[-1][0]).stamp_ms == stamp_ms
        bench.settle_down()


def test_an_entry_that_is_not_taken_ends_it() -> None:
    bench, session, _key = with_consumer()
    bench.led.publish(session, 2, *bodies(1))
    bench.turn()
    bench.proposals.popleft()[1](False)
    assert (bench.take(), bench.led.is_over, bench.ended) == ([], True, 1)
    bench.led.pump()
    assert not bench.proposals


def test_what_is_decided_waits_while_the_log_takes_nothing() -> None:
    bench, session, _key = with_consumer()
    bench.is_open = False
    bench.led.publish(session, 2, *bodies(1))
    bench.turn()
    assert (list(bench.proposals), bench.take()) == ([], [])
    bench.is_open = bench.is_touched = True
    bench.settle_down()
    assert [type(effect) for effect in bench.take()] == [e.Done, e.Delivery]


def test_a_consumer_without_room_waits_until_it_is_woken() -> None:
    bench, session, key = with_consumer()
    bench.room = 0
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    assert bench.take() == [e.Done(session, 2, 1)]
    bench.room = 1
    bench.led.holders.wake(key)
    bench.settle_down()
    (delivery,) = bench.take()
    assert isinstance(delivery, e.Delivery)


def test_damage_in_the_log_is_told_and_nothing_is_handed_out() -> None:
    bench = Told()
    session = bench.session()
    bench.led.publish(session, 1, *bodies(3))
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)
    bench.log[0] = bench.log[0][:-1] + b"?"
    bench.led.attach(session, 4, Terms(1, "tag"))
    bench.settle_down()
    assert bench.damaged == {1}
    assert [type(effect) for effect in bench.take()].count(e.Delivery) == 0
    assert bench.led.queue.ready_count == 3


def test_what_cannot_be_read_is_not_said_to_be_nothing() -> None:
    bench = Told()
    session = bench.session()
    bench.led.publish(session, 1, *bodies(3))
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)
    whole = bench.log[0]
    bench.log[0] = whole[:-1] + b"?"
    bench.led.get(session, 4, 1, no_ack=False)
    bench.settle_down()
    assert (bench.damaged, bench.take()) == ({1}, [e.Done(session, 1, 3)])
    bench.log[0] = whole
    bench.change_leader(0, is_elsewhere=True)
    bench.led.get(session, 4, 1, no_ack=False)
    bench.settle_down()
    (got,) = [effect for effect in bench.take() if isinstance(effect, e.GetResult)]
    assert got.delivery_batch is not None


def test_an_edge_that_is_gone_leaves_nothing_behind() -> None:
    bench = Bench()
    edge: Edge = bench.open_edge()
    bench.attach(edge)
    bench.publish(edge, 3)
    bench.settle_down()
    bench.get(edge, no_ack=False)
    bench.detach(edge, list(edge.consumers), None)
    bench.settle_down()
    assert len(edge.holds) == 3
    bench.lose(edge)
    bench.settle_down()
    state = bench.image.state
    assert (state.sessions, state.holders, state.returned.count) == ({}, {}, 3)


def test_an_entry_says_the_same_when_it_is_written_again() -> None:
    bench, session, _key = with_consumer()
    bench.led.publish(session, 2, *bodies(5))
    bench.settle_down()
    assert [encode(decode(entry)) for entry in bench.log] == bench.log


def test_a_session_is_opened_anew_in_the_turn_in_which_it_was_closed() -> None:
    bench = Bench()
    life = SessionId("edge", 1, 1, 1)
    before = bench.led.sessions.open(life)
    bench.settle_down()
    bench.led.purge(before, 1)
    bench.led.drop_session(before, Outcome.LOST)
    again = bench.led.sessions.open(life)
    bench.settle_down()
    assert bench.image.state.sessions[again].next == 1
    assert before not in bench.image.state.sessions


def test_much_that_is_published_in_a_turn_is_several_entries() -> None:
    """Whoever sends, writes or reads an entry takes it at once."""
    bench = Told()
    session = bench.session()
    bench.settle_down()
    bench.is_open = False  # the log is busy, and all edges publish
    body = bytes(leadership.ENTRY_BYTES // 4)
    for number in range(1, 15):
        bench.led.publish(session, number, [ORIGIN], [body])
    bench.led.settle(session, 15, 1, [], outcome=Outcome.ACKED)
    bench.led.pump()
    assert not bench.proposals
    bench.is_open = True
    bench.led.pump()
    sizes = [len(payload) for payload, _on_fate in bench.proposals]
    assert len(sizes) == 4
    assert max(sizes) < leadership.ENTRY_BYTES + len(body)
    bench.settle_down()
    assert bench.take() == [e.Done(session, number, 1) for number in range(1, 16)]
    assert bench.led.queue.ready_count == 14


def test_what_is_read_from_the_log_stops_where_there_is_enough() -> None:
    bench = Bench()
    edge = bench.open_edge()
    bench.publish(edge, 4)
    bench.settle_down()
    contents = bench.led._contents
    every = contents.fetch([1, 2, 4])[1]
    assert len(set(every)) == 3
    size_bytes = len(every[0])
    for bytes_max, count in ((1, 1), (size_bytes, 1), (size_bytes + 1, 2), (9 * size_bytes, 3)):
        origins, found = contents.fetch([1, 2, 4], bytes_max)
        assert (len(origins), found) == (count, every[:count])


def test_what_is_asked_again_and_again_is_answered_once() -> None:
    """By edges to which nothing can be said while the log takes nothing."""
    bench = Told()
    session = bench.session()
    bench.settle_down()
    bench.is_open = False
    for _ in range(10):
        for number in range(1, 8):
            bench.led.publish(session, number, *bodies(1))
        bench.led.publish(session, 9, *bodies(1))
        bench.led.pump()
    bench.is_open = True
    bench.settle_down()
    told = bench.take()
    done = [effect for effect in told if isinstance(effect, e.Done)]
    assert sum(effect.count for effect in done) == 2 * 7, "as they were done, and once more"
    assert [effect for effect in told if not isinstance(effect, e.Done)] == [e.Expected(session, 8)]
    bench.led.publish(session, 1, *bodies(1))
    bench.settle_down()
    assert bench.take() == [e.Done(session, 1, 1)], "and again, when that has been told"
