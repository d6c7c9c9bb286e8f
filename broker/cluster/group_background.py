"""Background work of a host, a slice at a time: reads, snapshots, scrubbing; and its limits.

In this order: a follower, or this node's own image, waits for what is read; space and the length of
the next start depend on snapshots; nothing waits for scrubbing.  All of it is done from within a
turn, where disk and consensus agree on what there is.  So are entries rewritten, which is cheap and
rare: the part that knows what is live in them says when.

**Snapshots.**  A snapshot holds an image without bodies, so it is cheap; until it is taken, what
died in the log stays on disk, and a start reads all of it.  So a group owes one as soon as what it
has applied since its last is worth it, or what has died of that: `bytes_min`, or as much as the
state itself, whichever is more.  And since ten thousand groups may each stay just below that, the
node has a limit for all of them together; beyond it the one that has waited longest goes first.
Where there is little room on the disk all take theirs, for only then is free what consumers have
taken.  Where there is room for votes only, just those are taken that free more than they need, as
far as is known before the state is made; what that needs then is seen, and it is not written if it
is too much.

**Scrubbing** reads what is on disk and no request asks for, so that damage is found while others
have a copy.  Everything above a floor is read when a node starts; what is live at or below it is
read later, and so is the state of the snapshot: group by group, in small pieces with pauses between
them, then from the beginning after a rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fluffle.broker.cluster.codec import TrafficClasses
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.raft.leader import ProposalRefused, RefusalReason
from fluffle.raft.log import Entry, GroupId, SnapshotMeta, size_of
from fluffle.raft.log_store import DamagedLog, LogStore
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ReadEntries, ReadState

SNAPSHOT_BYTES = 1 << 16
"""Bytes that a snapshot counts beside its state: even a small one costs something."""

RETRY_MS = 1_000
"""The former is on its way to the disk, or to a follower: asked again after this."""

ROUND_MS = 2_000
"""Interval at which all groups take a snapshot where there is little room."""

FULL_BYTES = 1 << 16
"""Where there is room for votes only a snapshot writes no more than this, and frees more."""

GROUPS_PER_STEP = 256
"""Most groups without anything to read that are passed over in one step."""


@dataclass(frozen=True, slots=True)
class ScrubLimits:
    """How fast the disk is read for the sake of reading."""

    piece_bytes: int = 128 << 10
    pause_ms: int = 50
    """Between two pieces: together 2.5 MB a second, a tenth of what a slow disk can."""
    rest_ms: int = 6 * 3_600_000
    """After a round over everything."""


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of one host, each with its unit in its name."""

    slice_bytes: int = 1 << 20
    """Read for followers, or written as snapshots, before everything else has its turn again."""
    snapshot_bytes_min: int = 4 << 20
    """Applied since its last snapshot, by one group, before it takes another: some entries of a
    busy queue, so that it costs little beside them."""
    snapshot_node_bytes_max: int = 16 << 20
    """Bytes of debt of all groups together, beyond what their states have: half of the hot window
    of the log, so that most of what dies young is never moved."""
    scrub: ScrubLimits | None = field(default_factory=ScrubLimits)
    """None: nothing is read but for a reason."""


