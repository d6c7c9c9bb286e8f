"""Leading a group: proposals in, commits out.

A leader appends, sends, and counts who has what on disk, itself included.  It never changes or
removes an entry of its own log (Raft §5.3).
"""

from __future__ import annotations

from collections.abc import Iterator

from fluffle.raft import quorum, reading, replicating, transferring
from fluffle.raft.config import Member, NodeId
from fluffle.raft.log import Log
from fluffle.raft.messages import NotLeading
from fluffle.raft.output import Led, Role
from fluffle.raft.progress import Progress
from fluffle.raft.reading import Reads
from fluffle.raft.records import NOOP, Entry, size_of
from fluffle.raft.state import State
from fluffle.raft.transferring import Transfer

UNLIMITED = 1 << 62


class Leading:
    """What only a leader knows; it goes when the leadership does."""

    __slots__ = (
        "commit_due", "first_index", "is_led_told", "peers", "quorum_lost_at_ms", "reads", "round",
        "tell_commit_at_ms", "transfer", "uncommitted_bytes",
    )  # fmt: skip

    def __init__(self, first_index: int) -> None:
        self.peers: dict[NodeId, Progress] = {}
        """All members but itself: of the active configuration, and of the last committed one."""
        self.first_index = first_index
        """Of the first entry of its own term.  Until that is committed nothing else counts as."""
        self.round = 1
        """Of the requests of this turn; one more each turn in which any was sent."""
        self.uncommitted_bytes = 0
        """Of entries behind the commit index that are in memory, as `size_of` counts."""
        self.commit_due = False
        """Somebody has more on disk than when the commit index was last looked at."""
        self.tell_commit_at_ms: int | None = None
        """When followers are to hear of the commit index, if no append has told them."""
        self.quorum_lost_at_ms: int | None = None
        self.is_led_told = False
        self.reads: Reads | None = None
        self.transfer: Transfer | None = None
        """While there is one, proposals are refused."""

    def waiting_contexts(self) -> Iterator[int]:
        """Reads that have no answer."""
        return iter(()) if self.reads is None else self.reads.contexts()


def begin(state: State) -> None:
    """A majority has voted for us.  The first entry commits all those before it.  Raft §5.4.2."""
    log = state.log
    state.role = Role.LEADER
    state.campaign = None
    state.drop_receiver()
    state.leader = state.node.name
    state.tries = 0
    leading = state.leading = Leading(log.last_index + 1)
    leading.uncommitted_bytes = bytes_between(log, log.commit, log.last_index)
    sync_peers(state, leading)
    check_quorum(state, leading)  # some who voted may be lost by now
    append(state, leading, NOOP, b"")


def append(state: State, leading: Leading, kind: int, payload: bytes) -> Entry:
    """Add an entry of its own."""
    entry = Entry(state.log.last_index + 1, state.term, kind, payload)
    leading.uncommitted_bytes += size_of(entry)
    state.append([entry])
    return entry


def sync_peers(state: State, leading: Leading) -> None:
    """Feed the members of the active configuration, and who is to hear that it has left."""
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


# Committing


def advance_commit(state: State, leading: Leading) -> None:
    """Commit what a majority of the active voters has on disk, if `is_committable`."""
    leading.commit_due = False
    voters = state.voters
    index = quorum.committed_index([durable_of(state, leading, voter) for voter in voters])
    before = state.log.commit
    if index > before and is_committable(state, index):
        leading.uncommitted_bytes -= bytes_between(state.log, before, index)
        state.commit_to(index)
        if before < state.configs.last_index <= index:
            on_config_committed(state, leading)


def bytes_between(log: Log, after: int, through: int) -> int:
    """Of entries in memory behind one index, up to another, as `size_of` counts."""
    first = max(after + 1, log.tail_first)
    return sum(map(size_of, log.slice(first, through + 1, UNLIMITED)))


def durable_of(state: State, leading: Leading, voter: Member) -> int:
    """What a voter has on disk.  The leader's own vote is its disk too: thesis §10.2.1."""
    if voter == state.me:
        return state.durable.index if state.quarantine is None else 0
    return leading.peers[voter.node].match


