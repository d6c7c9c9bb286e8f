"""Logs of all groups: entries by group and index, in a hot and a cold table.

        append                          mover
    ------------>  hot: records  ------------------>  cold: parts by (group, index)
                   by sequence     what has survived

Appends of all groups go together, one record a commit, because keys of (group, index) would
dirty a page for each group.  The newest records are the hot window; when it is full its oldest
record goes, and entries in it that are not deleted move to the cold table, in the same commit.

Rule 1: records leave in the order they came.  Hence a deletion need be kept only until what it
deletes in the cold table is gone: until then it is a debt, and its record stays.
Rule 2: everything is decided in memory, by one thread.  `begin` says what a commit is to do,
`finish` believes it.  One commit at a time.
Rule 3: the newest record stays; it holds the sequence number and the greatest group id.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from fluffle.storage.disk import CommitResult, Disk, View, WriteTransaction
from fluffle.storage.entry_reader import (
    Entry,
    EntryHead,
    HotRecords,
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
    Part,
    Table,
    cold_index,
    cold_key,
    sequence_number,
)
from fluffle.storage.mover import HotWindow, Move, PendingDeletion, UpkeepTuning
from fluffle.storage.positions import Positions
from fluffle.storage.record import Change, Deletion, Packer, Record, Row, place, sequence_of

SLICE = 1024
"""No view looks at more entries or records before it ends."""

NO_LIMIT = 1 << 62
"""More bytes than there can be."""


class Log:
    """Logs of the groups of a node."""

    __slots__ = (
        "_disk",
        "_groups",
        "_mover",
        "_moves",
        "_next_sequence",
        "_packed",
        "_recorded_top_group",
        "_top_group",
    )

    def __init__(self, disk: Disk, tuning: UpkeepTuning) -> None:
        self._disk = disk
        self._groups: dict[int, Positions] = {}
        self._mover = HotWindow(tuning)
        self._next_sequence = 1
        self._top_group = 0
        """The greatest group id in use."""
        self._recorded_top_group = 0
        """What the newest record says it is."""
        self._packed: tuple[list[Change], Packer] | None = None
        """What the commit that runs brings."""
        self._moves: list[Move] = []
        """What the commit that runs moves to the cold table."""

    # What a commit does

    def admit(self, changes: list[Change]) -> None:
        """Note changes that will be in a later commit: all, or `ValueError` and none of them."""
        self._admit(change if isinstance(change, Deletion) else change[0] for change in changes)

    def begin(self, changes: list[Change], work: WriteTransaction) -> None:
        """Add to `work` what makes `changes` durable, and some upkeep.  Raises `Corrupt`."""
        packer = Packer(self._next_sequence, self._top_group)
        packer.pack(changes)
        records = packer.finish(even_empty=self._top_group > self._recorded_top_group)
        self._packed = changes, packer
        incoming = sum(map(len, records))
        if self._mover.has_pending_deletions:
            self._mover.trim(sum(isinstance(change, Deletion) for change in changes), work)
        if records and self._mover.is_due(incoming):
            with self._disk.view() as view:
                self._moves = self._mover.move(HotRecords(view), self._groups, incoming, work)
        for sequence, record in enumerate(records, start=self._next_sequence):
            work.puts.append((Table.HOT, SEQUENCE.pack(sequence), record))

    def finish(self, outcome: CommitResult) -> None:
        """Note that the transaction of `begin` is durable."""
        for deletion in self._mover.finish(outcome):
            if (positions := self._groups.get(deletion.group)) is not None:
                positions.trimmed(deletion.first, deletion.stop)
                self._forget_if_empty(deletion.group, positions)
        for group, index in self._moves:
            self._groups[group].move_to_cold(index)
        self._moves = []
        assert self._packed is not None
        (changes, packer), self._packed = self._packed, None
        for sequence, record in enumerate(packer.records, start=self._next_sequence):
            self._mover.add_record(sequence, len(record))
        if packer.records:
            self._recorded_top_group = packer.top_group
        self._next_sequence = packer.sequence
        for change, where in zip(changes, packer.places, strict=True):
            self._apply(change if isinstance(change, Deletion) else change[0], where)

    @property
    def needs_upkeep(self) -> bool:
        """Tell whether commits without changes would be of use."""
        return self._mover.has_pending_deletions

    def _admit(self, changes: Iterable[Part | Deletion]) -> None:
        lasts: dict[int, int] = {}
        for change in changes:
            last = lasts.get(change.group)
            if last is None:
                positions = self._groups.get(change.group)
                last = 0 if positions is None else positions.last
            lasts[change.group] = _last_after(change, last)
        for group, last in lasts.items():
            self._positions(group).last = last

    def _apply(self, change: Part | Deletion, where: int) -> None:
        positions = self._positions(change.group)
        if isinstance(change, Part):
            if change.number == 0:
                positions.append(change.index, where)
            return
        if positions.delete(change.first, change.stop):
            self._mover.add_pending_deletion(PendingDeletion(where, change))
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
            self._mover.add_record(record.sequence, record.size_bytes)
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
        """Tell whether an entry that is there has its parts in the cold table, and stays."""
        positions = self._groups.get(group)
        if positions is None or positions.find(index) or index >= positions.cold_stop:
            return False
        return index not in self._mover.deleted_cold(group)

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

    def read(self, group: int, first: int, stop: int, *, bytes_max: int = NO_LIMIT) -> list[Entry]:
        """Read entries from index `first` up to `stop`, as far as they are on disk.

        No more than `bytes_max` of payload, but at least one entry if there is any.  Raises
        `CorruptEntry`.
        """
        entries: list[Entry] = []
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
        deleted_cold = self._mover.deleted_cold(group)
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

    def _read(self, view: View, group: int, first: int, stop: int) -> Iterator[Entry]:
        positions = self._groups.get(group)
        if positions is None:
            return
        deleted_cold = self._mover.deleted_cold(group)
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
        deleted_cold = self._mover.deleted_cold(group)
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


def _hot_entry(view: View, records: HotRecords, group: int, index: int, where: int) -> Entry:
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
