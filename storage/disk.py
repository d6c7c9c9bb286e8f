"""Port to the disk: tables of keys in order, changed by one transaction at a time.

`environment.Environment` is LMDB, `memory.MemoryDisk` the fake; both pass the same tests.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fluffle.storage.layout import Bytes, Table


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
    puts: list[tuple[Table, bytes, bytes]] = field(default_factory=list)
    """Keys of the hot table only rise."""


@dataclass(slots=True)
class CommitResult:
    """Result of a commit that succeeded."""

    trims_finished: int
    trimmed_keys: int
    used_bytes: int
    """As `View.used_bytes` says it from now on, or a little more."""


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
