"""The journal of a leader's engine: contents that are in entries of the log.

The leader writes down itself what it has its engine do, so the engine's journal hears of new
messages, and for the rest only reads.  What it says is durable is what is applied here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import Deadlines, Expiries
from fluffle.broker.queues.inherited_counts import InheritedCounts
from fluffle.broker.queues.journal import (
    Damage,
    JournalByPriority,
    LoadedMessages,
    Recovery,
    Stored,
    UnreadableMessages,
)
from fluffle.broker.queues.quorum.encoding import pick_messages, read_messages
from fluffle.broker.queues.quorum.entries import Entries, Entry, cut
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.messages import Stored as Read
from fluffle.broker.queues.quorum.priority_contents import PriorityLogJournal
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import State
from fluffle.broker.queues.requeue import UNLIMITED_BYTES

ReadEntry: TypeAlias = Callable[[int], bytes]
"""The payload of the entry at an index, which is durable here.  Raises `UnreadableMessages`."""


class ProposalListener(Protocol):
    """Listener that hears when messages are finally settled."""

    def add(self, runs: list[range]) -> None: ...

    def add_ready(self, first: int, stop: int, level: int | None = None) -> None:
        """All that is ready from one number up to another: what has one priority, or everything,
        also what is only ready once it is applied."""


class AppliedProgress:
    """How far the disk is, for the engine: in entries of this leadership."""

    __slots__ = ("durable", "ticket")

    def __init__(self) -> None:
        self.ticket = 1
        """Of the entry that is being drafted."""
        self.durable = 0
        """Of the last one that is applied."""


class LogJournal:
    """A `Journal`.  Whatever is on disk only is in the image, too, and ready or returned there."""

    __slots__ = (
        "_builder", "_stored", "carried", "commits", "entry", "gone", "groups", "parsed", "state",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        builder: EntryBuilder,
        read_entry: ReadEntry,
        damaged: Callable[[int], None],
        stored: Callable[[Entries], list[Stored]],
    ) -> None:
        """`damaged` is told the index of an entry that cannot be read; `stored` says how whoever
        begins with what is in the image gets to know it."""
        self.groups: tuple[int, ...] = ()
        self.commits = AppliedProgress()
        self.gone: ProposalListener | None = None
        """Hears what the engine says is done with, while somebody wants to know."""
        self.state = state
        """The image: of what is under way nothing can be read."""
        self.carried = InheritedCounts(state.carried.runs)  # mutant: CA5
        """What ready messages have brought along, those under way included."""
        self.entry: Callable[[int], bytes] = partial(_entry, read_entry, damaged)
        """The entry at an index.  Raises `UnreadableMessages`."""
        self.parsed: Callable[[int, bytes, Callable[[bytes], Read]], Read]
        """Return the messages of the entry at an index.  Raises `UnreadableMessages`."""
        self.parsed = partial(_parsed, damaged)
        self._stored = stored
        self._builder = builder

    def recover(self) -> Recovery:
        """All that is ready, read by nobody yet, in pieces; and what has come back."""
        state = self.state
        recovery = Recovery(next_sequence=state.next_sequence)
        recovery.stored += self._stored(state.entries)
        for run, counts in state.returned:
            recovery.returned.append((run, counts, self.expiries_of(run)))  # mutant: LE8
        return recovery

    def expiries_of(self, run: range) -> Expiries | None:
        """When messages that are in the image expire; None if none ever does."""
        return self.state.entries.expiries_of(run)

    def ready_within(self, first: int, stop: int) -> Iterator[range]:
        """The messages of a stretch that the image has as ready: found as they are asked for, while
        nothing is applied."""
        for entry in self.state.entries.between(first, stop):
            yield from self._ready_of(entry, first, stop)

    # What the engine tells

    def enqueued(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        apart: bool,
        expires_at_ms: Deadlines = 0,
    ) -> None:
        self._builder.add_messages(
            origins, contents, content_bytes, first_sequence, expires_at_ms=expires_at_ms,
            counts=self.carried.coming,
        )  # fmt: skip

    def settled(self, sequences: Sequence[int]) -> None:
        if self.gone is not None:
            self.gone.add(runs_of(sequences))

    def unsettled(self, sequences: Sequence[int]) -> None:
        raise AssertionError("what was handed over cannot be given back")

    def evicted(self, first: int, stop: int) -> None:
        """The log has it."""

    def discarded(self, first: int, stop: int) -> None:
        """What is under way is done with, too: nobody can have looked at it."""
        if self.gone is not None:
            self.gone.add_ready(first, stop)

    def forget_unreadable(self) -> None:
        """What is in the image has been read."""

    def drop(self) -> None:
        """The group goes, not the engine's messages one by one."""

    @property
    def by_level(self) -> JournalByPriority:
        return PriorityLogJournal(self, self.state.entries, self._builder)

    # What the engine reads

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        loaded: list[LoadedMessages] = []
        for entry in self.state.entries.between(first, stop):
            try:
                read = self.parsed(entry.index, self.entry(entry.index), read_messages)
            except UnreadableMessages:
                if loaded:
                    return loaded
                raise
            for run in self._ready_of(entry, first, stop):
                start = bisect_left(read.sequences, run.start)
                end = start + len(run)
                loaded.append(
                    LoadedMessages(
                        run,
                        read.origins[start:end],
                        read.contents[start:end],
                        self.expiries_of(run),
                    )
                )
        return loaded

    peek = load

    def _ready_of(self, entry: Entry, first: int, stop: int) -> list[range]:
        """Those of an entry that are ready, within bounds."""
        return cut(self.state.entries.ready_of(entry), first, stop)  # mutant: LE6

    def fetch(
        self, sequences: Sequence[int], bytes_max: int = UNLIMITED_BYTES
    ) -> tuple[list[Origin], list[bytes]]:
        """Any live messages, as `Fetch` says; those of one entry are read at once."""
        return EntryReader(self).fetch(sequences, bytes_max)


