"""What numbers were: a row of them each time that they have changed, and of the older ones fewer.

Time is counted in *ticks*, one for each look at the numbers.  A level keeps the last row in each
stretch of so many ticks, in one array: the tick, then the numbers.  So nothing has changed from a
row to the beginning of the stretch of the next one; from there on the numbers are taken to have
changed evenly, and no rate is seen that was not.

Narrow numbers are kept by their low 32 bits, and so each is found near one that is known: none
changes by half of that within what is remembered.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class NumberWidth(StrEnum):
    """Of a number, as the code of an array."""

    NARROW = "I"
    WIDE = "Q"


class Level(NamedTuple):
    ticks: int
    """It has one row in so many, the last."""
    rows: int
    """It has so many."""


class NumberHistory:
    """Of a few numbers."""

    __slots__ = ("_bits", "_columns", "_levels", "_rows")

    def __init__(self, columns: int, levels: Sequence[Level], width: NumberWidth) -> None:
        """`levels`: the one with most rows in a time first."""
        self._columns = columns + 1
        self._levels = levels
        self._rows = tuple(array(width) for _level in levels)
        self._bits = 8 * array(width).itemsize

    def add(self, tick: int, values: Sequence[int]) -> None:
        """They are so from this tick on, which is behind all others."""
        mask, columns = (1 << self._bits) - 1, self._columns
        row = [tick, *(value & mask for value in values)]
        for level, rows in zip(self._levels, self._rows, strict=True):
            if rows and tick // level.ticks == rows[-columns] // level.ticks:
                del rows[-columns:]
            rows.extend(row)
            del rows[: -columns * level.rows]

    @property
    def last_tick(self) -> int:
        """That of the last row."""
        return self._rows[0][-self._columns]

    def at(self, tick: int, now: Sequence[int]) -> list[int]:
        """What they were then, or the first that is known if that was later; `now`: what they are,
        or were at some time that is remembered."""
        before, after, ticks = self._around(tick)
        start = max(before[0], after[0] // ticks * ticks - 1)
        was = self._whole(before, now)
        if tick <= start:
            return was
        become = self._whole(after, now)
        passed, lasted = tick - start, after[0] - start
        return [
            a + (b - a) * passed // lasted if lasted > 0 else a
            for a, b in zip(was, become, strict=True)
        ]

    def _whole(self, row: Sequence[int], now: Sequence[int]) -> list[int]:
        """The numbers of a row, with all of their bits."""
        half = 1 << (self._bits - 1)
        mask = 2 * half - 1
        return [
            known + ((value - known + half) & mask) - half
            for known, value in zip(now, row[1:], strict=True)
        ]

    def _around(self, tick: int) -> tuple[Sequence[int], Sequence[int], int]:
        """The last row that is not behind `tick`, or the first of all, the first row behind it, or
        that same one, and the ticks of the level that has the former."""
        columns, after = self._columns, array(self._rows[0].typecode)
        for level, rows in zip(self._levels, self._rows, strict=True):
            stop = bisect_right(rows[::columns], tick) * columns
            later = rows[stop : stop + columns]
            if later and (not after or later[0] < after[0]):
                after = later
            if stop:
                before = rows[stop - columns : stop]
                return before, after or before, level.ticks
        return after, after, 1
