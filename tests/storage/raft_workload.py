"""A process that commits what Raft groups write until it is killed or done; for `test_crash.py`.

    python -m tests.storage.raft_workload DIR SEED COMMITS FIRST

As `workload.py`, for the log store: what the N-th commit writes depends on seed and N only, and
what the store must hold after it is known from the fake.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from random import Random
from zlib import crc32

from fluffle.raft.config import Member
from fluffle.raft.log import DATA, Entry, HardState, SnapshotMeta
from fluffle.raft.log_store import LogStore, NewSnapshot, Persist, RecoveredGroup, Staged, Write
from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import Disk
from fluffle.storage.environment import open_environment
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Store, WriterThread
from tests.storage.log_stores import THREE, created
from tests.storage.workload import say
from tests.support.raft_memory import DiskImage, GroupImage, MemoryRaftLog

TUNING = UpkeepTuning(window_bytes=20_000, moved_bytes=8_000, trimmed_keys=4)
GROUPS = (1, 2, 3)

State = dict[int, tuple[RecoveredGroup, list[Entry], bytes]]
"""State by group: what a start finds, every entry that can be read, and the snapshot's state."""

NOTHING: State = {}
"""Before the first commit."""


def plan(seed: int) -> Iterator[tuple[list[Write], State]]:
    """Writes of each commit, with the state of the store after it."""
    random, image, number = Random(seed), DiskImage(), 0
    while True:
        number += 1
        writes = [write(random, image, group, number) for group in GROUPS if random.random() < 0.6]
        image.apply(Persist(number, writes))
        yield writes, content(MemoryRaftLog(image))


def write(random: Random, image: DiskImage, group: int, number: int) -> Write:
    """Random write of one group."""
    if group not in image.groups:
        return created(group, incarnation=number)
    if random.random() < 0.02:
        return Write(group, is_drop=True)
    found, known = Write(group), image.groups[group]
    acts = random.choice(((append,), (append, compact), (replace_tail,), (stage,), (install,)))
    for act in acts:
        act(random, known, found, number)
    if random.random() < 0.2:
        found.hard_state = HardState(number, Member("b", 1))
    return found


def append(random: Random, known: GroupImage, found: Write, number: int) -> None:
    add(random, found, known.last_index + 1, number)


def add(random: Random, found: Write, first: int, number: int) -> None:
    for index in range(first, first + random.randint(1, 4)):
        payload = b"%d " % number + random.randbytes(random.choice((10, 300, 6_000)))
        found.entries.append(Entry(index, 1 + number // 9, DATA, payload))


def replace_tail(random: Random, known: GroupImage, found: Write, number: int) -> None:
    found.truncate_from = random.randint(known.meta.index + 1, known.last_index + 1)
    add(random, found, found.truncate_from, number)


def compact(random: Random, known: GroupImage, found: Write, number: int) -> None:
    index = random.randint(known.meta.index, known.last_index)
    if index > known.meta.index:
        live = [i for i in known.entries if i <= index and random.random() < 0.3]
        state = b"%d " % number + random.randbytes(random.choice((10, 5_000)))
        meta = meta_of(index, live, state, known.entries[index].term)
        found.snapshot = NewSnapshot(meta, state)
        found.deletes = list(meta.live.gaps(1, index + 1))


def meta_of(index: int, live: list[int], state: bytes, term: int) -> SnapshotMeta:
    ranges = Ranges.of(*((i, i + 1) for i in live))
    return SnapshotMeta(index, term, THREE, ranges, len(state), crc32(state))


def stage(random: Random, known: GroupImage, found: Write, number: int) -> None:
    """A snapshot with its entries and the first piece of its state."""
    found.discard_staged = True
    index = known.last_index + random.randint(1, 5)
    old = [i for i in known.entries if i <= known.meta.index and random.random() < 0.5]
    fresh = sorted(random.sample(range(known.meta.index + 1, index + 1), k=1))
    state = random.randbytes(random.choice((1_000, 70_000)))
    meta = meta_of(index, [*old, *fresh], state, 1 + number // 9)
    entries = [Entry(i, meta.term, DATA, random.randbytes(300)) for i in fresh]
    found.staged = [
        Staged(meta, entries, index, 0, state[:900]),
        Staged(meta, [], index, 900, state[900:]),
    ]


def install(random: Random, known: GroupImage, found: Write, number: int) -> None:
    """Install a staged snapshot, from before if it is of use, or staged now."""
    staged = known.staged
    if staged is None or staged.meta.index <= known.meta.index or not is_whole(known):
        stage(random, known, found, number)
        meta = found.staged[0].meta
    else:
        meta = staged.meta
    found.install = meta
    found.truncate_from = meta.index + 1
    found.deletes = list(meta.live.gaps(1, meta.index + 1))
    add(random, found, meta.index + 1, number)


def is_whole(known: GroupImage) -> bool:
    """True if every entry that the staged snapshot needs is still there."""
    assert known.staged is not None
    there = {*known.entries, *(entry.index for entry in known.staged.entries)}
    return all(i in there for first, stop in known.staged.meta.live for i in range(first, stop))


def content(store: LogStore) -> State:
    """Everything that a log store holds."""
    loaded = store.load()
    assert loaded.lost == []
    return {
        found.group: (
            found,
            store.read(found.group, 1, INDEX_END, 1 << 40),
            store.read_state(found.group, 0, 1 << 40),
        )
        for found in loaded.groups
    }


def held(disk: Disk) -> State:
    """State on a disk, read through a new start."""
    store = Store(disk, WriterThread, on_fatal=_raise, tuning=TUNING)
    state = content(RaftLog(store))
    store.close()
    return state


def _raise(error: Exception) -> None:
    raise error


def main() -> None:
    directory, (seed, commits, first) = Path(sys.argv[1]), map(int, sys.argv[2:])
    wakes: SimpleQueue[None] = SimpleQueue()

    def writer(disk: Disk, _: object) -> WriterThread:
        return WriterThread(disk, lambda: wakes.put(None))

    store = Store(open_environment(directory), writer, on_fatal=_raise, tuning=TUNING)
    log = RaftLog(store)
    log.load()
    say("ready")
    steps = enumerate(islice(plan(seed), first + commits), start=1)
    for number, (writes, _) in islice(steps, first, None):
        durable: list[int] = []
        log.on_durable = durable.append
        log.submit(Persist(number - first, writes))
        while not durable:
            wakes.get()
            store.collect()
        say(str(number))


if __name__ == "__main__":
    main()
