"""Disk as a port: tables of keys in order, changed by one transaction at a time; and one in memory.

`environment.Environment` is LMDB.  `MemoryDisk` is for nodes that live no longer than their
process, and fails on demand; both pass the same tests.

Faults: `fail_next` makes the next commit raise; `room_bytes` can be small, and so can the reserve
beyond it, where only deletions should go; `flip` and `lose` damage values; while `is_lying`,
commits return before they are durable, and `after_power_loss` shows what would have been left.
"""

import contextlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from fluffle.storage.errors import DiskFull, StorageError
from fluffle.storage.layout import FORMAT_KEY, Bytes, Table, format_value


@dataclass(slots=True)
class Trim:
    """Stretch of the cold table that is to go, from `first` up to, not including, `stop`."""

    first: bytes
    stop: bytes


@dataclass(slots=True)
class WriteTransaction:
    """Changes of one commit: trim, then remove, then put.  All of it or nothing."""

    trims: list[Trim] = field(default_factory=list)
    """Done in order until `trim_keys_max` keys are deleted; the rest is for later commits."""
    trim_keys_max: int = 0
    removes: list[tuple[Table, bytes]] = field(default_factory=list)
    """Keys that are not there do not matter."""
    catalog_removes: list[Iterable[bytes]] = field(default_factory=list)
    """Keys of the catalog, very many: each is made where the commit deletes it, once."""
    puts: list[tuple[Table, bytes, bytes]] = field(default_factory=list)
    """Keys of the hot table only rise."""


@dataclass(slots=True)
class CommitResult:
    """Result of a commit that succeeded."""

    trims_finished: int
    trimmed_keys: int
    used_bytes: int
    """Bytes in use after the commit, as `View.used_bytes` counts them, or a little more."""


class View(Protocol):
    """Snapshot of the disk at one moment.  What it returns lives only as long as it does."""

    def get(self, table: Table, key: bytes) -> Bytes | None: ...

    def scan(self, table: Table, first: bytes, stop: bytes | None) -> Iterator[tuple[Bytes, Bytes]]:
        """Iterate over keys from `first` up to `stop`, in order, with their values."""

    def last_key(self, table: Table, stop: bytes | None) -> bytes | None:
        """Return the greatest key below `stop`, or of all."""

    def used_bytes(self) -> int:
        """Bytes taken by tables, without free pages."""


class Disk(Protocol):
    """Disk of a node.  Reads at any time from one thread; commits one after the other from one,
    maybe another."""

    @property
    def room_bytes(self) -> int:
        """Bytes that `used_bytes` may grow to before commits fail, as last counted."""

    @property
    def commit_number(self) -> int:
        """Number of the last commit that is durable: rising from one to the next, for as long as
        the data are there, whichever process makes them."""

    def look_for_room(self) -> None:
        """Count the room again, as commits do: others take of it, and give back."""

    def view(self) -> AbstractContextManager[View]:
        """Open a view for one short reading: what it holds cannot be used again until it ends.

        Within it, reading raises `StorageError`.
        """

    def commit(self, work: WriteTransaction) -> CommitResult:
        """Commit; return when it is durable.  Raises `StorageError`; then nothing is known any
        more."""

    def close(self) -> None: ...


Tables = dict[Table, dict[bytes, bytes]]


