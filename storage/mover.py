"""Hot window of the logs, and the upkeep that rides on commits: records leave it, deletions are
carried out.

Each commit does a little, in proportion to what it brings, so that no commit waits for upkeep and
it does not fall behind.  Only deletions of long stretches take many commits, and those follow of
themselves when there is nothing else to do.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import CommitResult, Trim, WriteTransaction
from fluffle.storage.entry_reader import HotRecords, missing_record
from fluffle.storage.layout import SEQUENCE, Table, cold_key, cold_value
from fluffle.storage.positions import Positions
from fluffle.storage.record import Deletion, place, sequence_of


class UpkeepTuning(NamedTuple):
    """Limits of the upkeep that rides on a commit."""

    window_bytes: int = 1 << 25
    """What is consumed sooner is written only once; but a start reads all of it."""
    moved_bytes: int = 1 << 18
    """Records that may leave with one commit: this, or twice what the commit brings."""
    slack_share: int = 2_048
    """The window may be too full by one of so many parts before anything leaves: that dirties pages
    of its own, so small commits had better not do it each."""
    trimmed_keys: int = 512
    """Cold parts, or debts, that may go with one commit: this, or twice its deletions."""


class PendingDeletion(NamedTuple):
    """Deletion whose cold entries are not deleted yet."""

    place: int
    """Of its row; the record stays until the debt is paid."""
    deletion: Deletion


NOTHING = Ranges()

Move = tuple[int, int]
"""Group and index of an entry that goes to the cold table."""


class HotWindow:
    """Hot records of the logs, and the deletions that are pending."""

    __slots__ = (
        "_deleted_cold",
        "_deletions_by_group",
        "_first_sequence",
        "_leaving",
        "_pending_deletions",
        "_sizes",
        "_tuning",
        "_window_bytes",
    )

    def __init__(self, tuning: UpkeepTuning) -> None:
        self._tuning = tuning
        self._sizes: deque[int] = deque()
        """Of every hot record, oldest first: there may be a hundred thousand."""
        self._first_sequence = 0
        """Of the oldest; those of the others follow it."""
        self._window_bytes = 0
        self._pending_deletions: deque[PendingDeletion] = deque()
        """Oldest first."""
        self._deletions_by_group: dict[int, deque[Deletion]] = {}
        """The same by group."""
        self._deleted_cold: dict[int, Ranges] = {}
        """Results of `deleted_cold` until a deletion of the group ends: a read asks for each, and
        a sparse deletion makes a debt for each gap."""
        self._leaving = 0
        """How many records leave with the commit that runs."""

    @property
    def has_pending_deletions(self) -> bool:
        return bool(self._pending_deletions)

    def add_record(self, sequence: int, size_bytes: int) -> None:
        """Add a record; its sequence number follows that of the one before."""
        if not self._sizes:
            self._first_sequence = sequence
        self._sizes.append(size_bytes)
        self._window_bytes += size_bytes

    def add_pending_deletion(self, pending_deletion: PendingDeletion) -> None:
        """Add a deletion of entries that may be cold."""
        self._pending_deletions.append(pending_deletion)
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
        for _, (group, first, stop) in islice(self._pending_deletions, work.trim_keys_max):
            work.trims.append(Trim(cold_key(group, first), cold_key(group, stop)))

    def is_due(self, incoming_bytes: int) -> bool:
        """Tell whether the window is too full with what comes, so that something has to leave."""
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
        barrier = sequence_of(self._pending_deletions[0].place) if self._pending_deletions else None
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
        deletion = self._pending_deletions.popleft().deletion
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
