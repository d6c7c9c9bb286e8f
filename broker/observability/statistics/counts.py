"""Counted numbers of each kind of object, by RabbitMQ's names, and their history.

Names that come together are a *group*: an object has all of a group once it has one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from enum import StrEnum
from itertools import chain
from typing import NamedTuple


class NumberWidth(StrEnum):
    """Width of a number, as the type code of an array."""

    NARROW = "I"
    WIDE = "Q"


class Level(NamedTuple):
    ticks: int
    """It has one row in so many, the last."""
    rows: int
    """It has so many."""


class NumberHistory:
    """History of a row of numbers: each change of late, fewer of the older ones."""

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


TICK_MS = 5_000
"""RabbitMQ's collect_statistics_interval."""

SHORT = (Level(1, 13), Level(12, 12))
"""A row each 5 s for a minute, and each minute for ten: at most 25 rows, with 4 bytes a
number.  An object on which nothing happens has none."""

LONG = (Level(1, 122), Level(12, 62), Level(120, 50), Level(360, 50))
"""Those of RabbitMQ's retention policy `global`, up to a day; of the node alone."""


RETAINED_S = tuple(level.ticks * (level.rows - 2) * TICK_MS // 1_000 for level in LONG)
"""How far back each of them goes at least, in seconds: its last row is of now, and its first may be
of the middle of a stretch."""


class CounterKind(NamedTuple):
    """The numbers that a kind of object has, and their history."""

    groups: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    """Of all groups."""
    levels: tuple[Level, ...]
    width: NumberWidth = NumberWidth.NARROW


def kind(
    *groups: tuple[str, ...],
    levels: tuple[Level, ...] = SHORT,
    width: NumberWidth = NumberWidth.NARROW,
) -> CounterKind:
    return CounterKind(groups, tuple(chain.from_iterable(groups)), levels, width)


PUBLISHED = ("publish", "confirm", "return_unroutable", "drop_unroutable")
PUBLISH, CONFIRM, RETURN, DROP = range(4)

DELIVERED = (
    "deliver", "deliver_no_ack", "get", "get_no_ack", "get_empty", "redeliver", "ack",
    "deliver_get",
)  # fmt: skip
DELIVER, DELIVER_NO_ACK, GET, GET_NO_ACK, GET_EMPTY, REDELIVER, ACK, DELIVER_GET = range(8)

OF_QUEUE = kind(("publish",), DELIVERED)
OF_EXCHANGE = kind(("publish_in", "publish_out"))
OF_CHANNEL = kind(PUBLISHED, DELIVERED)
"""And of a virtual host."""
OF_PUBLISHES = kind(PUBLISHED)
OF_DELIVERIES = kind(DELIVERED)
OF_NODE = kind(PUBLISHED, DELIVERED, levels=LONG, width=NumberWidth.WIDE)

OF_LENGTHS = kind(("messages", "messages_ready", "messages_unacknowledged"))
OF_ALL_LENGTHS = kind(*OF_LENGTHS.groups, levels=LONG, width=NumberWidth.WIDE)
OF_BYTES = kind(("recv_oct", "send_oct"), width=NumberWidth.WIDE)
OF_CHURN = kind(
    (
        *("connection_created", "connection_closed", "channel_created", "channel_closed"),
        *("queue_declared", "queue_created", "queue_deleted"),
    ),
    levels=LONG,
    width=NumberWidth.WIDE,
)


class Counts:
    """The numbers of one object, and their history."""

    __slots__ = ("_history", "kind", "values")

    def __init__(self, kind: CounterKind) -> None:
        self.kind = kind
        self.values = [0] * len(kind.names)
        """What they are now."""
        self._history: NumberHistory | None = None
        """None until something has been sampled that was not 0."""

    def add(self, at: int, counted: Sequence[int]) -> None:
        """Count more of the names from `at` on."""
        values = self.values
        for place, count in enumerate(counted, at):
            values[place] += count

    def sample(self, tick: int) -> None:
        """Remember them, for they have changed.  Before the first time they were 0."""
        history = self._history
        if history is None:
            history = self._begun()
            history.add(0, [0] * len(self.values))
        history.add(tick, self.values)

    def found(self, tick: int) -> None:
        """As `sample`, of what has been there before anybody looked."""
        self._begun().add(tick, self.values)

    def _begun(self) -> NumberHistory:
        columns = len(self.values)
        self._history = history = NumberHistory(columns, self.kind.levels, self.kind.width)
        return history

    @property
    def changed_tick(self) -> int | None:
        """When they were found to have changed last; None if they never have."""
        return self._history.last_tick if self._history is not None else None

    def at(self, tick: int) -> Sequence[int]:
        """What they were."""
        if self._history is None:
            return [0] * len(self.values)
        return self._history.at(tick, self.values)
