"""Logs of all groups: entries by group and index, in a hot and a cold table.

        append                        HotWindow
    ------------>  hot: records  ------------------>  cold: parts by (group, index)
                   by sequence     what has survived

Appends of all groups go together, one record a commit, because keys of (group, index) would
dirty a page for each group.  The newest records are the hot window; when it is full its oldest
record goes, and entries in it that are not deleted move to the cold table, in the same commit.

Rule 1: records leave in the order they came.  Hence a deletion need be kept only until what it
deletes in the cold table is gone: until then it is pending, and its record stays.
Rule 2: everything is decided in memory, by one thread.  `begin` says what a commit is to do,
`finish` believes it.  One commit at a time.
Rule 3: the newest record stays; it holds the sequence number and the greatest group id.

This upkeep rides on commits.  Each does a little, in proportion to what it brings, so that no
commit waits for upkeep and it does not fall behind.  Only deletions of long stretches take many
commits, and those follow of themselves when there is nothing else to do.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from typing import NamedTuple

from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import CommitResult, Disk, Trim, View, WriteTransaction
from fluffle.storage.entry_reader import (
    EntryHead,
    HotRecords,
    StoredEntry,
    assemble,
    cold_heads,
    cold_parts,
    cold_survey,
    missing_entry,
    missing_record,
)
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.layout import (
    INDEX_END,
    SEQUENCE,
    Change,
    Deletion,
    Packer,
    Part,
    Record,
    Row,
    Table,
    cold_index,
    cold_key,
    cold_value,
    place,
    sequence_number,
    sequence_of,
)

SLICE = 1024
"""No view looks at more entries or records before it ends."""

NO_LIMIT = 1 << 62
"""More bytes than there can be."""

COMPACT_ENTRIES = 512
"""Entries that are gone are cut off the front once there are so many, and they are half."""


# Where entries are


class Positions:
    """Positions of one group.  Cold indexes are below hot ones, except for those to be deleted."""

    __slots__ = ("_head", "_indexes", "_places", "cold_first", "cold_stop", "last")

    def __init__(self) -> None:
        self._indexes = array("Q")
        """Rising, from `_head` on."""
        self._places = array("Q")
        """Where each begins; 0 if it is deleted."""
        self._head = 0
        self.cold_first = 0
        self.cold_stop = 0
        """No cold entry is outside these two; within them some may be missing."""
        self.last = 0
        """Greatest index that was submitted and not deleted again; the next is greater."""

    @property
    def is_empty(self) -> bool:
        return self._head == len(self._indexes) and self.cold_first == self.cold_stop

    @property
    def is_forgettable(self) -> bool:
        """True if nothing is known that would be missed, nor on its way."""
        return self.is_empty and self.last == 0

    def cold_end(self, stop: int) -> int:
        """Return where to stop looking for cold entries, at `stop` at the latest."""
        hot_first = self._indexes[self._head] if self._head < len(self._indexes) else stop
        return min(stop, hot_first, self.cold_stop)

    @property
    def bounds(self) -> tuple[int, int]:
        """Return two indexes: no entry is below the first, or not below the second."""
        if self._head == len(self._indexes):
            return self.cold_first, self.cold_stop
        hot_first, hot_stop = self._indexes[self._head], self._indexes[-1] + 1
        if self.cold_first == self.cold_stop:
            return hot_first, hot_stop
        return min(self.cold_first, hot_first), max(self.cold_stop, hot_stop)

    def append(self, index: int, place: int) -> None:
        self._indexes.append(index)
        self._places.append(place)

    def find(self, index: int) -> int:
        """Return the place where a hot entry begins; 0 if it is not there."""
        at = bisect_left(self._indexes, index, self._head)
        return self._places[at] if at < len(self._indexes) and self._indexes[at] == index else 0

    def hot(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return indexes and places of hot entries, in order."""
        at = bisect_left(self._indexes, first, self._head)
        end = bisect_left(self._indexes, stop, at)
        live = zip(self._indexes[at:end], self._places[at:end], strict=True)
        return ((index, place) for index, place in live if place)

    def delete(self, first: int, stop: int) -> bool:
        """Forget hot entries; True if there may be cold ones to delete as well."""
        at = bisect_left(self._indexes, first, self._head)
        end = bisect_left(self._indexes, stop, at)
        if end == len(self._indexes):
            while at > self._head and not self._places[at - 1]:
                at -= 1  # so that an index that is deleted can be appended again
            del self._indexes[at:], self._places[at:]
        else:
            self._places[at:end] = array("Q", bytes(8 * (end - at)))
        self._skip_deleted()
        return first < self.cold_stop and stop > self.cold_first

    def move_to_cold(self, index: int) -> None:
        """Note that a hot entry has moved to the cold table."""
        self.widen_cold(index)
        at = bisect_left(self._indexes, index, self._head)
        self._places[at] = 0
        self._skip_deleted()

    def widen_cold(self, index: int) -> None:
        """Widen the bounds of the cold entries to include one."""
        if self.cold_first == self.cold_stop:
            self.cold_first, self.cold_stop = index, index + 1
        self.cold_first = min(self.cold_first, index)
        self.cold_stop = max(self.cold_stop, index + 1)

    def trimmed(self, first: int, stop: int) -> None:
        """Note that no cold entry is left from `first` up to `stop`."""
        if first <= self.cold_first:
            self.cold_first = min(max(stop, self.cold_first), self.cold_stop)
        elif stop >= self.cold_stop:
            self.cold_stop = min(max(first, self.cold_first), self.cold_stop)

    def _skip_deleted(self) -> None:
        head, places = self._head, self._places
        while head < len(places) and not places[head]:
            head += 1
        if head > COMPACT_ENTRIES and head * 2 > len(places):
            del self._indexes[:head], self._places[:head]
            head = 0
        self._head = head


