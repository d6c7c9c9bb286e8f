"""Dispatch of messages: the handler of each type in each role, after a check of the term.

What is not in a role's table means nothing to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluffle.raft import (
    election,
    follower,
    leader_query,
    replication,
    snapshot_receiver,
    snapshot_sender,
)
from fluffle.raft.config import NodeId
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    GroupMessage,
    LeaderQuery,
    NotLeading,
    PreVoteRequest,
    PreVoteResponse,
    RepairRequest,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from fluffle.raft.output import Role
from fluffle.raft.state import GroupState

Handler = Callable[[GroupState, NodeId, Any], None]

FROM_A_LEADER: dict[type[GroupMessage], Handler] = {
    AppendRequest: follower.on_append_request,
    SnapshotOffer: snapshot_receiver.on_snapshot_offer,
    SnapshotChunk: snapshot_receiver.on_snapshot_chunk,
}

ANY_ROLE: dict[type[GroupMessage], Handler] = {
    PreVoteRequest: election.on_pre_vote_request,
    VoteRequest: election.on_vote_request,
    LeaderQuery: leader_query.on_leader_query,
}
"""For every role; the terms of the first two are those of elections that may never be held."""

HANDLERS: dict[Role, dict[type[GroupMessage], Handler]] = {
    Role.FOLLOWER: {
        **FROM_A_LEADER,
        TimeoutNow: election.on_timeout_now,
        NotLeading: leader_query.on_not_leading,
    },
    Role.PRE_CANDIDATE: {
        **FROM_A_LEADER,
        TimeoutNow: election.on_timeout_now,
        PreVoteResponse: election.on_pre_vote_response,
    },
    Role.CANDIDATE: {
        **FROM_A_LEADER,
        VoteResponse: election.on_vote_response,
    },
    Role.LEADER: {
        AppendAccepted: replication.on_append_accepted,
        AppendRejected: replication.on_append_rejected,
        RepairRequest: replication.on_repair_request,
        SnapshotProgress: snapshot_sender.on_snapshot_progress,
    },
}


def step(state: GroupState, node: NodeId, message: GroupMessage) -> None:
    """Take a message of this group that came from `node`, for this incarnation."""
    kind = type(message)
    handler = ANY_ROLE.get(kind)
    if handler is not None:
        handler(state, node, message)
        return
    if message.term > state.term and not is_proposed_term(message):
        state.become_follower(message.term, None)
    elif message.term < state.term:
        on_old_term(state, node, message)
        return
    handler = HANDLERS[state.role].get(kind)
    if handler is not None:
        handler(state, node, message)


def is_proposed_term(message: GroupMessage) -> bool:
    """Tell whether a message names a term that was only asked for: a pre-vote that was granted."""
    return isinstance(message, PreVoteResponse) and message.is_granted


def on_old_term(state: GroupState, node: NodeId, message: GroupMessage) -> None:
    """Answer a message of an old term, which counts for nothing: its leader must hear that it is
    over (Raft §5.1).

    By whatever it says: one that has left the group has nothing more to say than `TimeoutNow`.
    """
    if type(message) in FROM_A_LEADER or type(message) is TimeoutNow:  # mutant: M14a M14b M42
        follower.send_term(state, node, message.sender)
