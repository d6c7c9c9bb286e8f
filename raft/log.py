"""Log of one group in memory: all terms, and the entries that still have somewhere to go.

      floor          applied      commit            last
        |               |           |                 |
    ----+---------------+-----------+-----------------+
    live|  on disk only |  in memory: the tail        |
        |               |  tail_first ... last_index  |
    sparse              contiguous

At and below the floor there is a snapshot and, sparse, the entries it needs.  Terms are kept as
run-lengths, so that a question for one never goes to the disk.  `None` as a term means that it is
not known, and is never equal to a term: not "no entry, so 0".

Invariants: floor <= handed <= commit <= last_index, applied <= handed;
tail_first == last_index + 1 - len(tail); what is not in the tail is durable.

Indexes begin with 1; index 0 is the empty log, of term 0.  Terms begin with 1.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from fluffle.raft.config import Configuration, Member
from fluffle.raft.ranges import Ranges

GroupId = int
"""64 bits, given by the declarer of groups, and never twice: not even after the group is gone."""

NOOP: Final = 0
"""Kind of the entry that a new leader writes first; its payload is empty."""
DATA: Final = 1
"""A proposal.  The payload is the proposer's, opaque here."""
CONFIG: Final = 2
"""A change of membership.  The payload is the whole `Configuration` that is active from here on."""


@dataclass(slots=True)
class Entry:
    """Entry of a log.  Shared by log, messages and output: never changed."""

    index: int
    term: int
    kind: int
    """`NOOP`, `DATA` or `CONFIG`."""
    payload: bytes


ENTRY_OVERHEAD_BYTES: Final = 64
"""Bytes that an entry counts in limits besides its payload, so that empty ones are not free."""


def size_of(entry: Entry) -> int:
    """Return what an entry counts in limits, in bytes."""
    return len(entry.payload) + ENTRY_OVERHEAD_BYTES


class HardState(NamedTuple):
    """Term and vote, which a member must never forget."""

    term: int
    vote: Member | None


@dataclass(slots=True)
class SnapshotMeta:
    """Description of a snapshot: all but its state.

    The state is the image after `index` was applied, without the bodies, which stay in the log:
    at and below `index` the log is *sparse*, only the entries in `live` are needed.
    Two snapshots are the same if `identity` is.
    """

    index: int
    term: int
    """Term of the entry at `index`, which itself may be gone."""
    config: Configuration
    """Active at `index`."""
    live: Ranges
    """Indexes at or below `index` whose entries must not be lost."""
    state_bytes: int
    state_crc: int
    """zlib.crc32 of the state."""

    @property
    def identity(self) -> tuple[int, int, int, int]:
        return self.index, self.term, self.state_bytes, self.state_crc


class Quarantine(NamedTuple):
    """Range of a log that can no longer be read: until it is repaired this is no voter."""

    first: int
    """The lowest index that is damaged."""
    last: int
    """The greatest index the log had.  Repaired once all of first..last is durable again, or all
    that a leader of a later term than `term` has committed is."""
    term: int
    """None of those entries had a greater one, and none of a greater one was acknowledged."""
    needs_snapshot: bool
    """Damage at or below the floor, where the log is sparse: only a snapshot can repair it."""

    def renewed(self, found: "Quarantine") -> "Quarantine":
        """Return the quarantine with more damage, found when the log ended with an entry of the
        term `found`.

        If that is a later term, its leader had all that was worth keeping from before.
        """
        last = found.last if found.term > self.term else max(self.last, found.last)
        return Quarantine(
            min(self.first, found.first),
            last,
            max(self.term, found.term),
            self.needs_snapshot or found.needs_snapshot,
        )


