"""The leader of a replicated queue: see `leading` for what is checked all along."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from fluffle.broker.queues import ready_list, requeue
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import entries, leadership, log_journal, proposals
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import decode, encode
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    Delivered,
    DeliveredWithoutAck,
    OperationsDone,
    RemovalReason,
    Requeued,
    RequeueReason,
    SessionId,
    Settled,
)
from fluffle.broker.queues.quorum.holders import EPOCH, Terms
from fluffle.protocol.wire import encode_table
from tests.broker.queues.quorum.entry_harness import EntryHarness, bodies, with_consumer
from tests.broker.queues.quorum.leader_harness import LeaderHarness, full, quorum
from tests.broker.queues.quorum.random_steps import rest, step
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.broker.queues.quorum.session_clients import SessionClients
from tests.suite.seeds import seeds


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that a few messages are a backlog that leaves memory."""
    for module in (ready_list, log_journal):
        monkeypatch.setattr(module, "SEGMENT_MESSAGES_MAX", 4)
    monkeypatch.setattr(ready_list, "FRONT_SEGMENTS", 1)
    monkeypatch.setattr(ready_list, "RECENT_SEGMENTS", 1)
    monkeypatch.setattr(requeue, "FETCH_MESSAGES_MAX", 2)
    monkeypatch.setattr(entries, "COMPACT_ENTRIES", 2)
    monkeypatch.setattr(proposals, "PIECE_RUNS", 3)


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
"""Specifications of queues in which messages end in other ways."""


PRIORITIES = None, None, 0, 3, 5, 31, 200
"""Priorities of messages, some of which wait with requeued ones."""


BROUGHT = Counts(1, 1), Counts(4, 2)


def whatever(
    seed: int,
    steps: int,
    priorities: Sequence[int | None] = (),
    brought: Sequence[Counts] = (),
) -> None:
    chance, harness = Random(seed), LeaderHarness(KINDS[seed % len(KINDS)], priorities)
    if brought:
        harness.bring(*brought)
    for _ in range(steps):
        step(harness, chance)
        if chance.random() < 0.08:
            rest(harness)
    rest(harness)
    harness.outlive()


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
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(2))
    harness.turn()
    assert (harness.take(), len(harness.proposals)) == ([], 1)
    harness.commit()
    done, delivery = harness.take()
    assert done == m.Effect(session, m.DoneReply(2, 2))
    assert isinstance(delivery.message, m.Deliver)
    assert delivery.message.holder == key
    assert harness.left == [[b"body 0", b"body 1"]]


def test_a_batch_and_its_hand_outs_are_one_entry_and_dealt_out_in_one_fact() -> None:
    harness, session, key = with_consumer()
    harness.led.attach(session, 2, Terms(1, "other"))
    harness.settle_down()
    harness.led.publish(session, 3, *bodies(4))
    harness.turn()
    (payload, _on_outcome) = harness.proposals[0]
    batch = decode(payload)
    assert batch.enqueued is not None
    assert batch.enqueued.count == 4
    assert Delivered(0, [key, key + 1], [range(1, 5)]) in batch.facts


def test_hand_outs_to_one_consumer_are_one_run() -> None:
    harness, session, key = with_consumer(prefetch=3)
    harness.led.publish(session, 2, *bodies(9))
    harness.settle_down()
    harness.led.settle(
        session, 11, key, [(0, range(1, 2)), (0, range(2, 4))], outcome=Outcome.ACKED
    )
    harness.turn()
    assert Settled(key, 0, [range(1, 4)]) in harness.facts()
    assert Delivered(0, [key], [range(4, 7)]) in harness.facts()


def test_what_many_operations_say_is_said_once() -> None:
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(3))
    harness.settle_down()
    for number in range(3):
        token = (0, range(1 + number, 2 + number))
        harness.led.settle(session, 5 + number, key, [token], outcome=Outcome.ACKED)
    harness.turn()
    assert harness.facts() == [Settled(key, 0, [range(1, 4)]), OperationsDone(session, 5, 3)]


def test_what_needs_no_ack_is_handed_over() -> None:
    harness, session, key = with_consumer(no_ack=True)
    harness.led.publish(session, 2, *bodies(2))
    harness.turn()
    assert DeliveredWithoutAck(0, [key], [range(1, 3)]) in harness.facts()
    harness.settle_down()
    assert harness.image.state.live_count == 0


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
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    harness.led.settle(session, 3, key, [(0, range(1, 2))], outcome=outcome)
    harness.turn()
    assert Requeued(key, 0, failed, how, 0, [range(1, 2)]) in harness.facts()
    harness.settle_down()
    *_, again = harness.take_messages()
    assert isinstance(again, m.Deliver)
    assert again.redelivered
    assert (again.ordinal, again.failed) == (1, failed)


