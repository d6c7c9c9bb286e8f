"""Log store in memory: the fake that passes the tests of the real one, and what a disk holds.

`DiskImage` is the content of a disk, changed by whole `Persist`s; who simulates a disk adds time
and failures around it.  `MemoryRaftLog` is a log store without either: `sync` makes durable what
was submitted, and a caller that forgets it before has lost that.

Values are shared with their writers, which is fair because they must not be changed.  Damage is
a mark beside the data, so that the truth stays known.  A tail that was lost is known to be missing,
which is more than a disk can promise.
"""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field, replace
from zlib import crc32

from fluffle.raft.config import Configuration
from fluffle.raft.log import CONFIG, Entry, GroupId, HardState, Quarantine, SnapshotMeta
from fluffle.raft.log_store import (
    DamagedLog,
    LoadedGroups,
    Persist,
    RecoveredGroup,
    Staged,
    StagedSnapshot,
    Write,
)
from fluffle.raft.ranges import Ranges
from fluffle.storage.heads import joined
from fluffle.storage.raft_log import changes_head

NEVER_VOTED = HardState(0, None)
EMPTY = SnapshotMeta(0, 0, Configuration(), Ranges(), 0, 0)


@dataclass(slots=True)
class GroupImage:
    """Data of one group on one disk."""

    incarnation: int
    hard_state: HardState = NEVER_VOTED
    meta: SnapshotMeta = field(default_factory=lambda: EMPTY)
    state: bytes = b""
    entries: dict[int, Entry] = field(default_factory=dict)
    """Entries by index, rising."""
    last_index: int = 0
    """The greatest that was written, or the floor."""
    quarantine: Quarantine | None = None
    staged: Staged | None = None
    """All pieces so far as one: its `offset` is 0."""
    damaged: set[int] = field(default_factory=set)
    """Indexes whose entries cannot be read."""
    is_state_damaged: bool = False
    is_head_damaged: bool = False
    """Hard state, configuration or head of the snapshot cannot be read."""

    def copy(self) -> "GroupImage":
        """Return a copy that changes apart from this."""
        duplicate = copy(self)
        duplicate.entries, duplicate.damaged = dict(self.entries), set(self.damaged)
        if self.staged is not None:
            duplicate.staged = copy(self.staged)
            duplicate.staged.entries = list(self.staged.entries)
        return duplicate

    def remove(self, indexes: Iterable[int]) -> None:
        """Remove entries; some are not there."""
        for index in indexes:
            self.entries.pop(index, None)
            self.damaged.discard(index)

    def between(self, first: int, stop: int) -> list[int]:
        """Indexes of entries, damaged ones too, from `first` up to `stop`, rising."""
        if stop - first <= len(self.entries):
            return [index for index in range(first, stop) if index in self.entries]
        return [index for index in self.entries if first <= index < stop]


class DiskImage:
    """Durable content of all groups on one disk."""

    def __init__(self) -> None:
        self.groups: dict[GroupId, GroupImage] = {}

    def copy(self) -> "DiskImage":
        """Return a copy that changes apart from this: a backup, a stale disk."""
        duplicate = DiskImage()
        duplicate.groups = {group: image.copy() for group, image in self.groups.items()}
        return duplicate

    def apply(self, persist: Persist) -> None:
        """Make everything of a `Persist` durable.

        Raises `ValueError` for what contradicts what was written before.
        """
        for write in persist.writes:
            if write.is_drop:
                self.groups.pop(write.group, None)
                continue
            if write.created_as is not None:
                self._create(write.group, write.created_as)
            _apply(self._group(write.group), write)

    def _create(self, group: GroupId, incarnation: int) -> None:
        if group in self.groups and not self.groups[group].is_head_damaged:
            raise ValueError(f"group {group} is here already")
        self.groups[group] = GroupImage(incarnation)

    def _group(self, group: GroupId) -> GroupImage:
        if group not in self.groups:
            raise ValueError(f"group {group} is not here")
        return self.groups[group]

    # Reading, as `LogStore` says

    def load(self) -> LoadedGroups:
        loaded = LoadedGroups()
        for group, image in sorted(self.groups.items()):
            if image.is_head_damaged:
                loaded.lost.append(group)
            else:
                loaded.groups.append(_recovered(group, image))
        return loaded

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        image = self.groups.get(group)
        if image is None:
            return []
        found: list[Entry] = []
        expected = max(first, image.meta.index + 1)
        for index in image.between(first, stop):
            is_hole = index > expected
            if is_hole or index in image.damaged:
                if not found:
                    raise DamagedLog(group, expected if is_hole else index)
                break
            entry = image.entries[index]
            bytes_max -= len(entry.payload)
            if found and bytes_max < 0:
                break
            found.append(entry)
            expected = max(expected, index + 1)
        return found

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        image = self.groups.get(group)
        if image is None:
            return b""
        if image.is_state_damaged:
            raise DamagedLog(group, image.meta.index)
        return image.state[offset : offset + size]

    # Faults

    def damage_entry(self, group: GroupId, index: int) -> None:
        """Make an entry that is there unreadable."""
        assert index in self.groups[group].entries
        self.groups[group].damaged.add(index)

    def lose_entry(self, group: GroupId, index: int) -> None:
        """Remove an entry that was there."""
        del self.groups[group].entries[index]

    def damage_state(self, group: GroupId) -> None:
        """Make the state of the snapshot unreadable."""
        self.groups[group].is_state_damaged = True

    def damage_head(self, group: GroupId) -> None:
        """Make term, vote and configuration unreadable."""
        self.groups[group].is_head_damaged = True


