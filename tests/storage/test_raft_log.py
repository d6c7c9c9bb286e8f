"""The log store in the store of a node: what the contract does not say but the disk needs."""

from pathlib import Path

import pytest

from fluffle.raft.log import HardState
from fluffle.raft.log_store import Persist, Write
from fluffle.storage import environment as environments
from fluffle.storage.disk import MemoryDisk
from fluffle.storage.environment import RESERVE_BYTES, LmdbEnvironment, open_environment
from fluffle.storage.errors import DiskFull, StorageError
from fluffle.storage.heads import HEAD, OWNER
from fluffle.storage.layout import PART_BYTES, Table, cold_key, raft_key, raft_place
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.raft_log import RaftLog
from fluffle.storage.reserve import RESERVE_FILE, RESERVED_BYTES
from fluffle.storage.store import Batch
from tests.storage.log_stores import (
    InStore,
    Writer,
    created,
    entries,
    entry,
    everything,
    meta,
    snapshot,
    staged,
)
from tests.storage.support import Host


@pytest.fixture
def subject() -> InStore:
    disk = MemoryDisk()
    return InStore(lambda: disk)


@pytest.fixture
def log(subject: InStore) -> Writer:
    return Writer(subject)


def keys(subject: InStore) -> list[tuple[int, int, int, int]]:
    with subject.disk.view() as view:
        return [raft_place(key) for key, _ in view.scan(Table.RAFT, b"", None)]


def values(subject: InStore, table: Table) -> int:
    with subject.disk.view() as view:
        return sum(1 for _ in view.scan(table, b"", None))


def test_a_turn_of_many_groups_is_one_record(log: Writer, subject: InStore) -> None:
    groups = range(1, 50)
    log.write(*(created(group) for group in groups))
    log.submit(*(Write(group, entries=entries(1, 3)) for group in groups))
    work = subject.host.writer.work
    assert work is not None
    assert [table for table, _, _ in work.puts] == [Table.HOT]
    subject.sync()


def test_an_election_writes_heads_only(log: Writer, subject: InStore) -> None:
    log.write(created(1), created(2))
    log.submit(*(Write(group, hard_state=HardState(2, None)) for group in (1, 2)))
    work = subject.host.writer.work
    assert work is not None
    assert [(table, key) for table, key, _ in work.puts] == [
        (Table.RAFT, raft_key(HEAD, 1)),
        (Table.RAFT, raft_key(HEAD, 2)),
    ]


def test_groups_and_journals_of_queues_do_not_meet(log: Writer, subject: InStore) -> None:
    journal = subject.host.log.unused_group()
    log.write(created(journal), created(2))
    subject.host.append(journal, 1, 2, 3)
    log.write(Write(journal, entries=entries(1, 3)), Write(2, entries=entries(1, 2)))
    numbers = [journal, *subject.logs(journal), *subject.logs(2)]
    assert len(set(numbers)) == 3
    log.write(Write(journal, is_drop=True))
    assert list(subject.host.read(journal)) == [1, 2, 3]
    log.load()
    assert subject.host.log.unused_group() > max(numbers), "numbers are not given again"
    assert everything(subject.store, 2) == entries(1, 2)


def test_numbers_of_logs_are_not_used_again_though_nothing_is_left(
    log: Writer, subject: InStore
) -> None:
    log.write(created(1))
    [number] = subject.logs(1)
    log.write(Write(1, is_drop=True))
    log.load()
    log.write(created(1))
    assert subject.logs(1) > [number]


def test_a_dropped_group_leaves_no_value_behind(log: Writer, subject: InStore) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 30), snapshot=snapshot(9, [(1, 10)], bytes(200_000))))
    sent = meta(50, [(40, 51)], bytes(150_000))
    log.write(Write(1, staged=[staged(sent, entries(40, 42), 41, bytes(100_000))]))
    log.write(Write(1, is_drop=True))
    subject.host.append(99, 1, payload=bytes(600))
    subject.host.append(99, 2, payload=bytes(600))
    subject.host.delete(99, 0)
    subject.sync()
    assert keys(subject) == []
    assert values(subject, Table.COLD) == 0
    assert list(subject.host.log._groups) == []


def test_a_smaller_image_leaves_no_part_of_the_larger_behind(log: Writer, subject: InStore) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(5, [], bytes(3 * PART_BYTES))))
    log.write(Write(1, snapshot=snapshot(6, [], b"small")))
    assert len(keys(subject)) == 3, "head, owner and one part"
    log.write(Write(1, snapshot=snapshot(7, [], b"")))
    assert len(keys(subject)) == 2


