"""The pytest plugin: a broker for the session, and a virtual host of it for each test.

    def test_an_order_is_published(amqp):
        place_order(amqp.url)
        amqp.expect("orders", count=1)
        assert amqp.messages("orders")[0].json() == {"number": 7}

It is loaded with pytest, whoever uses it; so it imports nothing of the broker until it is.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fluffle.broker.testing.threaded import AwaitedVhost, BlockingVhost, ThreadedBroker

NUMBERS = itertools.count(1)
"""Of tests in this process; each process of a run has a broker of its own."""


@pytest.fixture(scope="session")
def amqp_broker() -> Iterator[ThreadedBroker]:
    """A broker in a thread of its own, for all tests of this process."""
    from fluffle.broker.testing.threaded import ThreadedBroker  # noqa: PLC0415  if it is used

    with ThreadedBroker() as broker:
        yield broker


@pytest.fixture
def amqp(
    amqp_broker: ThreadedBroker, request: pytest.FixtureRequest
) -> Iterator[BlockingVhost | AwaitedVhost]:
    """A fresh virtual host: `amqp.url` for the code under test, the rest to look inside.

    In a test that is a coroutine all that it does is awaited.
    """
    name = f"test {next(NUMBERS)}"
    vhost = amqp_broker.add_vhost(name)
    yield vhost.awaited if inspect.iscoroutinefunction(request.function) else vhost
    amqp_broker.delete_vhost(name)
    if forgotten := vhost.awaited.unawaited:
        called = ", ".join(f"amqp.{name}" for name in forgotten.values())
        pytest.fail(f"not awaited, and so not done: {called}", pytrace=False)
