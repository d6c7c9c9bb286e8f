"""The deadline ends a wait of a test, and lets its fixtures take as long as they need."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.support.deadlines import interrupted
from tests.support.inner_pytest import run_pytest

pytest_plugins = ("pytester",)

INTEROP = Path(__file__).parents[1] / "interop" / "conftest.py"


def test_a_wait_is_interrupted() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match=r"waited for 0\.01 s"), interrupted(0.01):
        threading.Event().wait()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_wait_that_begins_behind_the_signal_is_interrupted_by_the_next() -> None:
    with pytest.raises(TimeoutError), interrupted(0.01):
        wait_behind_a_signal()


def wait_behind_a_signal() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.sigwait({signal.SIGALRM})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    threading.Event().wait()


def test_tests_of_clients_have_the_deadline_and_their_fixtures_have_not(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(INTEROP.read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        from signal import ITIMER_REAL, getitimer
        import pytest

        @pytest.fixture
        def restart():
            assert getitimer(ITIMER_REAL)[0] == 0
            yield
            assert getitimer(ITIMER_REAL)[0] == 0

        def test_client(restart):
            assert 60 < getitimer(ITIMER_REAL)[0] <= 120
        """
    )
    run_pytest(pytester, "-q").assert_outcomes(passed=1)