# The hot window


class UpkeepTuning(NamedTuple):
    """Limits of the upkeep that rides on a commit."""

    window_bytes: int = 1 << 25
    """Bytes of the newest records, kept in the hot table: a record consumed while there is written
    only once; but a start reads all of them."""
    moved_bytes: int = 1 << 18
    """Records that may leave with one commit: this, or twice what the commit brings."""
    slack_share: int = 2_048
    """The window may be too full by one of so many parts before anything leaves: that dirties pages
    of its own, so small commits had better not do it each."""
    trimmed_keys: int = 512
    """Cold parts, or whole deletions, that one commit carries out: this, or twice its own."""


class PendingDeletion(NamedTuple):
    """Deletion whose cold entries are not deleted yet."""

    place: int
    """Place of its row; the record stays until the deletion is carried out."""
    deletion: Deletion


NOTHING = Ranges()

Move = tuple[int, int]
"""Group and index of an entry that goes to the cold table."""


class HotWindow:
    """Hot records of the logs, and the deletions that are pending."""

    def __init__(self, tuning: UpkeepTuning) -> None:
        self._tuning = tuning
        self._sizes: deque[int] = deque()
        """Sizes of all hot records, oldest first: there may be a hundred thousand."""
        self._first_sequence = 0
        """Sequence number of the oldest hot record; the others follow without a gap."""
        self._window_bytes = 0
        self.pending_deletions: deque[PendingDeletion] = deque()
        """Oldest first."""
        self._deletions_by_group: dict[int, deque[Deletion]] = {}
        """The same by group."""
        self._deleted_cold: dict[int, Ranges] = {}
        """Results of `deleted_cold` until a deletion of the group ends: a read asks for each, and
        a sparse deletion makes one for each gap."""
        self._leaving = 0
        """How many records leave with the commit that runs."""

    def add_record(self, sequence: int, size_bytes: int) -> None:
        """Add a record; its sequence number follows that of the one before."""
        if not self._sizes:
            self._first_sequence = sequence
        self._sizes.append(size_bytes)
        self._window_bytes += size_bytes

    def add_pending_deletion(self, pending_deletion: PendingDeletion) -> None:
        """Add a deletion of entries that may be cold."""
        self.pending_deletions.append(pending_deletion)
        self._deletions_by_group.setdefault(pending_deletion.deletion.group, deque()).append(
            pending_deletion.deletion
        )
        self._deleted_cold.pop(pending_deletion.deletion.group, None)

    def deleted_cold(self, group: int) -> Ranges:
        """Return indexes whose cold entries are deleted, though they are still there."""
        if group not in self._deletions_by_group:
            return NOTHING
        if group not in self._deleted_cold:
            stretches = sorted((first, stop) for _, first, stop in self._deletions_by_group[group])
            self._deleted_cold[group] = Ranges.joined(stretches)
        return self._deleted_cold[group]

    def trim(self, incoming_deletions: int, work: WriteTransaction) -> None:
        """Carry out the oldest pending deletions, as far as one commit can."""
        work.trim_keys_max = max(self._tuning.trimmed_keys, 2 * incoming_deletions)
        for _, (group, first, stop) in islice(self.pending_deletions, work.trim_keys_max):
            work.trims.append(Trim(cold_key(group, first), cold_key(group, stop)))

    def is_due(self, incoming_bytes: int) -> bool:
        """True if the window is too full with what comes, so that something has to leave."""
        slack_bytes = self._tuning.window_bytes // self._tuning.slack_share
        return self._excess(incoming_bytes) > slack_bytes

    def move(
        self,
        records: HotRecords,
        groups: Mapping[int, Positions],
        incoming_bytes: int,
        work: WriteTransaction,
    ) -> list[Move]:
        """Move the oldest records out to make room for what comes.  Raises `Corrupt`."""
        most = max(self._tuning.moved_bytes, 2 * incoming_bytes)
        excess = min(self._excess(incoming_bytes), most)
        barrier = sequence_of(self.pending_deletions[0].place) if self.pending_deletions else None
        moves: list[Move] = []
        cold: list[tuple[Table, bytes, bytes]] = []
        while excess > 0 and self._leaving < len(self._sizes):
            stop = self._end_of_joined_records(records, self._leaving)
            if barrier is not None and self._first_sequence + stop > barrier:
                break
            leaving = range(self._first_sequence + self._leaving, self._first_sequence + stop)
            moves += _survivors(records, leaving, groups, cold)
            work.removes += [(Table.HOT, SEQUENCE.pack(sequence)) for sequence in leaving]
            excess -= sum(islice(self._sizes, self._leaving, stop))
            self._leaving = stop
        work.puts += sorted(cold, key=lambda put: put[1])  # neighbours share pages
        return moves

    def _excess(self, incoming_bytes: int) -> int:
        return self._window_bytes + incoming_bytes - self._tuning.window_bytes

    def finish(self, outcome: CommitResult) -> list[Deletion]:
        """Note that the transaction is durable, and which deletions are now carried out."""
        for _ in range(self._leaving):
            self._window_bytes -= self._sizes.popleft()
        self._first_sequence += self._leaving
        self._leaving = 0
        return [self._finish_oldest_deletion() for _ in range(outcome.trims_finished)]

    def _finish_oldest_deletion(self) -> Deletion:
        """Drop the oldest deletion, which has been carried out."""
        deletion = self.pending_deletions.popleft().deletion
        of_group = self._deletions_by_group[deletion.group]
        of_group.popleft()
        self._deleted_cold.pop(deletion.group, None)
        if not of_group:
            del self._deletions_by_group[deletion.group]
        return deletion

    def _end_of_joined_records(self, records: HotRecords, start: int) -> int:
        """Return where the records end that must leave with the one at `start`: those that go on
        with parts of an entry which began in it."""
        stop = start + 1
        while stop < len(self._sizes):
            record = records.at(self._first_sequence + stop)
            row = record and record.part(0)
            if not row or row.part.number == 0:
                break
            stop += 1
        return stop


