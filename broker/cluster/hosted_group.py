"""A Raft group on this node: its image, its proposals without an outcome, and its queries.

    proposed --> refused                              it never was in any log
             --> appended --> applied                 at this position, on a majority of disks
                          --> leadership has ended    applied later, or never: it is unknown here

Whatever is asked is done in the next turn of the host, after everything that came in; a caller
is answered exactly once, mostly from within a turn.  Methods named `on_` are the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.ports import Machine
from fluffle.raft.config import Change, Configuration, NodeId
from fluffle.raft.group import Group, Position, Status
from fluffle.raft.leader import ProposalRefused, RefusalReason
from fluffle.raft.log import Entry, GroupId, SnapshotMeta, size_of
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import Readable, Role, RoleChange
from fluffle.raft.ranges import Ranges

SNAPSHOT_PIECES = 4
"""Pieces of a state that are made in one step: a few milliseconds.  The state of a queue is one."""


@dataclass(frozen=True, slots=True)
class ProposalLost:
    """Not applied by the leader that was asked."""

    refused: ProposalRefused | None
    """Why it was not taken.  None: it was, and leadership or the group here has ended since; a
    later leader may have it still, or not."""


EntryOutcome = Position | ProposalLost
"""Where it was applied, or `ProposalLost`."""

OnEntryOutcome = Callable[[EntryOutcome], None]

UNKNOWN_OUTCOME = ProposalLost(None)

OnReadable = Callable[[int | None], None]
"""Called with the index that is applied here, at least; None: ask elsewhere."""

OnRefused = Callable[[ProposalRefused], None]


@dataclass(slots=True)
class RejectedLog:
    """An entry that the image did not take; the member is repaired.  The same entry rejected again
    after that repair is no damage of the disk.

    If it is the same again then, that is no damage of this disk: the image waits for a snapshot
    that is further on, or for a process that knows better.
    """

    wrong: str
    """Says what is wrong, and where."""
    index: int
    """Where to begin to repair."""
    needs: int
    """A snapshot from this index on does without it."""
    is_again: bool = False
    resignations: int = 0


class PendingProposals:
    """Proposals of one group that have no outcome yet, in the order of their positions."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Position, OnEntryOutcome]] = []
        """No deque: an empty one takes 600 bytes, and most groups are idle."""

    def add(self, position: Position, on_outcome: OnEntryOutcome) -> None:
        self._waiting.append((position, on_outcome))

    def applied(self, entries: Sequence[Entry]) -> None:
        """These entries are applied; those of them that were proposed here have their outcome."""
        waiting = self._waiting
        if not waiting:
            return
        last = entries[-1].index
        for position, on_outcome in self._take(lambda position: position.index <= last):
            entry = entries[position.index - entries[0].index]
            # A leader's own entries are never replaced, and what it led before was let go of.
            assert entry.term == position.term, f"{position} was taken by one of {entry.term}"
            on_outcome(position)

    def ended(self, term_now: int) -> None:
        """Whatever was proposed in an earlier term may be applied by others, or never."""
        for _, on_outcome in self._take(lambda position: position.term < term_now):
            on_outcome(UNKNOWN_OUTCOME)

    def _take(self, is_over: Callable[[Position], bool]) -> list[tuple[Position, OnEntryOutcome]]:
        """The first ones, as far as that holds."""
        waiting = self._waiting
        stop = next(
            (at for at, (position, _) in enumerate(waiting) if not is_over(position)), len(waiting)
        )
        taken = waiting[:stop]
        del waiting[:stop]
        return taken

    def end(self) -> None:
        """Nothing is led here any more."""
        waiting, self._waiting = self._waiting, []
        for _, on_outcome in waiting:
            on_outcome(UNKNOWN_OUTCOME)


class SnapshotOutcome(NamedTuple):
    """A snapshot that was taken, or was too large to be."""

    size_bytes: int
    behind_bytes: int
    """Applied since it was begun."""