class Log:
    """Log in memory; what is on disk is known to `DurableState` alone."""

    __slots__ = (
        "_firsts", "_terms", "applied", "commit", "handed", "last_index", "last_term",
        "snapshot", "submitted", "tail", "tail_bytes", "tail_first",
    )  # fmt: skip

    def __init__(
        self, snapshot: SnapshotMeta, terms: Sequence[tuple[int, int]] = (), last_index: int = 0
    ) -> None:
        """A log as it was found: nothing above the floor is known to be committed."""
        self.snapshot = snapshot
        self._firsts = [first for first, _ in terms]
        self._terms = [term for _, term in terms]
        self.last_index = max(last_index, snapshot.index)
        self.last_term = self._terms[-1] if self._terms else snapshot.term
        self.tail: list[Entry] = []
        self.tail_first = self.last_index + 1
        self.tail_bytes = 0
        """Size of the entries in memory, as `size_of` counts."""
        self.submitted = self.last_index
        """Entries behind this have yet to be given to the disk."""
        self.commit = snapshot.index
        self.handed = snapshot.index
        """Index of the last entry handed to the host to be applied."""
        self.applied = snapshot.index
        """Index of the last entry that the host reported as applied."""

    @property
    def floor(self) -> int:
        return self.snapshot.index

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`; None below the floor and behind the last."""
        if index == self.last_index:
            return self.last_term
        if index > self.last_index or index < self.snapshot.index:
            return None
        if index == self.snapshot.index:
            return self.snapshot.term
        return self._terms[bisect_right(self._firsts, index) - 1]

    def last_not_newer(self, index: int, term: int) -> tuple[int, int]:
        """Return the last entry at or before `index` whose term is at most `term`, and its term.

        It is the floor if all above it are newer, or `index` is below.
        """
        index = min(index, self.last_index)
        at = bisect_right(self._firsts, index) - 1
        while at >= 0 and self._terms[at] > term:
            index = self._firsts[at] - 1
            at -= 1
        if at < 0:
            return self.snapshot.index, self.snapshot.term
        return index, self._terms[at]

    def append(self, entries: Sequence[Entry]) -> None:
        """Append consecutive entries behind the last one."""
        for entry in entries:
            assert entry.index == self.last_index + 1, f"{entry.index} behind {self.last_index}"
            if entry.term != self.last_term or not self._terms:
                self._firsts.append(entry.index)
                self._terms.append(entry.term)
                self.last_term = entry.term
            self.last_index += 1
            self.tail.append(entry)
            self.tail_bytes += size_of(entry)

    def truncate(self, first: int) -> None:
        """Forget everything from `first` on, which is above the commit index."""
        assert first > self.commit, f"truncation from {first} with commit {self.commit}"
        self._cut(first)

    def cut_damage(self, first: int) -> None:
        """Cut the log from `first` on, above the floor, where it cannot be read: it is to be
        received again.

        What was known to be committed is forgotten, as by a restart; the members know.
        """
        assert first > self.floor
        self._cut(first)
        self.commit = self.handed = self.applied = self.floor

    def _cut(self, first: int) -> None:
        kept = max(0, first - self.tail_first)
        self.tail_bytes -= sum(map(size_of, self.tail[kept:]))
        del self.tail[kept:]
        self.last_index = min(self.last_index, first - 1)
        self.submitted = min(self.submitted, self.last_index)
        self.tail_first = min(self.tail_first, first)
        while self._firsts and self._firsts[-1] > self.last_index:
            self._firsts.pop()
            self._terms.pop()
        self.last_term = self._terms[-1] if self._terms else self.snapshot.term

    def submit(self) -> list[Entry]:
        """Return the entries not yet given to the disk: they are given now."""
        entries = self.tail[self.submitted + 1 - self.tail_first :]
        self.submitted = self.last_index
        return entries

    def is_in_memory(self, index: int) -> bool:
        return index >= self.tail_first

    def slice(self, first: int, stop: int, bytes_max: int) -> list[Entry]:
        """Return entries in memory from `first` up to `stop`: at least one if there is, then by
        size."""
        assert first >= self.tail_first, f"{first} is not in memory"
        at = first - self.tail_first
        found = self.tail[at : stop - self.tail_first]
        if len(found) < 2:
            return found
        size = 0
        for count, entry in enumerate(found):
            size += size_of(entry)
            if size > bytes_max and count:
                return found[:count]
        return found

    def evict(self, through: int) -> None:
        """Drop entries up to `through`, which are durable and applied, from memory."""
        gone = through + 1 - self.tail_first
        if gone <= 0:
            return
        self.tail_bytes -= sum(map(size_of, self.tail[:gone]))
        del self.tail[:gone]
        self.tail_first += gone

    def compact(self, snapshot: SnapshotMeta) -> None:
        """Raise the floor to a snapshot of what was applied."""
        assert self.floor <= snapshot.index <= self.last_index
        self.snapshot = snapshot
        at = bisect_right(self._firsts, snapshot.index + 1) - 1
        if at >= 0:
            del self._firsts[:at], self._terms[:at]
            self._firsts[0] = max(self._firsts[0], snapshot.index + 1)
        if self.last_index == snapshot.index:
            self._firsts, self._terms = [], []
            self.last_term = snapshot.term
        self.evict(min(snapshot.index, self.last_index))

    def reset(self, snapshot: SnapshotMeta) -> None:
        """Replace the whole log by a snapshot from elsewhere."""
        self.snapshot = snapshot
        self._firsts, self._terms = [], []
        self.last_index, self.last_term = snapshot.index, snapshot.term
        self.tail, self.tail_bytes, self.tail_first = [], 0, snapshot.index + 1
        self.submitted = snapshot.index
        self.commit = snapshot.index
        self.rewind()

    def rewind(self) -> None:
        """Begin to apply again from the snapshot on."""
        self.handed = self.applied = self.floor
