"""Journal of a durable queue that lives on this node alone.

Two logs in the store.  In the first an entry is a batch of messages, under the sequence number of
the first of them; it stays until all are settled.  In the second an entry says which messages of a
batch are settled, for batches of which only some are: the newest counts, and replaces the one
before.  Hand-outs are not written, so that after a crash everything may have been seen.

What comes in between two commits is one entry, unless the queue wants it apart:

    shape:1  runs:4  messages:4
    origins in runs, as `pack_origins` has them
    for each message  size:4
    for each message  expiry:8        in shape 2 only: milliseconds since 1970
    contents, one after the other

Integers are big-endian; numbers are widths in bytes.  The store's checksum covers all of it.

In a cluster a queue is defined in a log which nodes share.  Such a definition may be applied again
at each start, also that of a queue that was deleted since, and the logs of a journal mean something
on one disk only.  So that disk says which logs belong to which queue, by an id that no other queue
ever has (`ClusterJournals`): whatever was written there is found again, and if the queue was
deleted while this node was down, it is found out.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import compress
from re import finditer
from struct import Struct, pack, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception
from typing import NamedTuple

from fluffle.broker.base.message import Origin, pack_origins, unpack_origins
from fluffle.broker.durability.deduplication_keys import KeyLog, KeyLogs
from fluffle.broker.durability.priority_journal import PriorityJournal, PriorityLogs
from fluffle.broker.queues.expiry_times import NEVER_MS, Deadlines, Expiries, grown, joined, span_of
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    JournalByPriority,
    JournalFactory,
    LoadedMessages,
    PagedOutMessages,
    PageStore,
    RecoveredContent,
    Stored,
    UnreadableMessages,
    comb,
    part_of_loaded,
)
from fluffle.broker.queues.ready_list import SEGMENT_BYTES_MAX, SEGMENT_MESSAGES_MAX
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.entry_reader import EntryHead, StoredEntry
from fluffle.storage.errors import Corrupt, CorruptEntry, StorageError
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import GroupLogs
from fluffle.storage.store import Batch

SHAPE = 1
"""Version: raised when the shape changes; the old one is still read."""

EXPIRING = 2
"""The shape of messages some of which expire."""

HEAD = Struct(">BII")
SIZE_BYTES = 4
EXPIRY_BYTES = 8

FIRST = Struct(">Q")
"""Head of an entry of the second log: first number concerned; then bits, little-endian."""

SEEN = "seen"
"""The kind of the definitions that a node leaves behind when it stops in order."""

SPILL = "spill"
"""The kind of the definition whose name is the number of the log."""

NUMBER = Struct(">Q")

COUNT_BITS = 20
"""Bits for the count in the tag of an entry of messages; the others say when the first of them
expires."""

COUNT_MAX = (1 << COUNT_BITS) - 1

EARLIEST_MS_MAX = (1 << 64 - COUNT_BITS) - 1
"""In the year 2527; what expires later does so never, until it is read."""

COMPACT_ENTRIES = 512
"""Entries that are dead are swept out once there are so many, and they are half."""

JOURNAL = "journal"
"""The kind of these definitions: by the id of the queue, its logs."""

QUEUE_ID = Struct(">Q")
LOGS = Struct(">QQ")


# Messages as an entry


def encode_messages(
    origins: Iterable[Origin], contents: Sequence[bytes], expiries: Expiries | None = None
) -> bytes:
    """Encode messages, one origin a content."""
    runs = pack_origins(origins)
    head = HEAD.pack(SHAPE if expiries is None else EXPIRING, len(runs), len(contents))
    sizes = pack(f">{len(contents)}I", *map(len, contents))
    times = b"" if expiries is None else pack(f">{len(expiries)}Q", *expiries)
    return b"".join((head, *runs, sizes, times, *contents))


def decode_messages(payload: bytes) -> PagedOutMessages:
    """Origins, contents and when they expire; equal origins are one object.

    StorageError for another shape, and for what `encode_messages` has never made.
    """
    shape = payload[:1]
    if shape not in (bytes((SHAPE,)), bytes((EXPIRING,))):
        raise StorageError(f"an entry has shape {shape!r}; this version reads up to {EXPIRING}")
    expiries: Expiries | None = None
    try:
        origins, at = _origins(payload)
        sizes = unpack_from(f">{len(origins)}I", payload, at)
        at += SIZE_BYTES * len(sizes)
        if shape[0] == EXPIRING:
            expiries = array("Q", unpack_from(f">{len(origins)}Q", payload, at))
            at += EXPIRY_BYTES * len(sizes)
    except (StructError, ValueError) as error:
        raise StorageError(f"an entry cannot be read: {error}") from error
    if at + sum(sizes) != len(payload):
        raise StorageError(f"an entry of {len(payload)} bytes should have {at + sum(sizes)}")
    contents: list[bytes] = []
    for size in sizes:
        contents.append(payload[at : at + size])
        at += size
    return PagedOutMessages(origins, contents, expiries)


def _origins(payload: bytes) -> tuple[list[Origin], int]:
    """Return the origin of each message, and where they end.  StorageError, struct.error."""
    _shape, run_count, message_count = HEAD.unpack_from(payload)
    if message_count * SIZE_BYTES > len(payload):
        raise StorageError(f"an entry of {len(payload)} bytes is said to hold {message_count}")
    return unpack_origins(payload, HEAD.size, run_count, message_count)


# Which entries there are


class PartialEntry(NamedTuple):
    """An entry of which some messages are settled."""

    first: int
    settled: int
    """Bit `i` for the message `first + i`."""


class EntryChanges(NamedTuple):
    """Changes of entries since they were last taken."""

    dead: list[tuple[int, int]]
    """The first number and the one behind the last of those of which every message is settled."""
    partial: list[PartialEntry]
    """Entries that live on, with all that is settled of them."""


class JournalEntries:
    """Entries of a log by rising number, without overlap."""

    __slots__ = ("_counts", "_dead", "_firsts", "_settled", "_touched")

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._counts = array("L")
        """How many messages each has; 0 if it is dead."""
        self._dead = 0
        """How many are dead: not only in front, for one message may be kept for long."""
        self._settled: dict[int, int] = {}
        """Bits of the settled messages of an entry, by its first number; none without a bit."""
        self._touched: dict[int, None] = {}
        """Entries of which something was settled since `take_changes`."""

    def __len__(self) -> int:
        return len(self._counts) - self._dead

    def add(self, first: int, count: int) -> None:
        """Add an entry behind all others."""
        self._firsts.append(first)
        self._counts.append(count)

    def extend(self, count: int) -> None:
        """Add messages to the last entry."""
        self._counts[-1] += count

    def insert(self, entries: Sequence[tuple[int, int]], settled: Iterable[PartialEntry]) -> None:
        """Insert entries, each with its first number and its count, that lie together among the
        others."""
        at = bisect_left(self._firsts, entries[0][0])
        self._firsts[at:at] = array("Q", [first for first, _ in entries])
        self._counts[at:at] = array("L", [count for _, count in entries])
        self._settled.update(settled)

    def remove(self, first: int, stop: int) -> None:
        """Remove the entries that begin from `first` up to `stop`, of which nothing is settled."""
        at = bisect_left(self._firsts, first)
        end = bisect_left(self._firsts, stop, at)
        del self._firsts[at:end], self._counts[at:end]

    def settle(self, sequences: Sequence[int]) -> None:
        """Note that messages, rising, are settled."""
        for first, bits in self._spread(sequences):
            self._settled[first] = self._settled.get(first, 0) | bits
            self._touched[first] = None

    def unsettle(self, sequences: Sequence[int]) -> None:
        """Undo `settle`; `take_changes` was not called in between."""
        for first, bits in self._spread(sequences):
            settled = self._settled.pop(first) & ~bits
            if settled:
                self._settled[first] = settled

    def take_changes(self) -> EntryChanges:
        """Return what has changed since the last call; entries that are settled are forgotten."""
        changes = EntryChanges([], [])
        touched, self._touched = self._touched, {}
        for first in sorted(touched):
            settled = self._settled.get(first, 0)
            if not settled:
                continue  # it was undone
            at = bisect_left(self._firsts, first)
            count = self._counts[at]
            if settled == (1 << count) - 1:
                self._counts[at] = 0
                self._dead += 1
                del self._settled[first]
                changes.dead.append((first, first + count))
            else:
                changes.partial.append(PartialEntry(first, settled))
        self._sweep()
        return changes

    def _spread(self, sequences: Sequence[int]) -> list[tuple[int, int]]:
        """Entries, by their first number, and the bits in each for `sequences`."""
        step = sequences.step if isinstance(sequences, range) else 0
        found: list[tuple[int, int]] = []
        start = 0
        while start < len(sequences):
            lowest = sequences[start]
            at = bisect_right(self._firsts, lowest) - 1
            assert at >= 0, f"message {lowest} is in no entry"
            first, count = self._firsts[at], self._counts[at]
            assert lowest < first + count, f"message {lowest} is in no entry"
            stop = bisect_left(sequences, first + count, start)
            if step:
                bits = comb(stop - start, step) << (lowest - first)
            else:
                bits = sum(1 << (sequence - first) for sequence in sequences[start:stop])
            found.append((first, bits))
            start = stop
        return found

    def _sweep(self) -> None:
        """Let go of the dead once they are many, so that each costs a constant."""
        if self._dead > COMPACT_ENTRIES and self._dead * 2 > len(self._counts):
            self._firsts = array("Q", compress(self._firsts, self._counts))
            self._counts = array("L", filter(None, self._counts))
            self._dead = 0


# Journals


class UnwrittenBatch:
    """A batch of messages that is not written yet."""

    __slots__ = ("contents", "expiries", "first", "origins", "stop")

    def __init__(self, first: int) -> None:
        self.first = self.stop = first
        self.origins: list[Origin] = []
        self.contents: list[bytes] = []
        self.expiries: Expiries | None = None

    def payload(self) -> bytes:
        return encode_messages(self.origins, self.contents, self.expiries)

    @property
    def tag(self) -> int:
        """Tag of the entry: what is known of it without reading it."""
        count, earliest_ms = len(self.contents), span_of(self.expiries)[0]
        assert count <= COUNT_MAX, f"{count} messages in one entry"
        return count if earliest_ms > EARLIEST_MS_MAX else count | earliest_ms << COUNT_BITS


def of_tag(tag: int) -> tuple[int, int]:
    """Return how many messages there are in an entry, and when the first of them expires."""
    return tag & COUNT_MAX, tag >> COUNT_BITS or NEVER_MS


@dataclass(slots=True, eq=False)
class LocalJournal:
    """The log of one queue on this node."""

    groups: tuple[int, ...]
    _log: GroupLogs
    commits: Commits
    _level_logs: PriorityLogs
    _key_logs: KeyLogs
    _: KW_ONLY
    redelivered_below: int
    """Sequence number below which messages count as redelivered."""
    _entries: JournalEntries = field(default_factory=JournalEntries, init=False)
    _fresh: list[UnwrittenBatch] = field(default_factory=list, init=False)
    """Batches that the next commit writes, in order."""
    _notes: dict[int, int] = field(default_factory=dict, init=False)
    """Where the second log says what is settled of a batch."""
    _next_note: int = field(default=1, init=False)
    _recovered: dict[int, int] = field(default_factory=dict, init=False)
    """Bits of settled messages of batches that have not been read yet."""
    _unreadable_notes: list[int] = field(default_factory=list, init=False)
    """Where the second log is damaged."""
    _headless: dict[int, Stored] = field(default_factory=dict, init=False)
    """Batches that are damaged where it says how many messages are in them."""
    _is_dropped: bool = field(default=False, init=False)

    # Coming back

    def recover(self) -> RecoveredContent:
        """Read where everything is, but no message.  Raises `Corrupt`.

        Damage that is known to be this queue's is its own affair.
        """
        messages, notes = self.groups
        recovery = RecoveredContent(next_sequence=self._log.last_index(messages) + 1)
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
        recovery.redelivered_below = min(self.redelivered_below, recovery.next_sequence)
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

    # Calls of the queue

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
            self.commits.add_writer(self)
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
            self.commits.add_writer(self)

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
            origins, contents, expiries = decode_messages(entry.payload)
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
            origins, contents, expiries = decode_messages(entry.payload)
            sequences = range(entry.index, entry.index + len(contents))
            loaded += _live(LoadedMessages(sequences, origins, contents, expiries), settled)
        return loaded

    def _readable(self, first: int, stop: int) -> list[StoredEntry]:
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
        self.commits.remove_writer(self)
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

    def __init__(
        self,
        log: GroupLogs,
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


# Messages that end with the process


class LogSpill:
    """Log to which all queues page out messages that end with the process.

    It is named in the catalog, so that the next start finds it and deletes it.
    """

    __slots__ = ("_group", "_log", "_next_index", "commits", "is_wanted")

    def __init__(self, log: GroupLogs, commits: Commits) -> None:
        self._log = log
        self.commits = commits
        self._group = 0
        """0 until there is something to write."""
        self._next_index = 1
        self.is_wanted = False

    @property
    def is_behind(self) -> bool:
        return self.commits.is_behind

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        if not self._group:
            self._group = self._log.unused_group()
            self.commits.put(SPILL, b"%d" % self._group, b"")
        index, self._next_index = self._next_index, self._next_index + 1
        payload = encode_messages(origins, contents, expiries)
        self.commits.waiting_bytes += len(payload)
        self.commits.batch().append(self._group, index, payload, tag=len(contents))
        self.commits.touch()
        return index

    def read(self, index: int) -> PagedOutMessages:
        try:
            for entry in self._log.read(self._group, index, index + 1):
                return decode_messages(entry.payload)
        except Corrupt as error:
            raise UnreadableMessages(Damage(error.where, error.what)) from error
        raise UnreadableMessages(Damage(f"group {self._group} index {index}", "it is missing"))

    def forget(self, index: int) -> None:
        self.commits.delete(self._group, index, index + 1)


def delete_spilled(items: Iterable[tuple[bytes, bytes]], commits: Commits) -> None:
    """Delete what an earlier process spilled, from the definitions of kind `SPILL`."""
    for name, _ in items:
        commits.delete(int(name), 0, INDEX_END)
        commits.remove(SPILL, name)


def journal_item(queue: int, groups: tuple[int, ...]) -> tuple[bytes, bytes]:
    """Return name and value of a journal's definition."""
    return QUEUE_ID.pack(queue), LOGS.pack(*groups)


