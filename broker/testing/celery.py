"""Fixtures for Celery, of who asks for them behind those of Celery itself, in conftest.py:

    pytest_plugins = ["celery.contrib.pytest", "fluffle.broker.testing.celery"]

Then `celery_app` and `celery_worker` talk to the virtual host of their test, `amqp`, and
`celery_session_app` and `celery_session_worker` to that of the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker


@pytest.fixture(scope="session")
def celery_broker_url(amqp_broker: ThreadedBroker) -> str:
    """Return the URL for applications that are there before any test."""
    return amqp_broker.url


@pytest.fixture(scope="session")
def celery_config(celery_broker_url: str) -> dict[str, Any]:
    """Tasks and their results go through the broker."""
    return {"broker_url": celery_broker_url, "result_backend": "rpc://"}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> dict[str, Any]:
    """Switch off the task by which Celery sees that a worker runs: that it consumes is enough."""
    return {"perform_ping_check": False}


@pytest.fixture
def celery_app(celery_app: Any, amqp: BlockingVhost) -> Iterator[Any]:
    """Celery's own, in the virtual host of the test."""
    celery_app.conf.broker_url = celery_app.conf.broker_read_url = amqp.url
    celery_app.conf.broker_write_url = amqp.url
    yield celery_app
    from kombu import pools  # noqa: PLC0415  Celery has imported it

    with suppress(AttributeError):  # no result was asked for, or it is kept elsewhere
        celery_app.backend.result_consumer.stop()
    celery_app.close()
    pools.reset()  # type: ignore[no-untyped-call]  # of the process, with connections
