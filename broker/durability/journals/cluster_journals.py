"""The journals of queues that are defined in a log which nodes share, on the home of each.

Such a definition may be applied again at each start, also that of a queue that was deleted since,
and the logs of a journal mean something on one disk only.  So that disk says which logs belong to
which queue, by an id that no other queue ever has: whatever was written there is found again, and
if the queue was deleted while this node was down, it is found out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from struct import Struct
from struct import error as StructError  # noqa: N812  it is an exception

from fluffle.broker.queues.journal import Journal, JournalFactory
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt

JOURNAL = "journal"
"""The kind of these definitions: by the id of the queue, its logs."""

ID = Struct(">Q")
GROUPS = Struct(">QQ")


def journal_item(queue: int, groups: tuple[int, ...]) -> tuple[bytes, bytes]:
    """Return name and value of a journal's definition."""
    return ID.pack(queue), GROUPS.pack(*groups)


class ClusterJournals:
    """Journals of the durable classic queues that this node hosts in a cluster."""

    def __init__(
        self, items: Iterable[tuple[bytes, bytes]], journals: JournalFactory, commits: Commits
    ) -> None:
        """`items` as they are on disk.  Raises `Corrupt`."""
        self._journals = journals
        self._commits = commits
        try:
            self._groups = {ID.unpack(name)[0]: GROUPS.unpack(logs) for name, logs in items}
        except StructError as error:
            raise Corrupt("the names of journals", str(error)) from error

    def open(self, queue: int) -> tuple[Journal, bool]:
        """Open the journal of a queue; the second value is True if it existed and has to be
        recovered."""
        groups = self._groups.get(queue)
        if groups is not None:
            return self._journals.reopen(groups), True
        groups = self._groups[queue] = self._journals.new_groups()
        self._commits.put(JOURNAL, *journal_item(queue, groups))
        return self._journals.create(groups), False

    def forget(self, queue: int) -> None:
        """Forget a queue that is defined no more, and whose journal has been dropped."""
        if self._groups.pop(queue, None) is not None:
            self._commits.remove(JOURNAL, ID.pack(queue))

    def sweep(self, queues: Collection[int]) -> int:
        """Delete the journals of all queues but these; return how many they were."""
        orphans = self._groups.keys() - queues
        for queue in orphans:
            self._journals.reopen(self._groups[queue]).drop()
            self.forget(queue)
        return len(orphans)
