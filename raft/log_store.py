"""Port to the disk: writes and reads of consensus.

All groups of a node write together: one `Persist` a turn.  `storage/` has the implementations, one
on LMDB and one in memory with faults; both pass the same tests.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fluffle.raft.log import Entry, GroupId, HardState, Quarantine, SnapshotMeta


@dataclass(slots=True)
class NewSnapshot:
    """Snapshot of this node's own image."""

    meta: SnapshotMeta
    state: bytes | bytearray


@dataclass(slots=True)
class Staged:
    """A piece of a snapshot that a leader sends, to be kept apart from the log until installed.

    Pieces of one snapshot come in order, each where the one before ended.  A piece of another
    snapshot discards all *state* that is staged, not the entries: what is live in a later snapshot,
    at an index the earlier one covers, was live in that as well.
    """

    meta: SnapshotMeta
    entries: list[Entry]
    """Rising, and above those of all pieces before, of whichever snapshot; maybe none."""
    entries_through: int
    """With these, every live entry that had to be sent up to here is staged."""
    offset: int
    """Offset of `state` in the whole state; 0 begins the state afresh."""
    state: bytes


@dataclass(slots=True)
class Write:
    """Write of one group; done in the order of the fields, all of it or nothing.

    A group that is not there is made by its first write, which has `created_as` and `install`.
    """

    group: GroupId
    created_as: int | None = None
    """The group is made, as the member of this incarnation."""
    new_incarnation: int | None = None
    """The member of a group that is there has this incarnation from now on."""
    is_drop: bool = False
    """Everything of the group goes, its name too, whether it could be loaded, is lost or is gone
    already.  Alone in its write."""
    discard_staged: bool = False
    """True to discard what was staged before this write."""
    staged: list[Staged] = field(default_factory=list)
    truncate_from: int | None = None
    """Entries from this index on go; not those that are staged."""
    install: SnapshotMeta | None = None
    """The log now begins with this snapshot: what is staged for it becomes its state and its
    entries, of two at one index the staged one stays.  With index 0: a new group, or one that is
    to be filled by its leader; no state, no log.  What of the old log must go is in
    `truncate_from` and `deletes`.  Nothing is staged afterwards."""
    entries: list[Entry] = field(default_factory=list)
    """Behind what there is, consecutive; their indexes may have been used and truncated before."""
    snapshot: NewSnapshot | None = None
    """Takes the place of the former."""
    deletes: list[tuple[int, int]] = field(default_factory=list)
    """Entries from the first index up to, not including, the second go.  All are at or below the
    snapshot's index; some are not there.  The space may be freed later, in slices, but once this
    write is durable none of them is ever read again."""
    hard_state: HardState | None = None
    """Takes the place of the former."""
    quarantine: Quarantine | None = None
    """Quarantine to be remembered."""
    is_repaired: bool = False
    """The quarantine is over: forget it."""


@dataclass(slots=True)
class Persist:
    """Writes of all groups of a node in one turn: durable as a whole or not at all."""

    token: int
    """From 1, rising by one."""
    writes: list[Write] = field(default_factory=list)
    """At most one a group; but in front of the write that makes a group a drop of its former
    member may stand."""


@dataclass(slots=True)
class StagedSnapshot:
    """Part of a snapshot that was staged when the process ended, so that its transfer can go on."""

    meta: SnapshotMeta
    entries_through: int
    state_bytes: int
    state_crc: int
    """zlib.crc32 of those bytes."""


@dataclass(slots=True)
class RecoveredGroup:
    """Group as it is found on disk."""

    group: GroupId
    incarnation: int
    hard_state: HardState
    """(0, None) if none was ever written."""
    snapshot: SnapshotMeta
    """Snapshot, whose index is the *floor* of the log."""
    terms: list[tuple[int, int]] = field(default_factory=list)
    """Run-lengths: (index, term) of each entry above the floor that has another term than the one
    before it, the first included.  Between floor and `last_index` nothing is missing."""
    last_index: int = 0
    """The floor if there are no entries above it."""
    configs: list[Entry] = field(default_factory=list)
    """Every entry of kind `CONFIG` above the floor, in order."""
    quarantine: Quarantine | None = None
    """Damage remembered, joined with damage found now: a bad checksum, a bad or missing entry above
    the floor, a missing live one below, a bad state.  Never a shorter log: `last_index` is that
    which was written, and damaged entries have the term of the entry before them.  What is damaged
    but there below the floor may be found by `read` only."""
    staged: StagedSnapshot | None = None


@dataclass(slots=True)
class LoadedGroups:
    """Groups and damage that a node finds when it starts."""

    groups: list[RecoveredGroup] = field(default_factory=list)
    lost: list[GroupId] = field(default_factory=list)
    """Groups whose hard state, configuration or snapshot head cannot be read.  They must not vote
    again as the members they were: they come back as new incarnations, by `AddLearner`."""


class DamagedLog(Exception):
    """Refusal to go on with an unreadable log.  Nothing is repaired, nothing is forgotten."""

    def __init__(self, group: GroupId, index: int) -> None:
        super().__init__(f"group {group}: what is at index {index} is damaged")
        self.group = group
        self.index = index
        """The lowest index that is; the floor for the state of a snapshot."""


class LogStore(Protocol):
    """Store of the logs of all groups.  Used from one thread.

    An error of the disk while writing ends the process: nothing is called any more.
    """

    on_durable: Callable[[int], None]
    """Called with a token once its `Persist`, and all before, are durable.  In order, each token
    once (or the greatest of several at once), never from within `submit`, never for a token of a
    former life."""

    # How much room there is.  Of the next three each lasts longer than the one before; whatever
    # they say, `submit` takes everything.

    @property
    def has_room(self) -> bool:
        """True if anything more should be let in that makes logs grow."""

    @property
    def may_grow(self) -> bool:
        """True if what was let in before may be proposed; if not, only what makes room may be."""

    @property
    def takes_entries(self) -> bool:
        """True if any entry should be written, proposed here or by leaders elsewhere, whose will
        come again.  If not, only votes and the like go on."""

    def load(self) -> LoadedGroups:
        """Return what is there, before anything is submitted."""

    def submit(self, persist: Persist) -> None:
        """Make it durable, after all that was submitted before, together with what else waits.

        Raises `ValueError` for what contradicts what was written before: entries that do not
        follow, deletions above the floor, an install that was not staged whole.
        """

    def rewrite(self, group: GroupId, index: int, make: Callable[[bytes], bytes]) -> bool:
        """Have an entry hold what `make` makes of its payload: whether it will; else ask later.

        It is at or below the floor, and live by the snapshot that is durable while no other is on
        its way.  Raises `DamagedLog`.
        """

    def read(self, group: GroupId, first: int, stop: int, bytes_max: int) -> list[Entry]:
        """Entries that are there from `first` up to, not including, `stop`, in order.

        No more than `bytes_max` of payload, but at least one entry if there is any.  Asked only for
        what is durable.  Ends before what is damaged, or raises `DamagedLog` if it would begin with
        that; so there is no more only if there is nothing.
        """

    def read_state(self, group: GroupId, offset: int, size: int) -> bytes:
        """Read a piece of the state of the snapshot that is durable, be there a newer one on its
        way or not; a caller that asked before that was cannot use it.  Raises `DamagedLog`."""
