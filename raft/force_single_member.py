"""Forced single member: an operator gives up all other members, most of which are lost for good.

No majority agrees to this, so the others may be alive, and lead.  What keeps them from counting:
the member is another from now on, of a greater incarnation, and what they say is for the one that
it was.  What keeps them from being believed by those who compare terms: its own is far greater.
"""

from __future__ import annotations

from fluffle.raft import election
from fluffle.raft.config import Config, Member
from fluffle.raft.records import CONFIG, Entry
from fluffle.raft.state import GroupState

TERM_STEP = 1 << 20
"""The others hold far fewer elections until they hear of it."""


def was_forced(before: int, since: int) -> bool:
    """Whether so much lies between two terms of a group: then entries of the first may be lost, and
    others be in their place."""
    return since - before >= TERM_STEP // 2


def may_force(state: GroupState) -> bool:
    """Tell whether this member can read what it has, and its leader has told it who the members
    are."""
    return state.quarantine is None and state.me in state.configs.active.members


def force(state: GroupState, incarnation: int) -> None:
    """Commit all that this member has, by its own vote alone."""
    state.become_follower(state.term + TERM_STEP, None)
    state.drop_receiver()
    state.me = Member(state.node.name, incarnation)
    state.pending().new_incarnation = incarnation
    single_member = Config((state.me,), (), incarnation)
    state.append([Entry(state.log.last_index + 1, state.term, CONFIG, single_member.encode())])
    election.start_pre_vote(state)
