"""Store of a node: batches in, "it is durable" out, one commit at a time for all users.

    submit, submit, submit, flush --> begin --> writer: one commit --> wake --> collect
                                        ^                                         |
                                        +------- what came in the meantime -------+

While one commit runs the next grows: there is no timer, a slow disk makes larger commits.

Rule 1: `on_durable` callbacks are called in the order of their batches, after the commit that
covers them, never before; by `collect` or `close`, so in the thread that calls those.
Rule 2: after an error of the disk nothing is called any more but `on_fatal`, once.  The node must
end: what has reached the disk is not known.  A callback that raises is fatal too, but the callbacks
of the same commit are still called, for their batches are durable.

The thread that commits does little in Python and nearly all of its time is spent where the
interpreter is not needed: `docs/decisions/0005-writer-thread-or-process.md`.  It makes the keys of
definitions that go by thousands, so that no turn of the loop has to.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from fluffle.storage.disk import CommitResult, Disk, WriteTransaction
from fluffle.storage.errors import StorageError
from fluffle.storage.histogram import Histogram
from fluffle.storage.layout import (
    INDEX_END,
    Change,
    Deletion,
    Table,
    catalog_item,
    catalog_key,
    catalog_prefix,
    catalog_value,
    cut,
)
from fluffle.storage.log import GroupLogs, UpkeepTuning

COMMIT_BYTES_MAX = 1 << 22
"""A commit takes no more batches beyond this: about as much as a disk writes in 10 ms."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

BYTES = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7)
"""Bounds of what is counted of commits."""

SLICE = 1024
"""No view looks at more definitions before it ends."""


