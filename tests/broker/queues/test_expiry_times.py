"""Time to live: what has expired is never handed out, and goes when it is next."""

from __future__ import annotations

import random
from array import array
from dataclasses import replace

import pytest

import fluffle.broker.queues.ready_list as ready_lists
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import EXPIRED_SEGMENTS_MAX
from fluffle.broker.queues.expiry_times import NEVER_MS, Spread, deadlines_of
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.ready_list import FRONT_SEGMENTS, RECENT_SEGMENTS
from fluffle.broker.queues.segment import LOOK_MAX
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.queue_harness import ExpiryHarness, MemorySpill, lane_of
from tests.suite.seeds import seeds
from tests.support.queue_arguments import queue_arguments

TTL_MS = 100


def spec(**said: PlainValue) -> QueueSpec:
    """A queue with these arguments."""
    return QueueSpec("q", arguments=queue_arguments(**said))


TTL = spec(message_ttl=TTL_MS, dead_letter_exchange="dlx")
NO_TTL = spec(dead_letter_exchange="dlx")


def expired(harness: ExpiryHarness) -> str:
    return b"".join(harness.dead).decode()


def test_messages_of_a_queue_expire_one_after_the_other() -> None:
    harness = ExpiryHarness(TTL)
    for text in "abc":
        harness.enqueue(text)
        harness.pump()
        harness.advance(10)
    harness.advance(TTL_MS - 31)
    assert (expired(harness), harness.queue.ready_count) == ("", 3)
    harness.advance(1)
    assert (expired(harness), harness.queue.ready_count) == ("a", 2)
    harness.advance(20)
    assert (expired(harness), harness.queue.ready_count) == ("abc", 0)
    assert harness.queue.due_ms is None


def test_a_message_lives_as_long_as_the_shorter_of_both_says() -> None:
    harness = ExpiryHarness(TTL)
    harness.enqueue("a", expiration_ms=50)
    harness.enqueue("b", expiration_ms=500)
    harness.pump()
    harness.advance(50)
    assert expired(harness) == "a"
    harness.advance(50)
    assert expired(harness) == "ab"


@pytest.mark.parametrize("asked", [NO_TTL, TTL])
def test_messages_that_come_together_expire_each_at_its_time(asked: QueueSpec) -> None:
    harness = ExpiryHarness(asked)
    harness.enqueue(*"abcd", expiration_ms=[10, 30, 20, 90])
    harness.enqueue(*"ef", expiration_ms=[0, 40])
    harness.pump()
    for by_ms, dead in ((10, "a"), (20, "abc"), (60, "abcdef")):
        harness.advance(by_ms)
        assert expired(harness) == dead
    harness.enqueue(*"gh", expiration_ms=[0, 400])
    harness.pump()
    assert (expired(harness), harness.queue.ready_count) == ("abcdefg", 1)
    harness.advance(TTL_MS)
    assert harness.queue.ready_count == (0 if asked is TTL else 1)


def test_messages_in_one_stretch_expire_as_they_came() -> None:
    """Messages without expiry, with a common one, and with one each."""
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue("a")
    harness.enqueue(*"bc", expiration_ms=[30, 20])
    harness.enqueue(*"de", expiration_ms=10)
    harness.enqueue(*"fg", expiration_ms=[50, 5])
    [segment] = lane_of(harness.queue)._ready
    assert (segment.earliest_ms, segment.latest_ms) == (harness.now + 5, NEVER_MS)
    harness.now += 40
    harness.consume("c", prefetch=1)
    harness.pump()
    assert (harness.got("c"), expired(harness)) == ("a", "bcde")
    harness.advance(10)
    assert expired(harness) == "bcdefg"


