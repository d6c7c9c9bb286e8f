"""Leader of a group: takes proposals and changes of membership, has them replicated and committed,
and answers reads.

A leader never changes or removes an entry of its own log (Raft §5.3).

A read writes nothing: it is answered with the commit index of the moment, once that is applied, if
(1) an entry of the leader's own term is committed, so that the commit index is not behind, and
(2) a majority answers a round that began after the read was asked for, so that no other member led
at that moment.  Thesis §6.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from fluffle.raft import leadership_transfer, replication
from fluffle.raft.config import (
    AddLearner,
    Change,
    InvalidChange,
    Member,
    NodeId,
    Promote,
    majority_of,
    with_change,
)
from fluffle.raft.log import CONFIG, NOOP, Entry, size_of
from fluffle.raft.messages import NotLeading, RepairRequest
from fluffle.raft.output import LeaderReady, Readable, Role
from fluffle.raft.state import (
    UNHEARD,
    GroupState,
    LeaderState,
    PendingReads,
    Progress,
    ProgressState,
)


class RefusalReason(Enum):
    """Reason of a refusal.  All but the last two pass by themselves."""

    NOT_LEADER = "not the leader"
    TRANSFERRING = "leadership is being handed over"
    BEHIND = "too much is not committed yet"
    NO_ROOM = "the disk is nearly full"
    NOT_READY = "no entry of this leader is committed yet"
    CHANGE_UNDER_WAY = "another change of membership is not committed yet"
    NOT_CAUGHT_UP = "the member lacks too much of the log"
    NO_MAJORITY = "too few of those that would vote have answered"
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
        """Leader for `NOT_LEADER`, if known."""


def begin(state: GroupState) -> None:
    """Become leader, as a majority has voted for us.  The first entry commits all those before it.
    Raft §5.4.2.

    Of a group that has just been founded there are none, and all founders know which member leads.
    """
    log = state.log
    is_first_term = state.campaign is not None and state.campaign.is_first_term
    state.role = Role.LEADER
    state.campaign = None
    state.drop_receiver()
    state.leader = state.node.name
    state.tries = 0
    leading = state.leading = LeaderState(0 if is_first_term else log.last_index + 1)
    leading.uncommitted_bytes = replication.bytes_between(log, log.commit, log.last_index)
    replication.sync_peers(state, leading)
    check_quorum(state, leading)  # some that voted may be lost by now
    if not is_first_term:
        append(state, leading, NOOP, b"")


def append(state: GroupState, leading: LeaderState, kind: int, payload: bytes) -> Entry:
    """Append an entry of this leader's term."""
    entry = Entry(state.log.last_index + 1, state.term, kind, payload)
    leading.uncommitted_bytes += size_of(entry)
    state.append([entry])
    return entry


def has_committed_own_term(state: GroupState, leading: LeaderState) -> bool:
    """True if an entry of this term is committed: before, the commit index may be behind
    that of the leader before."""
    return state.log.commit >= leading.first_index


def announce(state: GroupState, node: NodeId) -> None:
    """Send an empty append to a node that does not know its leader."""
    leading = state.leading
    if leading is not None and (peer := leading.peers.get(node)) is not None:
        replication.ask_again(state, leading, peer)


def on_deleted(state: GroupState) -> None:
    """Notify followers that would wait for a leader that is deleted, as far as messages reach
    them."""
    for peer in state.leading.peers.values() if state.leading is not None else ():
        if peer.is_alive:
            member = peer.member
            message = NotLeading(
                state.group, state.term, state.me.incarnation, member.incarnation
            )  # fmt: skip
            state.node.send(member.node, message)


# Repair


