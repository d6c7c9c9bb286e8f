"""Reads what is on disk and nobody asks for, so that damage is found while others have a copy.

Everything above a floor is read when a node starts; what is live at or below it is read by this,
and so is the state of the snapshot: group by group, in small pieces with pauses between them, then
from the beginning after a rest.  What it finds, it returns; repair is the group's own affair.
"""

from collections import deque
from collections.abc import Iterable

from fluffle.broker.cluster.host_limits import ScrubLimits
from fluffle.raft.log_store import DamagedLog, LogStore
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.records import Entry, GroupId, SnapshotMeta

GROUPS_PER_STEP = 256
"""So many that have nothing to be read are passed over in one step."""


class Scrubber:
    """`step` from within a turn, when `due_ms` has come."""

    __slots__ = (
        "_group", "_groups", "_multi", "_next_index", "_offset", "_settings", "_snapshot", "_store",
        "due_ms",
    )  # fmt: skip

    def __init__(
        self, multi: MultiRaft, store: LogStore, settings: ScrubLimits, now_ms: int
    ) -> None:
        self._multi = multi
        self._store = store
        self._settings = settings
        self.due_ms = now_ms + settings.pause_ms
        self._groups: deque[GroupId] = deque()
        """Those of this round that are yet to come."""
        self._group: GroupId | None = None
        """The one that is being read."""
        self._snapshot: SnapshotMeta | None = None
        """Its snapshot.  If it has another by now, only the state is begun anew: a backlog may be
        long, and snapshots come often."""
        self._next_index = 1
        self._offset = 0
        """Of the state."""

    def step(self, now_ms: int, groups: Iterable[GroupId]) -> DamagedLog | None:
        """Read the next piece, of `groups` if a new round begins; what cannot be read."""
        self.due_ms = now_ms + self._settings.pause_ms
        if self._group is None and not self._groups:
            self._groups.extend(groups)
        for _ in range(GROUPS_PER_STEP):
            snapshot = self._snapshot_to_read()
            if snapshot is not None:
                return self._read(snapshot)
            if not self._groups:
                self._group = None
                self.due_ms = now_ms + self._settings.rest_ms
                return None
            self._begin(self._groups.popleft())
        return None

    def _begin(self, group: GroupId) -> None:
        self._group, self._snapshot = group, None
        self._next_index, self._offset = 1, 0

    def _snapshot_to_read(self) -> SnapshotMeta | None:
        """That of the group which is being read, if there is anything left of it."""
        group = self._group
        if group is None or group not in self._multi:
            return None
        snapshot = self._multi.group(group).settled_snapshot
        if snapshot is None:
            return None  # something is on its way to the disk: the next round will see it
        if self._snapshot is not snapshot:
            self._snapshot, self._offset = snapshot, 0
        has_entries = snapshot.live.next_from(self._next_index) is not None
        return snapshot if has_entries or self._offset < snapshot.state_bytes else None

    def _read(self, snapshot: SnapshotMeta) -> DamagedLog | None:
        live = snapshot.live.next_from(self._next_index)
        try:
            if live is None:
                self._read_state(snapshot)
            else:
                self._read_entries(*live)
        except DamagedLog as damage:
            self._group = None
            return damage
        return None

    def _read_entries(self, first: int, stop: int) -> None:
        """All of these are needed."""
        assert self._group is not None
        entries = self._store.read(self._group, first, stop, self._settings.piece_bytes)
        hole = first_hole(entries, first)
        if hole is not None:
            raise DamagedLog(self._group, hole)
        self._next_index = entries[-1].index + 1

    def _read_state(self, snapshot: SnapshotMeta) -> None:
        assert self._group is not None
        size = min(self._settings.piece_bytes, snapshot.state_bytes - self._offset)
        data = self._store.read_state(self._group, self._offset, size)
        if not data:
            raise DamagedLog(self._group, snapshot.index)
        self._offset += len(data)


def first_hole(entries: list[Entry], first: int) -> int | None:
    """The first index from `first` on that is missing before the last; `first` if all are."""
    if not entries:
        return first
    places = enumerate(entries, first)
    return next((place for place, entry in places if entry.index != place), None)
