"""Index of due times: numbers in the order of their times, and of one time in that of their
arrival.

    comes one by one ---> leaves, in order: its place is looked for, and a few kilobytes are moved
    found many at once -> a row of its own, sorted; a heap says which is next

Sixteen octets a number, in two arrays.  No call takes longer because there are many.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from typing import TypeAlias

from fluffle.broker.queues.expiry_times import NEVER_MS, Expiries

LEAF = 1024


class Leaf:
    """Some numbers that follow on each other in time."""

    __slots__ = ("numbers", "times_ms")

    def __init__(self, times_ms: array[int], numbers: array[int]) -> None:
        self.times_ms = times_ms
        self.numbers = numbers

    def parted(self, at: int) -> Leaf:
        """What is from there on, which is not in this one any more."""
        behind = Leaf(self.times_ms[at:], self.numbers[at:])
        del self.times_ms[at:], self.numbers[at:]
        return behind


Row: TypeAlias = "tuple[int, int, array[int], array[int]]"
"""When the next is due and its number; and the same of all others, the last of them in front."""


class DueIndex:
    """Index of the due times of one queue."""

    __slots__ = ("_lasts_ms", "_leaves", "_rows", "count")

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []
        """None is empty."""
        self._lasts_ms: list[int] = []
        """The last time of each leaf."""
        self._rows: list[Row] = []
        """A heap."""
        self.count = 0
        """How many numbers there are."""

    @property
    def due_ms(self) -> int:
        """When the first is due; `NEVER_MS` if there is none."""
        first_ms = self._leaves[0].times_ms[0] if self._leaves else NEVER_MS
        return min(first_ms, self._rows[0][0]) if self._rows else first_ms

    def add(self, due_ms: int, numbers: Sequence[int]) -> None:
        """These are due then, one behind the other, behind those that are due then already."""
        for start in range(0, len(numbers), LEAF):
            self._add(due_ms, array("Q", numbers[start : start + LEAF]))
        self.count += len(numbers)

    def _add(self, due_ms: int, numbers: array[int]) -> None:
        times_ms = array("Q", (due_ms,)) * len(numbers)
        at = bisect_right(self._lasts_ms, due_ms)
        if at < len(self._leaves):
            leaf = self._leaves[at]
            place = bisect_right(leaf.times_ms, due_ms)
            leaf.times_ms[place:place] = times_ms
            leaf.numbers[place:place] = numbers
        elif self._leaves and len(self._leaves[-1].numbers) + len(numbers) <= LEAF:
            at, leaf = at - 1, self._leaves[-1]
            leaf.times_ms += times_ms
            leaf.numbers += numbers
            self._lasts_ms[at] = due_ms
        else:
            self._leaves.append(Leaf(times_ms, numbers))
            self._lasts_ms.append(due_ms)
            return
        if len(leaf.numbers) > LEAF:
            self._leaves.insert(at + 1, leaf.parted(len(leaf.numbers) // 2))
            self._lasts_ms.insert(at, leaf.times_ms[-1])

    def add_found(self, times_ms: Expiries, numbers: Sequence[int]) -> None:
        """Each of these is due at its time, in front of all that was added one by one.

        The numbers rise, and some are found together, for each such row is looked at alone."""
        last_first = sorted(range(len(numbers) - 1, -1, -1), key=times_ms.__getitem__, reverse=True)
        own_ms = array("Q", map(times_ms.__getitem__, last_first))
        own = array("Q", map(numbers.__getitem__, last_first))
        if own:
            heappush(self._rows, (own_ms.pop(), own.pop(), own_ms, own))
        self.count += len(numbers)

    def take(self, until_ms: int, most: int) -> list[int]:
        """The first numbers that are due until then, at most so many; they are here no more."""
        taken: list[int] = []
        while self._rows and self._rows[0][0] <= until_ms and len(taken) < most:
            before_ms = self._rows[0][0] - 1
            taken += self._take_from_leaves(before_ms, most - len(taken))
            if len(taken) < most:
                taken.append(self._take_from_row())
        taken += self._take_from_leaves(until_ms, most - len(taken))
        self.count -= len(taken)
        return taken

    def _take_from_row(self) -> int:
        _due_ms, number, times_ms, numbers = self._rows[0]
        if numbers:
            heapreplace(self._rows, (times_ms.pop(), numbers.pop(), times_ms, numbers))
        else:
            heappop(self._rows)
        return number

    def _take_from_leaves(self, until_ms: int, most: int) -> list[int]:
        taken: list[int] = []
        while self._leaves and len(taken) < most:
            leaf = self._leaves[0]
            stop = min(bisect_right(leaf.times_ms, until_ms), most - len(taken))
            taken += leaf.numbers[:stop]
            del leaf.times_ms[:stop], leaf.numbers[:stop]
            if leaf.numbers:
                break
            del self._leaves[0], self._lasts_ms[0]
        return taken
