"""Timers of the queues of a node, on one timer of the event loop.

    queues --wake--> heap, by when --> one timer --> those that are due look for themselves

An entry is a wish to look at something then, and no promise: a look asks again for when
there is something to be done next, and a wish that comes true too soon does no harm.  So nothing
is called off but by what is gone, and what is used all the time, and so is due ever later, costs
one look where it would have been due first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.clock import CallLater, Clock, Timer
from fluffle.broker.queues.queue_api import DeliverySource, OnQueueExpired

DUE_MAX = 64
"""Most due objects handled in one turn of the loop: thousands may be due at the same moment."""

REST_S_MAX = 10.0
"""The loop counts nothing while the machine is asleep, and our clock does: it is looked at so soon
after that, whatever was due first."""

SLACK_MS = 2
"""Tolerance within which a repeated wish counts as the same moment: clocks are read in whole
milliseconds."""

STALE_MIN = 64
"""Wishes that count no more are swept out once there are so many, and they are half."""

logger = logging.getLogger(__name__)

Look: TypeAlias = Callable[[Any], None]
"""Callback with the object whose time has come."""


class MonotonicClock(Protocol):
    """Clock that never goes back."""

    def now_ms(self) -> int:
        """Milliseconds since some moment in the past."""


@dataclass(slots=True, eq=False)
class Timers:
    """Timers of one node, on one timer of its event loop."""

    _clock: MonotonicClock
    _call_later: CallLater
    _on_fatal: Callable[[Exception], None]
    """Gets a failed assertion."""
    _heap: list[tuple[int, int, Hashable, Look]] = field(default_factory=list, init=False)
    _numbers: Iterator[int] = field(default_factory=count, init=False)
    """Numbers that order wishes for the same time."""
    _at_ms: dict[Hashable, int] = field(default_factory=dict, init=False)
    """The wish of each that counts.  Invariant: it is in the heap."""
    _running: tuple[int, Timer] | None = field(default=None, init=False)
    """Time of the loop's timer and the timer itself, if it runs."""
    _is_started: bool = field(default=False, init=False)

    def start(self) -> None:
        """From now on what is due is looked at: all is there that it may lead to."""
        self._is_started = True
        self._start()

    def wake(self, key: Hashable, delay_ms: int, look: Look) -> None:
        """Have `look` called with it after so many milliseconds, or when it was asked for before,
        if that is sooner."""
        at_ms = self._clock.now_ms() + max(0, delay_ms)
        known_ms = self._at_ms.get(key)
        if known_ms is not None and known_ms <= at_ms + SLACK_MS:
            return
        self._at_ms[key] = at_ms
        heappush(self._heap, (at_ms, next(self._numbers), key, look))
        self._sweep()
        self._start()

    def forget(self, key: Hashable) -> None:
        """Drop the wish of `key`; without another none waits for the loop's timer, which ends."""
        self._at_ms.pop(key, None)
        self._start()

    def _sweep(self) -> None:
        if len(self._heap) > STALE_MIN + 2 * len(self._at_ms):
            self._heap = [entry for entry in self._heap if self._at_ms.get(entry[2]) == entry[0]]
            heapify(self._heap)

    def _start(self) -> None:
        """Have a timer for the first wish that counts, unless one runs that fires as soon, and none
        without a wish."""
        while self._heap and self._at_ms.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        if not (self._heap and self._is_started):
            if self._running is not None:
                self._running[1].cancel()
                self._running = None
            return
        at_ms = self._heap[0][0]
        if self._running is not None:
            if self._running[0] <= at_ms:
                return
            self._running[1].cancel()
        delay_s = min(max(0, at_ms - self._clock.now_ms()) / 1_000, REST_S_MAX)
        self._running = at_ms, self._call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._running = None
        now_ms, looked = self._clock.now_ms(), 0
        while self._heap and self._heap[0][0] <= now_ms and looked < DUE_MAX:
            at_ms, _number, key, look = heappop(self._heap)
            if self._at_ms.get(key) == at_ms:
                del self._at_ms[key]
                looked += 1
                self._look(key, look)
        self._start()

    def _look(self, key: Hashable, look: Look) -> None:
        """A bug of one is not that of the others."""
        try:
            look(key)
        except AssertionError as error:
            self._on_fatal(error)
        except Exception:
            logger.exception("what was due has failed")


class QueueTiming(NamedTuple):
    """Timers and the expiry of unused queues of a node."""

    timers: Timers
    queue_expired: OnQueueExpired


class LocalQueueClock:
    """The `QueueClock` of queues that live on one node: the wall clock at the start, and the time
    that has passed since.  So a clock that is set does not expire a backlog."""

    def __init__(
        self, clock: Clock, timers: Timers, touch: Callable[[DeliverySource], None]
    ) -> None:
        self._clock = clock
        self._timers = timers
        self._touch = touch
        self._offset_ms = clock.wall_ms() - clock.now_ms()

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._offset_ms

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        self._timers.wake(queue, at_ms - self.now_ms(), self._touch)

    def forget(self, queue: DeliverySource) -> None:
        """Drop the wish of a deleted queue."""
        self._timers.forget(queue)
