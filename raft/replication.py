"""Replication of a leader's log: what it sends, what followers answer, and what that commits.

A leader sends to each follower what it lacks, counts what each has on disk, itself included, and
commits what a majority of the active voters has.  A follower takes entries, and acknowledges those
that are durable.
"""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.raft import corruption, leadership_transfer, snapshots
from fluffle.raft.config import NodeId
from fluffle.raft.log import Entry, Log, size_of
from fluffle.raft.messages import AppendAccepted, AppendRejected, AppendRequest
from fluffle.raft.output import ReadEntries, Role
from fluffle.raft.state import GroupState, LeaderState, Progress, ProgressState

UNLIMITED = 1 << 62


# Sending


def send_to_peers(state: GroupState, leading: LeaderState) -> None:
    """Send to each follower the entries it lacks, as far as its window lets."""
    sent = False
    for peer in leading.peers.values():
        if peer.is_alive:
            sent |= send_to_peer(state, leading, peer)
    leading.round += sent
    schedule_commit(state, leading)


def send_to_peer(state: GroupState, leading: LeaderState, peer: Progress) -> bool:
    """Send to one follower; return whether anything was sent."""
    if (
        peer.flow is ProgressState.REPLICATE
        and peer.next > state.log.last_index
        and not peer.snapshot_from
    ):
        return False  # so it is mostly
    if peer.flow is not ProgressState.SNAPSHOT and is_behind_floor(state, peer):
        peer.need_snapshot()
    if peer.flow is ProgressState.SNAPSHOT:
        return snapshots.send_next(state, leading, peer)
    if peer.flow is ProgressState.PROBE:
        if peer.is_waiting or not is_unfinished(state, leading, peer):
            return False
        peer.is_waiting = True
        peer.probe_round = leading.round
        # With what is at hand; a follower that has it all needs no second request.
        send_next(state, leading, peer)
        return True
    sent = False
    while peer.next <= state.log.last_index and has_window(state, peer):
        if not state.log.is_in_memory(peer.next):
            read(state, peer)
            break
        send_next(state, leading, peer)
        sent = True
    return sent


def is_behind_floor(state: GroupState, peer: Progress) -> bool:
    """True if what a follower needs next, or the term before that, is not in the log any
    more."""
    return peer.next <= state.log.floor or peer.snapshot_from > 0


def is_behind(state: GroupState, peer: Progress) -> bool:
    """True if the follower may lack entries, or does not know that all is committed."""
    return peer.match < state.log.last_index or peer.commit < state.log.commit  # mutant: M38


def has_window(state: GroupState, peer: Progress) -> bool:
    """True if more may be sent to a follower; one message always may be under way."""
    tuning = state.node.tuning
    return peer.in_flight_messages < tuning.window_messages and (
        peer.in_flight_bytes < tuning.window_bytes
    )


def send_next(state: GroupState, leading: LeaderState, peer: Progress) -> None:
    """Send the entries from `next` on, as many as go in one message, if they are in memory."""
    entries: list[Entry] = []
    if state.log.is_in_memory(peer.next):
        bytes_max = state.node.tuning.append_bytes_max
        entries = state.log.slice(peer.next, state.log.last_index + 1, bytes_max)
    send(state, leading, peer, entries)


def send(state: GroupState, leading: LeaderState, peer: Progress, entries: Sequence[Entry]) -> None:
    """Send a request with `entries`, which begin at `next`."""
    log = state.log
    previous_term = log.term_at(peer.next - 1)
    assert previous_term is not None, f"no term at {peer.next - 1}, floor {log.floor}"
    request = AppendRequest(
        state.group, state.term, state.me.incarnation, peer.member.incarnation,
        peer.next - 1, previous_term, log.commit, leading.round, entries,
    )  # fmt: skip
    state.node.send(peer.member.node, request)
    peer.sent_commit = log.commit
    if entries:
        peer.sent(entries[-1].index, sum(map(size_of, entries)))
    if peer.retry_at_ms is None:
        peer.retry_at_ms = state.node.now_ms + peer.retry_ms


def schedule_commit(state: GroupState, leading: LeaderState) -> None:
    """See to it that followers hear of the commit index, even if nothing else is to be sent."""
    commit = state.log.commit
    for peer in leading.peers.values():
        if peer.sent_commit < commit and peer.is_alive and peer.flow is ProgressState.REPLICATE:
            break
    else:
        leading.send_commit_at_ms = None
        return
    if leading.send_commit_at_ms is None and state.commit_delay_ms:
        delay_ms = state.commit_delay_ms
        at_ms = state.node.now_ms + delay_ms
        leading.send_commit_at_ms = at_ms + -at_ms % delay_ms  # many groups tell in one turn
    elif not state.commit_delay_ms:
        send_commit(state, leading)


def send_commit(state: GroupState, leading: LeaderState) -> None:
    """Send the commit index to all followers that do not know it."""
    leading.send_commit_at_ms = None
    for peer in leading.peers.values():
        is_unaware = peer.sent_commit < state.log.commit and peer.is_alive
        if is_unaware and peer.flow is ProgressState.REPLICATE and not is_behind_floor(state, peer):
            send(state, leading, peer, ())
    leading.round += 1


