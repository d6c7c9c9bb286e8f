"""A disk for tests of the core: what was submitted, what of it is durable, and a crash between.

It fits `LogStore` as far as the core's host needs, in the plainest way: dictionaries.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

from fluffle.raft.log import CONFIG, Entry, GroupId, HardState, Quarantine, SnapshotMeta
from fluffle.raft.log_store import (
    DamagedLog,
    Persist,
    RecoveredGroup,
    Staged,
    StagedSnapshot,
    Write,
)

NEVER_VOTED = HardState(0, None)


@dataclass
class Image:
    """Content of one group."""

    incarnation: int
    hard_state: HardState = NEVER_VOTED
    snapshot: SnapshotMeta | None = None
    state: bytes = b""
    entries: dict[int, Entry] = field(default_factory=dict)
    quarantine: Quarantine | None = None
    staged: list[Staged] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)

    @property
    def floor(self) -> int:
        assert self.snapshot is not None
        return self.snapshot.index

    @property
    def last(self) -> int:
        return max([*self.entries, self.floor])


class Disk:
    """All groups of a node."""

    def __init__(self) -> None:
        self.groups: dict[GroupId, Image] = {}
        self.submitted: list[Persist] = []

    def submit(self, persist: Persist) -> None:
        self.submitted.append(deepcopy(persist))

    def sync(self) -> int:
        """Make the oldest write durable; its token."""
        persist = self.submitted.pop(0)
        for write in persist.writes:
            self._do(write)
        return persist.token

    def crash(self) -> None:
        """Lose what was not durable."""
        self.submitted.clear()

    def _do(self, write: Write) -> None:
        if write.is_drop:
            self.groups.pop(write.group, None)
            return
        if write.created_as is not None:
            assert write.group not in self.groups
            self.groups[write.group] = Image(write.created_as)
        image = self.groups[write.group]
        if write.new_incarnation is not None:
            image.incarnation = write.new_incarnation
        if write.discard_staged:
            image.staged = []
        for piece in write.staged:
            stage(image, piece)
        if write.install is not None:
            install(image, write.install)
        if write.truncate_from is not None:
            keep = write.truncate_from
            image.entries = {i: e for i, e in image.entries.items() if i < keep}
        for entry in write.entries:
            assert entry.index == image.last + 1, (entry.index, image.last)
            image.entries[entry.index] = entry
            image.damaged.discard(entry.index)
        if write.snapshot is not None:
            image.snapshot, image.state = write.snapshot.meta, bytes(write.snapshot.state)
        for first, stop in write.deletes:
            assert stop - 1 <= image.floor
            for index in [index for index in image.entries if first <= index < stop]:
                del image.entries[index]
        image.hard_state = write.hard_state or image.hard_state
        if write.is_repaired:
            image.quarantine = None
        image.quarantine = write.quarantine or image.quarantine

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        image, size = self.groups[group], 0
        found: list[Entry] = []
        for index in sorted(index for index in image.entries if first <= index < stop):
            if index in image.damaged:
                if found:
                    break
                raise DamagedLog(group, index)
            size += len(image.entries[index].payload)
            if found and size > bytes_max:
                break
            found.append(image.entries[index])
        return found

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        return self.groups[group].state[offset : offset + size]

    def load(self) -> list[RecoveredGroup]:
        return [self._recovered(group, image) for group, image in self.groups.items()]

    def _recovered(self, group: GroupId, image: Image) -> RecoveredGroup:
        assert image.snapshot is not None
        floor = image.floor
        above = [image.entries[index] for index in sorted(image.entries) if index > floor]
        assert [entry.index for entry in above] == list(range(floor + 1, floor + 1 + len(above)))
        found = RecoveredGroup(group, image.incarnation, image.hard_state, deepcopy(image.snapshot))
        found.last_index = image.last
        if above:
            changes = [b for a, b in pairwise(above) if a.term != b.term]
            found.terms = [(entry.index, entry.term) for entry in [above[0], *changes]]
        found.configs = [entry for entry in above if entry.kind == CONFIG]
        found.quarantine = image.quarantine
        missing = [i for first, stop in image.snapshot.live for i in range(first, stop)]
        bad = sorted(image.damaged | {i for i in missing if i not in image.entries})
        if bad:
            last_term = above[-1].term if above else image.snapshot.term
            term = image.hard_state.term if image.last in bad else last_term
            old = image.quarantine or Quarantine(bad[0], image.last, term, False)
            first, last = min(old.first, bad[0]), max(old.last, image.last)
            sparse = old.needs_snapshot or bad[0] <= floor
            found.quarantine = Quarantine(first, last, max(old.term, term), sparse)
        if image.staged:
            state = b"".join(piece.state for piece in image.staged)
            last_piece = image.staged[-1]
            found.staged = StagedSnapshot(
                last_piece.meta, last_piece.entries_through, len(state), crc32(state)
            )
        return found


def stage(image: Image, piece: Staged) -> None:
    if image.staged and image.staged[-1].meta.identity != piece.meta.identity:
        for before in image.staged:
            before.state = b""
    held = sum(len(before.state) for before in image.staged)
    assert piece.offset == held, (piece.offset, held)
    known = [entry.index for before in image.staged for entry in before.entries]
    assert all(entry.index > max(known, default=0) for entry in piece.entries)
    image.staged.append(piece)


def install(image: Image, meta: SnapshotMeta) -> None:
    for piece in image.staged:
        for entry in piece.entries:
            image.entries[entry.index] = entry
            image.damaged.discard(entry.index)
    image.state = b"".join(piece.state for piece in image.staged)
    assert len(image.state) == meta.state_bytes
    image.snapshot, image.staged = meta, []
    image.damaged = {index for index in image.damaged if index > meta.index}
