"""Time, on request: the only place of the broker that reads a clock."""

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


class SystemClock:
    """The clocks of this machine."""

    __slots__ = ()

    if hasattr(time, "CLOCK_BOOTTIME"):

        def now_ms(self) -> int:
            """Count what passes while the machine is asleep, too: messages expire then."""
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    else:

        def now_ms(self) -> int:
            return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
