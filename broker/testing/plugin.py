"""The pytest plugin: a broker for the session, and a virtual host of it for each test.

    def test_an_order_is_published(amqp):
        place_order(amqp.url)
        amqp.expect("orders", count=1)
        assert amqp.messages("orders")[0].json() == {"number": 7}

It is loaded with pytest, used or not; so it imports nothing of the broker until it is.
"""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

if TYPE_CHECKING:
    from fluffle.broker.config.config import Config
    from fluffle.broker.testing.external.broker import ExternalBroker
    from fluffle.broker.testing.threaded import AwaitedVhost, BlockingVhost, ThreadedBroker

pytest_plugins = (
    "fluffle.broker.testing.cluster.plugin",
    "fluffle.broker.testing.timeline_plugin",
    "fluffle.broker.testing.unkind_plugin",
)


NUMBERS = itertools.count(1)
"""Of tests in this process; each process of a run has a broker of its own."""

MARKS = (
    "amqp(users, permissions, definitions, default_queue_type): what the virtual host of the "
    "fixture `amqp` has in it",
)


EXTERNAL = "external"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fluffle", "brokers for tests")
    group.addoption(
        "--amqp-broker",
        metavar="URL",
        help="run the tests against a RabbitMQ: external://USER:PASSWORD@HOST:PORT, amqp://… or "
        "amqps://…; what only fluffle can do is skipped",
    )
    group.addoption(
        "--amqp-management",
        metavar="URL",
        default="",
        help="where its management API is; by default http://HOST:15672",
    )
    parser.addini("amqp_broker", "the same as --amqp-broker", default="")
    parser.addini("amqp_management", "the same as --amqp-management", default="")


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)


def external_url(config: pytest.Config) -> str:
    """Empty for a broker of our own."""
    url: str = config.getoption("--amqp-broker") or config.getini("amqp_broker")
    scheme, colon, rest = url.partition(":")
    return f"amqp:{rest}" if colon and scheme == EXTERNAL else url


def needs_fluffle(name: str) -> NoReturn:
    """End a test that an external broker cannot run."""
    pytest.skip(f"needs fluffle: {name}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test needs as a whole is missed before it has anything."""
    if not external_url(item.config):
        return
    from fluffle.broker.testing.timeline_plugin import STRICT, is_strict  # noqa: PLC0415
    from fluffle.broker.testing.unkind_plugin import MARK, seed_of  # noqa: PLC0415

    fixtures = getattr(item, "fixturenames", ())
    if "amqp_cluster" in fixtures:
        needs_fluffle("amqp_cluster")
    if "amqp" in fixtures and seed_of(item) is not None:
        needs_fluffle(MARK)
    if "amqp" in fixtures and is_strict(item):
        needs_fluffle(STRICT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """What goes wrong ends with the test, before its fixtures say goodbye to the broker."""
    from fluffle.broker.testing.timeline_plugin import brokers_of  # noqa: PLC0415

    try:
        for broker in brokers_of(item):
            if broker.broker.failure is None:
                broker.mend()
    finally:
        yield


@pytest.fixture(scope="session")
def amqp_broker_config() -> Config | Mapping[str, Any] | None:
    """What `amqp_broker` is made of: to be overridden with a `Config`, or with a dict of the
    arguments of `ThreadedBroker`."""
    return None


@pytest.fixture(scope="session")
def amqp_broker(
    request: pytest.FixtureRequest,
) -> Iterator[ThreadedBroker]:
    """A broker in a thread of its own, for all tests of this process; or an external one."""
    if external_url(request.config):
        with entered_external(request.config) as external:
            yield cast("ThreadedBroker", external)
        return
    from fluffle.broker.testing.threaded import ThreadedBroker  # noqa: PLC0415  if it is used

    options = request.getfixturevalue("amqp_broker_config")
    with ThreadedBroker(**broker_arguments(options)) as broker:
        yield broker


@contextmanager
def entered_external(config: pytest.Config) -> Iterator[ExternalBroker]:
    """It ends the run if it is not there: no test can be run."""
    from fluffle.broker.testing.external.broker import ExternalBroker  # noqa: PLC0415
    from fluffle.broker.testing.external.management import ManagementError  # noqa: PLC0415

    management = config.getoption("--amqp-management") or config.getini("amqp_management")
    with ExitStack() as entered:
        try:
            broker = ExternalBroker(external_url(config), management, needs_fluffle)
            entered.enter_context(broker)
        except (ManagementError, ValueError) as error:
            pytest.exit(f"--amqp-broker: {error}", pytest.ExitCode.USAGE_ERROR)
        yield broker


@pytest.fixture
def amqp(
    amqp_broker: ThreadedBroker, request: pytest.FixtureRequest
) -> Iterator[BlockingVhost | AwaitedVhost]:
    """A fresh virtual host: `amqp.url` for the code under test, the rest to look inside.

    In a coroutine all that it does is awaited.
    """
    from fluffle.broker.testing.requirements import requirements_of  # noqa: PLC0415
    from fluffle.broker.testing.threaded import ByCaller  # noqa: PLC0415
    from fluffle.broker.testing.timeline_plugin import check_left  # noqa: PLC0415
    from fluffle.broker.testing.unkind_plugin import seed_of  # noqa: PLC0415

    name = vhost_name(request.config)
    try:
        marks = [*request.node.iter_markers("amqp")]
        wanted = requirements_of([keywords_of(mark) for mark in marks])
    except TypeError as error:
        pytest.fail(str(error), pytrace=False)
    vhost = amqp_broker.add_vhost(name, wanted)
    if (seed := seed_of(request.node)) is not None:
        vhost.faults.unkind(seed)
    yield cast("BlockingVhost | AwaitedVhost", ByCaller(vhost))
    try:
        check_left(request.node, vhost)
    finally:
        amqp_broker.delete_vhost(name)
    if forgotten := vhost.awaited.unawaited:
        called = ", ".join(f"amqp.{name}" for name in forgotten.values())
        pytest.fail(f"not awaited, and so not done: {called}", pytrace=False)


def vhost_name(config: pytest.Config) -> str:
    """On a broker that others use no other has such a name."""
    if external_url(config):
        return f"fluffle test {uuid.uuid4().hex}"
    return f"test {next(NUMBERS)}"


def keywords_of(mark: pytest.Mark) -> Mapping[str, Any]:
    """TypeError for what has no name."""
    if mark.args:
        raise TypeError(f"the arguments of @pytest.mark.amqp have names, unlike {mark.args[0]!r}")
    return mark.kwargs


def broker_arguments(options: Config | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what `amqp_broker_config` gives, as arguments."""
    from fluffle.broker.testing.threaded import ThreadedBroker  # noqa: PLC0415

    if not isinstance(options, Mapping):
        return {"config": options}
    known = inspect.signature(ThreadedBroker).parameters
    for name in options.keys() - known.keys():
        pytest.fail(
            f"amqp_broker_config has '{name}', which is none of {', '.join(known)}", pytrace=False
        )
    return options
