"""Clock of tests and benchmarks, which stands still until it is moved."""

from __future__ import annotations


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
