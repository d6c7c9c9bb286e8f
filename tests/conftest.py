"""Settings for the whole suite.  Fixtures live beside the tests that use them."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

# Every profile prints, for a failure, the line that repeats it.  A shared machine makes deadlines
# lie, so there are none.  `ci` draws the same examples each time: a red build is never chance;
# chance is for `dev`, at every run on a desk, and `deep`, by hand and overnight.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
settings.register_profile("deep", deadline=None, print_blob=True, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Of pytest-xdist: files that must stay together do so."""
    from tests.support.sharing import Sharing

    return Sharing(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """What stays to the end need not be looked at by each test that collects what it has left."""
    gc.collect()
    gc.freeze()
