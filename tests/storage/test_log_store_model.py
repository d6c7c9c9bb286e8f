"""Every log store against a naive model, through random writes, crashes and restarts.

The model is a dictionary of entries for each group.  It keeps the state on disk and the one after
each `Persist` that is under way; a crash leaves one of them.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fluffle.raft.config import Configuration, Member
from fluffle.raft.log import CONFIG, DATA, Entry, HardState, Quarantine, SnapshotMeta
from fluffle.raft.log_store import (
    NewSnapshot,
    Persist,
    RecoveredGroup,
    Staged,
    StagedSnapshot,
    Write,
)
from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.environment import open_environment
from tests.storage.log_stores import THREE, InMemory, InStore, Subject, created, everything
from tests.suite.seeds import machine_settings

GROUPS = st.sampled_from([1, 2**64 - 1])
FEW = st.integers(0, 6)
SIZES = st.sampled_from([0, 5, 120, 700])
PIECES = st.sampled_from([0, 10, 70_000])


@dataclass
class StagedModel:
    meta: SnapshotMeta
    entries: dict[int, Entry]
    through: int
    state: bytes
    whole_state: bytes
    """Whole state that is staged; not on disk."""

    def so_far(self) -> StagedSnapshot:
        return StagedSnapshot(self.meta, self.through, len(self.state), crc32(self.state))


@dataclass
class GroupModel:
    incarnation: int
    config: Configuration = THREE
    hard_state: HardState = HardState(0, None)  # noqa: RUF009 - a value
    meta: SnapshotMeta = field(default_factory=lambda: SnapshotMeta(0, 0, THREE, Ranges(), 0, 0))
    state: bytes = b""
    entries: dict[int, Entry] = field(default_factory=dict)
    last: int = 0
    quarantine: Quarantine | None = None
    staged: StagedModel | None = None

    @property
    def floor(self) -> int:
        return self.meta.index

    def recovered(self, group: int) -> RecoveredGroup:
        """Group that a start must find."""
        above = [self.entries[index] for index in range(self.floor + 1, self.last + 1)]
        terms: list[tuple[int, int]] = []
        for entry in above:
            if not terms or terms[-1][1] != entry.term:
                terms.append((entry.index, entry.term))
        staged = self.staged.so_far() if self.staged else None
        configs = [entry for entry in above if entry.kind == CONFIG]
        return RecoveredGroup(
            group, self.incarnation, self.hard_state, self.meta, terms, self.last, configs,
            self.quarantine, staged,
        )  # fmt: skip


Model = dict[int, GroupModel]


class Machine(RuleBasedStateMachine):
    """Writes to a subject and to the model."""

    def __init__(self, make: Callable[[], Subject]) -> None:
        super().__init__()
        self.subject = make()
        self.states: list[Model] = [{}]
        """States on disk, and after each `Persist` on its way."""
        self.token = 0
        self.serial = 0
        self.waiting: list[Write] = []
        self.next: Model = {}
        """The newest state, with what is waiting for the next `Persist`."""

    # What a group writes

    def group(self, group: int) -> tuple[Write, GroupModel]:
        """The write of a group in the next `Persist`, and its model after it; makes the group."""
        if any(write.group == group for write in self.waiting):
            self.submit()
        if group not in self.next:
            self.serial += 1
            self.waiting.append(created(group, incarnation=self.serial))
            self.next[group] = GroupModel(self.serial)
            self.submit()
        write = Write(group)
        self.waiting.append(write)
        return write, self.next[group]

    def entry(self, index: int, size: int, *, kind: int = DATA) -> Entry:
        self.serial += 1
        payload = b"%d " % self.serial + bytes(size)
        return Entry(index, 1 + self.serial // 7, kind, payload)

    @rule(group=GROUPS, count=FEW, size=SIZES, has_config=st.booleans())
    def append(self, group: int, count: int, size: int, has_config: bool) -> None:
        write, model = self.group(group)
        self.add_entries(write, model, count, size)
        if has_config:
            self.add_entries(write, model, 1, size, kind=CONFIG)

    def add_entries(
        self, write: Write, model: GroupModel, count: int, size: int, *, kind: int = DATA
    ) -> None:
        for _ in range(count):
            model.last += 1
            model.entries[model.last] = self.entry(model.last, size, kind=kind)
            write.entries.append(model.entries[model.last])

    @rule(group=GROUPS, back=FEW, count=FEW, size=SIZES)
    def replace_tail(self, group: int, back: int, count: int, size: int) -> None:
        write, model = self.group(group)
        self.truncate(write, model, max(model.floor + 1, model.last + 1 - back))
        self.add_entries(write, model, count, size)

    def truncate(self, write: Write, model: GroupModel, first: int) -> None:
        write.truncate_from = first
        model.entries = {i: entry for i, entry in model.entries.items() if i < first}
        model.last = min(model.last, first - 1)

    @rule(group=GROUPS, back=FEW, keep_every=st.integers(1, 4), size=PIECES)
    def compact(self, group: int, back: int, keep_every: int, size: int) -> None:
        write, model = self.group(group)
        index = max(model.floor, model.last - back)
        if index == model.floor:
            return
        state = b"image at %d" % index + bytes(size)
        live = [i for i in sorted(model.entries) if i <= index and i % keep_every == 0]
        meta = self.meta(index, live, state, model.entries[index].term)
        write.snapshot = NewSnapshot(meta, state)
        self.set_floor(write, model, meta, state)

    def meta(self, index: int, live: list[int], state: bytes, term: int) -> SnapshotMeta:
        ranges = Ranges.of(*((i, i + 1) for i in live))
        return SnapshotMeta(index, term, THREE, ranges, len(state), crc32(state))

    def set_floor(self, write: Write, model: GroupModel, meta: SnapshotMeta, state: bytes) -> None:
        model.meta, model.state = meta, state
        model.last = max(model.last, meta.index)
        for first, stop in meta.live.gaps(1, meta.index + 1):
            write.deletes.append((first, stop))
            for index in range(first, stop):
                model.entries.pop(index, None)

    # Snapshots of a leader

    @rule(group=GROUPS, ahead=FEW, count=FEW, size=SIZES, state_size=PIECES)
    def offer(self, group: int, ahead: int, count: int, size: int, state_size: int) -> None:
        """A first piece, of a later snapshot if one is staged: some live entries."""
        write, model = self.group(group)
        self.add_offer(write, model, ahead, count, sizes=(size, state_size))

    def add_offer(
        self, write: Write, model: GroupModel, ahead: int, count: int, *, sizes: tuple[int, int]
    ) -> None:
        before = model.staged
        through = before.through if before else model.floor
        index = max(model.last - 1, through) + ahead
        if index in (0, model.floor):
            return
        fresh = range(through + 1, min(through + 1 + count, index + 1))
        old = [i for i in sorted(model.entries) if i <= model.floor and i % 2]
        live = sorted({*old, *(before.entries if before else ()), *fresh})
        state = b"a leader's image at %d" % index + bytes(sizes[1])
        sent = self.meta(index, live, state, 1 + self.serial // 7)
        entries = [self.entry(i, sizes[0]) for i in fresh]
        kept = dict(before.entries) if before else {}
        kept |= {entry.index: entry for entry in entries}
        model.staged = StagedModel(sent, kept, index, b"", state)
        write.staged.append(Staged(sent, entries, index, 0, b""))

    @rule(group=GROUPS, size=PIECES)
    def stage(self, group: int, size: int) -> None:
        """The next piece of the state."""
        write, model = self.group(group)
        if (staged := model.staged) is None:
            return
        offset = len(staged.state)
        piece = staged.whole_state[offset : offset + size]
        write.staged.append(Staged(staged.meta, [], staged.through, offset, piece))
        staged.state += piece

    @rule(group=GROUPS, keeps_suffix=st.booleans(), count=FEW, size=SIZES)
    def install(self, group: int, keeps_suffix: bool, count: int, size: int) -> None:
        write, model = self.group(group)
        if model.staged is None:
            self.add_offer(write, model, 1, count, sizes=(size, size))
        staged = model.staged
        assert staged is not None
        if not self.is_of_use(model, staged):
            write.staged.clear()
            write.discard_staged = True
            model.staged = None
            return
        if (rest := staged.whole_state[len(staged.state) :]) or not staged.whole_state:
            piece = Staged(staged.meta, [], staged.through, len(staged.state), rest)
            write.staged.append(piece)
        write.install = staged.meta
        if not keeps_suffix or model.last < staged.meta.index:
            self.truncate(write, model, model.floor + 1)
        model.entries |= staged.entries
        model.staged = None
        self.set_floor(write, model, staged.meta, staged.whole_state)
        self.add_entries(write, model, count, size)

    def is_of_use(self, model: GroupModel, staged: StagedModel) -> bool:
        """Not if a snapshot of this node's own has overtaken it."""
        there = Ranges.of(*((i, i + 1) for i in sorted({*model.entries, *staged.entries})))
        return staged.meta.index > model.floor and not staged.meta.live.minus(there)

    @rule(group=GROUPS)
    def discard(self, group: int) -> None:
        write, model = self.group(group)
        write.discard_staged = True
        model.staged = None

    @rule(group=GROUPS)
    def empty(self, group: int) -> None:
        write, model = self.group(group)
        write.install = SnapshotMeta(0, 0, Configuration(), Ranges(), 0, 0)
        self.truncate(write, model, 1)
        model.meta, model.state, model.staged = write.install, b"", None

    # Small things

    @rule(group=GROUPS, voted=st.booleans())
    def vote(self, group: int, voted: bool) -> None:
        write, model = self.group(group)
        self.serial += 1
        vote = Member("b", self.serial) if voted else None
        write.hard_state = model.hard_state = HardState(self.serial, vote)

    @rule(group=GROUPS, first=st.one_of(st.none(), st.integers(1, 9)))
    def quarantine(self, group: int, first: int | None) -> None:
        write, model = self.group(group)
        write.is_repaired = first is None
        if first is not None:
            write.quarantine = Quarantine(first, 20, 3, needs_snapshot=first < 5)
        model.quarantine = write.quarantine

    @rule(group=GROUPS)
    def drop(self, group: int) -> None:
        if group in self.next:
            write, _ = self.group(group)
            write.is_drop = True
            del self.next[group]

    # The node

    @rule()
    def submit(self) -> None:
        self.token += 1
        writes, self.waiting = self.waiting, []
        self.states.append(deepcopy(self.next))
        self.subject.store.submit(Persist(self.token, writes))

    @rule()
    def sync(self) -> None:
        if self.waiting:
            self.submit()
        self.subject.sync()
        self.take_what_is_reported()
        assert len(self.states) == 1, "all that was submitted is durable"

    @precondition(lambda self: isinstance(self.subject, InStore))
    @rule()
    def commit(self) -> None:
        """Commit once, perhaps only the first of what is under way."""
        self.submit()
        assert isinstance(self.subject, InStore)
        self.subject.host.writer.step()
        self.take_what_is_reported()

    def take_what_is_reported(self) -> None:
        reported = self.subject.reported
        if reported:
            pending = self.token - reported[-1]
            del self.states[: len(self.states) - 1 - pending]
            reported.clear()

    @rule()
    def crash(self) -> None:
        """The process is killed; of the commit that runs nobody hears."""
        self.take_what_is_reported()
        loaded = self.subject.restart()
        self.token = 0
        self.waiting = []
        del self.states[1:]
        assert loaded.lost == []
        expected = [model.recovered(group) for group, model in sorted(self.states[0].items())]
        assert loaded.groups == expected
        self.next = deepcopy(self.states[0])

    @precondition(lambda self: isinstance(self.subject, InStore))
    @rule()
    def crash_after_the_commit(self) -> None:
        """Crash after the commit was durable and before anything was reported."""
        assert isinstance(self.subject, InStore)
        host = self.subject.host
        if host.writer.work is not None:
            running = host.store._running or []
            host.writer.commit()
            del self.states[: len(running)]
        self.crash()

    @invariant()
    def everything_durable_can_be_read(self) -> None:
        durable, newest = self.states[0], self.states[-1]
        for group, model in durable.items():
            if len(self.states) > 1 and newest.get(group) != model:
                continue  # what is under way is not asked for
            store = self.subject.store
            assert everything(store, group) == [model.entries[i] for i in sorted(model.entries)]
            assert store.read_state(group, 0, 1 << 20) == model.state
            assert store.read_state(group, 7, 5) == model.state[7:12]


def run(make: Callable[[], Subject], *, steps: int = 40) -> None:
    run_state_machine_as_test(
        lambda: Machine(make),  # type: ignore[arg-type] # a factory will do
        settings=machine_settings(stateful_step_count=steps),
    )


def on_fake_disk() -> InStore:
    disk = MemoryDisk()
    return InStore(lambda: disk)


@pytest.mark.parametrize("make", [InMemory, on_fake_disk])
def test_a_log_store_holds_what_dictionaries_would(make: Callable[[], Subject]) -> None:
    run(make)


@pytest.mark.slow("each commit is flushed to a disk")
def test_a_log_store_on_lmdb_holds_what_dictionaries_would(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    opened: list[Disk] = []

    def make() -> InStore:
        directory: Path = tmp_path_factory.mktemp("store")

        def open_again() -> Disk:
            for disk in opened:
                disk.close()
            opened[:] = [open_environment(directory)]
            return opened[0]

        return InStore(open_again)

    run(make)
    opened[0].close()
