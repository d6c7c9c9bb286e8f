"""Stores for tests of what stands on them: on a disk in memory, committed at once or by hand."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.errors import StorageError
from fluffle.storage.store import InstantWriter, Store, Writer


def raise_it(error: StorageError) -> None:
    raise error


def open_store(
    disk: Disk | None = None,
    make_writer: Callable[[Disk, Callable[[], None]], Writer] = InstantWriter,
) -> Store:
    """A store on a disk, a new one in memory if none is given."""
    return Store(MemoryDisk() if disk is None else disk, make_writer, on_fatal=raise_it)


def commits_in_memory(turn: Turn) -> Commits:
    """Commits that are done as soon as they begin."""
    return Commits(open_store(), turn)
