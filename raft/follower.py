"""Follower: takes entries of the leader, and sends acknowledgements."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.raft import corruption
from fluffle.raft.config import NodeId
from fluffle.raft.messages import AppendAccepted, AppendRejected, AppendRequest
from fluffle.raft.output import Role
from fluffle.raft.records import Entry
from fluffle.raft.state import GroupState


def accept_leader(state: GroupState, node: NodeId, incarnation: int) -> None:
    """Follow the leader of this term, whatever we were, as a message of it came.  Raft §5.2."""
    assert state.role is not Role.LEADER, f"two leaders of term {state.term}"
    if state.role is not Role.FOLLOWER:
        state.become_follower(state.term, node)
    elif state.leader != node:
        state.follow(node)
    state.leader_incarnation = incarnation


def on_append_request(state: GroupState, node: NodeId, request: AppendRequest) -> None:
    """Take entries of the leader.  Raft §5.3.  Duplicates and old requests change nothing."""
    accept_leader(state, node, request.sender)
    state.round = max(state.round, request.round)
    previous, entries = request.previous_index, request.entries
    log = state.log
    if previous < log.commit:
        # What is committed here is in the log of every later leader: nothing to compare.
        previous, entries = log.commit, entries[log.commit - previous :]
    elif log.term_at(previous) != request.previous_term:
        reject(state, node, request)
        return
    fresh = conflicting(state, entries)
    if fresh:
        state.append(fresh)
    else:
        state.answer_due = True
    state.matched = max(state.matched, previous + len(entries))
    state.commit_to(committed_by(state, request))
    state.touch()


def conflicting(state: GroupState, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that the log lacks; whatever is in their place is truncated.

    Only a conflict truncates: another term at the same index.  A request that is old, or came
    twice, must not make the log shorter.
    """
    log = state.log
    for at, entry in enumerate(entries):
        if entry.index > log.last_index:
            return list(entries[at:])
        if log.term_at(entry.index) != entry.term:  # mutant: M9 M10
            state.truncate(entry.index)
            return list(entries[at:])
    return []


def committed_by(state: GroupState, request: AppendRequest) -> int:
    """Return the new commit index: no more than what was shown to equal the leader's log."""
    return min(request.commit, state.matched)  # mutant: M8


def reject(state: GroupState, node: NodeId, request: AppendRequest) -> None:
    """Reject a request, with the last entry not newer than what was compared: where the logs may
    meet."""
    repair = corruption.repair_request(state, request.sender)
    # What is there and differs was never damaged: asking from behind it would be asking for ever.
    if repair is not None and (repair.floor or request.previous_index > state.log.last_index):
        state.node.send(node, repair)
        return
    before = request.previous_index - 1
    hint_index, hint_term = state.log.last_not_newer(before, request.previous_term)
    answer = AppendRejected(
        state.group, state.term, state.me.incarnation, request.sender,
        request.previous_index, hint_index, hint_term, request.round,
    )  # fmt: skip
    state.node.send(node, answer)


def flush(state: GroupState) -> None:
    """Acknowledge, when more is durable than was reported or when an answer is due."""
    if state.leader is None or state.role is not Role.FOLLOWER or not is_term_durable(state):
        return
    if state.repair is not None and state.repair.repairing is not None:
        return  # what was damaged is here again as soon as the snapshot is on disk
    index = state.acknowledged_index
    if index <= state.acknowledged and not state.answer_due:
        return
    state.acknowledged = index
    incarnation = state.leader_incarnation
    if state.answer_due and needs_snapshot(state):
        repair = corruption.repair_request(state, incarnation)
        assert repair is not None
        state.node.send(state.leader, repair)
    else:
        answer = AppendAccepted(
            state.group, state.term, state.me.incarnation, incarnation,
            index, state.matched, state.log.commit, state.round,
        )  # fmt: skip
        state.node.send(state.leader, answer)
    state.answer_due = False


def is_term_durable(state: GroupState) -> bool:
    """Tell whether an answer may leave: a member that forgot the term could follow an older
    leader."""
    return state.durable.hard_state.term == state.term  # mutant: M43


def needs_snapshot(state: GroupState) -> bool:
    return state.quarantine is not None and state.quarantine.needs_snapshot


def send_term(state: GroupState, node: NodeId, incarnation: int) -> None:
    """Send our term to a leader of an old one, in a rejection that means nothing else."""
    answer = AppendRejected(
        state.group, state.term, state.me.incarnation, incarnation, 0, 0, 0, 0
    )  # fmt: skip
    state.node.send(node, answer)
