"""Leader query of a follower, which has no timer that would tell whether its leader still leads.

A leader may stop to lead without its followers hearing of it: removed from the group, or cut off
for a while.  Its node is alive, so they would cling to it.  They ask when somebody else would like
to be elected, and when its node has come back.
"""

from __future__ import annotations

from fluffle.raft import leader
from fluffle.raft.config import NodeId
from fluffle.raft.messages import LeaderQuery, NotLeading
from fluffle.raft.output import Role
from fluffle.raft.state import GroupState


def send_leader_query(state: GroupState) -> None:
    """Ask the known leader whether it still leads."""
    if state.role is Role.FOLLOWER and state.leader is not None:
        query = LeaderQuery(
            state.group, state.term, state.me.incarnation, state.leader_incarnation
        )  # fmt: skip
        state.node.send(state.leader, query)


def on_leader_query(state: GroupState, node: NodeId, query: LeaderQuery) -> None:
    """Answer by an append if this member leads, else with the term in which it does not."""
    if query.term > state.term:
        state.become_follower(query.term, None)
    if state.leading is not None:
        leader.announce(state, node)
    else:
        answer = NotLeading(state.group, state.term, state.me.incarnation, query.sender)
        state.node.send(node, answer)


def on_group_unknown(state: GroupState, node: NodeId, incarnation: int) -> None:
    """Drop a leader whose node does not have the group."""
    if state.leader == node and state.leader_incarnation == incarnation:
        state.follow(None)  # mutant: M45


def on_not_leading(state: GroupState, node: NodeId, answer: NotLeading) -> None:
    """Drop a leader that does not lead in this term: it will not again."""
    if state.leader == node and answer.term == state.term:
        state.follow(None)