class ClusterJournals:
    """Journals of the durable classic queues that this node hosts in a cluster."""

    def __init__(
        self, items: Iterable[tuple[bytes, bytes]], journals: JournalFactory, commits: Commits
    ) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._journals = journals
        self._commits = commits
        try:
            self._groups = {QUEUE_ID.unpack(name)[0]: LOGS.unpack(logs) for name, logs in items}
        except StructError as error:
            raise Corrupt("the names of journals", str(error)) from error

    def open(self, queue: int) -> tuple[Journal, bool]:
        """Open the journal of a queue; the second value is True if it existed and has to be
        recovered."""
        groups = self._groups.get(queue)
        if groups is not None:
            return self._journals.reopen(groups), True
        groups = self._groups[queue] = self._journals.new_groups()
        self._commits.put(JOURNAL, *journal_item(queue, groups))
        return self._journals.create(groups), False

    def forget(self, queue: int) -> None:
        """Forget a queue that is defined no more, and whose journal has been dropped."""
        if self._groups.pop(queue, None) is not None:
            self._commits.remove(JOURNAL, QUEUE_ID.pack(queue))

    def sweep(self, queues: Collection[int]) -> int:
        """Delete the journals of all queues but these; return how many they were."""
        orphans = self._groups.keys() - queues
        for queue in orphans:
            self._journals.reopen(self._groups[queue]).drop()
            self.forget(queue)
        return len(orphans)
