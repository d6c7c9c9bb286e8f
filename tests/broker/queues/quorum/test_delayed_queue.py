"""The led queue of an x-delayed-message exchange: each message comes out when it is due.

What is known of it is in `delaying`.
"""

from __future__ import annotations

from random import Random

import pytest

from fluffle.broker.queues import delayed_ready_list
from fluffle.broker.queues.engine import EXPIRED_SEGMENTS_MAX
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.queue_view import PeekRequest
from fluffle.broker.queues.quorum import dead_letter_outbox, delayed_queue
from fluffle.broker.queues.quorum.encoding import decode
from fluffle.broker.queues.quorum.entries import Entries
from fluffle.broker.queues.quorum.facts import (
    DeadLettered,
    DeadLettering,
    Reason,
)
from fluffle.broker.queues.quorum.message_reader import LogJournal
from tests.broker.queues.quorum.delaying import Calendar
from tests.broker.queues.quorum.test_leadership import make_small
from tests.suite.seeds import seeds


def test_they_come_out_in_the_order_of_their_times() -> None:
    bench = Calendar()
    bench.publish_all(300, 100, 200, 100)
    bench.settle_down()
    assert bench.wakes[-1] == 100
    assert bench.led.queue.ready_count == 4
    bench.at(99)
    bench.settle_down()
    assert not bench.came
    bench.at(100)
    bench.turn()
    assert bench.facts()[-1] == DeadLettering(Reason.EXPIRED, 100, 0, 0, [range(2, 5, 2)])
    assert not bench.came, "that is not on record yet"
    bench.settle_down()
    assert bench.came == [(2, 100), (4, 100)]
    bench.at(1_000)
    bench.settle_down()
    assert bench.order == [2, 4, 3, 1]
    assert bench.image.state.live_count == 0
    assert bench.image.state.gone[Reason.DEAD_LETTERED] == 4


def test_what_has_no_delay_comes_out_at_once() -> None:
    bench = Calendar()
    bench.at(7)
    bench.publish_all(0)
    bench.settle_down()
    assert bench.came == [(1, 7)]


def test_a_next_leader_knows_when_each_is_due() -> None:
    bench = Calendar()
    bench.publish_all(*range(5_000, 0, -1))
    bench.settle_down()
    bench.now_ms = 40
    bench.change_leader(0, is_elsewhere=True)
    assert bench.led.queue._ready_list.count == 5_000
    assert bench.led.queue.due_ms == 0, "nobody has looked yet"
    bench.touch()
    bench.settle_down()
    assert bench.order == list(range(5_000, 4_960, -1))
    bench.at(5_000)
    bench.settle_down()
    assert bench.order == list(range(5_000, 0, -1))


def test_a_next_leader_looks_at_each_once_and_at_few_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delayed_ready_list, "LOOKED_MAX", 8)
    bench, looked, asked = Calendar(), list[int](), LogJournal.expiries_of
    for _ in range(20):
        bench.publish_all(*range(1_000, 2_000, 50))
        bench.turn()
    bench.settle_down()

    def expiries_of(contents: LogJournal, run: range) -> Expiries | None:
        looked.extend(run)
        return asked(contents, run)

    monkeypatch.setattr(LogJournal, "expiries_of", expiries_of)
    bench.change_leader(0, is_elsewhere=False)
    bench.at(999)
    bench.turn()
    assert not looked, "none is due yet"
    bench.at(1_000)
    while bench.is_touched or bench.proposals:
        before, bench.is_touched = len(looked), False
        bench.led.pump()
        assert len(looked) <= before + 8 * EXPIRED_SEGMENTS_MAX
        while bench.proposals:
            bench.commit()
    assert sorted(looked) == [*range(1, 401)]
    assert len(bench.came) == 20


def test_a_next_leader_begins_without_a_look_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(delayed_ready_list, "FIRST_LOOKED_MAX", 2)
    bench, looked, asked = Calendar(), list[int](), Entries.span_of
    for _ in range(200):
        bench.publish_all(500, 400)
        bench.turn()
    bench.settle_down()

    def span_of(entries: Entries, start: int, stop: int) -> tuple[int, int]:
        looked.extend(range(start, stop))
        return asked(entries, start, stop)

    monkeypatch.setattr(Entries, "span_of", span_of)
    bench.change_leader(0, is_elsewhere=False)
    assert not looked
    while bench.is_touched or bench.proposals:
        before, bench.is_touched = len(looked), False
        bench.led.pump()
        assert len(looked) <= before + 2 * 2 * EXPIRED_SEGMENTS_MAX
        while bench.proposals:
            bench.commit()
    assert sorted(looked) == [*range(200)]
    assert bench.led.queue.due_ms == 400


