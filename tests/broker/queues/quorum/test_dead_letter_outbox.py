"""The dead that must arrive, in a led queue: what becomes of them while they have not."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.dead_letter_outbox import (
    CONFIRM_TIMEOUT_MS,
    PAUSE_MS,
    UNDER_WAY_BYTES_MAX,
    UNDER_WAY_MAX,
)
from fluffle.broker.queues.quorum.entry_codec import read_messages
from fluffle.broker.queues.quorum.facts import DeadLettered, Purged, RemovalReason
from fluffle.broker.queues.settings import QueueSettings, settings_of
from fluffle.protocol.headers import DeathReason
from tests.broker.queues.quorum.entry_harness import EntryHarness, bodies, with_consumer
from tests.broker.queues.quorum.leader_harness import GROUP, quorum
from tests.broker.queues.quorum.sample_facts import ORIGIN


def sure(max_length: int = 1000) -> QueueSpec:
    return quorum(
        dead_letter_exchange="dlx",
        dead_letter_strategy="at-least-once",
        overflow="reject-publish",
        max_length=max_length,
    )


def with_dead(count: int, spec: QueueSpec | None = None) -> tuple[EntryHarness, int]:
    """A queue in which so many have died, each for itself, and its session."""
    harness, session, key = with_consumer(spec=spec or sure())
    harness.led.publish(session, 2, *bodies(count))
    harness.settle_down()
    tokens = [(0, range(number, number + 1)) for number in range(1, count + 1)]
    harness.now_ms = 7
    harness.led.settle(session, count + 2, key, tokens, outcome=Outcome.REJECTED)
    harness.settle_down()
    harness.take()
    return harness, session


def posted(harness: EntryHarness) -> list[bytes]:
    """Contents sent since the last call."""
    died, harness.died = harness.died, []
    return [content for dead in died for content in dead.contents]


def arrive(harness: EntryHarness, *, is_accepted: bool = True, queue: str = "target") -> int:
    """All that is under way leads to a queue, which says so; how many that is."""
    parcels = [parcel for dead in harness.died for parcel in dead.parcels or ()]
    harness.died = []
    for parcel in parcels:
        parcel.lead([queue])
        parcel.finish()
    for parcel in parcels:
        parcel.known(queue, is_accepted=is_accepted)
    return len(parcels)


def after(harness: EntryHarness, wait_ms: int) -> None:
    harness.now_ms += wait_ms
    harness.is_touched = True
    harness.settle_down()


def test_it_stays_until_it_has_arrived() -> None:
    harness, _session = with_dead(2)
    [dead] = harness.died
    assert (dead.reason, dead.time_ms, dead.contents) == (
        DeathReason.REJECTED,
        7,
        [b"body 0", b"body 1"],
    )
    state = harness.image.state
    assert state.pending.count == harness.led.outbox.count == 2
    assert arrive(harness) == 2
    harness.turn()
    assert harness.facts() == [DeadLettered([range(1, 3)])]
    assert state.pending.count == 2, "it is not on record yet"
    harness.settle_down()
    assert state.live_count == harness.led.outbox.count == 0
    assert state.gone[RemovalReason.DEAD_LETTERED] == 2


def test_so_many_are_under_way_and_no_more() -> None:
    harness, _session = with_dead(UNDER_WAY_MAX + 3)
    assert len(posted(harness)) == UNDER_WAY_MAX
    harness, _session = with_dead(UNDER_WAY_MAX + 3)
    first, *_others = [parcel for dead in harness.died for parcel in dead.parcels or ()]
    posted(harness)
    first.lead(["target"])
    first.known("target", is_accepted=True)
    harness.settle_down()
    assert posted(harness) == [b"body %d" % UNDER_WAY_MAX]


def test_a_backlog_arrives_in_its_order_and_is_not_in_memory() -> None:
    harness, _session = with_dead(100)
    got: list[bytes] = []
    for _ in range(4):
        got += [content for dead in harness.died for content in dead.contents]
        assert all(not dead.contents for dead in harness.led.outbox.waiting)
        arrive(harness)
        harness.settle_down()
    assert got == [b"body %d" % number for number in range(100)]
    assert harness.image.state.live_count == 0


def test_what_is_refused_is_tried_again_after_ever_longer() -> None:
    harness, _session = with_dead(1)
    pause_ms = PAUSE_MS
    for _ in range(3):
        arrive(harness, is_accepted=False)
        harness.settle_down()
        pause_ms *= 2
        assert harness.wakes[-1] == pause_ms
        after(harness, pause_ms - 1)
        assert not harness.died
        after(harness, 1)
        assert len(harness.died) == 1
    arrive(harness)
    harness.settle_down()
    assert harness.image.state.live_count == 0


def test_who_says_nothing_is_asked_again_after_long() -> None:
    harness, _session = with_dead(1)
    assert posted(harness) == [b"body 0"]
    assert harness.wakes[-1] == CONFIRM_TIMEOUT_MS
    after(harness, CONFIRM_TIMEOUT_MS - 1)
    assert not harness.died
    after(harness, 1)
    assert posted(harness) == [b"body 0"]


def test_the_next_leader_begins_anew() -> None:
    harness, _session = with_dead(40)
    before = posted(harness)[:5]
    harness.change_leader(0, is_elsewhere=True)
    harness.settle_down()
    assert len(harness.died) == 1
    assert posted(harness)[:5] == before
    assert harness.led.outbox.count == 40


def test_an_arrival_after_the_leadership_changes_nothing() -> None:
    harness, _session = with_dead(1)
    [parcel] = harness.died[0].parcels or []
    harness.change_leader(0, is_elsewhere=True)
    harness.settle_down()
    parcel.lead(["target"])
    parcel.known("target", is_accepted=True)
    harness.settle_down()
    assert harness.image.state.pending.count == 1


def test_they_count_for_the_length() -> None:
    harness, session = with_dead(3, sure(max_length=2))
    harness.led.publish(session, 6, *bodies(1))
    harness.settle_down()
    assert harness.take() == [m.Effect(session, m.RejectedReply(6, 1))]
    arrive(harness)
    harness.settle_down()
    harness.led.publish(session, 7, *bodies(3))
    harness.settle_down()
    assert m.Effect(session, m.DoneReply(7, 3)) in harness.take()


def test_those_whose_death_is_not_on_record_count_too() -> None:
    harness, session, key = with_consumer(spec=sure(max_length=0))
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    harness.led.settle(session, 3, key, [(0, range(1, 2))], outcome=Outcome.REJECTED)
    harness.led.publish(session, 4, *bodies(1))
    harness.settle_down()
    assert m.Effect(session, m.RejectedReply(4, 1)) in harness.take()


def test_a_purge_takes_them() -> None:
    harness, session = with_dead(40)
    harness.led.purge(session, 43)
    harness.turn()
    [*_, purged] = [fact for fact in harness.facts() if isinstance(fact, Purged)]
    assert [number for run in purged.runs for number in run] == [*range(1, 41)]
    harness.settle_down()
    assert m.Effect(session, m.AnswerReply(43, 0)) in harness.take()
    arrive(harness)
    harness.settle_down()
    assert harness.image.state.gone[RemovalReason.PURGED] == 40
    assert harness.image.state.live_count == 0


def changed(harness: EntryHarness, spec: QueueSpec) -> QueueSettings:
    settings = settings_of(spec)
    harness.led.change_settings(None, settings)
    harness.settle_down()
    return settings


def test_they_are_gone_if_they_need_not_arrive_any_more() -> None:
    harness, _session = with_dead(40)
    changed(harness, quorum(dead_letter_exchange="dlx"))
    state = harness.image.state
    assert (state.live_count, state.gone[RemovalReason.PURGED]) == (0, 40)
    arrive(harness)
    harness.settle_down()
    assert state.gone[RemovalReason.DEAD_LETTERED] == 0


def test_so_are_those_that_die_at_that_moment() -> None:
    harness, session, key = with_consumer(spec=sure())
    harness.led.publish(session, 2, *bodies(1))
    harness.settle_down()
    harness.led.settle(session, 3, key, [(0, range(1, 2))], outcome=Outcome.REJECTED)
    changed(harness, quorum(dead_letter_exchange="dlx"))
    assert not harness.died
    assert harness.image.state.gone[RemovalReason.PURGED] == 1


def test_other_settings_have_what_was_refused_tried_at_once() -> None:
    harness, _session = with_dead(2)
    first, second = (parcel for dead in harness.died for parcel in dead.parcels or ())
    first.lead(["target"])
    first.known("target", is_accepted=False)
    second.lead(["target"])
    posted(harness)
    settings = changed(harness, sure(max_length=5))
    assert harness.led.queue.settings == settings
    assert posted(harness) == [b"body 0"], "of the other it may still be said"


def test_what_was_refused_is_tried_at_once_when_that_may_help() -> None:
    harness, _session = with_dead(1)
    arrive(harness, is_accepted=False)
    harness.settle_down()
    assert not harness.died, "it waits for its time"
    harness.led.outbox.hasten()
    harness.settle_down()
    [parcel] = harness.died[0].parcels or []
    parcel.lead(["target"])
    assert posted(harness) == [b"body 0"]
    harness.led.outbox.hasten()
    harness.settle_down()
    assert not harness.died, "it is under way"


def stamped(harness: EntryHarness, queue: str = "target") -> DeadLetterIds:
    """Ids with which the messages sent last go to a queue."""
    [dead] = harness.died
    assert dead.parcels is not None
    posted = dead.ids_for(queue, dead.parcels)
    assert posted is not None
    return posted


def test_a_queue_is_reported_once_of_what_it_has_that_is_kept_no_more() -> None:
    harness, _session = with_dead(3)
    term = harness.leaders
    assert stamped(harness) == DeadLetterIds(GROUP, term, 1, [], [1, 2, 3])
    assert stamped(harness, "other") == DeadLetterIds(GROUP, term, 1, [], [1, 2, 3])
    first, second, _third = harness.died[0].parcels or []
    for parcel in (first, second):
        parcel.lead(["target", "other"])
        parcel.known("target", is_accepted=True)
    first.known("other", is_accepted=True)
    harness.turn()
    assert stamped(harness) == DeadLetterIds(GROUP, term, 1, [], [1, 2, 3]), "it is not on record"
    harness.settle_down()
    assert stamped(harness) == DeadLetterIds(GROUP, term, 2, [1], [1, 2, 3])
    assert stamped(harness).settled == []
    assert stamped(harness, "other").settled == [1]
    assert stamped(harness, "third").settled == []
    second.known("other", is_accepted=True)
    harness.settle_down()
    assert stamped(harness) == DeadLetterIds(GROUP, term, 3, [2], [1, 2, 3])


def remembered(harness: EntryHarness) -> dict[object, list[int]]:
    """Messages that queues have and may be allowed to forget, by queue."""
    return harness.led.outbox._arrived


def test_nothing_is_kept_for_a_queue_that_is_reported_nothing() -> None:
    """A classic queue: on a lone node it would stay in memory when it is deleted, too."""
    harness, _session = with_dead(5)
    [dead] = harness.died
    for parcel in (dead.parcels or [])[:4]:
        parcel.lead(["classic"])
        parcel.known("classic", is_accepted=True)
    harness.settle_down()
    assert (harness.led.outbox.count, remembered(harness)) == (1, {})


def test_no_more_is_kept_of_queues_that_are_deleted_than_of_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluffle.broker.queues.quorum.dead_letter_outbox.NOTIFIED_MAX", 2)
    harness, _session = with_dead(2)
    [dead] = harness.died
    [first, second] = dead.parcels or []
    for queue in ("gone", "other", "gone", "third"):
        dead.ids_for(queue, [first])
    assert remembered(harness) == {"gone": [], "third": []}
    for parcel in (first, second):
        parcel.lead(["gone", "other"])
        parcel.known("gone", is_accepted=True)
        parcel.known("other", is_accepted=True)
    assert remembered(harness) == {"gone": [1, 2], "third": []}
    harness.settle_down()
    assert remembered(harness) == {}, "none is under way"


def test_who_leads_next_has_the_same_numbers_in_a_later_term() -> None:
    harness, _session = with_dead(2)
    before = stamped(harness)
    posted(harness)
    harness.change_leader(0, is_elsewhere=True)
    harness.settle_down()
    assert stamped(harness) == before._replace(term=before.term + 1)


def test_no_more_bytes_are_under_way_than_those_of_a_commit() -> None:
    harness, session, key = with_consumer(spec=sure())
    large = [bytes(UNDER_WAY_BYTES_MAX // 4)] * 6
    harness.led.publish(session, 2, [ORIGIN] * 6, large)
    harness.settle_down()
    harness.led.settle(session, 8, key, [(0, range(1, 7))], outcome=Outcome.REJECTED)
    harness.settle_down()
    assert len(posted(harness)) == 4
    harness.led.outbox.clear()
    huge = [bytes(2 * UNDER_WAY_BYTES_MAX)] * 2
    harness.led.publish(session, 9, [ORIGIN] * 2, huge)
    harness.settle_down()
    harness.led.settle(session, 11, key, [(0, range(7, 9))], outcome=Outcome.REJECTED)
    harness.settle_down()
    assert posted(harness) == huge[:1], "one is under way however large it is"
    assert harness.led.outbox.count == 2


def test_an_entry_is_read_once_for_all_that_have_died_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = Mock(wraps=read_messages)
    monkeypatch.setattr("fluffle.broker.queues.quorum.log_journal.read_messages", read)
    monkeypatch.setattr("fluffle.broker.queues.quorum.dead_letter_outbox.UNDER_WAY_MAX", 3)
    harness, _session = with_dead(10)
    read.reset_mock()
    while arrive(harness):
        harness.settle_down()
    assert harness.image.state.live_count == 0
    assert read.call_count == 0, "what was read for the first is still there"
