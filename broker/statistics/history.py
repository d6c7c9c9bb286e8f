"""What numbers were: a row of them each time that they have changed, and of the older ones fewer.

Time is counted in *ticks*, one for each look at the numbers.  A level keeps one row in so many
ticks, in one array: the tick, then the numbers.  Narrow numbers are kept by their low 32 bits, and
so each is found near one that is known: none changes by half of that within what is remembered.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Width(StrEnum):
    """Of a number, as the code of an array."""

    NARROW = "I"
    WIDE = "Q"


class Level(NamedTuple):
    ticks: int
    """It has one row in so many."""
    rows: int
    """It has so many."""


class History:
    """Of a few numbers."""

    __slots__ = ("_bits", "_columns", "_levels", "_rows")

    def __init__(self, columns: int, levels: Sequence[Level], width: Width) -> None:
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
            if not rows or tick // level.ticks > rows[-columns] // level.ticks:
                rows.extend(row)
                del rows[: -columns * level.rows]

    @property
    def last_tick(self) -> int:
        """That of the last row."""
        return self._rows[0][-self._columns]

    def at(self, tick: int, now: Sequence[int]) -> list[int]:
        """What they were then, or the first that is known if that was later; `now`: what they are,
        or were at some time that is remembered."""
        rows, start = self._row_of(tick)
        half = 1 << (self._bits - 1)
        mask = 2 * half - 1
        kept = rows[start + 1 : start + self._columns]
        return [
            known + ((value - known + half) & mask) - half
            for known, value in zip(now, kept, strict=True)
        ]

    def _row_of(self, tick: int) -> tuple[array[int], int]:
        """The array of the last row that is not behind `tick`, and where in it that row begins."""
        for rows in self._rows:
            place = bisect_right(rows[:: self._columns], tick) - 1
            if place >= 0:
                return rows, place * self._columns
        return self._rows[-1], 0
