"""Writer thread that commits, so that nothing else waits for the disk.

One piece of work at a time.  The thread does little in Python and nearly all of its time is spent
where the interpreter is not needed: `docs/decisions/0005-writer-thread-or-process.md`.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from fluffle.storage.disk import CommitResult, Disk, WriteTransaction
from fluffle.storage.errors import StorageError

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

    __slots__ = ("_disk", "_result", "_wake")

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

    __slots__ = ("_disk", "_result", "_thread", "_wake", "_work")

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
