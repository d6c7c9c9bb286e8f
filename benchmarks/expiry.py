"""`python -m benchmarks.expiry`: a million messages of which each expires at another moment.

And ten thousand queues of which each goes at another moment, for nobody uses it.

In engines without a disk: memory, and what it takes until all have expired, or are gone.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

from benchmarks.report import markdown_table
from fluffle.broker.base.clock import Timer
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.runtime.timers import Timers
from tests.support.queue_host import FakeQueueHost, ignore

MESSAGES = 1_000_000
QUEUES = 10_000
ORIGIN = Origin("", "measurements")
LIFETIME_MS, SPREAD_MS = 60_000, 50_000


class Standing:
    """A `QueueClock` that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 0

    def now_ms(self) -> int:
        return self.now

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Do nothing: the benchmark pumps the queue itself."""


def filled(clock: Standing, *, expires: bool) -> tuple[Queue, float]:
    """A queue, and how many bytes a message takes there beside its content."""
    queue = Queue(QueueSpec("q"), FakeQueueHost(ignore, clock))
    content = b"x" * 100
    tracemalloc.start()
    for number in range(MESSAGES):
        lifetime_ms = LIFETIME_MS + number * 7919 % SPREAD_MS if expires else None
        queue.enqueue([ORIGIN], [content], len(content), expiration_ms=lifetime_ms)
    size_bytes, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return queue, size_bytes / MESSAGES


def emptied(queue: Queue) -> list[float]:
    """How many seconds each turn took until all had expired."""
    turns_s = []
    while queue.ready_count:
        began_s = time.process_time()
        queue.pump()
        turns_s.append(time.process_time() - began_s)
    return turns_s


class Ticking(Standing):
    """The `QueueClock` of queues that share one timer, which runs when somebody moves the clock."""

    _fire: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers(self, self._call_later, self._failed)
        self.timers.start()

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        self.timers.wake(queue, at_ms - self.now, pumped)

    def cancel(self) -> None:
        """The timer fires when it is due, and not before."""

    def _call_later(self, _delay_s: float, fire: Callable[[], None]) -> Timer:
        self._fire = fire
        return self

    def advance(self) -> None:
        self.now += 1
        self._fire()

    def _failed(self, error: Exception) -> None:
        raise error


def pumped(queue: Queue) -> None:
    """Pump the queue, as if it was woken."""
    assert not queue.pump(), "nobody consumes"


def unused(clock: Ticking, *, expires: bool) -> tuple[list[Queue], list[Queue], float]:
    """Queues that nobody uses, those that have said so, and how many bytes one takes."""
    gone: list[Queue] = []
    ports = FakeQueueHost(ignore, clock, on_queue_expired=gone.append)
    spec = QueueSpec("q")
    tracemalloc.start()
    queues = []
    for number in range(QUEUES):
        expires_ms = LIFETIME_MS + number * 7919 % SPREAD_MS if expires else None
        settings = QueueSettings(expires_ms=expires_ms)
        queues.append(Queue(spec, ports, settings=settings))
    size_bytes, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return queues, gone, size_bytes / QUEUES


def queue_expired(clock: Ticking, gone: list[Queue]) -> float:
    """How many microseconds each took until all had said that they are to go."""
    began_s = time.process_time()
    while len(gone) < QUEUES:
        clock.advance()
    return 1e6 * (time.process_time() - began_s) / QUEUES


def main() -> None:
    clock = Standing()
    _plain, plain_bytes = filled(clock, expires=False)
    queue, bytes_each = filled(clock, expires=True)
    clock.now += LIFETIME_MS + SPREAD_MS
    turns_s = emptied(queue)
    rows = [
        ["bytes a message beside its content, none expires", f"{plain_bytes:.1f}"],
        ["the same, each expires at another moment", f"{bytes_each:.1f}"],
        ["all expire at once: seconds of processor time", f"{sum(turns_s):.2f}"],
        ["the longest turn of that, ms", f"{1_000 * max(turns_s):.1f}"],
    ]
    print(markdown_table([f"{MESSAGES:,} messages", ""], rows), end="\n\n")
    *_those, plain_bytes = unused(Ticking(), expires=False)
    ticking = Ticking()
    _queues, gone, bytes_each = unused(ticking, expires=True)
    rows = [
        ["bytes a queue, none expires", f"{plain_bytes:,.0f}"],
        ["the same, each expires at another moment", f"{bytes_each:,.0f}"],
        ["processor time each takes when it is due, µs", f"{queue_expired(ticking, gone):.1f}"],
    ]
    print(markdown_table([f"{QUEUES:,} queues that nobody uses", ""], rows))


if __name__ == "__main__":
    main()
