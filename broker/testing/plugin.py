"""Plugin of pytest: brokers, virtual hosts and clusters for tests, and reports of those that fail.

    def test_an_order_is_published(amqp):
        place_order(amqp.url)
        amqp.expect("orders", count=1)
        assert amqp.messages("orders")[0].json() == {"number": 7}

    def test_orders_outlive_a_leader(amqp_cluster):
        place_order(amqp_cluster.url)
        amqp_cluster.kill(amqp_cluster.leader("orders"))

A report has the timeline, the messages that are left, and the log of the broker.  It is loaded with
pytest, used or not; so it imports nothing of the broker until it is.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import random
import sys
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

if TYPE_CHECKING:
    from fluffle.broker.config.config import Config
    from fluffle.broker.testing.cluster.cluster import ThreadedCluster
    from fluffle.broker.testing.external_broker import ExternalBroker
    from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker

EXTERNAL = "external"
STRICT = "amqp_strict"
UNKIND = "amqp_unkind"
UNKIND_OPTION = "--amqp-unkind"
CLUSTER = "amqp_cluster"

ANY_SEED = -1
SEEDS = 1_000_000
LOG_RECORDS_MAX = 200

MARKS = (
    "amqp(users, permissions, definitions, default_queue_type): what the virtual host of the "
    "fixture `amqp` has in it",
    f"{CLUSTER}(nodes, users, vhosts, definitions, seed): as for `ThreadedCluster`",
    f"{STRICT}(enabled=True): fail if the test leaves messages unacknowledged, has published what "
    "no queue got, or leaves connections open",
    f"{UNKIND}(seed): let the broker do what naive code forgets; from any seed",
)

NUMBERS = itertools.count(1)
"""Numbers of tests in this process; each process of a run has a broker of its own."""

TIMELINE_KEY = pytest.StashKey[str]()
"""Timeline of a test whose virtual host is about to be deleted."""
HAS_FAILED_KEY = pytest.StashKey[bool]()
SEED_KEY = pytest.StashKey[int]()
"""Seed that a test was run with."""
CLUSTER_KEY = pytest.StashKey["ThreadedCluster"]()
"""Cluster of a test."""


class BrokerLogHandler(logging.Handler):
    """Keeps the latest of what brokers in this process have logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=LOG_RECORDS_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def text(self) -> str:
        from fluffle.broker.base.logs import LineFormatter, text_line  # noqa: PLC0415  if it is used

        return "\n".join(map(LineFormatter(text_line).format, tuple(self.records)))


LOG_KEY = pytest.StashKey[BrokerLogHandler]()


# Options and marks


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
    group.addoption(
        "--amqp-strict",
        action="store_true",
        default=False,
        help="fail tests that leave messages unacknowledged, published what no queue got, or leave "
        "connections open",
    )
    group.addoption(
        UNKIND_OPTION,
        metavar="SEED",
        nargs="?",
        type=seed,
        const=ANY_SEED,
        help="let the broker do to all tests with `amqp` what AMQP permits and naive code forgets",
    )
    parser.addini("amqp_broker", "the same as --amqp-broker", default="")
    parser.addini("amqp_management", "the same as --amqp-management", default="")
    parser.addini(STRICT, "the same as --amqp-strict", type="bool", default=False)


def seed(text: str) -> int:
    """Parse a seed, so that the name of a file behind the option is not taken for one.
    ValueError."""
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if config.getoption(UNKIND_OPTION) == ANY_SEED:
        config.option.amqp_unkind = getattr(config, "workerinput", {}).get(
            UNKIND_OPTION, random.randrange(SEEDS)
        )
    config.stash[LOG_KEY] = log = BrokerLogHandler()
    logging.getLogger("fluffle").addHandler(log)


