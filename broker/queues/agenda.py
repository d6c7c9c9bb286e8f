"""What is due when: numbers in the order of their times, and of one time in that of their coming.

Sixteen octets a number, in leaves of two arrays: none has more than `LEAF` numbers, so to put one
in between moves a few kilobytes at most, and no call takes longer because there are many.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from fluffle.broker.queues.timing import NEVER_MS

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


class Agenda:
    """Of one queue."""

    __slots__ = ("_lasts_ms", "_leaves", "count")

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []
        """None is empty."""
        self._lasts_ms: list[int] = []
        """The last time of each leaf."""
        self.count = 0
        """How many numbers there are."""

    @property
    def due_ms(self) -> int:
        """When the first is due; `NEVER_MS` if there is none."""
        return self._leaves[0].times_ms[0] if self._leaves else NEVER_MS

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

    def take(self, until_ms: int, most: int) -> list[int]:
        """The first numbers that are due until then, at most so many; they are here no more."""
        taken: list[int] = []
        while self._leaves and len(taken) < most:
            leaf = self._leaves[0]
            stop = min(bisect_right(leaf.times_ms, until_ms), most - len(taken))
            taken += leaf.numbers[:stop]
            del leaf.times_ms[:stop], leaf.numbers[:stop]
            if leaf.numbers:
                break
            del self._leaves[0], self._lasts_ms[0]
        self.count -= len(taken)
        return taken
