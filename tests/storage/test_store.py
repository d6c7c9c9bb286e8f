"""The store: batches in, "it is durable" out, on both disks."""

from pathlib import Path
from queue import SimpleQueue
from threading import Event, current_thread, main_thread

import pytest

from fluffle.storage.disk import CommitResult, MemoryDisk, WriteTransaction
from fluffle.storage.environment import open_environment
from fluffle.storage.errors import Corrupt, DiskFull, StorageError, StoreInUse
from fluffle.storage.layout import RECORD_BYTES_MAX, SEQUENCE, Packer, Table
from fluffle.storage.store import (
    COMMIT_BYTES_MAX,
    SLICE,
    Batch,
    InstantWriter,
    Store,
    WriterThread,
    open_store,
)
from tests.storage.support import SMALL, Host, ManualWriter
from tests.support.deadlines import DEADLINE_S


def batch_of(index: int, payload: bytes = b"payload", group: int = 1) -> Batch:
    batch = Batch()
    batch.append(group, index, payload)
    return batch


def test_nothing_is_reported_before_the_commit(host: Host) -> None:
    host.submit(batch_of(1), "first")
    assert host.reported == []
    assert host.indexes(1) == []
    host.writer.commit()
    assert host.reported == []
    host.store.collect()
    assert host.reported == ["first"]
    assert host.indexes(1) == [1]


def test_what_comes_while_a_commit_runs_is_the_next_commit(host: Host) -> None:
    host.submit(batch_of(1), "first")
    for index in range(2, 5):
        host.submit(batch_of(index), str(index))
    assert host.writer.step()
    assert host.reported == ["first"]
    assert host.writer.work is not None
    assert [table for table, _, _ in host.writer.work.puts] == [Table.HOT]
    assert host.writer.step()
    assert host.reported == ["first", "2", "3", "4"]
    assert not host.writer.step()


def test_batches_submitted_before_a_flush_share_a_commit(host: Host) -> None:
    for index in (1, 2):
        host.store.submit(batch_of(index), lambda: host.reported.append("told"))
    assert host.writer.work is None
    host.store.flush()
    host.writer.step()
    assert host.reported == ["told", "told"]


def test_an_empty_store_has_nothing_to_flush(host: Host) -> None:
    host.store.flush()
    assert not host.writer.step()