def is_committable(state: State, index: int) -> bool:
    """Only entries of its own term are committed by counting.  Raft §5.4.2, Figure 8."""
    return state.log.term_at(index) == state.term


def on_config_committed(state: State, leading: Leading) -> None:
    """Who has left is no longer fed; a leader that has left hands over.  Thesis §4.2.2."""
    sync_peers(state, leading)
    if state.me not in state.voters:
        transferring.resign(state, leading)


# The turn


def flush(state: State) -> None:
    """Commit, feed, answer: once a turn, after everything that came in."""
    leading = state.leading
    assert leading is not None
    if leading.commit_due:
        advance_commit(state, leading)
    if leading.reads is not None:
        reading.flush(state, leading)
    if leading.transfer is not None:
        transferring.flush(state, leading)
    replicating.flush(state, leading)
    if not leading.is_led_told and state.log.applied >= leading.first_index:
        leading.is_led_told = True
        state.node.output.led.append(Led(state.group, state.term))
    state.set_deadline(next_deadline(state, leading))


def waits_for_applied(state: State, leading: Leading) -> bool:
    """Whether somebody is to be told that entries are applied: that it leads, or a reader."""
    is_led_due = not leading.is_led_told and state.log.applied >= leading.first_index
    return is_led_due or leading.reads is not None


def next_deadline(state: State, leading: Leading) -> int | None:
    """The first time at which something is to be done, if nothing comes in: None when all is."""
    times = [peer.retry_at_ms for peer in leading.peers.values() if peer.is_alive]
    times += [leading.tell_commit_at_ms]
    if leading.transfer is not None:
        times.append(leading.transfer.ends_at_ms)
    if leading.quorum_lost_at_ms is not None:
        times.append(leading.quorum_lost_at_ms + state.node.tuning.election_timeout_ms)
    return min((at_ms for at_ms in times if at_ms is not None), default=None)


def on_deadline(state: State) -> None:
    """Some of what `next_deadline` looked at has come."""
    leading, now_ms = state.leading, state.node.now_ms
    assert leading is not None
    lost_at_ms, timeout_ms = leading.quorum_lost_at_ms, state.node.tuning.election_timeout_ms
    if lost_at_ms is not None and lost_at_ms + timeout_ms <= now_ms:
        # Check-quorum, thesis §6.2: whoever leads nobody should not keep others from leading.
        state.become_follower(state.term, None)
        return
    if leading.transfer is not None and leading.transfer.ends_at_ms <= now_ms:
        transferring.on_timeout(state, leading)
    replicating.on_deadline(state, leading)
    state.touch()


def on_verdict(state: State, node: NodeId, *, is_alive: bool, is_new_life: bool) -> None:
    """A node is believed to be alive, or not; in a new life it does not know its leader."""
    leading = state.leading
    assert leading is not None
    if (peer := leading.peers.get(node)) is not None:
        peer.is_alive = is_alive
        if is_new_life:
            peer.commit = peer.told_commit = 0
        peer.probe(peer.match + 1)
        peer.retry_at_ms = None
        state.touch()
    check_quorum(state, leading)


def check_quorum(state: State, leading: Leading) -> None:
    """Note when the majority was lost, or that it is back."""
    if state.node.has_quorum(state.voters):
        leading.quorum_lost_at_ms = None
    elif leading.quorum_lost_at_ms is None:
        leading.quorum_lost_at_ms = state.node.now_ms
        state.touch()


def farewell(state: State) -> None:
    """A leader that is deleted tells those that would wait for it, as far as it reaches them."""
    for peer in state.leading.peers.values() if state.leading is not None else ():
        if peer.is_alive:
            member = peer.member
            message = NotLeading(
                state.group, state.term, state.me.incarnation, member.incarnation
            )  # fmt: skip
            state.node.send(member.node, message)


def remind(state: State, node: NodeId) -> None:
    """Somebody does not know that we lead: tell it."""
    leading = state.leading
    if leading is not None and (peer := leading.peers.get(node)) is not None:
        replicating.ask_again(state, leading, peer)
