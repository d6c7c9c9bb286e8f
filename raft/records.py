"""The plain values of consensus: what a log consists of, and what else of a group is on disk.

Indexes of a group's log begin with 1; index 0 is the empty log, of term 0.  Terms begin with 1.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from fluffle.raft.config import Config, Member
from fluffle.raft.ranges import Ranges

GroupId = int
"""64 bits, given by the declarer of groups, and never twice: not even after the group is gone."""

NOOP: Final = 0
"""What a new leader writes first; the payload is empty."""
DATA: Final = 1
"""A proposal.  The payload is the proposer's, opaque here."""
CONFIG: Final = 2
"""A change of membership.  The payload is the whole `Config` that is active from here on."""


@dataclass(slots=True)
class Entry:
    """Entry of a log.  Shared by log, messages and output: never changed."""

    index: int
    term: int
    kind: int
    """`NOOP`, `DATA` or `CONFIG`."""
    payload: bytes


ENTRY_OVERHEAD_BYTES: Final = 64
"""What an entry counts in limits besides its payload, so that empty ones are not free."""


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
    """Of the entry at `index`, which itself may be gone."""
    config: Config
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
