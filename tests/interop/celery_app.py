"""Tasks of the Celery workers of these tests, configured by their environment."""

import os
import signal
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from celery import Celery, Task

TURNS = count(1)
"""Counter of this worker: how many tasks have asked for their turn."""

CLASSIC: dict[str, Any] = {"task_queue_max_priority": 9}
QUORUM: dict[str, Any] = {
    "task_default_queue_type": "quorum",
    "task_default_exchange_type": "topic",  # delays of the broker's own need it
    "task_acks_late": True,
}
SETTINGS = {"classic": CLASSIC, "quorum": QUORUM}


def make_app(broker: str, backend: str, queue: str, queue_type: str) -> Celery:
    """A Celery application whose tasks travel through `queue`."""
    app = Celery("interop", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        task_default_exchange=queue,
        task_default_routing_key=queue,
        result_chord_retry_interval=0.1,
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=2,
        **SETTINGS[queue_type],
    )

    # Not shared: a second application in this process has tasks of its own.
    @app.task(name="add", shared=False)
    def add(left: int, right: int) -> int:
        return left + right

    @app.task(name="total", shared=False)
    def total(numbers: Sequence[int]) -> int:
        return sum(numbers)

    @app.task(name="moment", shared=False)
    def moment() -> float:
        return time.time()

    @app.task(name="turn", shared=False)
    def turn() -> int:
        return next(TURNS)

    @app.task(name="flaky", shared=False, bind=True, max_retries=5, acks_late=True)
    def flaky(task: Task, failures: int, countdown: float) -> int:
        if task.request.retries < failures:
            raise task.retry(countdown=countdown)
        return int(task.request.retries)

    @app.task(name="stuck once", shared=False, bind=True)
    def stuck_once(task: Task, pipe: str) -> bool:
        """Run for ever the first time, after a note; succeed when redelivered."""
        if not task.request.delivery_info["redelivered"]:
            Path(pipe).write_text("it runs")
            signal.pause()
        return bool(task.request.delivery_info["redelivered"])

    return app


if "INTEROP_BROKER" in os.environ:
    app = make_app(
        *(os.environ[f"INTEROP_{key}"] for key in ("BROKER", "BACKEND", "QUEUE", "QUEUE_TYPE"))
    )
