"""The disk alarm: raised while less is free where the data are than must be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fluffle.broker.alarms import Alarms

PERIOD_S = 1.0
"""A disk that takes 2 GB/s, and is written to by others too, loses that much in between."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class DiskWatch:
    """Compares the space that is free with a limit, once a second."""

    __slots__ = ("_alarms", "_call_later", "_folder", "_limit_bytes", "_timer")

    def __init__(
        self,
        alarms: Alarms,
        call_later: Callable[[float, Callable[[], None]], Timer],
        folder: Path,
        limit_bytes: int,
    ) -> None:
        self._alarms = alarms
        self._call_later = call_later
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._timer: Timer | None = None

    def start(self) -> None:
        """Look now and from now on; what cannot be seen changes nothing."""
        available = free_bytes(self._folder)
        if available is not None:
            self._alarms.set("disk", low=available < self._limit_bytes)
        self._timer = self._call_later(PERIOD_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def free_bytes(folder: Path) -> int | None:
    """What this process may still write there; None when the folder cannot be asked."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize
