"""Positions of the entries of one group: in which rows of hot records, and how far the cold ones
go.

An entry in the hot window costs 16 bytes of memory, a cold one nothing: its key is its place.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator

COMPACT_ENTRIES = 512
"""Entries that are gone are cut off the front once there are so many, and they are half."""


class Positions:
    """Positions of one group.  Cold indexes are below hot ones, except for those to be deleted."""

    __slots__ = ("_head", "_indexes", "_places", "cold_first", "cold_stop", "last")

    def __init__(self) -> None:
        self._indexes = array("Q")
        """Rising, from `_head` on."""
        self._places = array("Q")
        """Where each begins; 0 if it is deleted."""
        self._head = 0
        self.cold_first = 0
        self.cold_stop = 0
        """No cold entry is outside these two; within them some may be missing."""
        self.last = 0
        """Greatest index that was submitted and not deleted again; the next is greater."""

    @property
    def is_empty(self) -> bool:
        return self._head == len(self._indexes) and self.cold_first == self.cold_stop

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing is known that would be missed, nor on its way."""
        return self.is_empty and self.last == 0

    def cold_end(self, stop: int) -> int:
        """Return where to stop looking for cold entries, at `stop` at the latest."""
        hot_first = self._indexes[self._head] if self._head < len(self._indexes) else stop
        return min(stop, hot_first, self.cold_stop)

    @property
    def bounds(self) -> tuple[int, int]:
        """Return two indexes: no entry is below the first, or not below the second."""
        if self._head == len(self._indexes):
            return self.cold_first, self.cold_stop
        hot_first, hot_stop = self._indexes[self._head], self._indexes[-1] + 1
        if self.cold_first == self.cold_stop:
            return hot_first, hot_stop
        return min(self.cold_first, hot_first), max(self.cold_stop, hot_stop)

    def append(self, index: int, place: int) -> None:
        self._indexes.append(index)
        self._places.append(place)

    def find(self, index: int) -> int:
        """Return the place where a hot entry begins; 0 if it is not there."""
        at = bisect_left(self._indexes, index, self._head)
        return self._places[at] if at < len(self._indexes) and self._indexes[at] == index else 0

    def hot(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return indexes and places of hot entries, in order."""
        at = bisect_left(self._indexes, first, self._head)
        end = bisect_left(self._indexes, stop, at)
        live = zip(self._indexes[at:end], self._places[at:end], strict=True)
        return ((index, place) for index, place in live if place)

    def delete(self, first: int, stop: int) -> bool:
        """Forget hot entries; tell whether there may be cold ones to delete as well."""
        at = bisect_left(self._indexes, first, self._head)
        end = bisect_left(self._indexes, stop, at)
        if end == len(self._indexes):
            while at > self._head and not self._places[at - 1]:
                at -= 1  # so that an index that is deleted can be appended again
            del self._indexes[at:], self._places[at:]
        else:
            self._places[at:end] = array("Q", bytes(8 * (end - at)))
        self._skip_deleted()
        return first < self.cold_stop and stop > self.cold_first

    def move_to_cold(self, index: int) -> None:
        """Note that a hot entry has moved to the cold table."""
        self.widen_cold(index)
        at = bisect_left(self._indexes, index, self._head)
        self._places[at] = 0
        self._skip_deleted()

    def widen_cold(self, index: int) -> None:
        """Widen the bounds of the cold entries to include one."""
        if self.cold_first == self.cold_stop:
            self.cold_first, self.cold_stop = index, index + 1
        self.cold_first = min(self.cold_first, index)
        self.cold_stop = max(self.cold_stop, index + 1)

    def trimmed(self, first: int, stop: int) -> None:
        """Note that no cold entry is left from `first` up to `stop`."""
        if first <= self.cold_first:
            self.cold_first = min(max(stop, self.cold_first), self.cold_stop)
        elif stop >= self.cold_stop:
            self.cold_stop = min(max(first, self.cold_first), self.cold_stop)

    def _skip_deleted(self) -> None:
        head, places = self._head, self._places
        while head < len(places) and not places[head]:
            head += 1
        if head > COMPACT_ENTRIES and head * 2 > len(places):
            del self._indexes[:head], self._places[:head]
            head = 0
        self._head = head
