"""Fixtures of several tests of clusters."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster import common_time


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A majority that begins again goes by its own clocks at once, and not after two seconds in
    which the others may say what time theirs have."""
    monkeypatch.setattr(common_time, "CLOCKS_TIMEOUT_MS", 50)
