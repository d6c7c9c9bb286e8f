"""State of the groups of a node: what they share, what each has, and what goes with its role.

`RaftNode` is shared by all groups; `GroupState` is one of them, with the steps that every role
shares.  What only one role needs is an object of its own that goes with the role: `Campaign`,
`LeaderState`, `SnapshotReceiver`, `RepairState`.  An idle follower has none of them.

What a leader knows of one follower is its `Progress`, a small machine:

PROBE ----- an answer -----> REPLICATE       one request at a time; then pipelined, in a window
  ^  \\                       /   |
  |   +---<-- rejected, lost-+    | behind the floor
  +--------------- SNAPSHOT <-----+
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from heapq import heappop, heappush
from typing import Protocol

from fluffle.raft.config import ConfigHistory, Configuration, Member, NodeId, majority_of
from fluffle.raft.log import CONFIG, Entry, GroupId, HardState, Log, Quarantine, SnapshotMeta
from fluffle.raft.log_store import Write
from fluffle.raft.messages import Message
from fluffle.raft.output import ConfigChange, Output, Readable, Restore, Role
from fluffle.raft.tuning import Tuning


class ProgressState(Enum):
    """State of the replication to a follower."""

    PROBE = "probe"
    """Where its log and the leader's meet is not known: one request, then its answer."""
    REPLICATE = "replicate"
    """Replicating: it has everything below `next`, as far as is known; requests are pipelined."""
    SNAPSHOT = "snapshot"
    """Lagging: the entries it needs are below the floor of the leader's log."""


UNHEARD = -1
"""In place of a commit index, of which 0 is one: the follower has heard nothing of this leader."""


@dataclass(slots=True, eq=False)
class SnapshotSender:
    """Transfer of one snapshot to one follower.  Invariant: what was stored is no more than what
    was sent."""

    meta: SnapshotMeta
    offer_round: int
    has_answer: bool = False
    """True if the follower has said where to begin."""
    sent_through: int = 0
    """Live entries up to here were sent."""
    sent_offset: int = 0
    """Bytes of the state that were sent."""
    stored: tuple[int, int] = (0, 0)
    """The same two as the follower has them on disk."""
    under_way: list[tuple[int, int]] = field(default_factory=list)
    """The two after each chunk that has no answer."""
    state_since_ms: int | None = None
    """When the first of the state was sent."""

    @property
    def is_sent(self) -> bool:
        return self.sent_through == self.meta.index and self.sent_offset == self.meta.state_bytes

    def resume_from(self, through: int, offset: int) -> None:
        """Go on from what the follower has; what was sent beyond it is lost."""
        self.has_answer = True
        self.stored = self.sent_through, self.sent_offset = through, offset
        self.under_way.clear()

    def arrived(self, through: int, offset: int) -> None:
        """The follower has this much, by an earlier way maybe more than was sent on this one."""
        if (through, offset) > self.stored:
            self.stored = through, offset
            self.under_way = [chunk for chunk in self.under_way if chunk > self.stored]

    @property
    def is_overtaken(self) -> bool:
        return self.stored > (self.sent_through, self.sent_offset)


