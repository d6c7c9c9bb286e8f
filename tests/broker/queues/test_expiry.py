"""Time to live: what has expired is never handed out, and goes when it is next."""

from __future__ import annotations

import random
from array import array
from dataclasses import replace

import pytest

import fluffle.broker.queues.ready_list as ready_lists
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.engine import EXPIRED_SEGMENTS_MAX
from fluffle.broker.queues.expiry_times import Spread, deadlines_of
from fluffle.broker.queues.ready_list import FRONT_SEGMENTS, RECENT_SEGMENTS
from fluffle.broker.queues.segment import LOOK_MAX
from fluffle.broker.queues.timer_port import NEVER_MS
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.make import Aging, MemorySpill, lane_of
from tests.suite.seeds import seeds
from tests.support.asking import asking

TTL_MS = 100


def spec(**said: PlainValue) -> QueueSpec:
    """A queue with these arguments."""
    return QueueSpec("q", arguments=asking(**said))


TTL = spec(message_ttl=TTL_MS, dead_letter_exchange="dlx")
NO_TTL = spec(dead_letter_exchange="dlx")


def expired(bench: Aging) -> str:
    return b"".join(bench.dead).decode()


def test_messages_of_a_queue_expire_one_after_the_other() -> None:
    bench = Aging(TTL)
    for text in "abc":
        bench.enqueue(text)
        bench.pump()
        bench.advance(10)
    bench.advance(TTL_MS - 31)
    assert (expired(bench), bench.queue.ready_count) == ("", 3)
    bench.advance(1)
    assert (expired(bench), bench.queue.ready_count) == ("a", 2)
    bench.advance(20)
    assert (expired(bench), bench.queue.ready_count) == ("abc", 0)
    assert bench.queue.due_ms is None


def test_a_message_lives_as_long_as_the_shorter_of_both_says() -> None:
    bench = Aging(TTL)
    bench.enqueue("a", expiration_ms=50)
    bench.enqueue("b", expiration_ms=500)
    bench.pump()
    bench.advance(50)
    assert expired(bench) == "a"
    bench.advance(50)
    assert expired(bench) == "ab"


@pytest.mark.parametrize("asked", [NO_TTL, TTL])
def test_messages_that_come_together_expire_each_at_its_time(asked: QueueSpec) -> None:
    bench = Aging(asked)
    bench.enqueue(*"abcd", expiration_ms=[10, 30, 20, 90])
    bench.enqueue(*"ef", expiration_ms=[0, 40])
    bench.pump()
    for by_ms, dead in ((10, "a"), (20, "abc"), (60, "abcdef")):
        bench.advance(by_ms)
        assert expired(bench) == dead
    bench.enqueue(*"gh", expiration_ms=[0, 400])
    bench.pump()
    assert (expired(bench), bench.queue.ready_count) == ("abcdefg", 1)
    bench.advance(TTL_MS)
    assert bench.queue.ready_count == (0 if asked is TTL else 1)


def test_messages_in_one_stretch_expire_as_they_came() -> None:
    """Those that never do, those that do together, and those of which each does at its time."""
    bench = Aging(NO_TTL)
    bench.enqueue("a")
    bench.enqueue(*"bc", expiration_ms=[30, 20])
    bench.enqueue(*"de", expiration_ms=10)
    bench.enqueue(*"fg", expiration_ms=[50, 5])
    [segment] = lane_of(bench.queue)._ready
    assert (segment.earliest_ms, segment.latest_ms) == (bench.now + 5, NEVER_MS)
    bench.now += 40
    bench.consume("c", prefetch=1)
    bench.pump()
    assert (bench.got("c"), expired(bench)) == ("a", "bcde")
    bench.advance(10)
    assert expired(bench) == "bcdefg"


def test_only_what_is_next_expires() -> None:
    bench = Aging(NO_TTL)
    bench.enqueue("a")
    bench.enqueue("b", "c", expiration_ms=10)
    bench.enqueue("d", expiration_ms=1_000)
    bench.enqueue("e", expiration_ms=20)
    bench.pump()
    assert bench.queue.due_ms is None
    bench.advance(500)
    assert (expired(bench), bench.queue.ready_count) == ("", 5)
    bench.consume("first", prefetch=1)
    bench.pump()
    assert (bench.got("first"), expired(bench)) == ("a", "bc")
    bench.advance(500)
    assert (expired(bench), bench.queue.ready_count) == ("bcde", 0)


def test_nobody_is_handed_what_has_expired_though_no_timer_has_fired() -> None:
    bench = Aging(NO_TTL)
    bench.enqueue("a", "b", expiration_ms=10)
    bench.enqueue("c", expiration_ms=30)
    bench.enqueue("d", expiration_ms=10)
    bench.enqueue("e")
    bench.now += 20
    bench.consume("c")
    bench.pump()
    assert (bench.got("c"), expired(bench)) == ("ce", "abd")


