"""Lines that may come all the time: each is written once in ten minutes, however often it comes.

log = LimitedLog(logger, clock)
log.warn("retained_limit_reached", vhost=vhost)
"""

import logging

from fluffle.broker.base.clock import Clock
from fluffle.broker.base.logs import event

INTERVAL_MS = 600_000
"""Time after which what goes on is logged again."""
REMEMBERED_MAX = 1000
"""Most lines remembered as logged; beyond, all are forgotten."""


class LimitedLog:
    """Log of lines; those with the same name and the same fields are the same."""

    __slots__ = ("_clock", "_logged_ms", "_logger")

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._logged_ms: dict[tuple[object, ...], int] = {}
        """Times of the lines logged."""

    def warn(self, name: str, /, **fields: str | int) -> None:
        """Log a warning, unless the same was logged not long ago."""
        self._log(logging.WARNING, name, fields)

    def inform(self, name: str, /, **fields: str | int) -> None:
        """Log information, unless the same was logged not long ago."""
        self._log(logging.INFO, name, fields)

    def _log(self, level: int, name: str, fields: dict[str, str | int]) -> None:
        now_ms, key = self._clock.now_ms(), (name, *fields.values())
        logged_ms = self._logged_ms.get(key)
        if logged_ms is not None and now_ms - logged_ms < INTERVAL_MS:
            return
        if len(self._logged_ms) >= REMEMBERED_MAX:
            self._logged_ms.clear()
        self._logged_ms[key] = now_ms
        event(self._logger, level, name, **fields)