def on_repair_request(state: GroupState, node: NodeId, request: RepairRequest) -> None:
    """Send again what the follower cannot read: what it said of it does not count any more."""
    leading = state.leading
    assert leading is not None
    peer = leading.peer_of(node, request.sender)
    if peer is None:
        return
    if asks_behind_the_end(state, leading, peer, request):
        append(state, leading, NOOP, b"")
    peer.repaired_at = state.log.last_index
    # A snapshot may be under way for another reason, and be too old for this one.
    is_served = peer.match < request.first and (
        peer.flow is ProgressState.SNAPSHOT and peer.snapshot_from >= request.floor
        if request.floor
        else peer.next <= request.first
    )
    if is_served:
        return
    peer.retract(request.first)
    peer.first_valid_round = leading.round
    if request.floor:
        peer.snapshot_from = request.floor
        peer.need_snapshot()
    else:
        peer.probe(request.first)
        peer.probe_round = leading.round
    state.touch()


def asks_behind_the_end(
    state: GroupState, leading: LeaderState, peer: Progress, request: RepairRequest
) -> bool:
    """True if a follower that has the whole log, all of it committed, asks for more.

    Its damaged log was longer, and it cannot know that nothing of that was of this term: only
    entries up to there, or a later term, end its quarantine.  See `corruption.is_repaired`.  As all
    is committed, no more than one such entry waits for a majority.
    """
    last = state.log.last_index
    return (  # mutant: M53 M54
        peer.match == last == state.log.commit
        and request.first == last + 1
        and leading.transfer is None
        and state.node.has_room
    )


# The turn


def flush(state: GroupState) -> None:
    """Commit, send and answer: once a turn, after everything that came in."""
    leading = state.leading
    assert leading is not None
    if leading.commit_due:
        replication.advance_commit(state, leading)
    if leading.reads is not None:
        flush_reads(state, leading)
    if leading.transfer is not None:
        leadership_transfer.flush(state, leading)
    replication.send_to_peers(state, leading)
    if not leading.is_led_reported and state.log.applied >= leading.first_index:
        leading.is_led_reported = True
        state.node.output.led.append(LeaderReady(state.group, state.term))
    state.set_deadline(next_deadline(state, leading))


def waits_for_applied(state: GroupState, leading: LeaderState) -> bool:
    """True if an entry that is applied is waited for, by a new leader or a reader."""
    is_led_due = not leading.is_led_reported and state.log.applied >= leading.first_index
    return is_led_due or leading.reads is not None


def next_deadline(state: GroupState, leading: LeaderState) -> int | None:
    """Return when something is to be done next if nothing comes in; None if nothing is."""
    times = [
        peer.retry_at_ms
        for peer in leading.peers.values()
        if peer.is_alive and peer.retry_at_ms is not None
    ]
    if leading.send_commit_at_ms is not None:
        times.append(leading.send_commit_at_ms)
    if leading.transfer is not None:
        times.append(leading.transfer.ends_at_ms)
    if leading.quorum_lost_at_ms is not None:
        times.append(leading.quorum_lost_at_ms + state.node.tuning.election_timeout_ms)
    return min(times) if times else None


def on_deadline(state: GroupState) -> None:
    """Act on what has come due of what `next_deadline` looked at."""
    leading, now_ms = state.leading, state.node.now_ms
    assert leading is not None
    lost_at_ms, timeout_ms = leading.quorum_lost_at_ms, state.node.tuning.election_timeout_ms
    if lost_at_ms is not None and lost_at_ms + timeout_ms <= now_ms:
        # Check-quorum, thesis §6.2: a leader without followers should not keep others from leading.
        state.become_follower(state.term, None)
        return
    if leading.transfer is not None and leading.transfer.ends_at_ms <= now_ms:
        leadership_transfer.on_timeout(state, leading)
    replication.on_deadline(state, leading)
    state.touch()


def on_verdict(state: GroupState, node: NodeId, *, is_alive: bool, is_new_life: bool) -> None:
    """Note that a node is believed to be alive, or not; in a new life it does not know its
    leader."""
    leading = state.leading
    assert leading is not None
    if (peer := leading.peers.get(node)) is not None:
        peer.is_alive = is_alive
        if is_new_life:
            peer.commit = peer.sent_commit = UNHEARD
        peer.probe(peer.match + 1)
        peer.retry_at_ms = None
        state.touch()
    check_quorum(state, leading)


