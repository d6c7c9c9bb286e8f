"""The led queue of an x-delayed-message exchange: each message comes out when it is due.

What is known of it is in `delaying`.
"""

from __future__ import annotations

from random import Random

import pytest

from fluffle.broker.queues import delayed_ready_list
from fluffle.broker.queues.engine import EXPIRED_SEGMENTS_MAX
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.queue_api import PeekRequest
from fluffle.broker.queues.quorum import dead_letter_outbox, leadership
from fluffle.broker.queues.quorum.entries import LiveEntries
from fluffle.broker.queues.quorum.entry_codec import decode
from fluffle.broker.queues.quorum.facts import DeadLettered, DeadLettering, RemovalReason
from fluffle.broker.queues.quorum.log_journal import LogJournal
from tests.broker.queues.quorum.delayed_queue_harness import DelayedQueueHarness
from tests.broker.queues.quorum.test_leadership import make_small
from tests.suite.seeds import seeds


def test_they_come_out_in_the_order_of_their_times() -> None:
    harness = DelayedQueueHarness()
    harness.publish_all(300, 100, 200, 100)
    harness.settle_down()
    assert harness.wakes[-1] == 100
    assert harness.led.queue.ready_count == 4
    harness.at(99)
    harness.settle_down()
    assert not harness.came
    harness.at(100)
    harness.turn()
    assert harness.facts()[-1] == DeadLettering(RemovalReason.EXPIRED, 100, 0, 0, [range(2, 5, 2)])
    assert not harness.came, "that is not on record yet"
    harness.settle_down()
    assert harness.came == [(2, 100), (4, 100)]
    harness.at(1_000)
    harness.settle_down()
    assert harness.order == [2, 4, 3, 1]
    assert harness.image.state.live_count == 0
    assert harness.image.state.gone[RemovalReason.DEAD_LETTERED] == 4


def test_what_has_no_delay_comes_out_at_once() -> None:
    harness = DelayedQueueHarness()
    harness.at(7)
    harness.publish_all(0)
    harness.settle_down()
    assert harness.came == [(1, 7)]


def test_a_next_leader_knows_when_each_is_due() -> None:
    harness = DelayedQueueHarness()
    harness.publish_all(*range(5_000, 0, -1))
    harness.settle_down()
    harness.now_ms = 40
    harness.change_leader(0, is_elsewhere=True)
    assert harness.led.queue._ready_list.count == 5_000
    assert harness.led.queue.due_ms == 0, "nobody has looked yet"
    harness.touch()
    harness.settle_down()
    assert harness.order == list(range(5_000, 4_960, -1))
    harness.at(5_000)
    harness.settle_down()
    assert harness.order == list(range(5_000, 0, -1))


def test_a_next_leader_looks_at_each_once_and_at_few_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delayed_ready_list, "LOOKED_MAX", 8)
    harness, looked, asked = DelayedQueueHarness(), list[int](), LogJournal.expiries_of
    for _ in range(20):
        harness.publish_all(*range(1_000, 2_000, 50))
        harness.turn()
    harness.settle_down()

    def expiries_of(contents: LogJournal, run: range) -> Expiries | None:
        looked.extend(run)
        return asked(contents, run)

    monkeypatch.setattr(LogJournal, "expiries_of", expiries_of)
    harness.change_leader(0, is_elsewhere=False)
    harness.at(999)
    harness.turn()
    assert not looked, "none is due yet"
    harness.at(1_000)
    while harness.is_touched or harness.proposals:
        before, harness.is_touched = len(looked), False
        harness.led.pump()
        assert len(looked) <= before + 8 * EXPIRED_SEGMENTS_MAX
        while harness.proposals:
            harness.commit()
    assert sorted(looked) == [*range(1, 401)]
    assert len(harness.came) == 20


def test_a_next_leader_begins_without_a_look_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(delayed_ready_list, "FIRST_LOOKED_MAX", 2)
    harness, looked, asked = DelayedQueueHarness(), list[int](), LiveEntries.span_of
    for _ in range(200):
        harness.publish_all(500, 400)
        harness.turn()
    harness.settle_down()

    def span_of(entries: LiveEntries, start: int, stop: int) -> tuple[int, int]:
        looked.extend(range(start, stop))
        return asked(entries, start, stop)

    monkeypatch.setattr(LiveEntries, "span_of", span_of)
    harness.change_leader(0, is_elsewhere=False)
    assert not looked
    while harness.is_touched or harness.proposals:
        before, harness.is_touched = len(looked), False
        harness.led.pump()
        assert len(looked) <= before + 2 * 2 * EXPIRED_SEGMENTS_MAX
        while harness.proposals:
            harness.commit()
    assert sorted(looked) == [*range(200)]
    assert harness.led.queue.due_ms == 400


