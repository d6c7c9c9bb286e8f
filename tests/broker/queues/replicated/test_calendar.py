"""The led queue of an x-delayed-message exchange: each message comes out when it is due.

The model is a list: who was taken, when he is due, and who has come out, in which order.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from fluffle.broker.queues import calendar_lane
from fluffle.broker.queues.calendar_spec import calendar_spec
from fluffle.broker.queues.dead import DeadMessages
from fluffle.broker.queues.engine import EXPIRED_SEGMENTS_MAX
from fluffle.broker.queues.expiries import Expiries
from fluffle.broker.queues.parcels import Parcel
from fluffle.broker.queues.peeking import View
from fluffle.broker.queues.replicated import calendar, leadership, outbox, sweep
from fluffle.broker.queues.replicated import effects as e
from fluffle.broker.queues.replicated.contents import Contents
from fluffle.broker.queues.replicated.encoding import decode
from fluffle.broker.queues.replicated.facts import (
    DeadLettered,
    DeadLettering,
    Purged,
    Reason,
    SessionId,
)
from fluffle.broker.queues.replicated.image import Image
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.deaths import DeathReason
from fluffle.protocol.properties import Properties, body_of, build_content, encode_properties
from tests.broker.queues.replicated.make import ORIGIN
from tests.broker.queues.replicated.telling import Told
from tests.broker.queues.replicated.test_leadership import make_small

SPEC = calendar_spec("x", "/", durable=True)


def message(number: int, delay_ms: int) -> bytes:
    headers = {"x-delay": ("l", delay_ms)} if delay_ms else {}
    return build_content(encode_properties(Properties(headers=headers)), b"%d" % number)  # type: ignore[arg-type]


class Calendar(Told):
    """With one publisher, who asks again what he has not heard of, and one queue where all goes."""

    def __init__(self) -> None:
        self.came: list[tuple[int, int]] = []
        """Which messages have come out, and when."""
        self.due_ms: dict[int, int] = {}
        """When each message is due that was taken, if no leader was changed."""
        self.asked: dict[int, bytes] = {}
        """By number, what the publisher has not heard of."""
        self.safe: set[int] = set()
        self.sent = 0
        self.parcels: list[Parcel] = []
        """What is under way, while it is not taken at once."""
        self.takes_at_once = True
        self.purges = 0
        super().__init__(SPEC)
        self.key = self.session()
        self.settle_down()

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings.dead_letter_exchange) == ("amq.delayed.x", "x")
        assert dead.reason is DeathReason.EXPIRED
        assert dead.parcels is not None
        for content, parcel in zip(dead.contents, dead.parcels, strict=True):
            self.came.append((int(body_of(content)), self.now_ms))
            parcel.lead(["target"])
            parcel.settle()
            if self.takes_at_once:
                parcel.known("target", is_taken=True)
            else:
                self.parcels.append(parcel)

    def publish_all(self, *delays_ms: int) -> None:
        first = self.sent + 1
        for delay_ms in delays_ms:
            self.sent += 1
            self.asked[self.sent] = message(self.sent, delay_ms)
            self.due_ms[self.sent] = self.now_ms + delay_ms
        self.ask_from(first)

    def ask_from(self, first: int) -> None:
        contents = [content for number, content in self.asked.items() if number >= first]
        if contents:
            self.led.publish(self.key, first, [ORIGIN] * len(contents), contents)
            self.touch(self.led)

    def purged(self) -> int:
        """Somebody else purges it; how many wait, of which none does then."""
        self.purges += 1
        waiting = self.led.queue.ready_count
        self.led.purge(self.led.sessions.open(SessionId("b", 1, 1, self.purges)), 1)
        assert self.led.queue.ready_count == 0
        self.touch(self.led)
        return waiting

    def hear(self) -> None:
        for effect in self.take():
            if isinstance(effect, e.Done):
                for number in range(effect.first, effect.first + effect.count):
                    self.asked.pop(number, None)
                    self.safe.add(number)

    def at(self, now_ms: int) -> None:
        """It is so late now, and the queue is looked at if it has asked for that."""
        left_ms = [wish_ms - (now_ms - self.now_ms) for wish_ms in self.wakes]
        self.now_ms, self.wakes[:] = now_ms, [left for left in left_ms if left > 0]
        self.is_touched = self.is_touched or len(self.wakes) < len(left_ms)

    @property
    def order(self) -> list[int]:
        return [number for number, _at_ms in self.came]


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
    assert bench.led.queue._lane.count == 5_000
    assert bench.led.queue.due_ms == 1
    bench.touch(bench.led)
    bench.settle_down()
    assert bench.order == list(range(5_000, 4_960, -1))
    bench.at(5_000)
    bench.settle_down()
    assert bench.order == list(range(5_000, 0, -1))


def test_a_next_leader_looks_at_each_once_and_at_few_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calendar_lane, "LOOKED_MAX", 8)
    bench, looked, asked = Calendar(), list[int](), Contents.expiries_of
    for _ in range(20):
        bench.publish_all(*range(1_000, 2_000, 50))
        bench.turn()
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)

    def expiries_of(contents: Contents, run: range) -> Expiries | None:
        looked.extend(run)
        return asked(contents, run)

    monkeypatch.setattr(Contents, "expiries_of", expiries_of)
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
        assert sum(map(len, dead)) <= outbox.TURN_MAX
        while bench.proposals:
            bench.commit()
    assert len(bench.came) == 1_000


def test_no_more_are_dead_than_can_be_handed_on_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendar, "DUE_MAX", 20)
    monkeypatch.setattr(outbox, "UNDER_WAY_MAX", 8)
    monkeypatch.setattr(calendar_lane, "TAKEN_MAX", 10)
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
    monkeypatch.setattr(outbox, "TURN_MAX", 8)
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


def test_a_purge_drops_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Calendar()
    bench.publish_all(10, 20, 30)
    bench.settle_down()
    bench.change_leader(0, is_elsewhere=False)
    bench.publish_all(40, 50)
    bench.at(10)
    bench.settle_down()
    bench.led.purge(bench.key, bench.sent + 1)
    bench.touch(bench.led)
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


@pytest.mark.parametrize("seed", range(30))
def test_purges_leave_what_is_dead_and_take_what_is_under_way(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PIECE_RUNS", 1 + seed % 3)
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
    monkeypatch.setattr(sweep, "PIECE_RUNS", 8)
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
    monkeypatch.setattr(sweep, "PIECE_RUNS", 8)
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
    monkeypatch.setattr(sweep, "PIECE_RUNS", 8)
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
    bench.touch(bench.led)
    bench.settle_down()
    assert [effect.answer for effect in bench.take() if isinstance(effect, e.Answer)] == [waiting]
    assert bench.image.state.live_count == 1
    restored = Image.restored(bench.image.snapshot()[1])
    assert restored.digest() == bench.image.digest()
    bench.change_leader(0, is_elsewhere=not is_elsewhere)
    bench.at(2_000)
    bench.touch(bench.led)
    bench.settle_down()
    assert bench.order[50:] == [201], "what was purged does not come back"


def test_settings_change_and_time_passes_while_a_purge_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is drafted meanwhile is decided by later settings, at a later time: it is behind."""
    monkeypatch.setattr(sweep, "PIECE_RUNS", 8)
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


def test_it_may_be_looked_at() -> None:
    bench = Calendar()
    bench.publish_all(30, 20)
    bench.settle_down()
    seen = bench.led.queue.peek(View(0, 5, 10)).seen
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
            bench.touch(bench.led)
    bench.settle_down()
    bench.at(bench.now_ms + 10_000)
    bench.touch(bench.led)
    bench.settle_down()
    bench.hear()
    return bench


@pytest.mark.parametrize("seed", range(20))
def test_each_comes_out_once_in_order_and_not_before_it_is_due(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    bench = whatever(seed, faults=False)
    assert bench.safe == {*range(1, bench.sent + 1)}
    assert bench.order == sorted(bench.due_ms, key=lambda number: (bench.due_ms[number], number))
    assert all(at_ms >= bench.due_ms[number] for number, at_ms in bench.came)
    assert bench.image.state.live_count == 0


@pytest.mark.parametrize("seed", range(30))
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
