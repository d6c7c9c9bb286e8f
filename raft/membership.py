"""Changes of membership: one member at a time, active as soon as it is in the log.  Thesis §4."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.raft import leader, peers, quorum, replication
from fluffle.raft.config import AddLearner, BadChange, Change, Member, Promote, changed
from fluffle.raft.leader import Leading
from fluffle.raft.progress import Flow, Progress
from fluffle.raft.records import CONFIG, Entry
from fluffle.raft.rejection import Reason, Refused
from fluffle.raft.state import State


def propose(state: State, leadership: Leading, change: Change) -> Entry:
    """Append a configuration.  Raises `Refused`."""
    if not has_committed_own(state, leadership):
        raise Refused(Reason.NOT_READY)
    if not state.is_config_committed:
        raise Refused(Reason.CHANGE_UNDER_WAY)
    check(state, leadership, change)
    try:
        config = changed(state.configs.active, change)
    except BadChange as error:
        raise Refused(Reason.BAD_CHANGE, detail=str(error)) from error
    if not is_followed(state, leadership, config.voters):
        raise Refused(Reason.NO_MAJORITY)
    entry = leader.append(state, leadership, CONFIG, config.encode())
    peers.sync(state, leadership)
    leader.check_quorum(state, leadership)
    return entry


def has_committed_own(state: State, leadership: Leading) -> bool:
    """Before, two leaders could each change the configuration in their way (Ongaro, 2015)."""
    return state.log.commit >= leadership.first_index  # mutant: M17


def check(state: State, leadership: Leading, change: Change) -> None:
    """Refuse what would make the group stand still."""
    if isinstance(change, AddLearner):
        if change.node not in state.node.alive:
            raise Refused(Reason.NOT_ALIVE)
    elif isinstance(change, Promote):
        peer = leadership.peers.get(change.node)
        if peer is not None and not has_caught_up(state, peer):
            raise Refused(Reason.NOT_CAUGHT_UP)


def is_followed(state: State, leadership: Leading, voters: Sequence[Member]) -> bool:
    """Whether a majority of these would commit the change, by what they have answered since their
    nodes were last found to be alive: one may have lost its member meanwhile.

    Who has not answered is asked, for there may be nothing else to ask it: the next try knows more.
    """
    others = [leadership.peers[voter.node] for voter in voters if voter != state.me]
    following = [peer for peer in others if peer.is_alive and peer.flow is Flow.REPLICATE]
    if len(following) + (state.me in voters) >= quorum.majority_of(len(voters)):
        return True
    for peer in others:
        if peer.flow is Flow.PROBE and not peer.is_waiting:
            replication.ask_again(state, leadership, peer)
    return False


def has_caught_up(state: State, learner: Progress) -> bool:
    """Whether it has all that is committed, or is being sent the little that it lacks.

    Who is in quarantine would not vote: if the leadership were lost, one of two could elect nobody.
    """
    if learner.match < learner.repaired_at:  # mutant: M52
        return False
    lag_max = state.node.tuning.promotion_lag_entries if learner.flow is Flow.REPLICATE else 1
    return learner.is_alive and learner.match + lag_max > state.log.commit
