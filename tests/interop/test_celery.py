"""A Celery worker, in its own process with its own pool, and a program that sends it tasks."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import chord, group
from kombu import pools

from tests.interop.celery_worker import Worker
from tests.support.deadlines import DEADLINE_S

Name = Callable[[str], str]


@pytest.fixture(scope="module", autouse=True)
def connections() -> Iterator[None]:
    """The pool of connections that the applications of this process share."""
    yield
    pools.reset()


@pytest.fixture(scope="module")
def rpc_worker(url: str) -> Iterator[Worker]:
    """Its results come through the broker, to a queue of the application."""
    with Worker(url, "rpc://", f"interop.celery.{os.getpid()}.rpc") as worker:
        yield worker
        worker.app.backend.result_consumer.stop()
        worker.stop()


@pytest.fixture(scope="module")
def file_worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Its results go to files, which is enough to count the members of a chord."""
    backend = tmp_path_factory.mktemp("results").as_uri()
    with Worker(url, backend, f"interop.celery.{os.getpid()}.file") as worker:
        yield worker
        worker.stop()


def test_many_tasks(rpc_worker: Worker) -> None:
    add = rpc_worker.app.tasks["add"]
    results = group(add.s(number, number) for number in range(50)).apply_async()
    assert results.get(timeout=DEADLINE_S) == [2 * number for number in range(50)]


def test_retries_with_a_countdown(rpc_worker: Worker) -> None:
    result = rpc_worker.app.tasks["flaky"].delay(3, countdown=0.2)
    assert result.get(timeout=DEADLINE_S) == 3


def test_a_task_with_an_eta_does_not_run_early(rpc_worker: Worker) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=1)
    result = rpc_worker.app.tasks["moment"].apply_async(eta=eta, priority=5)
    assert result.get(timeout=DEADLINE_S) >= eta.timestamp()


def test_an_expired_task_never_runs(rpc_worker: Worker) -> None:
    expires = datetime.now(UTC) - timedelta(seconds=1)
    expired = rpc_worker.app.tasks["add"].apply_async((1, 2), expires=expires)
    assert rpc_worker.app.tasks["add"].delay(2, 3).get(timeout=DEADLINE_S) == 5
    with pytest.raises(Exception, match="expired"):
        expired.get(timeout=DEADLINE_S)


def test_a_chain(rpc_worker: Worker) -> None:
    add = rpc_worker.app.tasks["add"]
    assert (add.s(1, 2) | add.s(3) | add.s(4)).delay().get(timeout=DEADLINE_S) == 10


def test_a_chord(file_worker: Worker) -> None:
    add, total = (file_worker.app.tasks[name] for name in ("add", "total"))
    result = chord(add.s(number, 1) for number in range(10))(total.s())
    assert result.get(timeout=DEADLINE_S) == 55


def test_remote_control(rpc_worker: Worker) -> None:
    assert rpc_worker.inspect().ping() == {rpc_worker.hostname: {"ok": "pong"}}
    assert "add" in rpc_worker.inspect().registered()[rpc_worker.hostname]


@pytest.mark.slow("a worker starts as a process, twice")
def test_a_stopped_worker_gives_back_what_it_had_reserved(
    url: str, tmp_path: Path, name: Name
) -> None:
    queue = name("celery")
    with Worker(url, tmp_path.as_uri(), queue) as worker:
        worker.app.tasks["add"].apply_async((1, 2), countdown=3600)
        while not worker.inspect().scheduled()[worker.hostname]:
            pass  # each turn is a round trip through the broker
        with worker.app.connection_for_read() as connection:
            channel = connection.default_channel
            assert channel.queue_declare(queue, passive=True).message_count == 0
            worker.stop()
            assert channel.queue_declare(queue, passive=True).message_count == 1
            channel.queue_delete(queue)