def test_get_passes_over_what_has_expired() -> None:
    bench = Aging(NO_TTL)
    holder = bench.consume("c")
    bench.queue.detach(holder)
    bench.enqueue("a", expiration_ms=10)
    bench.enqueue("b")
    bench.now += 10
    delivery_batch = bench.queue.get(holder)
    assert delivery_batch is not None
    assert (delivery_batch.contents, expired(bench)) == ([b"b"], "a")
    assert bench.queue.get(holder) is None


def test_what_is_in_hands_does_not_expire_and_does_when_it_comes_back() -> None:
    bench = Aging(TTL)
    bench.consume("c", prefetch=3)
    bench.enqueue(*"abcd")
    [delivery_batch] = bench.pump()
    bench.advance(TTL_MS)
    assert expired(bench) == "d"
    bench.queue.settle(delivery_batch, 0, 2, Outcome.NACK_REQUEUED)
    bench.pump()
    assert (expired(bench), bench.got("c")) == ("dab", "abc")


def test_the_head_of_what_came_back_expires_too() -> None:
    bench = Aging(TTL)
    consumer = bench.consume("c", prefetch=2)
    bench.enqueue(*"ab")
    [delivery_batch] = bench.pump()
    bench.queue.detach(consumer)
    bench.queue.settle(delivery_batch, 0, 2, Outcome.NACK_REQUEUED)
    bench.pump()
    bench.advance(TTL_MS - 1)
    assert expired(bench) == ""
    bench.advance(1)
    assert expired(bench) == "ab"


def test_what_has_no_time_to_live_is_for_who_has_room_at_once() -> None:
    bench = Aging(spec(message_ttl=0, dead_letter_exchange="dlx"))
    bench.consume("c", prefetch=2)
    bench.enqueue(*"abc")
    assert [len(delivery_batch.contents) for delivery_batch in bench.pump()] == [2]
    assert (bench.got("c"), expired(bench)) == ("ab", "c")
    bench.enqueue("d")
    bench.pump()
    assert expired(bench) == "cd"


def test_a_get_never_finds_what_has_no_time_to_live() -> None:
    bench = Aging(NO_TTL)
    holder = bench.consume("c")
    bench.queue.detach(holder)
    bench.enqueue("a", expiration_ms=0)
    assert bench.queue.get(holder) is None
    assert expired(bench) == "a"


def test_what_has_no_time_to_live_waits_behind_others_only_to_expire() -> None:
    bench = Aging(NO_TTL)
    bench.enqueue("a")
    bench.enqueue("b", expiration_ms=0)
    bench.pump()
    assert (expired(bench), bench.queue.ready_count) == ("", 2)
    bench.consume("c")
    bench.pump()
    assert (bench.got("c"), expired(bench)) == ("a", "b")


def test_what_has_come_with_it_expires_in_its_time_though_the_turn_is_long() -> None:
    bench = Aging(NO_TTL)
    bench.consume("c")
    bench.enqueue("a", expiration_ms=0)
    bench.enqueue("b", expiration_ms=10)
    bench.enqueue("c")
    bench.now += 10
    bench.pump()
    assert (bench.got("c"), expired(bench)) == ("ac", "b")


def test_another_time_to_live_is_one_for_those_that_come_later() -> None:
    """As RabbitMQ 4.0.5 does it when a policy changes."""
    bench = Aging(NO_TTL)
    bench.enqueue("a")
    bench.queue.settings = replace(bench.queue.settings, message_ttl_ms=TTL_MS)
    bench.enqueue("b")
    bench.queue.settings = replace(bench.queue.settings, message_ttl_ms=None)
    bench.enqueue("c")
    bench.advance(TTL_MS)
    assert (expired(bench), bench.queue.ready_count) == ("", 3)
    bench.consume("c")
    bench.pump()
    assert (bench.got("c"), expired(bench)) == ("ac", "b")


def test_what_nobody_wants_is_gone() -> None:
    bench = Aging(spec(message_ttl=TTL_MS))
    bench.enqueue("a")
    bench.pump()
    bench.advance(TTL_MS)
    assert (bench.dead, bench.queue.ready_count) == ([], 0)


def test_a_queue_in_use_is_woken_rarely() -> None:
    bench = Aging(TTL)
    consumer = bench.consume("c", no_ack=True)
    for _ in range(1_000):
        bench.enqueue("a")
        bench.pump()
    bench.queue.detach(consumer)
    assert bench.wakes == [], "nothing has waited"
    for _ in range(1_000):
        bench.enqueue("a")
        bench.pump()
    assert set(bench.wakes) == {bench.now + TTL_MS}


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_lists, "SEGMENT_MESSAGES_MAX", 2)


