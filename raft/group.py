"""Raft group as its users see it.

Messages (`step`), verdicts on nodes, deadlines and requests come in at any time.  When the turn
ends, `end_turn` decides what to send, `take_write` says what to write, and `on_write_durable` what
follows once that is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

from fluffle.raft import corruption, election, leader, leadership_transfer, replication, snapshots
from fluffle.raft.config import (
    Change,
    Configuration,
    Member,
    NodeId,
)
from fluffle.raft.leader import ProposalRefused, RefusalReason, propose_change
from fluffle.raft.log import DATA, Entry, SnapshotMeta
from fluffle.raft.log_store import NewSnapshot, Write
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
from fluffle.raft.output import Apply, ReadEntries, Role, RoleChange
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import GroupState, LeaderState, Progress, ProgressState

# Messages

Handler = Callable[[GroupState, NodeId, Any], None]
FROM_A_LEADER: dict[type[GroupMessage], Handler] = {
    AppendRequest: replication.on_append_request,
    SnapshotOffer: snapshots.on_snapshot_offer,
    SnapshotChunk: snapshots.on_snapshot_chunk,
}

ANY_ROLE: dict[type[GroupMessage], Handler] = {
    PreVoteRequest: election.on_pre_vote_request,
    VoteRequest: election.on_vote_request,
    LeaderQuery: election.on_leader_query,
}
"""Handlers of messages for every role; the terms of the first two are those of elections that may
never be held."""

HANDLERS: dict[Role, dict[type[GroupMessage], Handler]] = {
    Role.FOLLOWER: {
        **FROM_A_LEADER,
        TimeoutNow: election.on_timeout_now,
        NotLeading: election.on_not_leading,
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
        RepairRequest: leader.on_repair_request,
        SnapshotProgress: snapshots.on_snapshot_progress,
    },
}
"""Handlers of messages by role; a message that is not in the table of a role is ignored."""


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
    """True if a message names a term that was only asked for: a pre-vote that was granted."""
    return isinstance(message, PreVoteResponse) and message.is_granted


def on_old_term(state: GroupState, node: NodeId, message: GroupMessage) -> None:
    """Answer a message of an old term, which counts for nothing: its leader must hear that it is
    over (Raft §5.1).

    By whatever it says: one that has left the group has nothing more to say than `TimeoutNow`.
    """
    if type(message) in FROM_A_LEADER or type(message) is TimeoutNow:  # mutant: M14a M14b M42
        replication.send_term(state, node, message.sender)


# News and deadlines


class NodeNews(NamedTuple):
    """News about a node: alive, perhaps in a new life, or suspected."""

    node: NodeId
    is_alive: bool
    is_new_life: bool


def on_alarm(state: GroupState) -> None:
    """Act on a deadline that has come; mostly it was put off meanwhile, or is not meant any
    more."""
    state.alarm_ms = None
    if state.deadline_ms is None:
        return
    if state.deadline_ms > state.node.now_ms:
        state.set_deadline(state.deadline_ms)
        return
    state.deadline_ms = None
    if state.role is Role.LEADER:
        leader.on_deadline(state)
    else:
        election.on_deadline(state)
    state.touch()


def on_verdict(state: GroupState, news: NodeNews) -> None:
    """Act on a node that is alive, perhaps in a new life, or suspected."""
    node, is_alive, is_new_life = news
    if state.leading is not None:
        leader.on_verdict(state, node, is_alive=is_alive, is_new_life=is_new_life)
        return
    if is_new_life and state.leader == node:
        state.follow(None)
    elif is_alive and state.leader == node:
        election.send_leader_query(state)
    if state.leader == node or not election.sees_leader(state):
        state.touch()  # it may be the one that a majority lacked


# The end of the turn


def end_turn(state: GroupState) -> None:
    """Decide what to send; what is to be written follows in `take_write`."""
    if state.quarantine is not None:
        corruption.flush(state)
    if state.grant_due or state.role is Role.CANDIDATE:
        election.flush(state)
    if state.leading is not None:
        leader.flush(state)
    else:
        replication.acknowledge(state)
        if state.receiver is not None:
            snapshots.report_progress(state, state.receiver)
        if state.deadline_ms is not None or state.leader not in state.node.alive:
            election.update_deadline(state)  # else it sees its leader, and waits for nothing
        if state.repair is not None:
            corruption.request_repair(state, state.repair)
    restore_and_apply(state)
    evict(state)
    report_role(state)


def restore_and_apply(state: GroupState) -> None:
    """Hand out what may be applied, one page at a time."""
    if state.restore_due:
        state.restore_if_due()
        if state.restore_due:
            return
    log = state.log
    if log.commit <= log.handed or log.applied < log.handed or state.apply_read is not None:
        return
    first, stop = log.handed + 1, applicable_index(state) + 1
    if first >= stop:
        return
    bytes_max = state.apply_bytes_max
    if log.is_in_memory(first):
        entries = log.slice(first, stop, bytes_max)
        log.handed = entries[-1].index
        state.node.output.applies.append(Apply(state.group, entries))
    else:
        state.apply_read = state.node.take_number()
        stop = min(stop, log.tail_first)
        read = ReadEntries(state.group, first, stop, bytes_max, state.apply_read)
        state.node.output.reads.append(read)


def applicable_index(state: GroupState) -> int:
    """Return up to where entries are committed, and durable here: what is applied is never lost
    by a restart."""
    return min(state.log.commit, state.sound_index)  # mutant: M27


def waits_for_applied(state: GroupState) -> bool:
    """True if anything can be done now that what was handed out is applied."""
    log = state.log
    if state.restore_due or (log.commit > log.handed and applicable_index(state) > log.handed):
        return True
    return state.leading is not None and leader.waits_for_applied(state, state.leading)


def evict(state: GroupState) -> None:
    """Evict entries that nothing will ask for; those a follower needs soon are kept a while."""
    log = state.log
    through = min(log.applied, state.durable.index)
    if through < log.tail_first:
        return
    if state.leading is not None and log.tail_bytes <= state.node.tuning.cached_bytes:
        for peer in state.leading.peers.values():
            if peer.is_alive and peer.match < through:
                through = peer.match
    log.evict(through)


def report_role(state: GroupState) -> None:
    if state.campaign is not None and state.campaign.is_first_term:
        return  # it leads as soon as that is on disk
    role_change = (state.role, state.term, state.leader)
    if role_change != state.reported_role:
        state.reported_role = role_change
        state.node.output.roles.append(RoleChange(state.group, *role_change))


def take_write(state: GroupState, token: int) -> Write | None:
    """Return what the group has to write under this token, if anything."""
    entries = state.log.submit() if state.log.submitted < state.log.last_index else []
    is_voting = state.hard_state != state.submitted_hard_state
    if state.write is None and not entries and not is_voting:
        return None
    found, state.write = state.write or Write(state.group), None
    found.entries = entries
    if entries and state.truncate_due is not None:
        found.truncate_from = min(state.truncate_due, found.truncate_from or state.truncate_due)
        state.truncate_due = None
    if is_voting:
        found.hard_state = state.submitted_hard_state = state.hard_state
    state.durable.submit(token, state.log.submitted, state.hard_state)
    if found.snapshot is not None:
        state.compacting = (token, found.snapshot.meta)
    if found.install is not None and state.installing is not None:
        state.installing = token
    if state.receiver is not None:
        snapshots.on_written(state.receiver, token)
    return found


def on_write_durable(state: GroupState, token: int) -> None:
    """Note that the group's oldest write under way is on disk.

    A leader has its turn only if something follows from it: mostly a follower has to say so, too.
    A follower of which nothing else waits for the disk says so at once.
    """
    state.durable.finish(token)
    if state.leading is not None:
        replication.wake_if_committable(state, state.leading)
    if state.installing == token:
        state.installing = None
        corruption.on_installed(state)
        state.touch()
    if state.compacting is not None and state.compacting[0] == token:
        meta, state.compacting = state.compacting[1], None
        if meta.index > state.log.floor:
            state.log.compact(meta)
            state.configs.prune(meta.index)
        state.touch()
    if state.receiver is not None:
        snapshots.on_durable(state, state.receiver, token)
    log = state.log
    if log.commit > log.handed and applicable_index(state) > log.handed:
        state.touch()
    elif state.leading is None and state not in state.node.dirty:
        if is_more_than_acknowledging(state):
            state.touch()
        else:
            replication.acknowledge(state)


def is_more_than_acknowledging(state: GroupState) -> bool:
    """True if `end_turn` may do more for a member than acknowledge, now that a write is on disk."""
    return (
        state.role is not Role.FOLLOWER
        or state.leader not in state.node.alive
        or state.deadline_ms is not None
        or state.grant_due
        or state.restore_due
        or state.quarantine is not None
        or state.repair is not None
        or state.receiver is not None
    )


@dataclass(frozen=True, slots=True)
class Position:
    """Position of a proposal; another term at that index is another entry."""

    term: int
    index: int


class Status(NamedTuple):
    """Status of a group at one moment, for observers."""

    role: Role
    term: int
    vote: Member | None
    leader: NodeId | None
    config: Configuration
    floor: int
    applied: int
    commit: int
    durable: int
    last: int
    last_term: int
    is_quarantined: bool


class Group:
    """Interface of one group.  A refused request raises `ProposalRefused` and changes nothing."""

    __slots__ = ("_state",)

    def __init__(self, state: GroupState) -> None:
        self._state = state

    @property
    def status(self) -> Status:
        state, log = self._state, self._state.log
        return Status(
            state.role, state.term, state.hard_state.vote, state.leader, state.configs.active,
            log.floor, log.applied, log.commit, state.durable.index, log.last_index,
            log.last_term, state.quarantine is not None,
        )  # fmt: skip

    @property
    def config(self) -> Configuration:
        """Return the active configuration, committed or not."""
        return self._state.configs.active

    @property
    def configs(self) -> list[Configuration]:
        """Return the configurations that may be in force: the last known committed one, and all
        behind it."""
        return self._state.configs.in_use(self._state.log.commit)

    @property
    def progress(self) -> dict[NodeId, tuple[ProgressState, int]]:
        """Return the state of each follower and its match index.  Empty if not leading."""
        peers = self._state.leading.peers if self._state.leading is not None else {}
        return {node: (peer.flow, peer.match) for node, peer in peers.items()}

    @property
    def transfer_targets(self) -> list[NodeId]:
        """Return voters that can lead soon, the most complete log first.  Empty if not leading."""
        leading = self._state.leading
        return (
            leadership_transfer.transfer_targets(self._state, leading)
            if leading is not None
            else []
        )

    @property
    def settled_snapshot(self) -> SnapshotMeta | None:
        """Return the snapshot whose live entries, and no others, are on disk.

        None while another one is on its way to the disk, and while something is damaged.
        """
        state = self._state
        is_moving = state.compacting is not None or state.installing is not None
        return None if is_moving or state.quarantine is not None else state.log.snapshot

    @property
    def is_sending_snapshot(self) -> bool:
        """True while the snapshot is on its way to the disk, or to a follower: no other is taken
        then."""
        return self._state.compacting is not None or snapshots.is_holding(self._state)

    def send_commits_at_once(self) -> None:
        """Send commits without delay, for a group whose followers answer from their images.

        Entries of such a group have consequences, so few are applied in one turn.
        """
        self._state.commit_delay_ms = 0
        self._state.apply_bytes_max = self._state.node.tuning.apply_bytes_min

    def takes(self, payload_bytes: int) -> bool:
        """True if a proposal of this size would be accepted now."""
        state, leading = self._state, self._state.leading
        if leading is None or leading.transfer is not None or not state.node.has_room:
            return False
        return has_proposal_room(state, leading, payload_bytes)

    # A leader

    def propose(self, payload: bytes) -> Position:
        """Append a batch as one entry.  It is committed once that entry is applied, or never."""
        state = self._state
        leading = self._leading()
        if not state.node.has_room:
            raise ProposalRefused(RefusalReason.NO_ROOM)
        if not has_proposal_room(state, leading, len(payload)):
            raise ProposalRefused(RefusalReason.BEHIND)
        entry = leader.append(state, leading, DATA, payload)
        return Position(entry.term, entry.index)

    def change(self, change: Change) -> Position:
        """Change the members; one such change at a time."""
        state = self._state
        entry = propose_change(state, self._leading(), change)
        return Position(entry.term, entry.index)

    def transfer(self, target: NodeId) -> None:
        """Have another voter lead; given up after an election timeout.  No proposals meanwhile."""
        state, leading = self._state, self._leading()
        member = state.configs.active.member_on(target)
        if member is None or member not in state.voters or target == state.node.name:
            raise ProposalRefused(RefusalReason.BAD_CHANGE, detail=f"{target} is not another voter")
        if target not in state.node.alive:
            raise ProposalRefused(RefusalReason.NOT_ALIVE)
        leadership_transfer.begin(state, leading, target)

    def read_index(self, context: int) -> None:
        """Ask for a `Readable` with this context: always answered, with an index or without."""
        if self._state.leading is None:
            raise ProposalRefused(RefusalReason.NOT_LEADER, leader=self._state.leader)
        leader.begin_read(self._state, self._state.leading, context)

    def _leading(self) -> LeaderState:
        leading = self._state.leading
        if leading is None:
            raise ProposalRefused(RefusalReason.NOT_LEADER, leader=self._state.leader)
        if leading.transfer is not None:
            raise ProposalRefused(RefusalReason.TRANSFERRING)
        return leading

    # Every member

    def campaign(self) -> None:
        """Stand for leadership, pre-vote first, though no member may be missing a leader."""
        if self._state.leading is None and election.is_electable(self._state):
            election.start_pre_vote(self._state)

    def applied(self, index: int) -> bool:
        """Report that everything up to `index` was applied; the next page may come.

        Whether anything has waited for that: if not, no turn need be taken for it.
        """
        state, log = self._state, self._state.log
        if not log.applied < index <= log.handed:
            return False
        log.applied = index
        if waits_for_applied(state):
            state.touch()
            return True
        evict(state)
        return False

    def compact(self, index: int, live: Ranges, state_bytes: bytes | bytearray) -> None:
        """Take a snapshot of the image as it was after `index`, which was applied.

        `live` are the indexes up to there whose entries it still needs; the others are deleted, and
        so cannot be among those of a later one.
        """
        state, log = self._state, self._state.log
        # mutant: M24
        if not log.floor < index <= log.applied or state.restore_due or state.quarantine:
            raise ProposalRefused(RefusalReason.OUT_OF_DATE)
        if self.is_sending_snapshot:
            raise ProposalRefused(RefusalReason.SENDING)
        term = log.term_at(index)
        assert term is not None
        meta = SnapshotMeta(
            index, term, state.configs.at(index), live, len(state_bytes), crc32(state_bytes)
        )
        write = state.pending()
        write.snapshot = NewSnapshot(meta, state_bytes)
        before = log.snapshot.live.plus(Ranges.of((log.floor + 1, index + 1)))
        dead = before.minus(live)  # mutant: M26
        assert len(before) - len(dead) == len(live), "an entry that is gone is called live"
        write.deletes += list(dead)
        state.compacting = (0, meta)

    def entries_read(self, number: int, entries: Sequence[Entry]) -> None:
        """Take the result of a `ReadEntries`."""
        state = self._state
        if number == state.apply_read:
            state.apply_read = None
            state.touch()
            if entries and entries[0].index == state.log.handed + 1:
                state.log.handed = entries[-1].index
                state.node.output.applies.append(Apply(state.group, entries))
        elif (peer := self._reading(number)) is not None:
            if peer.flow is ProgressState.SNAPSHOT:
                snapshots.on_entries_read(state, peer, entries)
            else:
                replication.on_entries_read(state, peer, entries)

    def state_read(self, number: int, data: bytes) -> None:
        """Take the result of a `ReadState`."""
        if (peer := self._reading(number)) is not None:
            snapshots.on_state_read(self._state, peer, data)

    def _reading(self, number: int) -> Progress | None:
        peers = self._state.leading.peers if self._state.leading is not None else {}
        return next((peer for peer in peers.values() if peer.read_number == number), None)

    def damaged(self, index: int) -> None:
        """Report that the entry at `index` could not be read; the floor, for the state of a
        snapshot."""
        corruption.on_damage(self._state, index)


def has_proposal_room(state: GroupState, leading: LeaderState, payload_bytes: int) -> bool:
    """True if a proposal may wait for its commit in memory; one always may."""
    waiting_bytes = leading.uncommitted_bytes
    return not waiting_bytes or (
        waiting_bytes + payload_bytes <= state.node.tuning.uncommitted_bytes_max
    )
