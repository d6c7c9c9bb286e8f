"""Membership changes: one member at a time, active as soon as it is in the log.  Thesis §4."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.raft import leader, peers, quorum, replication
from fluffle.raft.config import AddLearner, Change, InvalidChange, Member, Promote, with_change
from fluffle.raft.leader import LeaderState
from fluffle.raft.progress import Progress, ProgressState
from fluffle.raft.records import CONFIG, Entry
from fluffle.raft.rejection import ProposalRefused, RefusalReason
from fluffle.raft.state import GroupState


def propose(state: GroupState, leading: LeaderState, change: Change) -> Entry:
    """Append a configuration.  Raises `ProposalRefused`."""
    if not has_committed_own_term(state, leading):
        raise ProposalRefused(RefusalReason.NOT_READY)
    if not state.is_config_committed:
        raise ProposalRefused(RefusalReason.CHANGE_UNDER_WAY)
    check(state, leading, change)
    try:
        config = with_change(state.configs.active, change)
    except InvalidChange as error:
        raise ProposalRefused(RefusalReason.BAD_CHANGE, detail=str(error)) from error
    if not is_followed(state, leading, config.voters):
        raise ProposalRefused(RefusalReason.NO_MAJORITY)
    entry = leader.append(state, leading, CONFIG, config.encode())
    peers.sync_peers(state, leading)
    leader.check_quorum(state, leading)
    return entry


def has_committed_own_term(state: GroupState, leading: LeaderState) -> bool:
    """Tell whether an entry of the leader's own term is committed: before, two leaders could
    each change the configuration in their way (Ongaro, 2015)."""
    return state.log.commit >= leading.first_index  # mutant: M17


def check(state: GroupState, leading: LeaderState, change: Change) -> None:
    """Refuse a change that would make the group stand still."""
    if isinstance(change, AddLearner):
        if change.node not in state.node.alive:
            raise ProposalRefused(RefusalReason.NOT_ALIVE)
    elif isinstance(change, Promote):
        peer = leading.peers.get(change.node)
        if peer is not None and not has_caught_up(state, peer):
            raise ProposalRefused(RefusalReason.NOT_CAUGHT_UP)


def is_followed(state: GroupState, leading: LeaderState, voters: Sequence[Member]) -> bool:
    """Whether a majority of these would commit the change, by what they have answered since their
    nodes were last found to be alive: one may have lost its member meanwhile.

    Who has not answered is asked, for there may be nothing else to ask it: the next try knows more.
    """
    others = [leading.peers[voter.node] for voter in voters if voter != state.me]
    following = [peer for peer in others if peer.is_alive and peer.flow is ProgressState.REPLICATE]
    if len(following) + (state.me in voters) >= quorum.majority_of(len(voters)):
        return True
    for peer in others:
        if peer.flow is ProgressState.PROBE and not peer.is_waiting:
            replication.ask_again(state, leading, peer)
    return False


def has_caught_up(state: GroupState, learner: Progress) -> bool:
    """Tell whether a learner has all that is committed, or is being sent the little that it lacks.

    Who is in quarantine would not vote: if the leadership were lost, one of two could elect nobody.
    """
    if learner.match < learner.repaired_at:  # mutant: M52
        return False
    lag_max = (
        state.node.tuning.promotion_lag_entries if learner.flow is ProgressState.REPLICATE else 1
    )
    return learner.is_alive and learner.match + lag_max > state.log.commit
