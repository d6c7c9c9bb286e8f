"""x-expires: queues that go when nobody has used them for long enough."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.queues.queue_harness import ExpiryHarness
from tests.support.queue_arguments import queue_arguments

START_MS = 1_000
EXPIRES_MS = 10_000


@pytest.fixture
def harness() -> ExpiryHarness:
    return ExpiryHarness(QueueSpec("q", arguments=queue_arguments(expires=EXPIRES_MS)))


def test_it_is_over_when_nobody_has_used_it_for_long(harness: ExpiryHarness) -> None:
    harness.advance(EXPIRES_MS - 1)
    assert (harness.queue_expired, harness.queue.is_queue_expired) == ([], False)
    harness.enqueue("a")
    harness.advance(1)
    assert harness.queue_expired == [START_MS + EXPIRES_MS], "to publish is no use"
    harness.advance(10 * EXPIRES_MS)
    assert harness.queue_expired == [START_MS + EXPIRES_MS], "it is said once"


def test_it_lasts_while_it_has_a_consumer(harness: ExpiryHarness) -> None:
    harness.advance(EXPIRES_MS - 1)
    consumer = harness.consume("c")
    harness.advance(10 * EXPIRES_MS)
    assert not harness.queue.is_queue_expired
    harness.queue.detach(consumer)
    harness.advance(EXPIRES_MS - 1)
    assert harness.queue_expired == []
    harness.advance(1)
    assert len(harness.queue_expired) == 1


def test_to_get_and_to_declare_again_are_uses(harness: ExpiryHarness) -> None:
    holder = harness.consume("c")
    harness.queue.detach(holder)
    for use in (lambda: harness.queue.get(holder), lambda: harness.queue.queue_counts_in_use):
        harness.advance(EXPIRES_MS - 1)
        use()
    harness.advance(EXPIRES_MS - 1)
    assert (harness.queue.queue_counts.ready, harness.queue_expired) == (0, [])
    harness.advance(1)
    assert harness.queue_expired == [START_MS + 3 * (EXPIRES_MS - 1) + 1]


def test_whoever_comes_too_late_begins_anew(harness: ExpiryHarness) -> None:
    harness.advance(EXPIRES_MS)
    assert harness.queue.queue_counts_in_use.ready == 0
    assert not harness.queue.is_queue_expired
    harness.advance(EXPIRES_MS)
    assert harness.queue_expired == [START_MS + EXPIRES_MS, START_MS + 2 * EXPIRES_MS]


def test_it_wakes_rarely_while_it_is_used(harness: ExpiryHarness) -> None:
    holder = harness.consume("c")
    harness.queue.detach(holder)
    assert harness.queue.due_ms == START_MS + EXPIRES_MS
    harness.now += 900
    harness.queue.get(holder)
    assert harness.queue.due_ms == START_MS + 900 + EXPIRES_MS
    harness.consume("d")
    assert harness.queue.due_ms is None


def test_other_settings_begin_to_count_anew(harness: ExpiryHarness) -> None:
    harness.advance(EXPIRES_MS - 1)
    harness.queue.settings = QueueSettings(expires_ms=2 * EXPIRES_MS)
    harness.advance(2 * EXPIRES_MS - 1)
    assert harness.queue_expired == []
    harness.queue.settings = QueueSettings(expires_ms=2 * EXPIRES_MS, max_length=5)
    harness.advance(1)
    assert harness.queue_expired == [START_MS + 3 * EXPIRES_MS - 1], "what has not changed goes on"


def test_settings_may_let_it_stay(harness: ExpiryHarness) -> None:
    harness.queue.settings = QueueSettings()
    harness.advance(10 * EXPIRES_MS)
    assert (harness.queue_expired, harness.queue.is_queue_expired, harness.queue.due_ms) == (
        [],
        False,
        None,
    )