def read(state: GroupState, peer: Progress) -> None:
    """Have entries read that are no longer in memory, unless that is under way.

    Not while a snapshot is on its way to the disk: what it takes off would be found missing.
    """
    if peer.read_number is None and state.compacting is None:
        peer.read_number = state.node.take_number()
        stop = min(state.log.tail_first, state.log.last_index + 1)
        bytes_max = state.node.tuning.append_bytes_max
        state.node.output.reads.append(
            ReadEntries(state.group, peer.next, stop, bytes_max, peer.read_number)
        )


def on_entries_read(state: GroupState, peer: Progress, entries: Sequence[Entry]) -> None:
    """Send entries that were read; what is needed may have changed meanwhile."""
    leading = state.leading
    assert leading is not None
    peer.read_number = None
    state.touch()
    if (
        peer.flow is not ProgressState.REPLICATE
        or is_behind_floor(state, peer)
        or not peer.is_alive
    ):
        return
    if not has_window(state, peer):
        return  # read again once there is room
    page = up_to_gap(entries, peer.next)
    if page:
        send(state, leading, peer, page)


def up_to_gap(entries: Sequence[Entry], first: int) -> Sequence[Entry]:
    """Return the consecutive entries from `first` on.

    A snapshot may have taken dead entries out of the log on disk before we know that it has.
    """
    stop = next((at for at, entry in enumerate(entries) if entry.index != first + at), len(entries))
    return entries[:stop]


# Asking again


def on_deadline(state: GroupState, leading: LeaderState) -> None:
    now_ms = state.node.now_ms
    if leading.send_commit_at_ms is not None and leading.send_commit_at_ms <= now_ms:
        send_commit(state, leading)
    for peer in leading.peers.values():
        if peer.retry_at_ms is not None and peer.retry_at_ms <= now_ms and peer.is_alive:
            retry_ms = min(peer.retry_ms * 2, state.node.tuning.retry_ms_max)
            retry_if_unfinished(state, leading, peer, retry_ms)


def on_new_link(state: GroupState, leading: LeaderState, peer: Progress) -> None:
    """Ask again over a new link: messages on the one before may be lost, in either direction.

    Do not wait for the deadline; etcd and Ra ask at once as well.
    """
    if peer.retry_at_ms is not None:
        retry_if_unfinished(state, leading, peer, state.node.tuning.retry_ms)


def retry_if_unfinished(
    state: GroupState, leading: LeaderState, peer: Progress, retry_ms: int
) -> None:
    """Ask again, as the answer is not to be expected any more; the next may take `retry_ms`."""
    peer.retry_at_ms = None
    if is_unfinished(state, leading, peer):
        peer.retry_ms = retry_ms
        ask_again(state, leading, peer)
    else:
        peer.is_waiting = False  # for the answer to something that was of use once


def is_unfinished(state: GroupState, leading: LeaderState, peer: Progress) -> bool:
    """True if an answer is missing: only then does a group stay awake for it."""
    return is_behind(state, peer) or leading.reads is not None  # mutant: M41


def ask_again(state: GroupState, leading: LeaderState, peer: Progress) -> None:
    """Send an empty request, whose answer shows whether anything was lost on the way."""
    if not peer.is_alive:
        return
    if peer.flow is ProgressState.SNAPSHOT:
        snapshots.ask_again(state, leading, peer)
    elif not is_behind_floor(state, peer):
        if peer.flow is ProgressState.PROBE and not peer.is_waiting:
            peer.is_waiting = True
            peer.probe_round = leading.round
        send(state, leading, peer, ())
    leading.round += 1
    state.touch()


# Answers


def on_append_accepted(state: GroupState, node: NodeId, answer: AppendAccepted) -> None:
    """Note what is on the follower's disk.  Answers may be old; none of it becomes untrue.

    The group has its turn only if something follows from it.  Mostly that is one of three: one that
    comes before a majority has the entry changes nothing, nor does one that comes after.
    """
    leading = state.leading
    assert leading is not None
    peer = leading.peer_of(node, answer.sender)
    if peer is None or answer.round < peer.first_valid_round:
        return
    peer.confirm_round(answer.round)
    peer.commit = max(peer.commit, answer.commit)
    if answer.durable > peer.match:
        assert answer.durable <= state.log.last_index
        peer.advance(answer.durable)
        if answer.durable > state.log.commit:
            wake_if_committable(state, leading)
    if (
        leading.needs_answers
        or peer.flow is not ProgressState.REPLICATE
        or peer.next <= state.log.last_index
    ):
        state.touch()
    if peer.flow is ProgressState.SNAPSHOT and answer.durable < max(
        state.log.floor, peer.snapshot_from
    ):
        return
    peer.snapshot_from = 0
    if peer.flow is not ProgressState.REPLICATE:
        peer.replicate(answer.matched + 1)
    reset_retry(state, leading, peer)