def test_only_what_is_next_expires() -> None:
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue("a")
    harness.enqueue("b", "c", expiration_ms=10)
    harness.enqueue("d", expiration_ms=1_000)
    harness.enqueue("e", expiration_ms=20)
    harness.pump()
    assert harness.queue.due_ms is None
    harness.advance(500)
    assert (expired(harness), harness.queue.ready_count) == ("", 5)
    harness.consume("first", prefetch=1)
    harness.pump()
    assert (harness.got("first"), expired(harness)) == ("a", "bc")
    harness.advance(500)
    assert (expired(harness), harness.queue.ready_count) == ("bcde", 0)


def test_nobody_is_handed_what_has_expired_though_no_timer_has_fired() -> None:
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue("a", "b", expiration_ms=10)
    harness.enqueue("c", expiration_ms=30)
    harness.enqueue("d", expiration_ms=10)
    harness.enqueue("e")
    harness.now += 20
    harness.consume("c")
    harness.pump()
    assert (harness.got("c"), expired(harness)) == ("ce", "abd")


def test_get_passes_over_what_has_expired() -> None:
    harness = ExpiryHarness(NO_TTL)
    holder = harness.consume("c")
    harness.queue.detach(holder)
    harness.enqueue("a", expiration_ms=10)
    harness.enqueue("b")
    harness.now += 10
    delivery_batch = harness.queue.get(holder)
    assert delivery_batch is not None
    assert (delivery_batch.contents, expired(harness)) == ([b"b"], "a")
    assert harness.queue.get(holder) is None


def test_what_is_in_hands_does_not_expire_and_does_when_it_comes_back() -> None:
    harness = ExpiryHarness(TTL)
    harness.consume("c", prefetch=3)
    harness.enqueue(*"abcd")
    [delivery_batch] = harness.pump()
    harness.advance(TTL_MS)
    assert expired(harness) == "d"
    harness.queue.settle(delivery_batch, 0, 2, Outcome.NACK_REQUEUED)
    harness.pump()
    assert (expired(harness), harness.got("c")) == ("dab", "abc")


def test_the_head_of_what_came_back_expires_too() -> None:
    harness = ExpiryHarness(TTL)
    consumer = harness.consume("c", prefetch=2)
    harness.enqueue(*"ab")
    [delivery_batch] = harness.pump()
    harness.queue.detach(consumer)
    harness.queue.settle(delivery_batch, 0, 2, Outcome.NACK_REQUEUED)
    harness.pump()
    harness.advance(TTL_MS - 1)
    assert expired(harness) == ""
    harness.advance(1)
    assert expired(harness) == "ab"


def test_what_has_no_time_to_live_is_for_who_has_room_at_once() -> None:
    harness = ExpiryHarness(spec(message_ttl=0, dead_letter_exchange="dlx"))
    harness.consume("c", prefetch=2)
    harness.enqueue(*"abc")
    assert [len(delivery_batch.contents) for delivery_batch in harness.pump()] == [2]
    assert (harness.got("c"), expired(harness)) == ("ab", "c")
    harness.enqueue("d")
    harness.pump()
    assert expired(harness) == "cd"


def test_a_get_never_finds_what_has_no_time_to_live() -> None:
    harness = ExpiryHarness(NO_TTL)
    holder = harness.consume("c")
    harness.queue.detach(holder)
    harness.enqueue("a", expiration_ms=0)
    assert harness.queue.get(holder) is None
    assert expired(harness) == "a"


def test_what_has_no_time_to_live_waits_behind_others_only_to_expire() -> None:
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue("a")
    harness.enqueue("b", expiration_ms=0)
    harness.pump()
    assert (expired(harness), harness.queue.ready_count) == ("", 2)
    harness.consume("c")
    harness.pump()
    assert (harness.got("c"), expired(harness)) == ("a", "b")


def test_what_has_come_with_it_expires_in_its_time_though_the_turn_is_long() -> None:
    harness = ExpiryHarness(NO_TTL)
    harness.consume("c")
    harness.enqueue("a", expiration_ms=0)
    harness.enqueue("b", expiration_ms=10)
    harness.enqueue("c")
    harness.now += 10
    harness.pump()
    assert (harness.got("c"), expired(harness)) == ("ac", "b")


