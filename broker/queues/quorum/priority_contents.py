"""The contents of a leader's queue by priority, once messages do not all have the same.

An entry of the log holds messages of all priorities.  What the image says of each tells them apart:
so a leader that begins reads no message, and whoever reads those of one priority looks at no others
that came with them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import Deadlines, Expiries, alike
from fluffle.broker.queues.journal import (
    DiskProgress,
    Journal,
    JournalByPriority,
    LoadedMessages,
    Recovery,
    UnreadableMessages,
)
from fluffle.broker.queues.quorum.encoding import pick_messages
from fluffle.broker.queues.quorum.entries import Entries, Entry, cut
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.ready_ranges import stored_by_level
from fluffle.broker.queues.timer_port import NEVER_MS

if TYPE_CHECKING:
    from fluffle.broker.queues.quorum.message_reader import LogJournal


def runs_at(entry: Entry, runs: list[range], level: int) -> list[range]:
    """What of some consecutive messages of an entry has a priority."""
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


def expiries_of(entry: Entry, wanted: Sequence[int]) -> Expiries | None:
    """When some of its messages expire; None if none of it ever does."""
    own = entry.each.expiries if entry.each is not None else None
    if own:
        return array("Q", [own[number - entry.first] or NEVER_MS for number in wanted])
    return alike(entry.expires_at_ms, len(wanted)) if entry.expires_at_ms else None


class PriorityLogJournal:
    """The `JournalByPriority` of a quorum queue's leader."""

    __slots__ = ("_builder", "_contents", "_entries")

    def __init__(self, contents: LogJournal, entries: Entries, builder: EntryBuilder) -> None:
        self._contents = contents
        self._entries = entries
        self._builder = builder

    @property
    def levels(self) -> Sequence[int]:
        """Those of ready messages, and perhaps some of which there is none any more."""
        found = {*self._entries.live_rows()["priorities"]}
        for each in self._entries.each.values():
            found |= {*each.priorities}  # mutant: P2
        return sorted(found)

    def recover_all(self) -> dict[int, Recovery]:
        pieces = stored_by_level(self._entries)
        return {level: Recovery(of_level) for level, of_level in pieces.items()}

    def at(self, level: int) -> Journal:
        return LevelLogJournal(self._contents, self._entries, self._builder, level)


class LevelLogJournal:
    """The part of a `LogJournal` that one lane has."""

    __slots__ = ("_builder", "_contents", "_entries", "_level", "groups")

    def __init__(
        self, contents: LogJournal, entries: Entries, builder: EntryBuilder, level: int
    ) -> None:
        self.groups: tuple[int, ...] = ()
        self._contents = contents
        self._entries = entries
        self._builder = builder
        self._level = level

    @property
    def commits(self) -> DiskProgress:
        return self._contents.commits

    def recover(self) -> Recovery:
        raise AssertionError("what is ready is recovered for all lanes together")

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
            origins,
            contents,
            content_bytes,
            first_sequence,
            expires_at_ms=expires_at_ms,
            priority=self._level,
            counts=self._contents.carried.coming,
        )

    def settled(self, sequences: Sequence[int]) -> None:
        self._contents.settled(sequences)

    def unsettled(self, sequences: Sequence[int]) -> None:
        self._contents.unsettled(sequences)

    def evicted(self, first: int, stop: int) -> None:
        """The log has it."""

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        """Entries with nothing of this lane are not read."""
        loaded: list[LoadedMessages] = []
        for entry in self._entries.between(first, stop):
            runs = runs_at(entry, cut(self._entries.ready_of(entry), first, stop), self._level)
            if not runs:
                continue
            try:
                loaded.append(self._picked(entry, array("Q", chain.from_iterable(runs))))
            except UnreadableMessages:
                if loaded:
                    return loaded
                raise
        return loaded

    peek = load

    def _picked(self, entry: Entry, wanted: array[int]) -> LoadedMessages:
        """These messages of an entry.  Raises `UnreadableMessages`."""
        pick = partial(pick_messages, wanted=wanted)
        read = self._contents.parsed(entry.index, self._contents.entry(entry.index), pick)
        return LoadedMessages(wanted, read.origins, read.contents, expiries_of(entry, wanted))

    def discarded(self, first: int, stop: int) -> None:
        if (gone := self._contents.gone) is not None:
            gone.add_ready(first, stop, self._level)

    def forget_unreadable(self) -> None:
        """What is in the image has been read."""

    def drop(self) -> None:
        """The group goes, not the engine's messages one by one."""

    @property
    def by_level(self) -> JournalByPriority:
        return self._contents.by_level
