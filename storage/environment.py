"""LMDB environment of a node: open and locked, read, changed.  The only `import lmdb`.

    DIR/store.lock       held while the store is open; names the process
    DIR/store/data.mdb   everything
    DIR/store/lock.mdb   LMDB's table of readers

Rule 1: full sync, always.  Without it a commit that was reported can be undone by a power cut.
Rule 2: no writemap (three times slower for large values, and a stray write would reach the disk),
no readahead (random reads), no read transaction that outlives a `with`.
Rule 3: no commit is tried again.  After a failed sync the kernel takes pages for written that are
not, so a second try could succeed for nothing.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from struct import Struct, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception
from typing import BinaryIO

import lmdb

from fluffle.storage.disk import CommitResult, WriteTransaction
from fluffle.storage.errors import (
    Corrupt,
    DiskFull,
    NewerFormat,
    OlderFormat,
    StorageError,
    StoreInUse,
    StoreMissing,
)
from fluffle.storage.layout import (
    FORMAT,
    FORMAT_KEY,
    Bytes,
    Table,
    format_number,
    format_value,
)
from fluffle.storage.reserve import LOW_BYTES, free_bytes, give_up, give_up_if_low

Databases = dict[Table, "lmdb._Database"]

HOT, COLD = Table.HOT, Table.COLD

LOCK_FILE = "store.lock"
"""Not `lock`: that one is held by the node, which may then not open its own store."""
STORE_FOLDER = "store"
UNFINISHED_FOLDER = "store.new"
DATA_FILE = "data.mdb"

MAP_BYTES = 1 << 40
"""Reserved addresses, not memory and not disk: a limit that the disk reaches first."""

RESERVE_BYTES = 1 << 26
"""Kept for deletions, which need fresh pages before they free any."""

NO_ROOM_BYTES = 1 << 20
"""With less than this free an error in writing is no riddle: LMDB calls it one of the device when
only a part could be written."""

NEAR_BYTES = 1 << 30
"""With less room than this it is counted with each commit what there is and what the store uses."""
COUNTED_BYTES = 1 << 24
COUNTED_COMMITS = 32
COUNTED_S = 0.1
"""Else after so much, and if it was so long ago: others fill a disk, too."""

READERS_MAX = 16
READER_CHECK_COMMITS = 4096
"""A process that was killed while reading keeps pages from being used again until it is noticed."""

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.NotFoundError)

META_BYTES = 8192
"""The two pages at the start that say which tree is current."""


class LmdbEnvironment:
    """Open store of a node.  `commit` may run in another thread than everything else."""

    def __init__(
        self,
        environment: lmdb.Environment,
        lock: int | None,
        databases: Databases,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_s = now_s
        self._environment = environment
        self._file = Path(environment.path()) / DATA_FILE
        self._directory = str(self._file.parents[1])
        self._lock = lock
        self._databases = databases
        self._map_bytes = int(environment.info()["map_size"])
        self._capacity_bytes = self._capacity(free_bytes(self._directory))
        """Capacity as it was counted last: what commits took of the free space the file has
        since."""
        self._begun = 0
        """How many commits have begun."""
        self._commits = 0
        """How many have been done: as many, unless one is under way or has failed."""
        self._durable_number = 0
        """Number of a commit that was durable when this was looked at last."""
        self._counted_s = 0.0
        self._used_bytes = 0
        """Likewise."""
        self._uncounted_bytes = 0
        """Written since."""

    @property
    def room_bytes(self) -> int:
        return self._capacity_bytes - RESERVE_BYTES

    @property
    def commit_number(self) -> int:
        """While a commit is under way, LMDB has its number before the disk has it."""
        begun = self._begun
        if self._commits == begun:
            number = int(self._environment.info()["last_txnid"])
            if self._begun == begun:
                self._durable_number = number
        return self._durable_number

    def look_for_room(self) -> None:
        """Look for room; where nothing may be written no commit gives up the reserve."""
        free = free_bytes(self._directory)
        if free < LOW_BYTES:
            give_up(self._directory)
            free = free_bytes(self._directory)
        self._capacity_bytes = self._capacity(free)

    @contextlib.contextmanager
    def view(self) -> Iterator["LmdbView"]:
        view: LmdbView | None = None
        try:
            with self._environment.begin(buffers=True) as transaction:
                view = LmdbView(transaction, self._databases)
                yield view
        except lmdb.Error as error:
            raise _storage_error(error, self._file, view.table if view else None) from error

    def commit(self, work: WriteTransaction) -> CommitResult:
        touched: Table | None = None
        try:
            is_count_due = self._is_count_due(work)
            if is_count_due:
                self._capacity_bytes = self._capacity(give_up_if_low(self._directory))
            self._begun += 1
            with self._environment.begin(write=True) as transaction:
                self._durable_number = transaction.id() - 1
                touched = COLD
                finished, trimmed = self._trim(transaction, work) if work.trims else (0, 0)
                for touched, key in work.removes:
                    transaction.delete(key, db=self._databases[touched])
                touched = Table.CATALOG
                for key in chain.from_iterable(work.catalog_removes):
                    transaction.delete(key, db=self._databases[touched])
                for touched, key, value in work.puts:
                    self._put(transaction, touched, key, value)
                touched = None
                if is_count_due:
                    self._used_bytes = _used_bytes(transaction, self._databases)
                    self._uncounted_bytes = 0
            self._commits += 1
            if self._commits % READER_CHECK_COMMITS == 0:
                self._environment.reader_check()
        except lmdb.Error as error:
            raise _storage_error(error, self._file, touched) from error
        return CommitResult(finished, trimmed, self._used_bytes + self._uncounted_bytes)

    def _is_count_due(self, work: WriteTransaction) -> bool:
        """True if this commit is to count how much room there is, and what the store uses.

        That is not done with each, because for each figure the interpreter is let go of, and has to
        be won back from a loop that is busy: six times of a dozen.  Records leave the hot table all
        the time; what they used is not missed at once.
        """
        for _, _, value in work.puts:
            self._uncounted_bytes += len(value)
        now_s, room = self._now_s(), self._capacity_bytes - self._used_bytes - self._uncounted_bytes
        is_due = (
            room < NEAR_BYTES
            or self._commits % COUNTED_COMMITS == 0
            or self._uncounted_bytes > COUNTED_BYTES
            or now_s - self._counted_s > COUNTED_S
            or bool(work.trims)
            or bool(work.catalog_removes)
            or any(table is not HOT for table, _ in work.removes)
        )
        if is_due:
            self._counted_s = now_s
        return is_due

    def _capacity(self, free: int) -> int:
        """Return what the file can grow to: the map, or what the file system has left for it."""
        return min(self._map_bytes, self._file.stat().st_size + free)

    def close(self) -> None:
        """Let another process have the store."""
        self._environment.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _put(self, transaction: lmdb.Transaction, table: Table, key: bytes, value: bytes) -> None:
        """Keys that only rise fill their pages, with LMDB's flag for it."""
        rises = table is HOT
        if not transaction.put(key, value, db=self._databases[table], append=rises):
            raise StorageError(f"key {key.hex()} of the hot table does not rise")

    def _trim(self, transaction: lmdb.Transaction, work: WriteTransaction) -> tuple[int, int]:
        """Delete up to `trim_keys_max` keys; how many trims are finished, and how many keys."""
        cursor = transaction.cursor(db=self._databases[Table.COLD])
        trimmed = 0
        for finished, trim in enumerate(work.trims):
            found = cursor.set_range(trim.first)
            while found and bytes(cursor.key()) < trim.stop:
                if trimmed == work.trim_keys_max:
                    return finished, trimmed
                cursor.delete()  # moves on to the next
                trimmed += 1
                found = len(cursor.key()) > 0
        return len(work.trims), trimmed