def test_logs_that_are_empty_are_given_up_with_a_snapshot(log: Writer, subject: InStore) -> None:
    log.write(created(1))
    [first] = subject.logs(1)
    log.write(Write(1, entries=entries(1, 4)))
    sent = meta(10, [(1, 2), (10, 11)], b"state")
    log.write(Write(1, staged=[staged(sent, entries(10, 11), 10, b"state")]))
    log.write(Write(1, install=sent, deletes=[(2, 10)], entries=entries(11, 12)))
    _, second = subject.logs(1)
    log.write(Write(1, snapshot=snapshot(11, [(1, 2)], b""), deletes=[(2, 12)]))
    assert subject.logs(1) == [first, second], "it holds an entry that is live"
    log.write(Write(1, snapshot=snapshot(11, [], b""), deletes=[(1, 2)]))
    log.write(Write(1, snapshot=snapshot(11, [], b"")))
    assert subject.logs(1) == [second]
    assert [part for kind, _, _, part in keys(subject) if kind == OWNER] == [second]
    log.write(Write(1, entries=entries(12, 13)))
    assert log.recovered(1).last_index == 12


def test_a_log_is_not_given_up_while_its_last_entries_are_under_way(
    log: Writer, subject: InStore
) -> None:
    log.write(created(1))
    sent = meta(1, [], b"state")
    log.submit(Write(1, staged=[staged(sent, entries(1, 2), 1, b"state")]))
    log.submit(Write(1, entries=entries(1, 6)))
    log.submit(Write(1, install=sent, deletes=[(1, 2)]))
    log.submit(Write(1, snapshot=snapshot(2, [], b"later"), deletes=[(2, 3)]))
    subject.sync()
    assert everything(subject.store, 1) == entries(3, 6)


def test_staged_pieces_are_written_once_but_for_the_end_of_each(
    log: Writer, subject: InStore
) -> None:
    state = bytes(range(256)) * 4096
    sent = meta(9, [], state)
    log.write(created(1))
    written = 0
    for offset in range(0, len(state), 1 << 18):
        piece = state[offset : offset + (1 << 18)]
        log.submit(Write(1, staged=[staged(sent, [], 9, piece, offset)]))
        work = subject.host.writer.work
        assert work is not None
        written += sum(len(value) for table, _, value in work.puts if table is Table.RAFT)
        subject.sync()
        log.load()
    assert written < 1.3 * len(state)
    log.write(Write(1, install=sent))
    assert subject.store.read_state(1, 0, 1 << 30) == state


def test_an_installed_image_leaves_nothing_of_the_former_behind(
    log: Writer, subject: InStore
) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(5, [], bytes(3 * PART_BYTES))))
    sent = meta(9, [], b"small")
    log.write(Write(1, staged=[staged(sent, [], 9, b"small")], install=sent))
    assert len(keys(subject)) == 3, "head, owner and one part"


def test_a_state_is_whole_between_its_commit_and_the_news_of_it(
    log: Writer, subject: InStore
) -> None:
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(4, [(1, 5)], b"the first")))
    log.submit(Write(1, snapshot=snapshot(8, [(1, 2), (4, 9)], b"the second")))
    subject.host.writer.commit()
    assert subject.store.read_state(1, 4, 100) == b"second"


def test_what_is_on_its_way_to_the_disk_is_not_missing(log: Writer, subject: InStore) -> None:
    """Late readers may ask for entries that were there once, and will be again."""
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 6)))
    log.write(Write(1, truncate_from=3, entries=entries(3, 4, 2)))
    log.submit(Write(1, entries=entries(4, 6, 2)))
    assert subject.store.read(1, 4, 6, 1000) == []
    subject.sync()
    assert subject.store.read(1, 4, 6, 1000) == entries(4, 6, 2)


# Damage that only a disk can have


@pytest.mark.parametrize("is_head_there", [True, False])
def test_a_group_is_lost_whether_its_head_is_damaged_or_gone(
    log: Writer, subject: InStore, is_head_there: bool
) -> None:
    log.write(created(1), created(2))
    log.write(Write(1, entries=entries(1, 30), snapshot=snapshot(9, [(1, 10)], bytes(200_000))))
    key = raft_key(HEAD, 1)
    if is_head_there:
        subject.disk.flip(Table.RAFT, key, 20)
    else:
        subject.disk.lose(Table.RAFT, key)
    loaded = log.load()
    assert ([group.group for group in loaded.groups], loaded.lost) == ([2], [1])
    with pytest.raises(ValueError, match="group 1 is not here"):
        log.write(Write(1, entries=entries(30, 31)))
    log.load()
    log.write(created(1, incarnation=2))
    assert log.load().lost == []
    log.write(Write(1, is_drop=True), Write(2, is_drop=True))
    assert keys(subject) == []
    subject.host.append(99, 1, payload=bytes(600))
    assert values(subject, Table.COLD) == 0


