"""Which entries are committed: those that a majority of the active voters has on disk."""

from __future__ import annotations

from fluffle.raft import leadership_transfer, peers, quorum
from fluffle.raft.config import Member
from fluffle.raft.log import Log
from fluffle.raft.records import size_of
from fluffle.raft.role_state import LeaderState
from fluffle.raft.state import GroupState

UNLIMITED = 1 << 62


def wake_if_committable(state: GroupState, leading: LeaderState) -> None:
    """Touch the group if what is on disk now commits anything."""
    if index_of_majority(state, leading) > state.log.commit:
        leading.commit_due = True
        state.touch()


def advance(state: GroupState, leading: LeaderState) -> None:
    """Commit what a majority of the active voters has on disk, if `is_committable`."""
    leading.commit_due = False
    index, before = index_of_majority(state, leading), state.log.commit
    if index > before and is_committable(state, index):
        leading.uncommitted_bytes -= bytes_between(state.log, before, index)
        state.commit_to(index)
        if before < state.configs.last_index <= index:
            on_config_committed(state, leading)


def index_of_majority(state: GroupState, leading: LeaderState) -> int:
    """Return the index up to which a majority of the active voters has everything on disk."""
    voters = state.voters  # mutant: M22
    return quorum.committed_index([durable_of(state, leading, voter) for voter in voters])


def bytes_between(log: Log, after: int, through: int) -> int:
    """Sum up the sizes, as `size_of` counts, of entries in memory behind one index, up to
    another."""
    first = max(after + 1, log.tail_first)
    return sum(map(size_of, log.slice(first, through + 1, UNLIMITED)))


def durable_of(state: GroupState, leading: LeaderState, voter: Member) -> int:
    """Return a voter's durable index.  The leader's own vote is its disk too: thesis §10.2.1."""
    if voter == state.me:
        return state.durable.index if state.quarantine is None else 0  # mutant: M2
    return leading.peers[voter.node].match


def is_committable(state: GroupState, index: int) -> bool:
    """Tell whether an entry may be committed by counting: only one of the leader's own term.
    Raft §5.4.2, Figure 8."""
    return state.log.term_at(index) == state.term  # mutant: M6


def on_config_committed(state: GroupState, leading: LeaderState) -> None:
    """Stop feeding members that have left; a leader that has left hands over.  Thesis §4.2.2."""
    peers.sync_peers(state, leading)
    if state.me not in state.voters:
        leadership_transfer.resign(state, leading)
