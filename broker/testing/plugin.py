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
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from fluffle.broker.config import Config
    from fluffle.broker.testing.threaded import AwaitedVhost, BlockingVhost, ThreadedBroker

NUMBERS = itertools.count(1)
"""Of tests in this process; each process of a run has a broker of its own."""

MARKS = (
    "amqp(users, permissions, definitions, default_queue_type): what the virtual host of the "
    "fixture `amqp` has in it",
)


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)


@pytest.fixture(scope="session")
def amqp_broker_config() -> Config | Mapping[str, Any] | None:
    """What `amqp_broker` is made of: to be overridden with a `Config`, or with a dict of the
    arguments of `ThreadedBroker`."""
    return None


@pytest.fixture(scope="session")
def amqp_broker(
    amqp_broker_config: Config | Mapping[str, Any] | None,
) -> Iterator[ThreadedBroker]:
    """A broker in a thread of its own, for all tests of this process."""
    from fluffle.broker.testing.threaded import ThreadedBroker  # noqa: PLC0415  if it is used

    with ThreadedBroker(**broker_arguments(amqp_broker_config)) as broker:
        yield broker


@pytest.fixture
def amqp(
    amqp_broker: ThreadedBroker, request: pytest.FixtureRequest
) -> Iterator[BlockingVhost | AwaitedVhost]:
    """A fresh virtual host: `amqp.url` for the code under test, the rest to look inside.

    In a coroutine all that it does is awaited.
    """
    from fluffle.broker.testing.by_caller import ByCaller  # noqa: PLC0415
    from fluffle.broker.testing.wanted import wanted_of  # noqa: PLC0415

    name = f"test {next(NUMBERS)}"
    try:
        marks = [*request.node.iter_markers("amqp")]
        wanted = wanted_of([keywords_of(mark) for mark in marks])
    except TypeError as error:
        pytest.fail(str(error), pytrace=False)
    vhost = amqp_broker.add_vhost(name, wanted)
    yield cast("BlockingVhost | AwaitedVhost", ByCaller(vhost))
    amqp_broker.delete_vhost(name)
    if forgotten := vhost.awaited.unawaited:
        called = ", ".join(f"amqp.{name}" for name in forgotten.values())
        pytest.fail(f"not awaited, and so not done: {called}", pytrace=False)


def keywords_of(mark: pytest.Mark) -> Mapping[str, Any]:
    """TypeError for what has no name."""
    if mark.args:
        raise TypeError(f"the arguments of @pytest.mark.amqp have names, unlike {mark.args[0]!r}")
    return mark.kwargs


def broker_arguments(said: Config | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What `amqp_broker_config` gives, as arguments."""
    from fluffle.broker.testing.threaded import ThreadedBroker  # noqa: PLC0415

    if not isinstance(said, Mapping):
        return {"config": said}
    known = inspect.signature(ThreadedBroker).parameters
    for name in said.keys() - known.keys():
        pytest.fail(
            f"amqp_broker_config has '{name}', which is none of {', '.join(known)}", pytrace=False
        )
    return said