class GroupBackground:
    """Background work of one host, done in slices."""

    def __init__(
        self,
        multi: MultiRaft,
        store: LogStore,
        groups: dict[GroupId, HostedGroup],
        traffic_classes: TrafficClasses,
        settings: HostLimits,
    ) -> None:
        self._multi = multi
        self._store = store
        self._groups = groups
        self._traffic_classes = traffic_classes
        self._settings = settings
        self._reads: deque[ReadEntries | ReadState] = deque()
        self._wanted: dict[GroupId, None] = {}
        """Followers cannot go on without a snapshot of these."""
        self.snapshots = SnapshotSchedule(
            settings.snapshot_bytes_min, settings.snapshot_node_bytes_max
        )
        self._scrubber: Scrubber | None = None
        self._on_damaged: Callable[[GroupId, int], None] = ignore_damage
        self._is_over = False

    def start(self, now_ms: int, on_damaged: Callable[[GroupId, int], None]) -> None:
        """Start; `on_damaged` is called with a group here whose data could not be read."""
        self._on_damaged = on_damaged
        if self._settings.scrub is not None:
            self._scrubber = Scrubber(self._multi, self._store, self._settings.scrub, now_ms)

    def stop(self) -> None:
        """The store may be closed from now on."""
        self._is_over = True

    def rewrite(self, group: GroupId, index: int, make: Callable[[bytes], bytes]) -> bool:
        """See `LogStore.rewrite`.  From within a turn.

        Not where there is room for votes only: until later commits the old entry keeps its own.
        """
        may_write = not (self._is_over or self.snapshots.is_full)
        return may_write and self._store.rewrite(group, index, make)

    def read(self, read: ReadEntries | ReadState) -> None:
        self._reads.append(read)

    def want_snapshot(self, group: GroupId) -> None:
        self._wanted[group] = None

    def due_ms(self, now_ms: int) -> int | None:
        """When a slice is wanted: now, later, or not before something else happens."""
        snapshots, scrubber = self.snapshots, self._scrubber
        if self._reads or (self._wanted and not snapshots.is_full):
            return now_ms
        if snapshots.next(now_ms) is not None:
            return now_ms
        is_waiting = snapshots.postponed or snapshots.is_short
        retry_ms = snapshots.deadline_ms if is_waiting else None
        if scrubber is None:
            return retry_ms
        return scrubber.due_ms if retry_ms is None else min(retry_ms, scrubber.due_ms)

    def do_slice(self, now_ms: int) -> None:
        """From within a turn: some of what there is to do."""
        left_bytes = self._settings.slice_bytes
        while self._reads and left_bytes > 0:
            left_bytes -= self._read(self._reads.popleft())
        while left_bytes > 0 and (group := self._next_snapshot(now_ms)) is not None:
            left_bytes -= self._take_snapshot(group, now_ms)
        scrubber = self._scrubber
        if left_bytes > 0 and scrubber is not None and scrubber.due_ms <= now_ms:
            damage = scrubber.step(now_ms, self._groups)
            if damage is not None:
                self._on_damaged(damage.group, damage.index)

    # Reads

    def _read(self, read: ReadEntries | ReadState) -> int:
        """How many bytes were read."""
        if read.group not in self._groups:
            return 0
        try:
            if isinstance(read, ReadState):
                return self._read_state(read)
            return self._read_entries(read)
        except DamagedLog as damage:
            self._on_damaged(read.group, damage.index)
            return 0

    def _read_entries(self, read: ReadEntries) -> int:
        entries = self._store.read(read.group, read.first, read.stop, read.bytes_max)
        if entries:
            self._traffic_classes.was_read(read.group, entries[0].index)
        self._multi.group(read.group).entries_read(read.number, entries)
        return sum(map(size_of, entries))

    def _read_state(self, read: ReadState) -> int:
        data = self._store.read_state(read.group, read.offset, read.size)
        self._multi.group(read.group).state_read(read.number, data)
        return len(data)

    # Snapshots

    def _next_snapshot(self, now_ms: int) -> GroupId | None:
        if self._wanted and not self.snapshots.is_full:
            return next(iter(self._wanted))
        return self.snapshots.next(now_ms)

    def _take_snapshot(self, group: GroupId, now_ms: int) -> int:
        """How much work it was."""
        self._wanted.pop(group, None)
        hosted = self._groups.get(group)
        if hosted is None or not hosted.is_restored:
            self.snapshots.forget(group)
            return 0
        bytes_max = FULL_BYTES if self.snapshots.is_full else None
        try:
            outcome = hosted.snapshot(bytes_max)
        except ProposalRefused as refused:
            if refused.reason is RefusalReason.SENDING:
                self.snapshots.postpone(group, now_ms)
            else:
                self.snapshots.forget(group)
            return SNAPSHOT_BYTES
        if outcome is None:
            self._wanted[group] = None
            return self._settings.slice_bytes
        size_bytes, behind_bytes = outcome
        if bytes_max is not None and size_bytes > bytes_max:
            self.snapshots.too_large(group, size_bytes)
        else:
            self.snapshots.taken(group, size_bytes)
            if behind_bytes:
                self.snapshots.applied(group, behind_bytes)
        return size_bytes + SNAPSHOT_BYTES


def ignore_damage(group: GroupId, index: int) -> None:
    """Nothing is read before the start."""


class SnapshotDebt:
    """Bytes and entries that a group has applied since its last snapshot."""

    __slots__ = ("bytes", "freed_bytes", "made_bytes", "state_bytes", "tried_bytes")

    def __init__(self, state_bytes: int) -> None:
        self.bytes = 0
        self.freed_bytes = 0
        """Bytes by which its log would shrink: acknowledgements are small, what they free is
        not."""
        self.state_bytes = state_bytes
        """State bytes of the last snapshot."""
        self.made_bytes = state_bytes
        """Bytes of the state as it was made last, written or not."""
        self.tried_bytes = 0
        """Bytes that were freed when its state was last found too large to be written."""

    @property
    def is_worth_its_room(self) -> bool:
        """Where there is room for votes only.

        What it has applied since says nothing of how large the state is by now; but making it costs
        as much as it is large, so that one that was large is worth it more rarely.
        """
        return self.freed_bytes - self.tried_bytes > max(FULL_BYTES, self.made_bytes)