class LmdbView:
    """View in one read transaction of LMDB."""

    __slots__ = ("_databases", "_transaction", "table")

    def __init__(self, transaction: lmdb.Transaction, databases: Databases) -> None:
        self._transaction = transaction
        self._databases = databases
        self.table: Table | None = None
        """Table of the last read."""

    def get(self, table: Table, key: bytes) -> Bytes | None:
        self.table = table
        value: Bytes | None = self._transaction.get(key, db=self._databases[table])
        return value

    def scan(self, table: Table, first: bytes, stop: bytes | None) -> Iterator[tuple[Bytes, Bytes]]:
        self.table = table
        cursor = self._transaction.cursor(db=self._databases[table])
        if not cursor.set_range(first):
            return
        for key, value in cursor:
            if stop is not None and bytes(key) >= stop:
                return
            yield key, value

    def last_key(self, table: Table, stop: bytes | None) -> bytes | None:
        self.table = table
        cursor = self._transaction.cursor(db=self._databases[table])
        found = cursor.set_range(stop) if stop is not None else False
        if not (cursor.prev() if found else cursor.last()):
            return None
        return bytes(cursor.key())

    def used_bytes(self) -> int:
        return _used_bytes(self._transaction, self._databases)


def open_environment(
    directory: Path,
    *,
    map_bytes: int = MAP_BYTES,
    now_s: Callable[[], float] = time.monotonic,
) -> LmdbEnvironment:
    """Open the store in `directory` for a node, making what is missing.

    Raises `StoreInUse`, `NewerFormat`, `Corrupt`, `StorageError`; then nothing has been changed.
    """
    try:
        return _open_locked(directory, map_bytes=map_bytes, now_s=now_s)
    except OSError as error:
        raise StorageError(f"cannot open the store in {directory}: {error}") from error


