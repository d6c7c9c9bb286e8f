"""The implementations of `LogStore` as the tests see them: one that syncs, dies and is damaged.

`InMemory` is the fake; `InStore` is the real one, on the fake disk or on LMDB, with so small a
window that a few entries make everything move.
"""

from collections.abc import Callable, Sequence
from typing import Protocol
from zlib import crc32

from fluffle.raft.config import Configuration
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.log_store import (
    DamagedLog,
    LoadedGroups,
    LogStore,
    NewSnapshot,
    Persist,
    RecoveredGroup,
    Staged,
    Write,
)
from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.heads import HEAD, IMAGE
from fluffle.storage.layout import (
    INDEX_END,
    SEQUENCE,
    Table,
    cold_key,
    raft_key,
    row_of,
    sequence_of,
)
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.raft_log import RaftLog
from tests.storage.support import SMALL, Host
from tests.support.raft_memory import DiskImage, MemoryRaftLog

THREE = Configuration.initial(["a", "b", "c"])


class Subject(Protocol):
    """A log store and its disk."""

    reported: list[int]
    """Tokens that are durable, of this life."""

    @property
    def store(self) -> LogStore: ...

    def sync(self) -> None:
        """Make durable what was submitted."""

    def restart(self) -> LoadedGroups:
        """Kill the process and start it again."""

    def damage_entry(self, group: int, index: int) -> None: ...
    def lose_entry(self, group: int, index: int) -> None: ...
    def damage_state(self, group: int) -> None: ...
    def damage_head(self, group: int) -> None: ...


class InMemory:
    """The fake."""

    def __init__(self) -> None:
        self.image = DiskImage()
        self.restart()

    def sync(self) -> None:
        self.store.sync()

    def restart(self) -> LoadedGroups:
        self.reported: list[int] = []
        self.store = MemoryRaftLog(self.image)
        self.store.on_durable = self.reported.append
        return self.store.load()

    def damage_entry(self, group: int, index: int) -> None:
        self.image.damage_entry(group, index)

    def lose_entry(self, group: int, index: int) -> None:
        self.image.lose_entry(group, index)

    def damage_state(self, group: int) -> None:
        self.image.damage_state(group)

    def damage_head(self, group: int) -> None:
        self.image.damage_head(group)


class InStore:
    """The real one."""

    def __init__(self, open_disk: Callable[[], Disk], tuning: UpkeepTuning = SMALL) -> None:
        self.host = Host(open_disk, tuning)
        self._begin()

    def _begin(self) -> LoadedGroups:
        self.reported: list[int] = []
        self.store = RaftLog(self.host.store)
        self.store.on_durable = self.reported.append
        return self.store.load()

    def sync(self) -> None:
        self.host.settle()
        assert self.host.fatal == []

    def restart(self) -> LoadedGroups:
        self.host.restart()
        return self._begin()

    # Damage, for the fake disk

    @property
    def disk(self) -> MemoryDisk:
        assert isinstance(self.host.disk, MemoryDisk)
        return self.host.disk

    def logs(self, group: int) -> list[int]:
        """Numbers of the logs of a group."""
        return self.store._groups[group].logs

    def _place(self, group: int, index: int) -> tuple[Table, bytes, int]:
        """Where an entry begins that is there: table, key and, in a record, the first byte."""
        for number in reversed(self.logs(group)):
            if not list(self.host.log.survey(number, index, index + 1, checked_from=INDEX_END)):
                continue
            place = self.host.log._groups[number].find(index)
            if not place:
                return Table.COLD, cold_key(number, index), -1
            key = SEQUENCE.pack(sequence_of(place))
            return Table.HOT, key, self._offset(key, row_of(place))
        raise AssertionError(f"group {group} index {index} is not there")

    def _offset(self, key: bytes, row: int) -> int:
        with self.disk.view() as view:
            value = bytes(view.get(Table.HOT, key) or b"")
        rows = int.from_bytes(value[16:20], "big")
        at = 24 + 40 * row
        return 24 + 40 * rows + int.from_bytes(value[at + 28 : at + 32], "big")

    def damage_entry(self, group: int, index: int) -> None:
        self.disk.flip(*self._place(group, index))

    def lose_entry(self, group: int, index: int) -> None:
        table, key, _ = self._place(group, index)
        assert table is Table.COLD, "of a hot entry the whole record would go"
        self.disk.lose(table, key)

    def image_part(self, group: int, part: int) -> tuple[Table, bytes]:
        """Where a part of a group's image is."""
        return Table.RAFT, raft_key(IMAGE, group, self.store._groups[group].slot, part)

    def damage_state(self, group: int) -> None:
        self.disk.flip(*self.image_part(group, 0), -1)

    def damage_head(self, group: int) -> None:
        self.disk.flip(Table.RAFT, raft_key(HEAD, group), -1)


def entry(index: int, term: int = 1, kind: int = DATA, payload: bytes | None = None) -> Entry:
    return Entry(index, term, kind, b"entry %d" % index if payload is None else payload)


def entries(first: int, stop: int, term: int = 1) -> list[Entry]:
    return [entry(index, term) for index in range(first, stop)]


def meta(index: int, live: Sequence[tuple[int, int]], state: bytes, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, THREE, Ranges.of(*live), len(state), crc32(state))


def snapshot(index: int, live: Sequence[tuple[int, int]], state: bytes) -> NewSnapshot:
    return NewSnapshot(meta(index, live, state), state)


def created(group: int, incarnation: int = 1, config: Configuration = THREE) -> Write:
    nothing = SnapshotMeta(0, 0, config, Ranges(), 0, 0)
    return Write(group, created_as=incarnation, install=nothing)


def staged(
    of: SnapshotMeta, content: list[Entry], through: int, state: bytes = b"", offset: int = 0
) -> Staged:
    return Staged(of, content, through, offset, state)


def everything(store: LogStore, group: int, first: int = 1, stop: int = INDEX_END) -> list[Entry]:
    """Entries that can be read, page by page."""
    found: list[Entry] = []
    while page := store.read(group, first, stop, 20):
        found += page
        first = page[-1].index + 1
    return found


def damage_of(store: LogStore, group: int) -> int | None:
    """The index at which reading ends in damage."""
    try:
        everything(store, group)
    except DamagedLog as damage:
        return damage.index if damage.group == group else None
    return None


class Writer:
    """Submits to a subject, one `Persist` after the other."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.token = 0

    def submit(self, *writes: Write) -> None:
        self.token += 1
        self.subject.store.submit(Persist(self.token, list(writes)))

    def write(self, *writes: Write) -> None:
        """Submit and make durable."""
        self.submit(*writes)
        self.subject.sync()

    def load(self) -> LoadedGroups:
        """Groups that a restart finds."""
        self.token = 0
        return self.subject.restart()

    def recovered(self, group: int) -> RecoveredGroup:
        """Group that a restart finds."""
        [found] = [found for found in self.load().groups if found.group == group]
        return found


def cool(log: Writer, group: int = 99) -> None:
    """Make what was written before leave the hot window."""
    log.write(created(group), Write(group + 1, created_as=1, install=created(1).install))
    log.write(Write(group, entries=[entry(1, payload=bytes(600))]))
    log.write(Write(group, is_drop=True), Write(group + 1, is_drop=True))