class MemoryRaftLog:
    """Log store around an image; several in turn, when a process starts again."""

    def __init__(self, image: DiskImage) -> None:
        self.image = image
        self.has_room = self.may_grow = self.takes_entries = True
        self.on_durable: Callable[[int], None] = _ignore
        self._submitted: list[Persist] = []

    def submit(self, persist: Persist) -> None:
        self._submitted.append(persist)

    def sync(self) -> None:
        """Make durable what was submitted, and notify."""
        submitted, self._submitted = self._submitted, []
        for persist in submitted:
            self.image.apply(persist)
        if submitted:
            self.on_durable(submitted[-1].token)

    def load(self) -> LoadedGroups:
        return self.image.load()

    def rewrite(self, group: GroupId, index: int, make: Callable[[bytes], bytes]) -> bool:
        """Rewrite an entry at once."""
        found = self.image.read(group, index, index + 1, 1)
        if not found:
            return False
        entry = replace(found[0], payload=make(found[0].payload))
        self.image.groups[group].entries[index] = entry
        return True

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        return self.image.read(group, first, stop, bytes_max)

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        return self.image.read_state(group, offset, size)


def _ignore(token: int) -> None:
    """Ignore a token: nothing waits for it."""


# Writing


def _apply(image: GroupImage, write: Write) -> None:
    if write.discard_staged:
        image.staged = None
    for piece in write.staged:
        _stage(image, piece)
    if write.truncate_from is not None:
        image.remove(range(write.truncate_from, image.last_index + 1))
        image.last_index = min(image.last_index, write.truncate_from - 1)
    if write.install is not None:
        _install(image, write.install)
    image.last_index = max(image.last_index, image.meta.index)
    for entry in write.entries:
        if entry.index != image.last_index + 1:
            raise ValueError(f"index {entry.index} does not follow index {image.last_index}")
        image.entries[entry.index] = entry
        image.last_index += 1
    if write.snapshot is not None:
        image.meta, image.state = write.snapshot.meta, bytes(write.snapshot.state)
        image.is_state_damaged = False
        image.last_index = max(image.last_index, image.meta.index)
    for first, stop in write.deletes:
        if stop > image.meta.index + 1:
            raise ValueError(f"deletion up to {stop} though the floor is {image.meta.index}")
        image.remove(image.between(first, stop))
    if write.hard_state is not None:
        image.hard_state = write.hard_state
    if write.new_incarnation is not None:
        image.incarnation = write.new_incarnation
    if write.quarantine is not None:
        image.quarantine = write.quarantine
    if write.is_repaired:
        image.quarantine = None
    if changes_head(write):
        image.is_head_damaged = False


def _stage(image: GroupImage, piece: Staged) -> None:
    staged = image.staged
    if staged is None:
        staged = image.staged = Staged(piece.meta, [], 0, 0, b"")
    if staged.meta.identity != piece.meta.identity or len(staged.state) != piece.offset:
        if piece.offset:
            raise ValueError(f"a piece at {piece.offset} does not follow")
        staged.state = b""
    for entry in piece.entries:
        if staged.entries and staged.entries[-1].index >= entry.index:
            raise ValueError(f"staged index {entry.index} does not rise")
        staged.entries.append(entry)
    staged.meta = piece.meta
    staged.entries_through = piece.entries_through
    staged.state += piece.state


def _install(image: GroupImage, meta: SnapshotMeta) -> None:
    staged, image.staged = image.staged, None
    image.state = b""
    if meta.index:
        if staged is None or staged.meta.identity != meta.identity:
            raise ValueError(f"the snapshot at {meta.index} was not staged")
        if len(staged.state) != meta.state_bytes:
            raise ValueError(f"not all of the snapshot at {meta.index} was staged")
        image.state = staged.state
        image.damaged -= {entry.index for entry in staged.entries}
        image.entries |= {entry.index: entry for entry in staged.entries}
        image.entries = dict(sorted(image.entries.items()))
    image.meta = meta
    image.is_state_damaged = False


# What is found


def _recovered(group: GroupId, image: GroupImage) -> RecoveredGroup:
    """Recover a group: above the floor all damage is found, below only what is missing."""
    floor = image.meta.index
    recovered = RecoveredGroup(
        group, image.incarnation, image.hard_state, image.meta, last_index=image.last_index
    )
    damaged = [floor] if image.is_state_damaged else []
    for first, stop in image.meta.live:
        damaged += [index for index in range(first, stop) if index not in image.entries]
    term = None
    for index in range(floor + 1, image.last_index + 1):
        entry = image.entries.get(index)
        if entry is None or index in image.damaged:
            damaged.append(index)
            found = image.meta.term if term is None else term
        else:
            found = entry.term
            if entry.kind == CONFIG:
                recovered.configs.append(entry)
        if found != term:
            recovered.terms.append((index, found))
            term = found
    recovered.quarantine = image.quarantine
    if damaged:
        first, last = min(damaged), image.last_index
        last_term = recovered.terms[-1][1] if recovered.terms else image.meta.term
        is_last_whole = last == floor or last not in damaged
        term = last_term if is_last_whole else image.hard_state.term
        now = Quarantine(first, last, term, first <= floor)
        recovered.quarantine = joined(image.quarantine, now, is_last_whole=is_last_whole)
    if image.staged is not None:
        staged = image.staged
        recovered.staged = StagedSnapshot(
            staged.meta, staged.entries_through, len(staged.state), crc32(staged.state)
        )
    return recovered