def test_a_lost_group_that_is_made_anew_is_empty_at_once(log: Writer, subject: InStore) -> None:
    """Though what was left of it is on disk until the next commit."""
    log.write(created(1))
    subject.disk.flip(Table.RAFT, raft_key(HEAD, 1), 20)
    assert log.load().lost == [1]
    subject.store.submit(Persist(1, [created(1, incarnation=2)]))
    assert subject.store.read_state(1, 0, 0) == b""


def test_live_ranges_that_cannot_be_read_are_what_is_there(log: Writer, subject: InStore) -> None:
    live = [(2, 4), (7, 8)]
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 12), snapshot=snapshot(8, live, b"state"),
                    deletes=[(1, 2), (4, 7), (8, 9)]))  # fmt: skip
    subject.disk.flip(*subject.image_part(1, 0), 5)
    found = log.recovered(1)
    assert list(found.snapshot.live) == live
    assert found.quarantine is not None
    assert (found.quarantine.first, found.quarantine.needs_snapshot) == (1, True)


@pytest.mark.parametrize("what", ["image", "entry"])
def test_what_was_staged_is_forgotten_if_it_is_damaged(
    log: Writer, subject: InStore, what: str
) -> None:
    sent = meta(50, [(40, 51)], bytes(150_000))
    log.write(created(1), created(2))
    log.write(Write(1, staged=[staged(sent, entries(40, 42), 41, bytes(100_000))]))
    head = subject.store._groups[1]
    assert head.staged is not None
    log.write(Write(2, entries=[entry(1, payload=bytes(600))]))
    if what == "entry":
        subject.disk.flip(Table.COLD, cold_key(head.staged.log, 41), -1)
    else:
        subject.disk.flip(Table.RAFT, raft_key(2, 1, 1, 1), -1)
    assert log.recovered(1).staged is None
    assert log.recovered(1).staged is None, "nothing was written yet"
    log.write(Write(2, entries=entries(2, 3)))
    assert log.recovered(1).staged is None
    log.write(Write(1, staged=[staged(sent, entries(40, 51), 50, bytes(150_000))], install=sent))
    assert everything(subject.store, 1) == entries(40, 51)
    assert log.recovered(1).quarantine is None


def test_an_entry_that_is_shadowed_may_be_damaged(log: Writer, subject: InStore) -> None:
    """A snapshot repairs what was damaged below the floor."""
    log.write(created(1))
    log.write(Write(1, entries=entries(1, 9), snapshot=snapshot(8, [(3, 6)], b"old")))
    log.write(Write(1, entries=[entry(9, payload=bytes(600))]))
    subject.damage_entry(1, 4)
    sent = meta(9, [(3, 6), (9, 10)], b"new")
    repair = [*entries(4, 6), entry(9, payload=bytes(600))]
    log.write(Write(1, staged=[staged(sent, repair, 9, b"new")]))
    log.write(Write(1, install=sent, truncate_from=10, deletes=[(1, 3), (6, 9)]))
    assert everything(subject.store, 1) == [*entries(3, 6), entry(9, payload=bytes(600))]
    assert log.recovered(1).quarantine is None


# A full disk


def test_proposals_need_room_and_everything_else_does_not() -> None:
    disk = MemoryDisk(room_bytes=20_000, reserve_bytes=40_000)
    host = Host(lambda: disk, UpkeepTuning(window_bytes=1000))
    log = RaftLog(host.store, room_bytes_min=10_000)
    log.load()
    write = Submitter(log)
    write(created(1))
    assert log.has_room
    write(Write(1, entries=[entry(1, payload=bytes(12_000))]))
    assert not log.has_room, "what is under way counts"
    host.settle()
    assert not log.has_room
    write(Write(1, hard_state=HardState(7, None)))
    write(Write(1, entries=[entry(2, payload=bytes(12_000))]))
    host.settle()
    assert host.store.room_bytes < 0
    write(Write(1, snapshot=snapshot(2, [], b"image"), deletes=[(1, 3)]))
    write(Write(1, entries=[entry(3, payload=bytes(1_500))]))
    host.settle()
    assert host.fatal == []
    assert log.has_room


def test_there_is_room_for_what_makes_room_when_there_is_none_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 0
    monkeypatch.setattr(environments, "free_bytes", lambda _folder: free)
    disk = open_environment(tmp_path)
    log = RaftLog(Host(lambda: disk).store)
    log.load()
    seen = []
    for mib in (200, 180, 100, 90, 50, 10, 7):
        free = mib << 20
        disk.look_for_room()
        seen.append((mib, log.has_room, log.may_grow, log.takes_entries))
    assert seen == [
        (200, True, True, True),
        (180, False, True, True),
        (100, False, True, True),
        (90, False, False, True),
        (50, False, False, True),
        (10, False, False, True),
        (7, False, False, False),
    ]
    disk.close()