class Batch:
    """Changes of logs, in order, and values of other tables."""

    __slots__ = ("catalog_removes", "changes", "removed_count", "size_bytes", "values")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.values: dict[tuple[Table, bytes], bytes | None] = {}
        """Table and key -> value as on disk; None removes."""
        self.catalog_removes: list[Iterable[bytes]] = []
        """Keys that go before `values` are written.  Invariant: none was in `values` before."""
        self.removed_count = 0
        """How many keys these are."""
        self.size_bytes = 0
        """Bytes of payload and values."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.values or self.catalog_removes)

    def append(self, group: int, index: int, payload: bytes, *, tag: int = 0) -> None:
        """Add an entry to a group's log.

        `index`, from 1, is greater than that of every entry before it; gaps do not matter.
        `tag` is 64 bits that `GroupLogs.entries` tells without reading the payload: the Raft term,
        or how many messages are in it.  Raises `ValueError` for numbers that have no place on disk.
        """
        if not (0 < index < INDEX_END and 0 <= tag <= INDEX_END and 0 <= group < INDEX_END):
            raise ValueError(f"group {group} index {index} tag {tag}")
        self.changes += cut(group, index, tag, payload)
        self.size_bytes += len(payload)

    def delete(self, group: int, first: int, stop: int) -> None:
        """Delete a group's entries from index `first` up to, not including, `stop`.

        Costs the same for one and for a million: the space is freed by later commits, slice by
        slice.  After deleting a tail its indexes may be used again.
        """
        if not (0 <= first <= stop <= INDEX_END and 0 <= group < INDEX_END):
            raise ValueError(f"group {group} from {first} up to {stop}")
        self.changes.append(Deletion(group, first, stop))

    def put(self, kind: str, name: bytes, value: bytes) -> None:
        """Write a definition, in place of what had its name."""
        self.write(Table.CATALOG, catalog_key(kind, name), catalog_value(kind, name, value))

    def remove(self, kind: str, name: bytes) -> None:
        """Delete a definition, if there is one."""
        self.erase(Table.CATALOG, catalog_key(kind, name))

    def remove_all(self, kind: str, names: Iterable[bytes], count: int) -> None:
        """Delete very many definitions: `names` are asked for, once, in the thread that commits.

        Only for a batch that has no values yet: the commit would put what is deleted here.
        """
        assert not self.values, "values come behind what is removed by thousands"
        self.catalog_removes.append(catalog_key(kind, name) for name in names)
        self.removed_count += count

    def write(self, table: Table, key: bytes, value: bytes) -> None:
        """Write a value of a table other than hot, in place of what was there."""
        self.values[table, key] = value
        self.size_bytes += len(value)

    def add(self, other: "Batch") -> None:
        """Add everything of another batch, which removes nothing by thousands, behind what is
        here."""
        assert not other.catalog_removes, "a batch that removes by thousands goes alone"
        self.changes += other.changes
        self.values.update(other.values)
        self.size_bytes += other.size_bytes

    def erase(self, table: Table, key: bytes) -> None:
        """Delete a value, if it is there."""
        self.values[table, key] = None


# Writers


Result = CommitResult | StorageError


class Writer(Protocol):
    """Port to what commits.  `wake` is given to it by its maker."""

    def start(self, work: WriteTransaction) -> None:
        """Commit; there must be no other transaction under way.  Ends with a call of `wake`."""

    def take(self) -> Result | None:
        """Return how the commit ended; None while it runs or if it was taken."""

    def stop(self) -> None:
        """Return when nothing runs any more; what has ended can still be taken."""


class InstantWriter:
    """Writer that commits where it is asked to: for a disk that takes no time."""

    def __init__(self, disk: Disk, wake: Callable[[], object]) -> None:
        """`wake` is called at once; what it then submits may be committed at once, too."""
        self._disk = disk
        self._wake = wake
        self._result: Result | None = None

    def start(self, work: WriteTransaction) -> None:
        self._result = commit(self._disk, work)
        self._wake()

    def take(self) -> Result | None:
        result, self._result = self._result, None
        return result

    def stop(self) -> None:
        """Return at once: nothing ever runs."""


class WriterThread:
    """Writer that commits in a thread of its own."""

    def __init__(self, disk: Disk, wake: Callable[[], object]) -> None:
        """`wake` is called in the thread: `loop.call_soon_threadsafe` belongs in it."""
        self._disk = disk
        self._wake = wake
        self._work: SimpleQueue[WriteTransaction | None] = SimpleQueue()
        self._result: Result | None = None
        self._thread = Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    def start(self, work: WriteTransaction) -> None:
        self._work.put(work)

    def take(self) -> Result | None:
        result, self._result = self._result, None
        return result

    def stop(self) -> None:
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._result = commit(self._disk, work)
            del work  # while it waits for more, it must not hold a batch in memory
            self._wake()


def commit(disk: Disk, work: WriteTransaction) -> Result:
    """Do a piece of work; an error is a result too, of whatever kind: the thread must not end."""
    try:
        return disk.commit(work)
    except StorageError as error:
        return error
    except Exception as error:  # noqa: BLE001 - it is reported to the loop, as fatal
        unexpected = StorageError(f"a commit failed: {error!r}")
        unexpected.__cause__ = error
        return unexpected


# The catalog


class Catalog:
    """Catalog of the definitions on disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def items(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """Return names and values of all definitions of a kind, in no useful order.  Raises
        `Corrupt`."""
        prefix = catalog_prefix(kind)
        return (item[1:] for item in self._scan(prefix, prefix[:-1] + b"\1"))

    def by_kind(self) -> dict[str, list[tuple[bytes, bytes]]]:
        """Return the names and values of all definitions there are.  Raises `Corrupt`."""
        kinds: dict[str, list[tuple[bytes, bytes]]] = {}
        for kind, name, value in self._scan(b"\0", None):
            kinds.setdefault(kind, []).append((name, value))
        return kinds

    def _scan(self, first: bytes, stop: bytes | None) -> Iterator[tuple[str, bytes, bytes]]:
        while True:
            with self._disk.view() as view:
                found = list(islice(view.scan(Table.CATALOG, first, stop), SLICE))
                items = [catalog_item(key, value) for key, value in found]
                following = bytes(found[-1][0]) + b"\0" if found else b""
            yield from items
            if len(items) < SLICE:
                return
            first = following


# The store


Submitted = tuple[Batch, Callable[[], None] | None]


class Store:
    """Store of a node.  Used from one thread, the loop's; only the writer is elsewhere."""

    def __init__(
        self,
        disk: Disk,
        make_writer: Callable[[Disk, Callable[[], None]], Writer],
        *,
        on_fatal: Callable[[StorageError], None],
        tuning: UpkeepTuning | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make_writer` gets the disk, and `collect` to be woken by.  Raises `Corrupt`."""
        self.disk = disk
        """Disk, for readers of data that the store does not manage."""
        self._on_fatal = on_fatal
        self._now_s = now_s
        self._began_s = 0.0
        """When the commit that runs began."""
        self.commit_seconds, self.commit_bytes = Histogram(SECONDS), Histogram(BYTES)
        """From when commits began until the loop heard of their end; and what was submitted."""
        self._submitted: deque[Submitted] = deque()
        self._running: list[Submitted] | None = None
        """Batches of the commit that runs; empty for one that does upkeep only."""
        self._failed: StorageError | None = None
        self._is_closing = False
        self._is_closed = False
        self.log = GroupLogs(disk, tuning or UpkeepTuning())
        self.catalog = Catalog(disk)
        self.pending_bytes = 0
        """Submitted and not durable: a measure of how far the disk is behind."""
        with disk.view() as view:
            self.used_bytes = view.used_bytes()
            """Bytes in use at the last commit, of this process or one before."""
        self.log.recover()
        self._writer = make_writer(disk, self.collect)

    @property
    def room_bytes(self) -> int:
        """Bytes that may still be added; negative in the reserve that is kept for deletions."""
        return self.disk.room_bytes - self.used_bytes - self.pending_bytes

    @property
    def is_busy(self) -> bool:
        """True if a commit is under way, whichever part submitted it."""
        return self._running is not None and self._failed is None

    def look_for_room(self) -> None:
        """Have the room counted again."""
        self.disk.look_for_room()

    def submit(self, batch: Batch, on_durable: Callable[[], None] | None = None) -> None:
        """Have a batch made durable by a commit; `flush` must follow before the turn ends.

        Raises `ValueError` if an index does not rise; then nothing of the batch is admitted.
        Raises `StorageError` after `on_fatal` or `close`.
        """
        if self._is_closed:
            raise StorageError("the store is closed")
        if self._failed is not None:
            raise self._failed
        self.log.admit(batch.changes)
        self._submitted.append((batch, on_durable))
        self.pending_bytes += batch.size_bytes

    def flush(self) -> None:
        """Begin a commit, unless one is running: then its end begins the next.

        Raises `StorageError` after `close`, which itself commits what its callbacks submit.
        """
        if self._is_closed:
            raise StorageError("the store is closed")
        if self._is_closing:
            return
        if self._running is None and (work := self._next_work()) is not None:
            self._writer.start(work)

    def collect(self) -> None:
        """Take the result of a commit, report whose batches are durable, and begin the next.

        In this order, so that one commit has what all of them write next: those that hold theirs
        back while a commit runs would else miss every second one.
        """
        if (result := self._writer.take()) is not None:
            self._notify(self._finish(result))
            self.flush()

    def close(self) -> None:
        """Make durable what was submitted, and let go of the directory.  Waits for the disk."""
        self._is_closing = True
        self._writer.stop()
        self._finish_and_notify(self._writer.take())
        while self._submitted and (work := self._next_work()) is not None:
            self._finish_and_notify(commit(self.disk, work))
        self.disk.close()
        self._is_closed = True

    def _next_work(self) -> WriteTransaction | None:
        """Return what the next commit has to do, if anything."""
        if self._failed is not None or not (self._submitted or self.log.needs_upkeep):
            return None
        changes: list[Change] = []
        values: dict[tuple[Table, bytes], bytes | None] = {}
        self._running = []
        self._began_s = self._now_s()
        size_bytes = 0
        catalog_removes: list[Iterable[bytes]] = []
        while self._submitted and size_bytes < COMMIT_BYTES_MAX:
            if values and self._submitted[0][0].catalog_removes:
                break  # a commit removes before it puts
            batch, on_durable = self._submitted.popleft()
            catalog_removes += batch.catalog_removes
            self._running.append((batch, on_durable))
            changes += batch.changes
            values.update(batch.values)
            size_bytes += batch.size_bytes
        work = WriteTransaction(catalog_removes=catalog_removes)
        for (table, key), value in values.items():
            if value is None:
                work.removes.append((table, key))
            else:
                work.puts.append((table, key, value))
        try:
            self.log.begin(changes, work)
        except StorageError as error:
            self._fail(error)
            return None
        return work

    def _finish(self, result: Result) -> list[Submitted]:
        """End the commit; return the batches that are durable by it."""
        assert self._running is not None
        if isinstance(result, StorageError):
            self._fail(result)
            return []
        durable, self._running = self._running, None
        self.log.finish(result)
        self.used_bytes = result.used_bytes
        size_bytes = 0
        for batch, _ in durable:
            size_bytes += batch.size_bytes
        self.pending_bytes -= size_bytes
        self.commit_seconds.add(self._now_s() - self._began_s)
        self.commit_bytes.add(size_bytes)
        return durable

    def _finish_and_notify(self, result: Result | None) -> None:
        if result is not None:
            self._notify(self._finish(result))

    def _notify(self, durable: list[Submitted]) -> None:
        for _, on_durable in durable:
            if on_durable is None:
                continue
            try:
                on_durable()
            except Exception as error:  # noqa: BLE001 - the batches behind it are durable as well
                unexpected = StorageError(f"a callback failed: {error!r}")
                unexpected.__cause__ = error
                self._fail(unexpected)

    def _fail(self, error: StorageError) -> None:
        """End the node; what fails after the first failure is a consequence of it."""
        if self._failed is None:
            self._failed = error
            self._on_fatal(error)


def open_store(
    directory: Path,
    *,
    call_soon: Callable[[Callable[[], None]], object],
    on_fatal: Callable[[StorageError], None],
    map_bytes: int | None = None,
    tuning: UpkeepTuning | None = None,
) -> Store:
    """Open the store of a node, with a thread that commits.

    `call_soon` has a function called in the thread that uses the store; it is called from
    another: `loop.call_soon_threadsafe`.  Raises as `open_environment` and `Store` do.
    """
    from fluffle.storage.environment import (  # noqa: PLC0415  not for stores in memory
        MAP_BYTES,
        open_environment,
    )

    environment = open_environment(directory, map_bytes=map_bytes or MAP_BYTES)

    def writer(disk: Disk, wake: Callable[[], None]) -> Writer:
        return WriterThread(disk, lambda: call_soon(wake))

    try:
        return Store(environment, writer, on_fatal=on_fatal, tuning=tuning)
    except BaseException:
        environment.close()
        raise
