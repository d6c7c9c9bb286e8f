"""When memory is short queues keep on disk what they can, at the pace of the disk.

Connections forget what they can find out again, and who leaves very many answers unread is not
waited for any longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.journals.batch_codec import decode, encode
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import Damage, PagedOutMessages, PageStore, UnreadableMessages
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import Log

SPILL = "spill"
"""The kind of the definition whose name is the number of the log."""


class LogSpill:
    """Log to which all queues page out messages that end with the process.

    It is named in the catalog, so that the next start finds it and deletes it.
    """

    __slots__ = ("_group", "_log", "_next_index", "commits", "is_wanted")

    def __init__(self, log: Log, commits: Commits) -> None:
        self._log = log
        self.commits = commits
        self._group = 0
        """0 until there is something to write."""
        self._next_index = 1
        self.is_wanted = False

    @property
    def is_behind(self) -> bool:
        return self.commits.is_behind

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        if not self._group:
            self._group = self._log.unused_group()
            self.commits.put(SPILL, b"%d" % self._group, b"")
        index, self._next_index = self._next_index, self._next_index + 1
        payload = encode(origins, contents, expiries)
        self.commits.waiting_bytes += len(payload)
        self.commits.batch().append(self._group, index, payload, tag=len(contents))
        self.commits.touch()
        return index

    def read(self, index: int) -> PagedOutMessages:
        try:
            for entry in self._log.read(self._group, index, index + 1):
                return decode(entry.payload)
        except Corrupt as error:
            raise UnreadableMessages(Damage(error.where, error.what)) from error
        raise UnreadableMessages(Damage(f"group {self._group} index {index}", "it is missing"))

    def forget(self, index: int) -> None:
        self.commits.delete(self._group, index, index + 1)


def delete_spilled(items: Iterable[tuple[bytes, bytes]], commits: Commits) -> None:
    """Delete what an earlier process spilled, from the definitions of kind `SPILL`."""
    for name, _ in items:
        commits.delete(int(name), 0, INDEX_END)
        commits.remove(SPILL, name)


class PageOut:
    """Goes from queue to queue, and on when the disk has taken what came from them.

    A queue may be longer than what is left of memory, and what is being written is there twice.
    """

    __slots__ = ("_commits", "_left", "_queues", "_relieve", "_spill")

    def __init__(
        self,
        queues: Callable[[], Iterable[Queue]],
        spill: PageStore,
        commits: Commits,
        relieve: Callable[[], None],
    ) -> None:
        """`relieve` has connections do with less."""
        self._relieve = relieve
        self._queues = queues
        self._spill = spill
        self._commits = commits
        self._left: list[Queue] = []
        """Those whose turn is yet to come."""

    def rest(self) -> None:
        """Stop: messages may stay in memory again."""
        self._spill.is_wanted = False
        self._left.clear()

    def shed(self) -> None:
        """Have messages leave memory, unless that is under way."""
        self._spill.is_wanted = True
        self._relieve()
        if not self._left:
            self._left = sorted(self._queues(), key=lambda queue: queue.ready_count)
            self._go_on()

    def _go_on(self) -> None:
        """Page out queues, the longest first, until the disk is behind."""
        while self._left:
            if self._commits.is_behind:
                self._commits.when_caught_up(self._go_on)
                return
            if self._left[-1].shed():
                self._left.pop()
