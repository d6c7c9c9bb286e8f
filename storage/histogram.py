"""Histogram of sizes: counts below each of a handful of bounds."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate


class Histogram:
    """Counts by size from the start on."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` rise; what is larger than the last of them counts, too."""
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total: float = 0
        """Sum of all values."""

    def add(self, value: float, count: int = 1) -> None:
        """Count one value of this size, or several that have it together as if all were alike."""
        self._counts[bisect_left(self.bounds, value / count)] += count
        self.total += value

    @property
    def up_to(self) -> Iterator[int]:
        """Return how many were no larger than each of the bounds; and last, how many there were."""
        return accumulate(self._counts)
