"""What the Celery worker of `test_celery.py` runs, configured by its environment."""

import os
import time
from collections.abc import Sequence

from celery import Celery, Task


def make_app(broker: str, backend: str, queue: str) -> Celery:
    """A Celery application whose tasks travel through `queue`."""
    app = Celery("interop", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        task_queue_max_priority=9,
        result_chord_retry_interval=0.1,
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=2,
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

    @app.task(name="flaky", shared=False, bind=True, max_retries=5, acks_late=True)
    def flaky(task: Task, failures: int) -> int:
        if task.request.retries < failures:
            raise task.retry(countdown=0.2)
        return int(task.request.retries)

    return app


if "INTEROP_BROKER" in os.environ:
    app = make_app(*(os.environ[f"INTEROP_{key}"] for key in ("BROKER", "BACKEND", "QUEUE")))
