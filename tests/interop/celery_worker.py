"""A Celery worker as a process of its own, and the application that sends it tasks."""

import os
import sys
from pathlib import Path
from typing import Self

from celery import Celery
from celery.app.control import Inspect

from tests.interop.celery_app import make_app
from tests.support.deadlines import DEADLINE_S
from tests.support.process import Process

ROOT = Path(__file__).parents[2]
CELERY = (sys.executable, "-m", "celery", "-A", "tests.interop.celery_app", "--workdir", str(ROOT))


def run_worker(
    broker: str, backend: str, queue: str, queue_type: str, hostname: str, *options: str
) -> Process:
    """Worker that is ready for tasks."""
    environment = {
        "INTEROP_BROKER": broker,
        "INTEROP_BACKEND": backend,
        "INTEROP_QUEUE": queue,
        "INTEROP_QUEUE_TYPE": queue_type,
    }
    said = ["--hostname", hostname, "--loglevel", "INFO", *options]
    return Process([*CELERY, "worker", *said], r" ready\.$", os.environ | environment)


class Worker:
    """A worker process, and an application to send it tasks with."""

    __slots__ = ("app", "hostname", "process")

    def __init__(self, broker: str, backend: str, queue: str) -> None:
        self.app: Celery = make_app(broker, backend, queue, "classic")
        self.hostname = f"{queue}@localhost"
        options = "--concurrency", "2"
        self.process = run_worker(broker, backend, queue, "classic", self.hostname, *options)

    def inspect(self) -> Inspect:
        """Ask by broadcast; the answer comes by an exclusive queue."""
        return self.app.control.inspect([self.hostname], timeout=DEADLINE_S, limit=1)

    def stop(self) -> None:
        stop(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()
        self.process.kill()


def stop(process: Process) -> None:
    """Stop the worker as an operator does, and check that it logged no errors."""
    assert process.stop() == 0, process.log
    assert "Traceback" not in process.log, process.log