class SnapshotInProgress:
    """Snapshot of an image as it was after `index`, whose state is being made."""

    __slots__ = ("_pieces", "behind_bytes", "index", "live", "state")

    def __init__(self, index: int, live: Ranges, pieces: Iterator[bytes]) -> None:
        self.index = index
        self.live = live
        self._pieces = pieces
        self.state = bytearray()
        """Bytes that have been made so far."""
        self.behind_bytes = 0
        """Applied since."""

    def go_on(self) -> bool:
        """Make some more of the state.  False if that is all."""
        made = 0
        for piece in islice(self._pieces, SNAPSHOT_PIECES):
            self.state += piece
            made += 1
        return made == SNAPSHOT_PIECES


class HostedGroup:
    """Made by the host, when the group is found or created; outlived by nothing of the group."""

    __slots__ = (
        "_ask",
        "_followed",
        "_multi",
        "_next_context",
        "_notified",
        "_reads",
        "_refused",
        "_snapshot",
        "_timed",
        "_waiting",
        "applied",
        "commit_ms",
        "group",
        "incarnation",
        "is_gone",
        "is_restored",
        "machine",
        "misfit",
        "raft",
    )  # fmt: skip

    def __init__(
        self,
        group: GroupId,
        incarnation: int,
        machine: Machine,
        multi: MultiRaft,
        ask: Callable[..., None],
    ) -> None:
        """`ask`: schedules a function with its arguments for the next turn; it is called at once
        if there will be none."""
        self.group = group
        self.raft = multi.group(group)
        """The group itself, to be looked at, and asked from within a turn."""
        self.incarnation = incarnation
        self.machine = machine
        self.applied = 0
        """Index of the last entry that is in the image."""
        self.is_restored = False
        """True if the image is one; not before the first restore, nor after it has failed."""
        self.is_gone = False
        """Deleted here.  Its id may be here again, as another member."""
        self.misfit: RejectedLog | None = None
        """Fault that made the image reject the log when it was last rebuilt."""
        self.commit_ms: int | None = None
        """How long it took until an entry was applied that was proposed here; none yet, or this
        node does not lead."""
        self._timed: tuple[int, int] | None = None
        """The index of an entry that was proposed, and when; of one at a time."""
        self._multi = multi
        self._ask = ask
        self._followed: tuple[int, NodeId | None] = 0, None
        """Term and leader; "followed" as in `Machine`."""
        self._notified: tuple[int, NodeId | None] | None = None
        """The same as the image was notified of it last."""
        self._waiting = PendingProposals()
        self._refused: ProposalRefused | None = None
        """Refusal of the last batch that was not accepted."""
        self._reads: dict[int, OnReadable] = EMPTY_DICT
        """Pending reads by their contexts."""
        self._next_context = 1
        self._snapshot: SnapshotInProgress | None = None

    # What can be asked, at any time

    @property
    def status(self) -> Status:
        """Current status; the last one if it is gone."""
        return self.raft.status

    @property
    def configs(self) -> list[Configuration]:
        """Configurations, as `Group.configs`."""
        return self.raft.configs

    @property
    def followed(self) -> tuple[int, NodeId | None]:
        """Term and leader, as they were at the end of the last turn."""
        return self._followed

    def propose(self, payload: bytes, on_outcome: OnEntryOutcome) -> None:
        """Have a batch become one entry, in the next turn of consensus: until then it is asked for.

        Behind one that is not taken, none is that was asked for before that was known: it may have
        been decided on top of it.
        """
        self._ask(self._propose, payload, on_outcome, self._refused)

    def change(self, change: Change, on_outcome: OnEntryOutcome) -> None:
        """Change the members: its outcome is that of the entry with the new configuration."""
        self._ask(self._change, change, on_outcome)

    def read_index(self, done: OnReadable) -> None:
        """Have `done` called once whatever is committed by then is applied here."""
        self._ask(self._read_index, done)

    def transfer(self, target: NodeId, on_refused: OnRefused) -> None:
        """Have another voter lead.  That it does, or does not, `Machine.followed` says."""
        self._ask(self._transfer, target, on_refused)

    # The same, from within a turn

    def _propose(
        self, payload: bytes, on_outcome: OnEntryOutcome, known: ProposalRefused | None
    ) -> None:
        if self._refused is not None and self._refused is not known:
            on_outcome(ProposalLost(self._refused))
            return
        try:
            position = self._here().propose(payload)
        except ProposalRefused as refused:
            self._refused = refused
            on_outcome(ProposalLost(refused))
        else:
            self._waiting.add(position, on_outcome)
            if self._timed is None:
                self._timed = position.index, self._multi.now_ms

    def _change(self, change: Change, on_outcome: OnEntryOutcome) -> None:
        try:
            position = self._here().change(change)
        except ProposalRefused as refused:
            on_outcome(ProposalLost(refused))
        else:
            self._waiting.add(position, on_outcome)

    def _read_index(self, done: OnReadable) -> None:
        context = self._next_context
        try:
            self._here().read_index(context)
        except ProposalRefused:
            done(None)
        else:
            self._next_context += 1
            if self._reads is EMPTY_DICT:
                self._reads = {}
            self._reads[context] = done

    def _transfer(self, target: NodeId, on_refused: OnRefused) -> None:
        try:
            self._here().transfer(target)
        except ProposalRefused as refused:
            on_refused(refused)

    def _here(self) -> Group:
        if self.is_gone:
            raise ProposalRefused(RefusalReason.NOT_LEADER, detail="the group is not here any more")
        return self.raft

    # What the host passes on

    def on_role(self, change: RoleChange) -> None:
        """Whatever was led is over; maybe a new leadership is about to begin.

        The image hears of it before the outcomes of what it proposed, which it ignores then.
        """
        self._followed = change.term, change.leader
        self._timed = self.commit_ms = None
        self._notify()
        if change.role is Role.LEADER:
            self._waiting.ended(change.term)
        else:
            self._waiting.end()

    def on_restore(self, snapshot: SnapshotMeta, state: bytes) -> None:
        """Raises `ValueError`, and has no image then, if the state is none."""
        self.is_restored = False
        self._snapshot = None
        self.machine.restore(snapshot, state)
        self.applied = snapshot.index
        self.is_restored = True
        self._notify()

    def _notify(self) -> None:
        """Notify the image of its leader, once it is one."""
        if self.is_restored and self._notified != self._followed:
            self._notified = self._followed
            self.machine.followed(*self._followed)

    def on_led(self, term: int) -> None:
        if self.is_restored:
            self.machine.led(term)

    def on_apply(self, entries: Sequence[Entry]) -> None:
        """Raises `ValueError`, and has no image then, if they do not fit it."""
        self.machine.apply(entries)
        self.applied = entries[-1].index
        if self.misfit is not None and self.misfit.needs <= self.applied:
            self.misfit = None

    def on_applied(self, entries: Sequence[Entry]) -> None:
        """Answer the waiting proposals: the image has applied the entries."""
        self._waiting.applied(entries)
        if self._snapshot is not None:
            self._snapshot.behind_bytes += sum(map(size_of, entries))
        if self._timed is not None and self._timed[0] <= self.applied:
            self.commit_ms = self._multi.now_ms - self._timed[1]
            self._timed = None

    def on_readable(self, readable: Readable) -> None:
        """Answer a query, perhaps of a former member of the same id, whose readers were answered
        when it ended."""
        done = self._reads.pop(readable.context, None)
        if done is not None:
            done(readable.index)

    def on_gone(self) -> None:
        """End the group here: it was deleted, or the host ends."""
        self.is_gone = True
        self._snapshot = None
        self._waiting.end()
        reads, self._reads = self._reads, EMPTY_DICT
        for done in reads.values():
            done(None)

    def snapshot(self, bytes_max: int | None = None) -> SnapshotOutcome | None:
        """From within a turn: go on with a snapshot of the image, or begin one; None if it is not
        taken yet.

        It is not if its state is more than `bytes_max`.  Raises `ProposalRefused`.
        """
        raft, snapshot = self.raft, self._snapshot
        if snapshot is None:
            if raft.is_sending_snapshot:
                raise ProposalRefused(RefusalReason.SENDING)
            snapshot = SnapshotInProgress(self.applied, *self.machine.snapshot())
        self._snapshot = None
        has_more = snapshot.go_on()
        size_bytes = len(snapshot.state)
        if bytes_max is None or size_bytes <= bytes_max:
            if has_more:
                self._snapshot = snapshot
                return None
            raft.compact(snapshot.index, snapshot.live, snapshot.state)
        return SnapshotOutcome(size_bytes, snapshot.behind_bytes)
