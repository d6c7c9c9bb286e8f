"""A queue that takes each message once, against a notebook; and what counts as a key."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fluffle.broker.base.message import KEY_BYTES, MessageAnnotations, Origin, with_key
from fluffle.broker.queues.arguments import DeliveryGuarantee, QueueSpec, QueueType
from fluffle.broker.queues.deduplication import KEYED_TTL_MS, DuplicateFilter, key_of
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import (
    Enqueue,
    EnqueueResult,
    MessageResult,
    PartialResult,
    results_of,
)
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.queues.queue_view import messages_from
from fluffle.broker.queues.settings import (
    DEFAULT_CACHE_SIZE,
    DeduplicationCache,
    QueueSettings,
    settings_of,
)
from fluffle.protocol.properties import body_of
from fluffle.protocol.wire import PlainValue
from tests.broker.queues.deduplication_model import ReferenceDeduplication, keyed
from tests.broker.queues.queue_harness import ORIGIN, QueueHarness
from tests.suite.seeds import machine_settings
from tests.support.queue_arguments import queue_arguments
from tests.support.queue_host import FakeQueueHost, ignore

DIED = Origin("ex", "key", MessageAnnotations.DIED)
KEYS: list[PlainValue] = ["a", "b", "c", 1, "1", None]


class Time:
    """Passes when somebody says so."""

    def __init__(self) -> None:
        self.ms = 1_000

    def now_ms(self) -> int:
        return self.ms

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Nothing is ever due."""


class Deduplicating:
    """A queue, and how many messages it has dropped."""

    def __init__(
        self,
        settings: QueueSettings,
        guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_LEAST_ONCE,
    ) -> None:
        self.time, self.dropped = Time(), 0
        ports = FakeQueueHost(ignore, self.time, duplicate_filter=self.sieve)
        self.queue = Queue(QueueSpec("q", guarantee=guarantee), ports, settings=settings)

    def sieve(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        return DuplicateFilter(
            cache,
            DeduplicationWindow(),
            enqueue,
            time=self.time,
            on_duplicates=self.drop,
            record=None,
        )

    def drop(self, count: int) -> None:
        self.dropped += count

    def put(self, contents: list[bytes], origin: Origin = ORIGIN) -> list[MessageResult]:
        """Enqueue messages; returns the result of each."""
        size_bytes = sum(map(len, contents))
        admission = self.queue.enqueue([origin] * len(contents), contents, size_bytes)
        parts = results_of(admission, len(contents))
        return [part for start, stop, part in parts for _ in range(start, stop)]

    @property
    def bodies(self) -> list[bytes]:
        return [body_of(each.content) for each in messages_from(self.queue.ready_view.stocks, 0)]


def deduplicating(size: int = 3, ttl_ms: int | None = None, **others: object) -> Deduplicating:
    said = {"deduplicates": True, "cache_size": size, "cache_ttl_ms": ttl_ms, **others}
    return Deduplicating(QueueSettings(**said))  # type: ignore[arg-type]


def test_what_is_left_of_a_batch_keeps_its_lifetimes() -> None:
    one = deduplicating()
    contents = [keyed(body, key) for body, key in ((b"0", "a"), (b"1", "a"), (b"2", "b"))]
    one.queue.enqueue([ORIGIN] * 3, contents, sum(map(len, contents)), expiration_ms=[10, 20, 30])
    seen = [
        each.expires_at_ms - one.time.ms for each in messages_from(one.queue.ready_view.stocks, 0)
    ]
    assert (one.bodies, seen) == ([b"0", b"2"], [10, 30])


@pytest.mark.parametrize("guarantee", DeliveryGuarantee)
def test_the_queue_of_a_session_takes_a_message_that_has_a_key_once(
    guarantee: DeliveryGuarantee,
) -> None:
    one = Deduplicating(QueueSettings(), guarantee)
    is_once = guarantee is not DeliveryGuarantee.AT_LEAST_ONCE
    with_keys = [
        Origin("ex", "key", annotations=with_key(b"\x01", bytes([number]) * KEY_BYTES))
        for number in range(2)
    ]
    contents = [keyed(body, None) for body in (b"0", b"1")]
    results = one.put(contents[:1], with_keys[0])
    results += one.put(contents[1:], with_keys[1])
    results += one.put(contents[:1], with_keys[0])
    results += one.put(contents[:1])
    assert one.bodies == [b"0", b"1"] + [b"0"] * (1 if is_once else 2)
    assert results[2] is (MessageResult.DUPLICATE if is_once else MessageResult.ACCEPTED)
    one.queue.settings = QueueSettings(max_length=9)
    assert one.dropped == (1 if is_once else 0)
    one.put(
        contents[:1], Origin("ex", "key", MessageAnnotations.DIED, (), with_keys[0].annotations)
    )
    assert one.bodies[-1] == b"0", "it comes from another queue"
    one.time.ms += KEYED_TTL_MS
    assert one.put(contents[:1], with_keys[0]) == [MessageResult.ACCEPTED]


class Machine(RuleBasedStateMachine):
    """Whatever comes, in whatever batches, the queue has what the notebook says."""

    def __init__(self) -> None:
        super().__init__()
        self.one = deduplicating(size=3, ttl_ms=50)
        self.book = ReferenceDeduplication(size=3, ttl_ms=50)
        self.expected: list[bytes] = []
        self.count = self.dropped = 0

    @rule(batch=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, 10, 200]))))
    @precondition(lambda self: self.count < 200)
    def publish(self, batch: list[tuple[PlainValue, int | None]]) -> None:
        if not batch:
            return
        contents = [keyed(b"%d" % (self.count + at), *said) for at, said in enumerate(batch)]
        self.count += len(batch)
        results = self.one.put(contents)
        for content, said, result in zip(contents, batch, results, strict=True):
            is_accepted = self.book.comes(*said, self.one.time.ms)
            assert result is (MessageResult.ACCEPTED if is_accepted else MessageResult.DUPLICATE)
            if is_accepted:
                self.expected.append(body_of(content))
            self.dropped += not is_accepted
        self.book.turn_page()

    @rule(ms=st.sampled_from([1, 9, 10, 49, 50, 300]))
    def pass_time(self, ms: int) -> None:
        self.one.time.ms += ms

    @rule()
    def purge(self) -> None:
        self.one.queue.purge()
        self.expected.clear()
        self.book.taken.clear()

    def teardown(self) -> None:
        assert self.one.bodies == self.expected
        assert self.one.dropped == self.dropped