class SnapshotSchedule:
    """The books of one node.  No clock: the caller says the time."""

    def __init__(self, bytes_min: int, node_bytes_max: int) -> None:
        self._bytes_min = bytes_min
        self._node_bytes_max = node_bytes_max
        self._sizes: dict[GroupId, int] = {}
        """State bytes of the last snapshot of each group here that has applied anything."""
        self._debts: dict[GroupId, SnapshotDebt] = {}
        """The one that has waited longest first."""
        self._due: dict[GroupId, None] = {}
        """Groups that owe a snapshot by themselves, longest waiting first."""
        self._worth_its_room: dict[GroupId, None] = {}
        """Groups that are to take a snapshot even where there is room for votes only, longest
        waiting first."""
        self.postponed: deque[tuple[int, GroupId]] = deque()
        """Until when, and which group; it is in `_debts` all the same, maybe no more."""
        self.is_short = False
        """True if there is little room on the disk."""
        self.is_full = False
        """True if there is room for votes only."""
        self._round_ms = 0
        """When all are to take one if there is; what they owe after that is for the next time."""
        self.owed_bytes = 0
        """Bytes of all debts."""
        self.states_bytes = 0
        """Bytes of the last snapshots of all groups: rewriting them must not cost more than logs
        do."""

    def applied(self, group: GroupId, size_bytes: int) -> None:
        """An image has so much more in it."""
        debt = self._debt(group)
        debt.bytes += size_bytes
        self.owed_bytes += size_bytes
        if debt.bytes >= max(self._bytes_min, debt.state_bytes):
            self._due[group] = None

    def freed(self, group: GroupId, size_bytes: int) -> None:
        """Count bytes of a group's log that are of no use any more."""
        debt = self._debt(group)
        debt.freed_bytes += size_bytes
        if debt.freed_bytes >= max(self._bytes_min, debt.state_bytes):
            self._due[group] = None
        if debt.is_worth_its_room:
            self._worth_its_room[group] = None

    def _debt(self, group: GroupId) -> SnapshotDebt:
        debt = self._debts.get(group)
        if debt is None:
            debt = self._debts[group] = SnapshotDebt(self._sizes.get(group, 0))
        return debt

    def taken(self, group: GroupId, state_bytes: int) -> None:
        """Record that a group has a new snapshot: its own, a leader's, or one just restored."""
        self.forget(group)
        self._sizes[group] = state_bytes
        self.states_bytes += state_bytes

    def forget(self, group: GroupId) -> None:
        """Forget a group that is gone, or whose image is."""
        debt = self._debts.pop(group, None)
        self.owed_bytes -= debt.bytes if debt is not None else 0
        self.states_bytes -= self._sizes.pop(group, 0)
        self._due.pop(group, None)
        self._worth_its_room.pop(group, None)

    def too_large(self, group: GroupId, state_bytes: int) -> None:
        """Note that there is no room for the group's state as it is now: not before more is
        freed."""
        debt = self._debts[group]
        debt.tried_bytes, debt.made_bytes = debt.freed_bytes, state_bytes
        self._worth_its_room.pop(group)

    def postpone(self, group: GroupId, now_ms: int) -> None:
        """Postpone the snapshot of a group that cannot take one now."""
        debt = self._debts.pop(group, None)
        self._due.pop(group, None)
        self._worth_its_room.pop(group, None)
        if debt is not None:
            self._debts[group] = debt
            self.postponed.append((now_ms + RETRY_MS, group))

    @property
    def deadline_ms(self) -> int | None:
        """When to ask again, for one that was postponed or for all."""
        postponed_ms = self.postponed[0][0] if self.postponed else None
        if self.is_full or not (self.is_short and self._debts):
            return postponed_ms
        return self._round_ms if postponed_ms is None else min(postponed_ms, self._round_ms)

    def next(self, now_ms: int) -> GroupId | None:
        """Group whose snapshot is to be taken now, or None."""
        while self.postponed and self.postponed[0][0] <= now_ms:
            group = self.postponed.popleft()[1]
            debt = self._debts.get(group)
            if debt is not None:
                self._due[group] = None
                if debt.is_worth_its_room:
                    self._worth_its_room[group] = None
        if self.is_full:
            return next(iter(self._worth_its_room), None)
        if self.is_short and self._debts and self._round_ms <= now_ms:
            self._round_ms = now_ms + ROUND_MS
            waiting = {group for _, group in self.postponed}
            self._due.update(dict.fromkeys(each for each in self._debts if each not in waiting))
        if self._due:
            return next(iter(self._due))
        if self.owed_bytes > self._node_bytes_max + self.states_bytes:
            return self._oldest()
        return None

    def _oldest(self) -> GroupId | None:
        """Group that has waited longest and is not postponed."""
        waiting = {group for _, group in self.postponed}
        return next((group for group in self._debts if group not in waiting), None)


class Scrubber:
    """`step` from within a turn, when `due_ms` has come."""

    def __init__(
        self, multi: MultiRaft, store: LogStore, settings: ScrubLimits, now_ms: int
    ) -> None:
        self._multi = multi
        self._store = store
        self._settings = settings
        self.due_ms = now_ms + settings.pause_ms
        self._groups: deque[GroupId] = deque()
        """Groups of this round that are yet to be checked."""
        self._group: GroupId | None = None
        """The one that is being read."""
        self._snapshot: SnapshotMeta | None = None
        """Its snapshot.  If it has another by now, only the state is begun anew: a backlog may be
        long, and snapshots come often."""
        self._next_index = 1
        self._offset = 0
        """Offset in the state."""

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
        """Snapshot of the group that is being read, if anything of it is left."""
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