def test_another_time_to_live_is_one_for_those_that_come_later() -> None:
    """RabbitMQ 4.0.5 does so when a policy changes."""
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue("a")
    harness.queue.settings = replace(harness.queue.settings, message_ttl_ms=TTL_MS)
    harness.enqueue("b")
    harness.queue.settings = replace(harness.queue.settings, message_ttl_ms=None)
    harness.enqueue("c")
    harness.advance(TTL_MS)
    assert (expired(harness), harness.queue.ready_count) == ("", 3)
    harness.consume("c")
    harness.pump()
    assert (harness.got("c"), expired(harness)) == ("ac", "b")


def test_what_nobody_wants_is_gone() -> None:
    harness = ExpiryHarness(spec(message_ttl=TTL_MS))
    harness.enqueue("a")
    harness.pump()
    harness.advance(TTL_MS)
    assert (harness.dead, harness.queue.ready_count) == ([], 0)


def test_a_queue_in_use_is_woken_rarely() -> None:
    harness = ExpiryHarness(TTL)
    consumer = harness.consume("c", no_ack=True)
    for _ in range(1_000):
        harness.enqueue("a")
        harness.pump()
    harness.queue.detach(consumer)
    assert harness.wakes == [], "nothing has waited"
    for _ in range(1_000):
        harness.enqueue("a")
        harness.pump()
    assert set(harness.wakes) == {harness.now + TTL_MS}


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_lists, "SEGMENT_MESSAGES_MAX", 2)


@pytest.mark.usefixtures("small_segments")
def test_what_is_on_disk_expires_without_being_read_if_nobody_wants_it() -> None:
    spill, count = MemorySpill(), 4 * (FRONT_SEGMENTS + RECENT_SEGMENTS)
    harness = ExpiryHarness(spec(message_ttl=TTL_MS), spill)
    for _ in range(count):
        harness.enqueue("x", "y")
        harness.now += 1
    harness.queue.shed()
    assert len(spill.held) > count / 2
    harness.pump()
    harness.advance(TTL_MS + count)
    assert (harness.queue.ready_count, spill.reads) == (0, 0)
    assert not any(held.contents for held in spill.held.values())


@pytest.mark.usefixtures("small_segments")
def test_what_is_on_disk_expires_when_it_is_due() -> None:
    spill, count = MemorySpill(), 4 * (FRONT_SEGMENTS + RECENT_SEGMENTS)
    harness = ExpiryHarness(TTL, spill)
    for _ in range(count):
        harness.enqueue("x", "y")
        harness.now += 1
    harness.queue.shed()
    harness.pump()
    harness.advance(TTL_MS - count)
    for gone in range(1, count):
        assert len(harness.dead) == 2 * gone
        harness.advance(1)
    assert spill.reads > count / 2


@pytest.mark.usefixtures("small_segments")
def test_much_that_expires_at_once_takes_several_turns() -> None:
    harness = ExpiryHarness(TTL)
    harness.enqueue(*"x" * 4)
    for _ in range(3 * EXPIRED_SEGMENTS_MAX):
        harness.enqueue(*"xy")
    harness.now += TTL_MS
    harness.queue.pump()
    assert len(harness.dead) == 2 * EXPIRED_SEGMENTS_MAX + 2
    assert harness.touched
    harness.pump()
    assert harness.queue.ready_count == 0


def test_few_are_looked_at_where_some_are_due_behind_others() -> None:
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue(*"a" * 500)
    harness.enqueue("b", expiration_ms=1)
    harness.enqueue(*"c" * 499)
    harness.now += 1
    harness.consume("c")
    delivery_batches = harness.pump()
    assert [len(delivery_batch.contents) for delivery_batch in delivery_batches] == [
        *[LOOK_MAX] * 7,
        500 % LOOK_MAX,
        499,
    ]
    assert harness.got("c") == "a" * 500 + "c" * 499
    assert expired(harness) == "b"


