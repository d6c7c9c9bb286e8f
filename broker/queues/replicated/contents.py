"""The journal of a leader's engine: contents that are in entries of the log.

The leader writes down itself what it has its engine do, so the engine's journal hears of new
messages, and for the rest only reads.  What it says is durable is what is applied here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from fluffle.broker.message import Origin
from fluffle.broker.queues.journal import Damage, Loaded, Recovery, Stored, Unreadable
from fluffle.broker.queues.lane import SEGMENT_BYTES_MAX, SEGMENT_MESSAGES_MAX
from fluffle.broker.queues.replicated.draft import Draft
from fluffle.broker.queues.replicated.encoding import read_messages
from fluffle.broker.queues.replicated.entries import Entry
from fluffle.broker.queues.replicated.errors import Unfit
from fluffle.broker.queues.replicated.messages import Stored as Read
from fluffle.broker.queues.replicated.runs import runs_of
from fluffle.broker.queues.replicated.state import State

ReadEntry: TypeAlias = Callable[[int], bytes]
"""The payload of the entry at an index, which is durable here.  Raises `Unreadable`."""


class Applied:
    """How far the disk is, for the engine: in entries of this leadership."""

    __slots__ = ("durable", "ticket")

    def __init__(self) -> None:
        self.ticket = 1
        """Of the entry that is being drafted."""
        self.durable = 0
        """Of the last one that is applied."""


class Contents:
    """A `Journal`.  Whatever is on disk only is in the image, too, and ready or returned there."""

    __slots__ = ("_damaged", "_draft", "_read_entry", "_state", "commits", "gone", "groups")

    def __init__(
        self, state: State, draft: Draft, read_entry: ReadEntry, damaged: Callable[[int], None]
    ) -> None:
        """`damaged` is told the index of an entry that cannot be read."""
        self.groups: tuple[int, ...] = ()
        self.commits = Applied()
        self.gone: list[range] | None = None
        """What the engine says is done with, while somebody wants to know."""
        self._state = state
        self._draft = draft
        self._read_entry = read_entry
        self._damaged = damaged

    def recover(self) -> Recovery:
        """All that is ready, read by nobody yet, in pieces; and what has come back."""
        state = self._state
        recovery = Recovery(next_sequence=state.next_sequence)
        recovery.stored += self._stored()
        recovery.returned += state.returned
        return recovery

    def _stored(self) -> Iterator[Stored]:
        """Costs per segment, not per entry."""
        rows = self._state.entries.live_rows()
        firsts, counts, ready, means = (
            rows[name] for name in ("firsts", "counts", "ready", "means")
        )
        at = 0
        while at < len(firsts):
            stop = bisect_left(firsts, firsts[at] + SEGMENT_MESSAGES_MAX, lo=at + 1)
            while stop - at > 1 and means_of(means, ready, at, stop) > SEGMENT_BYTES_MAX:
                stop = (at + stop) // 2
            if count := sum(ready[at:stop]):
                size_bytes = means_of(means, ready, at, stop)
                behind = firsts[stop - 1] + counts[stop - 1]
                yield Stored(firsts[at], behind, count, size_bytes)
            at = stop

    # What the engine tells

    def enqueued(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        apart: bool,
    ) -> None:
        self._draft.add_messages(origins, contents, content_bytes, first_sequence)

    def settled(self, sequences: Sequence[int]) -> None:
        if self.gone is not None:
            self.gone += runs_of(sequences)

    def unsettled(self, sequences: Sequence[int]) -> None:
        raise AssertionError("what was handed over cannot be given back")

    def evicted(self, first: int, stop: int) -> None:
        """The log has it."""

    def discarded(self, first: int, stop: int) -> None:
        for entry in self._state.entries.between(first, stop):
            self.gone = [*(self.gone or ()), *self._ready_of(entry, first, stop)]

    def forget_unreadable(self) -> None:
        """What is in the image has been read."""

    def drop(self) -> None:
        """The group goes, not the engine's messages one by one."""

    # What the engine reads

    def load(self, first: int, stop: int) -> list[Loaded]:
        loaded: list[Loaded] = []
        for entry in self._state.entries.between(first, stop):
            try:
                read = self._read(entry.index)
            except Unreadable:
                if loaded:
                    return loaded
                raise
            for run in self._ready_of(entry, first, stop):
                start = bisect_left(read.sequences, run.start)
                end = start + len(run)
                loaded.append(Loaded(run.start, read.origins[start:end], read.contents[start:end]))
        return loaded

    def _ready_of(self, entry: Entry, first: int, stop: int) -> list[range]:
        """Those of an entry that are ready, within bounds."""
        runs = self._state.entries.ready_of(entry)
        cut = (range(max(run.start, first), min(run.stop, stop)) for run in runs)
        return [run for run in cut if run]

    def fetch(self, sequences: Sequence[int]) -> tuple[list[Origin], list[bytes]]:
        """Any live messages; those of one entry are read at once.  Raises `Unreadable`."""
        origins: list[Origin] = []
        contents: list[bytes] = []
        read, index = Read((), [], []), 0
        for sequence in sequences:
            wanted = self._state.entries.index_of(sequence)
            if wanted != index:
                read, index = self._read(wanted), wanted
            at = bisect_left(read.sequences, sequence)
            origins.append(read.origins[at])
            contents.append(read.contents[at])
        return origins, contents

    def _read(self, index: int) -> Read:
        try:
            return read_messages(self._read_entry(index))
        except Unreadable:
            self._damaged(index)
            raise
        except Unfit as error:
            self._damaged(index)
            raise Unreadable(Damage(f"entry {index}", str(error))) from error


def means_of(means: Sequence[int], ready: Sequence[int], start: int, stop: int) -> int:
    """About how many bytes the ready messages of some entries have."""
    return sum(
        mean * count for mean, count in zip(means[start:stop], ready[start:stop], strict=True)
    )
