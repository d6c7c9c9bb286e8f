"""Recovery of Raft groups at a start: what each holds, and what is damaged.

Above the floor of a group's log every byte is read; below, where the log is a store of payloads
that may never be asked for, only whether each live entry is there.  Nothing is repaired, nothing is
forgotten, and damage to one group does not concern the others.
"""

from dataclasses import dataclass, field
from zlib import crc32

from fluffle.raft.log import CONFIG, Entry, GroupId, Quarantine
from fluffle.raft.log_store import LoadedGroups, RecoveredGroup, StagedSnapshot
from fluffle.raft.ranges import Ranges
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.heads import (
    Head,
    Heads,
    StagedHead,
    discard,
    drop_lost,
    head_value,
    joined,
    kind_of,
    term_of,
)
from fluffle.storage.layout import INDEX_END, PART_BYTES, Table
from fluffle.storage.log import GroupLogs, survey_logs
from fluffle.storage.store import Batch


@dataclass(slots=True)
class RecoveredEntries:
    """Entries that the logs of a group hold."""

    last: int
    """The greatest index, or the floor."""
    live: list[tuple[int, int]] = field(default_factory=list)
    """Stretches at and below the floor that are there and not damaged."""
    terms: list[tuple[int, int]] = field(default_factory=list)
    is_last_whole: bool = True
    """True if its term is known, which is the greatest."""
    configs: list[Entry] = field(default_factory=list)
    damaged: int | None = None
    """The lowest index above the floor that is damaged or missing."""


class Recovery:
    """Reader of everything that the disk has of Raft groups, once."""

    def __init__(self, log: GroupLogs, table: Heads) -> None:
        self._log = log
        self._table = table
        self.heads: dict[GroupId, Head] = {}
        """Heads of all groups that can be read."""
        self.damaged: dict[GroupId, int] = {}
        """Lowest damaged index of groups in which damage was found now."""
        self.lost: dict[GroupId, Batch] = {}
        """Deletions that would remove all that is left of a group that cannot be read."""
        self.leftovers = Batch()
        """Deletes what was staged and is of no use, because it is damaged."""

    def load(self) -> LoadedGroups:
        """Load every group, by id."""
        logs: dict[GroupId, list[int]] = {}
        for group, number in self._table.owned():
            logs.setdefault(group, []).append(number)
        for group, head in self._table.heads():
            if head is None:
                logs.setdefault(group, [])
            else:
                self.heads[group] = head
        for group in sorted(logs.keys() - self.heads.keys()):
            self.lost[group] = Batch()
            drop_lost(self.lost[group], group, logs[group], self._table.image_keys(group))
        groups = [self._group(group, head) for group, head in self.heads.items()]
        return LoadedGroups(groups, list(self.lost))

    def _group(self, group: GroupId, head: Head) -> RecoveredGroup:
        held = self._held(head)
        there = Ranges.joined(held.live)
        live, damaged = self._live(group, head, there)
        if damaged is None:
            damaged = held.damaged
        if damaged is not None:
            self.damaged[group] = damaged
        return RecoveredGroup(
            group,
            head.incarnation,
            head.hard_state,
            head.image.meta(live),
            held.terms,
            held.last,
            held.configs,
            _quarantine(head, damaged, held),
            self._staged(group, head),
        )

    def _held(self, head: Head) -> RecoveredEntries:
        floor = head.image.index
        held = RecoveredEntries(floor)
        term: int | None = None
        found = survey_logs(self._log, head.logs, 0, INDEX_END, checked_from=floor + 1)
        for index, tag, number in found:
            if index <= floor:
                if tag is not None:
                    _extend(held.live, index)
                continue
            if tag is None or index != held.last + 1:
                held.damaged = held.damaged or held.last + 1
                if term is None:
                    term = head.image.term
                    held.terms.append((floor + 1, term))
            held.last = index
            held.is_last_whole = tag is not None
            if tag is None:
                continue
            if term_of(tag) != term:
                term = term_of(tag)
                held.terms.append((index, term))
            if kind_of(tag) == CONFIG:
                held.configs += self._config(number, index)
        return held

    def _config(self, number: int, index: int) -> list[Entry]:
        entries = self._log.read(number, index, index + 1, bytes_max=0)
        return [Entry(index, term_of(entry.tag), CONFIG, entry.payload) for entry in entries]

    def _live(self, group: GroupId, head: Head, there: Ranges) -> tuple[Ranges, int | None]:
        """Return the live ranges of a snapshot, and the lowest index of damage at or below its
        floor."""
        image = head.image
        try:
            live = Ranges.from_bytes(self._table.image(group, head.slot, 0, image.live_bytes))
        except Corrupt:
            # As far as is known nothing of it is sure to be there: all of it has to come again.
            return there, 1
        missing = live.minus(there).next_from(0)
        if missing is not None:
            return live, missing[0]
        return live, None if self._is_state_whole(group, head) else image.index

    def _is_state_whole(self, group: GroupId, head: Head) -> bool:
        image = head.image
        try:
            state = self._table.image(group, head.slot, image.live_bytes, image.size_bytes)
        except Corrupt:
            return False
        return crc32(state) == image.state_crc

    def _staged(self, group: GroupId, head: Head) -> StagedSnapshot | None:
        """Return what was staged, or nothing of it if any of it is damaged: it can be sent
        again."""
        staged = head.staged
        if staged is None:
            return None
        try:
            return self._checked_staged(group, head, staged)
        except Corrupt:
            discard(self.leftovers, group, head)
            self.leftovers.write(Table.RAFT, *head_value(group, head))
            return None

    def _checked_staged(self, group: GroupId, head: Head, staged: StagedHead) -> StagedSnapshot:
        for index, tag in self._log.survey(staged.log, 0, INDEX_END, checked_from=0):
            if tag is None:
                raise CorruptEntry("staged", "the bytes do not match", staged.log, index)
        content = self._table.image(group, 1 - head.slot, 0, staged.image_bytes)
        staged.tail = content[len(content) // PART_BYTES * PART_BYTES :]
        live = Ranges.from_bytes(content[: staged.image.live_bytes])
        state = content[staged.image.live_bytes :]
        meta = staged.image.meta(live)
        return StagedSnapshot(meta, staged.entries_through, len(state), crc32(state))


def _extend(stretches: list[tuple[int, int]], index: int) -> None:
    """Add an index behind all others."""
    if stretches and stretches[-1][1] == index:
        stretches[-1] = stretches[-1][0], index + 1
    else:
        stretches.append((index, index + 1))


def _quarantine(head: Head, damaged: int | None, held: RecoveredEntries) -> Quarantine | None:
    """Join the remembered quarantine with what is found now: the lowest index of damage."""
    if damaged is None:
        return head.quarantine
    last_term = held.terms[-1][1] if held.terms else head.image.term
    term = last_term if held.is_last_whole else head.hard_state.term
    is_sparse = damaged <= head.image.index
    found = Quarantine(damaged, held.last, term, is_sparse)
    return joined(head.quarantine, found, is_last_whole=held.is_last_whole)
