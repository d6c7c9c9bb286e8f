"""Runs of pytest that a test of the pytest plugin starts: in its own process, or in another one.

Another process needs seconds to import all plugins, longer than most of these tests take.
"""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

LOOP_SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")
"""Setting that pytest-asyncio warns about when it is missing."""

SLOW_PLUGINS = ("-p", "no:schemathesis", "-p", "no:hypothesispytest")
"""Options for a run with processes: most of their start is the import of these two."""


def run_pytest(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Output and outcomes of a run, in this process, of the files that `pytester` has made.

    Warnings have Python's own filters.  Connections left open by inner tests that passed are
    collected here: the next test would have to answer for them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = pytester.runpytest_inprocess(*LOOP_SCOPE, *options)
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return result


def run_pytest_process(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Output and outcomes of a run in a process of its own, for tests that leave what only the end
    of a process closes, or that must find nothing imported."""
    return pytester.runpytest_subprocess(*LOOP_SCOPE, *SLOW_PLUGINS, *options)