def test_what_is_looked_at_without_a_commit_gives_up_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / RESERVE_FILE

    def free_bytes(_folder: str) -> int:
        return 0 if file.exists() else RESERVED_BYTES

    disk = open_environment(tmp_path)
    log = RaftLog(Host(lambda: disk).store)
    log.load()
    file.touch()
    monkeypatch.setattr(environments, "free_bytes", free_bytes)
    disk.look_for_room()
    assert not file.exists()
    assert (log.has_room, log.takes_entries) == (False, True)
    disk.close()


def test_room_that_others_made_is_found_without_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where proposals are refused there may be none."""
    free = 1 << 40
    monkeypatch.setattr(environments, "free_bytes", lambda _folder: free)
    disk = open_environment(tmp_path)
    log = RaftLog(Host(lambda: disk).store)
    log.load()
    assert log.has_room
    free = 0
    disk.look_for_room()
    assert not log.has_room
    free = 1 << 40
    assert log.has_room
    disk.close()


def test_only_a_disk_that_is_quite_full_is_fatal() -> None:
    disk = MemoryDisk(room_bytes=20_000)
    host = Host(lambda: disk, UpkeepTuning(window_bytes=1000))
    log = RaftLog(host.store, room_bytes_min=10_000)
    log.load()
    reported: list[int] = []
    log.on_durable = reported.append
    write = Submitter(log)
    write(created(1))
    write(Write(1, entries=[entry(1, payload=bytes(15_000))]))
    write(Write(1, entries=[entry(2, payload=bytes(15_000))]))
    host.settle()
    assert reported == [1]
    assert len(host.fatal) == 1, "the two that were taken together do not fit"
    with pytest.raises(StorageError, match="no room for a commit"):
        write()


@pytest.mark.slow("a map of LMDB is filled to its end")
def test_a_map_of_lmdb_fills_up_and_comes_back(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, map_bytes=RESERVE_BYTES + (24 << 20))
    host = Host(lambda: environment, UpkeepTuning(window_bytes=4 << 20))
    log = RaftLog(host.store, room_bytes_min=8 << 20)
    log.load()
    write = Submitter(log)
    write(created(1))
    last = 0
    payload = bytes(range(256)) * 2048
    while log.has_room:
        last += 1
        write(Write(1, entries=[entry(last, payload=payload)]))
        host.settle()
    assert host.store.room_bytes > 6 << 20
    for _ in range(30):  # what leaders elsewhere go on sending
        last += 1
        write(Write(1, entries=[entry(last, payload=payload)], hard_state=HardState(last, None)))
        host.settle()
    assert host.store.room_bytes < 0
    state = bytes(1 << 20)
    write(Write(1, snapshot=snapshot(last, [(1, 2)], state), deletes=[(2, last + 1)]))
    host.settle()
    assert host.fatal == []
    assert log.has_room
    assert [found.index for found in everything(log, 1)] == [1]
    environment.close()


@pytest.mark.slow("a map of LMDB is filled to its end")
def test_a_map_of_lmdb_that_is_full_ends_the_node_with_what_was_reported_intact(
    tmp_path: Path,
) -> None:
    opened: list[LmdbEnvironment] = []

    def open_again() -> LmdbEnvironment:
        for environment in opened:
            environment.close()
        opened[:] = [open_environment(tmp_path, map_bytes=20 << 20)]
        return opened[0]

    host = Host(open_again, UpkeepTuning(window_bytes=4 << 20))
    log = RaftLog(host.store)
    log.load()
    assert not log.has_room
    reported: list[int] = []
    log.on_durable = reported.append
    write = Submitter(log)
    write(created(1))
    for index in range(1, 100):
        if host.fatal:
            break
        write(Write(1, entries=[entry(index, payload=bytes(1 << 20))]))
        host.settle()
    assert [type(error) for error in host.fatal] == [DiskFull]
    host.fatal.clear()
    host.restart()
    [found] = RaftLog(host.store).load().groups
    assert found.last_index == reported[-1] - 1
    assert found.quarantine is None
    opened[0].close()


class Submitter:
    """Submits one `Persist` after the other."""

    def __init__(self, log: RaftLog) -> None:
        self._log = log
        self._token = 0

    def __call__(self, *writes: Write) -> None:
        self._token += 1
        self._log.submit(Persist(self._token, list(writes)))


def test_what_is_durable_is_reported_in_the_order_of_everybody(subject: InStore) -> None:
    order: list[object] = []
    log = subject.store
    log.on_durable = order.append
    batch = Batch()
    batch.put("queue", b"orders", b"")
    log.submit(Persist(1, [created(1)]))
    subject.host.store.submit(batch, lambda: order.append("orders"))
    log.submit(Persist(2, []))
    assert order == []
    subject.sync()
    assert order == [1, "orders", 2]
