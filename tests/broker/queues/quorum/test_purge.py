"""Purges said in pieces: of a led queue with priorities, and of an x-delayed-message exchange."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum import leadership, message_reader
from fluffle.broker.queues.quorum.encoding import decode
from fluffle.broker.queues.quorum.entries import Entry
from fluffle.broker.queues.quorum.facts import Purged, Reason, SessionId
from fluffle.broker.queues.quorum.image import Image
from fluffle.broker.queues.quorum.message_reader import Purge
from tests.broker.queues.quorum.delaying import Calendar
from tests.broker.queues.quorum.leading import Bench, quorum
from tests.suite.seeds import seeds


def test_a_purge_drops_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Calendar()
    bench.publish_all(10, 20, 30)
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)
    bench.publish_all(40, 50)
    bench.at(10)
    bench.settle_down()
    bench.led.purge(bench.key, bench.sent + 1)
    bench.touch()
    bench.settle_down()
    assert (bench.led.queue.ready_count, bench.image.state.live_count) == (0, 0)
    bench.at(1_000)
    bench.settle_down()
    assert bench.order == [1]


@pytest.mark.parametrize("is_turn_between", [False, True])
def test_two_purges_say_each_message_once(*, is_turn_between: bool) -> None:
    """The first is not on record yet when the second is decided."""
    bench = Calendar()
    bench.publish_all(*[100] * 5)
    bench.settle_down()
    assert bench.purged() == 5
    if is_turn_between:
        bench.turn()
        bench.publish_all(100, 100)
    assert bench.purged() == (2 if is_turn_between else 0)
    bench.settle_down()
    assert bench.image.state.gone[Reason.PURGED] == bench.sent
    assert bench.image.state.live_count == 0


@seeds(30)
def test_purges_leave_what_is_dead_and_take_what_is_under_way(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 1 + seed % 3)
    chance, bench = Random(seed), Calendar()
    waited = 0
    for _ in range(chance.randrange(1, 12)):
        bench.publish_all(*(chance.randrange(100) for _ in range(chance.randrange(1, 9))))
        bench.at(bench.now_ms + chance.randrange(20))
        if chance.random() < 0.8:
            bench.turn()
        for _ in range(chance.randrange(3)):
            bench.commit()
        while chance.random() < 0.3:
            waited += bench.purged()
            if chance.random() < 0.5:
                bench.turn()
        if chance.random() < 0.1:
            bench.change_leader(len(bench.proposals), is_elsewhere=chance.random() < 0.5)
            waited = 0  # a purge may not have been proposed
    waited += bench.purged()
    bench.settle_down()
    bench.at(1_000)
    bench.settle_down()
    gone = bench.image.state.gone
    assert gone[Reason.PURGED] >= waited, "and maybe some that are dead and were not handed on"
    assert gone[Reason.DEAD_LETTERED] == len(bench.came)
    assert gone[Reason.DEAD_LETTERED] + gone[Reason.PURGED] == bench.image.state.next_sequence - 1
    assert bench.image.state.live_count == 0


def pieces(bench: Calendar) -> list[int]:
    """How many runs each purge among the entries under way names."""
    facts = [fact for payload, _on_fate in bench.proposals for fact in decode(payload).facts]
    return [len(fact.runs) for fact in facts if isinstance(fact, Purged)]


def holey(bench: Calendar, count: int) -> None:
    """Entries of four messages each, of which the second has gone; so each is two runs."""
    for _ in range(count):
        bench.publish_all(100, 5, 100, 100)
        bench.turn()
    bench.settle_down()
    bench.at(10)
    bench.settle_down()
    assert len(bench.came) == count


def test_no_turn_says_more_of_a_purge_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 8)
    bench = Calendar()
    holey(bench, 50)
    assert bench.purged() == 150
    bench.publish_all(200)
    said, turns = list[int](), 0
    while bench.is_touched or bench.proposals:
        turns += bench.is_touched
        bench.is_touched = False
        bench.led.pump()
        said += pieces(bench)
        assert len(bench.proposals) <= 2, "a piece, and what was decided before or behind all"
        while bench.proposals:
            bench.commit()
    assert max(said) <= 8
    assert turns >= 100 // 8
    assert bench.image.state.gone[Reason.PURGED] == 150
    assert bench.image.state.live_count == 1
    bench.at(1_000)
    bench.settle_down()
    assert bench.order[50:] == [201]


def test_a_purge_is_answered_behind_its_last_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 8)
    bench = Calendar()
    holey(bench, 50)
    bench.purged()
    bench.take()
    while bench.image.state.live_count:
        assert not any(isinstance(effect, e.Answer) for effect in bench.take())
        bench.turn()
        bench.commit()
    bench.settle_down()
    assert [effect.answer for effect in bench.take() if isinstance(effect, e.Answer)] == [150]


@pytest.mark.parametrize("kept", range(0, 14, 2))
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_leader_goes_in_the_midst_of_a_purge(
    kept: int, is_elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has heard that it is done, and whoever asked for it asks the next leader."""
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 8)
    bench = Calendar()
    holey(bench, 50)
    bench.purged()
    for _ in range(5):
        bench.is_touched = False
        bench.led.pump()
    bench.change_leader(min(kept, len(bench.proposals)), is_elsewhere=is_elsewhere)
    assert not any(isinstance(effect, e.Answer) for effect in bench.take())
    waiting = bench.led.queue.ready_count
    assert waiting == bench.image.state.live_count > 0
    asker = bench.led.sessions.open(SessionId("b", 1, 1, 1))
    bench.led.purge(asker, 1)
    bench.publish_all(500)
    bench.touch()
    bench.settle_down()
    assert [effect.answer for effect in bench.take() if isinstance(effect, e.Answer)] == [waiting]
    assert bench.image.state.live_count == 1
    restored = Image.restored(bench.image.snapshot()[1])
    assert restored.digest() == bench.image.digest()
    bench.change_leader(0, is_elsewhere=not is_elsewhere)
    bench.at(2_000)
    bench.touch()
    bench.settle_down()
    assert bench.order[50:] == [201], "what was purged does not come back"


