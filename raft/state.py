"""State of one group on one node, and the steps that every role shares.

What only one role needs is an object of its own that goes with the role: `Campaign`, `LeaderState`,
`SnapshotReceiver`, `RepairState`.  An idle follower has none of them.
"""

from __future__ import annotations

from fluffle.raft.config import Config, ConfigHistory, Member, NodeId
from fluffle.raft.log import Log
from fluffle.raft.log_store import Write
from fluffle.raft.node import Node
from fluffle.raft.output import ConfigChange, Readable, Restore, Role
from fluffle.raft.records import CONFIG, Entry, GroupId, HardState, Quarantine, SnapshotMeta
from fluffle.raft.role_state import Campaign, LeaderState, RepairState, SnapshotReceiver


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
        """Everything of the log up to here is on disk.  Invariant: at most what was submitted."""
        self.hard_state = hard_state
        """Term and vote as they are on disk."""
        self._pending_writes: list[tuple[int, int, HardState]] = []
        """Token, last index vouched for, hard state with it; in order of submission."""

    @property
    def is_settled(self) -> bool:
        """Whether no write is under way."""
        return not self._pending_writes

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
        "created_as",
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
        "tries",
        "truncate_due",
        "write",
    )  # fmt: skip

    def __init__(self, node: Node, group: GroupId, me: Member, log: Log, hard: HardState) -> None:
        self.node = node
        self.group = group
        self.me = me
        self.log = log
        self.durable = DurableState(log.last_index, hard)
        self.hard_state = hard
        """Term and vote.  What is not on disk is under way, or written at the end of this turn."""
        self.submitted_hard_state = hard
        """As it was last given to the disk."""
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        """Of this term, if known."""
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
        """What was last sent to that leader."""
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
        self.created_as: int | None = None
        self.write: Write | None = None
        """What this turn's flush has to write, entries and hard state apart."""
        self.truncate_due: int | None = None
        """The disk has entries from here on that are to go once others take their place."""

        self.campaign: Campaign | None = None
        self.leading: LeaderState | None = None
        self.receiver: SnapshotReceiver | None = None

    @property
    def term(self) -> int:
        return self.hard_state.term

    @property
    def voters(self) -> tuple[Member, ...]:
        """Voters of the active configuration."""
        return self.configs.active.voters  # mutant: M21a

    @property
    def is_config_committed(self) -> bool:
        return self.configs.last_index <= self.log.commit  # mutant: M18

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
                self.configs.append(entry.index, Config.decode(entry.payload))
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
        self.report_configs()

    def report_configs(self) -> None:
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
            self.report_configs()
