"""The directory of a store: who may open it, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from fluffle.broker.process.data_directory import lock
from fluffle.storage import environment as environments
from fluffle.storage.disk import Disk, WriteTransaction
from fluffle.storage.environment import (
    COUNTED_COMMITS,
    COUNTED_S,
    DATA_FILE,
    LEAF,
    LOCK_FILE,
    NEAR_BYTES,
    NODE,
    PAGE,
    RESERVE_BYTES,
    STORE_FOLDER,
    UNFINISHED_FOLDER,
    LmdbEnvironment,
    LmdbView,
    check_complete,
    open_environment,
    read_environment,
)
from fluffle.storage.errors import (
    Corrupt,
    NewerFormat,
    OlderFormat,
    StorageError,
    StoreInUse,
    StoreMissing,
)
from fluffle.storage.layout import FORMAT, FORMAT_KEY, SEQUENCE, Table, cold_key, format_value
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.store import Batch
from tests.storage.support import Host

OPEN = """
import sys
from pathlib import Path
from fluffle.storage.environment import open_environment
from fluffle.storage.errors import StorageError
try:
    open_environment(Path(sys.argv[1])).close()
except StorageError as error:
    print(error)
"""


READ = """
import sys
from pathlib import Path
from fluffle.storage.environment import read_environment
from fluffle.storage.layout import Table
with read_environment(Path(sys.argv[1])).view() as view:
    print(bytes(view.get(Table.CATALOG, b"a")))
