"""The journal of a durable queue that lives on this node alone.

Two logs in the store.  In the first an entry is a batch of messages, under the sequence number of
the first of them; it goes when all are settled.  In the second an entry says which messages of a
batch are settled, for batches of which only some are: the newest counts, and replaces the one
before.  Hand-outs are not written, so that after a crash everything may have been seen.

What comes in between two commits is one entry, unless the queue wants it apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from re import finditer
from struct import Struct

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.journals.batch_codec import decode, encode
from fluffle.broker.durability.journals.deduplication_keys import KeyLog, KeyLogs
from fluffle.broker.durability.journals.entries import Entries, PartialEntry
from fluffle.broker.durability.journals.priority_journal import PriorityJournal, PriorityLogs
from fluffle.broker.durability.page_out import LogSpill
from fluffle.broker.queues.expiry_times import NEVER_MS, Deadlines, Expiries, grown, joined, span_of
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    JournalByPriority,
    LoadedMessages,
    PageStore,
    Recovery,
    Stored,
    UnreadableMessages,
    part_of_loaded,
)
from fluffle.broker.queues.ready_list import SEGMENT_BYTES_MAX, SEGMENT_MESSAGES_MAX
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.entry_reader import Entry, EntryHead
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import Log
from fluffle.storage.store import Batch

FIRST = Struct(">Q")
"""What an entry of the second log begins with: whom it is about; then bits, little-endian."""

SEEN = "seen"
"""The kind of the definitions that a node leaves behind when it stops in order."""

NUMBER = Struct(">Q")

COUNT_BITS = 20
"""Of the tag of an entry of messages; the others say when the first of them expires."""
COUNT_MAX = (1 << COUNT_BITS) - 1
EARLIEST_MS_MAX = (1 << 64 - COUNT_BITS) - 1
"""In the year 2527; what expires later does so never, until it is read."""


class UnwrittenBatch:
    """A batch of messages that is not written yet."""

    __slots__ = ("contents", "expiries", "first", "origins", "stop")

    def __init__(self, first: int) -> None:
        self.first = self.stop = first
        self.origins: list[Origin] = []
        self.contents: list[bytes] = []
        self.expiries: Expiries | None = None

    def payload(self) -> bytes:
        return encode(self.origins, self.contents, self.expiries)

    @property
    def tag(self) -> int:
        """Tag of the entry: what is known of it without reading it."""
        count, earliest_ms = len(self.contents), span_of(self.expiries)[0]
        assert count <= COUNT_MAX, f"{count} messages in one entry"
        return count if earliest_ms > EARLIEST_MS_MAX else count | earliest_ms << COUNT_BITS


def of_tag(tag: int) -> tuple[int, int]:
    """Return how many messages there are in an entry, and when the first of them expires."""
    return tag & COUNT_MAX, tag >> COUNT_BITS or NEVER_MS


class LocalJournal:
    """The log of one queue on this node."""

    __slots__ = (
        "_entries",
        "_fresh",
        "_headless",
        "_is_dropped",
        "_key_logs",
        "_level_logs",
        "_log",
        "_next_note",
        "_notes",
        "_recovered",
        "_redelivered_below",
        "_unreadable_notes",
        "commits",
        "groups",
    )

    def __init__(
        self,
        groups: tuple[int, ...],
        log: Log,
        commits: Commits,
        level_logs: PriorityLogs,
        key_logs: KeyLogs,
        *,
        redelivered_below: int,
    ) -> None:
        self.groups = groups
        self._log = log
        self._level_logs = level_logs
        self._key_logs = key_logs
        self.commits = commits
        self._entries = Entries()
        self._fresh: list[UnwrittenBatch] = []
        """What the next commit writes, in order."""
        self._notes: dict[int, int] = {}
        """Where the second log says what is settled of a batch."""
        self._next_note = 1
        self._recovered: dict[int, int] = {}
        """What is settled of batches that have not been read yet."""
        self._unreadable_notes: list[int] = []
        """Where the second log is damaged."""
        self._headless: dict[int, Stored] = {}
        """Batches that are damaged where it says how many messages are in them."""
        self._redelivered_below = redelivered_below
        self._is_dropped = False

    # Coming back

    def recover(self) -> Recovery:
        """Read where everything is, but no message.  Raises `Corrupt`.

        Damage that is known to be this queue's is its own affair.
        """
        messages, notes = self.groups
        recovery = Recovery(next_sequence=self._log.last_index(messages) + 1)
        recovery.damage = self._read_notes(notes)
        settled, last = self._recovered, None
        for first, tag, size_bytes in self._known(messages):
            count, earliest_ms = of_tag(tag)
            if last is not None and last.first in self._headless:
                self._end_headless(last, first)
                last = None
            if not count:
                last = self._headless[first] = Stored(first, first + 1, 1, 0)
                recovery.stored.append(last)
                continue
            live = count - settled[first].bit_count() if first in settled else count
            # Small ones become one, as large as a segment.
            if (
                last is not None
                and last.stop == first
                and last.count + live <= SEGMENT_MESSAGES_MAX
                and last.content_bytes + size_bytes <= SEGMENT_BYTES_MAX
            ):
                last.stop = first + count
                last.count += live
                last.content_bytes += size_bytes
                last.earliest_ms = min(last.earliest_ms, earliest_ms)
            else:
                last = Stored(first, first + count, live, size_bytes, earliest_ms)
                recovery.stored.append(last)
        if last is not None:
            recovery.next_sequence = max(recovery.next_sequence, last.stop)
        recovery.redelivered_below = min(self._redelivered_below, recovery.next_sequence)
        return recovery

    def _known(self, group: int) -> Iterator[EntryHead]:
        """Index, tag and size of every batch; 0 as its tag if its head is damaged."""
        first = 0
        while True:
            try:
                for known in self._log.entries(group, first):
                    first = known[0] + 1
                    yield known
            except CorruptEntry as error:
                yield from self._log.entries(group, first, error.index)
                yield error.index, 0, 0
                first = error.index + 1
            else:
                return

    def _end_headless(self, stored: Stored, stop: int) -> None:
        """Note that the next batch begins at `stop`: so many messages may have been in it."""
        settled = self._recovered.get(stored.first, 0).bit_count()
        stored.stop = stop
        stored.count = max(stop - stored.first - settled, 1)

    def _read_notes(self, group: int) -> Damage | None:
        """Read the notes; return the first damage among them, if there is any."""
        self._next_note = self._log.last_index(group) + 1
        damage, first = None, 0
        while first < INDEX_END:
            start, first = first, INDEX_END
            try:
                notes = self._log.read(group, start, INDEX_END)
            except CorruptEntry as error:
                notes = self._log.read(group, start, error.index)
                self._unreadable_notes.append(error.index)
                damage = damage or Damage(error.where, error.what, is_of_settled=True)
                first = error.index + 1
            for note in notes:
                (batch,) = FIRST.unpack_from(note.payload)
                self._recovered[batch] = int.from_bytes(note.payload[FIRST.size :], "little")
                self._notes[batch] = note.index
        return damage

    # What the queue tells

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
        if self._is_dropped:
            return
        count = len(contents)
        self.commits.waiting_bytes += content_bytes
        if not self._fresh:
            self.commits.enlist(self)
        last = self._fresh[-1] if self._fresh else None
        if last is None or apart or last.stop != first_sequence:
            last = UnwrittenBatch(first_sequence)
            self._fresh.append(last)
            self._entries.add(first_sequence, count)
        else:
            self._entries.extend(count)
        if expires_at_ms or last.expiries is not None:
            last.expiries = grown(last.expiries, len(last.contents), count, expires_at_ms)
        last.origins += origins
        last.contents += contents
        last.stop += count

    def settled(self, sequences: Sequence[int]) -> None:
        if not self._is_dropped and sequences:
            self._entries.settle(sequences)
            self.commits.enlist(self)

    def unsettled(self, sequences: Sequence[int]) -> None:
        if not self._is_dropped:
            self._entries.unsettle(sequences)

    def evicted(self, first: int, stop: int) -> None:
        self._entries.remove(first, stop)

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        entries: list[tuple[int, int]] = []
        partials: list[PartialEntry] = []
        loaded: list[LoadedMessages] = []
        for entry in self._readable(first, stop):
            origins, contents, expiries = decode(entry.payload)
            entries.append((entry.index, len(contents)))
            if settled := self._recovered.get(entry.index, 0):
                partials.append(PartialEntry(entry.index, settled))
            sequences = range(entry.index, entry.index + len(contents))
            loaded += _live(LoadedMessages(sequences, origins, contents, expiries), settled)
        for partial in partials:  # only now: what cannot be decoded will be asked for again
            del self._recovered[partial.first]
        self._entries.insert(entries, partials)
        return _joined(loaded)

    def peek(self, first: int, stop: int) -> list[LoadedMessages]:
        loaded: list[LoadedMessages] = []
        for entry in self._readable(first, stop):
            settled = self._recovered.get(entry.index, 0)
            origins, contents, expiries = decode(entry.payload)
            sequences = range(entry.index, entry.index + len(contents))
            loaded += _live(LoadedMessages(sequences, origins, contents, expiries), settled)
        return loaded

    def _readable(self, first: int, stop: int) -> list[Entry]:
        """Return the entries of a stretch up to the first that is damaged, but one at least."""
        messages = self.groups[0]
        try:
            return self._log.read(messages, first, stop)
        except CorruptEntry as error:
            if error.index > first and (entries := self._log.read(messages, first, error.index)):
                return entries
            raise UnreadableMessages(self._damage(error)) from error
        except Corrupt as error:
            raise UnreadableMessages(Damage(error.where, error.what)) from error

    def _damage(self, error: CorruptEntry) -> Damage:
        """Describe damage; how many messages there were stands beside them, under a checksum of its
        own."""
        first = error.index
        if first in self._headless:
            stored = self._headless[first]
            return Damage(error.where, error.what, first, stored.stop, stored.count)
        try:
            found = next(self._log.entries(self.groups[0], first, first + 1), None)
        except CorruptEntry:  # it was readable when the node started: then the next start helps
            found = None
        count = of_tag(found[1])[0] if found is not None else 0
        settled = self._recovered.get(first, 0).bit_count()
        return Damage(error.where, error.what, first, first + count, count - settled)

    def discarded(self, first: int, stop: int) -> None:
        if not self._is_dropped:
            self.commits.delete(self.groups[0], first, stop)
            entries = [entry for entry in self._notes if first <= entry < stop]
            notes = sorted(map(self._notes.pop, entries))
            for note, behind in _merged({note: note + 1 for note in notes}):
                self.commits.delete(self.groups[1], note, behind)

    def forget_unreadable(self) -> None:
        for note in self._unreadable_notes:
            self.commits.delete(self.groups[1], note, note + 1)
        self._unreadable_notes.clear()

    def drop(self) -> None:
        self._is_dropped = True
        self._fresh.clear()
        self.commits.strike(self)
        for group in self.groups:
            self.commits.delete(group, 0, INDEX_END)
        self._level_logs.drop(self.groups[0])
        self._key_logs.drop(self.groups[0])

    @property
    def by_level(self) -> JournalByPriority:
        return PriorityJournal(self, self._level_logs)

    # What the next commit writes

    def write(self) -> None:
        """Add new messages that are still wanted, and what was settled of those before."""
        messages, notes = self.groups
        changes = self._entries.take_changes()
        dead = dict(changes.dead)
        fresh, self._fresh = self._fresh, []
        for entry in fresh:
            if dead.pop(entry.first, None) is None:
                self.commits.batch().append(messages, entry.first, entry.payload(), tag=entry.tag)
        for first, stop in _merged(dead):
            self.commits.batch().delete(messages, first, stop)
        for first in dead.keys() & self._notes.keys():
            self._erase(self.commits.batch(), first)
        for first, settled in changes.partial:
            batch = self.commits.batch()
            if first in self._notes:
                self._erase(batch, first)
            batch.append(notes, self._next_note, _note(first, settled))
            self._notes[first] = self._next_note
            self._next_note += 1

    def _erase(self, batch: Batch, first: int) -> None:
        """Erase what was noted of a batch of messages."""
        note = self._notes.pop(first)
        batch.delete(self.groups[1], note, note + 1)


class LocalJournals:
    """The journals of a node's queues."""

    __slots__ = ("_commits", "_key_logs", "_level_logs", "_log", "_seen_below", "spill")

    def __init__(
        self,
        log: Log,
        commits: Commits,
        seen_below: Mapping[int, int],
        levels: Iterable[tuple[bytes, bytes]] = (),
        keys: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """`seen_below` as `read_seen` returns it, `levels` and `keys` the `LEVEL` and `KEYS`
        definitions on disk.

        Raises `Corrupt`.
        """
        self._level_logs = PriorityLogs(levels, log, commits, self.reopen)
        self._key_logs = KeyLogs(keys, log, commits)
        self._log = log
        self._commits = commits
        self._seen_below = seen_below
        self.spill: PageStore = LogSpill(log, commits)

    def new_groups(self) -> tuple[int, ...]:
        return self._log.unused_group(), self._log.unused_group()

    def create(self, groups: tuple[int, ...]) -> Journal:
        return self._journal(groups, redelivered_below=0)

    def reopen(self, groups: tuple[int, ...]) -> Journal:
        return self._journal(groups, self._seen_below.get(groups[0], INDEX_END))

    def keys(self, groups: tuple[int, ...]) -> KeyLog:
        return self._key_logs.open(groups[0])

    def _journal(self, groups: tuple[int, ...], redelivered_below: int) -> Journal:
        return LocalJournal(
            groups,
            self._log,
            self._commits,
            self._level_logs,
            self._key_logs,
            redelivered_below=redelivered_below,
        )


def read_seen(items: Iterable[tuple[bytes, bytes]]) -> dict[int, int]:
    """Return, by log of messages, the number below which they may have been seen: from `SEEN`
    definitions.

    There are none after a crash.  They must have been removed before anything is handed out.
    """
    return {NUMBER.unpack(name)[0]: NUMBER.unpack(value)[0] for name, value in items}


def _note(first: int, settled: int) -> bytes:
    size = (settled.bit_length() + 7) // 8
    return FIRST.pack(first) + settled.to_bytes(size, "little")


def _live(part: LoadedMessages, settled: int) -> list[LoadedMessages]:
    """Return what is left of an entry, as stretches."""
    if not settled:
        return [part]
    bits = f"{settled:b}"[::-1].ljust(len(part.contents), "0")
    return [part_of_loaded(part, *found.span()) for found in finditer("0+", bits)]


def _joined(parts: list[LoadedMessages]) -> list[LoadedMessages]:
    """Stretches of which none begins where another ends."""
    whole: list[LoadedMessages] = []
    for part in parts:
        last = whole[-1] if whole else None
        if last is not None and last.sequences[-1] + 1 == part.sequences[0]:
            counts = len(last.contents), len(part.contents)
            last.expiries = joined(last.expiries, counts[0], part.expiries, counts[1])
            last.sequences = range(last.sequences[0], part.sequences[-1] + 1)
            last.origins += part.origins
            last.contents += part.contents
        else:
            whole.append(part)
    return whole


def _merged(entries: Mapping[int, int]) -> list[tuple[int, int]]:
    """Stretches, from the first to behind the last, rising; those that touch become one."""
    merged: list[tuple[int, int]] = []
    for first, stop in entries.items():
        if merged and merged[-1][1] == first:
            first, _ = merged.pop()
        merged.append((first, stop))
    return merged