@dataclass(slots=True, eq=False)
class Progress:
    """Invariant: match < next; in flight are only entries below `next` and above `match`."""

    member: Member
    next: int
    """First index not yet sent."""
    _: KW_ONLY
    is_alive: bool
    """True if its node is; nothing is sent otherwise."""
    retry_ms: int
    flow: ProgressState = ProgressState.PROBE
    match: int = 0
    """Greatest index known to be on the follower's disk, equal to the leader's log."""
    commit: int = 0
    """Commit index that the follower is known to have; or `UNHEARD`."""
    sent_commit: int = 0
    """Commit index of the last request sent; or `UNHEARD`."""
    is_waiting: bool = False
    """While PROBE: a request is under way."""
    probe_round: int = 0
    """Rejections of earlier rounds are out of date."""
    first_valid_round: int = 0
    """Whatever follows only earlier rounds is void: the follower has lost what it said."""
    confirmed_round: int = 0
    """The greatest round that it has answered."""
    in_flight_bytes: int = 0
    """Bytes of entries sent and not known to be durable."""
    _in_flight: list[tuple[int, int]] = field(default_factory=list, init=False)
    """Last index and bytes of each such request, in order."""
    retry_at_ms: int | None = None
    """When to ask again, while it owes something."""
    read_number: int | None = None
    """Number of the read of the log that is under way for it."""
    snapshot_from: int = 0
    """A snapshot of this index or later is needed, whatever else it has."""
    repaired_at: int = 0
    """Index up to which everything must be on its disk before the repair that it asked for is
    done."""
    sender: SnapshotSender | None = None
    """While SNAPSHOT, once there is one."""

    @property
    def in_flight_messages(self) -> int:
        return len(self._in_flight)

    def sent(self, last: int, size_bytes: int) -> None:
        """Note that a request with entries up to `last` was sent."""
        self._in_flight.append((last, size_bytes))
        self.in_flight_bytes += size_bytes
        self.next = last + 1

    def advance(self, durable: int) -> None:
        """Note that the follower has everything up to `durable` on disk: make room in the
        window."""
        self.match = durable
        self.next = max(self.next, durable + 1)
        arrived = 0
        for last, size_bytes in self._in_flight:
            if last > durable:
                break
            arrived += 1
            self.in_flight_bytes -= size_bytes
        del self._in_flight[:arrived]

    def probe(self, next_index: int) -> None:
        """Find out anew where the logs meet; what is in flight counts as lost."""
        self.flow = ProgressState.PROBE
        self.next = max(self.match + 1, next_index)
        self.is_waiting = False
        self.sender = None
        self.read_number = None
        self._forget_in_flight()  # mutant: M36

    def replicate(self, next_index: int) -> None:
        """Pipeline from `next_index` on, as the follower's log equals the leader's below."""
        self.flow = ProgressState.REPLICATE
        self.next = max(self.match + 1, next_index)
        self.is_waiting = False
        self.sender = None
        # What the probe carried beyond that is sent again: it must not fill the window meanwhile.
        self._in_flight = [sent for sent in self._in_flight if sent[0] < self.next]
        self.in_flight_bytes = sum(size_bytes for _, size_bytes in self._in_flight)

    def confirm_round(self, answered_round: int) -> None:
        """Note an answer of this term: the follower followed us after that round had begun."""
        self.confirmed_round = max(self.confirmed_round, answered_round)

    def need_snapshot(self) -> None:
        self.flow = ProgressState.SNAPSHOT
        self.is_waiting = False
        self.sender = None
        self.read_number = None
        self._forget_in_flight()

    def retract(self, first: int) -> None:
        """Note that the follower has lost what it had from `first` on."""
        self.match = min(self.match, first - 1)

    def _forget_in_flight(self) -> None:
        self._in_flight.clear()
        self.in_flight_bytes = 0


ALARMS_PER_MS = 2
"""An election takes each of the nodes about so long."""


class Chance(Protocol):
    """Source of random numbers: `random.Random` fits."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 up to, not including, `stop`."""