def test_a_batch_is_not_split_though_it_makes_several_records(host: Host) -> None:
    batch = Batch()
    payload = bytes(range(256)) * (RECORD_BYTES_MAX // 512)
    for index in range(1, 6):
        batch.append(7, index, payload)
    host.submit(batch, "large")
    assert host.writer.work is not None
    assert len(host.writer.work.puts) > 1
    host.settle()
    assert host.reported == ["large"]
    assert host.read(7) == dict.fromkeys(range(1, 6), payload)


def test_a_commit_takes_only_so_much(host: Host) -> None:
    payload = bytes(COMMIT_BYTES_MAX // 2)
    for index in range(1, 5):
        host.store.submit(batch_of(index, payload), lambda: host.reported.append("told"))
    host.store.flush()
    reported = []
    while host.writer.step():
        reported.append(len(host.reported))
    assert reported[:2] == [2, 4]
    assert host.store.pending_bytes == 0


@pytest.mark.usefixtures("free_space")
def test_pending_bytes_tell_how_far_the_disk_is_behind(host: Host) -> None:
    room = host.store.room_bytes
    host.submit(batch_of(1, bytes(1000)))
    assert host.store.pending_bytes == 1000
    assert host.store.room_bytes == room - 1000
    host.settle()
    assert host.store.pending_bytes == 0
    assert host.store.used_bytes >= 1000
    assert host.store.room_bytes <= room - 1000


def test_an_index_that_does_not_rise_is_refused(host: Host) -> None:
    host.store.submit(batch_of(5))
    with pytest.raises(ValueError, match="index 5 part 0 does not follow index 5"):
        host.store.submit(batch_of(5))
    host.store.submit(batch_of(6))


def test_of_a_batch_that_is_refused_nothing_is_admitted(host: Host) -> None:
    batch = batch_of(5)
    batch.append(9, 1, b"")
    batch.append(1, 5, b"does not rise")
    with pytest.raises(ValueError, match="index 5 part 0 does not follow index 5"):
        host.store.submit(batch)
    assert host.log.unused_group() == 1
    host.append(1, 3)
    assert host.indexes(1) == [3]


def test_used_bytes_are_known_from_the_start(host: Host) -> None:
    host.append(1, 1, payload=bytes(1000))
    used = host.store.used_bytes
    host.restart()
    assert host.store.used_bytes == used >= 1000


def test_a_closed_store_takes_nothing(host: Host) -> None:
    host.store.close()
    with pytest.raises(StorageError, match="the store is closed"):
        host.store.submit(batch_of(1))
    with pytest.raises(StorageError, match="the store is closed"):
        host.store.flush()


def test_what_callbacks_submit_while_the_store_closes_is_durable(host: Host) -> None:
    host.store.submit(batch_of(1), lambda: host.submit(batch_of(2), "second"))
    host.store.flush()
    host.store.close()
    assert host.reported == ["second"]
    host.restart()
    assert host.indexes(1) == [1, 2]


@pytest.mark.parametrize(
    ("group", "index", "tag"),
    [(-1, 1, 0), (2**64 - 1, 1, 0), (1, 0, 0), (1, 2**64 - 1, 0), (1, 1, -1)],
)
def test_numbers_without_a_place_on_disk_are_refused(group: int, index: int, tag: int) -> None:
    with pytest.raises(ValueError, match=f"group {group} index {index} tag {tag}"):
        Batch().append(group, index, b"", tag=tag)


@pytest.mark.parametrize(
    ("group", "first", "stop"), [(-1, 0, 1), (1, -1, 1), (1, 2, 1), (1, 0, 2**64)]
)
def test_stretches_without_a_place_on_disk_are_refused(group: int, first: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"group {group} from {first} up to {stop}"):
        Batch().delete(group, first, stop)


def test_indexes_rise_beyond_a_restart(host: Host) -> None:
    host.append(1, 5)
    host.restart()
    with pytest.raises(ValueError, match="does not follow index 5"):
        host.store.submit(batch_of(5))


def test_close_makes_everything_durable_and_tells(host: Host) -> None:
    host.submit(batch_of(1), "running")
    host.submit(batch_of(2), "waiting")
    host.store.submit(batch_of(3), lambda: host.reported.append("not flushed"))
    host.store.close()
    assert host.reported == ["running", "waiting", "not flushed"]
    host.restart()
    assert host.indexes(1) == [1, 2, 3]


def test_a_kill_loses_what_was_not_reported_or_keeps_it_whole(host: Host) -> None:
    host.append(1, 1)
    batch = Batch()
    for index in (2, 3):
        batch.append(1, index, b"x")
    host.submit(batch, "lost")
    host.restart()
    assert host.indexes(1) == [1]
    host.submit(batch, "kept")
    host.writer.commit()
    host.restart()
    assert host.indexes(1) == [1, 2, 3]
    assert "kept" not in host.reported


def test_group_ids_are_never_given_twice(host: Host) -> None:
    host.append(8, 1)
    assert host.log.unused_group() == 9
    host.append(9, 1)
    host.delete(9, 0)
    host.settle()
    host.restart()
    assert host.log.groups() == [8]
    assert host.log.unused_group() == 10


def test_a_group_id_is_taken_by_a_definition_alone(host: Host) -> None:
    batch = Batch()
    batch.put("queue", b"orders", b"")
    for expected in (1, 2):
        assert host.log.unused_group() == expected
        host.submit(batch)
        host.settle()
        host.restart()
    host.submit(batch)
    assert host.writer.work is not None
    assert [table for table, _, _ in host.writer.work.puts] == [Table.CATALOG], "known by now"


# Failing


@pytest.fixture
def memory_host() -> Host:
    disk = MemoryDisk()
    return Host(lambda: disk)


def test_a_failed_commit_is_fatal_once_and_nothing_is_reported(memory_host: Host) -> None:
    host = memory_host
    assert isinstance(host.disk, MemoryDisk)
    host.disk.fail_next = StorageError("input/output error")
    host.submit(batch_of(1), "first")
    host.submit(batch_of(2), "second")
    host.settle()
    assert [str(error) for error in host.fatal] == ["input/output error"]
    assert host.reported == []
    with pytest.raises(StorageError, match="input/output error"):
        host.submit(batch_of(3))
    host.store.flush()
    host.store.close()
    assert host.reported == []
    assert len(host.fatal) == 1


def test_a_full_disk_is_fatal_when_the_reserve_is_used_up(memory_host: Host) -> None:
    disk = MemoryDisk(room_bytes=2000)
    host = Host(lambda: disk)
    host.append(1, 1, payload=bytes(1500))
    assert host.store.room_bytes < 500
    host.append(1, 2, payload=bytes(1500))
    assert [type(error) for error in host.fatal] == [DiskFull]


def test_a_full_map_of_lmdb_is_fatal(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, map_bytes=1 << 20)
    host = Host(lambda: environment)
    assert host.store.room_bytes < 0, "all of so small a map is reserve"
    host.append(1, 1, payload=bytes(1 << 20))
    assert [type(error) for error in host.fatal] == [DiskFull]
    environment.close()


def test_damage_in_the_window_is_fatal_when_it_would_move(memory_host: Host) -> None:
    host = memory_host
    assert isinstance(host.disk, MemoryDisk)
    host.append(1, 1)
    host.disk.flip(Table.HOT, (1).to_bytes(8, "big"), 30)
    host.append(1, 2, payload=bytes(600))
    assert [str(error) for error in host.fatal] == [
        "corrupt: table hot, record 1: head and rows do not match their checksum"
    ]


def test_a_disk_that_lies_loses_what_it_had_not_synced() -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    host.append(1, 1)
    disk.is_lying = True
    host.append(1, 2)
    assert host.indexes(1) == [1, 2]
    after = Host(disk.after_power_loss)
    assert after.indexes(1) == [1]


def test_recovery_refuses_damage_and_changes_nothing() -> None:
    disk = MemoryDisk()
    Host(lambda: disk).append(1, 1)
    disk.flip(Table.HOT, (1).to_bytes(8, "big"), 9)
    with disk.view() as view:
        before = list(view.scan(Table.HOT, b"", None))
    with pytest.raises(StorageError, match="table hot, record 1"):
        Store(disk, ManualWriter, on_fatal=lambda _: None, tuning=SMALL)
    with disk.view() as view:
        assert list(view.scan(Table.HOT, b"", None)) == before


@pytest.mark.parametrize("lost", [2, 3])
def test_recovery_misses_a_record(lost: int) -> None:
    disk = MemoryDisk()
    host = Host(lambda: disk)
    for index in range(1, 5):
        host.append(1, index)
    disk.lose(Table.HOT, SEQUENCE.pack(lost))
    with pytest.raises(Corrupt, match=f"table hot, record {lost}: it is missing"):
        host.restart()


def test_recovery_refuses_indexes_that_do_not_rise() -> None:
    disk = MemoryDisk()
    Host(lambda: disk).append(1, 3)
    packer = Packer(2, 1)
    packer.pack(batch_of(2).changes)
    [record] = packer.finish()
    disk.commit(WriteTransaction(puts=[(Table.HOT, SEQUENCE.pack(2), record)]))
    with pytest.raises(Corrupt, match="record 2: group 1 index 2 part 0 does not follow index 3"):
        Host(lambda: disk)


def test_a_callback_that_raises_is_fatal_and_those_behind_it_are_called(host: Host) -> None:
    def fail() -> None:
        raise KeyError("channel")

    for index, on_durable in enumerate(
        [fail, fail, lambda: host.reported.append("third")], start=1
    ):
        host.store.submit(batch_of(index), on_durable)
    host.store.flush()
    host.settle()
    assert host.reported == ["third"]
    assert [str(error) for error in host.fatal] == ["a callback failed: KeyError('channel')"]
    assert isinstance(host.fatal[0].__cause__, KeyError)
    with pytest.raises(StorageError, match="a callback failed"):
        host.submit(batch_of(4))


def test_commits_are_counted_by_how_long_they_took() -> None:
    moments, fatal = iter((1.0, 1.2, 5.0, 5.004)), list[StorageError]()
    store = Store(MemoryDisk(), InstantWriter, on_fatal=fatal.append, now_s=lambda: next(moments))
    for index in (1, 2):
        store.submit(batch_of(index, b"x" * 500))
        store.flush()
    seconds = dict(zip(store.commit_seconds.bounds, store.commit_seconds.up_to, strict=False))
    assert (seconds[0.0025], seconds[0.005], seconds[0.1], seconds[0.25]) == (0, 1, 1, 2)
    assert round(store.commit_seconds.total, 6) == 0.204
    assert [*store.commit_bytes.up_to][:2] == [0, 2]
    assert fatal == []


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
    reported: list[int] = []

    def tell(number: int) -> None:
        assert current_thread() is main_thread()
        reported.append(number)

    for number in range(1, 101):
        batch = Batch()
        batch.append(1, number, b"x")
        store.submit(batch, lambda number=number: tell(number))  # type: ignore[misc]
        store.flush()
    while len(reported) < 100:
        call = calls.get(timeout=DEADLINE_S)
        assert callable(call)
        call()
    assert reported == list(range(1, 101))
    store.close()
    store = open_store(tmp_path, call_soon=calls.put, on_fatal=fatal.append)
    assert [index for index, _, _ in store.log.entries(1)] == list(range(1, 101))
    with pytest.raises(StoreInUse):
        open_store(tmp_path, call_soon=calls.put, on_fatal=fatal.append)
    store.close()
    assert fatal == []


def test_a_store_closes_while_a_commit_runs() -> None:
    disk = SlowDisk()
    reported: list[str] = []
    fatal: list[StorageError] = []
    store = Store(disk, lambda disk, wake: WriterThread(disk, lambda: None), on_fatal=fatal.append)
    batch = Batch()
    batch.append(1, 1, b"x")
    store.submit(batch, lambda: reported.append("durable"))
    store.flush()
    disk.allowed.set()
    store.close()
    assert reported == ["durable"]
    assert disk.threads == ["storage-writer"]


def definitions(host: Host, kind: str) -> dict[bytes, bytes]:
    return dict(host.store.catalog.items(kind))


def test_definitions_are_found_by_kind(host: Host) -> None:
    batch = Batch()
    batch.put("queue", b"orders", b"durable")
    batch.put("queues", b"orders", b"another kind")
    batch.put("user", b"guest", b"hash")
    host.submit(batch)
    assert definitions(host, "queue") == {}
    host.settle()
    host.restart()
    assert definitions(host, "queue") == {b"orders": b"durable"}
    assert definitions(host, "user") == {b"guest": b"hash"}
    assert definitions(host, "vhost") == {}


def test_the_last_word_counts_within_a_batch_and_over_batches(host: Host) -> None:
    first, second = Batch(), Batch()
    first.put("queue", b"a", b"1")
    first.remove("queue", b"a")
    first.put("queue", b"b", b"1")
    first.put("queue", b"c", b"1")
    second.put("queue", b"a", b"2")
    second.put("queue", b"b", b"2")
    second.remove("queue", b"c")
    for batch in (first, second):
        host.store.submit(batch)
    host.store.flush()
    host.settle()
    assert definitions(host, "queue") == {b"a": b"2", b"b": b"2"}
    host.submit(first)
    host.settle()
    assert definitions(host, "queue") == {b"b": b"1", b"c": b"1"}


def test_definitions_and_entries_are_durable_together(host: Host) -> None:
    batch = Batch()
    batch.put("queue", b"orders", b"durable")
    batch.append(1, 1, b"message")
    host.submit(batch, "both")
    host.restart()
    assert (definitions(host, "queue"), host.indexes(1)) == ({}, [])
    host.submit(batch, "both")
    host.settle()
    host.restart()
    assert (definitions(host, "queue"), host.indexes(1)) == ({b"orders": b"durable"}, [1])


def test_more_than_a_slice(host: Host) -> None:
    batch = Batch()
    expected = {b"queue %d" % number: b"%d" % number for number in range(2 * SLICE + 1)}
    for name, value in expected.items():
        batch.put("queue", name, value)
    host.submit(batch)
    host.settle()
    assert definitions(host, "queue") == expected


def test_an_empty_batch_is_false() -> None:
    batch = Batch()
    assert not batch
    batch.remove("queue", b"a")
    assert batch
