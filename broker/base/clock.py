"""Time, for those who ask for it: the only place of the broker that reads a clock."""

import time
from collections.abc import Callable
from typing import Protocol, TypeAlias


class Timer(Protocol):
    """Handle of a scheduled call."""

    def cancel(self) -> None:
        """Cancel the call; does nothing after it has been made."""


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Timer]
"""After so many seconds."""


class EventLoop(Protocol):
    """Event loop that a node runs in, by the time of the machine: that of asyncio is one."""

    def call_soon(self, call: Callable[[], None], /) -> object:
        """Call it in the next round."""

    def call_later(self, delay_s: float, call: Callable[[], None], /) -> Timer:
        """Call it after so many seconds."""


class Clock(Protocol):
    """The clock of this machine, as parts that need the time are given it."""

    def now_ms(self) -> int:
        """Milliseconds since some moment in the past; never goes back, nor is set."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 in UTC, as far as this machine knows; may jump."""


if hasattr(time, "CLOCK_BOOTTIME"):

    def _counted_ns() -> int:
        """Nanoseconds since boot, with the time the machine is asleep: messages expire then,
        too."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:
    _counted_ns = time.monotonic_ns


class SystemClock:
    """The clocks of this machine."""

    def now_ms(self) -> int:
        return _counted_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until it is moved: for tests and simulations."""

    def __init__(self, *, now_ms: int = 0, wall_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._wall_offset_ms = wall_ms - now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def wall_ms(self) -> int:
        return self._now_ms + self._wall_offset_ms

    def advance(self, by_ms: int) -> None:
        """Let time pass.  ValueError when it would go back."""
        if by_ms < 0:
            raise ValueError(f"time does not go back by {-by_ms} ms")
        self._now_ms += by_ms

    def jump_wall(self, by_ms: int) -> None:
        """Set the wall clock forward or back, as an operator or NTP may; time does not pass."""
        self._wall_offset_ms += by_ms