class MemoryDisk:
    """Disk in memory: tables as dictionaries beside their sorted keys."""

    def __init__(
        self,
        tables: Tables | None = None,
        *,
        room_bytes: int = 1 << 40,
        reserve_bytes: int = 0,
        commit_number: int = 0,
    ) -> None:
        self._tables: Tables = tables or {table: {} for table in Table}
        self._tables[Table.SYSTEM].setdefault(FORMAT_KEY, format_value())
        self._keys = {table: sorted(values) for table, values in self._tables.items()}
        self._room_bytes = room_bytes
        self._reserve_bytes = reserve_bytes
        self._used_bytes = sum(
            len(each) for table in self._tables.values() for each in table.values()
        )
        self._durable: Tables | None = None
        """Tables as they are on disk, where a lying disk has not stored the last commits."""
        self._durable_commit = self.commit_number = commit_number
        self.fail_next: StorageError | None = None
        """Error that the next commit raises."""

    @property
    def is_lying(self) -> bool:
        """True if commits return without having been synced."""
        return self._durable is not None

    @is_lying.setter
    def is_lying(self, is_lying: bool) -> None:
        self._durable = self._copy() if is_lying else None
        self._durable_commit = self.commit_number

    @property
    def room_bytes(self) -> int:
        return self._room_bytes

    def look_for_room(self) -> None:
        """Do nothing: memory has no room that others fill."""

    @contextlib.contextmanager
    def view(self) -> Iterator["MemoryView"]:
        yield MemoryView(self._tables, self._keys, self._used_bytes)

    def commit(self, work: WriteTransaction) -> CommitResult:
        failure, self.fail_next = self.fail_next, None
        if failure is not None:
            raise failure
        if (
            self._used_bytes + sum(len(value) for _, _, value in work.puts)
            > self._room_bytes + self._reserve_bytes
        ):
            raise DiskFull("no room for a commit: this disk in memory is full")
        finished, trimmed = self._trim(work.trims, work.trim_keys_max)
        for table, key in work.removes:
            self._remove(table, key)
        for key in chain.from_iterable(work.catalog_removes):
            self._remove(Table.CATALOG, key)
        for table, key, value in work.puts:
            self._put(table, key, bytes(value))
        self.commit_number += 1
        return CommitResult(finished, trimmed, self._used_bytes)

    def after_power_loss(self) -> "MemoryDisk":
        """Return the disk as it comes up again."""
        is_all = self._durable is None
        durable = self._tables if self._durable is None else self._durable
        return MemoryDisk(
            {table: dict(values) for table, values in durable.items()},
            commit_number=self.commit_number if is_all else self._durable_commit,
        )

    def flip(self, table: Table, key: bytes, at: int) -> None:
        """Change one byte of a value, as a failing disk does."""
        value = bytearray(self._tables[table][key])
        value[at] ^= 0x01
        self._tables[table][key] = bytes(value)

    def lose(self, table: Table, key: bytes) -> None:
        """Forget a value."""
        self._remove(table, key)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _copy(self) -> Tables:
        return {table: dict(values) for table, values in self._tables.items()}

    def _trim(self, trims: list[Trim], keys_max: int) -> tuple[int, int]:
        trimmed = 0
        for finished, trim in enumerate(trims):
            keys = self._keys[Table.COLD]
            first, stop = bisect_left(keys, trim.first), bisect_left(keys, trim.stop)
            deleted_cold = keys[first : min(stop, first + keys_max - trimmed)]
            for key in deleted_cold:
                self._remove(Table.COLD, key)
            trimmed += len(deleted_cold)
            if len(deleted_cold) < stop - first:
                return finished, trimmed
        return len(trims), trimmed

    def _remove(self, table: Table, key: bytes) -> None:
        if (value := self._tables[table].pop(key, None)) is not None:
            self._used_bytes -= len(value)
            keys = self._keys[table]
            del keys[bisect_left(keys, key)]

    def _put(self, table: Table, key: bytes, value: bytes) -> None:
        keys = self._keys[table]
        if table is Table.HOT and keys and key <= keys[-1]:
            raise StorageError(f"key {key.hex()} of the hot table does not rise")
        if (former := self._tables[table].get(key)) is None:
            insort(keys, key)
        else:
            self._used_bytes -= len(former)
        self._tables[table][key] = value
        self._used_bytes += len(value)


class MemoryView:
    """View of the tables as they are: nothing commits while it is open."""

    __slots__ = ("_keys", "_tables", "_used_bytes")

    def __init__(self, tables: Tables, keys: dict[Table, list[bytes]], used_bytes: int) -> None:
        self._tables = tables
        self._used_bytes = used_bytes
        self._keys = keys

    def get(self, table: Table, key: bytes) -> Bytes | None:
        return self._tables[table].get(key)

    def scan(self, table: Table, first: bytes, stop: bytes | None) -> Iterator[tuple[Bytes, Bytes]]:
        keys = self._keys[table]
        end = len(keys) if stop is None else bisect_left(keys, stop)
        for key in keys[bisect_left(keys, first) : end]:
            yield key, self._tables[table][key]

    def last_key(self, table: Table, stop: bytes | None) -> bytes | None:
        keys = self._keys[table]
        end = len(keys) if stop is None else bisect_left(keys, stop)
        return keys[end - 1] if end else None

    def used_bytes(self) -> int:
        return self._used_bytes
