"""Leadership transfer: on request, or because this leader must not lead any more.

The leader takes no proposals meanwhile, waits until the other has everything, and asks it to stand
at once (thesis §3.10).  On request that is given up after an election timeout.  A leader that was
removed from the group, or whose disk is damaged, *resigns*: it goes on trying, one after the other,
until a member has stood, because the followers would not do it by themselves while it is alive.
"""

from __future__ import annotations

from fluffle.raft.config import NodeId
from fluffle.raft.messages import TimeoutNow
from fluffle.raft.state import GroupState, LeaderState, Progress, ProgressState, Transfer


def begin(state: GroupState, leading: LeaderState, target: NodeId) -> None:
    """Begin a transfer to a voter that is alive; the caller has checked that it is one."""
    ends_at_ms = state.node.now_ms + state.node.tuning.election_timeout_ms
    leading.transfer = Transfer(target, ends_at_ms)
    state.touch()


def resign(state: GroupState, leading: LeaderState) -> None:
    """Stop proposing as this leader for good, and see to it that another takes over."""
    if leading.transfer is not None and leading.transfer.is_resignation:
        return
    leading.transfer = Transfer(None, state.node.now_ms + state.node.tuning.election_timeout_ms)
    leading.transfer.is_resignation = True
    leading.transfer.target = next_target(state, leading, 0)
    state.touch()


def targets_by_log(state: GroupState, leading: LeaderState) -> list[Progress]:
    """Return voters that are alive, those with the longest log first."""
    peers = [leading.peers.get(voter.node) for voter in state.voters]
    found = [peer for peer in peers if peer is not None and peer.is_alive]
    return sorted(found, key=lambda peer: -peer.match)


def transfer_targets(state: GroupState, leading: LeaderState) -> list[NodeId]:
    """Return the voters that have everything, or are being sent the little that they lack.

    Who is asked and cannot follow only keeps the group from working, until that is given up.
    """
    return [
        peer.member.node
        for peer in targets_by_log(state, leading)
        if is_nearly_caught_up(state, peer)
    ]


def is_nearly_caught_up(state: GroupState, peer: Progress) -> bool:
    lag_max = state.node.tuning.promotion_lag_entries if peer.flow is ProgressState.REPLICATE else 0
    return peer.match + lag_max >= state.log.last_index


def next_target(state: GroupState, leading: LeaderState, tries: int) -> NodeId | None:
    """Return the voter to ask; another one each time."""
    found = targets_by_log(state, leading)
    return found[tries % len(found)].member.node if found else None


def flush(state: GroupState, leading: LeaderState) -> None:
    """Ask the target to stand once it has everything."""
    transfer = leading.transfer
    assert transfer is not None
    if transfer.timeout_now_sent or transfer.target is None:
        return
    peer = leading.peers.get(transfer.target)
    if peer is not None and peer.is_alive and is_caught_up(state, peer):
        send_timeout_now(state, transfer, peer)


def is_caught_up(state: GroupState, peer: Progress) -> bool:
    """True if a voter would win: its log ends as ours does, on its disk."""
    return peer.match == state.log.last_index


def send_timeout_now(state: GroupState, transfer: Transfer, peer: Progress) -> None:
    transfer.timeout_now_sent = True
    member = peer.member
    message = TimeoutNow(state.group, state.term, state.me.incarnation, member.incarnation)
    state.node.send(member.node, message)


def on_timeout(state: GroupState, leading: LeaderState) -> None:
    """Give up: lead on; or, resigning, ask the next voter to stand, whatever it has.

    One that lacks entries cannot win, but its new term ends ours, and then the best will.
    """
    transfer = leading.transfer
    assert transfer is not None
    if not transfer.is_resignation:
        leading.transfer = None
        return
    transfer.ends_at_ms = state.node.now_ms + state.node.tuning.election_timeout_ms
    transfer.target = next_target(state, leading, transfer.tries)
    transfer.tries += 1
    if transfer.target is not None:
        send_timeout_now(state, transfer, leading.peers[transfer.target])
