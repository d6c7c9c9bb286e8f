"""Sender of a snapshot to a follower.

    offer --> progress: from where --> live entries, in rising order --> the state --> installed

Chunks are read from the disk one at a time and are under way in a small window.  The follower's
answers are cumulative, so after a loss the leader goes on where the follower is.  If a newer
snapshot is made meanwhile it is offered instead: entries that have arrived stay of use.
"""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.raft import corruption, peers
from fluffle.raft.config import NodeId
from fluffle.raft.messages import SnapshotChunk, SnapshotOffer, SnapshotProgress
from fluffle.raft.output import ReadEntries, ReadState
from fluffle.raft.progress import Progress, ProgressState, SnapshotSender
from fluffle.raft.records import Entry, SnapshotMeta
from fluffle.raft.role_state import LeaderState
from fluffle.raft.state import GroupState


def send_next(state: GroupState, leading: LeaderState, peer: Progress) -> bool:
    """Offer the snapshot, or read its next chunk; return whether anything was sent."""
    sender = peer.sender
    meta = state.log.snapshot
    if meta.index < peer.snapshot_from or meta.index == 0:
        want_snapshot(state, peer)
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
        read(state, peer, sender)
    return False


def want_snapshot(state: GroupState, peer: Progress) -> None:
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


def read(state: GroupState, peer: Progress, sender: SnapshotSender) -> None:
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
    peer = peers.peer_of(state, node, answer.sender)
    if peer is None:
        return
    peers.confirm_round(peer, answer.round)
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


def is_of(answer: SnapshotProgress | SnapshotChunk, meta: SnapshotMeta) -> bool:
    """Tell whether a message is about this snapshot."""
    return (answer.index, answer.index_term, answer.state_crc) == (
        meta.index, meta.term, meta.state_crc,
    )  # fmt: skip


def is_holding(state: GroupState) -> bool:
    """Tell whether a newer snapshot should wait, because the state of this one is being sent."""
    if state.leading is None:
        return False
    since = [
        peer.sender.state_since_ms
        for peer in state.leading.peers.values()
        if peer.sender is not None and peer.is_alive
    ]
    hold_ms = state.node.tuning.snapshot_hold_ms
    return any(at_ms is not None and state.node.now_ms < at_ms + hold_ms for at_ms in since)
