"""The same, by somebody who wants what has waited for an hour to be looked at again, too.

What goes round in a circle, and was never rejected on its way, a broker drops when it is back: from
the queue to the retries because it has expired, and from the retries because it has expired.
"""

from app import IMPORTS, RETRY
from app import make_app as make_app_with
from celery import Celery
from kombu import Queue

WAITS_MS = 3_600_000


def make_app(url: str) -> Celery:
    arguments = {**IMPORTS.queue_arguments, "x-message-ttl": WAITS_MS}
    return make_app_with(url, (Queue(IMPORTS.name, queue_arguments=arguments), RETRY))
