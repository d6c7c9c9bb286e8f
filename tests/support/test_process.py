"""A process is ready when it says so, is stopped by a signal, and keeps what it wrote."""

import sys

import pytest

from tests.support.process import Process


def test_a_process_is_ready_when_it_says_so() -> None:
    script = "import signal; print('I am ready', flush=True); signal.pause()"
    process = Process([sys.executable, "-c", script], r"\bready\b", {})
    assert process.log == "I am ready\n"
    assert process.stop() == -15


def test_a_process_that_ends_instead_shows_what_it_wrote() -> None:
    with pytest.raises(RuntimeError, match="did not become ready:\nno such luck"):
        Process([sys.executable, "-c", "print('no such luck')"], r"\bready\b", {})