def test_a_token_that_has_ended_ends_nothing_and_that_is_on_record() -> None:
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(2))
    harness.settle_down()
    harness.led.settle(session, 4, key, [(0, range(1, 2))], outcome=Outcome.NACK_REQUEUED)
    harness.settle_down()
    harness.take()
    harness.led.settle(session, 5, key, [(0, range(1, 3))], outcome=Outcome.ACKED)
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.RejectedReply(5, 1))]
    assert harness.led.queue.in_flight == 1
    assert harness.image.state.sessions[session].rejected
    assert harness.image.state.gone[RemovalReason.ACKED] == 1


def test_what_is_given_back_too_late_is_done_all_the_same() -> None:
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    for number in (3, 4):
        harness.led.settle(session, number, key, [(0, range(1, 2))], outcome=Outcome.NACK_REQUEUED)
    harness.turn()
    assert OperationsDone(session, 3, 2) in harness.facts()


def test_what_was_done_is_answered_again_and_not_done_again() -> None:
    harness, session, _key = with_consumer()
    harness.led.publish(session, 2, *bodies(2))
    harness.settle_down()
    harness.take()
    harness.led.attach(session, 1, Terms(1, "tag"))
    harness.led.publish(session, 2, *bodies(3))
    harness.settle_down()
    *replies, delivery = harness.take()
    assert replies == [
        m.Effect(session, m.AnswerReply(1, 2)),
        m.Effect(session, m.DoneReply(2, 2)),
        m.Effect(session, m.DoneReply(4, 1)),
    ]
    assert isinstance(delivery.message, m.Deliver)
    assert harness.image.state.next_sequence == 4
    assert harness.led.queue.consumer_count == 1


def test_what_has_ended_is_not_delivered_again() -> None:
    harness, session, key = with_consumer()
    harness.led.publish(session, 2, *bodies(3))
    harness.settle_down()
    harness.take()
    assert harness.led.on_record.holds(session) == [(key, 0, range(1, 4))]
    harness.led.settle(session, 5, key, [(0, range(3, 4))], outcome=Outcome.ACKED)
    harness.led.deliver_again(key, [(0, range(1, 2)), (0, range(2, 3)), (0, range(3, 4))])
    harness.turn()
    harness.led.settle(session, 6, key, [(0, range(2, 3))], outcome=Outcome.ACKED)
    harness.settle_down()
    again = [each for each in harness.take_messages() if isinstance(each, m.Deliver)]
    assert harness.left[1:] == [[b"body 0"]]
    assert not again[0].redelivered


def test_what_comes_too_soon_is_not_done() -> None:
    harness, session, _key = with_consumer()
    harness.led.publish(session, 3, *bodies(2))
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.ExpectedReply(2))]
    assert harness.image.state.next_sequence == 1


def test_an_outcome_is_kept_until_its_edge_knows_it() -> None:
    harness, session, _key = with_consumer()
    harness.led.sessions.acknowledge(session, 1)
    harness.turn()
    assert not harness.proposals, "nothing is kept of what is below"
    harness.led.sessions.acknowledge(session, 2)
    harness.turn()
    assert harness.facts() == [Acknowledged(session, 2)]
    harness.settle_down()
    assert harness.image.state.sessions[session].answers == {}


def test_basic_get() -> None:
    harness = EntryHarness()
    session = harness.session()
    harness.led.get(session, 1, 7, no_ack=False)
    harness.led.publish(session, 2, *bodies(3))
    harness.led.get(session, 5, 7, no_ack=False)
    harness.led.get(session, 6, 7, no_ack=True)
    harness.settle_down()
    got = [each for each in harness.take_messages() if isinstance(each, m.GetAnswer)]
    assert [len(each.delivers) for each in got] == [0, 1, 1]
    assert harness.left == [[b"body 0"], [b"body 1"]]
    assert harness.led.on_record.holds(session) == [(got[1].holder, 0, range(1, 2))]
    harness.led.detach(session, 7, got[1].holder, outcome=Outcome.LOST)
    harness.settle_down()
    assert harness.led.queue.ready_count == 2
    assert harness.image.state.holders == {}


def test_a_purge_takes_what_waits_wherever_it_is() -> None:
    harness, session, key = with_consumer(prefetch=2)
    for number in range(30):
        harness.led.publish(session, 2 + number, *bodies(1))
        harness.settle_down()
    harness.led.settle(session, 32, key, [(0, range(1, 3))], outcome=Outcome.NACK_REQUEUED)
    harness.led.detach(session, 33, key)
    harness.take()
    harness.led.purge(session, 34)
    harness.settle_down()
    assert m.Effect(session, m.AnswerReply(34, 30)) in harness.take()
    assert harness.image.state.live_count == 0


