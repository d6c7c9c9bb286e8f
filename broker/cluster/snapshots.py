"""Which group of a node takes its next snapshot, and when.

A snapshot holds an image without bodies, so it is cheap; until it is taken, what died in the log
stays on disk, and a start reads all of it.  So a group owes one as soon as what it has applied
since its last is worth it, or what has died of that: `bytes_min`, or as much as the state itself,
whichever is more.  And since ten thousand groups may each stay just below that, the node has a
limit for all of them together; beyond it the one that has waited longest goes first.  Where there
is little room on the disk all take theirs, for only then is free what consumers have taken.  Where
there is room for votes only, just those are taken that free more than they need, as far as is known
before the state is made; what that needs then is seen, and it is not written if it is too much.

Nothing here takes one: see `group_background.py`, which does a few at a time.
"""

from collections import deque

from fluffle.raft.records import GroupId

RETRY_MS = 1_000
"""The former is on its way to the disk, or to a follower: asked again after this."""

ROUND_MS = 2_000
"""So often all take one where there is little room."""

FULL_BYTES = 1 << 16
"""Where there is room for votes only a snapshot writes no more than this, and frees more."""


class SnapshotDebt:
    """Bytes and entries that a group has applied since its last snapshot."""

    __slots__ = ("bytes", "freed_bytes", "made_bytes", "state_bytes", "tried_bytes")

    def __init__(self, state_bytes: int) -> None:
        self.bytes = 0
        self.freed_bytes = 0
        """By which its log would be smaller: acknowledgements are small, what they free is not."""
        self.state_bytes = state_bytes
        """Of the last snapshot."""
        self.made_bytes = state_bytes
        """Of the state as it was made last, written or not."""
        self.tried_bytes = 0
        """What was freed when its state was last found too large to be written."""

    @property
    def is_worth_its_room(self) -> bool:
        """Where there is room for votes only.

        What it has applied since says nothing of how large the state is by now; but making it costs
        as much as it is large, so that one that was large is worth it more rarely.
        """
        return self.freed_bytes - self.tried_bytes > max(FULL_BYTES, self.made_bytes)


class SnapshotSchedule:
    """The books of one node.  No clock: whoever knows the time says it."""

    __slots__ = (
        "_bytes_min", "_debts", "_due", "_node_bytes_max", "_postponed", "_round_ms", "_sizes",
        "_worth_its_room", "is_full", "is_short", "owed_bytes", "states_bytes",
    )  # fmt: skip

    def __init__(self, bytes_min: int, node_bytes_max: int) -> None:
        self._bytes_min = bytes_min
        self._node_bytes_max = node_bytes_max
        self._sizes: dict[GroupId, int] = {}
        """Of the last snapshot of each group that is here and has applied anything."""
        self._debts: dict[GroupId, SnapshotDebt] = {}
        """The one that has waited longest first."""
        self._due: dict[GroupId, None] = {}
        """Those that owe one by themselves, likewise."""
        self._worth_its_room: dict[GroupId, None] = {}
        """Those that are to take one even where there is room for votes only, likewise."""
        self._postponed: deque[tuple[int, GroupId]] = deque()
        """Until when, and who; it is in `_debts` all the same, maybe no more."""
        self.is_short = False
        """Whether there is little room on the disk."""
        self.is_full = False
        """Whether there is room for votes only."""
        self._round_ms = 0
        """When all are to take one if there is; what they owe after that is for the next time."""
        self.owed_bytes = 0
        """Of all debts."""
        self.states_bytes = 0
        """Of the last snapshots of all groups: rewriting them must not cost more than logs do."""

    def applied(self, group: GroupId, size_bytes: int) -> None:
        """An image has so much more in it."""
        debt = self._debt(group)
        debt.bytes += size_bytes
        self.owed_bytes += size_bytes
        if debt.bytes >= max(self._bytes_min, debt.state_bytes):
            self._due[group] = None

    def freed(self, group: GroupId, size_bytes: int) -> None:
        """Of what it has applied so much is of no use any more."""
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
        """It has a new snapshot of its own, or from a leader, or was just restored from one."""
        self.forget(group)
        self._sizes[group] = state_bytes
        self.states_bytes += state_bytes

    def forget(self, group: GroupId) -> None:
        """It is gone, or its image is."""
        debt = self._debts.pop(group, None)
        self.owed_bytes -= debt.bytes if debt is not None else 0
        self.states_bytes -= self._sizes.pop(group, 0)
        self._due.pop(group, None)
        self._worth_its_room.pop(group, None)

    def too_large(self, group: GroupId, state_bytes: int) -> None:
        """There is no room for its state as it is now: not before more is of no use any more."""
        debt = self._debts[group]
        debt.tried_bytes, debt.made_bytes = debt.freed_bytes, state_bytes
        self._worth_its_room.pop(group)

    def postpone(self, group: GroupId, now_ms: int) -> None:
        """It cannot take one now."""
        debt = self._debts.pop(group, None)
        self._due.pop(group, None)
        self._worth_its_room.pop(group, None)
        if debt is not None:
            self._debts[group] = debt
            self._postponed.append((now_ms + RETRY_MS, group))

    @property
    def deadline_ms(self) -> int | None:
        """When to ask again, for one that was postponed or for all."""
        postponed_ms = self._postponed[0][0] if self._postponed else None
        if self.is_full or not (self.is_short and self._debts):
            return postponed_ms
        return self._round_ms if postponed_ms is None else min(postponed_ms, self._round_ms)

    def next(self, now_ms: int) -> GroupId | None:
        """Whose snapshot is to be taken now, if anybody's."""
        while self._postponed and self._postponed[0][0] <= now_ms:
            group = self._postponed.popleft()[1]
            debt = self._debts.get(group)
            if debt is not None:
                self._due[group] = None
                if debt.is_worth_its_room:
                    self._worth_its_room[group] = None
        if self.is_full:
            return next(iter(self._worth_its_room), None)
        if self.is_short and self._debts and self._round_ms <= now_ms:
            self._round_ms = now_ms + ROUND_MS
            waiting = {group for _, group in self._postponed}
            self._due.update(dict.fromkeys(each for each in self._debts if each not in waiting))
        if self._due:
            return next(iter(self._due))
        if self.owed_bytes > self._node_bytes_max + self.states_bytes:
            return self._oldest()
        return None

    def _oldest(self) -> GroupId | None:
        """Who has waited longest, and was not told to wait."""
        waiting = {group for _, group in self._postponed}
        return next((group for group in self._debts if group not in waiting), None)
