"""Followers of a leader: looked up by incarnation, and kept in step with the configuration."""

from __future__ import annotations

from fluffle.raft.config import NodeId
from fluffle.raft.progress import Progress
from fluffle.raft.role_state import LeaderState
from fluffle.raft.state import GroupState


def peer_of(state: GroupState, node: NodeId, incarnation: int) -> Progress | None:
    """Return the follower that speaks; None if it is no member, or an earlier incarnation of
    one."""
    assert state.leading is not None
    peer = state.leading.peers.get(node)
    # mutant: M35
    return peer if peer is not None and peer.member.incarnation == incarnation else None


def confirm_round(peer: Progress, answered_round: int) -> None:
    """Note an answer of this term: the follower followed us after that round had begun."""
    peer.confirmed_round = max(peer.confirmed_round, answered_round)


def sync_peers(state: GroupState, leading: LeaderState) -> None:
    """Feed the members of the active configuration, and those that are to hear that they have
    left."""
    members = {
        member.node: member
        for config in state.configs.in_use(state.log.commit)
        for member in config.members
        if member.node != state.me.node
    }
    for node in [node for node in leading.peers if leading.peers[node].member != members.get(node)]:
        del leading.peers[node]
    for node, member in members.items():
        if node not in leading.peers:
            is_alive = node in state.node.alive
            retry_ms = state.node.tuning.retry_ms
            leading.peers[node] = Progress(
                member, state.log.last_index + 1, is_alive=is_alive, retry_ms=retry_ms
            )
