"""Reads without writing: which index must be applied for an answer to be up to date.

The commit index of the moment, if (1) an entry of the leader's own term is committed, so that the
commit index is not behind, and (2) a majority answers a round that began after the read was asked
for, so that no other member led at that moment.  Thesis §6.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.raft import quorum, replication
from fluffle.raft.output import Readable
from fluffle.raft.role_state import LeaderState, PendingReads
from fluffle.raft.state import GroupState

if TYPE_CHECKING:
    from fluffle.raft.config import Member


def begin(state: GroupState, leading: LeaderState, context: int) -> None:
    """Register a read that is asked for."""
    if leading.reads is None:
        leading.reads = PendingReads()
    leading.reads.fresh.append(context)
    state.touch()


def flush(state: GroupState, leading: LeaderState) -> None:
    """Begin a round for new reads, and answer those whose round is confirmed and index applied."""
    reads = leading.reads
    assert reads is not None
    if reads.fresh and has_committed_own_term(state, leading):
        begin_round(state, leading, reads)
    round_ = confirmed_round(state, leading)
    reads.confirmed += [
        (index, context) for at, index, context in reads.unconfirmed if at <= round_
    ]
    reads.unconfirmed = [item for item in reads.unconfirmed if item[0] > round_]
    for index, context in reads.confirmed:
        if index <= state.log.applied:
            state.node.output.readable.append(Readable(state.group, context, index))
    reads.confirmed = [item for item in reads.confirmed if item[0] > state.log.applied]
    if not (reads.fresh or reads.unconfirmed or reads.confirmed):
        leading.reads = None


def has_committed_own_term(state: GroupState, leading: LeaderState) -> bool:
    """Tell whether an entry of this term is committed: before, the commit index may be behind
    that of the leader before."""
    return state.log.commit >= leading.first_index  # mutant: M29a


def begin_round(state: GroupState, leading: LeaderState, reads: PendingReads) -> None:
    """Begin a round: whatever is sent from here on, with it or a later one, confirms these
    reads."""
    leading.round += 1
    # mutant: M29b
    reads.unconfirmed += [(leading.round, state.log.commit, context) for context in reads.fresh]
    reads.fresh = []
    for peer in leading.peers.values():
        replication.ask_again(state, leading, peer)


def confirmed_round(state: GroupState, leading: LeaderState) -> int:
    """Return the greatest round that a majority of voters has confirmed, ourselves included if
    we are one."""
    return quorum.committed_index([round_of(state, leading, voter) for voter in state.voters])


def round_of(state: GroupState, leading: LeaderState, voter: Member) -> int:
    return leading.round if voter == state.me else leading.peers[voter.node].confirmed_round
