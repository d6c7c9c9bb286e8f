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
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fluffle.storage.batch import Batch
from fluffle.storage.catalog import Catalog
from fluffle.storage.disk import Disk, WriteTransaction
from fluffle.storage.errors import StorageError
from fluffle.storage.histogram import Histogram
from fluffle.storage.layout import Table
from fluffle.storage.log import Log
from fluffle.storage.mover import UpkeepTuning
from fluffle.storage.record import Change
from fluffle.storage.writer import Result, Writer, WriterThread, commit

COMMIT_BYTES_MAX = 1 << 22
"""A commit takes no more batches beyond this: about as much as a disk writes in 10 ms."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BYTES = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7)
"""Bounds of what is counted of commits."""

Submitted = tuple[Batch, Callable[[], None] | None]


class Store:
    """Store of a node.  Used from one thread, the loop's; only the writer is elsewhere."""

    __slots__ = (
        "_began_s", "_failed", "_is_closed", "_is_closing", "_now_s", "_on_fatal", "_running",
        "_submitted", "_writer", "catalog", "commit_bytes", "commit_seconds", "disk", "log",
        "pending_bytes", "used_bytes",
    )  # fmt: skip

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
        """For who reads what is no affair of the store."""
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
        self.log = Log(disk, tuning or UpkeepTuning())
        self.catalog = Catalog(disk)
        self.pending_bytes = 0
        """Submitted and not durable: a measure of how far the disk is behind."""
        with disk.view() as view:
            self.used_bytes = view.used_bytes()
            """As of the last commit, of this process or one before."""
        self.log.recover()
        self._writer = make_writer(disk, self.collect)

    @property
    def room_bytes(self) -> int:
        """Bytes that may still be added; negative in the reserve that is kept for deletions."""
        return self.disk.room_bytes - self.used_bytes - self.pending_bytes

    @property
    def is_busy(self) -> bool:
        """Whether a commit is under way, whichever part submitted it."""
        return self._running is not None and self._failed is None

    def look_for_room(self) -> None:
        """Have the room counted again."""
        self.disk.look_for_room()

    def submit(self, batch: Batch, on_durable: Callable[[], None] | None = None) -> None:
        """Have a batch made durable by a commit; `flush` must follow before the turn ends.

        Raises `ValueError` if an index does not rise; then nothing of the batch is admitted.
        Raises `StorageError` after `on_fatal` or `close`.
        """
        self._check_open()
        if self._failed is not None:
            raise self._failed
        self.log.admit(batch.changes)
        self._submitted.append((batch, on_durable))
        self.pending_bytes += batch.size_bytes

    def flush(self) -> None:
        """Begin a commit, unless one is running: then its end begins the next.

        Raises `StorageError` after `close`, which itself commits what its callbacks submit.
        """
        self._check_open()
        if self._is_closing:
            return
        if self._running is None and (work := self._next_work()) is not None:
            self._writer.start(work)

    def collect(self) -> None:
        """Take the result of a commit, tell whose batches are durable, and begin the next.

        In this order, so that one commit has what all of them write next: those who hold theirs
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

    def _check_open(self) -> None:
        if self._is_closed:
            raise StorageError("the store is closed")

    def _next_work(self) -> WriteTransaction | None:
        """Return what the next commit has to do, if anything."""
        if self._failed is not None or not (self._submitted or self.log.needs_upkeep):
            return None
        changes: list[Change] = []
        values: dict[tuple[Table, bytes], bytes | None] = {}
        self._running = []
        self._began_s = self._now_s()
        size_bytes = 0
        while self._submitted and size_bytes < COMMIT_BYTES_MAX:
            batch, on_durable = self._submitted.popleft()
            self._running.append((batch, on_durable))
            changes += batch.changes
            values.update(batch.values)
            size_bytes += batch.size_bytes
        work = WriteTransaction()
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
        size_bytes = sum(batch.size_bytes for batch, _ in durable)
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
