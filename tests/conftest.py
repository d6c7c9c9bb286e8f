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
from tests.suite.seeds import SEED, SUITE, is_night, night_seed
from tests.suite.selection import ROOT, leave_out

if TYPE_CHECKING:
    from collections.abc import Generator

    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

# Every profile prints, for a failure, the line that repeats it.  A shared machine makes deadlines
# lie, so there are none.  `ci` draws the same examples each time: a red build is never chance;
# chance is for `dev`, at every run on a desk, `night`, whose number is printed and whose failures
# are kept, and `deep`, by hand.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
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
    """Of tests/compat; only here are they known to whoever runs all tests."""
    group = parser.getgroup("compat", "the comparison with RabbitMQ")
    group.addoption("--live", action="store_true", help="ask RabbitMQ, whatever is recorded")
    group.addoption("--record", action="store_true", help="ask it, and record what it answers")


def pytest_report_header() -> str | None:
    """The line that repeats a night."""
    return f"{SUITE}=night {SEED}={night_seed()}" if is_night() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out(config, items)


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
    if is_night() and "PYTEST_XDIST_WORKER" not in os.environ:
        keep(report)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Of pytest-xdist: files that must stay together do so."""
    from tests.support.sharing import Sharing

    return Sharing(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """What stays to the end need not be looked at by each test that collects what it has left."""
    gc.collect()
    gc.freeze()