def data_file(directory: Path) -> Path:
    """Return where the store in a directory is, or would be."""
    return directory / STORE_FOLDER / DATA_FILE


def _open_locked(directory: Path, *, map_bytes: int, now_s: Callable[[], float]) -> LmdbEnvironment:
    """Open as `open_environment` does; raises `OSError` too."""
    folder = directory / STORE_FOLDER
    lock = _lock(directory)
    try:
        give_up_if_low(directory)
        if not folder.exists():
            _make(directory)
        _forget_cached_meta(folder / DATA_FILE)
        environment = _open(folder, map_bytes=map_bytes)
        try:
            check_complete(folder / DATA_FILE, **_extent(environment))
            if _format(environment, directory) < FORMAT:
                _upgrade(environment)
            databases = _databases(environment)
        except BaseException:
            environment.close()
            raise
        return LmdbEnvironment(environment, lock, databases, now_s)
    except lmdb.Error as error:
        os.close(lock)
        raise _storage_error(error, folder / DATA_FILE) from error
    except BaseException:
        os.close(lock)
        raise


def read_environment(directory: Path) -> LmdbEnvironment:
    """Open the store in `directory` for reading only, beside the node that may be running.

    Raises `StoreMissing`, `NewerFormat`, `OlderFormat`, `Corrupt`, `StorageError`.
    """
    folder = directory / STORE_FOLDER
    if not (folder / DATA_FILE).exists():
        raise StoreMissing(directory)
    try:
        environment = _open(folder, map_bytes=MAP_BYTES, readonly=True)
        try:
            with environment.begin():  # a node may be running: it takes no page that is read
                check_pages(folder / DATA_FILE, **_extent(environment))
            if (found := _format(environment, directory)) < FORMAT:
                raise OlderFormat(directory, found, FORMAT)
            databases = _databases(environment)
        except BaseException:
            environment.close()
            raise
    except lmdb.Error as error:
        raise _storage_error(error, folder / DATA_FILE) from error
    return LmdbEnvironment(environment, None, databases)


def _open(folder: Path, *, map_bytes: int, readonly: bool = False) -> lmdb.Environment:
    environment = lmdb.open(
        str(folder),
        map_size=map_bytes,
        readonly=readonly,
        create=not readonly,
        max_dbs=len(Table),
        max_readers=READERS_MAX,
        readahead=False,
        meminit=False,
        mode=0o600,
    )
    environment.reader_check()
    return environment


def _lock(directory: Path) -> int:
    """Take the directory for this process; the lock goes with the process, however it ends."""
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).strip()
        os.close(lock)
        raise StoreInUse(directory, int(owner) if owner.isdigit() else None) from None
    # In this order, because on a disk that is full there may be no block but the one that is there.
    os.ftruncate(lock, os.pwrite(lock, b"%d\n" % os.getpid(), 0))
    return lock