def _survivors(
    records: HotRecords,
    sequences: Iterable[int],
    groups: Mapping[int, Positions],
    cold: list[tuple[Table, bytes, bytes]],
) -> list[Move]:
    """Return the entries that begin in these records and are not deleted; adds their parts to
    `cold`.

    Pieces move with their checksums, unlooked at: damage stays where it is, and visible.
    """
    moves: list[Move] = []
    survives = False
    for sequence in sequences:
        record = records.at(sequence)
        if record is None:
            raise missing_record(sequence)
        record.check()
        for number, row in record.parts():
            part = row.part
            entry = part.group, part.index
            if part.number == 0:
                positions = groups.get(part.group)
                where = positions.find(part.index) if positions else 0
                survives = where == place(sequence, number)
                moves += [entry] * survives
            if survives:
                value = cold_value(part, record.raw_piece(row))
                cold.append((Table.COLD, cold_key(*entry, part.number), value))
    return moves


# The logs


class GroupLogs:
    """Logs of the groups of a node."""

    def __init__(self, disk: Disk, tuning: UpkeepTuning) -> None:
        self._disk = disk
        self._groups: dict[int, Positions] = {}
        self._hot_window = HotWindow(tuning)
        self._next_sequence = 1
        self._top_group = 0
        """The greatest group id in use."""
        self._recorded_top_group = 0
        """Greatest group id according to the newest record."""
        self._packed: tuple[list[Change], Packer] | None = None
        """Changes of the commit that runs, and their packer."""
        self._moves: list[Move] = []
        """Moves to the cold table in the commit that runs."""

    # What a commit does

    def admit(self, changes: list[Change]) -> None:
        """Note changes that will be in a later commit: all, or `ValueError` and none of them."""
        lasts: dict[int, int] = {}
        for each in changes:
            change = each if isinstance(each, Deletion) else each[0]
            last = lasts.get(change.group)
            if last is None:
                positions = self._groups.get(change.group)
                last = 0 if positions is None else positions.last
            lasts[change.group] = _last_after(change, last)
        for group, last in lasts.items():
            self._positions(group).last = last

    def begin(self, changes: list[Change], work: WriteTransaction) -> None:
        """Add to `work` what makes `changes` durable, and some upkeep.  Raises `Corrupt`."""
        packer = Packer(self._next_sequence, self._top_group)
        packer.pack(changes)
        records = packer.finish(even_empty=self._top_group > self._recorded_top_group)
        self._packed = changes, packer
        incoming = sum(map(len, records))
        if self._hot_window.pending_deletions:
            self._hot_window.trim(sum(isinstance(change, Deletion) for change in changes), work)
        if records and self._hot_window.is_due(incoming):
            with self._disk.view() as view:
                self._moves = self._hot_window.move(HotRecords(view), self._groups, incoming, work)
        for sequence, record in enumerate(records, start=self._next_sequence):
            work.puts.append((Table.HOT, SEQUENCE.pack(sequence), record))

    def finish(self, outcome: CommitResult) -> None:
        """Note that the transaction of `begin` is durable."""
        for deletion in self._hot_window.finish(outcome):
            if (positions := self._groups.get(deletion.group)) is not None:
                positions.trimmed(deletion.first, deletion.stop)
                self._forget_if_empty(deletion.group, positions)
        for group, index in self._moves:
            self._groups[group].move_to_cold(index)
        self._moves = []
        assert self._packed is not None
        (changes, packer), self._packed = self._packed, None
        for sequence, record in enumerate(packer.records, start=self._next_sequence):
            self._hot_window.add_record(sequence, len(record))
        if packer.records:
            self._recorded_top_group = packer.top_group
        self._next_sequence = packer.sequence
        for change, where in zip(changes, packer.places, strict=True):
            self._apply(change if isinstance(change, Deletion) else change[0], where)

    @property
    def needs_upkeep(self) -> bool:
        """True if commits without changes would be of use."""
        return bool(self._hot_window.pending_deletions)

    def _apply(self, change: Part | Deletion, where: int) -> None:
        positions = self._positions(change.group)
        if isinstance(change, Part):
            if change.number == 0:
                positions.append(change.index, where)
            return
        if positions.delete(change.first, change.stop):
            self._hot_window.add_pending_deletion(PendingDeletion(where, change))
        self._forget_if_empty(change.group, positions)

    def _forget_if_empty(self, group: int, positions: Positions) -> None:
        """Forget a group without entries: groups come and go, as queues do, and must not cost
        memory."""
        if positions.is_forgettable:
            del self._groups[group]

    def _positions(self, group: int) -> Positions:
        positions = self._groups.get(group)
        if positions is None:
            positions = self._groups[group] = Positions()
            self._top_group = max(self._top_group, group)
        return positions

    # Recovery

    def recover(self) -> None:
        """Learn what is on disk.  Raises `Corrupt`."""
        with self._disk.view() as view:
            self._recover_cold(view)
        recovered = SLICE
        while recovered == SLICE:
            with self._disk.view() as view:
                recovered = self._recover_records(view)

    def _recover_cold(self, view: View) -> None:
        """Find the first and the last index of every group, by leaping over what is between.

        Values are not looked at: one that is damaged concerns only its readers.
        """
        first = cold_key(0, 0)
        while (item := next(view.scan(Table.COLD, first, None), None)) is not None:
            group, index = cold_index(item[0])
            positions = self._positions(group)
            positions.widen_cold(index)
            first = cold_key(group + 1, 0)
            last = view.last_key(Table.COLD, first)
            assert last is not None
            positions.last = cold_index(last)[1]
            positions.widen_cold(positions.last)

    def _recover_records(self, view: View) -> int:
        """Replay some hot records; how many.  Only in front of the first may some be gone."""
        items = list(islice(view.scan(Table.HOT, SEQUENCE.pack(self._next_sequence), None), SLICE))
        for key, value in items:
            record = Record(sequence_number(key), value)
            record.check()
            if self._next_sequence > 1 and record.sequence != self._next_sequence:
                raise missing_record(self._next_sequence)
            self._hot_window.add_record(record.sequence, record.size_bytes)
            self._next_sequence = record.sequence + 1
            self._recorded_top_group = record.top_group
            self._top_group = max(self._top_group, record.top_group)
            for number, row in enumerate(record.changes()):
                change = row.part if isinstance(row, Row) else row
                self._replay(change, place(record.sequence, number))
        return len(items)

    def _replay(self, change: Part | Deletion, where: int) -> None:
        positions = self._positions(change.group)
        try:
            positions.last = _last_after(change, positions.last)
        except ValueError as error:
            raise Corrupt(f"table hot, record {sequence_of(where)}", str(error)) from error
        self._apply(change, where)

    # Reading

    def unused_group(self) -> int:
        """Return a group id that was never given and never used; the next commit makes sure of
        it."""
        self._top_group += 1
        return self._top_group

    def last_index(self, group: int) -> int:
        """Return the last index of a group: what is appended next must be greater."""
        positions = self._groups.get(group)
        return 0 if positions is None else positions.last

    def is_cold(self, group: int, index: int) -> bool:
        """True if an entry that is there has its parts in the cold table, and stays."""
        positions = self._groups.get(group)
        if positions is None or positions.find(index) or index >= positions.cold_stop:
            return False
        return index not in self._hot_window.deleted_cold(group)

    def groups(self) -> list[int]:
        """Return the groups that have entries on disk."""
        return [group for group, positions in self._groups.items() if not positions.is_empty]

    def entries(self, group: int, first: int = 0, stop: int = INDEX_END) -> Iterator[EntryHead]:
        """Return what a group's log holds on disk, in order: index, tag and size of each entry.

        Read in slices, so that changes meanwhile do no harm.  Raises `CorruptEntry`.
        """
        while True:
            with self._disk.view() as view:
                heads = list(islice(self._heads(view, group, first, stop), SLICE))
            yield from heads
            if len(heads) < SLICE:
                return
            first = heads[-1][0] + 1

    def read(
        self, group: int, first: int, stop: int, *, bytes_max: int = NO_LIMIT
    ) -> list[StoredEntry]:
        """Read entries from index `first` up to `stop`, as far as they are on disk.

        No more than `bytes_max` of payload, but at least one entry if there is any.  Raises
        `CorruptEntry`.
        """
        entries: list[StoredEntry] = []
        with self._disk.view() as view:
            for entry in self._read(view, group, first, stop):
                bytes_max -= len(entry.payload)
                if entries and bytes_max < 0:
                    break
                entries.append(entry)
        return entries

    def survey(
        self, group: int, first: int, stop: int, *, checked_from: int
    ) -> Iterator[tuple[int, int | None]]:
        """Return index and tag of every entry, without a tag if it is damaged; nothing is raised.

        From `checked_from` on every byte is read, below only the heads of cold entries.
        """
        while True:
            with self._disk.view() as view:
                found = list(islice(self._survey(view, group, first, stop, checked_from), SLICE))
            yield from found
            if len(found) < SLICE:
                return
            first = found[-1][0] + 1

    def bounds(self, group: int) -> tuple[int, int]:
        """Return two indexes: no entry on disk is below the first, or not below the second."""
        positions = self._groups.get(group)
        return (0, 0) if positions is None else positions.bounds

    def _heads(self, view: View, group: int, first: int, stop: int) -> Iterator[EntryHead]:
        positions = self._groups.get(group)
        if positions is None:
            return
        deleted_cold = self._hot_window.deleted_cold(group)
        for head in cold_heads(view, group, first, positions.cold_end(stop)):
            if not (deleted_cold and head[0] in deleted_cold):
                yield head
        records = HotRecords(view)
        for index, where in positions.hot(first, stop):
            found = records.known(where)
            if found is None:
                # The commit that runs has moved it already.
                found = next(cold_heads(view, group, index, index + 1), None)
            if found is None:
                raise missing_entry(group, index)
            yield found

    def _read(self, view: View, group: int, first: int, stop: int) -> Iterator[StoredEntry]:
        positions = self._groups.get(group)
        if positions is None:
            return
        deleted_cold = self._hot_window.deleted_cold(group)
        for entry in assemble(cold_parts(view, group, first, positions.cold_end(stop))):
            if not (deleted_cold and entry.index in deleted_cold):
                yield entry
        records = HotRecords(view)
        for index, where in positions.hot(first, stop):
            yield _hot_entry(view, records, group, index, where)

    def _survey(
        self, view: View, group: int, first: int, stop: int, checked_from: int
    ) -> Iterator[tuple[int, int | None]]:
        positions = self._groups.get(group)
        if positions is None:
            return
        deleted_cold = self._hot_window.deleted_cold(group)
        for index, tag in cold_survey(view, group, first, positions.cold_end(stop), checked_from):
            if not (deleted_cold and index in deleted_cold):
                yield index, tag
        records = HotRecords(view)
        for index, where in positions.hot(first, stop):
            try:
                tag = records.tag_of_whole(where)
                if tag is None:
                    tag = _hot_entry(view, records, group, index, where).tag
                yield index, tag
            except Corrupt:
                yield index, None


