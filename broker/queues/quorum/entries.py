"""Index of the queue's log: entries, the messages in each, and how many of them are ready, live or
dead.

    first   index   count   ready   live   mean size   priority   expiry         41 bytes an entry
    1       7       100     0       3      1,040       4          0
    101     9       1       1       1      52          4          0

Entries rise by sequence number and by index alike.  A message is *ready* if it has never left the
queue's hands, and *live* until it is gone for good; where it is in between is not known here.
Which of an entry are ready is a number with a bit for each, and only while some are and some not.

A message counts with the mean size of those it came with: no size is kept for each.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from operator import mul
from re import finditer
from typing import NamedTuple, TypeAlias

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.expiry_times import NEVER_MS, Expiries, alike, joined
from fluffle.broker.queues.journal import comb
from fluffle.broker.queues.quorum.entry_codec import Enqueued
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.runs import common
from fluffle.raft.ranges import Ranges

COMPACT_ENTRIES = 512
"""Entries that are dead are swept out once there are so many, and they are half."""

EMPTY_ENTRIES = 16
"""Arrays of a queue that is empty are let go of if there are so many in them: new ones cost a
microsecond."""

COLUMNS = {
    "firsts": "Q",
    "indexes": "Q",
    "counts": "I",
    "ready": "I",
    "live": "I",
    "means": "I",
    "priorities": "B",
    "expiries": "Q",
}
"""The arrays, by their type."""

Rows: TypeAlias = "dict[str, array[int]]"


def new_rows() -> Rows:
    return {name: array(code) for name, code in COLUMNS.items()}


NO_ROWS = new_rows()
"""Never changed: eight empty arrays take a kilobyte, and most queues are empty."""


class PerMessageValues(NamedTuple):
    """Values that differ from message to message of an entry."""

    priorities: bytes
    """Priority of each message, or empty."""
    expiries: array[int]
    """Expiry of each message, or empty."""


@dataclass(slots=True)
class LiveEntry:
    """An entry with live messages, as a value."""

    first: int
    index: int
    count: int
    """How many it brought; its messages have consecutive numbers."""
    ready: int
    live: int
    mean_bytes: int
    priority: int
    expires_at_ms: int
    each: PerMessageValues | None
    """Where not all are alike."""

    @property
    def levels(self) -> set[int]:
        """The priorities of its messages."""
        own = self.each.priorities if self.each is not None else b""
        return {*own} or {self.priority}


class LiveEntries:
    """All entries with live messages, and perhaps some dead ones that are not swept out yet."""

    __slots__ = (
        "_dead", "buried_bytes", "content_bytes", "each", "ready_bits", "ready_count", "rows",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows = NO_ROWS
        """Invariant: all of one length."""
        self.each: dict[int, PerMessageValues] = EMPTY_DICT
        """Values that differ between the messages of an entry, by the entry's first number."""
        self.ready_bits: dict[int, int] = EMPTY_DICT
        """Bits of the ready messages of partly ready entries, by the entry's first number."""
        self._dead = 0
        self.ready_count = 0
        self.content_bytes = 0
        """Content bytes of all live messages."""
        self.buried_bytes = 0
        """Content bytes of all messages removed here; no part of the state."""

    def add(self, index: int, new: Enqueued) -> None:
        """Messages come in at the end; all of them are ready."""
        if self.rows is NO_ROWS:
            self.rows = new_rows()
        rows, columns = self.rows, new.columns
        mean = new.content_bytes // new.count
        rows["firsts"].append(new.first)
        rows["indexes"].append(index)
        rows["counts"].append(new.count)
        rows["ready"].append(new.count)
        rows["live"].append(new.count)
        rows["means"].append(mean)
        rows["priorities"].append(columns.priority)
        rows["expiries"].append(columns.expires_at_ms)
        if columns.priorities or columns.expiries:
            if self.each is EMPTY_DICT:
                self.each = {}
            self.each[new.first] = PerMessageValues(columns.priorities, columns.expiries)
        self.ready_count += new.count
        self.content_bytes += mean * new.count

    def take(self, run: range) -> None:
        """Messages are ready no more.  Raises `InvalidEntry` if one is not now."""
        firsts, counts, ready = self.rows["firsts"], self.rows["counts"], self.rows["ready"]
        for at, inside in self._spread(run):
            wanted, there = len(inside), ready[at]
            if wanted > there:  # mutant: RE18
                raise InvalidEntry(f"not all messages from {firsts[at]} on are ready")
            if wanted < counts[at]:
                self._take_bits(firsts[at], counts[at], inside, there)
            ready[at] = there - wanted
        self.ready_count -= len(run)

    def _take_bits(self, first: int, count: int, inside: range, there: int) -> None:
        """Clear the bits of messages of an entry, `there` of which are ready."""
        bits = comb(len(inside), inside.step) << (inside.start - first)
        now = (1 << count) - 1 if there == count else self.ready_bits.get(first, 0)
        if bits & ~now:  # mutant: RE19
            raise InvalidEntry(f"not all messages of {inside} are ready")
        if len(inside) == there:
            self.ready_bits.pop(first, None)
        else:
            if self.ready_bits is EMPTY_DICT:
                self.ready_bits = {}
            self.ready_bits[first] = now ^ bits  # mutant: IM35

    def bury(self, run: range) -> list[int]:
        """Messages that are not ready are gone; the indexes of entries of which none is left."""
        rows = self.rows
        live, ready = rows["live"], rows["ready"]
        dead: list[int] = []
        for at, inside in self._spread(run):
            left = live[at] - len(inside)
            if left < ready[at]:
                raise InvalidEntry(f"more messages of {inside} are gone than were there")
            live[at] = left
            size_bytes = rows["means"][at] * len(inside)
            self.content_bytes -= size_bytes  # mutant: IM33
            self.buried_bytes += size_bytes
            if not left:
                dead.append(rows["indexes"][at])  # mutant: IM32
                self.each.pop(rows["firsts"][at], None)  # mutant: IM34
        self._dead += len(dead)
        self._sweep()
        return dead

    def _spread(self, run: range) -> list[tuple[int, range]]:
        """Where the entries of a run are, each with what it has of it.  Raises `InvalidEntry`."""
        firsts, counts = self.rows["firsts"], self.rows["counts"]
        at = bisect_right(firsts, run.start) - 1
        if at >= 0 and run[-1] < firsts[at] + counts[at]:
            return [(at, run)]
        spread: list[tuple[int, range]] = []
        while run:
            at = bisect_right(firsts, run.start, lo=max(at, 0)) - 1
            stop = firsts[at] + counts[at] if at >= 0 else 0
            if run.start >= stop:
                raise InvalidEntry(f"message {run.start} is in no entry")
            inside = run[: -((run.start - stop) // run.step)]
            spread.append((at, inside))
            run = run[len(inside) :]
            at += 1
        return spread

    def _sweep(self) -> None:
        """Let go of the dead once they are many, so that each costs a constant."""
        if self._dead > EMPTY_ENTRIES and self._dead == len(self.rows["live"]):
            self.rows, self._dead = NO_ROWS, 0
        elif self._dead > COMPACT_ENTRIES and self._dead * 2 > len(self.rows["live"]):
            self.live_rows()

    def live_rows(self) -> Rows:
        """The arrays, without anything dead.  Not to be changed."""
        if self._dead:
            live = self.rows["live"]  # mutant: IM36
            self.rows = {
                name: array(COLUMNS[name], compress(column, live))
                for name, column in self.rows.items()
            }
            self._dead = 0
        return self.rows

    def live_indexes(self) -> Ranges:
        """The entries of the log that are still needed."""
        indexes = self.live_rows()["indexes"]
        bounds = array("Q")
        at = 0
        while at < len(indexes):
            stop = _end_of_run(indexes, at)
            bounds.append(indexes[at])
            bounds.append(indexes[stop - 1] + 1)
            at = stop
        return Ranges(bounds)

    def mostly_dead(self, parts: int) -> Iterator[LiveEntry]:
        """Entries of which at least one message, but no more than one in `parts`, is live."""
        rows = self.live_rows()
        for at, (live, count) in enumerate(zip(rows["live"], rows["counts"], strict=True)):
            if live * parts <= count:
                yield self._at(at)

    def __iter__(self) -> Iterator[LiveEntry]:
        """Entries with live messages, in order."""
        for row in zip(*self.live_rows().values(), strict=True):
            yield self._entry(*row)

    def _at(self, place: int) -> LiveEntry:
        """The one in a row."""
        return self._entry(*(column[place] for column in self.rows.values()))

    def _entry(self, first: int, *others: int) -> LiveEntry:
        index, count, ready, live, mean, priority, expiry = others
        each = self.each.get(first)
        return LiveEntry(first, index, count, ready, live, mean, priority, expiry, each)

    def between(self, first: int, stop: int) -> Iterator[LiveEntry]:
        """Entries with live messages from `first` up to, not including, `stop`, in order."""
        rows = self.rows
        firsts = rows["firsts"]
        at = max(bisect_right(firsts, first) - 1, 0)
        while at < len(firsts) and firsts[at] < stop:
            if rows["live"][at] and firsts[at] + rows["counts"][at] > first:
                yield self._at(at)
            at += 1

    @property
    def has_expiries(self) -> bool:
        """True if any message ever expires.  Looks at all entries, but not in Python."""
        return any(self.rows["expiries"]) or any(each.expiries for each in self.each.values())

    def span_of(self, start: int, stop: int) -> tuple[int, int]:
        """When the first message of some rows expires, and when the last; of all that they
        brought."""
        expiries, firsts = self.rows["expiries"], self.rows["firsts"]
        if not self.each and 0 not in (of_all := expiries[start:stop]):
            return min(of_all), max(of_all)
        firsts_ms: list[int] = []
        lasts_ms: list[int] = []
        for at in range(start, stop):
            own = self.each.get(firsts[at])
            times = own.expiries if own is not None and own.expiries else expiries[at : at + 1]
            if 0 in times:
                times = array("Q", (time or NEVER_MS for time in times))
            firsts_ms.append(min(times))
            lasts_ms.append(max(times))
        return min(firsts_ms), max(lasts_ms)

    def expiries_of(self, run: range) -> Expiries | None:
        """When each message of a run expires; None if none ever does.  Raises `InvalidEntry`."""
        expiries, firsts = self.rows["expiries"], self.rows["firsts"]
        found: Expiries | None = None
        count = 0
        for at, inside in self._spread(run):
            own = self.each.get(firsts[at])
            times = None
            if own is not None and own.expiries:
                part = slice(inside.start - firsts[at], inside[-1] + 1 - firsts[at], inside.step)
                times = own.expiries[part]
                if 0 in times:
                    times = array("Q", (time or NEVER_MS for time in times))
            elif expiries[at]:
                times = alike(expiries[at], len(inside))
            found = joined(found, count, times, len(inside))
            count += len(inside)
        return found

    def extent_of(self, sequence: int) -> tuple[int, int, int]:
        """The index of the entry that holds a message, and from which number up to which others
        are that came with it.  Raises `InvalidEntry`."""
        [(at, _)] = self._spread(range(sequence, sequence + 1))
        first = self.rows["firsts"][at]
        return self.rows["indexes"][at], first, first + self.rows["counts"][at]

    def ready_of(self, entry: LiveEntry) -> list[range]:
        """Runs of ready messages of an entry."""
        if entry.ready == entry.count:
            return [range(entry.first, entry.first + entry.count)]
        bits = f"{self.ready_bits.get(entry.first, 0):b}"[::-1]
        found = (part.span() for part in finditer("1+", bits))
        # mutant: IM37
        return [range(entry.first + start, entry.first + end) for start, end in found]

    def restore(self) -> None:
        """Begin with what was put into `rows`, `ready_bits` and `each`.  Raises `InvalidEntry`."""
        rows = self.rows
        if len(set(map(len, rows.values()))) != 1:
            raise InvalidEntry("the columns of entries are not of one length")
        before = LiveEntry(0, 0, 0, 0, 0, 0, 0, 0, None)
        partial = 0
        for entry in self:
            if entry.first < before.first + before.count or entry.index <= before.index:
                raise InvalidEntry(
                    f"the entry of message {entry.first} is not behind the one before"
                )
            if not entry.ready <= entry.live <= entry.count:
                raise InvalidEntry(
                    f"{entry.ready} of {entry.live} of {entry.count} messages are ready"
                )
            if 0 < entry.ready < entry.count:
                self._check_bits(entry)
                partial += 1
            if entry.each is not None and {*map(len, entry.each)} - {0, entry.count}:
                raise InvalidEntry(f"the entry of message {entry.first} has more columns, or fewer")
            before = entry
        if partial != len(self.ready_bits) or not all(rows["live"]):
            raise InvalidEntry("entries are dead, or bits are those of none")
        if sum(entry.each is not None for entry in self) != len(self.each):
            raise InvalidEntry("priorities or expiries are those of no entry")
        self.ready_count = sum(rows["ready"])
        self.content_bytes = sum(map(mul, rows["means"], rows["live"]))

    def _check_bits(self, entry: LiveEntry) -> None:
        bits = self.ready_bits.get(entry.first, 0)
        if bits.bit_count() != entry.ready or bits.bit_length() > entry.count:
            raise InvalidEntry(f"of the entry of message {entry.first} other messages are ready")


def cut(runs: Iterable[range], first: int, stop: int) -> list[range]:
    """Parts of ascending runs that lie from `first` up to, not including, `stop`."""
    inside = (range(max(run.start, first), min(run.stop, stop)) for run in runs)
    return [run for run in inside if run]


def _end_of_run(rising: array[int], start: int) -> int:
    """Behind the last of the numbers from the one at `start` on that follow on each other.

    A run of a million is found in twenty steps: up to where it surely ends, and back.
    """
    reach = 1
    while start + reach < len(rising) and rising[start + reach] == rising[start] + reach:
        reach *= 2
    low, high = start + reach // 2, min(start + reach, len(rising))
    return bisect_right(range(high), 0, low, high, key=lambda at: _gaps(rising, start, at))


def _gaps(rising: array[int], start: int, at: int) -> int:
    """How many numbers are missing between two places."""
    return rising[at] - rising[start] - (at - start)


def content_bytes_of(entries: LiveEntries, run: range) -> int:
    """About how many bytes live messages have, each as many as its entry has on the average."""
    return sum(
        entry.mean_bytes * len(common(run, range(entry.first, entry.first + entry.count)))
        for entry in entries.between(run[0], run[-1] + 1)
    )


def runs_at(entry: LiveEntry, runs: list[range], level: int) -> list[range]:
    """Parts of `runs`, all of one entry, whose messages have this priority."""
    own = entry.each.priorities if entry.each is not None else b""
    if not own:
        return runs if entry.priority == level else []
    found: list[range] = []
    wanted = bytes((level,))
    for run in runs:
        at, stop = run.start - entry.first, run.stop - entry.first
        while (start := own.find(wanted, at, stop)) >= 0:
            at = start + 1
            while at < stop and own[at] == level:
                at += 1
            found.append(range(entry.first + start, entry.first + at))
    return found
