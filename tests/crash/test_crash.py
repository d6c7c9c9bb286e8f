"""The short version of `make crash`: a few kills with a fixed seed."""

from pathlib import Path

import pytest

from tests.crash.driver import Driver


@pytest.mark.slow("a process is killed and started again and again")
def test_a_node_that_is_killed_keeps_its_promises(tmp_path: Path) -> None:
    outcome = Driver(tmp_path, seed=1).kill_again_and_again(8, say=lambda _line: None)
    assert outcome.report.is_clean, str(outcome)
    assert outcome.report.confirmed > 0
    assert outcome.report.received > 0
    assert ": 0 acknowledged" not in outcome.mqtt
