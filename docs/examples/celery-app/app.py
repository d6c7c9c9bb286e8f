"""Imports files.  What cannot be imported now is tried again in ten minutes."""

from collections.abc import Sequence
from pathlib import Path

from celery import Celery
from celery.exceptions import Reject
from kombu import Queue

RETRY_MS = 600_000

IMPORTS = Queue(
    "imports",
    queue_arguments={
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "imports.retry",
    },
)
RETRY = Queue(
    "imports.retry",
    queue_arguments={
        "x-message-ttl": RETRY_MS,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "imports",
    },
)


def make_app(url: str, queues: Sequence[Queue] = (IMPORTS, RETRY)) -> Celery:
    """Its tasks wait in the first of two queues, and where they have failed, in the second."""
    imports, retry = queues
    app = Celery("imports", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=[imports],
        task_default_queue=imports.name,
        task_acks_late=True,  # rejecting is for tasks that are not acknowledged yet
        worker_prefetch_multiplier=1,
    )
    with app.connection_for_write() as connection:
        for queue in (imports, retry):
            queue.bind(connection.default_channel).declare()

    @app.task(name="import_file", shared=False)
    def import_file(name: str) -> None:
        file = Path(name)
        try:
            file.rename(file.with_suffix(".imported"))
        except OSError as error:
            raise Reject(str(error), requeue=False) from error

    return app
