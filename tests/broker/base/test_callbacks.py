"""Listeners that fail hide nothing from the others, unless an assertion fails."""

from __future__ import annotations

import pytest

from fluffle.broker.base.callbacks import call_listener


def test_what_fails_in_one_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def deaf() -> None:
        raise RuntimeError("deaf")

    for act in (deaf, lambda: heard.append("second")):
        call_listener(act)
    assert heard == ["second"]
    assert caplog.messages == ["a listener failed"]
    assert "RuntimeError: deaf" in caplog.text


def test_what_cannot_be_is_not_swallowed(caplog: pytest.LogCaptureFixture) -> None:
    def impossible() -> None:
        raise AssertionError("two at once")

    with pytest.raises(AssertionError, match="two at once"):
        call_listener(impossible)
    assert caplog.messages == []
