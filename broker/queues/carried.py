"""Counts of ready messages that have died in another queue, and brought those along.

    number   1 .. 7      8 .. 20     21     22 ..
    counts   new         (1, 1)      new    (4, 2)

In runs, since most of those in a queue for dead letters have been rejected once: so a backlog of
them costs no more than another.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.queues.counts import NEW, Counts

if TYPE_CHECKING:
    from fluffle.broker.queues.segment import Segment


class Alike(NamedTuple):
    """Messages with equal counts, from one number up to, not including, another."""

    first: int
    stop: int
    counts: Counts


NO_STARTS: list[int] = []
NO_RUNS: list[Alike] = []
"""Never changed: nothing is brought along to most queues."""


class Carried:
    """By sequence number: what is not in it is new."""

    __slots__ = ("_starts", "coming", "runs")

    def __init__(self, runs: Sequence[Alike] = ()) -> None:
        """`runs` rise."""
        self.runs = [*runs] if runs else NO_RUNS
        """All of it, rising.  Not to be changed by others."""
        self._starts = [run.first for run in runs] if runs else NO_STARTS
        self.coming = NEW
        """Of what comes into the queue now."""

    def put(self, first: int, stop: int, counts: Counts) -> None:
        """Messages come in behind all others."""
        if counts == NEW:
            return
        if self.runs is NO_RUNS:
            self.runs, self._starts = [], []
        if self.runs and self.runs[-1].stop == first and self.runs[-1].counts == counts:
            self.runs[-1] = self.runs[-1]._replace(stop=stop)
            return
        self.runs.append(Alike(first, stop, counts))
        self._starts.append(first)

    def alike(self, first: int, stop: int) -> Alike:
        """The messages from the one at `first` on, before `stop`, that have equal counts."""
        at = bisect_right(self._starts, first) - 1
        if at >= 0 and first < (run := self.runs[at]).stop:
            return Alike(first, min(stop, run.stop), run.counts)
        if at + 1 < len(self._starts):
            stop = min(stop, self._starts[at + 1])
        return Alike(first, stop, NEW)

    def take(self, sequences: Sequence[int]) -> None:
        """Messages are ready no more."""
        if isinstance(sequences, range) and sequences.step == 1:
            self._cut(sequences.start, sequences.stop)
            return
        for number in sequences:
            self._cut(number, number + 1)

    def _cut(self, first: int, stop: int) -> None:
        at, end = bisect_right(self._starts, first), bisect_left(self._starts, stop)
        if at and self.runs[at - 1].stop > first:
            at -= 1
        if at >= end:
            return
        front, back = self.runs[at], self.runs[end - 1]
        left = [front._replace(stop=first)] if front.first < first else []
        if back.stop > stop:
            left.append(back._replace(first=stop))
        self.runs[at:end] = left
        self._starts[at:end] = [run.first for run in left]

    def clear(self) -> None:
        self.runs, self._starts = NO_RUNS, NO_STARTS


def alike_in(segment: Segment, stop: int, carried: Carried) -> tuple[int, Counts]:
    """Up to where in a segment messages have the counts of the next one, at most up to `stop`."""
    sequences = segment.sequences(segment.head, stop)
    alike = carried.alike(sequences[0], sequences[-1] + 1)
    return segment.head + bisect_left(sequences, alike.stop), alike.counts
