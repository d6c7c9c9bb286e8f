"""Disk in memory: for nodes that live no longer than their process, and it fails on demand.

It passes the tests of the real one.

Faults: `fail_next` makes the next commit raise; `room_bytes` can be small, and so can the reserve
beyond it, where only deletions should go; `flip` and `lose` damage
values; while `is_lying`, commits return before they are durable, and `after_power_loss` shows what
would have been left.
"""

import contextlib
from bisect import bisect_left, insort
from collections.abc import Iterator

from fluffle.storage.disk import CommitResult, Trim, WriteTransaction
from fluffle.storage.errors import DiskFull, StorageError
from fluffle.storage.layout import FORMAT_KEY, Bytes, Table, format_value

Tables = dict[Table, dict[bytes, bytes]]


class MemoryDisk:
    """Disk in memory: tables as dictionaries beside their sorted keys."""

    __slots__ = (
        "_durable", "_durable_commit", "_keys", "_reserve_bytes", "_room_bytes", "_tables",
        "_used_bytes", "commit_number", "fail_next",
    )  # fmt: skip

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
        """What is on disk where that is not all: while it lies."""
        self._durable_commit = self.commit_number = commit_number
        self.fail_next: StorageError | None = None
        """What the next commit raises."""

    @property
    def is_lying(self) -> bool:
        """Whether commits return without having been synced."""
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
