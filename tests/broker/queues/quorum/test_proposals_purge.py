"""Purges said in pieces: of a led queue with priorities, and of an x-delayed-message exchange."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import leadership, proposals
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entries import LiveEntry
from fluffle.broker.queues.quorum.entry_codec import decode
from fluffle.broker.queues.quorum.facts import Purged, RemovalReason, SessionId
from fluffle.broker.queues.quorum.proposals import PendingPurge
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from tests.broker.queues.quorum.delayed_queue_harness import DelayedQueueHarness
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.suite.seeds import seeds


def test_a_purge_drops_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = DelayedQueueHarness()
    harness.publish_all(10, 20, 30)
    harness.settle_down()
    harness.change_leader(0, is_elsewhere=False)
    harness.publish_all(40, 50)
    harness.at(10)
    harness.settle_down()
    harness.led.purge(harness.key, harness.sent + 1)
    harness.touch()
    harness.settle_down()
    assert (harness.led.queue.ready_count, harness.image.state.live_count) == (0, 0)
    harness.at(1_000)
    harness.settle_down()
    assert harness.order == [1]


@pytest.mark.parametrize("is_turn_between", [False, True])
def test_two_purges_say_each_message_once(*, is_turn_between: bool) -> None:
    """The first is not on record yet when the second is decided."""
    harness = DelayedQueueHarness()
    harness.publish_all(*[100] * 5)
    harness.settle_down()
    assert harness.purged() == 5
    if is_turn_between:
        harness.turn()
        harness.publish_all(100, 100)
    assert harness.purged() == (2 if is_turn_between else 0)
    harness.settle_down()
    assert harness.image.state.gone[RemovalReason.PURGED] == harness.sent
    assert harness.image.state.live_count == 0


@seeds(30)
def test_purges_leave_what_is_dead_and_take_what_is_under_way(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "PIECE_RUNS", 1 + seed % 3)
    chance, harness = Random(seed), DelayedQueueHarness()
    waited = 0
    for _ in range(chance.randrange(1, 12)):
        harness.publish_all(*(chance.randrange(100) for _ in range(chance.randrange(1, 9))))
        harness.at(harness.now_ms + chance.randrange(20))
        if chance.random() < 0.8:
            harness.turn()
        for _ in range(chance.randrange(3)):
            harness.commit()
        while chance.random() < 0.3:
            waited += harness.purged()
            if chance.random() < 0.5:
                harness.turn()
        if chance.random() < 0.1:
            harness.change_leader(len(harness.proposals), is_elsewhere=chance.random() < 0.5)
            waited = 0  # a purge may not have been proposed
    waited += harness.purged()
    harness.settle_down()
    harness.at(1_000)
    harness.settle_down()
    gone = harness.image.state.gone
    assert gone[RemovalReason.PURGED] >= waited, (
        "and maybe some that are dead and were not handed on"
    )
    assert gone[RemovalReason.DEAD_LETTERED] == len(harness.came)
    assert (
        gone[RemovalReason.DEAD_LETTERED] + gone[RemovalReason.PURGED]
        == harness.image.state.next_sequence - 1
    )
    assert harness.image.state.live_count == 0


def pieces(harness: DelayedQueueHarness) -> list[int]:
    """How many runs each purge among the entries under way names."""
    facts = [fact for payload, _on_outcome in harness.proposals for fact in decode(payload).facts]
    return [len(fact.runs) for fact in facts if isinstance(fact, Purged)]


def holey(harness: DelayedQueueHarness, count: int) -> None:
    """Entries of four messages each, of which the second has gone; so each is two runs."""
    for _ in range(count):
        harness.publish_all(100, 5, 100, 100)
        harness.turn()
    harness.settle_down()
    harness.at(10)
    harness.settle_down()
    assert len(harness.came) == count


def test_no_turn_says_more_of_a_purge_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "PIECE_RUNS", 8)
    harness = DelayedQueueHarness()
    holey(harness, 50)
    assert harness.purged() == 150
    harness.publish_all(200)
    said, turns = list[int](), 0
    while harness.is_touched or harness.proposals:
        turns += harness.is_touched
        harness.is_touched = False
        harness.led.pump()
        said += pieces(harness)
        assert len(harness.proposals) <= 2, "a piece, and what was decided before or behind all"
        while harness.proposals:
            harness.commit()
    assert max(said) <= 8
    assert turns >= 100 // 8
    assert harness.image.state.gone[RemovalReason.PURGED] == 150
    assert harness.image.state.live_count == 1
    harness.at(1_000)
    harness.settle_down()
    assert harness.order[50:] == [201]


def test_a_purge_is_answered_behind_its_last_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "PIECE_RUNS", 8)
    harness = DelayedQueueHarness()
    holey(harness, 50)
    harness.purged()
    harness.take()
    while harness.image.state.live_count:
        assert not any(isinstance(each, m.AnswerReply) for each in harness.take_messages())
        harness.turn()
        harness.commit()
    harness.settle_down()
    assert [each.answer for each in harness.take_messages() if isinstance(each, m.AnswerReply)] == [
        150
    ]


@pytest.mark.parametrize("kept", range(0, 14, 2))
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_leader_goes_in_the_midst_of_a_purge(
    kept: int, is_elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge's end was not reported, and its client asks the next leader."""
    monkeypatch.setattr(proposals, "PIECE_RUNS", 8)
    harness = DelayedQueueHarness()
    holey(harness, 50)
    harness.purged()
    for _ in range(5):
        harness.is_touched = False
        harness.led.pump()
    harness.change_leader(min(kept, len(harness.proposals)), is_elsewhere=is_elsewhere)
    assert not any(isinstance(each, m.AnswerReply) for each in harness.take_messages())
    waiting = harness.led.queue.ready_count
    assert waiting == harness.image.state.live_count > 0
    asker = harness.led.sessions.open(SessionId("b", 1, 1, 1))
    harness.led.purge(asker, 1)
    harness.publish_all(500)
    harness.touch()
    harness.settle_down()
    assert [each.answer for each in harness.take_messages() if isinstance(each, m.AnswerReply)] == [
        waiting
    ]
    assert harness.image.state.live_count == 1
    restored = restored_image(take_snapshot(harness.image)[1])
    assert image_digest(restored) == image_digest(harness.image)
    harness.change_leader(0, is_elsewhere=not is_elsewhere)
    harness.at(2_000)
    harness.touch()
    harness.settle_down()
    assert harness.order[50:] == [201], "what was purged does not come back"


