"""Measures the log of Raft groups: commits, what they write, starts, and what a group costs.

`python -m benchmarks.log [--quick] [--only NAME,…] [--out DIR]`
"""

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from zlib import crc32

from benchmarks import disk, own, report
from benchmarks.compare import RESULTS
from benchmarks.machine import anonymous_bytes
from benchmarks.measurement import Measurement
from benchmarks.results import may_record
from fluffle.raft.config import Configuration
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.log_store import NewSnapshot, Persist, Write
from fluffle.raft.ranges import Ranges
from fluffle.storage.disk import Disk
from fluffle.storage.environment import open_environment
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.store import Store, WriterThread

THREE = Configuration.initial(["a", "b", "c"])
SIZES = {"100 B": 100, "1 KiB": 1024}
BATCHES = (1, 100, 1_000)
IMAGE = bytes(200)
RECLAIMED_BYTES = 1 << 24
"""Groups make a snapshot, of which nothing is live, so often that together they bring this much in
between: half the hot window."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    seconds: float
    rounds: int
    commits: int
    entries: int
    groups: int


FULL = Sizes(seconds=1.0, rounds=5, commits=400, entries=1_000_000, groups=10_000)
QUICK = Sizes(seconds=0.2, rounds=1, commits=100, entries=50_000, groups=500)


class Node:
    """A log store with a thread that commits; one `Persist` is under way at a time."""

    def __init__(self, folder: Path) -> None:
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._store = Store(open_environment(folder), self._writer, on_fatal=_raise)
        self._durable = self._token = 0
        self.log = RaftLog(self._store)
        self.log.on_durable = self._on_durable
        self.loaded = self.log.load()

    def _writer(self, on: Disk, _: object) -> WriterThread:
        return WriterThread(on, partial(self._wakes.put, None))

    def _on_durable(self, token: int) -> None:
        self._durable = token

    def write(self, writes: list[Write]) -> None:
        """Return when it is durable."""
        self._token += 1
        self.log.submit(Persist(self._token, writes))
        while self._durable < self._token:
            self._wakes.get()
            self._store.collect()

    def close(self) -> None:
        self._store.close()


def _raise(error: Exception) -> None:
    raise error


@contextmanager
def fresh_node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        yield node
        node.close()


def create(group: int) -> Write:
    return Write(group, created_as=1, install=SnapshotMeta(0, 0, THREE, Ranges(), 0, 0))


def compact(write: Write, first: int, index: int) -> None:
    """Add a snapshot at `index`, of which nothing is live, to what a group writes."""
    meta = SnapshotMeta(index, 1, THREE, Ranges(), len(IMAGE), crc32(IMAGE))
    write.snapshot = NewSnapshot(meta, IMAGE)
    write.deletes = [(first, index + 1)]


def steady(node: Node, groups: int, payload: bytes) -> Iterator[None]:
    """Commits of one entry for each group, made and deleted as by queues in balance."""
    every = min(max(RECLAIMED_BYTES // (groups * len(payload)), 10), 200)
    numbers = range(1, groups + 1)
    node.write([create(group) for group in numbers])
    for index in range(1, sys.maxsize):
        entry = Entry(index, 1, DATA, payload)
        writes = [Write(group, entries=[entry]) for group in numbers]
        if index > 1:
            for write in writes[index % every :: every]:  # each in its turn
                compact(write, max(1, index - every), index - 1)
        node.write(writes)
        yield


def rate(groups: int, payload: bytes, seconds: float) -> tuple[float, float]:
    """Commits a second, and CPU seconds a commit."""
    with fresh_node() as node:
        commits = steady(node, groups, payload)
        next(commits)
        count, began, cpu = 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - began) < seconds:
            next(commits)
            count += 1
        return count / passed, (time.process_time() - cpu) / count


def rates(sizes: Sizes) -> Iterator[Measurement]:
    """The log and a plain file in turn, so that whatever the disk does meets both."""
    for size, message_bytes in SIZES.items():
        for batch in BATCHES:
            payload = bytes(message_bytes * batch)
            plain: list[float] = []
            found: list[tuple[float, float]] = []
            for _ in range(sizes.rounds):
                with tempfile.NamedTemporaryFile() as file:
                    plain.append(disk.rate(Path(file.name), payload, sizes.seconds))
                found.append(rate(1, payload, sizes.seconds))
            commits = median(commits for commits, _ in found)
            what = f"commits of {batch:,} × {size}"
            yield Measurement(f"{what}: log", commits, "commits/s")
            yield Measurement(f"{what}: append and fdatasync", median(plain), "commits/s")
            yield Measurement(f"{what}: log, messages", commits * batch, "messages/s")
            yield Measurement(f"{what}: log, CPU", median(cpu for _, cpu in found) * 1e6, "µs each")
    commits, cpu = rate(1_000, bytes(100), sizes.seconds * sizes.rounds)
    yield Measurement("commits of 1,000 groups × 100 B: log, entries", commits * 1e3, "entries/s")
    yield Measurement("commits of 1,000 groups × 100 B: log, CPU", cpu * 1e6, "µs each")


def written_bytes() -> int:
    """Bytes that this process has given to write calls."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def amplification(sizes: Sizes) -> Iterator[Measurement]:
    """Bytes written for each byte of entries, with snapshots and deletions."""
    for size, message_bytes in SIZES.items():
        for groups, batch in ((1, 1), (1, 1_000), (1_000, 1)):
            with fresh_node() as node:
                commits = steady(node, groups, bytes(message_bytes * batch))
                for _ in range(sizes.commits // 2):
                    next(commits)
                before = written_bytes()
                for _ in range(sizes.commits):
                    next(commits)
                written = written_bytes() - before
            payload = sizes.commits * groups * batch * message_bytes
            what = f"bytes written for one, {groups:,} groups, {batch:,} × {size} each a commit"
            yield Measurement(what, written / payload, "×")


def in_child(act: Callable[[Path], list[float]], folder: Path) -> list[float]:
    """Result of `act` in a process of its own, so that its memory can be measured."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(act, (folder,))


def start(folder: Path) -> list[float]:
    """Seconds until everything is known, and of CPU; bytes of memory it takes, without what `load`
    returned."""
    gc.collect()
    before, began, cpu = anonymous_bytes([os.getpid()]), time.perf_counter(), time.process_time()
    node = Node(folder)
    passed, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert [found.quarantine for found in node.loaded.groups if found.quarantine] == []
    node.loaded.groups.clear()
    gc.collect()
    taken = anonymous_bytes([os.getpid()]) - before
    node.close()
    return [passed, cpu, taken]


def recovery(sizes: Sizes) -> Iterator[Measurement]:
    """Starts on a log of many entries: above the floor, then live at and below it."""
    with tempfile.TemporaryDirectory() as name:
        folder, batch = Path(name), 2_000
        node = Node(folder)
        node.write([create(1)])
        for first in range(1, sizes.entries + 1, batch):
            entries = [Entry(i, 1, DATA, bytes(100)) for i in range(first, first + batch)]
            node.write([Write(1, entries=entries)])
        node.close()
        what = f"start with {sizes.entries:,} entries of 100 B"
        passed, cpu, taken = in_child(start, folder)
        yield Measurement(f"{what} above the floor", passed, "s")
        yield Measurement(f"{what} above the floor: CPU", cpu, "s")
        yield Measurement(f"{what} above the floor: memory", taken / sizes.entries, "B each")
        node = Node(folder)
        live = Ranges.of((1, sizes.entries + 1))
        meta = SnapshotMeta(sizes.entries, 1, THREE, live, len(IMAGE), crc32(IMAGE))
        node.write([Write(1, snapshot=NewSnapshot(meta, IMAGE))])
        node.close()
        passed, cpu, taken = in_child(start, folder)
        yield Measurement(f"{what}, all live below it", passed, "s")
        yield Measurement(f"{what}, all live below it: CPU", cpu, "s")


def idle(sizes: Sizes) -> Iterator[Measurement]:
    """Groups that have a snapshot and a few entries."""
    with tempfile.TemporaryDirectory() as name:
        node = Node(Path(name))
        groups = range(1, sizes.groups + 1)
        node.write([create(group) for group in groups])
        entries = [Entry(index, 1, DATA, bytes(100)) for index in range(1, 5)]
        node.write([Write(group, entries=entries) for group in groups])
        writes = [Write(group) for group in groups]
        for write in writes:
            compact(write, 1, 3)
        node.write(writes)
        node.close()
        passed, cpu, taken = in_child(start, Path(name))
        what = f"{sizes.groups:,} idle groups"
        yield Measurement(f"{what}: start", passed, "s")
        yield Measurement(f"{what}: start, CPU", cpu, "s")
        yield Measurement(f"{what}: memory", taken / sizes.groups, "B each")


SUBJECTS: dict[str, Callable[[Sizes], Iterator[Measurement]]] = {
    "rates": rates,
    "amplification": amplification,
    "recovery": recovery,
    "idle": idle,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write record and table there")
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    if unknown := set(names) - set(SUBJECTS):
        parser.error(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    complete = not (chosen.quick or chosen.out) and names == list(SUBJECTS) and may_record()
    found: list[Measurement] = []
    for name in names:
        for row in SUBJECTS[name](QUICK if chosen.quick else FULL):
            print(f"{row.what:70} {row.shown()}", flush=True)
            found.append(row)
    command = f"python -m benchmarks.log{' --quick' * chosen.quick}"
    if chosen.out:
        own.record(found, command, chosen.out, chosen.out, name="log")
    elif complete:
        own.record(found, command, RESULTS, report.DOCS, name="log")
    return 0


if __name__ == "__main__":
    sys.exit(main())
