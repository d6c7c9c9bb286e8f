"""Facts: what is true of the whole cluster, gathered from what nodes write, send and apply.

No node knows this.  It outlives every process, forgets nothing, and has its own plain idea of each
log, in memory (`Replica.log`) and on disk (`Stored.log`), so that no mistake of the code under test
can hide in it.  Whether something is *right* is for the checkers in `checks/`.
"""

from dataclasses import dataclass, field, replace

from fluffle.raft.config import Configuration, Member, NodeId
from fluffle.raft.log import CONFIG, Entry, GroupId, HardState, Quarantine
from fluffle.raft.log_store import Write
from fluffle.raft.output import Role

NO_STATE = HardState(0, None)


class Violation(Exception):
    """An invariant does not hold; the text begins with its name."""


@dataclass(slots=True)
class LogView:
    """The log that a sequence of writes makes, by indexes and terms alone."""

    floor: int = 0
    floor_term: int = 0
    last: int = 0
    terms: dict[int, int] = field(default_factory=dict)
    """Terms of the entries above the floor."""
    configs: list[tuple[int, Configuration]] = field(default_factory=lambda: [(0, Configuration())])
    """That of the floor first, then those of entries above it."""

    def copy(self) -> "LogView":
        return LogView(self.floor, self.floor_term, self.last, dict(self.terms), list(self.configs))

    @property
    def config(self) -> Configuration:
        return self.configs[-1][1]

    def term_at(self, index: int) -> int | None:
        if index == self.floor:
            return self.floor_term
        return self.terms.get(index)

    def holds(self, index: int, term: int) -> bool:
        """True if it has this entry, or a snapshot that covers it."""
        return index < self.floor or self.term_at(index) == term

    def apply(self, write: Write) -> None:
        if write.install is not None:
            meta = write.install
            self._raise_floor(meta.index, meta.term, meta.config)
        if write.truncate_from is not None:
            self._truncate(write.truncate_from)
        for entry in write.entries:
            self.terms[entry.index] = entry.term
            self.last = entry.index
            if entry.kind == CONFIG:
                self.configs.append((entry.index, Configuration.decode(entry.payload)))
        if write.snapshot is not None:
            meta = write.snapshot.meta
            self._raise_floor(meta.index, meta.term, meta.config)

    def _raise_floor(self, index: int, term: int, config: Configuration) -> None:
        for old in range(self.floor + 1, index + 1):
            self.terms.pop(old, None)
        self.floor, self.floor_term = index, term
        self.last = max(self.last, index)
        above = [pair for pair in self.configs if pair[0] > index]
        self.configs = [(index, config), *above]

    def _truncate(self, first: int) -> None:
        for index in range(first, self.last + 1):
            self.terms.pop(index, None)
        self.last = max(self.floor, min(self.last, first - 1))
        while len(self.configs) > 1 and self.configs[-1][0] >= first:
            self.configs.pop()


@dataclass(slots=True)
class Stored:
    """State of one group on one disk."""

    member: Member
    log: LogView = field(default_factory=LogView)
    hard_state: HardState = NO_STATE
    quarantine: Quarantine | None = None

    def apply(self, write: Write) -> None:
        self.log.apply(write)
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.quarantine is not None:
            self.quarantine = write.quarantine
        if write.is_repaired:
            self.quarantine = None


@dataclass(slots=True)
class Replica:
    """State of one group in one boot of a process."""

    member: Member
    log: LogView
    """With everything that was submitted, durable or not."""
    role: Role = Role.FOLLOWER
    term: int = 0
    config_before: Configuration = field(default_factory=Configuration)
    """The active configuration when the turn began."""
    commit: int = 0
    applied: int = 0
    is_quarantined: bool = False


