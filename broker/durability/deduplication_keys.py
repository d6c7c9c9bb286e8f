"""Deduplication keys of durable queues on disk: one log of keys a queue.

An entry holds the keys of the messages that were taken between two commits, and is in the commit
that these are in: a key is known after a crash if its message is there, or was.  Entries go from
the front once none of their keys is known any more.  Logs are made when they are first used, and
the catalog says which.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from struct import error as StructError  # noqa: N812  it is an exception

from fluffle.broker.base.logs import event
from fluffle.broker.queues.deduplication_window import DIGEST_BYTES, KEY, DeduplicationWindow
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt, CorruptEntry
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import GroupLogs

KEYS = "keys"
"""The kind of the definitions: by the first log of a queue, that of its keys."""

NUMBER = Struct(">Q")

logger = logging.getLogger(__name__)


class KeyLogs:
    """Logs with deduplication keys of all queues of a node."""

    def __init__(
        self, items: Iterable[tuple[bytes, bytes]], log: GroupLogs, commits: Commits
    ) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._log = log
        self._commits = commits
        self._open: dict[int, KeyLog] = {}
        try:
            self._groups = {
                NUMBER.unpack(queue)[0]: NUMBER.unpack(group)[0] for queue, group in items
            }
        except StructError as error:
            raise Corrupt("the logs of keys", str(error)) from error

    def open(self, queue: int) -> KeyLog:
        """Open the log of keys of the queue whose first log this is."""
        opened = self._open[queue] = KeyLog(queue, self, self._log, self._commits)
        return opened

    def group_of(self, queue: int) -> int | None:
        """Return the number of a queue's log of keys; None if it has none."""
        return self._groups.get(queue)

    def new_group(self, queue: int) -> int:
        group = self._groups[queue] = self._log.unused_group()
        self._commits.put(KEYS, NUMBER.pack(queue), NUMBER.pack(group))
        return group

    def forget(self, queue: int) -> None:
        """Forget all keys of a queue."""
        group = self._groups.pop(queue, None)
        if group is not None:
            self._commits.delete(group, 0, INDEX_END)
            self._commits.remove(KEYS, NUMBER.pack(queue))

    def drop(self, queue: int) -> None:
        """Drop the log of a queue that is gone; it may still be given messages."""
        self.forget(queue)
        opened = self._open.pop(queue, None)
        if opened is not None:
            opened.drop()


@dataclass(slots=True, eq=False)
class KeyLog:
    """The `DeduplicationKeys` of one queue."""

    _queue: int
    _logs: KeyLogs
    _log: GroupLogs
    _commits: Commits
    _entries: deque[tuple[int, bytes]] = field(default_factory=deque, init=False)
    """Entries on disk: index, and the keys."""
    _last: dict[bytes, int] = field(default_factory=dict, init=False)
    """In which entry a key is that is in several: the last of them."""
    _at: int = field(default=0, init=False)
    """Where the first key in the first of them is that may be known."""
    _fresh: list[bytes] = field(default_factory=list, init=False)
    """Keys that the next commit writes."""
    _window: DeduplicationWindow = field(default_factory=DeduplicationWindow, init=False)
    """Known keys: changed by the caller of `recover`."""
    _next: int = field(default=1, init=False)
    _is_dropped: bool = field(default=False, init=False)

    def recover(self) -> DeduplicationWindow:
        """Return the known keys, before anything else is read or written.

        An entry that cannot be read is forgotten: no message is lost by it, but one may come twice.
        """
        group = self._logs.group_of(self._queue)
        if group is not None:
            self._next = self._log.last_index(group) + 1
            for index, packed in self._read(group):
                self._enter(index, packed)
                self._window.add(packed)
        return self._window

    def _read(self, group: int) -> Iterator[tuple[int, bytes]]:
        """Index and keys of each entry that can be read."""
        first = 0
        while first < INDEX_END:
            start, first = first, INDEX_END
            try:
                entries = self._log.read(group, start, INDEX_END)
            except CorruptEntry as error:
                entries = self._log.read(group, start, error.index)
                event(
                    logger, logging.ERROR, "deduplication_damaged",
                    place=error.where, reason=error.what,
                )  # fmt: skip
                self._commits.delete(group, error.index, error.index + 1)
                first = error.index + 1
            yield from ((entry.index, entry.payload) for entry in entries)

    def remembered(self, packed: bytes, kept: int) -> None:
        if not kept:
            self._fresh.clear()
            self._entries.clear()
            self._last.clear()
            self._at = 0
            self._commits.remove_writer(self)
            self._logs.forget(self._queue)
        elif packed and not self._is_dropped:
            if self._logs.group_of(self._queue) is None:
                self._logs.new_group(self._queue)
                self._next = 1
            self._fresh.append(packed)
            self._commits.add_writer(self)

    def drop(self) -> None:
        """Drop the log: no keys are to be known any more."""
        self._is_dropped = True
        self._fresh.clear()
        self._commits.remove_writer(self)

    def write(self) -> None:
        """Add the new ones, and let go of what is too old by them."""
        group = self._logs.group_of(self._queue)
        assert group is not None, "it was made for them"
        packed, self._fresh = b"".join(self._fresh), []
        self._commits.batch().append(group, self._next, packed)
        self._enter(self._next, packed)
        self._next += 1
        while len(self._entries) > 1 and not self._is_known():
            index, _packed = self._entries.popleft()
            self._at = 0
            self._commits.batch().delete(group, index, index + 1)

    def _enter(self, index: int, packed: bytes) -> None:
        self._entries.append((index, packed))
        for digest, _until_ms in KEY.iter_unpack(packed):
            self._last[digest] = index

    def _is_known(self) -> bool:
        """True if a key of the first entry is, and by no later one; none is looked at twice once it
        is not."""
        index, packed = self._entries[0]
        while self._at < len(packed):
            digest = packed[self._at : self._at + DIGEST_BYTES]
            if self._last.get(digest) == index:
                if digest in self._window:
                    return True
                del self._last[digest]
            self._at += KEY.size
        return False