def test_a_purge_ends_all_of_it() -> None:
    harness = ExpiryHarness(TTL)
    harness.enqueue(*"abc")
    assert harness.queue.purge() == 3
    harness.pump()
    harness.advance(TTL_MS)
    assert (harness.dead, harness.queue.due_ms) == ([], None)


def test_an_array_that_a_publisher_shares_among_queues_is_not_changed() -> None:
    queues = [ExpiryHarness(TTL), ExpiryHarness(NO_TTL)]
    contents = [b"a"]
    for harness in queues:
        harness.queue.enqueue([Origin("", "q")], contents, 1, expiration_ms=50)
        harness.enqueue("b")
    assert contents == [b"a"]
    front = lane_of(queues[1].queue)._ready[0]
    assert front.expiries == array("Q", [1_050, (1 << 63) - 1])


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_what_has_expired_makes_room_for_what_comes(overflow: str) -> None:
    said: dict[str, PlainValue] = {
        "max_length": 2,
        "overflow": overflow,
        "dead_letter_exchange": "dlx",
    }
    harness = ExpiryHarness(spec(**said, message_ttl=TTL_MS))
    harness.enqueue("a", "b")
    harness.pump()
    harness.now += TTL_MS
    harness.enqueue("c")
    assert (expired(harness), harness.queue.ready_count) == ("ab", 1)
    at_once = ExpiryHarness(spec(**said, message_ttl=0))
    at_once.enqueue("a", "b")
    at_once.enqueue("c")
    assert (expired(at_once), at_once.queue.ready_count) == ("ab", 1)


def test_a_queue_that_is_still_keeps_what_has_expired_until_it_is_not() -> None:
    harness = ExpiryHarness(TTL)
    settings = harness.queue.settings
    harness.queue.settings = replace(settings, is_still=True)
    harness.enqueue(*"abc", expiration_ms=[0, 10, 500])
    harness.pump()
    harness.advance(2 * TTL_MS)
    assert (expired(harness), harness.queue.ready_count, harness.queue.due_ms) == ("", 3, None)
    harness.queue.settings = settings
    harness.pump()
    assert (expired(harness), harness.queue.ready_count) == ("abc", 0)


def test_of_a_run_each_comes_back_with_its_own_time() -> None:
    harness = ExpiryHarness(NO_TTL)
    harness.enqueue(*"abc", expiration_ms=[10, 500, 30])
    harness.consume("c")
    (delivery_batch,) = harness.pump()
    harness.queue.detach(harness.consumers["c"])
    harness.queue.settle(delivery_batch, 1, 3, Outcome.NACK_REQUEUED)
    harness.pump()
    harness.advance(40)
    assert (expired(harness), harness.queue.ready_count) == ("", 2)
    harness.advance(500)
    assert expired(harness) == "bc"


@seeds(20)
def test_messages_that_say_for_how_long_they_live_end_as_each_would(seed: int) -> None:
    chance = random.Random(seed)
    some_ms = [chance.choice([0, 1, 40, 5_000, 1 << 40]) for _ in range(chance.randrange(1, 4))]
    lifetimes_ms = [chance.choice(some_ms) for _ in range(chance.choice([1, 5, 200]))]
    ttl_ms = chance.choice([None, 0, 30, 1 << 30])
    ends = deadlines_of(lifetimes_ms, ttl_ms, 1_000)
    alone = [deadlines_of(each, ttl_ms, 1_000) for each in lifetimes_ms]
    assert isinstance(ends, Spread), f"seed {seed}"
    assert [*ends.expiries] == alone, f"seed {seed}"
    assert (ends.earliest_ms, ends.latest_ms) == (min(ends.expiries), max(ends.expiries))