class EntryReader:
    """Fetches messages, and keeps the last entry that it has read: what is asked for next was
    mostly written with it."""

    __slots__ = ("_contents", "_entry", "_index")

    def __init__(self, contents: LogJournal) -> None:
        self._contents = contents
        self._entry, self._index = b"", 0

    def fetch(
        self, sequences: Iterable[int], bytes_max: int = UNLIMITED_BYTES
    ) -> tuple[list[Origin], list[bytes]]:
        """Live messages in this order, as `Fetch` says: those of one entry are read with the first
        of them.  Raises `UnreadableMessages`."""
        together = self._by_entry(sequences)
        found: dict[int, tuple[Origin, bytes]] = {}
        origins: list[Origin] = []
        contents: list[bytes] = []
        for sequence, (index, wanted) in together.items():
            if bytes_max <= 0:
                break
            if sequence not in found:
                read = self._picked(index, wanted)
                found |= zip(wanted, zip(read.origins, read.contents, strict=True), strict=True)
            origin, content = found[sequence]  # mutant: LE7
            origins.append(origin)
            contents.append(content)
            bytes_max -= len(content)
        return origins, contents

    def _by_entry(self, sequences: Iterable[int]) -> dict[int, tuple[int, list[int]]]:
        """Of each message the index of its entry, and all of these messages that are in it."""
        found: dict[int, tuple[int, list[int]]] = {}
        entries: dict[int, list[int]] = {}
        index = first = stop = 0
        for sequence in sequences:
            if not first <= sequence < stop:
                index, first, stop = self._contents.state.entries.extent_of(sequence)
            together = entries.setdefault(index, [])
            together.append(sequence)
            found[sequence] = index, together
        return found

    def _picked(self, index: int, wanted: list[int]) -> Read:
        if index != self._index:
            self._entry, self._index = self._contents.entry(index), index
        return self._contents.parsed(index, self._entry, partial(pick_messages, wanted=wanted))

    def forget(self) -> None:
        """Nothing more is asked for soon."""
        self._entry, self._index = b"", 0


def _entry(read_entry: ReadEntry, damaged: Callable[[int], None], index: int) -> bytes:
    try:
        return read_entry(index)
    except UnreadableMessages:
        damaged(index)
        raise


def _parsed(
    damaged: Callable[[int], None], index: int, entry: bytes, parse: Callable[[bytes], Read]
) -> Read:
    try:
        return parse(entry)
    except InvalidEntry as error:
        damaged(index)
        raise UnreadableMessages(Damage(f"entry {index}", str(error))) from error
