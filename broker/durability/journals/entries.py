"""The entries of one queue's log whose messages are in memory or unacknowledged.

An entry holds messages with consecutive sequence numbers and is named by the first.  It stays on
disk until all of them are settled; which ones are is a number with a bit for each.  Entries whose
messages are only on disk are not here, so that a backlog costs no memory.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

from fluffle.broker.queues.journal import comb

COMPACT_ENTRIES = 512
"""Entries that are dead are swept out once there are so many, and they are half."""


class PartialEntry(NamedTuple):
    """An entry of which some messages are settled."""

    first: int
    settled: int
    """Bit `i` for the message `first + i`."""


class EntryChanges(NamedTuple):
    """Changes of entries since they were last taken."""

    dead: list[tuple[int, int]]
    """The first number and the one behind the last of those of which every message is settled."""
    partial: list[PartialEntry]
    """Those that live on, with all that is settled of them."""


class Entries:
    """Entries of a log by rising number, without overlap."""

    __slots__ = ("_counts", "_dead", "_firsts", "_settled", "_touched")

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._counts = array("L")
        """How many messages each has; 0 if it is dead."""
        self._dead = 0
        """How many are dead: not only in front, for one message may be kept for long."""
        self._settled: dict[int, int] = {}
        """What is settled of an entry, by its first number; none without a bit."""
        self._touched: dict[int, None] = {}
        """Entries of which something was settled since `take_changes`."""

    def __len__(self) -> int:
        return len(self._counts) - self._dead

    def add(self, first: int, count: int) -> None:
        """Add an entry behind all others."""
        self._firsts.append(first)
        self._counts.append(count)

    def extend(self, count: int) -> None:
        """Add messages to the last entry."""
        self._counts[-1] += count

    def insert(self, entries: Sequence[tuple[int, int]], settled: Iterable[PartialEntry]) -> None:
        """Insert entries, each with its first number and its count, that lie together among the
        others."""
        at = bisect_left(self._firsts, entries[0][0])
        self._firsts[at:at] = array("Q", [first for first, _ in entries])
        self._counts[at:at] = array("L", [count for _, count in entries])
        self._settled.update(settled)

    def remove(self, first: int, stop: int) -> None:
        """Remove the entries that begin from `first` up to `stop`, of which nothing is settled."""
        at = bisect_left(self._firsts, first)
        end = bisect_left(self._firsts, stop, at)
        del self._firsts[at:end], self._counts[at:end]

    def settle(self, sequences: Sequence[int]) -> None:
        """Note that messages, rising, are settled."""
        for first, bits in self._spread(sequences):
            self._settled[first] = self._settled.get(first, 0) | bits
            self._touched[first] = None

    def unsettle(self, sequences: Sequence[int]) -> None:
        """Undo `settle`; `take_changes` was not called in between."""
        for first, bits in self._spread(sequences):
            settled = self._settled.pop(first) & ~bits
            if settled:
                self._settled[first] = settled

    def take_changes(self) -> EntryChanges:
        """Return what has changed since the last call; entries that are settled are forgotten."""
        changes = EntryChanges([], [])
        touched, self._touched = self._touched, {}
        for first in sorted(touched):
            settled = self._settled.get(first, 0)
            if not settled:
                continue  # it was undone
            at = bisect_left(self._firsts, first)
            count = self._counts[at]
            if settled == (1 << count) - 1:
                self._counts[at] = 0
                self._dead += 1
                del self._settled[first]
                changes.dead.append((first, first + count))
            else:
                changes.partial.append(PartialEntry(first, settled))
        self._sweep()
        return changes

    def _spread(self, sequences: Sequence[int]) -> list[tuple[int, int]]:
        """Entries, by their first number, and the bits in each for `sequences`."""
        step = sequences.step if isinstance(sequences, range) else 0
        found: list[tuple[int, int]] = []
        start = 0
        while start < len(sequences):
            lowest = sequences[start]
            at = bisect_right(self._firsts, lowest) - 1
            assert at >= 0, f"message {lowest} is in no entry"
            first, count = self._firsts[at], self._counts[at]
            assert lowest < first + count, f"message {lowest} is in no entry"
            stop = bisect_left(sequences, first + count, start)
            if step:
                bits = comb(stop - start, step) << (lowest - first)
            else:
                bits = sum(1 << (sequence - first) for sequence in sequences[start:stop])
            found.append((first, bits))
            start = stop
        return found

    def _sweep(self) -> None:
        """Let go of the dead once they are many, so that each costs a constant."""
        if self._dead > COMPACT_ENTRIES and self._dead * 2 > len(self._counts):
            self._firsts = array("Q", compress(self._firsts, self._counts))
            self._counts = array("L", filter(None, self._counts))
            self._dead = 0
