"""Changes of membership: one member at a time, active as soon as it is in the log.  Thesis §4."""

from __future__ import annotations

from fluffle.raft import leading
from fluffle.raft.config import AddLearner, BadChange, Change, Promote, changed
from fluffle.raft.leading import Leading
from fluffle.raft.progress import Flow, Progress
from fluffle.raft.records import CONFIG, Entry
from fluffle.raft.refused import Reason, Refused
from fluffle.raft.state import State


def propose(state: State, leader: Leading, change: Change) -> Entry:
    """Append a configuration.  Raises `Refused`."""
    if not has_committed_own(state, leader):
        raise Refused(Reason.NOT_READY)
    if not state.is_config_committed:
        raise Refused(Reason.CHANGE_UNDER_WAY)
    check(state, leader, change)
    try:
        config = changed(state.configs.active, change)
    except BadChange as error:
        raise Refused(Reason.BAD_CHANGE, detail=str(error)) from error
    if not state.node.has_quorum(config.voters):
        raise Refused(Reason.NO_MAJORITY)
    entry = leading.append(state, leader, CONFIG, config.encode())
    leading.sync_peers(state, leader)
    leading.check_quorum(state, leader)
    return entry


def has_committed_own(state: State, leader: Leading) -> bool:
    """Before, two leaders could each change the configuration in their way (Ongaro, 2015)."""
    return state.log.commit >= leader.first_index


def check(state: State, leader: Leading, change: Change) -> None:
    """Refuse what would make the group stand still."""
    if isinstance(change, AddLearner):
        if change.node not in state.node.alive:
            raise Refused(Reason.NOT_ALIVE)
    elif isinstance(change, Promote):
        peer = leader.peers.get(change.node)
        if peer is not None and not has_caught_up(state, peer):
            raise Refused(Reason.NOT_CAUGHT_UP)


def has_caught_up(state: State, learner: Progress) -> bool:
    """Whether it has all that is committed, or is being sent the little that it lacks."""
    lag_max = state.node.tuning.promotion_lag_entries if learner.flow is Flow.REPLICATE else 1
    return learner.is_alive and learner.match + lag_max > state.log.commit