def reset_retry(state: GroupState, leading: LeaderState, peer: Progress) -> None:
    """Reset the retry time after an answer, and stop if nothing is owed."""
    peer.retry_ms = state.node.tuning.retry_ms
    if not is_unfinished(state, leading, peer):
        peer.retry_at_ms = None
        return
    peer.retry_at_ms = state.node.now_ms + peer.retry_ms
    if state.deadline_ms is None:
        state.touch()  # else it is looked at anyway, and then planned anew


def on_append_rejected(state: GroupState, node: NodeId, answer: AppendRejected) -> None:
    """Go back to where the logs may meet, in one step a term: the follower's differs at
    `previous`."""
    leading = state.leading
    assert leading is not None
    peer = leading.peer_of(node, answer.sender)
    if peer is None:
        return
    peer.confirm_round(answer.round)
    state.touch()
    if peer.flow is ProgressState.SNAPSHOT or is_stale(peer, answer):
        return
    meeting = min(answer.hint_index, answer.previous_index - 1)
    if meeting > state.log.floor:
        meeting, _ = state.log.last_not_newer(meeting, answer.hint_term)
    peer.probe(meeting + 1)
    peer.probe_round = leading.round


def is_stale(peer: Progress, answer: AppendRejected) -> bool:
    """True if an answer is to an outdated request: it must not move `next` back."""
    return (  # mutant: M37
        answer.round < peer.first_valid_round
        or answer.round < peer.probe_round
        or answer.previous_index <= peer.match
        or answer.previous_index >= peer.next
    )


# Committing


def wake_if_committable(state: GroupState, leading: LeaderState) -> None:
    """Touch the group if what is on disk now commits anything."""
    if index_of_majority(state, leading) > state.log.commit:
        leading.commit_due = True
        state.touch()


def advance_commit(state: GroupState, leading: LeaderState) -> None:
    """Commit what a majority of the active voters has on disk, if `is_committable`."""
    leading.commit_due = False
    index, before = index_of_majority(state, leading), state.log.commit
    if index > before and is_committable(state, index):
        leading.uncommitted_bytes -= bytes_between(state.log, before, index)
        state.commit_to(index)
        if before < state.configs.last_index <= index:
            on_config_committed(state, leading)


def index_of_majority(state: GroupState, leading: LeaderState) -> int:
    """Return the index up to which a majority of the active voters has everything on disk."""
    voters = state.voters  # mutant: M22
    durable: list[int] = []
    for voter in voters:
        if voter != state.me:
            durable.append(leading.peers[voter.node].match)
        else:  # the leader's own vote is its disk, too: thesis §10.2.1
            # mutant: M2
            durable.append(state.durable.index if state.quarantine is None else 0)
    return committed_index(durable)


def committed_index(durable: Sequence[int]) -> int:
    """Return the greatest index that a majority holds on disk: one number a voter, at least one.

    Of rounds it is the greatest that a majority has confirmed.
    """
    return sorted(durable, reverse=True)[len(durable) // 2]


def is_committable(state: GroupState, index: int) -> bool:
    """True if an entry may be committed by counting: only one of the leader's own term.
    Raft §5.4.2, Figure 8."""
    return state.log.term_at(index) == state.term  # mutant: M6


def bytes_between(log: Log, after: int, through: int) -> int:
    """Sum up the sizes, as `size_of` counts, of entries in memory behind one index, up to
    another."""
    first = max(after + 1, log.tail_first)
    return sum(map(size_of, log.slice(first, through + 1, UNLIMITED)))


def on_config_committed(state: GroupState, leading: LeaderState) -> None:
    """Stop feeding members that have left; a leader that has left hands over.  Thesis §4.2.2."""
    sync_peers(state, leading)
    if state.me not in state.voters:
        leadership_transfer.resign(state, leading)


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


# A follower


def on_append_request(state: GroupState, node: NodeId, request: AppendRequest) -> None:
    """Take entries of the leader.  Raft §5.3.  Duplicates and old requests change nothing."""
    state.accept_leader(node, request.sender)
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


def acknowledge(state: GroupState) -> None:
    """Acknowledge, when more is durable than was reported or when an answer is due."""
    if state.leader is None or state.role is not Role.FOLLOWER or not state.is_term_durable:
        return
    if state.repair is not None and state.repair.repairing is not None:
        return  # what was damaged is here again as soon as the snapshot is on disk
    index = state.acknowledged_index
    if index <= state.acknowledged and not state.answer_due:
        return
    state.acknowledged = index
    incarnation = state.leader_incarnation
    if state.answer_due and state.needs_snapshot:
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


def send_term(state: GroupState, node: NodeId, incarnation: int) -> None:
    """Send our term to a leader of an old one, in a rejection that means nothing else."""
    answer = AppendRejected(
        state.group, state.term, state.me.incarnation, incarnation, 0, 0, 0, 0
    )  # fmt: skip
    state.node.send(node, answer)
