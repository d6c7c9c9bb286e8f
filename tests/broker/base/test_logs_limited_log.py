"""Warnings that may come all the time: each is written now and then."""

import logging

import pytest

from fluffle.broker.base.logs import REPEATED_AFTER_MS, REPEATED_MAX, LimitedLog
from tests.support.manual_clock import ManualClock

logger = logging.getLogger(__name__)


def test_the_same_warning_is_written_once_in_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = LimitedLog(logger, clock)
    for vhost in ("/", "house", "/"):
        log.warn("full", vhost=vhost)
    assert caplog.messages == ["full", "full"]
    clock.advance(REPEATED_AFTER_MS - 1)
    log.warn("full", vhost="/")
    assert len(caplog.messages) == 2
    clock.advance(1)
    log.warn("full", vhost="/")
    assert len(caplog.messages) == 3


def test_what_is_nobody_s_fault_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    log = LimitedLog(logger, ManualClock())
    with caplog.at_level(logging.INFO):
        log.inform("again", client="c")
        log.inform("again", client="c")
    assert [(each.levelno, each.message) for each in caplog.records] == [(logging.INFO, "again")]


def test_not_all_warnings_are_remembered_for_ever() -> None:
    log = LimitedLog(logger, ManualClock())
    for number in range(REPEATED_MAX + 1):
        log.warn("full", number=number)
    assert len(log._logged_ms) == 1
