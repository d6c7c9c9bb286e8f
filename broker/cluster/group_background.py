"""Background work of a host, a slice at a time: reads, snapshots, scrubbing.

In this order: a follower, or this node's own image, waits for what is read; space and the length of
the next start depend on snapshots; nobody waits for scrubbing.  All of it is done from within a
turn, where disk and consensus agree on what there is.  So are entries rewritten, which is cheap and
rare: whoever knows what is live in them says when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fluffle.broker.cluster.host_limits import HostLimits
from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.scrubber import Scrubber
from fluffle.broker.cluster.snapshots import FULL_BYTES, SnapshotSchedule
from fluffle.broker.cluster.traffic_class import TrafficClasses
from fluffle.raft.group import ProposalRefused, RefusalReason
from fluffle.raft.log_store import DamagedLog, LogStore
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import ReadEntries, ReadState
from fluffle.raft.records import GroupId, size_of

SNAPSHOT_BYTES = 1 << 16
"""As which a snapshot counts beside its state: it costs something even if that is small."""


class GroupBackground:
    """Background work of one host, done in slices."""

    __slots__ = (
        "_groups", "_is_over", "_lanes", "_multi", "_on_damaged", "_reads", "_scrubber",
        "_settings", "_store", "_wanted", "snapshots",
    )  # fmt: skip

    def __init__(
        self,
        multi: MultiRaft,
        store: LogStore,
        groups: dict[GroupId, HostedGroup],
        lanes: TrafficClasses,
        settings: HostLimits,
    ) -> None:
        self._multi = multi
        self._store = store
        self._groups = groups
        self._lanes = lanes
        self._settings = settings
        self._reads: deque[ReadEntries | ReadState] = deque()
        self._wanted: dict[GroupId, None] = {}
        """Followers cannot go on without a snapshot of these."""
        self.snapshots = SnapshotSchedule(
            settings.snapshot_bytes_min, settings.snapshot_node_bytes_max
        )
        self._scrubber: Scrubber | None = None
        self._on_damaged: Callable[[GroupId, int], None] = _nobody
        self._is_over = False

    def start(self, now_ms: int, on_damaged: Callable[[GroupId, int], None]) -> None:
        """`on_damaged` is told of a group here whose data could not be read."""
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
        if self._reads or self._next_snapshot(now_ms) is not None:
            return now_ms
        retry_ms, scrubber = self.snapshots.deadline_ms, self._scrubber
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
            self._lanes.was_read(read.group, entries[0].index)
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
            size_bytes = hosted.snapshot(bytes_max)
        except ProposalRefused as refused:
            if refused.reason is RefusalReason.SENDING:
                self.snapshots.postpone(group, now_ms)
            else:
                self.snapshots.forget(group)
            return SNAPSHOT_BYTES
        if bytes_max is not None and size_bytes > bytes_max:
            self.snapshots.too_large(group, size_bytes)
        else:
            self.snapshots.taken(group, size_bytes)
        return size_bytes + SNAPSHOT_BYTES


def _nobody(group: GroupId, index: int) -> None:
    """Nothing is read before the start."""