class RaftNode:
    """State shared by all groups of a node.  Owns no group."""

    def __init__(self, name: NodeId, tuning: Tuning, chance: Chance) -> None:
        self.name = name
        self.tuning = tuning
        self.chance = chance
        self.now_ms = 0
        self.has_room = True
        """True if the disk admits proposals."""
        self.alive: set[NodeId] = {name}
        """Nodes that are not suspected, this one among them.  Changed by `set_alive` only."""
        self.dirty: dict[GroupState, None] = {}
        """Groups to be flushed before the turn ends, in the order they were touched."""
        self.output = Output()
        """Output of the current turn."""
        self.token = 1
        """Token of the next `Persist`."""
        self.next_number = 1
        """Number of the next read."""
        self._alarms: list[tuple[int, GroupId]] = []
        """A heap; some are no longer meant."""
        self.next_alarm_ms: int | None = None
        """Time of the first of them."""
        self._quorums: dict[Sequence[Member], bool] = {}
        """Cached results, by voters: True if a majority of them is alive."""

    def send(self, node: NodeId, message: Message) -> None:
        """Add a message to the output; nothing is ever sent to oneself."""
        self.output.messages.setdefault(node, []).append(message)

    def set_alive(self, node: NodeId, *, is_alive: bool) -> None:
        """Note a verdict."""
        if is_alive:
            self.alive.add(node)
        else:
            self.alive.discard(node)
        self._quorums.clear()

    def has_quorum(self, voters: Sequence[Member]) -> bool:
        """True if a majority of the voters is alive."""
        known = self._quorums.get(voters)
        if known is None:
            count = sum(voter.node in self.alive for voter in voters)
            known = self._quorums[voters] = count >= majority_of(len(voters))
        return known

    def take_number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def set_alarm(self, group: GroupId, at_ms: int) -> None:
        """Have the group looked at by then."""
        heappush(self._alarms, (at_ms, group))
        self.next_alarm_ms = self._alarms[0][0]

    @property
    def backlog_ms(self) -> int:
        """Return how much longer whatever a group waits for may take, since many have something to
        do."""
        return min(len(self._alarms) // ALARMS_PER_MS, self.tuning.retry_ms_max)

    def due(self, most: int) -> list[GroupId]:
        """Return groups whose alarm has come: not too many at once, the others are for the next
        turn."""
        found: dict[GroupId, None] = {}
        alarms = self._alarms
        while alarms and alarms[0][0] <= self.now_ms and len(found) < most:
            found[heappop(alarms)[1]] = None
        self.next_alarm_ms = alarms[0][0] if alarms else None
        return list(found)


# States of roles


class Campaign:
    """Votes and pre-votes that a candidate, or a member about to be one, has received."""

    __slots__ = ("granted", "is_first_term", "is_transfer", "requests_sent")

    def __init__(self, *, is_transfer: bool) -> None:
        self.granted: set[Member] = set()
        """A set of voters: an answer that comes twice counts once."""
        self.requests_sent = False
        """True if the requests for votes have left."""
        self.is_transfer = is_transfer
        """True if the leader asked for this."""
        self.is_first_term = False
        """True if it is to lead the first term of a new group: see `start_first_term`."""


@dataclass(slots=True, eq=False)
class LeaderState:
    """State that only a leader has; it goes when the leadership does."""

    first_index: int
    """Index of the first entry of its own term.  Until that is committed nothing else counts as
    committed.  0: there is nothing of earlier terms."""
    peers: dict[NodeId, Progress] = field(default_factory=dict)
    """All members but itself: of the active configuration, and of the last committed one."""
    round: int = 1
    """Round of this turn's requests; one more each turn in which any was sent."""
    uncommitted_bytes: int = 0
    """Bytes of uncommitted entries in memory, as `size_of` counts."""
    commit_due: bool = False
    """A majority may have more on disk than is committed."""
    send_commit_at_ms: int | None = None
    """Time at which followers get the commit index, if no append has carried it."""
    quorum_lost_at_ms: int | None = None
    is_led_reported: bool = False
    reads: PendingReads | None = None
    transfer: Transfer | None = None
    """While there is one, proposals are refused."""

    @property
    def needs_answers(self) -> bool:
        """True if each answer of a follower may be one that something waits for."""
        return self.reads is not None or self.transfer is not None

    def peer_of(self, node: NodeId, incarnation: int) -> Progress | None:
        """Return the follower that speaks; None if it is no member, or an earlier incarnation of
        one."""
        peer = self.peers.get(node)
        # mutant: M35
        return peer if peer is not None and peer.member.incarnation == incarnation else None

    def waiting_contexts(self) -> Iterator[int]:
        """Return the contexts of reads that have no answer."""
        return iter(()) if self.reads is None else self.reads.contexts()


class Transfer:
    """Leadership transfer that is under way."""

    __slots__ = ("ends_at_ms", "is_resignation", "target", "timeout_now_sent", "tries")

    def __init__(self, target: NodeId | None, ends_at_ms: int) -> None:
        self.target = target
        """Successor; None while a leader that resigns has found none."""
        self.ends_at_ms = ends_at_ms
        self.is_resignation = False
        self.tries = 0
        self.timeout_now_sent = False
        """True if the target was asked to stand."""


class PendingReads:
    """Reads that have no answer yet, oldest first.  There is no object while there are none."""

    __slots__ = ("confirmed", "fresh", "unconfirmed")

    def __init__(self) -> None:
        self.fresh: list[int] = []
        """Contexts for which no round has begun."""
        self.unconfirmed: list[tuple[int, int, int]] = []
        """Round that must be confirmed, index, context."""
        self.confirmed: list[tuple[int, int]] = []
        """Index that must be applied, context."""

    def contexts(self) -> Iterator[int]:
        yield from (context for _, context in self.confirmed)
        yield from (context for *_, context in self.unconfirmed)
        yield from self.fresh


class SnapshotReceiver:
    """Parts of one snapshot that have arrived from the leader."""

    __slots__ = (
        "crc",
        "leader_round",
        "meta",
        "offset",
        "position_due",
        "progress_due",
        "stored",
        "through",
        "writes",
    )  # fmt: skip

    def __init__(self, meta: SnapshotMeta, through: int) -> None:
        self.meta = meta
        self.through = through
        """All live entries up to here are staged, or are in the log."""
        self.offset = 0
        """Bytes of the state that are staged."""
        self.crc = 0
        """zlib.crc32 of those."""
        self.stored = (through, 0)
        """The two as they are on disk."""
        self.writes: list[tuple[int, tuple[int, int]]] = []
        """Token, and the two with it, of each write under way; token 0: of this turn."""
        self.leader_round = 0
        self.progress_due = False
        """The leader is to hear how far we are."""
        self.position_due = False
        """True if the leader waits for a position: sent once nothing is under way to the disk."""

    @property
    def is_complete(self) -> bool:
        return self.through >= self.meta.index and self.offset == self.meta.state_bytes


class RepairState:
    """Progress of the repair of a quarantined member."""

    __slots__ = ("ask_at_ms", "cut_at", "repairing", "requested_last", "requested_round")

    def __init__(self) -> None:
        self.cut_at = 0
        """The quarantine's first index, once everything from there on is to be received anew."""
        self.ask_at_ms: int | None = None
        """When to ask the leader again."""
        self.requested_round = 0
        """The greatest of its requests seen, when it was asked last."""
        self.requested_last = 0
        """The last index of the log then."""
        self.repairing: Quarantine | None = None
        """Damage that the snapshot under way to the disk repairs."""


# One group


class DurableState:
    """Durable log index, term and vote of one group.

    Writes of a group finish in the order they were submitted, but between the two the log may be
    truncated and written anew.  So each write under way carries the last index that it can still
    vouch for, and truncation lowers that of all of them:

        append 5..9       write 1 vouches for 9
        truncate from 6   write 1 vouches for 5
        append 6..7       write 2 vouches for 7
        write 1 is done   durable index 5, not 9: what was at 6..9 is not the log any more
        write 2 is done   durable index 7
    """

    __slots__ = ("_pending_writes", "hard_state", "index")

    def __init__(self, index: int, hard_state: HardState) -> None:
        self.index = index
        """Index up to which the log is on disk.  Invariant: at most what was submitted."""
        self.hard_state = hard_state
        """Term and vote as they are on disk."""
        self._pending_writes: list[tuple[int, int, HardState]] = []
        """Token, last index vouched for, hard state with it; in order of submission."""

    def submit(self, token: int, last: int, hard_state: HardState) -> None:
        """Note that a write was submitted; with it the log is on disk up to `last`."""
        self._pending_writes.append((token, last, hard_state))

    def truncate(self, first: int) -> None:
        """Note that the log was truncated at `first`: what was or will be on disk there is not
        it."""
        self.index = min(self.index, first - 1)  # mutant: M49
        self._pending_writes = [  # mutant: M11
            (token, min(last, first - 1), hard_state)
            for token, last, hard_state in self._pending_writes
        ]

    def reset(self) -> None:
        """Note that a snapshot replaces the whole log; no earlier write says anything of it."""
        self.truncate(1)

    def finish(self, token: int) -> None:
        """Note that the oldest write under way is on disk: that with this token."""
        oldest, last, self.hard_state = self._pending_writes.pop(0)
        assert oldest == token, f"write {token} finished before {oldest}"
        self.index = max(self.index, last)


class GroupState:
    """State of one group.  Roles change only by `become_follower` and their own modules."""

    __slots__ = (
        "acknowledged",
        "alarm_ms",
        "answer_due",
        "apply_bytes_max",
        "apply_read",
        "campaign",
        "commit_delay_ms",
        "compacting",
        "configs",
        "deadline_ms",
        "durable",
        "grant_due",
        "group",
        "hard_state",
        "installing",
        "leader",
        "leader_incarnation",
        "leading",
        "log",
        "matched",
        "me",
        "node",
        "quarantine",
        "receiver",
        "repair",
        "reported_config",
        "reported_role",
        "restore_due",
        "role",
        "round",
        "submitted_hard_state",
        "term",
        "tries",
        "truncate_due",
        "write",
    )  # fmt: skip

    def __init__(
        self, node: RaftNode, group: GroupId, me: Member, log: Log, hard: HardState
    ) -> None:
        self.node = node
        self.group = group
        self.me = me
        self.log = log
        self.durable = DurableState(log.last_index, hard)
        self.hard_state = hard
        """Term and vote.  What is not on disk is under way, or written at the end of this turn."""
        self.submitted_hard_state = hard
        """Hard state last given to the disk."""
        self.role, self.term = Role.FOLLOWER, hard.term
        self.leader: NodeId | None = None
        """Leader of this term, if known."""
        self.leader_incarnation = 0
        self.configs = ConfigHistory(log.floor, log.snapshot.config)
        self.reported_config = -1
        """Index of the last committed one that was reported."""
        self.reported_role: tuple[Role, int, NodeId | None] | None = None
        self.deadline_ms: int | None = None
        """When this group wants to be looked at; None while there is nothing to do."""
        self.alarm_ms: int | None = None
        """The earliest that is set for it: not later than the deadline, often much earlier."""
        self.tries = 0
        """Campaigns since a leader was known."""
        self.commit_delay_ms = node.tuning.commit_delay_ms
        """See `Tuning`; a group whose followers answer from their image sets it to 0."""
        self.apply_bytes_max = node.tuning.apply_bytes_max
        """See `Tuning`; `apply_bytes_min` for a group whose image takes long."""
        self.matched = 0
        """Greatest index shown to equal the log of the leader of this term."""
        self.acknowledged = 0
        """Index last acknowledged to that leader."""
        self.round = 0
        """Greatest of that leader's requests seen."""
        self.answer_due = False
        """The leader waits for an answer, even if nothing became durable."""
        self.grant_due = False
        """A vote was given and waits for the disk, to be sent."""
        self.quarantine: Quarantine | None = None
        self.repair: RepairState | None = None
        """How far that is mended; None unless in quarantine."""

        self.restore_due = True
        """The image must begin with the snapshot, once that is on disk."""
        self.installing: int | None = None
        """Token of the write by which the snapshot is; 0: of this turn's."""
        self.apply_read: int | None = None
        """Number of the read of entries to be applied that is under way."""
        self.compacting: tuple[int, SnapshotMeta] | None = None
        """Token and meta of a snapshot of our own that is not durable yet; 0: not yet written."""
        self.write: Write | None = None
        """Write of this turn's flush, without entries and hard state."""
        self.truncate_due: int | None = None
        """The disk has entries from here on that are to go once others take their place."""
        self.campaign: Campaign | None = None
        self.leading: LeaderState | None = None
        self.receiver: SnapshotReceiver | None = None

    @property
    def voters(self) -> tuple[Member, ...]:
        """Voters of the active configuration."""
        return self.configs.active.voters  # mutant: M21a

    @property
    def is_config_committed(self) -> bool:
        return self.configs.last_index <= self.log.commit  # mutant: M18

    @property
    def is_term_durable(self) -> bool:
        """True if an answer may leave: a member that forgot the term could follow an older
        leader."""
        return self.durable.hard_state.term == self.hard_state.term  # mutant: M43

    @property
    def needs_snapshot(self) -> bool:
        """True if something is damaged that only a snapshot can repair."""
        return self.quarantine is not None and self.quarantine.needs_snapshot

    @property
    def acknowledged_index(self) -> int:
        """Index to report to the leader: durable *and* shown to equal its log; and not damaged."""
        return min(self.sound_index, self.matched)  # mutant: M1 M12

    @property
    def sound_index(self) -> int:
        """Index up to which everything is on disk, and none of it damaged."""
        quarantine, repair = self.quarantine, self.repair
        if quarantine is None or repair is None:
            return self.durable.index
        if repair.cut_at == quarantine.first and not quarantine.needs_snapshot:
            return self.durable.index
        return min(self.durable.index, quarantine.first - 1)

    # Writing

    def touch(self) -> None:
        """Have this group flushed before the turn ends."""
        self.node.dirty[self] = None

    def pending(self) -> Write:
        """Return what will be written when the turn ends, to be added to."""
        if self.write is None:
            self.write = Write(self.group)
            self.touch()
        return self.write

    def set_hard_state(self, term: int, vote: Member | None) -> None:
        """Set term and vote; the flush of this turn writes them."""
        self.hard_state = HardState(term, vote)
        self.term = term
        self.touch()

    def set_deadline(self, at_ms: int | None) -> None:
        """Set the time at which this group runs, instead of any other."""
        self.deadline_ms = at_ms
        if at_ms is not None and (self.alarm_ms is None or at_ms < self.alarm_ms):
            self.alarm_ms = at_ms
            self.node.set_alarm(self.group, at_ms)

    # The log

    def append(self, entries: list[Entry]) -> None:
        """Append entries; a configuration is active at once.  Thesis §4.1."""
        self.log.append(entries)
        for entry in entries:
            if entry.kind == CONFIG:
                self.configs.append(entry.index, Configuration.decode(entry.payload))
        self.touch()

    def truncate(self, first: int) -> None:
        """Truncate from `first` on, where another leader has other entries."""
        is_on_disk = first <= self.log.submitted
        self.log.truncate(first)
        self.durable.truncate(first)
        self.configs.roll_back(first)
        if is_on_disk:
            write = self.pending()
            write.truncate_from = min(first, write.truncate_from or first)
            self.truncate_due = None

    def commit_to(self, index: int) -> None:
        """Commit everything up to `index`, which is in this log."""
        log = self.log
        if index <= log.commit:
            return
        assert index <= log.last_index, f"commit {index} behind {log.last_index}"
        log.commit = index
        self.touch()
        if self.configs.last_index > self.reported_config:
            self._report_configs()

    def _report_configs(self) -> None:
        """Report configurations that were committed."""
        for index, config in self.configs.between(self.reported_config, self.log.commit):
            self.reported_config = index
            self.node.output.configs.append(ConfigChange(self.group, index, config))

    # Roles

    def become_follower(self, term: int, leader: NodeId | None) -> None:
        """Follow `leader` in this term or a later one.  Whatever the role was, it ends."""
        if term > self.term:  # mutant: M5b
            self.set_hard_state(term, None)  # mutant: M5a
            self.grant_due = False
        if self.leading is not None:
            for context in self.leading.waiting_contexts():
                self.node.output.readable.append(Readable(self.group, context, None))
        self.role = Role.FOLLOWER
        self.leading = self.campaign = None
        self.follow(leader)

    def accept_leader(self, node: NodeId, incarnation: int) -> None:
        """Follow the leader of this term, whatever we were, as a message of it came.  Raft §5.2."""
        assert self.role is not Role.LEADER, f"two leaders of term {self.term}"
        if self.role is not Role.FOLLOWER:
            self.become_follower(self.term, node)
        elif self.leader != node:
            self.follow(node)
        self.leader_incarnation = incarnation

    def follow(self, leader: NodeId | None) -> None:
        """Follow a leader anew: what was shown to equal one leader's log says nothing of
        another's."""
        self.leader = leader
        self.matched = self.acknowledged = self.round = 0
        self.answer_due = False
        if leader is not None:
            self.tries = 0
        self.touch()

    def drop_receiver(self) -> None:
        """Discard what is staged of a snapshot, which is of no use any more."""
        if self.receiver is not None:
            self.receiver = None
            self.pending().discard_staged = True
            self.pending().staged.clear()

    def restore_if_due(self) -> None:
        """Have the image begin with the snapshot, once that is on disk."""
        if self.restore_due and self.installing is None:
            self.restore_due = False
            self.log.rewind()
            self.node.output.restores.append(Restore(self.group, self.log.snapshot))
            self._report_configs()