@pytest.mark.usefixtures("small_segments")
def test_what_is_on_disk_expires_without_being_read_if_nobody_wants_it() -> None:
    spill, count = MemorySpill(), 4 * (FRONT_SEGMENTS + RECENT_SEGMENTS)
    bench = Aging(spec(message_ttl=TTL_MS), spill)
    for _ in range(count):
        bench.enqueue("x", "y")
        bench.now += 1
    bench.queue.shed()
    assert len(spill.held) > count / 2
    bench.pump()
    bench.advance(TTL_MS + count)
    assert (bench.queue.ready_count, spill.reads) == (0, 0)
    assert not any(held.contents for held in spill.held.values())


@pytest.mark.usefixtures("small_segments")
def test_what_is_on_disk_expires_when_it_is_due() -> None:
    spill, count = MemorySpill(), 4 * (FRONT_SEGMENTS + RECENT_SEGMENTS)
    bench = Aging(TTL, spill)
    for _ in range(count):
        bench.enqueue("x", "y")
        bench.now += 1
    bench.queue.shed()
    bench.pump()
    bench.advance(TTL_MS - count)
    for gone in range(1, count):
        assert len(bench.dead) == 2 * gone
        bench.advance(1)
    assert spill.reads > count / 2


@pytest.mark.usefixtures("small_segments")
def test_much_that_expires_at_once_takes_several_turns() -> None:
    bench = Aging(TTL)
    bench.enqueue(*"x" * 4)
    for _ in range(3 * EXPIRED_SEGMENTS_MAX):
        bench.enqueue(*"xy")
    bench.now += TTL_MS
    bench.queue.pump()
    assert len(bench.dead) == 2 * EXPIRED_SEGMENTS_MAX + 2
    assert bench.touched
    bench.pump()
    assert bench.queue.ready_count == 0


def test_few_are_looked_at_where_some_are_due_behind_others() -> None:
    bench = Aging(NO_TTL)
    bench.enqueue(*"a" * 500)
    bench.enqueue("b", expiration_ms=1)
    bench.enqueue(*"c" * 499)
    bench.now += 1
    bench.consume("c")
    delivery_batches = bench.pump()
    assert [len(delivery_batch.contents) for delivery_batch in delivery_batches] == [
        *[LOOK_MAX] * 7,
        500 % LOOK_MAX,
        499,
    ]
    assert bench.got("c") == "a" * 500 + "c" * 499
    assert expired(bench) == "b"


def test_a_purge_ends_all_of_it() -> None:
    bench = Aging(TTL)
    bench.enqueue(*"abc")
    assert bench.queue.purge() == 3
    bench.pump()
    bench.advance(TTL_MS)
    assert (bench.dead, bench.queue.due_ms) == ([], None)


def test_an_array_that_a_publisher_shares_among_queues_is_not_changed() -> None:
    queues = [Aging(TTL), Aging(NO_TTL)]
    contents = [b"a"]
    for bench in queues:
        bench.queue.enqueue([Origin("", "q")], contents, 1, expiration_ms=50)
        bench.enqueue("b")
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
    bench = Aging(spec(**said, message_ttl=TTL_MS))
    bench.enqueue("a", "b")
    bench.pump()
    bench.now += TTL_MS
    bench.enqueue("c")
    assert (expired(bench), bench.queue.ready_count) == ("ab", 1)
    at_once = Aging(spec(**said, message_ttl=0))
    at_once.enqueue("a", "b")
    at_once.enqueue("c")
    assert (expired(at_once), at_once.queue.ready_count) == ("ab", 1)


def test_a_queue_that_is_still_keeps_what_has_expired_until_it_is_not() -> None:
    bench = Aging(TTL)
    settings = bench.queue.settings
    bench.queue.settings = replace(settings, is_still=True)
    bench.enqueue(*"abc", expiration_ms=[0, 10, 500])
    bench.pump()
    bench.advance(2 * TTL_MS)
    assert (expired(bench), bench.queue.ready_count, bench.queue.due_ms) == ("", 3, None)
    bench.queue.settings = settings
    bench.pump()
    assert (expired(bench), bench.queue.ready_count) == ("abc", 0)


def test_of_a_run_each_comes_back_with_its_own_time() -> None:
    bench = Aging(NO_TTL)
    bench.enqueue(*"abc", expiration_ms=[10, 500, 30])
    bench.consume("c")
    (delivery_batch,) = bench.pump()
    bench.queue.detach(bench.consumers["c"])
    bench.queue.settle(delivery_batch, 1, 3, Outcome.NACK_REQUEUED)
    bench.pump()
    bench.advance(40)
    assert (expired(bench), bench.queue.ready_count) == ("", 2)
    bench.advance(500)
    assert expired(bench) == "bc"


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