def test_against_a_notebook() -> None:
    run_state_machine_as_test(
        Machine, settings=machine_settings(examples=150, stateful_step_count=20)
    )


def test_a_message_without_a_key_always_comes_in() -> None:
    one = deduplicating()
    assert one.put([keyed(b"1"), keyed(b"1")]) == [MessageResult.ACCEPTED, MessageResult.ACCEPTED]


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (1, "1", False),
        (1, 1.0, False),
        (1, True, False),
        ("", "", True),
    ],
)
def test_which_keys_are_the_same(one: PlainValue, other: PlainValue, *, are_same: bool) -> None:
    first, second = key_of(keyed(b"x", one)), key_of(keyed(b"y", other))
    assert first is not None
    assert second is not None
    assert (first.digest == second.digest) is are_same


@pytest.mark.parametrize("value", [{"a": 1}, [1]])
def test_what_is_no_key(value: PlainValue) -> None:
    assert key_of(keyed(b"x", value)) is None


@pytest.mark.parametrize(("said", "ttl_ms"), [(5, 5), (0, None), (-1, None), ("5", None)])
def test_how_long_a_message_wants_to_be_known(said: PlainValue, ttl_ms: int | None) -> None:
    name = key_of(keyed(b"x", "a", said))
    assert name is not None
    assert name.ttl_ms == ttl_ms


def test_what_is_acknowledged_is_still_known() -> None:
    harness = QueueHarness(QueueSpec("q", arguments=queue_arguments(message_deduplication=True)))
    consumer = harness.consume("c")
    content = keyed(b"1", "a")
    assert harness.queue.enqueue([ORIGIN], [content], len(content)) is EnqueueResult.ACCEPTED
    (delivery_batch,) = harness.queue.pump()
    assert delivery_batch.holder is consumer
    result = harness.queue.enqueue([ORIGIN], [content], len(content))
    assert isinstance(result, PartialResult)
    assert (result.accepted, result.duplicates) == (EnqueueResult.ACCEPTED, [(0, 1)])
    assert harness.queue.pump() == []


