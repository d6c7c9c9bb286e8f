"""Is my leader still leading?  A question, because a follower has no timer that would tell.

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
    """A follower asks the leader it knows."""
    if state.role is Role.FOLLOWER and state.leader is not None:
        query = LeaderQuery(
            state.group, state.term, state.me.incarnation, state.leader_incarnation
        )  # fmt: skip
        state.node.send(state.leader, query)


def on_leader_query(state: GroupState, node: NodeId, query: LeaderQuery) -> None:
    """Whoever leads says so by a request, whoever does not says in which term it does not."""
    if query.term > state.term:
        state.become_follower(query.term, None)
    if state.leading is not None:
        leader.announce(state, node)
    else:
        answer = NotLeading(state.group, state.term, state.me.incarnation, query.sender)
        state.node.send(node, answer)


def on_group_unknown(state: GroupState, node: NodeId, incarnation: int) -> None:
    """A member that is not there does not lead either."""
    if state.leader == node and state.leader_incarnation == incarnation:
        state.follow(None)  # mutant: M45


def on_not_leading(state: GroupState, node: NodeId, answer: NotLeading) -> None:
    """It does not lead in this term: it will not again."""
    if state.leader == node and answer.term == state.term:
        state.follow(None)
