"""x-expires: queues that go when nobody has used them for long enough."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.queues.make import Aging
from tests.support.asking import asking

START_MS = 1_000
EXPIRES_MS = 10_000


@pytest.fixture
def bench() -> Aging:
    return Aging(QueueSpec("q", arguments=asking(expires=EXPIRES_MS)))


def test_it_is_over_when_nobody_has_used_it_for_long(bench: Aging) -> None:
    bench.advance(EXPIRES_MS - 1)
    assert (bench.disused, bench.queue.is_disused) == ([], False)
    bench.enqueue("a")
    bench.advance(1)
    assert bench.disused == [START_MS + EXPIRES_MS], "to publish is no use"
    bench.advance(10 * EXPIRES_MS)
    assert bench.disused == [START_MS + EXPIRES_MS], "it is said once"


def test_it_lasts_while_it_has_a_consumer(bench: Aging) -> None:
    bench.advance(EXPIRES_MS - 1)
    consumer = bench.consume("c")
    bench.advance(10 * EXPIRES_MS)
    assert not bench.queue.is_disused
    bench.queue.detach(consumer)
    bench.advance(EXPIRES_MS - 1)
    assert bench.disused == []
    bench.advance(1)
    assert len(bench.disused) == 1


def test_to_get_and_to_declare_again_are_uses(bench: Aging) -> None:
    holder = bench.consume("c")
    bench.queue.detach(holder)
    for use in (lambda: bench.queue.get(holder), lambda: bench.queue.queue_counts_in_use):
        bench.advance(EXPIRES_MS - 1)
        use()
    bench.advance(EXPIRES_MS - 1)
    assert (bench.queue.queue_counts.ready, bench.disused) == (0, [])
    bench.advance(1)
    assert bench.disused == [START_MS + 3 * (EXPIRES_MS - 1) + 1]


def test_whoever_comes_too_late_begins_anew(bench: Aging) -> None:
    bench.advance(EXPIRES_MS)
    assert bench.queue.queue_counts_in_use.ready == 0
    assert not bench.queue.is_disused
    bench.advance(EXPIRES_MS)
    assert bench.disused == [START_MS + EXPIRES_MS, START_MS + 2 * EXPIRES_MS]


def test_it_wakes_rarely_while_it_is_used(bench: Aging) -> None:
    holder = bench.consume("c")
    bench.queue.detach(holder)
    assert bench.queue.due_ms == START_MS + EXPIRES_MS
    bench.now += 900
    bench.queue.get(holder)
    assert bench.queue.due_ms == START_MS + 900 + EXPIRES_MS
    bench.consume("d")
    assert bench.queue.due_ms is None


def test_other_settings_begin_to_count_anew(bench: Aging) -> None:
    bench.advance(EXPIRES_MS - 1)
    bench.queue.settings = QueueSettings(expires_ms=2 * EXPIRES_MS)
    bench.advance(2 * EXPIRES_MS - 1)
    assert bench.disused == []
    bench.queue.settings = QueueSettings(expires_ms=2 * EXPIRES_MS, max_length=5)
    bench.advance(1)
    assert bench.disused == [START_MS + 3 * EXPIRES_MS - 1], "what has not changed goes on"


def test_settings_may_let_it_stay(bench: Aging) -> None:
    bench.queue.settings = QueueSettings()
    bench.advance(10 * EXPIRES_MS)
    assert (bench.disused, bench.queue.is_disused, bench.queue.due_ms) == ([], False, None)
