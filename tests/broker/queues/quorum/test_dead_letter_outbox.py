"""The dead that must arrive, in a led queue: what becomes of them while they have not."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.queue_api import DeadLetterIds
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum.dead_letter_outbox import (
    PATIENCE_MS,
    PAUSE_MS,
    UNDER_WAY_BYTES_MAX,
    UNDER_WAY_MAX,
)
from fluffle.broker.queues.quorum.encoding import read_messages
from fluffle.broker.queues.quorum.facts import DeadLettered, Purged, Reason
from fluffle.broker.queues.settings import QueueSettings, settings_of
from fluffle.protocol.deaths import DeathReason
from tests.broker.queues.quorum.leading import GROUP, quorum
from tests.broker.queues.quorum.make import ORIGIN
from tests.broker.queues.quorum.telling import Told, bodies, with_consumer


def sure(max_length: int = 1000) -> QueueSpec:
    return quorum(
        dead_letter_exchange="dlx",
        dead_letter_strategy="at-least-once",
        overflow="reject-publish",
        max_length=max_length,
    )


def with_dead(count: int, spec: QueueSpec | None = None) -> tuple[Told, int]:
    """A queue in which so many have died, each for itself, and its session."""
    bench, session, key = with_consumer(spec=spec or sure())
    bench.led.publish(session, 2, *bodies(count))
    bench.settle_down()
    tokens = [(0, range(number, number + 1)) for number in range(1, count + 1)]
    bench.now_ms = 7
    bench.led.settle(session, count + 2, key, tokens, outcome=Outcome.REJECTED)
    bench.settle_down()
    bench.take()
    return bench, session


def posted(bench: Told) -> list[bytes]:
    """What has been sent since this was asked last."""
    died, bench.died = bench.died, []
    return [content for dead in died for content in dead.contents]


def arrive(bench: Told, *, is_taken: bool = True, queue: str = "target") -> int:
    """All that is under way leads to a queue, which says so; how many that is."""
    parcels = [parcel for dead in bench.died for parcel in dead.parcels or ()]
    bench.died = []
    for parcel in parcels:
        parcel.lead([queue])
        parcel.settle()
    for parcel in parcels:
        parcel.known(queue, is_taken=is_taken)
    return len(parcels)


def after(bench: Told, wait_ms: int) -> None:
    bench.now_ms += wait_ms
    bench.is_touched = True
    bench.settle_down()


def test_it_stays_until_it_has_arrived() -> None:
    bench, _session = with_dead(2)
    [dead] = bench.died
    assert (dead.reason, dead.time_ms, dead.contents) == (
        DeathReason.REJECTED,
        7,
        [b"body 0", b"body 1"],
    )
    state = bench.image.state
    assert state.pending.count == bench.led.outbox.count == 2
    assert arrive(bench) == 2
    bench.turn()
    assert bench.facts() == [DeadLettered([range(1, 3)])]
    assert state.pending.count == 2, "it is not on record yet"
    bench.settle_down()
    assert state.live_count == bench.led.outbox.count == 0
    assert state.gone[Reason.DEAD_LETTERED] == 2


def test_so_many_are_under_way_and_no_more() -> None:
    bench, _session = with_dead(UNDER_WAY_MAX + 3)
    assert len(posted(bench)) == UNDER_WAY_MAX
    bench, _session = with_dead(UNDER_WAY_MAX + 3)
    first, *_others = [parcel for dead in bench.died for parcel in dead.parcels or ()]
    posted(bench)
    first.lead(["target"])
    first.known("target", is_taken=True)
    bench.settle_down()
    assert posted(bench) == [b"body %d" % UNDER_WAY_MAX]


def test_a_backlog_arrives_in_its_order_and_is_not_in_memory() -> None:
    bench, _session = with_dead(100)
    got: list[bytes] = []
    for _ in range(4):
        got += [content for dead in bench.died for content in dead.contents]
        assert all(not dead.contents for dead in bench.led.outbox.waiting)
        arrive(bench)
        bench.settle_down()
    assert got == [b"body %d" % number for number in range(100)]
    assert bench.image.state.live_count == 0


def test_what_is_refused_is_tried_again_after_ever_longer() -> None:
    bench, _session = with_dead(1)
    pause_ms = PAUSE_MS
    for _ in range(3):
        arrive(bench, is_taken=False)
        bench.settle_down()
        pause_ms *= 2
        assert bench.wakes[-1] == pause_ms
        after(bench, pause_ms - 1)
        assert not bench.died
        after(bench, 1)
        assert len(bench.died) == 1
    arrive(bench)
    bench.settle_down()
    assert bench.image.state.live_count == 0


def test_who_says_nothing_is_asked_again_after_long() -> None:
    bench, _session = with_dead(1)
    assert posted(bench) == [b"body 0"]
    assert bench.wakes[-1] == PATIENCE_MS
    after(bench, PATIENCE_MS - 1)
    assert not bench.died
    after(bench, 1)
    assert posted(bench) == [b"body 0"]


def test_the_next_leader_begins_anew() -> None:
    bench, _session = with_dead(40)
    before = posted(bench)[:5]
    bench.change_leader(0, is_elsewhere=True)
    bench.settle_down()
    assert len(bench.died) == 1
    assert posted(bench)[:5] == before
    assert bench.led.outbox.count == 40


def test_an_arrival_after_the_leadership_changes_nothing() -> None:
    bench, _session = with_dead(1)
    [parcel] = bench.died[0].parcels or []
    bench.change_leader(0, is_elsewhere=True)
    bench.settle_down()
    parcel.lead(["target"])
    parcel.known("target", is_taken=True)
    bench.settle_down()
    assert bench.image.state.pending.count == 1


def test_they_count_for_the_length() -> None:
    bench, session = with_dead(3, sure(max_length=2))
    bench.led.publish(session, 6, *bodies(1))
    bench.settle_down()
    assert bench.take() == [e.NotTaken(session, 6, 1)]
    arrive(bench)
    bench.settle_down()
    bench.led.publish(session, 7, *bodies(3))
    bench.settle_down()
    assert e.Done(session, 7, 3) in bench.take()


def test_those_whose_death_is_not_on_record_count_too() -> None:
    bench, session, key = with_consumer(spec=sure(max_length=0))
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    bench.led.settle(session, 3, key, [(0, range(1, 2))], outcome=Outcome.REJECTED)
    bench.led.publish(session, 4, *bodies(1))
    bench.settle_down()
    assert e.NotTaken(session, 4, 1) in bench.take()


def test_a_purge_takes_them() -> None:
    bench, session = with_dead(40)
    bench.led.purge(session, 43)
    bench.turn()
    [*_, purged] = [fact for fact in bench.facts() if isinstance(fact, Purged)]
    assert [number for run in purged.runs for number in run] == [*range(1, 41)]
    bench.settle_down()
    assert e.Answer(session, 43, 0) in bench.take()
    arrive(bench)
    bench.settle_down()
    assert bench.image.state.gone[Reason.PURGED] == 40
    assert bench.image.state.live_count == 0


def changed(bench: Told, spec: QueueSpec) -> QueueSettings:
    settings = settings_of(spec)
    bench.led.change_settings(None, settings)
    bench.settle_down()
    return settings


def test_they_are_gone_if_they_need_not_arrive_any_more() -> None:
    bench, _session = with_dead(40)
    changed(bench, quorum(dead_letter_exchange="dlx"))
    state = bench.image.state
    assert (state.live_count, state.gone[Reason.PURGED]) == (0, 40)
    arrive(bench)
    bench.settle_down()
    assert state.gone[Reason.DEAD_LETTERED] == 0


def test_so_are_those_that_die_at_that_moment() -> None:
    bench, session, key = with_consumer(spec=sure())
    bench.led.publish(session, 2, *bodies(1))
    bench.settle_down()
    bench.led.settle(session, 3, key, [(0, range(1, 2))], outcome=Outcome.REJECTED)
    changed(bench, quorum(dead_letter_exchange="dlx"))
    assert not bench.died
    assert bench.image.state.gone[Reason.PURGED] == 1


def test_other_settings_have_what_was_refused_tried_at_once() -> None:
    bench, _session = with_dead(2)
    first, second = (parcel for dead in bench.died for parcel in dead.parcels or ())
    first.lead(["target"])
    first.known("target", is_taken=False)
    second.lead(["target"])
    posted(bench)
    settings = changed(bench, sure(max_length=5))
    assert bench.led.queue.settings == settings
    assert posted(bench) == [b"body 0"], "of the other it may still be said"


def test_what_was_refused_is_tried_at_once_when_that_may_help() -> None:
    bench, _session = with_dead(1)
    arrive(bench, is_taken=False)
    bench.settle_down()
    assert not bench.died, "it waits for its time"
    bench.led.outbox.hasten()
    bench.settle_down()
    [parcel] = bench.died[0].parcels or []
    parcel.lead(["target"])
    assert posted(bench) == [b"body 0"]
    bench.led.outbox.hasten()
    bench.settle_down()
    assert not bench.died, "it is under way"


def stamped(bench: Told, queue: str = "target") -> DeadLetterIds:
    """What a queue is told of all that were sent last."""
    [dead] = bench.died
    assert dead.parcels is not None
    posted = dead.stamp(queue, dead.parcels)
    assert posted is not None
    return posted


def test_a_queue_is_told_once_of_what_it_has_that_is_kept_no_more() -> None:
    bench, _session = with_dead(3)
    term = bench.leaders
    assert stamped(bench) == DeadLetterIds(GROUP, term, 1, [], [1, 2, 3])
    assert stamped(bench, "other") == DeadLetterIds(GROUP, term, 1, [], [1, 2, 3])
    first, second, _third = bench.died[0].parcels or []
    for parcel in (first, second):
        parcel.lead(["target", "other"])
        parcel.known("target", is_taken=True)
    first.known("other", is_taken=True)
    bench.turn()
    assert stamped(bench) == DeadLetterIds(GROUP, term, 1, [], [1, 2, 3]), "it is not on record"
    bench.settle_down()
    assert stamped(bench) == DeadLetterIds(GROUP, term, 2, [1], [1, 2, 3])
    assert stamped(bench).settled == []
    assert stamped(bench, "other").settled == [1]
    assert stamped(bench, "third").settled == []
    second.known("other", is_taken=True)
    bench.settle_down()
    assert stamped(bench) == DeadLetterIds(GROUP, term, 3, [2], [1, 2, 3])


def remembered(bench: Told) -> dict[object, list[int]]:
    """By queue: what it has, and it may be told that it is kept no more."""
    return bench.led.outbox._arrived


def test_nothing_is_kept_for_a_queue_that_is_told_nothing() -> None:
    """A classic queue: on a lone node it would stay in memory when it is deleted, too."""
    bench, _session = with_dead(5)
    [dead] = bench.died
    for parcel in (dead.parcels or [])[:4]:
        parcel.lead(["classic"])
        parcel.known("classic", is_taken=True)
    bench.settle_down()
    assert (bench.led.outbox.count, remembered(bench)) == (1, {})


def test_no_more_is_kept_of_queues_that_are_deleted_than_of_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluffle.broker.queues.quorum.dead_letter_outbox.TOLD_MAX", 2)
    bench, _session = with_dead(2)
    [dead] = bench.died
    [first, second] = dead.parcels or []
    for queue in ("gone", "other", "gone", "third"):
        dead.stamp(queue, [first])
    assert remembered(bench) == {"gone": [], "third": []}
    for parcel in (first, second):
        parcel.lead(["gone", "other"])
        parcel.known("gone", is_taken=True)
        parcel.known("other", is_taken=True)
    assert remembered(bench) == {"gone": [1, 2], "third": []}
    bench.settle_down()
    assert remembered(bench) == {}, "none is under way"


def test_who_leads_next_has_the_same_numbers_in_a_later_term() -> None:
    bench, _session = with_dead(2)
    before = stamped(bench)
    posted(bench)
    bench.change_leader(0, is_elsewhere=True)
    bench.settle_down()
    assert stamped(bench) == before._replace(term=before.term + 1)


def test_no_more_bytes_are_under_way_than_those_of_a_commit() -> None:
    bench, session, key = with_consumer(spec=sure())
    large = [bytes(UNDER_WAY_BYTES_MAX // 4)] * 6
    bench.led.publish(session, 2, [ORIGIN] * 6, large)
    bench.settle_down()
    bench.led.settle(session, 8, key, [(0, range(1, 7))], outcome=Outcome.REJECTED)
    bench.settle_down()
    assert len(posted(bench)) == 4
    bench.led.outbox.clear()
    huge = [bytes(2 * UNDER_WAY_BYTES_MAX)] * 2
    bench.led.publish(session, 9, [ORIGIN] * 2, huge)
    bench.settle_down()
    bench.led.settle(session, 11, key, [(0, range(7, 9))], outcome=Outcome.REJECTED)
    bench.settle_down()
    assert posted(bench) == huge[:1], "one is under way however large it is"
    assert bench.led.outbox.count == 2


def test_an_entry_is_read_once_for_all_that_have_died_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = Mock(wraps=read_messages)
    monkeypatch.setattr("fluffle.broker.queues.quorum.message_reader.read_messages", read)
    monkeypatch.setattr("fluffle.broker.queues.quorum.dead_letter_outbox.UNDER_WAY_MAX", 3)
    bench, _session = with_dead(10)
    read.reset_mock()
    while arrive(bench):
        bench.settle_down()
    assert bench.image.state.live_count == 0
    assert read.call_count == 0, "what was read for the first is still there"
