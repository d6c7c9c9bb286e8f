"""Entries of which most messages are dead are made smaller, so that a few do not keep the rest.

    snapshot: what is worth it --> it is on disk --> rewritten, one after the other
                                                     those in the hot window later

Rule 19: only at or below the floor, where no entry is ever applied again, with the same index and
term, and each message with its number.  Each member does it when it likes, in a turn of its host.
What is live is what was so when the snapshot was taken: a member that begins with it needs no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.raft_host import RaftHost
from fluffle.broker.queues.quorum.entry_codec import slim
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.raft.log_store import DamagedLog

LOOK_S = 0.2
ENTRIES_MAX = 4
"""In one look: each is read and written as a whole, in one turn."""
LOOKS_MAX = 50
"""A snapshot that was refused never comes; in the hot window most die before they leave it."""
DEAD_BYTES_MIN = 1 << 14
"""Less is not worth reading and writing an entry."""


@dataclass(slots=True)
class CompactionCandidate:
    """Entries of one queue that a snapshot found worth compacting."""

    floor: int
    image: QueueImage
    entries: list[tuple[int, list[range]]]
    """Index, and what is live."""
    looks: int = 0
    is_reported: bool = False
    """True if it was said that one of them cannot be read."""


class CompactedMembers(Protocol):
    """The members of queues on a node, and the host of their groups."""

    @property
    def host(self) -> RaftHost: ...

    def feed_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call from within a turn of the host after so many seconds, if there is one by then."""

    def entry_rejected(self, group: QueueId, index: int, wrong: str) -> None:
        """Handle an entry that is whole and cannot be read, and why: one for all that a snapshot
        finds so."""


@dataclass(slots=True, eq=False)
class LogCompaction:
    """Compaction of the logs of all queues with a member on a node."""

    _members: CompactedMembers
    _dead_bytes_min: int = DEAD_BYTES_MIN
    _unfit: dict[QueueId, set[int]] = field(default_factory=dict, init=False)
    """Unreadable entries that the last snapshot has found, by queue."""
    _due: dict[QueueId, CompactionCandidate] = field(default_factory=dict, init=False)
    """Candidates in turn; a queue that was compacted goes to the end."""
    _is_looking: bool = field(default=False, init=False)

    def note(self, queue: QueueId, image: QueueImage) -> None:
        """A snapshot of it is being taken."""
        self._due.pop(queue, None)
        found = list(image.worth_slimming(self._dead_bytes_min))
        unfit = self._unfit.pop(queue, set()).intersection(index for index, _ in found)
        if unfit:
            self._unfit[queue] = unfit
        entries = [entry for entry in found if entry[0] not in unfit]
        if entries:
            self._due[queue] = CompactionCandidate(image.state.index, image, entries)
            self._look_later()

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._members.feed_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._is_looking = False
        left = ENTRIES_MAX
        for queue in list(self._due):
            if not left:
                break
            due = self._due.pop(queue)
            due.looks += 1
            left -= self._slim(queue, due, left)
            if due.entries and due.looks <= LOOKS_MAX:
                self._due[queue] = due
        if self._due:
            self._look_later()

    def _slim(self, queue: QueueId, due: CompactionCandidate, entries_max: int) -> int:
        """How many were made smaller."""
        hosted = self._members.host.groups.get(queue)
        settled = hosted.raft.settled_snapshot if hosted is not None else None
        if settled is None or settled.index != due.floor:
            return 0
        done, hot = 0, []
        while due.entries and done < entries_max:
            index, runs = due.entries.pop()
            try:
                is_done = self._members.host.rewrite(queue, index, partial(slim, live=runs))
            except DamagedLog:
                continue  # the search for damage finds it, and has it mended
            except InvalidEntry as unfit:
                self._unfit.setdefault(queue, set()).add(index)
                if not due.is_reported:
                    due.is_reported = True
                    self._members.entry_rejected(queue, index, str(unfit))
                continue
            if is_done:
                due.image.slimmed(index, sum(map(len, runs)))
                due.looks = 0
                done += 1
            else:
                hot.append((index, runs))
        due.entries += hot
        return done
