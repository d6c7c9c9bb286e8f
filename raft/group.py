"""Raft group as its users see it, and its turn: what came in becomes what goes out.

`Group` is the interface.  All that is asked of it takes effect when the turn ends: `end_turn`
decides what to send, `take_write` says what to write, `on_write_durable` what follows once that is
on disk.

`become_single_member` is for an operator who gives up all other members, most of which are lost for
good.  No majority agrees to this, so the others may be alive, and lead.  What keeps them from
counting: the member is another from now on, of a greater incarnation, and what they say is for the
one that it was.  What keeps them from being believed by those who compare terms: its own is far
greater.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
from zlib import crc32

from fluffle.raft import corruption, election, leader, leadership_transfer, replication, snapshots
from fluffle.raft.config import (
    AddLearner,
    Change,
    Config,
    InvalidChange,
    Member,
    NodeId,
    Promote,
    majority_of,
    with_change,
)
from fluffle.raft.log_store import NewSnapshot, Write
from fluffle.raft.output import Apply, ReadEntries, Role, RoleChange
from fluffle.raft.progress import Progress, ProgressState
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import CONFIG, DATA, Entry, SnapshotMeta
from fluffle.raft.state import GroupState, LeaderState

TERM_STEP = 1 << 20
"""The others hold far fewer elections until they hear of it."""


class RefusalReason(Enum):
    """Reason of a refusal.  All but the last two pass by themselves."""

    NOT_LEADER = "not the leader"
    TRANSFERRING = "leadership is being handed over"
    BEHIND = "too much is not committed yet"
    NO_ROOM = "the disk is nearly full"
    NOT_READY = "no entry of this leader is committed yet"
    CHANGE_UNDER_WAY = "another change of membership is not committed yet"
    NOT_CAUGHT_UP = "the member lacks too much of the log"
    NO_MAJORITY = "too few of those who would vote have answered"
    SENDING = "the snapshot is being sent"
    NOT_ALIVE = "the node is not reachable"
    BAD_CHANGE = "the change makes no sense"
    OUT_OF_DATE = "there is a newer snapshot, or the index is not applied"


class ProposalRefused(Exception):
    """Refusal of a request to a group; nothing was done."""

    def __init__(
        self, reason: RefusalReason, *, leader: NodeId | None = None, detail: str = ""
    ) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.leader = leader
        """For `NOT_LEADER`: who is, if that is known."""


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
    config: Config
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
    def configs(self) -> list[Config]:
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

    def send_commits_at_once(self) -> None:
        """Send commits without delay, for a group whose followers answer from their images.

        Entries of such a group have consequences, so few are applied in one turn.
        """
        self._state.commit_delay_ms = 0
        self._state.apply_bytes_max = self._state.node.tuning.apply_bytes_min

    def takes(self, payload_bytes: int) -> bool:
        """Whether a proposal of this size would be accepted now."""
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

    def compact(self, index: int, live: Ranges, state_bytes: bytes) -> None:
        """Take a snapshot of the image as it was after `index`, which was applied.

        `live` are the indexes up to there whose entries it still needs; the others are deleted, and
        so cannot be among those of a later one.
        """
        state, log = self._state, self._state.log
        # mutant: M24
        if not log.floor < index <= log.applied or state.restore_due or state.quarantine:
            raise ProposalRefused(RefusalReason.OUT_OF_DATE)
        if state.compacting is not None or snapshots.is_holding(state):
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
    """Tell whether a proposal may wait for its commit in memory; one always may."""
    waiting_bytes = leading.uncommitted_bytes
    return not waiting_bytes or (
        waiting_bytes + payload_bytes <= state.node.tuning.uncommitted_bytes_max
    )


# Membership


def propose_change(state: GroupState, leading: LeaderState, change: Change) -> Entry:
    """Append a configuration.  Raises `ProposalRefused`."""
    if not leader.has_committed_own_term(state, leading):  # mutant: M17
        raise ProposalRefused(RefusalReason.NOT_READY)
    if not state.is_config_committed:
        raise ProposalRefused(RefusalReason.CHANGE_UNDER_WAY)
    check_change(state, leading, change)
    try:
        config = with_change(state.configs.active, change)
    except InvalidChange as error:
        raise ProposalRefused(RefusalReason.BAD_CHANGE, detail=str(error)) from error
    if not is_followed(state, leading, config.voters):
        raise ProposalRefused(RefusalReason.NO_MAJORITY)
    entry = leader.append(state, leading, CONFIG, config.encode())
    replication.sync_peers(state, leading)
    leader.check_quorum(state, leading)
    return entry


def check_change(state: GroupState, leading: LeaderState, change: Change) -> None:
    """Refuse a change that would make the group stand still."""
    if isinstance(change, AddLearner):
        if change.node not in state.node.alive:
            raise ProposalRefused(RefusalReason.NOT_ALIVE)
    elif isinstance(change, Promote):
        peer = leading.peers.get(change.node)
        if peer is not None and not has_caught_up(state, peer):
            raise ProposalRefused(RefusalReason.NOT_CAUGHT_UP)


def is_followed(state: GroupState, leading: LeaderState, voters: Sequence[Member]) -> bool:
    """Whether a majority of these would commit the change, by what they have answered since their
    nodes were last found to be alive: one may have lost its member meanwhile.

    Who has not answered is asked, for there may be nothing else to ask it: the next try knows more.
    """
    others = [leading.peers[voter.node] for voter in voters if voter != state.me]
    following = [peer for peer in others if peer.is_alive and peer.flow is ProgressState.REPLICATE]
    if len(following) + (state.me in voters) >= majority_of(len(voters)):
        return True
    for peer in others:
        if peer.flow is ProgressState.PROBE and not peer.is_waiting:
            replication.ask_again(state, leading, peer)
    return False


def has_caught_up(state: GroupState, learner: Progress) -> bool:
    """Tell whether a learner has all that is committed, or is being sent the little that it lacks.

    Who is in quarantine would not vote: if the leadership were lost, one of two could elect no
    leader.
    """
    if learner.match < learner.repaired_at:  # mutant: M52
        return False
    lag_max = (
        state.node.tuning.promotion_lag_entries if learner.flow is ProgressState.REPLICATE else 1
    )
    return learner.is_alive and learner.match + lag_max > state.log.commit


def may_become_single_member(state: GroupState) -> bool:
    """Tell whether this member can read what it has, and its leader has told it who the members
    are."""
    return state.quarantine is None and state.me in state.configs.active.members


def become_single_member(state: GroupState, incarnation: int) -> None:
    """Commit all that this member has, by its own vote alone."""
    state.become_follower(state.term + TERM_STEP, None)
    state.drop_receiver()
    state.me = Member(state.node.name, incarnation)
    state.pending().new_incarnation = incarnation
    single_member = Config((state.me,), (), incarnation)
    state.append([Entry(state.log.last_index + 1, state.term, CONFIG, single_member.encode())])
    election.start_pre_vote(state)


def was_forced(before: int, since: int) -> bool:
    """Whether so much lies between two terms of a group: then entries of the first may be lost, and
    others be in their place."""
    return since - before >= TERM_STEP // 2


# The turn


def end_turn(state: GroupState) -> None:
    """Decide what to send; what is to be written follows in `take_write`."""
    if state.quarantine is not None:
        corruption.flush(state)
    election.flush(state)
    if state.leading is not None:
        leader.flush(state)
    else:
        replication.acknowledge(state)
        if state.receiver is not None:
            snapshots.report_progress(state, state.receiver)
        election.update_deadline(state)
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
    first, stop = log.handed + 1, applicable_index(state) + 1
    if first >= stop or log.applied < log.handed or state.apply_read is not None:
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
    """Tell whether anything can be done now that what was handed out is applied."""
    if state.restore_due or applicable_index(state) > state.log.handed:
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
    if state.leading is None or applicable_index(state) > state.log.handed:
        state.touch()
