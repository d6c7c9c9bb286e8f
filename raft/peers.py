"""What the modules of a leader ask of its followers."""

from __future__ import annotations

from fluffle.raft.config import NodeId
from fluffle.raft.progress import Progress
from fluffle.raft.state import State


def peer_of(state: State, node: NodeId, incarnation: int) -> Progress | None:
    """The follower that speaks; None if it is no member, or an earlier incarnation of one."""
    assert state.leading is not None
    peer = state.leading.peers.get(node)
    return peer if peer is not None and peer.member.incarnation == incarnation else None


def heard(state: State, peer: Progress, answered_round: int) -> None:
    """An answer of this term: the follower held us for the leader after that round had begun."""
    peer.confirmed_round = max(peer.confirmed_round, answered_round)
    state.touch()
