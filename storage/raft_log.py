"""Log store of all Raft groups of a node, in its store: the `LogStore` of a real disk.

Each `Persist` is one batch, so that it is durable as a whole or not at all, together with what else
the node writes.

    group 7  created     logs [12]
             install     logs [12, 15]    staged entries were in log 15; nothing is copied
             snapshot    logs [15]        12 had no entry left

Rule 1: the numbers of logs are this node's own and never used twice; the ids of groups are the
cluster's.  So journals of classic queues and Raft groups share a store, and what is left of a group
cannot be taken for that of a later one.
Rule 2: heads in memory are as they will be once all that was submitted is durable.  Only what is
durable is read.
Rule 3: whatever is damaged, the others go on: each group is in quarantine, or lost, by itself.

At a start (`Recovery`) every byte above the floor of a group's log is read; below, where the log is
a store of payloads that may never be asked for, only whether each live entry is there.  Nothing is
repaired, nothing is forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

from fluffle.raft.log import CONFIG, Entry, GroupId, Quarantine
from fluffle.raft.log_store import (
    DamagedLog,
    LoadedGroups,
    Persist,
    RecoveredGroup,
    StagedSnapshot,
    Write,
)
from fluffle.raft.ranges import Ranges
from fluffle.storage import entry_reader
from fluffle.storage.environment import RESERVE_BYTES
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.heads import (
    KIND_BITS,
    Head,
    Heads,
    StagedHead,
    create,
    delete,
    discard,
    drop,
    drop_lost,
    head_value,
    install,
    joined,
    kind_of,
    replace_image,
    retire_logs,
    rewrite,
    stage,
    term_of,
)
from fluffle.storage.layout import INDEX_END, PART_BYTES, Table
from fluffle.storage.log import GroupLogs, stretches, survey_logs
from fluffle.storage.reserve import LOW_BYTES
from fluffle.storage.store import Batch, Store

ROOM_BYTES_MIN = 1 << 27
"""With less nothing more is let in: the rest is for what is under way then, here and elsewhere."""

GROWTH_SHARE = 4
"""Divisor of the growth: one of so many parts is reserved for entries that make room."""

ENTRIES_BYTES_MIN = LOW_BYTES - RESERVE_BYTES
"""Nor by these, once there is no more than a commit may take; that much, and as much again for
entries, comes of the reserve (`reserve`) if others fill the disk."""


class RaftLog:
    """Log store of a node.  Used from the thread that uses the store."""

    def __init__(
        self,
        store: Store,
        *,
        flush: Callable[[], object] | None = None,
        room_bytes_min: int = ROOM_BYTES_MIN,
    ) -> None:
        """`load` must follow.

        `flush` has the store flushed before the turn ends, so that others can write with the same
        commit; if it is not given that is done at once.
        """
        self._store = store
        self._flush = store.flush if flush is None else flush
        self._heads = Heads(store.disk)
        self._room_bytes_min = room_bytes_min
        self._groups: dict[GroupId, Head] = {}
        self._lost: dict[GroupId, Batch] = {}
        """Deletions that remove all that is left of a group without a head."""
        self._leftovers = Batch()
        """Deletions of what the start found useless; part of the first commit."""
        self._durable = 0
        """Token of the last `Persist` that is."""
        self.on_durable: Callable[[int], None] = _ignore

    @property
    def has_room(self) -> bool:
        """Counted again where there is little: if nothing may be written no commit does that."""
        if self._store.room_bytes > self._room_bytes_min:
            return True
        self._store.look_for_room()
        return self._store.room_bytes > self._room_bytes_min

    @property
    def may_grow(self) -> bool:
        return self._store.room_bytes > self._room_bytes_min // GROWTH_SHARE

    @property
    def takes_entries(self) -> bool:
        return self._store.room_bytes > ENTRIES_BYTES_MIN

    def load(self) -> LoadedGroups:
        """Load as `LogStore.load` says."""
        recovering = Recovery(self._store.log, self._heads)
        loaded = recovering.load()
        self._groups = recovering.heads
        self._lost = recovering.lost
        self._leftovers = recovering.leftovers
        return loaded

    # Writing

    def submit(self, persist: Persist, beside: Batch | None = None) -> None:
        """Submit as `LogStore.submit` says; `beside` becomes durable with it, or none of the two
        does.

        Raises `ValueError` for what contradicts what was written before, and `StorageError` once
        the store has failed: then the process must end.
        """
        batch, self._leftovers = self._leftovers, Batch()
        if beside is not None:
            batch.add(beside)
        for write in persist.writes:
            if write.is_drop:
                self._drop(batch, write.group)
            else:
                self._write(batch, write, persist.token)
        token = persist.token
        self._store.submit(batch, lambda: self._finish(token))
        self._flush()

    def _write(self, batch: Batch, write: Write, token: int) -> None:
        if write.created_as is not None:
            self._create(batch, write.group, write.created_as)
        head = self._groups.get(write.group)
        if head is None:
            raise ValueError(f"group {write.group} is not here")
        if write.snapshot is not None and head.installed_by <= self._durable:
            retire_logs(batch, write.group, head, self._store.log)
        self._write_entries(batch, write, head, token)
        if changes_head(write):
            batch.write(Table.RAFT, *head_value(write.group, head))

    def _write_entries(self, batch: Batch, write: Write, head: Head, token: int) -> None:
        """Write what a write has beside the head, which it changes, in the order of its fields."""
        group, log = write.group, self._store.log
        if write.discard_staged:
            discard(batch, group, head)
        for piece in write.staged:
            stage(batch, group, head, piece, log)
        last = max(map(log.last_index, head.logs))
        if write.truncate_from is not None:
            delete(batch, head, write.truncate_from, INDEX_END)
            last = min(last, write.truncate_from - 1)
        if write.install is not None:
            install(batch, group, head, write.install)
            head.installed_by = token
        last = max(last, head.image.index)
        for index, entry in enumerate(write.entries, start=last + 1):
            if entry.index != index:
                raise ValueError(f"group {group} index {entry.index} does not follow {index - 1}")
            tag = entry.term << KIND_BITS | entry.kind
            batch.append(head.logs[-1], index, entry.payload, tag=tag)
        if write.snapshot is not None:
            replace_image(batch, group, head, write.snapshot)
        for first, stop in write.deletes:
            if stop > head.image.index + 1:
                raise ValueError(f"group {group}: deletion up to {stop}, floor {head.image.index}")
            delete(batch, head, first, stop)
        if write.deletes or write.install is not None:
            head.deleted_by = token
        if write.hard_state is not None:
            head.hard_state = write.hard_state
        if write.new_incarnation is not None:
            head.incarnation = write.new_incarnation
        if write.quarantine is not None:
            head.quarantine = write.quarantine
        if write.is_repaired:
            head.quarantine = None

    def _create(self, batch: Batch, group: GroupId, incarnation: int) -> None:
        if group in self._groups:
            raise ValueError(f"group {group} is here already")
        if group in self._lost:
            batch.add(self._lost.pop(group))
        self._groups[group] = create(batch, group, incarnation, self._store.log)

    def _drop(self, batch: Batch, group: GroupId) -> None:
        if group in self._lost:
            batch.add(self._lost.pop(group))
        elif group in self._groups:
            drop(batch, group, self._groups.pop(group))

    def _finish(self, token: int) -> None:
        self._durable = token
        self.on_durable(token)

    def rewrite(self, group: GroupId, index: int, make: Callable[[bytes], bytes]) -> bool:
        """Rewrite as `LogStore.rewrite` says.  The hot window is left alone: most of it dies there.

        A commit does what deletions before it have left, and then writes: so an entry whose
        deletion is on its way would come back, and no deletion would ever find it again.
        """
        head, log = self._groups.get(group), self._store.log
        if head is None or index > head.image.index or head.deleted_by > self._durable:
            return False
        for number, _low, _high in stretches(log, head.logs, index, index + 1):
            if not log.is_cold(number, index):
                return False
            try:
                found = log.read(number, index, index + 1)
            except CorruptEntry as damage:
                raise DamagedLog(group, index) from damage
            for entry in found:
                self._rewrite(number, entry, make(entry.payload))
            return bool(found)
        return False

    def _rewrite(self, number: int, entry: entry_reader.StoredEntry, payload: bytes) -> None:
        if len(payload) < len(entry.payload):
            batch = Batch()
            rewrite(batch, number, entry, payload)
            self._store.submit(batch)
            self._flush()

    # Reading

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        """Read as `LogStore.read` says."""
        head = self._groups.get(group)
        if head is None:
            return []
        try:
            found = self._read(head, first, stop, bytes_max)
        except CorruptEntry as damage:
            found = self._read(head, first, damage.index, bytes_max)
            if not found:
                raise DamagedLog(group, damage.index) from damage
        whole = _without_holes(head.image.index, first, found)
        if found and not whole:
            raise DamagedLog(group, max(first, head.image.index + 1))
        return [Entry(e.index, term_of(e.tag), kind_of(e.tag), e.payload) for e in whole]

    def _read(
        self, head: Head, first: int, stop: int, bytes_max: int
    ) -> list[entry_reader.StoredEntry]:
        entries: list[entry_reader.StoredEntry] = []
        for number, low, high in stretches(self._store.log, head.logs, first, stop):
            page = self._store.log.read(number, low, high, bytes_max=bytes_max)
            bytes_max -= sum(len(entry.payload) for entry in page)
            if entries and bytes_max < 0:
                break
            entries += page
            if bytes_max <= 0 or (page and page[-1].index < high - 1):
                break
        return entries

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        """Read as `LogStore.read_state` says."""
        head = self._groups.get(group)
        if head is None or not size:
            return b""  # of a new group what is on disk may be what was left of a lost one
        try:
            return self._heads.state(group, offset, size)
        except Corrupt as damage:
            raise DamagedLog(group, head.image.index) from damage


def changes_head(write: Write) -> bool:
    """True if the head of its group is written with a write."""
    return (
        write.hard_state is not None
        or write.snapshot is not None
        or write.created_as is not None
        or write.new_incarnation is not None
        or write.install is not None
        or write.quarantine is not None
        or write.discard_staged
        or write.is_repaired
        or bool(write.staged)
    )


def _without_holes(
    floor: int, first: int, entries: list[entry_reader.StoredEntry]
) -> list[entry_reader.StoredEntry]:
    """Return the entries before the first hole: above the floor every index must be there."""
    expected = max(first, floor + 1)
    for number, entry in enumerate(entries):
        if entry.index > expected:
            return entries[:number]
        if entry.index == expected:
            expected += 1
    return entries


def _ignore(token: int) -> None:
    """Ignore a token: nothing waits for it."""


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
