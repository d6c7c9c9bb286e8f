"""Receiver of a snapshot that its leader sends.

Pieces are staged on disk beside the log, in order; what is staged is acknowledged.  Once all is
there the snapshot takes the log's place in one write, and only then the image begins with it.  The
log stays whole until then, so a transfer that fails has cost nothing; it goes on where it was after
a lost link, another leader or a restart.
"""

from __future__ import annotations

from zlib import crc32

from fluffle.raft import follower
from fluffle.raft.config import Config, ConfigHistory, NodeId
from fluffle.raft.log_store import Staged, StagedSnapshot
from fluffle.raft.messages import SnapshotChunk, SnapshotOffer, SnapshotProgress
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import SnapshotMeta
from fluffle.raft.role_state import SnapshotReceiver
from fluffle.raft.snapshot_sender import is_of
from fluffle.raft.state import GroupState


def resume(staged: StagedSnapshot) -> SnapshotReceiver:
    """Go on with a snapshot that was on its way when the process ended."""
    receiver = SnapshotReceiver(staged.meta, staged.entries_through)
    receiver.offset, receiver.crc = staged.state_bytes, staged.state_crc
    receiver.stored = staged.entries_through, staged.state_bytes
    return receiver


def on_snapshot_offer(state: GroupState, node: NodeId, offer: SnapshotOffer) -> None:
    """Begin to receive a snapshot: the leader cannot send what we need as entries."""
    follower.accept_leader(state, node, offer.sender)
    state.round = max(state.round, offer.round)
    meta = SnapshotMeta(
        offer.index, offer.index_term, Config.decode(offer.config), Ranges.from_bytes(offer.live),
        offer.state_bytes, offer.state_crc,
    )  # fmt: skip
    state.touch()
    if state.installing is not None:
        return  # the answer will be that it is there
    if state.compacting is not None and follower.needs_snapshot(state):
        return  # our floor is about to rise above what was asked for
    if not is_needed(state, meta):
        state.drop_receiver()
        # All up to a snapshot's index is committed, and here it is the same.
        state.commit_to(meta.index)
        state.matched = max(state.matched, meta.index)
        state.answer_due = True
        return
    receiver = state.receiver
    if receiver is None or receiver.meta.identity != meta.identity:
        receiver = state.receiver = replacing(state, receiver, meta)
    receiver.position_due = True
    receiver.leader_round = offer.round
    if receiver.is_complete:
        install(state, receiver)


def is_needed(state: GroupState, meta: SnapshotMeta) -> bool:
    """Tell whether a snapshot is needed: not if the log has its last entry, unless what is below
    is damaged."""
    if follower.needs_snapshot(state):
        return meta.index >= state.log.floor
    return meta.index > state.log.commit and state.log.term_at(meta.index) != meta.term


def replacing(
    state: GroupState, old: SnapshotReceiver | None, meta: SnapshotMeta
) -> SnapshotReceiver:
    """Return a receiver for another snapshot: for a later one the staged entries are of use."""
    through = here_already(state)
    if old is not None and meta.index < old.meta.index:
        state.drop_receiver()
        old = None
    if old is None:
        return SnapshotReceiver(meta, through)
    receiver = SnapshotReceiver(meta, max(through, old.through))
    receiver.stored = (max(through, old.stored[0]), 0)
    receiver.writes = [(token, (so_far, 0)) for token, (so_far, _) in old.writes]
    return receiver


def here_already(state: GroupState) -> int:
    """Return up to where live entries need not be sent: what is live later was live before."""
    if follower.needs_snapshot(state):
        assert state.quarantine is not None
        return min(state.log.commit, state.quarantine.first - 1)
    return state.log.commit


def on_snapshot_chunk(state: GroupState, node: NodeId, chunk: SnapshotChunk) -> None:
    """Stage the next piece; answer any other with where we are."""
    follower.accept_leader(state, node, chunk.sender)
    receiver = state.receiver
    if receiver is None or not is_of(chunk, receiver.meta):
        return
    receiver.leader_round = max(receiver.leader_round, chunk.round)
    state.round = max(state.round, chunk.round)
    state.touch()
    if chunk.entries_from != receiver.through + 1 or chunk.offset != receiver.offset:
        receiver.position_due = True
        return
    stage(state, receiver, chunk)
    if receiver.is_complete:
        install(state, receiver)


def stage(state: GroupState, receiver: SnapshotReceiver, chunk: SnapshotChunk) -> None:
    """Stage a piece of a snapshot."""
    piece = Staged(
        receiver.meta, list(chunk.entries), chunk.entries_through, chunk.offset, chunk.state
    )
    state.pending().staged.append(piece)
    receiver.through = chunk.entries_through
    receiver.offset += len(chunk.state)
    receiver.crc = crc32(chunk.state, receiver.crc)
    receiver.writes.append((0, (receiver.through, receiver.offset)))


def install(state: GroupState, receiver: SnapshotReceiver) -> None:
    """Replace the log by the snapshot, as everything is there."""
    meta = receiver.meta
    if receiver.crc != meta.state_crc:
        # Some piece is not what was offered: begin again.
        state.drop_receiver()
        state.receiver = SnapshotReceiver(meta, here_already(state))
        state.receiver.position_due = True
        return
    write, log = state.pending(), state.log
    write.install = meta
    write.snapshot, state.compacting = None, None
    write.deletes = list(meta.live.gaps(1, meta.index + 1))
    state.receiver = None
    state.installing = 0
    if keeps_suffix(state, meta):
        log.compact(meta)
        log.commit = max(log.commit, meta.index)
        state.configs.prune(meta.index)
    else:
        write.truncate_from = meta.index + 1
        log.reset(meta)
        state.durable.reset()
        state.configs = ConfigHistory(meta.index, meta.config)
        state.truncate_due = None
    state.restore_due = True  # mutant: M23b
    state.apply_read = None
    state.matched = max(state.matched, meta.index)
    state.answer_due = True
    if state.repair is not None:
        state.repair.repairing = state.quarantine


def keeps_suffix(state: GroupState, meta: SnapshotMeta) -> bool:
    """Tell whether the log behind the snapshot is of the same history."""
    return state.log.term_at(meta.index) == meta.term  # mutant: M23a


def on_written(receiver: SnapshotReceiver, token: int) -> None:
    """Note that this turn's pieces are written under this token."""
    receiver.writes = [(at or token, what) for at, what in receiver.writes]


def on_durable(state: GroupState, receiver: SnapshotReceiver, token: int) -> None:
    """Note that pieces up to this token are on disk."""
    while receiver.writes and 0 < receiver.writes[0][0] <= token:
        receiver.stored = receiver.writes.pop(0)[1]
        receiver.progress_due = True
    state.touch()


def flush(state: GroupState, receiver: SnapshotReceiver) -> None:
    """Report progress to the leader; or forget the snapshot, if entries have overtaken it."""
    if not is_needed(state, receiver.meta):
        state.drop_receiver()
        return
    is_due = not receiver.writes if receiver.position_due else receiver.progress_due
    if not is_due or state.leader is None or not follower.is_term_durable(state):
        return
    receiver.progress_due = receiver.position_due = False
    meta = receiver.meta
    through, offset = receiver.stored
    # An answer with the round of the offer says where to go on; see `on_snapshot_progress`.
    answer = SnapshotProgress(
        state.group, state.term, state.me.incarnation, state.leader_incarnation,
        meta.index, meta.term, meta.state_crc, through, offset, receiver.leader_round,
    )  # fmt: skip
    state.node.send(state.leader, answer)