def test_what_a_full_queue_refuses_is_not_known() -> None:
    one = deduplicating(max_length=1, overflow="reject-publish")
    contents = [keyed(b"1", "a"), keyed(b"2", "b"), keyed(b"3", "b"), keyed(b"4", "a")]
    assert one.put(contents) == [
        MessageResult.ACCEPTED,
        MessageResult.REJECTED,
        MessageResult.REJECTED,
        MessageResult.DUPLICATE,
    ]
    assert one.put([keyed(b"5", "a")]) == [MessageResult.DUPLICATE]
    one.queue.settings = QueueSettings(deduplicates=True)
    assert one.put([keyed(b"6", "b")]) == [MessageResult.ACCEPTED]


def test_who_sends_dead_letters_round_in_circles_loses_none() -> None:
    one = deduplicating()
    assert one.put([keyed(b"1", "a")]) == [MessageResult.ACCEPTED]
    assert one.put([keyed(b"1", "a")], DIED) == [MessageResult.ACCEPTED]
    assert one.put([keyed(b"2", "b")], DIED) == [MessageResult.ACCEPTED]
    assert one.put([keyed(b"2", "b")]) == [MessageResult.ACCEPTED]


def test_who_wants_it_no_more_has_all_forgotten() -> None:
    one = deduplicating()
    assert one.put([keyed(b"1", "a")]) == [MessageResult.ACCEPTED]
    one.queue.settings = QueueSettings()
    assert one.put([keyed(b"1", "a")]) == [MessageResult.ACCEPTED]
    one.queue.settings = QueueSettings(deduplicates=True)
    assert one.put([keyed(b"1", "a")]) == [MessageResult.ACCEPTED]
    assert one.put([keyed(b"1", "a")]) == [MessageResult.DUPLICATE]


def test_a_smaller_cache_forgets_the_oldest() -> None:
    one = deduplicating(size=3)
    one.put([keyed(b"%d" % number, number) for number in range(3)])
    one.queue.settings = QueueSettings(deduplicates=True, cache_size=2)
    assert one.put([keyed(b"3", 3), keyed(b"2", 2)]) == [
        MessageResult.ACCEPTED,
        MessageResult.DUPLICATE,
    ]
    assert one.put([keyed(b"1", 1)]) == [MessageResult.ACCEPTED]


def test_what_is_over_takes_no_room() -> None:
    one = deduplicating(size=100, ttl_ms=10)
    sieve = one.queue._entrance._sieve
    assert sieve is not None
    one.put([keyed(b"%d" % number, number) for number in range(50)])
    assert len(sieve.window) == 50
    one.time.ms += 10
    one.put([keyed(b"1", "a")])
    assert len(sieve.window) == 1


@pytest.mark.parametrize(
    ("arguments", "policy", "cache"),
    [
        ({}, {}, None),
        ({"message_deduplication": True}, {}, DeduplicationCache(DEFAULT_CACHE_SIZE, None)),
        ({"cache_size": 5}, {}, None),
        ({}, {"x-message-deduplication": True, "x-cache-size": 5}, DeduplicationCache(5, None)),
        ({"message_deduplication": False}, {"x-message-deduplication": True}, None),
        (
            {"message_deduplication": True, "cache_ttl": 9},
            {"x-cache-ttl": 7},
            DeduplicationCache(DEFAULT_CACHE_SIZE, 7),
        ),
        (
            {"message_deduplication": True},
            {"x-cache-size": 1_000_000},
            DeduplicationCache(100_000, None),
        ),
    ],
)
@pytest.mark.parametrize("queue_type", [QueueType.CLASSIC, QueueType.QUORUM])
def test_who_asks_for_it(
    arguments: dict[str, PlainValue],
    policy: dict[str, object],
    cache: DeduplicationCache | None,
    queue_type: QueueType,
) -> None:
    spec = QueueSpec("q", queue_type=queue_type, arguments=queue_arguments(**arguments))
    assert settings_of(spec, policy).cache == cache
