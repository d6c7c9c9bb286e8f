"""A node's part in tests of the store: it commits when the test says so, and can start again."""

from collections.abc import Callable

from fluffle.storage.disk import Disk, WriteTransaction
from fluffle.storage.errors import StorageError
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import GroupLogs, UpkeepTuning
from fluffle.storage.store import Batch, Result, Store, commit

SMALL = UpkeepTuning(window_bytes=600, moved_bytes=300, trimmed_keys=2)
"""So little that a few entries make everything move."""


class ManualWriter:
    """Commits when `step` is called."""

    def __init__(self, disk: Disk, wake: Callable[[], None]) -> None:
        self._disk = disk
        self._wake = wake
        self._result: Result | None = None
        self.work: WriteTransaction | None = None

    def start(self, work: WriteTransaction) -> None:
        assert (self.work, self._result) == (None, None), "one at a time"
        self.work = work

    def take(self) -> Result | None:
        result, self._result = self._result, None
        return result

    def stop(self) -> None:
        if self.work is not None:
            self.commit()

    def commit(self) -> None:
        """Do the work, but tell nobody."""
        assert self.work is not None
        self._result = commit(self._disk, self.work)
        self.work = None

    def step(self) -> bool:
        """Do the work that is under way, if there is any, and tell."""
        if self.work is None:
            return False
        self.commit()
        self._wake()
        return True


class Host:
    """A store with a manual writer on a disk that can be opened again."""

    def __init__(self, open_disk: Callable[[], Disk], tuning: UpkeepTuning = SMALL) -> None:
        self._open_disk = open_disk
        self._tuning = tuning
        self.fatal: list[StorageError] = []
        self.reported: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Open the store again; what was under way is lost, as it is when a process is killed."""
        self.disk = self._open_disk()
        self.store = Store(
            self.disk, self._make_writer, on_fatal=self.fatal.append, tuning=self._tuning
        )

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    @property
    def log(self) -> GroupLogs:
        return self.store.log

    def submit(self, batch: Batch, name: str = "") -> None:
        self.store.submit(batch, lambda: self.reported.append(name))
        self.store.flush()

    def append(self, group: int, *indexes: int, payload: bytes = b"") -> None:
        """Append entries in one batch and make them durable."""
        batch = Batch()
        for index in indexes:
            batch.append(group, index, payload or b"entry %d" % index, tag=index)
        self.submit(batch)
        self.settle()

    def delete(self, group: int, first: int, stop: int = INDEX_END) -> None:
        batch = Batch()
        batch.delete(group, first, stop)
        self.submit(batch)

    def settle(self) -> None:
        """Commit until there is nothing to do."""
        while self.writer.step():
            pass

    def indexes(self, group: int) -> list[int]:
        return [index for index, _, _ in self.log.entries(group)]

    def read(self, group: int, first: int = 0, stop: int = INDEX_END) -> dict[int, bytes]:
        entries = self.log.read(group, first, stop, bytes_max=1 << 40)
        return {entry.index: entry.payload for entry in entries}
