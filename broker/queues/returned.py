"""Messages that came back to a queue, and in which order they are handed out again.

They come before all that is ready, in either order: `ByAge` is RabbitMQ's for classic queues,
`InOrder` its for quorum queues.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Protocol, TypeAlias

from fluffle.broker.message import Origin
from fluffle.broker.queues.counts import Counts

FETCH_MESSAGES_MAX = 256
"""No more are read from disk at once."""


class Returned:
    """Messages that came back together, in rising sequence; read from `head` on."""

    __slots__ = ("contents", "counts", "head", "is_recorded", "origins", "sequences")

    def __init__(
        self,
        origins: list[Origin],
        contents: list[bytes],
        sequences: Sequence[int],
        *,
        counts: Counts,
        is_recorded: bool,
    ) -> None:
        self.origins = origins
        self.contents = contents
        """Invariant: one a message, or none while they are on disk only."""
        self.sequences = sequences
        self.counts = counts
        """Of each of them, this return included."""
        self.is_recorded = is_recorded
        self.head = 0

    @property
    def oldest(self) -> int:
        return self.sequences[self.head]

    def __lt__(self, other: Returned) -> bool:
        return self.oldest < other.oldest


class Returns(Protocol):
    """What came back to a queue and has not been handed out again."""

    @property
    def runs(self) -> Sequence[Returned]:
        """All there is, in no order; empty if there is nothing."""

    def add(self, run: Returned) -> None:
        """Messages come back."""

    def available(self) -> int:
        """How many `take` would give at most, if there is anything.  Raises `Unreadable`."""

    def take(self, count: int) -> tuple[Returned, int, int]:
        """Some of the next ones, at most `count`: a run, and from where to where in it."""

    def clear(self) -> None:
        """Forget all."""


class ByAge:
    """Each goes back to its original place, so that the oldest is next."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[Returned] = []
        """A heap.  All have contents."""

    def add(self, run: Returned) -> None:
        heappush(self.runs, run)

    def available(self) -> int:
        """How many messages of the foremost run are older than those of every other."""
        run, rivals = self.runs[0], self.runs[1:3]
        stop = len(run.contents)
        if rivals:
            stop = bisect_left(run.sequences, min(rivals).oldest, lo=run.head)
        return stop - run.head

    def take(self, count: int) -> tuple[Returned, int, int]:
        run = self.runs[0]
        start = run.head
        stop = run.head = start + min(count, self.available())
        if stop < len(run.contents):
            heapreplace(self.runs, run)
        else:
            heappop(self.runs)
        return run, start, stop

    def clear(self) -> None:
        self.runs.clear()


Fetch: TypeAlias = Callable[[Sequence[int]], tuple[list[Origin], list[bytes]]]
"""Reads messages from disk, one origin and one content a number; raises `Unreadable`."""


NO_RUNS: deque[Returned] = deque()
"""Never changed: a deque of one's own takes 600 bytes."""


class InOrder:
    """What came back first is next, whatever its age; some may still be on disk."""

    __slots__ = ("_fetch", "runs")

    def __init__(self, fetch: Fetch) -> None:
        self.runs = NO_RUNS
        self._fetch = fetch

    def add(self, run: Returned) -> None:
        if self.runs is NO_RUNS:
            self.runs = deque()
        self.runs.append(run)

    def available(self) -> int:
        run = self.runs[0]
        if not run.contents:
            run = self._front_in_memory()
        return len(run.contents) - run.head

    def _front_in_memory(self) -> Returned:
        """The foremost run, or as much of it as is read at once."""
        run = self.runs[0]
        rest = run.sequences[FETCH_MESSAGES_MAX:]
        run.origins, run.contents = self._fetch(run.sequences[:FETCH_MESSAGES_MAX])
        if rest:
            self.runs.insert(
                1, Returned([], [], rest, counts=run.counts, is_recorded=run.is_recorded)
            )
            run.sequences = run.sequences[:FETCH_MESSAGES_MAX]
        return run

    def take(self, count: int) -> tuple[Returned, int, int]:
        run = self.runs[0]
        start = run.head
        stop = run.head = start + min(count, self.available())
        if stop == len(run.contents):
            self.runs.popleft()
        return run, start, stop

    def clear(self) -> None:
        self.runs = NO_RUNS
