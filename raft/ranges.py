"""Sets of indexes as ranges, in 16 bytes each: which entries of a sparse log are live.

    Ranges.of((1, 4), (9, 10))  is  {1, 2, 3, 9}

A value: every operation makes a new one.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

NO_BOUNDS = array("Q")
"""Never changed, as the bounds of every set: most are empty."""


class Ranges:
    """Rising ranges, each from `first` up to, not including, `stop`, that do not touch."""

    __slots__ = ("_bounds",)

    def __init__(self, bounds: "array[int] | None" = None) -> None:
        self._bounds = bounds if bounds is not None else NO_BOUNDS
        """first, stop, first, stop ...; strictly rising."""

    @classmethod
    def of(cls, *pairs: tuple[int, int]) -> "Ranges":
        """Build ranges from pairs of `first` and `stop` in rising order; those that touch are
        joined."""
        return cls.joined(pairs)

    @classmethod
    def joined(cls, pairs: Iterable[tuple[int, int]]) -> "Ranges":
        """Build ranges from pairs in rising order of `first`; empty ones vanish.  Raises
        `ValueError`."""
        bounds = array("Q")
        for first, stop in pairs:
            if first >= stop:
                continue
            if bounds and first < bounds[-2]:
                raise ValueError(f"range from {first} behind one from {bounds[-2]}")
            if bounds and first <= bounds[-1]:
                bounds[-1] = max(bounds[-1], stop)
            else:
                bounds.append(first)
                bounds.append(stop)
        return cls(bounds)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ranges":
        """Decode what `to_bytes` made.  Raises `ValueError`."""
        numbers: list[int] = []
        at, total = 0, 0
        while at < len(data):
            shift = value = 0
            while True:
                if at == len(data) or shift > 63:
                    raise ValueError("ranges end within a number")
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            total += value
            numbers.append(total)
        if len(numbers) % 2 or any(low >= high for low, high in pairwise(numbers)):
            raise ValueError("ranges do not rise")
        try:
            return cls(array("Q", numbers))
        except OverflowError as error:
            raise ValueError("an index of more than 64 bits") from error

    def to_bytes(self) -> bytes:
        """Encode each bound as its distance from the one before, in groups of seven bits."""
        data = bytearray()
        before = 0
        for bound in self._bounds:
            distance, before = bound - before, bound
            while distance > 0x7F:
                data.append(distance & 0x7F | 0x80)
                distance >>= 7
            data.append(distance)
        return bytes(data)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        bounds = self._bounds
        return zip(bounds[::2], bounds[1::2], strict=True)

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __len__(self) -> int:
        """Return how many indexes there are."""
        return sum(self._bounds[1::2]) - sum(self._bounds[::2])

    def __contains__(self, index: int) -> bool:
        return bisect_right(self._bounds, index) % 2 == 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._bounds == other._bounds

    def __hash__(self) -> int:
        return hash(self._bounds.tobytes())

    def __repr__(self) -> str:
        return f"Ranges.of({', '.join(map(str, self))})"

    def next_from(self, index: int) -> tuple[int, int] | None:
        """Return the first range, or rest of one, at or above `index`."""
        at = bisect_right(self._bounds, index)
        if at == len(self._bounds):
            return None
        if at % 2:
            return index, self._bounds[at]
        return self._bounds[at], self._bounds[at + 1]

    def within(self, first: int, stop: int) -> "Ranges":
        """Return what is from `first` up to, not including, `stop`."""
        if first >= stop:
            return Ranges()
        bounds = self._bounds
        low, high = bisect_right(bounds, first), bisect_left(bounds, stop)
        # An odd place is inside of a range, which is cut there.
        before, behind = [first] * (low % 2), [stop] * (high % 2)
        return Ranges(array("Q", before) + bounds[low:high] + array("Q", behind))

    def gaps(self, first: int, stop: int) -> "Ranges":
        """Return what of `first` up to `stop` is not in these ranges."""
        pairs: list[tuple[int, int]] = []
        at = first
        for low, high in self.within(first, stop):
            pairs.append((at, low))
            at = high
        pairs.append((at, stop))
        return Ranges.joined(pairs)

    def minus(self, other: "Ranges") -> "Ranges":
        """Return what is not in `other`."""
        pairs: list[tuple[int, int]] = []
        for first, stop in self:
            pairs.extend(other.gaps(first, stop))
        return Ranges.joined(pairs)

    def plus(self, other: "Ranges") -> "Ranges":
        """Return what is in these ranges or in `other`."""
        return Ranges.joined(sorted([*self, *other]))


NO_RANGES = Ranges()
"""Empty set that is shared by whatever mostly has no ranges."""
