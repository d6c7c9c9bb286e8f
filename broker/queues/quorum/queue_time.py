"""Queue time: what a leader writes down as now, and what every deadline in a log is told by.

It goes on where the log ends, and never stands still or falls, whatever the clock does that it is
told by.  A leader that comes to lead late is no reason for anything to live longer, nor is one
whose clock is behind a reason for nothing to expire; and when that clock is put right, the time
which the log has already told does not pass once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fluffle.broker.queues.queue_api import DeliverySource

STEP_MS = 10
"""It gains no more on what the machine counts, between two looks, while the clock is behind it."""


class NodeClock(Protocol):
    """The clock of a node."""

    def now_ms(self) -> int:
        """What this machine counts, which nobody sets."""

    def wall_ms(self) -> int:
        """The time of day that all nodes go by."""


class QueueTime:
    """The `QueueClock` of one leadership: it also stamps entries, and dates the deaths of messages.

    Deadlines that are written down are to be told by it, and by no clock: only so is one that this
    leader has written true for the next.
    """

    __slots__ = ("_ahead_ms", "_clock", "_counted_ms", "_last_ms", "_wake")

    def __init__(self, last_stamp_ms: int, clock: NodeClock, wake: Callable[[int], None]) -> None:
        """`last_stamp_ms`: of the log.  `wake` has the leadership pumped after so many ms."""
        self._clock = clock
        self._wake = wake
        self._last_ms = last_stamp_ms
        self._counted_ms = clock.now_ms()
        """When it was last looked at."""
        self._ahead_ms = 0
        """How far it is ahead of that time of day."""
        self.now_ms()

    def now_ms(self) -> int:
        """Never less than before, nor than in the log."""
        wall_ms, count_ms = self._clock.wall_ms(), self._clock.now_ms()
        most_ms = self._last_ms + count_ms - self._counted_ms + STEP_MS
        ahead_ms = max(self._ahead_ms, self._last_ms - wall_ms)  # mutant: R16
        self._counted_ms = count_ms
        self._last_ms = max(wall_ms, min(wall_ms + ahead_ms, most_ms))
        self._ahead_ms = self._last_ms - wall_ms
        return self._last_ms

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        del queue
        self._wake(at_ms - self.now_ms())