def test_no_turn_takes_off_more_than_are_handed_on_in_one() -> None:
    harness = DelayedQueueHarness()
    harness.publish_all(*[50] * 1_000)
    harness.settle_down()
    harness.at(50)
    while harness.is_touched or harness.proposals:
        harness.is_touched = False
        harness.led.pump()
        said = [
            fact for payload, _on_outcome in harness.proposals for fact in decode(payload).facts
        ]
        dead = [run for fact in said if isinstance(fact, DeadLettering) for run in fact.runs]
        assert sum(map(len, dead)) <= dead_letter_outbox.TURN_MAX
        while harness.proposals:
            harness.commit()
    assert len(harness.came) == 1_000


def test_no_more_are_dead_than_can_be_handed_on_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "DUE_MAX", 20)
    monkeypatch.setattr(dead_letter_outbox, "UNDER_WAY_MAX", 8)
    monkeypatch.setattr(delayed_ready_list, "TAKEN_MAX", 10)
    harness = DelayedQueueHarness()
    harness.takes_at_once = False
    harness.publish_all(*[50] * 100)
    harness.settle_down()
    harness.at(50)
    harness.settle_down()
    assert len(harness.came) == 8
    assert harness.led.outbox.count == 20
    assert harness.led.queue.due_ms is None, "nothing is due while there is no room"
    while harness.parcels:
        harness.parcels.pop(0).known("target", is_accepted=True)
        harness.settle_down()
        assert harness.led.outbox.count <= 20 + 10
    assert harness.order == list(range(1, 101))


def test_no_turn_hands_on_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all arrive at once, so that there is always room for more."""
    monkeypatch.setattr(dead_letter_outbox, "TURN_MAX", 8)
    harness = DelayedQueueHarness()
    harness.publish_all(*[50] * 100)
    harness.settle_down()
    harness.at(50)
    while len(harness.came) < 100:
        before = len(harness.came)
        if harness.is_touched:
            harness.is_touched = False
            harness.led.pump()
        else:
            assert harness.proposals, "it asks for another turn"
            harness.commit()
        assert len(harness.came) <= before + 8
    assert harness.order == list(range(1, 101))


def test_it_may_be_looked_at() -> None:
    harness = DelayedQueueHarness()
    harness.publish_all(30, 20)
    harness.settle_down()
    seen = harness.led.queue.peek(PeekRequest(0, 5, 10)).seen
    assert [(each.body, each.expires_at_ms) for each in seen] == [(b"1", 30), (b"2", 20)]


def whatever(seed: int, *, faults: bool) -> DelayedQueueHarness:
    chance, harness = Random(seed), DelayedQueueHarness()
    for _ in range(250):
        dice = chance.random()
        if dice < 0.4:
            delays = [chance.choice([1, 30, 30, chance.randrange(1, 2_000)]) for _ in range(4)]
            harness.publish_all(*delays[: chance.randrange(1, 5)])
        elif dice < 0.6:
            harness.at(harness.now_ms + chance.randrange(60))
        elif dice < 0.8 or not faults:
            harness.turn()
            harness.commit()
            harness.hear()
        else:
            kept = chance.randrange(len(harness.proposals) + 1)
            harness.change_leader(kept, is_elsewhere=chance.random() < 0.5)
            harness.hear()
            harness.ask_from(min(harness.asked, default=1))
            harness.touch()
    harness.settle_down()
    harness.at(harness.now_ms + 10_000)
    harness.touch()
    harness.settle_down()
    harness.hear()
    return harness


@seeds(20)
def test_each_comes_out_once_in_order_and_not_before_it_is_due(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    harness = whatever(seed, faults=False)
    assert harness.safe == {*range(1, harness.sent + 1)}
    assert harness.order == sorted(
        harness.due_ms, key=lambda number: (harness.due_ms[number], number)
    )
    assert all(at_ms >= harness.due_ms[number] for number, at_ms in harness.came)
    assert harness.image.state.live_count == 0


@seeds(30)
def test_leaders_change_and_each_comes_out_not_before_it_is_due(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    harness = whatever(seed, faults=True)
    assert not harness.asked
    assert {*harness.order} == harness.safe == {*range(1, harness.sent + 1)}
    assert all(at_ms >= harness.due_ms[number] for number, at_ms in harness.came)
    assert harness.image.state.live_count == 0
    arrived = harness.image.state.gone[RemovalReason.DEAD_LETTERED]
    assert arrived == harness.sent, "each is on record as arrived once, however often it came"


def test_what_arrived_is_on_record() -> None:
    harness = DelayedQueueHarness()
    harness.publish_all(5)
    harness.settle_down()
    harness.at(5)
    harness.turn()
    harness.commit()
    harness.turn()
    assert harness.facts() == [DeadLettered([range(1, 2)])]