def pytest_unconfigure(config: pytest.Config) -> None:
    logging.getLogger("fluffle").removeHandler(config.stash[LOG_KEY])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give all processes of pytest-xdist the seed of the first."""
    node.workerinput[UNKIND_OPTION] = node.config.getoption(UNKIND_OPTION)


def pytest_report_header(config: pytest.Config) -> str | None:
    chosen = config.getoption(UNKIND_OPTION)
    return f"{UNKIND_OPTION}={chosen}" if chosen is not None else None


# An external broker


def external_url(config: pytest.Config) -> str:
    """Empty for a broker of our own."""
    url: str = config.getoption("--amqp-broker") or config.getini("amqp_broker")
    scheme, colon, rest = url.partition(":")
    return f"amqp:{rest}" if colon and scheme == EXTERNAL else url


def needs_fluffle(name: str) -> NoReturn:
    """End a test that an external broker cannot run."""
    pytest.skip(f"needs fluffle: {name}")


# A test from its setup to its report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test before its fixtures if the broker lacks what the test needs as a whole."""
    item.config.stash[LOG_KEY].records.clear()
    if not external_url(item.config):
        return
    fixtures = getattr(item, "fixturenames", ())
    if CLUSTER in fixtures:
        needs_fluffle(CLUSTER)
    if "amqp" in fixtures and seed_of(item) is not None:
        needs_fluffle(UNKIND)
    if "amqp" in fixtures and is_strict(item):
        needs_fluffle(STRICT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test does not pass if its broker has ended by itself meanwhile."""
    result = yield
    for failure in failures_of(item):
        pytest.fail(f"the broker has failed: {failure}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """End faults with the test, before its fixtures leave the broker."""
    try:
        mend(item)
    finally:
        yield


def mend(item: pytest.Item) -> None:
    """End the faults of the brokers and of the cluster that a test has."""
    with ExitStack() as mending:
        for broker in brokers_of(item):
            if broker.broker.failure is None:
                mending.callback(broker.mend)
        if (cluster := item.stash.get(CLUSTER_KEY, None)) is not None:
            mending.callback(cluster.call, cluster.cluster.mend)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not report.failed:
        return report
    item.stash[HAS_FAILED_KEY] = True
    if (cluster := item.stash.get(CLUSTER_KEY, None)) is not None:
        nodes, net = cluster.cluster.nodes, cluster.cluster.net
        report.sections.append(
            (CLUSTER, f"{nodes.shown()}; what the network does is of seed={net.seed}")
        )
        report.sections += [("amqp timeline", each) for each in cluster_timelines(cluster)]
    report.sections += [("amqp: the broker has failed", str(each)) for each in failures_of(item)]
    if report.when == "call":
        report.sections += [("amqp timeline", each) for each in timelines_of(item)]
    elif TIMELINE_KEY in item.stash:
        report.sections.append(("amqp timeline", item.stash[TIMELINE_KEY]))
    log = item.config.stash[LOG_KEY]
    if log.records:
        report.sections.append(("fluffle log", log.text()))
    if (chosen := item.stash.get(SEED_KEY, None)) is not None:
        text = f"the broker was unkind, and is the same way again with {UNKIND_OPTION}={chosen}"
        report.sections.append(("amqp", text))
    return report


# Brokers and virtual hosts


@pytest.fixture(scope="session")
def amqp_broker_config() -> Config | Mapping[str, Any] | None:
    """Arguments of `amqp_broker`: to be overridden with a `Config`, or with a dict of the arguments
    of `ThreadedBroker`."""
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
    """Enter the external broker; without it the run ends, for no test can be run."""
    from fluffle.broker.testing.external_broker import (  # noqa: PLC0415
        ExternalBroker,
        ManagementError,
    )

    management = config.getoption("--amqp-management") or config.getini("amqp_management")
    with ExitStack() as entered:
        try:
            broker = ExternalBroker(external_url(config), management, needs_fluffle)
            entered.enter_context(broker)
        except (ManagementError, ValueError) as error:
            pytest.exit(f"--amqp-broker: {error}", pytest.ExitCode.USAGE_ERROR)
        yield broker


@pytest.fixture
def amqp(amqp_broker: ThreadedBroker, request: pytest.FixtureRequest) -> Iterator[BlockingVhost]:
    """A fresh virtual host: `amqp.url` for the code under test, the rest to look inside.

    In a coroutine all that it does is awaited.
    """
    from fluffle.broker.testing.arguments import requirements_of  # noqa: PLC0415
    from fluffle.broker.testing.threaded import ByCaller  # noqa: PLC0415

    name = vhost_name(request.config)
    try:
        marks = [*request.node.iter_markers("amqp")]
        wanted = requirements_of([keywords_of(mark) for mark in marks])
    except TypeError as error:
        pytest.fail(str(error), pytrace=False)
    vhost = amqp_broker.add_vhost(name, wanted)
    if (seed := seed_of(request.node)) is not None:
        vhost.faults.unkind(seed)
    yield cast("BlockingVhost", ByCaller(vhost))
    try:
        check_left(request.node, vhost)
    finally:
        amqp_broker.delete_vhost(name)
    if forgotten := vhost.unawaited:
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


# Strict tests, and unkind brokers


def is_strict(item: pytest.Item) -> bool:
    """True if a test is strict, by its mark, or else the option or the setting."""
    mark = item.get_closest_marker(STRICT)
    if mark is not None:
        return bool([*mark.args, *mark.kwargs.values(), True][0])
    return bool(item.config.getoption("--amqp-strict") or item.config.getini(STRICT))


def check_left(item: pytest.Item, vhost: BlockingVhost) -> None:
    """Fail a test that is strict and has left something, unless it has failed anyhow."""
    if not is_strict(item) or item.stash.get(HAS_FAILED_KEY, False):
        return
    found = []
    for check in (
        vhost.assert_no_unroutable,
        vhost.assert_no_leaked_channels,
        vhost.assert_no_unacked,
    ):
        try:
            check()
        except AssertionError as error:
            found.append(str(error))
    if found:
        item.stash[TIMELINE_KEY] = vhost.timeline()
        pytest.fail(
            "\n".join([f"the test is strict ({STRICT}), and leaves", *found]), pytrace=False
        )


def seed_of(item: pytest.Item) -> int | None:
    """Return what the mark of a test says, or the option; None if the broker is to be kind."""
    chosen: int | None = item.config.getoption(UNKIND_OPTION)
    mark = item.get_closest_marker(UNKIND)
    if mark is not None:
        given = [*mark.args, *mark.kwargs.values()]
        chosen = given[0] if given else chosen if chosen is not None else random.randrange(SEEDS)
    if chosen is not None:
        item.stash[SEED_KEY] = chosen
    return chosen


# Clusters


@pytest.fixture
def amqp_cluster(request: pytest.FixtureRequest) -> Iterator[ThreadedCluster]:
    """A cluster of three nodes, if no mark says otherwise: it is started for the test.

    In a coroutine all that it does is awaited.
    """
    from fluffle.broker.testing.cluster.cluster import (  # noqa: PLC0415
        ClusterByCaller,
        ThreadedCluster,
    )

    marks = request.node.iter_markers(CLUSTER)
    try:
        made = ThreadedCluster(**cluster_arguments([*marks], ThreadedCluster))
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.{CLUSTER}: {error}", pytrace=False)
    with made as cluster:
        request.node.stash[CLUSTER_KEY] = cluster
        yield cast("ThreadedCluster", ClusterByCaller(cluster))
        if forgotten := cluster.unawaited:
            called = ", ".join(f"amqp_cluster.{name}" for name in forgotten.values())
            pytest.fail(f"not awaited, and so not done: {called}", pytrace=False)


def cluster_arguments(marks: list[pytest.Mark], of: type) -> Mapping[str, Any]:
    """Merge the arguments of several marks; what the first one says counts.  TypeError."""
    known, given = inspect.signature(of).parameters, dict[str, Any]()
    for mark in marks:
        if mark.args:
            raise TypeError(f"arguments have names, unlike {mark.args[0]!r}")
        for name, value in mark.kwargs.items():
            if name not in known:
                raise TypeError(f"there is no argument '{name}', but {', '.join(known)}")
            given.setdefault(name, value)
    return given


def cluster_timelines(threaded: ThreadedCluster) -> list[str]:
    """Return the timelines of the virtual hosts in which something has happened."""
    cluster, found = threaded.cluster, []
    for name in cluster.seen_vhosts:
        try:
            found.append(threaded.call(cluster.vhost(name).timeline))
        except Exception as error:  # noqa: BLE001 - of nodes that are not well
            found.append(f"the cluster does not tell of '{name}': {error}")
    return found


# What a test has


def timelines_of(item: pytest.Item) -> list[str]:
    """Return the timelines of the virtual hosts and brokers that a test has as fixtures."""
    if "fluffle.broker.testing.threaded" not in sys.modules:
        return []
    if item.config.getoption("--amqp-broker") or item.config.getini("amqp_broker"):
        return []  # an external broker reports none
    from fluffle.broker.testing.threaded import (  # noqa: PLC0415
        BlockingVhost,
        ByCaller,
        ThreadedBroker,
    )

    fixtures = getattr(item, "funcargs", {}).values()
    theirs: list[object] = [each.blocking for each in fixtures if isinstance(each, ByCaller)]
    vhosts = [each for each in theirs if isinstance(each, BlockingVhost)]
    if not theirs:
        vhosts = [each.vhost() for each in fixtures if isinstance(each, ThreadedBroker)]
    found = []
    for vhost in vhosts:
        try:
            found.append(vhost.timeline())
        except Exception as error:  # noqa: BLE001 - of a broker that is not well
            found.append(f"the broker does not tell: {error}")
    return found


def failures_of(item: pytest.Item) -> list[Exception]:
    """Why brokers of a test have ended by themselves."""
    failures = (each.broker.failure for each in brokers_of(item))
    return [failure for failure in failures if failure is not None]


def brokers_of(item: pytest.Item) -> list[ThreadedBroker]:
    """Return the brokers that a test has as fixtures."""
    if "fluffle.broker.testing.threaded" not in sys.modules:
        return []
    from fluffle.broker.testing.threaded import ThreadedBroker  # noqa: PLC0415  it is there

    fixtures = getattr(item, "funcargs", {}).values()
    return [each for each in fixtures if isinstance(each, ThreadedBroker)]