def _hot_entry(view: View, records: HotRecords, group: int, index: int, where: int) -> StoredEntry:
    """Return an entry that is in the hot window, or was until the commit that runs moved it."""
    try:
        is_hot = records.known(where) is not None
        parts = records.parts(where) if is_hot else cold_parts(view, group, index, index + 1)
        entry = next(assemble(parts), None)
    except CorruptEntry:
        raise
    except Corrupt as damage:
        at = f"{damage.where}, group {group} index {index}"
        raise CorruptEntry(at, damage.what, group, index) from damage
    if entry is None:
        raise missing_entry(group, index)
    return entry


def _last_after(change: Part | Deletion, last: int) -> int:
    """Return the greatest index after a change to a group where it was `last`.  Raises
    `ValueError`."""
    if isinstance(change, Deletion):
        return max(change.first - 1, 0) if change.first <= last < change.stop else last
    if change.number:
        return last
    if change.index <= last:
        raise ValueError(f"{change.name} does not follow index {last}")
    return change.index


# Several logs read as one


SurveyedEntry = tuple[int, int | None, int]
"""Index, tag if it is not damaged, number of the log that it is in."""


def survey_logs(
    log: GroupLogs, numbers: Sequence[int], first: int, stop: int, *, checked_from: int
) -> Iterator[SurveyedEntry]:
    """Iterate over every entry from `first` up to `stop`, rising: see `GroupLogs.survey`."""
    surveys = [
        _of_one(log, number, first, stop, checked_from=checked_from)
        for number in reversed(numbers)
        if _touches(log.bounds(number), first, stop)
    ]
    if len(surveys) == 1:
        yield from surveys[0]
        return
    # `merge` keeps the order of its arguments for equal keys: the later log comes first.
    for _, seen in groupby(merge(*surveys, key=itemgetter(0)), itemgetter(0)):
        yield next(seen)


def stretches(
    log: GroupLogs, numbers: Sequence[int], first: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Return which log to read for what: its number, a first index and one to stop at; rising.

    A stretch has no more than `SLICE` entries, because finding it means to look at them.
    """
    touched = [number for number in numbers if _touches(log.bounds(number), first, stop)]
    if len(touched) == 1:
        yield touched[0], first, stop
        return
    seen = survey_logs(log, touched, first, stop, checked_from=INDEX_END)
    for number, run in groupby(seen, itemgetter(2)):
        while indexes := [index for index, _, _ in islice(run, SLICE)]:
            yield number, indexes[0], indexes[-1] + 1


def _of_one(
    log: GroupLogs, number: int, first: int, stop: int, *, checked_from: int
) -> Iterator[SurveyedEntry]:
    found = log.survey(number, first, stop, checked_from=checked_from)
    return ((index, tag, number) for index, tag in found)


def _touches(bounds: tuple[int, int], first: int, stop: int) -> bool:
    return bounds[0] < stop and bounds[1] > first
