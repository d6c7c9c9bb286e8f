"""Writer of a history: each event is checked at once, and kept in a file if there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from fluffle.broker.torture.history import Event, to_line
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.stalls import StallChecker


class HistoryWriter:
    """Writer that checks events at once: an hour of them has no room in memory."""

    def __init__(self, now_ns: Callable[[], int], file: TextIO | None = None) -> None:
        """`now_ns` never goes back."""
        self.checker = OnlineChecker()
        self.stalls = StallChecker()
        self._now_ns = now_ns
        self._file = file
        self._began_ns = now_ns()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return (self._now_ns() - self._began_ns) / 1e9

    def note(self, event: Event) -> None:
        at_ns = self._now_ns() - self._began_ns
        if self._file is not None:
            self._file.write(to_line(at_ns, event) + "\n")
        self.checker.read((event,))
        self.stalls.read(at_ns, event)

    def tester_was_late(self, for_s: float) -> None:
        """The tester itself has done nothing for so long."""
        self.stalls.tester_was_late(self._now_ns() - self._began_ns, int(for_s * 1e9))

    def stop_the_clock(self) -> None:
        """No client publishes from now on, and how long the last confirms take says nothing: one
        that waits for some is the only one."""
        self.stalls.finish(self._now_ns() - self._began_ns)
