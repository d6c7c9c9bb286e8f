"""Report of a failed test about its broker: timeline, messages that are left, and log.

And `amqp_strict`: whether a test fails that leaves something behind.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker

STRICT = "amqp_strict"
LOG_RECORDS_MAX = 200

TIMELINE = pytest.StashKey[str]()
"""Of a test whose virtual host is about to go."""
HAS_FAILED = pytest.StashKey[bool]()


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


LOG = pytest.StashKey[BrokerLogHandler]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fluffle", "brokers for tests").addoption(
        "--amqp-strict",
        action="store_true",
        default=False,
        help="fail tests that leave messages unacknowledged, published what no queue got, or leave "
        "connections open",
    )
    parser.addini(STRICT, "the same as --amqp-strict", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "amqp_strict(enabled=True): fail if the test leaves messages unacknowledged, has published "
        "what no queue got, or leaves connections open",
    )
    config.stash[LOG] = log = BrokerLogHandler()
    logging.getLogger("fluffle").addHandler(log)


def pytest_unconfigure(config: pytest.Config) -> None:
    logging.getLogger("fluffle").removeHandler(config.stash[LOG])


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[LOG].records.clear()


def is_strict(item: pytest.Item) -> bool:
    """Whether a test is strict, by its mark, or else the option or the setting."""
    mark = item.get_closest_marker(STRICT)
    if mark is not None:
        return bool([*mark.args, *mark.kwargs.values(), True][0])
    return bool(item.config.getoption("--amqp-strict") or item.config.getini(STRICT))


def check_left(item: pytest.Item, vhost: BlockingVhost) -> None:
    """Fail a test that is strict and has left something, unless it has failed anyhow."""
    if not is_strict(item) or item.stash.get(HAS_FAILED, False):
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
        item.stash[TIMELINE] = vhost.timeline()
        pytest.fail(
            "\n".join([f"the test is strict ({STRICT}), and leaves", *found]), pytrace=False
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test does not pass if its broker has ended by itself meanwhile."""
    result = yield
    for failure in failures_of(item):
        pytest.fail(f"the broker has failed: {failure}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not report.failed:
        return report
    item.stash[HAS_FAILED] = True
    report.sections += [("amqp: the broker has failed", str(each)) for each in failures_of(item)]
    if report.when == "call":
        report.sections += [("amqp timeline", each) for each in timelines_of(item)]
    elif TIMELINE in item.stash:
        report.sections.append(("amqp timeline", item.stash[TIMELINE]))
    log = item.config.stash[LOG]
    if log.records:
        report.sections.append(("fluffle log", log.text()))
    return report


def timelines_of(item: pytest.Item) -> list[str]:
    """Return the timelines of the virtual hosts and brokers that a test has as fixtures."""
    if "fluffle.broker.testing.threaded" not in sys.modules:
        return []
    if item.config.getoption("--amqp-broker") or item.config.getini("amqp_broker"):
        return []  # an external broker tells none
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
