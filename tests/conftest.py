"""Settings for the whole suite.  Fixtures live beside the tests that use them."""

from __future__ import annotations

import gc
import logging
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.suite.failed import keep, note
from tests.suite.seeds import EXAMPLES_BY_DAY, SEED, SUITE, is_night, night_seed
from tests.suite.selection import ROOT, leave_out

if TYPE_CHECKING:
    from collections.abc import Generator

    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

WORKER = "PYTEST_XDIST_WORKER"
"""Environment variable: set where pytest-xdist runs the tests."""

# Every profile prints, for a failure, the line that repeats it.  A shared machine makes deadlines
# lie, so there are none.  `ci` draws the same few examples each time: a red build is never chance;
# chance is for `dev`, at every run on a desk, `night`, whose number is printed and whose failures
# are kept, and `deep`, by hand.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile(
    "ci",
    deadline=None,
    print_blob=True,
    derandomize=True,
    database=None,
    max_examples=EXAMPLES_BY_DAY,
)
settings.register_profile("deep", deadline=None, print_blob=True, max_examples=5_000)
settings.register_profile(
    "night",
    deadline=None,
    print_blob=True,
    max_examples=1_000,
    database=DirectoryBasedExampleDatabase(ROOT / "build" / "nightly" / "hypothesis"),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/compat; only here are they known in a run of all tests."""
    group = parser.getgroup("compat", "the comparison with RabbitMQ")
    group.addoption("--live", action="store_true", help="ask RabbitMQ, whatever is recorded")
    group.addoption("--record", action="store_true", help="ask it, and record what it answers")


def pytest_report_header() -> str | None:
    """The line that repeats a night."""
    return f"{SUITE}=night {SEED}={night_seed()}" if is_night() else None


@pytest.hookimpl(trylast=True)  # what `-m` and `-k` leave out takes no time
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out(config, items)
    if WORKER in os.environ:
        from tests.support.sharing import longest_first

        items[:] = longest_first(items, config)


@pytest.fixture(autouse=True)
def _keeps_the_level_of_the_log() -> Generator[None]:
    """Fail a test that leaves another level: those after it would log, and hold, what it wanted."""
    root = logging.getLogger()
    before = root.level
    yield
    left = root.level
    root.setLevel(before)
    assert left == before, f"the root logger was left at level {left}, from {before}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    note(item, report)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if is_night() and WORKER not in os.environ:
        keep(report)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Scheduler of pytest-xdist that keeps files together that must stay so."""
    from tests.support.sharing import Sharing

    return Sharing(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests, and no garbage: each look would be at all that is collected by then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Freeze the garbage collector, so that no test's collection looks at what stays to the end."""
    gc.collect()
    gc.freeze()