def _forget_cached_meta(data: Path) -> None:
    """After a failed sync the page cache may show a commit that the disk does not hold."""
    with contextlib.suppress(FileNotFoundError):
        file = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(file, 0, META_BYTES, os.POSIX_FADV_DONTNEED)
        os.close(file)


def _make(directory: Path) -> None:
    """Make a store beside its place and move it there when it is durable.

    LMDB syncs the first pages of a new file with the first commit only: a power cut before that
    leaves a file that it refuses.
    """
    unfinished = directory / UNFINISHED_FOLDER
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    environment = _open(unfinished, map_bytes=MAP_BYTES)
    databases = {table: environment.open_db(table.value) for table in Table}
    with environment.begin(write=True, db=databases[Table.SYSTEM]) as transaction:
        transaction.put(FORMAT_KEY, format_value())
    environment.close()
    _sync_folder(unfinished)
    unfinished.rename(directory / STORE_FOLDER)
    _sync_folder(directory)
    _sync_above(directory)


def _sync_above(directory: Path) -> None:
    """Make the way to a directory durable, however much of it was made with it.

    Where this user may not write nothing can be new, not even if the process that made it was
    killed before it came to this.
    """
    for folder in directory.resolve().parents:
        if not os.access(folder, os.R_OK | os.W_OK):
            return
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the names in it durable: a file that cannot be found is lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _format(environment: lmdb.Environment, directory: Path) -> int:
    """Return the format of a store, one that is known.  Raises `NewerFormat`, `Corrupt`."""
    system = environment.open_db(Table.SYSTEM.value, create=False)
    with environment.begin(db=system) as transaction:
        value = transaction.get(FORMAT_KEY)
    if value is None:
        raise Corrupt("table system", "the format is missing")
    found = format_number(value)
    if found > FORMAT:
        raise NewerFormat(directory, found, FORMAT)
    return found


def _databases(environment: lmdb.Environment) -> Databases:
    return {table: environment.open_db(table.value, create=False) for table in Table}


def _upgrade(environment: lmdb.Environment) -> None:
    """Bring a store of format 1 to that of today: the table raft was added."""
    system = environment.open_db(Table.SYSTEM.value, create=False)
    with environment.begin(write=True) as transaction:
        environment.open_db(Table.RAFT.value, txn=transaction)
        transaction.put(FORMAT_KEY, format_value(), db=system)


def _used_bytes(transaction: lmdb.Transaction, databases: Databases) -> int:
    used = 0
    for table in (Table.HOT, Table.COLD, Table.CATALOG, Table.RAFT):
        stat = transaction.stat(databases[table])
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        used += pages * stat["psize"]
    return used


def _extent(environment: lmdb.Environment) -> dict[str, int]:
    """Return what must be known of a file to check its pages."""
    return {
        "page_bytes": environment.stat()["psize"],
        "last_page": environment.info()["last_pgno"],
    }


def _storage_error(error: lmdb.Error, file: Path, table: Table | None = None) -> StorageError:
    """Translate an error of LMDB, in a file and maybe a table, into one of ours."""
    if isinstance(error, lmdb.MapFullError) or _is_no_room(str(error), file.parent):
        return DiskFull(f"no room for a commit to {file} ({error}); free some space there")
    if isinstance(error, DAMAGE):
        return Corrupt(f"{file}, table {table.value.decode()}" if table else str(file), str(error))
    return StorageError(str(error))


def _is_no_room(text: str, folder: Path) -> bool:
    if os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text:
        return True
    return os.strerror(errno.EIO) in text and free_bytes(folder) < NO_ROOM_BYTES


