"""`MovableClock`: the time of this machine, and what it was moved ahead by.

Time that is moved passes step by step: what waits for something is called at the moment that it
waited for, in the order of those moments, and the node comes to rest before the next.  So a message
that expires into another queue, where it expires again, is in the third one afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count

from fluffle.broker.base.clock import CallLater, Clock, Timer
from fluffle.broker.testing.loop_thread import LoopBound

PATIENCE_MS = 20_000
"""Time in real ms for one advance of the clock: less than a caller in another thread waits."""

PARTS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


class MovableClock(LoopBound):
    """A `Clock`, and the `CallLater` that goes by it."""

    def __init__(
        self, clock: Clock, call_later: CallLater, wait_until_idle: Callable[[], Awaitable[object]]
    ) -> None:
        """`clock` and `call_later` are those of the machine; `wait_until_idle` returns when the
        node has done what there is to do without more time."""
        self._clock = clock
        self._call_later = call_later
        self._wait_until_idle = wait_until_idle
        self._ahead_ms = 0
        self._numbers = count()
        self._heap: list[tuple[int, int, MovableTimer]] = []
        self._running: tuple[int, Timer] | None = None
        """When it fires by this clock, and the timer of the machine.  Invariant: not later than the
        first of the heap."""

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._ahead_ms

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self._ahead_ms

    def call_later(self, seconds: float, act: Callable[[], None]) -> Timer:
        """Call `act` once so much has passed, by itself or because it was moved."""
        waiting = MovableTimer(act)
        at_ms = self.now_ms() + max(round(seconds * 1_000), 0)
        heappush(self._heap, (at_ms, next(self._numbers), waiting))
        self._start()
        return waiting

    def over(self, clock: Clock) -> Clock:
        """Return a clock that is moved with this one, over another clock."""
        return Moved(clock, lambda: self._ahead_ms)

    async def advance(self, by: timedelta = timedelta(0), **parts: float) -> None:
        """Let time pass: `advance(timedelta(minutes=30))`, or `advance(minutes=30)`.

        Returns when everything has happened that would have by then.  ValueError for less than
        nothing, TimeoutError if so much happens that it takes too long.
        """
        left_ms = milliseconds(by, parts)
        if left_ms < 0:
            raise ValueError(f"time does not go back by {-left_ms} ms")
        await self._wait_until_idle()  # what waits for something has said so
        end_ms, give_up_ms = self._ahead_ms + left_ms, self._clock.now_ms() + PATIENCE_MS
        while self._ahead_ms < end_ms:
            if self._clock.now_ms() >= give_up_ms:
                raise TimeoutError(
                    f"of {left_ms} ms {end_ms - self._ahead_ms} ms have not passed within "
                    f"{PATIENCE_MS // 1_000} s: too much happens in them"
                )
            step_ms = end_ms - self._ahead_ms
            if (next_ms := self._next_ms()) is not None:
                step_ms = min(step_ms, max(next_ms - self.now_ms(), 0))
            self._ahead_ms += step_ms
            self._fire()
            await self._wait_until_idle()

    def _next_ms(self) -> int | None:
        while self._heap and self._heap[0][2].is_cancelled:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _fire(self) -> None:
        """Call those whose time has come; one that raises holds up none of the others for good."""
        now_ms = self.now_ms()
        try:
            while (next_ms := self._next_ms()) is not None and next_ms <= now_ms:
                heappop(self._heap)[2].act()
        finally:
            self._start()

    def _on_timer(self) -> None:
        self._running = None
        self._fire()

    def _start(self) -> None:
        """Have the machine wake us for the first."""
        if (next_ms := self._next_ms()) is None:
            return
        if self._running is not None:
            if self._running[0] <= next_ms - self._ahead_ms:
                return
            self._running[1].cancel()
        delay_s = max(next_ms - self.now_ms(), 0) / 1_000
        self._running = next_ms - self._ahead_ms, self._call_later(delay_s, self._on_timer)


class Moved:
    """A `Clock` that shows what another does, and how far it was moved ahead."""

    def __init__(self, clock: Clock, ahead_ms: Callable[[], int]) -> None:
        self._clock = clock
        self._ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._ahead_ms()

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self._ahead_ms()


class MovableTimer:
    """Timer of a `MovableClock`: see `Timer`."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.act = do_nothing  # so that what it would act on need not wait for its time


def do_nothing() -> None:
    """Do nothing: the action of a timer that was cancelled."""


def milliseconds(by: timedelta, parts: Mapping[str, float]) -> int:
    """Convert a duration to milliseconds.  TypeError for what is no time."""
    unknown = parts.keys() - set(PARTS)
    if unknown or not isinstance(by, timedelta):
        given = ", ".join(sorted(unknown)) or repr(by)
        raise TypeError(
            f"advance takes {', '.join(PARTS)} by name, or a timedelta, and not {given}"
        )
    return round((by + timedelta(**parts)) / timedelta(milliseconds=1))
