"""The memory alarm: raised while this process is larger than it may be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fluffle.broker.alarms import Alarms

PERIOD_S = 0.5
"""At 1 GB/s, the most that publishers on loopback bring, the watermark is passed by 0.5 GB."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class MemoryWatch:
    """Compares resident memory with a watermark, twice a second."""

    __slots__ = ("_alarms", "_call_later", "_limit_bytes", "_timer")

    def __init__(
        self,
        alarms: Alarms,
        call_later: Callable[[float, Callable[[], None]], Timer],
        limit_bytes: int,
    ) -> None:
        self._alarms = alarms
        self._call_later = call_later
        self._limit_bytes = limit_bytes
        self._timer: Timer | None = None

    def start(self) -> None:
        """Look now and from now on, where the system tells how much memory a process uses."""
        used_bytes = resident_bytes()
        if used_bytes is None:
            return
        self._alarms.set("memory", low=used_bytes > self._limit_bytes)
        self._timer = self._call_later(PERIOD_S, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def resident_bytes() -> int | None:
    """Resident memory of this process; None where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
