"""Snapshots on their way from a leader to a follower that is behind the floor of its log.

    offer --> progress: from where --> live entries, in rising order --> the state --> installed

A transfer begins when the leader finds that a follower is behind (`replication.is_behind_floor`),
or when one whose log is damaged asks for what it lost (`corruption.request_repair`).

The leader reads chunks from the disk one at a time; they are under way in a small window.  Answers
are cumulative, so after a loss it goes on where the follower is.  If a newer snapshot is made
meanwhile it is offered instead: entries that have arrived stay of use.

The follower stages pieces on disk beside the log, in order, and acknowledges what is staged.  Once
all is there the snapshot takes the log's place in one write, and only then the image begins with
it.  The log stays whole until then, so a transfer that fails has cost nothing; it goes on where it
was after a lost link, another leader or a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from fluffle.raft import corruption
from fluffle.raft.config import ConfigHistory, Configuration, NodeId
from fluffle.raft.log import Entry, SnapshotMeta
from fluffle.raft.log_store import Staged, StagedSnapshot
from fluffle.raft.messages import SnapshotChunk, SnapshotOffer, SnapshotProgress
from fluffle.raft.output import ReadEntries, ReadState
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import (
    GroupState,
    LeaderState,
    Progress,
    ProgressState,
    SnapshotReceiver,
    SnapshotSender,
)


def is_of(answer: SnapshotProgress | SnapshotChunk, meta: SnapshotMeta) -> bool:
    """True if a message is about this snapshot."""
    return (answer.index, answer.index_term, answer.state_crc) == (
        meta.index, meta.term, meta.state_crc,
    )  # fmt: skip


# Sending


def send_next(state: GroupState, leading: LeaderState, peer: Progress) -> bool:
    """Offer the snapshot, or read its next chunk; return whether anything was sent."""
    sender = peer.sender
    meta = state.log.snapshot
    if meta.index < peer.snapshot_from or meta.index == 0:
        ask_host_for_snapshot(state, peer)
        return False
    if sender is None or sender.meta.identity != meta.identity:
        offer(state, leading, peer)
        return True
    if state.compacting is not None:
        return False  # it goes as soon as the newer one is on disk, and its entries may go already
    if state.quarantine is not None:
        return False  # what it would read is damaged, perhaps; it is about to lead no more
    is_open = len(sender.under_way) < state.node.tuning.snapshot_window
    if sender.has_answer and not sender.is_sent and is_open and peer.read_number is None:
        read_chunk(state, peer, sender)
    return False


def ask_host_for_snapshot(state: GroupState, peer: Progress) -> None:
    """Ask the host for a snapshot, as there is none that would serve.  Asked again with each
    retry."""
    if peer.retry_at_ms is None:
        peer.retry_at_ms = state.node.now_ms + peer.retry_ms
        if state.compacting is None:
            state.node.output.snapshots_wanted.append(state.group)


def offer(state: GroupState, leading: LeaderState, peer: Progress) -> None:
    """Offer the snapshot that there is; its answer says from where to send."""
    meta = state.log.snapshot
    peer.sender = SnapshotSender(meta, leading.round)
    peer.read_number = None
    message = SnapshotOffer(
        state.group, state.term, state.me.incarnation, peer.member.incarnation,
        meta.index, meta.term, meta.config.encode(), meta.live.to_bytes(),  # mutant: M25
        meta.state_bytes, meta.state_crc, leading.round,
    )  # fmt: skip
    state.node.send(peer.member.node, message)
    peer.retry_at_ms = state.node.now_ms + peer.retry_ms


def read_chunk(state: GroupState, peer: Progress, sender: SnapshotSender) -> None:
    """Have the next chunk read."""
    meta, output = sender.meta, state.node.output
    size = state.node.tuning.snapshot_chunk_bytes
    peer.read_number = state.node.take_number()
    live = meta.live.next_from(sender.sent_through + 1)
    if live is not None:
        first, stop = live[0], meta.index + 1
        output.reads.append(ReadEntries(state.group, first, stop, size, peer.read_number))
    else:
        # No live entry is left; the last chunk of them is the first of the state.
        sender.sent_through = meta.index
        sender.state_since_ms = sender.state_since_ms or state.node.now_ms
        offset = sender.sent_offset
        size = min(size, meta.state_bytes - offset)
        output.reads.append(ReadState(state.group, offset, size, peer.read_number))


def on_entries_read(state: GroupState, peer: Progress, entries: Sequence[Entry]) -> None:
    """Send live entries of the snapshot that were read, perhaps with dead ones between them."""
    sender = peer.sender
    peer.read_number = None
    state.touch()
    if sender is None or sender.meta is not state.log.snapshot or state.compacting is not None:
        return
    live = [entry for entry in entries if entry.index in sender.meta.live]
    wanted = sender.meta.live.next_from(sender.sent_through + 1)
    assert wanted is not None
    missing = first_missing(sender.meta, wanted[0], live)
    if missing is not None:
        corruption.on_damage(state, missing)
        return
    through = live[-1].index
    if sender.meta.live.next_from(through + 1) is None:
        through = sender.meta.index
    send_chunk(state, peer, sender, through, (live, b""))


def first_missing(meta: SnapshotMeta, first: int, live: Sequence[Entry]) -> int | None:
    """Return the lowest live index from `first` on, up to the last one read, that was not read.

    None if all are there.  With nothing read at all it is `first`: a short answer is no end.
    """
    if not live:
        return first
    expected = meta.live.within(first, live[-1].index + 1)
    if len(expected) == len(live):
        return None
    have = {entry.index for entry in live}
    return next(index for low, stop in expected for index in range(low, stop) if index not in have)


def on_state_read(state: GroupState, peer: Progress, data: bytes) -> None:
    """Send a piece of the state."""
    sender = peer.sender
    peer.read_number = None
    state.touch()
    if sender is not None and sender.meta is state.log.snapshot and state.compacting is None:
        send_chunk(state, peer, sender, sender.meta.index, ([], data))


def send_chunk(
    state: GroupState,
    peer: Progress,
    sender: SnapshotSender,
    through: int,
    what: tuple[list[Entry], bytes],
) -> None:
    entries, data = what
    meta, leading = sender.meta, state.leading
    assert leading is not None
    before = sender.under_way[-1][0] if sender.under_way else sender.stored[0]
    message = SnapshotChunk(
        state.group, state.term, state.me.incarnation, peer.member.incarnation,
        meta.index, meta.term, meta.state_crc, before + 1, through, entries,
        sender.sent_offset, data, leading.round,
    )  # fmt: skip
    state.node.send(peer.member.node, message)
    sender.sent_through = through
    sender.sent_offset += len(data)
    sender.under_way.append((through, sender.sent_offset))
    if peer.retry_at_ms is None:
        peer.retry_at_ms = state.node.now_ms + peer.retry_ms


def ask_again(state: GroupState, leading: LeaderState, peer: Progress) -> None:
    """Offer again: the answer says how far it is."""
    if peer.sender is not None:
        since_ms = peer.sender.state_since_ms
        offer(state, leading, peer)
        peer.sender.state_since_ms = since_ms
    state.touch()


def on_snapshot_progress(state: GroupState, node: NodeId, answer: SnapshotProgress) -> None:
    """Note what the follower has stored."""
    assert state.leading is not None
    peer = state.leading.peer_of(node, answer.sender)
    if peer is None:
        return
    peer.confirm_round(answer.round)
    state.touch()
    sender = peer.sender
    if peer.flow is not ProgressState.SNAPSHOT or sender is None or not is_of(answer, sender.meta):
        return
    if not sender.has_answer:
        if answer.round >= sender.offer_round:
            sender.resume_from(answer.entries_through, answer.offset)
    else:
        sender.arrived(answer.entries_through, answer.offset)
        if sender.is_overtaken:
            sender.resume_from(*sender.stored)
            peer.read_number = None  # what is being read is there already
    peer.retry_ms = state.node.tuning.retry_ms
    peer.retry_at_ms = state.node.now_ms + peer.retry_ms


def is_holding(state: GroupState) -> bool:
    """True if a newer snapshot should wait, because the state of this one is being sent."""
    if state.leading is None:
        return False
    since = [
        peer.sender.state_since_ms
        for peer in state.leading.peers.values()
        if peer.sender is not None and peer.is_alive
    ]
    hold_ms = state.node.tuning.snapshot_hold_ms
    return any(at_ms is not None and state.node.now_ms < at_ms + hold_ms for at_ms in since)


# Receiving


def resume(staged: StagedSnapshot) -> SnapshotReceiver:
    """Go on with a snapshot that was on its way when the process ended."""
    receiver = SnapshotReceiver(staged.meta, staged.entries_through)
    receiver.offset, receiver.crc = staged.state_bytes, staged.state_crc
    receiver.stored = staged.entries_through, staged.state_bytes
    return receiver


def on_snapshot_offer(state: GroupState, node: NodeId, offer: SnapshotOffer) -> None:
    """Begin to receive a snapshot: the leader cannot send what we need as entries."""
    state.accept_leader(node, offer.sender)
    state.round = max(state.round, offer.round)
    meta = SnapshotMeta(
        offer.index, offer.index_term, Configuration.decode(offer.config),
        Ranges.from_bytes(offer.live), offer.state_bytes, offer.state_crc,
    )  # fmt: skip
    state.touch()
    if state.installing is not None:
        return  # the answer will be that it is there
    if state.compacting is not None and state.needs_snapshot:
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
    """True if a snapshot is needed: not if the log has its last entry, unless what is below
    is damaged."""
    if state.needs_snapshot:
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
    if state.needs_snapshot:
        assert state.quarantine is not None
        return min(state.log.commit, state.quarantine.first - 1)
    return state.log.commit


def on_snapshot_chunk(state: GroupState, node: NodeId, chunk: SnapshotChunk) -> None:
    """Stage the next piece; answer any other with where we are."""
    state.accept_leader(node, chunk.sender)
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
    """True if the log behind the snapshot is of the same history."""
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


def report_progress(state: GroupState, receiver: SnapshotReceiver) -> None:
    """Report progress to the leader; or forget the snapshot, if entries have overtaken it."""
    if not is_needed(state, receiver.meta):
        state.drop_receiver()
        return
    is_due = not receiver.writes if receiver.position_due else receiver.progress_due
    if not is_due or state.leader is None or not state.is_term_durable:
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
