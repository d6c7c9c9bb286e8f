"""An event loop and a socket that tests move by hand.

The transport behaves as uvloop's, and is strict where that is: nothing may be written to it once
`connection_lost` has been called.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import count

TURNS_MAX = 10_000
"""A scheduler that is not idle after so many turns never will be."""


class ScheduledClock:
    """A `Clock`: the time of a scheduler, and what a wall says then."""

    def __init__(self, scheduler: Scheduler, wall_ms: int = 1_000_000) -> None:
        self._scheduler = scheduler
        self._wall_offset_ms = wall_ms

    def now_ms(self) -> int:
        return round(self._scheduler.now_s * 1_000)

    def wall_ms(self) -> int:
        return self.now_ms() + self._wall_offset_ms

    def jump_wall(self, by_ms: int) -> None:
        """Set the wall clock by `by_ms`."""
        self._wall_offset_ms += by_ms


class Timer:
    """Timer that `call_later` returns."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self.act = None


class FakeMeasures:
    """`Measures` of a machine with enough of everything, until a test says otherwise."""

    def __init__(self) -> None:
        self.free: int | None = 1 << 40
        """Bytes that are free on the disk."""
        self.resident: int | None = 1 << 26
        """Bytes of memory in use."""

    def free_bytes(self) -> int | None:
        return self.free

    def resident_bytes(self) -> int | None:
        return self.resident

    def collect_garbage(self) -> None:
        """There is none."""

    def return_free_memory(self) -> None:
        """None is kept."""


class Scheduler:
    """An event loop's `call_soon` and `call_later`, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._ids = count()

    def call_soon(self, act: Callable[[], None]) -> None:
        self._soon.append(act)

    def call_later(self, delay_s: float, act: Callable[[], None]) -> Timer:
        timer = Timer(act)
        heapq.heappush(self._timers, (self.now_s + delay_s, next(self._ids), timer))
        return timer

    def turn(self) -> bool:
        """Run what was asked for before this turn; whether there was anything."""
        acts, self._soon = self._soon, deque()
        for act in acts:
            act()
        return bool(acts)

    def run(self) -> None:
        """Turn until nothing is asked for; no time passes."""
        for _ in range(TURNS_MAX):
            if not self.turn():
                return
        raise AssertionError("the scheduler does not come to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until_s = self.now_s + seconds
        self.run()
        while self._timers and self._timers[0][0] <= until_s:
            self.now_s, _, timer = heapq.heappop(self._timers)
            if timer.act is not None:
                timer.act()
            self.run()
        self.now_s = until_s

    def fire(self, seconds: float) -> None:
        """Let time pass before the next turn: what was asked for soon waits behind the timers."""
        self.now_s += seconds
        while self._timers and self._timers[0][0] <= self.now_s:
            _, _, timer = heapq.heappop(self._timers)
            if timer.act is not None:
                timer.act()

    @property
    def is_busy(self) -> bool:
        """True if there is something to do in the next turn."""
        return bool(self._soon)

    @property
    def timer_count(self) -> int:
        """Timers that are still to fire."""
        return sum(timer.act is not None for _, _, timer in self._timers)


class FakeTransport(asyncio.Transport):
    """A socket in memory.  While `is_stuck` its peer reads nothing and output piles up."""

    def __init__(self, scheduler: Scheduler, ends: Mapping[str, object]) -> None:
        super().__init__(ends)
        self.writes: list[bytes] = []
        self.is_stuck = False
        self.has_ended_output = False
        self.was_aborted = False
        self.is_lost = False
        self.pause_count = 0
        self._scheduler = scheduler
        self._protocol: asyncio.Protocol
        self._high_bytes = 65_536
        self._buffered_bytes = 0
        self._is_full = False
        self._is_closing = False
        self._is_paused = False
        self._incoming: deque[bytes] = deque()

    def connect(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    # What the connection calls

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_bytes = high or 65_536

    def get_write_buffer_size(self) -> int:
        return self._buffered_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_lost:
            raise RuntimeError("the handler is closed")
        if self.has_ended_output:
            raise RuntimeError("nothing is written behind the end of the output")
        self.writes.append(bytes(data))
        if self.is_stuck:
            self._buffered_bytes += len(data)
            if self._buffered_bytes > self._high_bytes and not self._is_full:
                self._is_full = True
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended_output = True

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self._buffered_bytes:
                self._scheduler.call_soon(self.lose)

    def abort(self) -> None:
        self.was_aborted = self._is_closing = True
        self._scheduler.call_soon(self.lose)

    def is_reading(self) -> bool:
        return not (self._is_paused or self._is_closing)

    def pause_reading(self) -> None:
        self._is_paused = True
        self.pause_count += 1

    def resume_reading(self) -> None:
        self._is_paused = False
        self._scheduler.call_soon(self._read)

    # What the peer does

    def receive(self, data: bytes) -> None:
        """Let the connection read `data` at once, or when it reads again."""
        self._incoming.append(data)
        self._read()

    def drain(self) -> None:
        """The peer has read everything."""
        self.is_stuck = False
        self._buffered_bytes = 0
        if self._is_full:
            self._is_full = False
            self._protocol.resume_writing()
        if self._is_closing:
            self._scheduler.call_soon(self.lose)

    def lose(self, error: Exception | None = None) -> None:
        """The socket is gone."""
        if not self.is_lost:
            self._is_closing = True
            self._protocol.connection_lost(error)
            del self._protocol
            self.is_lost = True

    def _read(self) -> None:
        while self._incoming and self.is_reading():
            self._protocol.data_received(self._incoming.popleft())