@dataclass(slots=True)
class GroupFacts:
    """Facts about one group on all nodes."""

    group: GroupId
    leaders: dict[int, Member] = field(default_factory=dict)
    """Term -> who was elected."""
    votes: dict[tuple[Member, int], Member] = field(default_factory=dict)
    """(voter, term) -> for whom, as it was durable at some time."""
    first: Member | None = None
    """Leader of the first term, if all founders have agreed on that."""
    grants: dict[tuple[int, Member], set[Member]] = field(default_factory=dict)
    """(term, candidate) -> who has voted for it."""
    entries: dict[tuple[int, int], tuple[Entry, int]] = field(default_factory=dict)
    """(index, term) -> the entry, and the term of the one before it."""
    committed: list[int] = field(default_factory=lambda: [0])
    """The term of each committed entry, by index."""
    commit_terms: list[int] = field(default_factory=lambda: [0])
    """In which term it was committed, by counting or with a later one."""
    config: Configuration = field(default_factory=Configuration)
    """The committed one."""
    lost: list[Stored] = field(default_factory=list)
    """States on disks that were lost, or dropped there by order."""
    digests: dict[int, int] = field(default_factory=dict)
    """Index -> digest of the image after it."""
    tops: dict[Member, int] = field(default_factory=dict)
    """The greatest term that each member has ever had on disk."""

    @property
    def commit(self) -> int:
        return len(self.committed) - 1

    def committed_before(self, term: int) -> int:
        """The last index that was committed in an earlier term: every leader of `term` has it."""
        return next((at for at in range(self.commit, 0, -1) if self.commit_terms[at] < term), 0)


class Facts:
    """Facts of all groups of a run."""

    __slots__ = ("groups", "replicas", "stored")

    def __init__(self) -> None:
        self.groups: dict[GroupId, GroupFacts] = {}
        self.replicas: dict[NodeId, dict[GroupId, Replica]] = {}
        """Replicas of the live processes."""
        self.stored: dict[NodeId, dict[GroupId, Stored]] = {}

    def group(self, group: GroupId) -> GroupFacts:
        facts = self.groups.get(group)
        if facts is None:
            facts = self.groups[group] = GroupFacts(group)
        return facts

    def disk_lost(self, node: NodeId) -> None:
        """Everything on it is gone."""
        for group, stored in self.stored.get(node, {}).items():
            self.group(group).lost.append(stored)
        self.stored[node] = {}

    def backup(self, node: NodeId) -> "dict[GroupId, Stored]":
        """A copy of all that is on its disk."""
        found = self.stored.get(node, {}).items()
        return {group: replace(stored, log=stored.log.copy()) for group, stored in found}

    def disk_put_back(self, node: NodeId, backup: "dict[GroupId, Stored]") -> None:
        """Note that what is on it is what was there when it was copied."""
        self.disk_lost(node)
        self.stored[node] = backup

    def group_lost(self, node: NodeId, group: GroupId) -> None:
        """Record that a group cannot be read, so that the process has it no more; each start
        reports that until something else is written there."""
        stored = self.stored[node].pop(group, None)
        if stored is not None:
            self.group(group).lost.append(stored)
            del self.replicas[node][group]

    def process_started(self, node: NodeId) -> None:
        """Start a process with what is on its disk."""
        stored = self.stored.setdefault(node, {})
        self.replicas[node] = {
            group: Replica(
                on_disk.member,
                on_disk.log.copy(),
                commit=on_disk.log.floor,
                is_quarantined=on_disk.quarantine is not None,
            )
            for group, on_disk in stored.items()
        }

    def process_ended(self, node: NodeId) -> None:
        self.replicas.pop(node, None)

    def submitted(self, node: NodeId, write: Write) -> Replica | None:
        """A write has left consensus; returns what it is about, if that still exists."""
        replicas = self.replicas[node]
        if write.is_drop:
            replicas.pop(write.group, None)
            return None
        if write.created_as is not None:
            replicas[write.group] = Replica(Member(node, write.created_as), LogView())
        replica = replicas[write.group]
        replica.log.apply(write)
        if write.quarantine is not None or write.is_repaired:
            replica.is_quarantined = not write.is_repaired
        return replica

    def became_durable(self, node: NodeId, write: Write) -> Stored | None:
        """A write is on disk."""
        stored = self.stored[node]
        if write.is_drop:
            dropped = stored.pop(write.group, None)
            if dropped is not None:
                self.group(write.group).lost.append(dropped)
            return None
        if write.created_as is not None:
            stored[write.group] = Stored(Member(node, write.created_as))
        stored[write.group].apply(write)
        return stored[write.group]
