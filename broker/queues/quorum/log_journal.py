"""Journal of a leader's engine: contents that are in entries of the log.

The leader writes down itself what it has its engine do, so the engine's journal hears of new
messages, and for the rest only reads.  What it says is durable is what is applied here.

A leader begins with the ready messages of the image, in pieces that its engine reads one after the
other.  No message is read for that.  It costs per piece where all messages have one priority, and
once per entry of the log where they do not, however many priorities there are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

from fluffle.broker.base.message import Origin
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery_counts import DeliveryCountIndex
from fluffle.broker.queues.expiry_times import NEVER_MS, NO_SPAN, Deadlines, Expiries, alike
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    JournalByPriority,
    LoadedMessages,
    RecoveredContent,
    Stored,
    UnreadableMessages,
)
from fluffle.broker.queues.quorum.entries import LiveEntries, LiveEntry, Rows, cut, runs_at
from fluffle.broker.queues.quorum.entry_codec import EntryMessages as Read
from fluffle.broker.queues.quorum.entry_codec import pick_messages, read_messages
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.leader_services import EntrySource
from fluffle.broker.queues.quorum.proposals import EntryBuilder, PendingPurge
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.broker.queues.ready_list import SEGMENT_BYTES_MAX, SEGMENT_MESSAGES_MAX
from fluffle.broker.queues.requeue import UNLIMITED_BYTES


class ReadableLog:
    """The entries of a log, whose host hears of those that cannot be read."""

    __slots__ = ("_source",)

    def __init__(self, source: EntrySource) -> None:
        self._source = source

    def entry(self, index: int) -> bytes:
        """The entry at an index.  Raises `UnreadableMessages`."""
        try:
            return self._source.read_entry(index)
        except UnreadableMessages:
            self._source.damaged(index)
            raise

    def parsed(self, index: int, entry: bytes, parse: Callable[[bytes], Read]) -> Read:
        """Return the messages of the entry at an index.  Raises `UnreadableMessages`."""
        try:
            return parse(entry)
        except InvalidEntry as error:
            self._source.damaged(index)
            raise UnreadableMessages(Damage(f"entry {index}", str(error))) from error


class AppliedProgress:
    """How far the disk is, for the engine: in entries of this leadership."""

    __slots__ = ("durable", "ticket")

    def __init__(self) -> None:
        self.ticket = 1
        """Ticket of the entry that is being built."""
        self.durable = 0
        """Ticket of the last applied entry."""


class LogJournal:
    """A `Journal`.  Whatever is on disk only is in the image, too, and ready or requeued there."""

    __slots__ = (
        "_builder",
        "_stored",
        "commits",
        "delivery_counts",
        "gone",
        "groups",
        "log",
        "state",
    )  # fmt: skip

    def __init__(
        self,
        state: QueueState,
        builder: EntryBuilder,
        source: EntrySource,
        stored: Callable[[LiveEntries], list[Stored]],
    ) -> None:
        """Make the journal; `stored` gives the stored segments to a leader that begins with the
        image."""
        self.groups: tuple[int, ...] = ()
        self.commits = AppliedProgress()
        self.gone: PendingPurge | None = None
        """Hears what the engine says is done with, while a reader wants to know."""
        self.state = state
        """The image: of what is under way nothing can be read."""
        self.delivery_counts = DeliveryCountIndex(state.delivery_counts.runs)  # mutant: CA5
        """Counts that ready messages brought along, proposed ones included."""
        self.log = ReadableLog(source)
        self._stored = stored
        self._builder = builder

    def recover(self) -> RecoveredContent:
        """Ready messages, unread and in pieces; and requeued ones."""
        state = self.state
        recovery = RecoveredContent(next_sequence=state.next_sequence)
        recovery.stored += self._stored(state.entries)
        for run, counts in state.requeued:
            recovery.requeued.append((run, counts, self.expiries_of(run)))  # mutant: LE8
        return recovery

    def expiries_of(self, run: range) -> Expiries | None:
        """When messages that are in the image expire; None if none ever does."""
        return self.state.entries.expiries_of(run)

    def ready_within(self, first: int, stop: int) -> Iterator[range]:
        """The messages of a stretch that the image has as ready: found as they are asked for, while
        nothing is applied."""
        for entry in self.state.entries.between(first, stop):
            yield from self._ready_of(entry, first, stop)

    # What the engine writes

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
            counts=self.delivery_counts.coming,
        )  # fmt: skip

    def settled(self, sequences: Sequence[int]) -> None:
        if self.gone is not None:
            self.gone.add(runs_of(sequences))

    def unsettled(self, sequences: Sequence[int]) -> None:
        raise AssertionError("what was handed over cannot be given back")

    def evicted(self, first: int, stop: int) -> None:
        """Do nothing: the log has the messages."""

    def discarded(self, first: int, stop: int) -> None:
        """Count proposed messages as discarded, too: they cannot have been read."""
        if self.gone is not None:
            self.gone.add_ready(first, stop)

    def forget_unreadable(self) -> None:
        """Do nothing: all settlements in the image are readable."""

    def drop(self) -> None:
        """Do nothing: the whole group is deleted, with all messages."""

    @property
    def by_level(self) -> JournalByPriority:
        return PriorityLogJournal(self, self.state.entries, self._builder)

    # What the engine reads

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        loaded: list[LoadedMessages] = []
        for entry in self.state.entries.between(first, stop):
            try:
                read = self.log.parsed(entry.index, self.log.entry(entry.index), read_messages)
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

    def _ready_of(self, entry: LiveEntry, first: int, stop: int) -> list[range]:
        """Ready messages of an entry from `first` up to `stop`."""
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
        """Index of the entry of each message, with all of `sequences` that are in it."""
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
            self._entry, self._index = self._contents.log.entry(index), index
        return self._contents.log.parsed(index, self._entry, partial(pick_messages, wanted=wanted))

    def forget(self) -> None:
        """Nothing more is asked for soon."""
        self._entry, self._index = b"", 0


class PriorityLogJournal:
    """The `JournalByPriority` of a quorum queue's leader, once messages have several priorities.

    An entry of the log holds messages of all priorities.  What the image says of each keeps them
    apart: so a leader that begins reads no message, and a reader of one priority looks
    at no others that came with them.
    """

    __slots__ = ("_builder", "_contents", "_entries")

    def __init__(self, contents: LogJournal, entries: LiveEntries, builder: EntryBuilder) -> None:
        self._contents = contents
        self._entries = entries
        self._builder = builder

    @property
    def levels(self) -> Sequence[int]:
        """Priorities of ready messages, and perhaps some without any left."""
        found = {*self._entries.live_rows()["priorities"]}
        for each in self._entries.each.values():
            found |= {*each.priorities}  # mutant: P2
        return sorted(found)

    def recover_all(self) -> dict[int, RecoveredContent]:
        pieces = stored_by_level(self._entries)
        return {level: RecoveredContent(of_level) for level, of_level in pieces.items()}

    def at(self, level: int) -> Journal:
        return LevelLogJournal(self._contents, self._entries, self._builder, level)


class LevelLogJournal:
    """The part of a `LogJournal` that one ready list has."""

    __slots__ = ("_builder", "_contents", "_entries", "_level", "commits", "groups")

    def __init__(
        self, contents: LogJournal, entries: LiveEntries, builder: EntryBuilder, level: int
    ) -> None:
        self.groups: tuple[int, ...] = ()
        self.commits = contents.commits
        self._contents = contents
        self._entries = entries
        self._builder = builder
        self._level = level

    def recover(self) -> RecoveredContent:
        raise AssertionError("what is ready is recovered for all ready lists together")

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
            counts=self._contents.delivery_counts.coming,
        )

    def settled(self, sequences: Sequence[int]) -> None:
        self._contents.settled(sequences)

    def unsettled(self, sequences: Sequence[int]) -> None:
        self._contents.unsettled(sequences)

    def evicted(self, first: int, stop: int) -> None:
        """Do nothing: the log has the messages."""

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        """Entries with nothing of this ready list are not read."""
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

    def _picked(self, entry: LiveEntry, wanted: array[int]) -> LoadedMessages:
        """These messages of an entry.  Raises `UnreadableMessages`."""
        pick = partial(pick_messages, wanted=wanted)
        log = self._contents.log
        read = log.parsed(entry.index, log.entry(entry.index), pick)
        return LoadedMessages(wanted, read.origins, read.contents, expiries_of(entry, wanted))

    def discarded(self, first: int, stop: int) -> None:
        if (gone := self._contents.gone) is not None:
            gone.add_ready(first, stop, self._level)

    def forget_unreadable(self) -> None:
        """Do nothing: all settlements in the image are readable."""

    def drop(self) -> None:
        """Do nothing: the whole group is deleted, with all messages."""

    @property
    def by_level(self) -> JournalByPriority:
        return self._contents.by_level


def expiries_of(entry: LiveEntry, wanted: Sequence[int]) -> Expiries | None:
    """When some of its messages expire; None if none of it ever does."""
    own = entry.each.expiries if entry.each is not None else None
    if own:
        return array("Q", [own[number - entry.first] or NEVER_MS for number in wanted])
    return alike(entry.expires_at_ms, len(wanted)) if entry.expires_at_ms else None


def stored_ranges(entries: LiveEntries) -> list[Stored]:
    """All of it in order."""
    return _stored(entries, entries.span_of if entries.has_expiries else _no_span)


def undated_ranges(entries: LiveEntries) -> list[Stored]:
    """Ranges like those above, without expiries: finding them would mean looking at each
    message."""
    return _stored(entries, _any_span)


def _no_span(_start: int, _stop: int) -> tuple[int, int]:
    return NO_SPAN


def _any_span(_start: int, _stop: int) -> tuple[int, int]:
    return 0, NEVER_MS


def _stored(entries: LiveEntries, span_of: Callable[[int, int], tuple[int, int]]) -> list[Stored]:
    rows = entries.live_rows()
    firsts, counts, ready = rows["firsts"], rows["counts"], rows["ready"]
    pieces = []
    for stretch in stretches(rows):
        at, stop = stretch.start, stretch.stop
        if count := sum(ready[at:stop]):
            behind = firsts[stop - 1] + counts[stop - 1]
            size_bytes = means_of(rows["means"], ready, at, stop)
            pieces.append(Stored(firsts[at], behind, count, size_bytes, *span_of(at, stop)))
    return pieces


def earliest_ms(entries: LiveEntries, first: int, stop: int) -> int:
    """No message from `first` up to, not including, `stop` expires before."""
    firsts = entries.rows["firsts"]
    start = max(bisect_right(firsts, first) - 1, 0)
    end = bisect_left(firsts, stop, lo=start)
    return entries.span_of(start, end)[0] if start < end else NEVER_MS


def stored_by_level(entries: LiveEntries) -> dict[int, list[Stored]]:
    """The same apart by priority: pieces of several priorities may lie within each other."""
    rows, is_timed = entries.live_rows(), entries.has_expiries
    pieces: dict[int, list[Stored]] = {}
    for stretch in stretches(rows):
        span = entries.span_of(stretch.start, stretch.stop) if is_timed else NO_SPAN
        for level, piece in in_stretch(entries, rows, stretch, span).items():
            pieces.setdefault(level, []).append(piece)
    return pieces


def in_stretch(
    entries: LiveEntries, rows: Rows, stretch: range, span: tuple[int, int]
) -> dict[int, Stored]:
    """A piece for each priority."""
    pieces: dict[int, Stored] = {}
    part = slice(stretch.start, stretch.stop)
    columns = (rows[name][part] for name in ("firsts", "counts", "means"))
    alike = zip(rows["priorities"][part], rows["ready"][part], strict=True)
    for first, count, mean, one in zip(*columns, alike, strict=True):
        is_mixed = first in entries.each
        for level, ready in ready_counts_of(entries, first) if is_mixed else (one,):
            if not ready:
                continue
            piece = pieces.get(level)
            if piece is None:
                pieces[level] = Stored(first, first + count, ready, ready * mean, *span)
            else:
                piece.stop = first + count
                piece.count += ready
                piece.content_bytes += ready * mean
    return pieces


def ready_counts_of(entries: LiveEntries, first: int) -> list[tuple[int, int]]:
    """How many messages of the entry that begins with that one are ready, by priority."""
    [entry] = entries.between(first, first + 1)
    own = entry.each.priorities if entry.each is not None else b""
    if not own:
        return [(entry.priority, entry.ready)]
    if entry.ready < entry.count:
        runs = entries.ready_of(entry)
        own = b"".join(own[run.start - first : run.stop - first] for run in runs)
    return [(level, own.count(level)) for level in {*own}]


def stretches(rows: Rows) -> Iterator[range]:
    """Ranges of live entries, each small enough for one segment of a ready list."""
    firsts, ready, means = rows["firsts"], rows["ready"], rows["means"]
    at = 0
    while at < len(firsts):
        stop = bisect_left(firsts, firsts[at] + SEGMENT_MESSAGES_MAX, lo=at + 1)
        while stop - at > 1 and means_of(means, ready, at, stop) > SEGMENT_BYTES_MAX:
            stop = (at + stop) // 2
        yield range(at, stop)
        at = stop


def means_of(means: Sequence[int], ready: Sequence[int], start: int, stop: int) -> int:
    """About how many bytes the ready messages of some entries have."""
    return sum(
        mean * count for mean, count in zip(means[start:stop], ready[start:stop], strict=True)
    )


class ImageDueTimes:
    """A `DueTimes`: of messages that were there when a leader began."""

    __slots__ = ("_contents", "expiries_of", "ready_within")

    def __init__(self, contents: LogJournal) -> None:
        self._contents = contents
        self.ready_within = contents.ready_within
        self.expiries_of = contents.expiries_of

    def earliest_ms(self, first: int, stop: int) -> int:
        return earliest_ms(self._contents.state.entries, first, stop)


def stored_of(spec: QueueSpec) -> Callable[[LiveEntries], list[Stored]]:
    """Function that gives the stored segments to a leader that begins with the image."""
    return undated_ranges if is_delayed_queue(spec.name) else stored_ranges
