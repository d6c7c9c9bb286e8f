"""The thread that commits, and a store that runs on it."""

from pathlib import Path
from queue import SimpleQueue
from threading import Event, current_thread, main_thread

import pytest

from fluffle.storage.batch import Batch
from fluffle.storage.disk import CommitResult, WriteTransaction
from fluffle.storage.errors import StorageError, StoreInUse
from fluffle.storage.layout import Table
from fluffle.storage.memory import MemoryDisk
from fluffle.storage.store import Store, open_store
from fluffle.storage.writer import WriterThread

DEADLINE_S = 30.0


class SlowDisk(MemoryDisk):
    """Commits once it is allowed to, and notes where."""

    __slots__ = ("allowed", "threads")

    def __init__(self) -> None:
        super().__init__()
        self.allowed = Event()
        self.threads: list[str] = []

    def commit(self, work: WriteTransaction) -> CommitResult:
        assert self.allowed.wait(DEADLINE_S)
        self.threads.append(current_thread().name)
        return super().commit(work)


def test_work_is_done_in_a_thread_of_its_own() -> None:
    disk, woken = SlowDisk(), Event()
    writer = WriterThread(disk, woken.set)
    writer.start(WriteTransaction(puts=[(Table.CATALOG, b"a", b"1")]))
    assert writer.take() is None
    disk.allowed.set()
    assert woken.wait(DEADLINE_S)
    assert isinstance(writer.take(), CommitResult)
    assert writer.take() is None
    writer.stop()
    assert disk.threads == ["storage-writer"]


def test_an_error_is_a_result() -> None:
    disk, woken = MemoryDisk(), Event()
    disk.fail_next = StorageError("input/output error")
    writer = WriterThread(disk, woken.set)
    writer.start(WriteTransaction())
    assert woken.wait(DEADLINE_S)
    assert isinstance(writer.take(), StorageError)
    writer.stop()


class BrokenDisk(MemoryDisk):
    """Fails as no disk should."""

    def commit(self, work: WriteTransaction) -> CommitResult:
        raise MemoryError("no memory for a transaction")


def test_an_error_that_nobody_expects_is_fatal_too() -> None:
    woken = Event()
    fatal: list[StorageError] = []
    store = Store(
        BrokenDisk(), lambda disk, _: WriterThread(disk, woken.set), on_fatal=fatal.append
    )
    batch = Batch()
    batch.append(1, 1, b"x")
    store.submit(batch)
    store.flush()
    assert woken.wait(DEADLINE_S)
    store.collect()
    assert [str(error) for error in fatal] == [
        "a commit failed: MemoryError('no memory for a transaction')"
    ]
    assert isinstance(fatal[0].__cause__, MemoryError)
    store.close()


def test_stopping_waits_for_the_work_and_keeps_its_result() -> None:
    disk = SlowDisk()
    writer = WriterThread(disk, lambda: None)
    writer.start(WriteTransaction())
    disk.allowed.set()
    writer.stop()
    assert isinstance(writer.take(), CommitResult)


def test_a_store_tells_in_the_thread_that_uses_it(tmp_path: Path) -> None:
    calls: SimpleQueue[object] = SimpleQueue()
    fatal: list[StorageError] = []
    store = open_store(tmp_path, call_soon=calls.put, on_fatal=fatal.append)
    told: list[int] = []

    def tell(number: int) -> None:
        assert current_thread() is main_thread()
        told.append(number)

    for number in range(1, 101):
        batch = Batch()
        batch.append(1, number, b"x")
        store.submit(batch, lambda number=number: tell(number))  # type: ignore[misc]
        store.flush()
    while len(told) < 100:
        call = calls.get(timeout=DEADLINE_S)
        assert callable(call)
        call()
    assert told == list(range(1, 101))
    store.close()
    store = open_store(tmp_path, call_soon=calls.put, on_fatal=fatal.append)
    assert [index for index, _, _ in store.log.entries(1)] == list(range(1, 101))
    with pytest.raises(StoreInUse):
        open_store(tmp_path, call_soon=calls.put, on_fatal=fatal.append)
    store.close()
    assert fatal == []


def test_a_store_closes_while_a_commit_runs() -> None:
    disk = SlowDisk()
    told: list[str] = []
    fatal: list[StorageError] = []
    store = Store(disk, lambda disk, wake: WriterThread(disk, lambda: None), on_fatal=fatal.append)
    batch = Batch()
    batch.append(1, 1, b"x")
    store.submit(batch, lambda: told.append("durable"))
    store.flush()
    disk.allowed.set()
    store.close()
    assert told == ["durable"]
    assert disk.threads == ["storage-writer"]