def awaits_answer_of(state: GroupState, node: NodeId) -> bool:
    """True if this node leads, and waits for an answer of a follower there."""
    peer = state.leading.peers.get(node) if state.leading is not None else None
    return peer is not None and peer.retry_at_ms is not None


def on_new_link(state: GroupState, node: NodeId) -> None:
    """Ask again over a new link from or to a node."""
    leading = state.leading
    if leading is not None and (peer := leading.peers.get(node)) is not None:
        replication.on_new_link(state, leading, peer)


def check_quorum(state: GroupState, leading: LeaderState) -> None:
    """Note when the majority was lost, or that it is back."""
    if state.node.has_quorum(state.voters):  # mutant: M16b
        leading.quorum_lost_at_ms = None
    elif leading.quorum_lost_at_ms is None:
        leading.quorum_lost_at_ms = state.node.now_ms
        state.touch()


# Reads


def begin_read(state: GroupState, leading: LeaderState, context: int) -> None:
    """Register a read that is asked for."""
    if leading.reads is None:
        leading.reads = PendingReads()
    leading.reads.fresh.append(context)
    state.touch()


def flush_reads(state: GroupState, leading: LeaderState) -> None:
    """Begin a round for new reads, and answer those whose round is confirmed and index applied."""
    reads = leading.reads
    assert reads is not None
    if reads.fresh and has_committed_own_term(state, leading):  # mutant: M29a
        begin_read_round(state, leading, reads)
    round_ = confirmed_round(state, leading)
    reads.confirmed += [
        (index, context) for at, index, context in reads.unconfirmed if at <= round_
    ]
    reads.unconfirmed = [item for item in reads.unconfirmed if item[0] > round_]
    for index, context in reads.confirmed:
        if index <= state.log.applied:
            state.node.output.readable.append(Readable(state.group, context, index))
    reads.confirmed = [item for item in reads.confirmed if item[0] > state.log.applied]
    if not (reads.fresh or reads.unconfirmed or reads.confirmed):
        leading.reads = None


def begin_read_round(state: GroupState, leading: LeaderState, reads: PendingReads) -> None:
    """Begin a round: whatever is sent from here on, with it or a later one, confirms these
    reads."""
    leading.round += 1
    # mutant: M29b
    reads.unconfirmed += [(leading.round, state.log.commit, context) for context in reads.fresh]
    reads.fresh = []
    for peer in leading.peers.values():
        replication.ask_again(state, leading, peer)


def confirmed_round(state: GroupState, leading: LeaderState) -> int:
    """Return the greatest round that a majority of voters has confirmed, ourselves included if
    we are one."""
    return replication.committed_index([round_of(state, leading, voter) for voter in state.voters])


def round_of(state: GroupState, leading: LeaderState, voter: Member) -> int:
    return leading.round if voter == state.me else leading.peers[voter.node].confirmed_round


# Membership


def propose_change(state: GroupState, leading: LeaderState, change: Change) -> Entry:
    """Append a configuration.  Raises `ProposalRefused`."""
    if not has_committed_own_term(state, leading):  # mutant: M17
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
    entry = append(state, leading, CONFIG, config.encode())
    replication.sync_peers(state, leading)
    check_quorum(state, leading)
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
    """True if a majority of these would commit the change, by what they have answered since their
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
    """True if a learner has all that is committed, or is being sent the little that it lacks.

    Who is in quarantine would not vote: if the leadership were lost, one of two could elect no
    leader.
    """
    if learner.match < learner.repaired_at:  # mutant: M52
        return False
    lag_max = (
        state.node.tuning.promotion_lag_entries if learner.flow is ProgressState.REPLICATE else 1
    )
    return learner.is_alive and learner.match + lag_max > state.log.commit