def test_no_turn_takes_off_more_than_are_handed_on_in_one() -> None:
    bench = Calendar()
    bench.publish_all(*[50] * 1_000)
    bench.settle_down()
    bench.at(50)
    while bench.is_touched or bench.proposals:
        bench.is_touched = False
        bench.led.pump()
        said = [fact for payload, _on_fate in bench.proposals for fact in decode(payload).facts]
        dead = [run for fact in said if isinstance(fact, DeadLettering) for run in fact.runs]
        assert sum(map(len, dead)) <= dead_letter_outbox.TURN_MAX
        while bench.proposals:
            bench.commit()
    assert len(bench.came) == 1_000


def test_no_more_are_dead_than_can_be_handed_on_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed_queue, "DUE_MAX", 20)
    monkeypatch.setattr(dead_letter_outbox, "UNDER_WAY_MAX", 8)
    monkeypatch.setattr(delayed_ready_list, "TAKEN_MAX", 10)
    bench = Calendar()
    bench.takes_at_once = False
    bench.publish_all(*[50] * 100)
    bench.settle_down()
    bench.at(50)
    bench.settle_down()
    assert len(bench.came) == 8
    assert bench.led.outbox.count == 20
    assert bench.led.queue.due_ms is None, "nothing is due while there is no room"
    while bench.parcels:
        bench.parcels.pop(0).known("target", is_taken=True)
        bench.settle_down()
        assert bench.led.outbox.count <= 20 + 10
    assert bench.order == list(range(1, 101))


def test_no_turn_hands_on_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all arrive at once, so that there is always room for more."""
    monkeypatch.setattr(dead_letter_outbox, "TURN_MAX", 8)
    bench = Calendar()
    bench.publish_all(*[50] * 100)
    bench.settle_down()
    bench.at(50)
    while len(bench.came) < 100:
        before = len(bench.came)
        if bench.is_touched:
            bench.is_touched = False
            bench.led.pump()
        else:
            assert bench.proposals, "it asks for another turn"
            bench.commit()
        assert len(bench.came) <= before + 8
    assert bench.order == list(range(1, 101))


def test_it_may_be_looked_at() -> None:
    bench = Calendar()
    bench.publish_all(30, 20)
    bench.settle_down()
    seen = bench.led.queue.peek(PeekRequest(0, 5, 10)).seen
    assert [(each.body, each.expires_at_ms) for each in seen] == [(b"1", 30), (b"2", 20)]


def whatever(seed: int, *, faults: bool) -> Calendar:
    chance, bench = Random(seed), Calendar()
    for _ in range(250):
        dice = chance.random()
        if dice < 0.4:
            delays = [chance.choice([1, 30, 30, chance.randrange(1, 2_000)]) for _ in range(4)]
            bench.publish_all(*delays[: chance.randrange(1, 5)])
        elif dice < 0.6:
            bench.at(bench.now_ms + chance.randrange(60))
        elif dice < 0.8 or not faults:
            bench.turn()
            bench.commit()
            bench.hear()
        else:
            kept = chance.randrange(len(bench.proposals) + 1)
            bench.change_leader(kept, is_elsewhere=chance.random() < 0.5)
            bench.hear()
            bench.ask_from(min(bench.asked, default=1))
            bench.touch()
    bench.settle_down()
    bench.at(bench.now_ms + 10_000)
    bench.touch()
    bench.settle_down()
    bench.hear()
    return bench


@seeds(20)
def test_each_comes_out_once_in_order_and_not_before_it_is_due(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    bench = whatever(seed, faults=False)
    assert bench.safe == {*range(1, bench.sent + 1)}
    assert bench.order == sorted(bench.due_ms, key=lambda number: (bench.due_ms[number], number))
    assert all(at_ms >= bench.due_ms[number] for number, at_ms in bench.came)
    assert bench.image.state.live_count == 0


@seeds(30)
def test_leaders_change_and_each_comes_out_not_before_it_is_due(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    bench = whatever(seed, faults=True)
    assert not bench.asked
    assert {*bench.order} == bench.safe == {*range(1, bench.sent + 1)}
    assert all(at_ms >= bench.due_ms[number] for number, at_ms in bench.came)
    assert bench.image.state.live_count == 0
    arrived = bench.image.state.gone[Reason.DEAD_LETTERED]
    assert arrived == bench.sent, "each is on record as arrived once, however often it came"


def test_what_arrived_is_on_record() -> None:
    bench = Calendar()
    bench.publish_all(5)
    bench.settle_down()
    bench.at(5)
    bench.turn()
    bench.commit()
    bench.turn()
    assert bench.facts() == [DeadLettered([range(1, 2)])]