def test_a_purge_takes_what_has_come_back_in_front_of_what_is_on_disk() -> None:
    harness, session, key = with_consumer(prefetch=2)
    harness.led.publish(session, 2, *bodies(5))
    harness.settle_down()
    harness.led.settle(session, 7, key, [(0, range(1, 3))], outcome=Outcome.NACK_REQUEUED)
    harness.led.detach(session, 8, key)
    harness.settle_down()
    harness.change_leader(0, is_elsewhere=False)
    harness.led.purge(harness.session(), 9)
    harness.settle_down()
    assert harness.image.state.live_count == 0


def test_queue_time_goes_on_when_the_clock_is_put_back() -> None:
    harness, session, _key = with_consumer()
    for now_ms, stamp_ms in ((1_000, 1_000), (400, 1_000), (1_001, 1_601)):
        harness.now_ms = now_ms
        harness.led.publish(session, harness.image.state.sessions[session].next, *bodies(1))
        harness.turn()
        assert decode(harness.proposals[-1][0]).stamp_ms == stamp_ms
        harness.settle_down()


def test_an_entry_that_is_not_taken_ends_it() -> None:
    harness, session, _key = with_consumer()
    harness.led.publish(session, 2, *bodies(1))
    harness.turn()
    harness.proposals.popleft()[1](False)
    assert (harness.take(), harness.led.is_over, harness.ended) == ([], True, 1)
    harness.led.pump()
    assert not harness.proposals


def test_what_is_decided_waits_while_the_log_takes_nothing() -> None:
    harness, session, _key = with_consumer()
    harness.is_open = False
    harness.led.publish(session, 2, *bodies(1))
    harness.turn()
    assert (list(harness.proposals), harness.take()) == ([], [])
    harness.is_open = harness.is_touched = True
    harness.settle_down()
    assert [type(each) for each in harness.take_messages()] == [m.DoneReply, m.Deliver]


def test_a_consumer_without_room_waits_until_it_is_woken() -> None:
    harness, session, key = with_consumer()
    harness.room = 0
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.DoneReply(2, 1))]
    harness.room = 1
    harness.led.holders.wake(key)
    harness.settle_down()
    (delivery,) = harness.take_messages()
    assert isinstance(delivery, m.Deliver)


def test_damage_in_the_log_is_reported_and_nothing_is_handed_out() -> None:
    harness = EntryHarness()
    session = harness.session()
    harness.led.publish(session, 1, *bodies(3))
    harness.settle_down()
    harness.change_leader(0, is_elsewhere=False)
    harness.log[0] = harness.log[0][:-1] + b"?"
    harness.led.attach(session, 4, Terms(1, "tag"))
    harness.settle_down()
    assert harness.damaged == {1}
    assert [type(each) for each in harness.take_messages()].count(m.Deliver) == 0
    assert harness.led.queue.ready_count == 3


def test_what_cannot_be_read_is_not_said_to_be_nothing() -> None:
    harness = EntryHarness()
    session = harness.session()
    harness.led.publish(session, 1, *bodies(3))
    harness.settle_down()
    harness.change_leader(0, is_elsewhere=False)
    whole = harness.log[0]
    harness.log[0] = whole[:-1] + b"?"
    harness.led.get(session, 4, 1, no_ack=False)
    harness.settle_down()
    assert (harness.damaged, harness.take()) == ({1}, [m.Effect(session, m.DoneReply(1, 3))])
    harness.log[0] = whole
    harness.change_leader(0, is_elsewhere=True)
    harness.led.get(session, 4, 1, no_ack=False)
    harness.settle_down()
    (got,) = [each for each in harness.take_messages() if isinstance(each, m.GetAnswer)]
    assert got.delivers


def test_an_edge_that_is_gone_leaves_nothing_behind() -> None:
    harness = LeaderHarness()
    edge: SessionClients = harness.open_edge()
    harness.attach(edge)
    harness.publish(edge, 3)
    harness.settle_down()
    harness.get(edge, no_ack=False)
    harness.detach(edge, list(edge.consumers), None)
    harness.settle_down()
    assert len(edge.holds) == 3
    harness.lose(edge)
    harness.settle_down()
    state = harness.image.state
    assert (state.sessions, state.holders, state.requeued.count) == ({}, {}, 3)


def of_epoch(epoch: int) -> bytes:
    return encode_table({EPOCH: ("l", epoch)})


