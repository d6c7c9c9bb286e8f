"""Celery over quorum queues: delays are the broker's own, and what a dead worker had comes back.

Celery finds such queues by itself: it sets no prefetch for whole channels then, and declares 28
queues, of which each makes messages wait twice as long as the one below it and hands them on at
least once.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from kombu import pools
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE, level_name

from tests.interop.celery_app import make_app
from tests.interop.celery_worker import run_worker, stop
from tests.support.deadlines import DEADLINE_S
from tests.support.process import Process

Name = Callable[[str], str]

DELAYS = [level_name(level) for level in range(MAX_NUMBER_OF_BITS_TO_USE)]


@dataclass
class Shop:
    """An application, and workers one after the other, each of which runs one task at a time."""

    broker: str
    queue: str
    app: Celery

    def open(self) -> Process:
        hostname = f"{self.queue}@localhost"
        return run_worker(self.broker, "rpc://", self.queue, "quorum", hostname, "--pool", "solo")


@pytest.fixture(scope="module", autouse=True)
def connections() -> Iterator[None]:
    """The pool of connections that the applications of this process share."""
    yield
    pools.reset()


@pytest.fixture
def shop(url: str, name: Name) -> Iterator[Shop]:
    queue = name("celery.quorum")
    app = make_app(url, "rpc://", queue, "quorum")
    yield Shop(url, queue, app)
    app.backend.result_consumer.stop()
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue)
        connection.default_channel.exchange_delete(queue)
    app.close()


def test_delays_and_retries_wait_in_the_broker(shop: Shop) -> None:
    """No sooner than they are due; the worker hears of none before."""
    worker = shop.open()
    try:
        eta = datetime.now(UTC) + timedelta(seconds=1.9)
        later = shop.app.tasks["moment"].apply_async(eta=eta)
        soon = shop.app.tasks["add"].apply_async((1, 2), countdown=1)
        again = shop.app.tasks["flaky"].delay(2, countdown=1)
        scheduled = shop.app.control.inspect(timeout=DEADLINE_S, limit=1).scheduled()
        assert list(scheduled.values()) == [[]]
        assert soon.get(timeout=DEADLINE_S) == 3
        assert later.get(timeout=DEADLINE_S) >= eta.timestamp() - 1, "whole seconds count"
        assert again.get(timeout=DEADLINE_S) == 2
        assert "Global QoS is disabled" in worker.log
        with shop.app.connection_for_read() as connection:
            channel = connection.default_channel
            left = [channel.queue_declare(delay, passive=True).message_count for delay in DELAYS]
        assert left == [0] * 28
        stop(worker)
    finally:
        worker.kill()


def test_what_waits_is_served_by_priority(shop: Shop) -> None:
    turn = shop.app.tasks["turn"]
    turns = [turn.apply_async(priority=priority) for priority in (0, 9, 5, 9)]
    worker = shop.open()
    try:
        assert [each.get(timeout=DEADLINE_S) for each in turns] == [4, 1, 3, 2]
        stop(worker)
    finally:
        worker.kill()


def test_what_a_killed_worker_had_is_run_by_the_next(shop: Shop, tmp_path: Path) -> None:
    """The worker acknowledges late."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = shop.app.tasks["stuck once"].delay(str(pipe))
    worker = shop.open()
    try:
        assert pipe.read_text() == "it runs"
    finally:
        worker.kill()
    worker = shop.open()
    try:
        assert result.get(timeout=DEADLINE_S) is True
        stop(worker)
    finally:
        worker.kill()