def test_settings_change_and_time_passes_while_a_purge_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Later proposals are decided by later settings, at a later time."""
    monkeypatch.setattr(proposals, "PIECE_RUNS", 8)
    monkeypatch.setattr(leadership, "ENTRY_BYTES", 1)
    harness = DelayedQueueHarness()
    holey(harness, 50)
    harness.purged()
    harness.led.change_settings(7, replace(harness.settings, delivery_limit=3))
    harness.publish_all(90)
    harness.at(50)
    harness.publish_all(90, 90)
    harness.purged()
    harness.settle_down()
    assert harness.image.state.revision == 7
    assert harness.image.state.gone[RemovalReason.PURGED] == 153
    assert harness.image.state.live_count == 0


def urgent_bench(chance: Random, entries: int) -> LeaderHarness:
    """Entries of messages of several priorities each."""
    harness = LeaderHarness(quorum())
    edge = harness.open_edge()
    for _ in range(entries):
        for _ in range(chance.randrange(1, 4)):
            harness.publish(edge, chance.randrange(1, 5), priority=chance.choice([None, 0, 5, 9]))
        harness.turn()
    harness.settle_down()
    return harness


@seeds(40)
def test_a_purge_takes_what_waits_of_all_priorities(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some is in memory, some on disk only, some under way, in somebody's hands, or back."""
    monkeypatch.setattr(proposals, "PIECE_RUNS", 1 + seed % 6)
    chance = Random(seed)
    harness = urgent_bench(chance, chance.randrange(1, 30))
    (edge,) = harness.edges
    purged = 0
    for _ in range(chance.randrange(1, 4)):
        if chance.random() < 0.7:
            harness.change_leader(0, is_elsewhere=chance.random() < 0.5)
        for _ in range(chance.randrange(4)):
            harness.get(edge, no_ack=False)
            harness.settle_down()
        back = [number for number in edge.holds if chance.random() < 0.5]
        harness.end(edge, back, chance.choice([Outcome.NACK_REQUEUED, Outcome.LOST]))
        for _ in range(chance.randrange(4)):
            harness.publish(edge, chance.randrange(1, 5), priority=chance.choice([None, 0, 7]))
            if chance.random() < 0.5:
                harness.turn()
        purged += harness.led.queue.ready_count
        harness.purge(edge)
        harness.publish(edge, 1, priority=9)
        harness.settle_down()
        harness.check()
        assert harness.led.queue.ready_count == 1
        assert harness.image.state.gone[RemovalReason.PURGED] == purged


def test_no_turn_looks_for_more_of_many_priorities_than_so_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proposals, "PIECE_RUNS", 8)
    harness = urgent_bench(Random(0), 50)
    (edge,) = harness.edges
    held = 50
    for _ in range(held):
        harness.publish(edge, 1, priority=20)
        harness.turn()
    harness.attach(edge, prefetch=held)  # of these entries none waits
    for _ in range(50):
        harness.publish(edge, 2, priority=0)
        harness.turn()
    harness.settle_down()
    harness.change_leader(0, is_elsewhere=False)
    waiting, looked = harness.led.queue.ready_count, list[int]()
    look = PendingPurge._of

    def noted(self: PendingPurge, entry: LiveEntry) -> list[range]:
        looked[-1] += 1
        return look(self, entry)

    monkeypatch.setattr(PendingPurge, "_of", noted)
    looked.append(0)
    harness.purge(edge)
    while harness.is_touched or harness.proposals:
        harness.is_touched = False
        looked.append(0)
        harness.led.pump()
        while harness.proposals:
            harness.commit()
    assert max(looked) <= 8
    assert sum(looked) == 150
    assert harness.image.state.gone[RemovalReason.PURGED] == waiting
    assert harness.image.state.live_count == held
