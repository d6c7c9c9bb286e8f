"""Delivery counts: how often messages were handed out in vain, in this queue and in those before.

A message that has died in another queue may bring its counts along.  Those of ready messages are
kept by sequence number:

    number   1 .. 7      8 .. 20     21     22 ..
    counts   new         (1, 1)      new    (4, 2)

In runs, since most of those in a queue for dead letters have been rejected once: so a backlog of
them costs no more than another.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple


class Counts(NamedTuple):
    """The values that a client gets as x-acquired-count and x-delivery-count."""

    acquired: int
    """Hand-outs that have ended without settling it.  Of the next one this is the ordinal."""
    failed: int
    """Failed deliveries, which count against the delivery limit."""


NEW = Counts(0, 0)


def brought_along(counts: Counts, *, is_rejected: bool) -> Counts:
    """Counts that a dead-lettered message takes into the next quorum queue.

    To be rejected is a failure, too.  What has never failed is new there, however often clients
    gave it back: so it is in RabbitMQ, which passes on failures alone.
    """
    if is_rejected:
        counts = Counts(counts.acquired + 1, counts.failed + 1)
    return counts if counts.failed else NEW


NO_STARTS: list[int] = []


class EqualCountsRun(NamedTuple):
    """Messages with equal counts, from one number up to, not including, another."""

    first: int
    stop: int
    counts: Counts


NO_RUNS: list[EqualCountsRun] = []
"""Never changed: nothing is brought along to most queues."""


class DeliveryCountIndex:
    """Delivery counts by sequence number: a number that is not in it belongs to a new message."""

    __slots__ = ("_gone_count", "_runs", "_starts", "coming", "has_any")

    def __init__(self, runs: Sequence[EqualCountsRun] = ()) -> None:
        """`runs` rise."""
        self._runs = [*runs] if runs else NO_RUNS
        self._starts = [run.first for run in runs] if runs else NO_STARTS
        self._gone_count = 0
        """So many of these at the front are taken.  They are let go of together, since that moves
        all that is behind them."""
        self.has_any = bool(runs)
        self.coming = NEW
        """Counts of the messages that come in now."""

    @property
    def runs(self) -> list[EqualCountsRun]:
        """All of it, rising."""
        return self._runs[self._gone_count :]

    @property
    def stop(self) -> int:
        """Behind the last of it."""
        return self._runs[-1].stop if self.has_any else 0

    def put(self, first: int, stop: int, counts: Counts) -> None:
        """Messages come in behind all others."""
        if counts == NEW:
            return
        if not self.has_any:
            self._runs, self._starts, self.has_any = [], [], True
        elif (last := self._runs[-1]).stop == first and last.counts == counts:  # mutant: CA15 CA16
            self._runs[-1] = last._replace(stop=stop)
            return
        self._runs.append(EqualCountsRun(first, stop, counts))
        self._starts.append(first)

    def alike(self, first: int, stop: int) -> EqualCountsRun:
        """The messages from the one at `first` on, before `stop`, that have equal counts."""
        at = bisect_right(self._starts, first, self._gone_count) - 1
        if at >= self._gone_count and first < (run := self._runs[at]).stop:
            return EqualCountsRun(first, min(stop, run.stop), run.counts)  # mutant: CA13
        if at + 1 < len(self._starts):
            stop = min(stop, self._starts[at + 1])  # mutant: CA14
        return EqualCountsRun(first, stop, NEW)

    def take(self, sequences: Sequence[int]) -> None:
        """Messages are ready no more."""
        if isinstance(sequences, range) and sequences.step == 1:
            self._cut(sequences.start, sequences.stop)
            return
        for number in sequences:
            self._cut(number, number + 1)

    def _cut(self, first: int, stop: int) -> None:
        gone = self._gone_count
        at, end = bisect_right(self._starts, first, gone), bisect_left(self._starts, stop, gone)
        if at > gone and self._runs[at - 1].stop > first:
            at -= 1
        if at >= end:
            return
        front, back = self._runs[at], self._runs[end - 1]
        left = [front._replace(stop=first)] if front.first < first else []  # mutant: CA12
        if back.stop > stop:  # mutant: CA11
            left.append(back._replace(first=stop))
        if at == gone and len(left) <= end - at:
            self._gone_count = at = end - len(left)
        self._runs[at:end] = left
        self._starts[at:end] = [run.first for run in left]
        self._let_go()

    def _let_go(self) -> None:
        """Drop the runs that are taken, once they are more than half."""
        gone, count = self._gone_count, len(self._runs)
        if gone == count:
            self.clear()
        elif 2 * gone > count:
            del self._runs[:gone], self._starts[:gone]
            self._gone_count = 0

    def clear(self) -> None:
        self._runs, self._starts = NO_RUNS, NO_STARTS
        self._gone_count, self.has_any = 0, False