"""


def open_elsewhere(directory: Path) -> str:
    """Open the store in another process; what it says."""
    command = [sys.executable, "-c", OPEN, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_second_instance_is_refused_with_the_holder(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    with pytest.raises(StoreInUse, match=f"in use by process {os.getpid()}") as caught:
        open_environment(tmp_path)
    assert caught.value.pid == os.getpid()
    assert open_elsewhere(tmp_path) == (
        f"{tmp_path} is in use by process {os.getpid()}; stop it, or choose another directory"
    )
    environment.close()
    assert open_elsewhere(tmp_path) == ""
    open_environment(tmp_path).close()


def test_a_node_that_holds_its_directory_opens_its_store(tmp_path: Path) -> None:
    with lock(tmp_path / "lock"):
        environment = open_environment(tmp_path)
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
        environment.close()


def test_a_lock_of_a_process_that_is_gone_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("1\n")
    open_environment(tmp_path).close()


def test_a_lock_without_a_number_is_still_a_lock(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    (tmp_path / LOCK_FILE).write_text("")
    with pytest.raises(StoreInUse, match="in use by another process"):
        open_environment(tmp_path)
    environment.close()


def with_format(directory: Path, value: bytes) -> bytes:
    """Make a store with another format; its file."""
    environment = open_environment(directory)
    environment.commit(WriteTransaction(puts=[(Table.SYSTEM, FORMAT_KEY, value)]))
    environment.close()
    return (directory / STORE_FOLDER / DATA_FILE).read_bytes()


@pytest.mark.parametrize("opener", [open_environment, read_environment])
def test_a_newer_format_is_refused_untouched(
    tmp_path: Path, opener: Callable[[Path], LmdbEnvironment]
) -> None:
    before = with_format(tmp_path, format_value(FORMAT + 1))
    descriptors = open_descriptors()
    with pytest.raises(NewerFormat, match=f"has format {FORMAT + 1}; this version reads formats"):
        opener(tmp_path)
    assert (tmp_path / STORE_FOLDER / DATA_FILE).read_bytes() == before
    assert open_descriptors() == descriptors
    assert "in use" not in open_elsewhere(tmp_path)


def test_a_store_of_format_1_gets_what_it_lacks_from_a_node_and_not_from_a_reader(
    tmp_path: Path,
) -> None:
    folder = tmp_path / STORE_FOLDER
    folder.mkdir()
    old = lmdb.open(str(folder), max_dbs=4)
    for name in (b"hot", b"cold", b"catalog"):
        old.open_db(name)
    with old.begin(write=True, db=old.open_db(b"system")) as transaction:
        transaction.put(FORMAT_KEY, format_value(1))
    old.close()
    with pytest.raises(OlderFormat, match="has format 1; start a node of this version on it"):
        read_environment(tmp_path)
    environment = open_environment(tmp_path)
    environment.commit(WriteTransaction(puts=[(Table.RAFT, b"key", b"value")]))
    environment.close()
    reader = read_environment(tmp_path)
    with reader.view() as view:
        assert bytes(view.get(Table.RAFT, b"key") or b"") == b"value"
        assert bytes(view.get(Table.SYSTEM, FORMAT_KEY) or b"") == format_value()
    reader.close()


def test_a_damaged_format_is_refused(tmp_path: Path) -> None:
    with_format(tmp_path, b"nonsense")
    with pytest.raises(Corrupt, match="table system, format"):
        open_environment(tmp_path)


@pytest.mark.parametrize("opener", [open_environment, read_environment])
def test_a_file_of_something_else_is_refused_untouched(
    tmp_path: Path, opener: Callable[[Path], LmdbEnvironment]
) -> None:
    data = tmp_path / STORE_FOLDER / DATA_FILE
    data.parent.mkdir()
    data.write_bytes(b"these are not pages" * 1000)
    with pytest.raises(StorageError):
        opener(tmp_path)
    assert data.read_bytes() == b"these are not pages" * 1000


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="holds no store"):
        read_environment(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opener", [open_environment, read_environment])
def test_a_store_without_its_tables_is_corrupt(
    tmp_path: Path, opener: Callable[[Path], LmdbEnvironment]
) -> None:
    folder = tmp_path / STORE_FOLDER
    folder.mkdir()
    lmdb.open(str(folder), max_dbs=1).close()
    with pytest.raises(Corrupt):
        opener(tmp_path)
    environment = lmdb.open(str(folder), max_dbs=1)
    environment.open_db(b"system")
    environment.close()
    with pytest.raises(Corrupt, match="the format is missing"):
        opener(tmp_path)


def test_room_is_what_the_file_system_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = open_environment(tmp_path)
    system = os.statvfs(tmp_path)
    data = tmp_path / STORE_FOLDER / DATA_FILE
    for free_blocks in (1 << 16, 100, 0):
        fields = list(system)
        fields[1], fields[4] = 4096, free_blocks  # f_frsize, f_bavail
        monkeypatch.setattr(os, "statvfs", lambda _, left=fields: os.statvfs_result(left))
        left = data.stat().st_size + 4096 * free_blocks
        environment.commit(WriteTransaction(puts=[(Table.CATALOG, b"a", b"1")]))
        assert environment.room_bytes == left - RESERVE_BYTES
    environment.close()


def test_room_is_counted_now_and_then_while_there_is_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking costs the writer the interpreter; others may fill a disk meanwhile."""
    times_s, looks = [0.0], []
    fields = list(os.statvfs(tmp_path))
    fields[1], fields[4] = 4096, 1 << 30  # f_frsize, f_bavail

    def look(folder: str | Path) -> os.statvfs_result:
        if Path(folder).is_relative_to(tmp_path):  # brokers in other threads look at theirs
            looks.append(times_s[0])
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", look)
    environment = open_environment(tmp_path, now_s=lambda: times_s[0])

    def commits(count: int) -> int:
        looks.clear()
        for number in range(count):
            environment.commit(WriteTransaction(puts=[(Table.CATALOG, b"a", b"%d" % number)]))
        return len(looks)

    assert commits(COUNTED_COMMITS) == 1
    assert commits(2 * COUNTED_COMMITS) == 2
    assert commits(COUNTED_COMMITS // 2) == 1
    times_s[0] += 2 * COUNTED_S
    assert commits(COUNTED_COMMITS // 4) == 1
    fields[4] = NEAR_BYTES // 4096 // 2
    times_s[0] += 2 * COUNTED_S
    assert commits(10) == 10
    environment.close()


def test_what_leaves_the_hot_table_is_missed_soon(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, now_s=lambda: 0.0)
    puts = [(Table.HOT, SEQUENCE.pack(number), bytes(1 << 20)) for number in (1, 2, 3)]
    environment.commit(WriteTransaction(puts=puts))
    removes = [(Table.HOT, SEQUENCE.pack(number)) for number in (1, 2)]
    used = [environment.commit(WriteTransaction(removes=removes)).used_bytes]
    used += [environment.commit(WriteTransaction()).used_bytes for _ in range(COUNTED_COMMITS)]
    assert used == sorted(used, reverse=True)
    assert used[-1] + (2 << 20) <= used[0]
    with environment.view() as view:
        assert view.used_bytes() == used[-1]
    environment.close()


def test_a_store_that_was_not_finished_is_made_again(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED_FOLDER).mkdir()
    (tmp_path / UNFINISHED_FOLDER / DATA_FILE).write_bytes(bytes(5000))
    open_environment(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [STORE_FOLDER, LOCK_FILE]


class Announcing:
    """LMDB, which tells the number of a commit as soon as the page that has it is written, and not
    only once the disk has it: `look` is called in between."""

    def __init__(self, environment: lmdb.Environment, look: Callable[[], None]) -> None:
        self._environment = environment
        self._look = look

    @contextmanager
    def begin(self, **options: Any) -> Iterator[lmdb.Transaction]:
        with self._environment.begin(**options) as transaction:
            yield transaction
        self._look()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)


def test_no_commit_is_reported_before_it_is_durable(tmp_path: Path) -> None:
    """A node of whose disk others know a commit that a power failure takes may not start again."""
    environment = open_environment(tmp_path)
    seen: list[int] = []
    announcing = Announcing(
        environment._environment, lambda: seen.append(environment.commit_number)
    )
    environment._environment = announcing  # type: ignore[assignment]
    before = environment.commit_number
    puts = [(Table.CATALOG, b"a", b"1")]
    environment.commit(WriteTransaction(puts=puts))
    assert (seen, environment.commit_number) == ([before], before + 1)
    environment.commit(WriteTransaction(removes=[(Table.CATALOG, b"nothing")]))
    assert environment.commit_number == before + 1, "nothing was written"
    environment.commit(WriteTransaction(puts=puts))
    assert (seen, environment.commit_number) == ([before, before + 1, before + 1], before + 2)
    announcing.begin = failing  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        environment.commit(WriteTransaction(puts=puts))
    assert environment.commit_number == before + 2
    environment.close()


def failing(**_options: Any) -> Any:
    raise lmdb.DiskError("the disk is gone")


def test_reading_goes_on_beside_the_owner(tmp_path: Path) -> None:
    owner = open_environment(tmp_path)
    owner.commit(WriteTransaction(puts=[(Table.CATALOG, b"a", b"seen beside the owner")]))
    command = [sys.executable, "-c", READ, str(tmp_path)]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "seen beside the owner" in seen
    owner.close()


def test_a_reader_cannot_commit(tmp_path: Path) -> None:
    open_environment(tmp_path).close()
    reader = read_environment(tmp_path)
    with pytest.raises(StorageError):
        reader.commit(WriteTransaction(puts=[(Table.CATALOG, b"a", b"2")]))
    reader.close()


def test_a_commit_of_which_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    with pytest.raises(StorageError):
        environment.commit(WriteTransaction(puts=[(Table.COLD, b"", b"an empty key")]))
    environment.close()


def fail_reading(*_: object) -> None:
    raise lmdb.PageNotFoundError("page 7")


def test_what_lmdb_says_while_reading_is_an_error_of_the_store(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    with pytest.raises(StorageError, match="BAD_VALSIZE"), environment.view() as view:
        view.get(Table.COLD, b"")
    with pytest.raises(Corrupt, match="page 7"), environment.view():
        fail_reading()
    environment.close()
    with pytest.raises(StorageError), environment.view():
        pass


def test_pages_that_cannot_be_read_are_fatal_to_upkeep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = open_environment(tmp_path)
    host = Host(lambda: environment)
    host.append(1, 1)
    monkeypatch.setattr(LmdbView, "get", fail_reading)
    host.append(1, 2, payload=bytes(600))
    file = tmp_path / STORE_FOLDER / DATA_FILE
    assert [str(error) for error in host.fatal] == [f"corrupt: {file}: page 7"]
    assert host.reported == [""]
    environment.close()


def test_space_is_used_again(tmp_path: Path) -> None:
    """Short-lived data does not make the file grow."""
    opened: list[LmdbEnvironment] = []

    def open_disk() -> Disk:
        opened.append(open_environment(tmp_path))
        return opened[-1]

    host = Host(open_disk, UpkeepTuning(window_bytes=100_000, moved_bytes=50_000))
    data = tmp_path / STORE_FOLDER / DATA_FILE
    sizes = []
    for index in range(1, 150):
        batch = Batch()
        batch.append(1, index, bytes(10_000))
        batch.delete(1, 0, max(0, index - 20))
        host.submit(batch)
        host.settle()
        sizes.append(data.stat().st_size)
    assert sizes[-1] == sizes[75]
    assert sizes[-1] < 3_000_000
    assert host.indexes(1) == list(range(129, 150))
    opened[0].close()


@pytest.mark.parametrize("name", [LOCK_FILE, UNFINISHED_FOLDER])
def test_a_directory_that_cannot_keep_a_store_is_named(tmp_path: Path, name: str) -> None:
    """The system says what is wrong; that it concerns the store, it does not."""
    if name == LOCK_FILE:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).touch()
    with pytest.raises(StorageError, match=f"cannot open the store in {tmp_path}: .*{name}"):
        open_environment(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != LOCK_FILE] == (
        [] if name == LOCK_FILE else [name]
    )


def test_the_whole_way_to_a_new_store_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(environments, "_sync_folder", synced.append)
    directory = tmp_path / "new" / "newer" / "newest"
    directory.mkdir(parents=True)
    (tmp_path / "link").symlink_to(directory)
    open_environment(tmp_path / "link").close()
    assert [folder.resolve() for folder in synced[1:5]] == [directory, *directory.parents[:3]]


def test_the_way_to_a_store_ends_where_nothing_can_be_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(environments, "_sync_folder", synced.append)
    monkeypatch.setattr(os, "access", lambda folder, _mode: folder != tmp_path)
    directory = tmp_path / "new"
    directory.mkdir()
    open_environment(directory).close()
    assert synced == [directory / UNFINISHED_FOLDER, directory]


PAGE_BYTES = 4096


def test_a_file_without_its_end_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    puts = [(Table.COLD, cold_key(1, index), bytes(900)) for index in range(1, 400)]
    environment.commit(WriteTransaction(puts=[*puts, (Table.HOT, b"a", bytes(100_000))]))
    environment.close()
    file = tmp_path / STORE_FOLDER / DATA_FILE
    whole = file.read_bytes()
    for size in range(2 * PAGE_BYTES, len(whole), 7 * PAGE_BYTES + 100):
        file.write_bytes(whole[:size])
        for opening in (open_environment, read_environment):
            with pytest.raises(Corrupt) as caught:
                opening(tmp_path)
            assert str(caught.value) == (
                f"corrupt: {file}: it has {size} bytes, its pages need {len(whole)}"
            )
        assert file.read_bytes() == whole[:size]
    file.write_bytes(whole)
    open_environment(tmp_path).close()


def test_what_was_taken_and_freed_by_one_commit_is_not_missed(tmp_path: Path) -> None:
    """LMDB counts pages at the end that it has never written."""
    random, keys, shorter = Random(1), list[bytes](), 0
    with lmdb.open(str(tmp_path), map_size=1 << 30, max_dbs=1, sync=False) as environment:
        table = environment.open_db(b"t")
        for _ in range(400):
            with environment.begin(write=True, db=table) as transaction:
                for _ in range(random.randrange(200)):
                    if keys and random.random() < 0.5:
                        transaction.delete(keys.pop(random.randrange(len(keys))))
                    else:
                        keys.append(random.randbytes(12))
                        transaction.put(keys[-1], bytes(random.choice((5, 500, 3000, 9000))))
            file, last = tmp_path / DATA_FILE, environment.info()["last_pgno"]
            shorter += file.stat().st_size < (last + 1) * PAGE_BYTES
            check_complete(file, page_bytes=PAGE_BYTES, last_page=last)
    assert shorter > 0, "this is what the test is about"


@pytest.mark.parametrize("size", [0, 100, PAGE_BYTES, PAGE_BYTES + 1])
def test_a_file_without_its_first_pages_is_refused(tmp_path: Path, size: int) -> None:
    open_environment(tmp_path).close()
    file = tmp_path / STORE_FOLDER / DATA_FILE
    file.write_bytes(file.read_bytes()[:size])
    code = (
        "import sys; from pathlib import Path\n"
        "from fluffle.storage.environment import open_environment\n"
        "open_environment(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "not a signal"
    assert "Corrupt" in done.stderr


def test_pages_of_zeros_are_found_before_lmdb_comes_upon_them(tmp_path: Path) -> None:
    """LMDB asserts that there are none, which ends the process."""
    environment = open_environment(tmp_path)
    puts = [(Table.COLD, cold_key(1, index), bytes(900)) for index in range(1, 400)]
    environment.commit(WriteTransaction(puts=puts))
    environment.close()
    read_environment(tmp_path).close()
    file = tmp_path / STORE_FOLDER / DATA_FILE
    data = bytearray(file.read_bytes())
    page = leaf_with(data, cold_key(1, 200))
    data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
    file.write_bytes(data)
    with pytest.raises(Corrupt, match=f"corrupt: {file}, page {page}: this is no page of a tree"):
        read_environment(tmp_path)
    environment = open_environment(tmp_path)
    with (
        pytest.raises(Corrupt, match=f"corrupt: {file}, table cold: .*MDB_CORRUPTED"),
        environment.view() as view,
    ):
        view.get(Table.COLD, cold_key(1, 200))
    environment.close()


def leaf_with(data: bytearray, key: bytes) -> int:
    """The page that has it as a node; others have it behind theirs, where memory had it before."""
    for number in range(2, len(data) // PAGE_BYTES):
        page = data[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        _, _, flags, lower, _ = PAGE.unpack_from(page)
        nodes = range(PAGE.size, lower, 2) if flags == LEAF else ()
        keys_at = (
            int.from_bytes(page[node : node + 2], sys.byteorder) + NODE.size for node in nodes
        )
        if any(page.startswith(key, at) for at in keys_at):
            return number
    raise AssertionError(f"no leaf has {key!r}")


def test_pages_may_be_checked_beside_a_node(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    for number in range(1, 50):
        puts = [(Table.COLD, cold_key(number, index), bytes(50 * index)) for index in range(1, 40)]
        environment.commit(WriteTransaction(puts=puts))
        command = [sys.executable, "-c", READ_PAGES, str(tmp_path)]
        if number % 10 == 0:
            subprocess.run(command, check=True)
    environment.close()


READ_PAGES = """
import sys
from pathlib import Path
from fluffle.storage.environment import read_environment
read_environment(Path(sys.argv[1])).close()
"""