# Pages.  An incomplete copy has lost its end, and touching a page behind the end of a mapped file
# ends the process; so does a page of something else, which LMDB asserts that it cannot be.  That
# the file is shorter than the last page that LMDB has counted proves nothing: what one commit takes
# at the end and frees again is never written.  So the trees are walked, by reads, not through the
# map; a start does that with files that are shorter.  Integers are in the machine's order; LMDB
# 0.9's `mdb.c`.
#
#     meta   header:16  magic:4 version:4 address:8 map:8  free tree:48  main tree:48  last:8  txn:8
#     tree   pad:4 flags:2 depth:2  branches:8 leaves:8 overflows:8 entries:8  root:8
#     page   number:8 pad:2 flags:2  lower:2 upper:2  offset:2 of each node ...  nodes
#     node   low:2 high:2 flags:2 key_size:2  key  data
#            in a branch low, high and flags are the number of a page; in a leaf low and high are
#            the size of the data, which may be elsewhere (the number:8 of a page) or a tree

PAGE = Struct("=QHHHH")
NODE = Struct("=HHHH")
NUMBER = Struct("=Q")

FREE_ROOT_AT = 80
MAIN_ROOT_AT = 128
TRANSACTION_AT = 144
TREE_ROOT_AT = 40
"""Within a tree; the three above are within a meta page."""

NO_PAGE = 2**64 - 1
BRANCH, LEAF = 0x01, 0x02
ELSEWHERE, TREE = 0x01, 0x02


def check_complete(file: Path, *, page_bytes: int, last_page: int) -> None:
    """Check that no page is missing at the end, as quickly as can be.  Raises `Corrupt`."""
    if file.stat().st_size < (last_page + 1) * page_bytes:
        check_pages(file, page_bytes=page_bytes, last_page=last_page)


def check_pages(file: Path, *, page_bytes: int, last_page: int) -> None:
    """Read all pages of all trees.  Raises `Corrupt` for the first that is missing or is none.

    No pages may be taken meanwhile: it needs a read transaction where a node may be running.
    """
    with file.open("rb") as data:
        metas = [_read_page(data, number, page_bytes) for number in (0, 1)]
        size = file.stat().st_size  # in this order: beside a node both grow
        newest = max(metas, key=lambda meta: _number(meta, TRANSACTION_AT))
        pending = [_number(newest, FREE_ROOT_AT), _number(newest, MAIN_ROOT_AT)]
        seen = {NO_PAGE}
        while pending:
            number = last = pending.pop()
            if number in seen:
                continue
            seen.add(number)
            if (number + 1) * page_bytes <= size:
                below, last = _reached_from(data, number, page_bytes)
                pending += below
            if (last + 1) * page_bytes > size:
                need = (last_page + 1) * page_bytes
                raise Corrupt(str(file), f"it has {size} bytes, its pages need {need}")


def _reached_from(data: BinaryIO, number: int, page_bytes: int) -> tuple[list[int], int]:
    """Return the pages of trees that a page leads to, and the last of those that hold only data."""
    page = _read_page(data, number, page_bytes)
    found, _, flags, lower, _ = PAGE.unpack_from(page)
    if found != number or not flags & (BRANCH | LEAF):
        raise Corrupt(f"{data.name}, page {number}", "this is no page of a tree")
    try:
        return _nodes(page, flags, lower)
    except StructError as error:
        where = f"{data.name}, page {number}"
        raise Corrupt(where, "what is in it lies outside of it") from error


def _nodes(page: bytes, flags: int, lower: int) -> tuple[list[int], int]:
    """Return pages as `_reached_from` does, of the nodes of one page.  Raises struct.error."""
    below: list[int] = []
    last = 0
    for offset in unpack_from(f"={max(0, lower - PAGE.size) // 2}H", page, PAGE.size):
        low, high, node_flags, key_size = NODE.unpack_from(page, offset)
        data_at, size = offset + NODE.size + key_size, low | high << 16
        if flags & BRANCH:
            below.append(size | node_flags << 32)
        elif node_flags & ELSEWHERE:
            last = max(last, _number(page, data_at) + (PAGE.size + size - 1) // len(page))
        elif node_flags & TREE:
            below.append(_number(page, data_at + TREE_ROOT_AT))
    return below, last


def _read_page(data: BinaryIO, number: int, page_bytes: int) -> bytes:
    data.seek(number * page_bytes)
    return data.read(page_bytes)


def _number(page: bytes, at: int) -> int:
    number: int = NUMBER.unpack_from(page, at)[0]
    return number
