"""Raft group as its users see it.

All that is asked of it takes effect when the turn ends: see `group_turn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from fluffle.raft import corruption, election, leader, leadership_transfer, replication, snapshots
from fluffle.raft.config import (
    Change,
    Configuration,
    Member,
    NodeId,
)
from fluffle.raft.group_turn import evict, waits_for_applied
from fluffle.raft.leader import ProposalRefused, RefusalReason, propose_change
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.log_store import NewSnapshot
from fluffle.raft.output import Apply, Role
from fluffle.raft.progress import Progress, ProgressState
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import GroupState, LeaderState


@dataclass(frozen=True, slots=True)
class Position:
    """Position of a proposal; another term at that index is another entry."""

    term: int
    index: int


class Status(NamedTuple):
    """Status of a group at one moment, for observers."""

    role: Role
    term: int
    vote: Member | None
    leader: NodeId | None
    config: Configuration
    floor: int
    applied: int
    commit: int
    durable: int
    last: int
    last_term: int
    is_quarantined: bool


class Group:
    """Interface of one group.  A refused request raises `ProposalRefused` and changes nothing."""

    __slots__ = ("_state",)

    def __init__(self, state: GroupState) -> None:
        self._state = state

    @property
    def status(self) -> Status:
        state, log = self._state, self._state.log
        return Status(
            state.role, state.term, state.hard_state.vote, state.leader, state.configs.active,
            log.floor, log.applied, log.commit, state.durable.index, log.last_index,
            log.last_term, state.quarantine is not None,
        )  # fmt: skip

    @property
    def configs(self) -> list[Configuration]:
        """Return the configurations that may be in force: the last known committed one, and all
        behind it."""
        return self._state.configs.in_use(self._state.log.commit)

    @property
    def progress(self) -> dict[NodeId, tuple[ProgressState, int]]:
        """Return the state of each follower and its match index.  Empty if not leading."""
        peers = self._state.leading.peers if self._state.leading is not None else {}
        return {node: (peer.flow, peer.match) for node, peer in peers.items()}

    @property
    def transfer_targets(self) -> list[NodeId]:
        """Return voters that can lead soon, the most complete log first.  Empty if not leading."""
        leading = self._state.leading
        return (
            leadership_transfer.transfer_targets(self._state, leading)
            if leading is not None
            else []
        )

    @property
    def settled_snapshot(self) -> SnapshotMeta | None:
        """Return the snapshot whose live entries, and no others, are on disk.

        None while another one is on its way to the disk, and while something is damaged.
        """
        state = self._state
        is_moving = state.compacting is not None or state.installing is not None
        return None if is_moving or state.quarantine is not None else state.log.snapshot

    def send_commits_at_once(self) -> None:
        """Send commits without delay, for a group whose followers answer from their images.

        Entries of such a group have consequences, so few are applied in one turn.
        """
        self._state.commit_delay_ms = 0
        self._state.apply_bytes_max = self._state.node.tuning.apply_bytes_min

    def takes(self, payload_bytes: int) -> bool:
        """True if a proposal of this size would be accepted now."""
        state, leading = self._state, self._state.leading
        if leading is None or leading.transfer is not None or not state.node.has_room:
            return False
        return has_proposal_room(state, leading, payload_bytes)

    # A leader

    def propose(self, payload: bytes) -> Position:
        """Append a batch as one entry.  It is committed once that entry is applied, or never."""
        state = self._state
        leading = self._leading()
        if not state.node.has_room:
            raise ProposalRefused(RefusalReason.NO_ROOM)
        if not has_proposal_room(state, leading, len(payload)):
            raise ProposalRefused(RefusalReason.BEHIND)
        entry = leader.append(state, leading, DATA, payload)
        return Position(entry.term, entry.index)

    def change(self, change: Change) -> Position:
        """Change the members; one such change at a time."""
        state = self._state
        entry = propose_change(state, self._leading(), change)
        return Position(entry.term, entry.index)

    def transfer(self, target: NodeId) -> None:
        """Have another voter lead; given up after an election timeout.  No proposals meanwhile."""
        state, leading = self._state, self._leading()
        member = state.configs.active.member_on(target)
        if member is None or member not in state.voters or target == state.node.name:
            raise ProposalRefused(RefusalReason.BAD_CHANGE, detail=f"{target} is not another voter")
        if target not in state.node.alive:
            raise ProposalRefused(RefusalReason.NOT_ALIVE)
        leadership_transfer.begin(state, leading, target)

    def read_index(self, context: int) -> None:
        """Ask for a `Readable` with this context: always answered, with an index or without."""
        if self._state.leading is None:
            raise ProposalRefused(RefusalReason.NOT_LEADER, leader=self._state.leader)
        leader.begin_read(self._state, self._state.leading, context)

    def _leading(self) -> LeaderState:
        leading = self._state.leading
        if leading is None:
            raise ProposalRefused(RefusalReason.NOT_LEADER, leader=self._state.leader)
        if leading.transfer is not None:
            raise ProposalRefused(RefusalReason.TRANSFERRING)
        return leading

    # Every member

    def campaign(self) -> None:
        """Stand for leadership, pre-vote first, though no member may be missing a leader."""
        if self._state.leading is None and election.is_electable(self._state):
            election.start_pre_vote(self._state)

    def applied(self, index: int) -> bool:
        """Report that everything up to `index` was applied; the next page may come.

        Whether anything has waited for that: if not, no turn need be taken for it.
        """
        state, log = self._state, self._state.log
        if not log.applied < index <= log.handed:
            return False
        log.applied = index
        if waits_for_applied(state):
            state.touch()
            return True
        evict(state)
        return False

    def compact(self, index: int, live: Ranges, state_bytes: bytes) -> None:
        """Take a snapshot of the image as it was after `index`, which was applied.

        `live` are the indexes up to there whose entries it still needs; the others are deleted, and
        so cannot be among those of a later one.
        """
        state, log = self._state, self._state.log
        # mutant: M24
        if not log.floor < index <= log.applied or state.restore_due or state.quarantine:
            raise ProposalRefused(RefusalReason.OUT_OF_DATE)
        if state.compacting is not None or snapshots.is_holding(state):
            raise ProposalRefused(RefusalReason.SENDING)
        term = log.term_at(index)
        assert term is not None
        meta = SnapshotMeta(
            index, term, state.configs.at(index), live, len(state_bytes), crc32(state_bytes)
        )
        write = state.pending()
        write.snapshot = NewSnapshot(meta, state_bytes)
        before = log.snapshot.live.plus(Ranges.of((log.floor + 1, index + 1)))
        dead = before.minus(live)  # mutant: M26
        assert len(before) - len(dead) == len(live), "an entry that is gone is called live"
        write.deletes += list(dead)
        state.compacting = (0, meta)

    def entries_read(self, number: int, entries: Sequence[Entry]) -> None:
        """Take the result of a `ReadEntries`."""
        state = self._state
        if number == state.apply_read:
            state.apply_read = None
            state.touch()
            if entries and entries[0].index == state.log.handed + 1:
                state.log.handed = entries[-1].index
                state.node.output.applies.append(Apply(state.group, entries))
        elif (peer := self._reading(number)) is not None:
            if peer.flow is ProgressState.SNAPSHOT:
                snapshots.on_entries_read(state, peer, entries)
            else:
                replication.on_entries_read(state, peer, entries)

    def state_read(self, number: int, data: bytes) -> None:
        """Take the result of a `ReadState`."""
        if (peer := self._reading(number)) is not None:
            snapshots.on_state_read(self._state, peer, data)

    def _reading(self, number: int) -> Progress | None:
        peers = self._state.leading.peers if self._state.leading is not None else {}
        return next((peer for peer in peers.values() if peer.read_number == number), None)

    def damaged(self, index: int) -> None:
        """Report that the entry at `index` could not be read; the floor, for the state of a
        snapshot."""
        corruption.on_damage(self._state, index)


def has_proposal_room(state: GroupState, leading: LeaderState, payload_bytes: int) -> bool:
    """True if a proposal may wait for its commit in memory; one always may."""
    waiting_bytes = leading.uncommitted_bytes
    return not waiting_bytes or (
        waiting_bytes + payload_bytes <= state.node.tuning.uncommitted_bytes_max
    )
