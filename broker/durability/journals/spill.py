"""Where messages go that end with the process, when memory is short: one log for all queues.

It is named in the catalog, so that the next start finds it and deletes it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fluffle.broker.base.message import Origin
from fluffle.broker.durability.journals.batch_codec import decode, encode
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import Damage, PagedOutMessages, UnreadableMessages
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import Log

SPILL = "spill"
"""The kind of the definition whose name is the number of the log."""


class LogSpill:
    """The spill of a node."""

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