def test_settings_change_and_time_passes_while_a_purge_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is drafted meanwhile is decided by later settings, at a later time: it is behind."""
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 8)
    monkeypatch.setattr(leadership, "ENTRY_BYTES", 1)
    bench = Calendar()
    holey(bench, 50)
    bench.purged()
    bench.led.change_settings(7, replace(bench.settings, delivery_limit=3))
    bench.publish_all(90)
    bench.at(50)
    bench.publish_all(90, 90)
    bench.purged()
    bench.settle_down()
    assert bench.image.state.revision == 7
    assert bench.image.state.gone[Reason.PURGED] == 153
    assert bench.image.state.live_count == 0


def urgent_bench(chance: Random, entries: int) -> Bench:
    """Entries of messages of several priorities each."""
    bench = Bench(quorum())
    edge = bench.open_edge()
    for _ in range(entries):
        for _ in range(chance.randrange(1, 4)):
            bench.publish(edge, chance.randrange(1, 5), priority=chance.choice([None, 0, 5, 9]))
        bench.turn()
    bench.settle_down()
    return bench


@seeds(40)
def test_a_purge_takes_what_waits_of_all_priorities(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some is in memory, some on disk only, some under way, in somebody's hands, or back."""
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 1 + seed % 6)
    chance = Random(seed)
    bench = urgent_bench(chance, chance.randrange(1, 30))
    (edge,) = bench.edges
    purged = 0
    for _ in range(chance.randrange(1, 4)):
        if chance.random() < 0.7:
            bench.change_leader(0, is_elsewhere=chance.random() < 0.5)
        for _ in range(chance.randrange(4)):
            bench.get(edge, no_ack=False)
            bench.settle_down()
        back = [number for number in edge.holds if chance.random() < 0.5]
        bench.end(edge, back, chance.choice([Outcome.NACK_REQUEUED, Outcome.LOST]))
        for _ in range(chance.randrange(4)):
            bench.publish(edge, chance.randrange(1, 5), priority=chance.choice([None, 0, 7]))
            if chance.random() < 0.5:
                bench.turn()
        purged += bench.led.queue.ready_count
        bench.purge(edge)
        bench.publish(edge, 1, priority=9)
        bench.settle_down()
        bench.check()
        assert bench.led.queue.ready_count == 1
        assert bench.image.state.gone[Reason.PURGED] == purged


def test_no_turn_looks_for_more_of_many_priorities_than_so_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(message_reader, "PIECE_RUNS", 8)
    bench = urgent_bench(Random(0), 50)
    (edge,) = bench.edges
    held = 50
    for _ in range(held):
        bench.publish(edge, 1, priority=20)
        bench.turn()
    bench.attach(edge, prefetch=held)  # of these entries none waits
    for _ in range(50):
        bench.publish(edge, 2, priority=0)
        bench.turn()
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)
    waiting, looked = bench.led.queue.ready_count, list[int]()
    look = Purge._of

    def noted(self: Purge, entry: Entry) -> list[range]:
        looked[-1] += 1
        return look(self, entry)

    monkeypatch.setattr(Purge, "_of", noted)
    looked.append(0)
    bench.purge(edge)
    while bench.is_touched or bench.proposals:
        bench.is_touched = False
        looked.append(0)
        bench.led.pump()
        while bench.proposals:
            bench.commit()
    assert max(looked) <= 8
    assert sum(looked) == 150
    assert bench.image.state.gone[Reason.PURGED] == waiting
    assert bench.image.state.live_count == held
