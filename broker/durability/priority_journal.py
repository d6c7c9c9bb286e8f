"""The journal of a queue that keeps messages of each priority apart: a `LocalJournal` for each.

The first priority level has the logs of the queue.  The others get logs of their own when they are
first used, and the catalog says which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812  it is an exception

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import Deadlines
from fluffle.broker.queues.journal import (
    Journal,
    JournalByPriority,
    LoadedMessages,
    RecoveredContent,
)
from fluffle.broker.queues.priority_ready_list import level_of
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import GroupLogs

LEVEL = "level"
"""The kind of the definitions: by the first log of a queue and a level, the logs of that level."""

NAME = Struct(">QB")
GROUPS = Struct(">QQ")


class PriorityLogs:
    """Logs of priorities of all queues of a node."""

    def __init__(
        self,
        items: Iterable[tuple[bytes, bytes]],
        log: GroupLogs,
        commits: Commits,
        reopen: Callable[[tuple[int, ...]], Journal],
    ) -> None:
        """`items` as they are on disk; `reopen` makes a journal of logs.  Raises `Corrupt`."""
        self._reopen = reopen
        self._log = log
        self._commits = commits
        self._by_queue: defaultdict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
        try:
            for name, groups in items:
                queue, level = NAME.unpack(name)
                self._by_queue[queue][level] = GROUPS.unpack(groups)
        except StructError as error:
            raise Corrupt("the logs of priorities", str(error)) from error

    def levels_of(self, queue: int) -> Sequence[int]:
        """Return the levels that have been used, but the first; `queue` is the first log of one."""
        return sorted(self._by_queue.get(queue, ()))

    def open(self, queue: int, level: int) -> Journal:
        """Open the logs of a priority level, or make new ones."""
        groups = self._by_queue[queue].get(level)
        if groups is None:
            groups = self._log.unused_group(), self._log.unused_group()
            self._by_queue[queue][level] = groups
            self._commits.put(LEVEL, NAME.pack(queue, level), GROUPS.pack(*groups))
        return self._reopen(groups)

    def drop(self, queue: int) -> None:
        """Drop the logs of a queue that is gone."""
        for level, groups in self._by_queue.pop(queue, {}).items():
            for group in groups:
                self._commits.delete(group, 0, INDEX_END)
            self._commits.remove(LEVEL, NAME.pack(queue, level))


class PriorityJournal:
    """A `JournalByPriority`.  The number of a message says in which part it is."""

    __slots__ = ("_logs", "_parts", "commits", "groups")

    def __init__(self, first: Journal, logs: PriorityLogs) -> None:
        self.groups = first.groups
        self.commits = first.commits
        self._logs = logs
        self._parts: dict[int, Journal] = {0: first}

    @property
    def levels(self) -> Sequence[int]:
        return [0, *self._logs.levels_of(self.groups[0])]

    def recover_all(self) -> dict[int, RecoveredContent]:
        return {level: self.at(level).recover() for level in self.levels}

    def at(self, level: int) -> Journal:
        part = self._parts.get(level)
        if part is None:
            part = self._parts[level] = self._logs.open(self.groups[0], level)
        return part

    def _of(self, sequence: int) -> Journal:
        return self._parts[level_of(sequence)]

    def recover(self) -> RecoveredContent:
        return RecoveredContent()

    def enqueued(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        apart: bool,
        expires_at_ms: Deadlines = 0,
    ) -> None:
        self._of(first_sequence).enqueued(
            origins,
            contents,
            content_bytes,
            first_sequence,
            apart=apart,
            expires_at_ms=expires_at_ms,
        )

    def settled(self, sequences: Sequence[int]) -> None:
        if sequences:
            self._of(sequences[0]).settled(sequences)

    def unsettled(self, sequences: Sequence[int]) -> None:
        self._of(sequences[0]).unsettled(sequences)

    def evicted(self, first: int, stop: int) -> None:
        self._of(first).evicted(first, stop)

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        return self._of(first).load(first, stop)

    def peek(self, first: int, stop: int) -> list[LoadedMessages]:
        return self._of(first).peek(first, stop)

    def discarded(self, first: int, stop: int) -> None:
        self._of(first).discarded(first, stop)

    def forget_unreadable(self) -> None:
        for part in self._parts.values():
            part.forget_unreadable()

    def drop(self) -> None:
        for part in self._parts.values():
            part.drop()

    @property
    def by_level(self) -> JournalByPriority:
        return self