def take_the_place_of_another() -> None:
    """Have a client attach from another node, and what it held before come to it first."""
    harness = LeaderHarness()
    before, after, late = (harness.open_edge() for _ in range(3))
    harness.attach(before, arguments=of_epoch(5))
    harness.publish(before, 3)
    harness.settle_down()
    assert sorted(before.holds) == [1, 2, 3]
    held = dict(before.holds)
    harness.attach(after, arguments=of_epoch(7))
    harness.settle_down()
    assert (list(after.holds), before.holds) == ([1, 2, 3], {})
    before.holds.update(held)  # it has not heard of that
    harness.end(before, [1, 2, 3], Outcome.ACKED)
    harness.publish(before, 1)
    harness.settle_down()
    assert list(after.holds) == [1, 2, 3, 4], "that came too late"
    harness.attach(late, arguments=of_epoch(6))
    harness.settle_down()
    assert (list(after.holds), late.holds) == ([1, 2, 3, 4], {})
    harness.check()


def test_a_consumer_of_a_later_epoch_takes_the_place_of_its_earlier_ones() -> None:
    take_the_place_of_another()


def test_consumers_without_an_epoch_are_beside_each_other() -> None:
    harness = LeaderHarness()
    one, other = harness.open_edge(), harness.open_edge()
    harness.attach(one)
    harness.publish(one, 2)
    harness.settle_down()
    harness.attach(other, arguments=of_epoch(7))
    harness.settle_down()
    assert (sorted(one.holds), other.holds) == ([1, 2], {})


def test_an_entry_says_the_same_when_it_is_written_again() -> None:
    harness, session, _key = with_consumer()
    harness.led.publish(session, 2, *bodies(5))
    harness.settle_down()
    assert [encode(decode(entry)) for entry in harness.log] == harness.log


def test_a_session_is_opened_anew_in_the_turn_in_which_it_was_closed() -> None:
    harness = LeaderHarness()
    life = SessionId("edge", 1, 1, 1)
    before = harness.led.sessions.open(life)
    harness.settle_down()
    harness.led.purge(before, 1)
    harness.led.drop_session(before, Outcome.LOST)
    again = harness.led.sessions.open(life)
    harness.settle_down()
    assert harness.image.state.sessions[again].next == 1
    assert before not in harness.image.state.sessions


def test_much_that_is_published_in_a_turn_is_several_entries() -> None:
    """An entry is sent, written and read as a whole."""
    harness = EntryHarness()
    session = harness.session()
    harness.settle_down()
    harness.is_open = False  # the log is busy, and all edges publish
    body = bytes(leadership.ENTRY_BYTES // 4)
    for number in range(1, 15):
        harness.led.publish(session, number, [ORIGIN], [body])
    harness.led.settle(session, 15, 1, [], outcome=Outcome.ACKED)
    harness.led.pump()
    assert not harness.proposals
    harness.is_open = True
    harness.led.pump()
    sizes = [len(payload) for payload, _on_outcome in harness.proposals]
    assert len(sizes) == 4
    assert max(sizes) < leadership.ENTRY_BYTES + len(body)
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.DoneReply(number, 1)) for number in range(1, 16)]
    assert harness.led.queue.ready_count == 14


def test_what_is_read_from_the_log_stops_where_there_is_enough() -> None:
    harness = LeaderHarness()
    edge = harness.open_edge()
    harness.publish(edge, 4)
    harness.settle_down()
    contents = harness.led._contents
    every = contents.fetch([1, 2, 4])[1]
    assert len(set(every)) == 3
    size_bytes = len(every[0])
    for bytes_max, count in ((1, 1), (size_bytes, 1), (size_bytes + 1, 2), (9 * size_bytes, 3)):
        origins, found = contents.fetch([1, 2, 4], bytes_max)
        assert (len(origins), found) == (count, every[:count])


def test_what_is_asked_again_and_again_is_answered_once() -> None:
    """The requests come from client nodes that get no answer while the log accepts nothing."""
    harness = EntryHarness()
    session = harness.session()
    harness.settle_down()
    harness.is_open = False
    for _ in range(10):
        for number in range(1, 8):
            harness.led.publish(session, number, *bodies(1))
        harness.led.publish(session, 9, *bodies(1))
        harness.led.pump()
    harness.is_open = True
    harness.settle_down()
    replies = harness.take_messages()
    done = [each for each in replies if isinstance(each, m.DoneReply)]
    assert sum(each.count for each in done) == 2 * 7, "as they were done, and once more"
    assert [each for each in replies if not isinstance(each, m.DoneReply)] == [m.ExpectedReply(8)]
    harness.led.publish(session, 1, *bodies(1))
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.DoneReply(1, 1))], (
        "and again, when that has been reported"
    )
