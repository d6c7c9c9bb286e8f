"""Facts of a purge, proposed in pieces: no client waits longer because millions of messages are
dropped.

    purge --> all is gone for the engine --> a piece an entry, an entry a turn --> the answer

The answer, and all that is decided after the purge, is behind the last piece in the log.  So a
leader that ends before has answered nobody: its successor finds the rest ready, and is asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from operator import attrgetter

from fluffle.broker.queues.quorum.entries import Entry, cut
from fluffle.broker.queues.quorum.message_reader import LogJournal
from fluffle.broker.queues.quorum.priority_contents import runs_at

PIECE_RUNS = 512
"""So many runs are said together, of as many entries of the log at most: some milliseconds."""

NOTHING = range(0)

_start = attrgetter("start")


class Purge:
    """Purge in progress; a `ProposalListener` meanwhile."""

    __slots__ = ("_contents", "_left", "_runs", "_stretches")

    def __init__(self, contents: LogJournal) -> None:
        self._contents = contents
        self._runs: deque[range] = deque()
        """What is known of one by one."""
        self._stretches: dict[int | None, deque[range]] = {}
        """Numbers by priority, rising, of which all goes that is ready by the image when it is
        their turn.  That is nothing else then: the engine has let go of it.  None: whatever the
        priority is."""
        self._left = NOTHING
        """Around all of these."""

    def add(self, runs: list[range]) -> None:
        self._runs += runs

    def add_ready(self, first: int, stop: int, level: int | None = None) -> None:
        self._stretches.setdefault(level, deque()).append(range(first, stop))
        left = self._left or range(first, stop)
        self._left = range(min(first, left.start), max(stop, left.stop))

    def __bool__(self) -> bool:
        """Whether there may be more."""
        return bool(self._runs or self._left)

    def next(self) -> list[range]:
        """The next of the messages, each once; there may be none though there are more behind."""
        piece = [self._runs.popleft() for _ in range(min(len(self._runs), PIECE_RUNS))]
        if self._left and len(piece) < PIECE_RUNS:
            piece += joined(self._ready(PIECE_RUNS - len(piece)))
        return piece

    def _ready(self, most: int) -> Iterator[range]:
        """So many runs at most, and what is under way at the end."""
        for entry in self._contents.state.entries.between(self._left.start, self._left.stop):
            found = self._of(entry)
            taken = found[:most]
            most -= max(len(taken), 1)
            at = taken[-1].stop if len(taken) < len(found) else entry.first + entry.count
            self._left = range(at, self._left.stop)
            yield from taken
            if most <= 0:
                return
        self._left = NOTHING
        for stretch in self._stretches.get(None, ()):
            unapplied = range(max(stretch.start, self._contents.state.next_sequence), stretch.stop)
            if unapplied:
                yield unapplied

    def _of(self, entry: Entry) -> list[range]:
        """What is left of an entry."""
        inside = range(max(entry.first, self._left.start), entry.first + entry.count)
        ready = cut(self._contents.state.entries.ready_of(entry), inside.start, inside.stop)
        levels = (None,) if None in self._stretches else entry.levels
        if all(self._has_all(level, inside) for level in levels):
            return ready
        found: list[range] = []
        for level in levels:
            stretches = self._stretches.get(level, ())
            runs = [run for each in stretches for run in cut(ready, each.start, each.stop)]
            found += runs if level is None else runs_at(entry, runs, level)
        return joined(sorted(found, key=_start))

    def _has_all(self, level: int | None, inside: range) -> bool:
        """Whether one stretch of a priority has all of these numbers, behind which nobody looks
        any more."""
        stretches = self._stretches.get(level)
        while stretches and stretches[0].stop <= inside.start:
            stretches.popleft()
        if not stretches:
            return False
        return stretches[0].start <= inside.start and inside.stop <= stretches[0].stop


def joined(runs: Iterable[range]) -> list[range]:
    """Runs that rise, those that follow on each other as one."""
    whole: list[range] = []
    for run in runs:
        if whole and whole[-1].stop == run.start:
            whole[-1] = range(whole[-1].start, run.stop)
        else:
            whole.append(run)
    return whole
