"""Output of a turn: the whole effect of consensus on the world.

The split between what may leave before the disk and what must wait for it is a split in time:
everything in `messages` may leave at once.  What must wait (votes, acknowledgements of appends,
snapshots that are stored) is not there before `durable` was called with the token of the `Persist`
it rests on; then the next output has it.  So no host can send it too early.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.log_store import Persist
from fluffle.raft.messages import Message, Ping


class Role(Enum):
    FOLLOWER = "follower"
    """Learners and members in quarantine are always this."""
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(slots=True)
class RoleChange:
    """New role, term or leader of a group on this node."""

    group: GroupId
    role: Role
    term: int
    leader: NodeId | None
    """None while it is not known."""


@dataclass(slots=True)
class LeaderReady:
    """Leader that may serve from here on: the entry of its own term is applied."""

    group: GroupId
    term: int


@dataclass(slots=True)
class ConfigChange:
    """Configuration of a group that is committed."""

    group: GroupId
    index: int
    config: Configuration


@dataclass(slots=True)
class Restore:
    """Replace the group's image by the state of its snapshot: an empty one if the index is 0."""

    group: GroupId
    snapshot: SnapshotMeta


@dataclass(slots=True)
class Apply:
    """Committed entries, durable here: apply them in order, then call `Group.applied`."""

    group: GroupId
    entries: Sequence[Entry]
    """Entries of all kinds; consecutive, without a gap to those before."""


@dataclass(slots=True)
class ReadEntries:
    """Call `LogStore.read` and give the result to `Group.entries_read`, or `Group.damaged`.

    It need not be at once, and other groups must not wait for it.
    """

    group: GroupId
    first: int
    stop: int
    bytes_max: int
    number: int
    """Number to be given back."""


@dataclass(slots=True)
class ReadState:
    """Call `LogStore.read_state`, then `Group.state_read` or `Group.damaged`."""

    group: GroupId
    offset: int
    size: int
    number: int


@dataclass(slots=True)
class Readable:
    """Answer to a `Group.read_index`."""

    group: GroupId
    context: int
    """Context of the query, as the caller gave it."""
    index: int | None
    """Whatever was committed when the read was asked for is applied here up to this index, at
    least.  None: this is not the leader (any more); ask elsewhere."""


@dataclass(slots=True)
class LivenessVerdict:
    """Verdict that another node is alive, or not, or alive in another boot than before."""

    node: NodeId
    is_alive: bool
    boot: int


@dataclass(slots=True)
class Echo:
    """Ping that answers one of ours: its sender's clocks, and how old that is."""

    node: NodeId
    ping: Ping
    round_trip_ms: int
    """Both ways together, without the time in which the sender had nothing to send."""
    now_ms: int
    """The time of the turn in which it came."""


class AbsentMember(NamedTuple):
    """Member of a group to which another node has sent something, and which is not here.

    Who is to say so to that node (`MultiRaft.deny`) must know all groups that were made before the
    message came.  Else this node may only not have heard of the group yet, and a member that has
    lost nothing would be taken for lost.
    """

    sender: NodeId
    group: GroupId
    incarnation: int
    """Incarnation to which the message was addressed."""


@dataclass(slots=True)
class Output:
    """Effects of one turn, of all groups.  The order within a list matters.

    A host does them in the order of the fields; after `persist` was submitted nothing of it may
    get lost without the process ending.
    """

    messages: dict[NodeId, list[Message]] = field(default_factory=dict)
    """All groups' to one node together, in order."""
    persist: Persist | None = None
    roles: list[RoleChange] = field(default_factory=list)
    restores: list[Restore] = field(default_factory=list)
    """Before `applies`."""
    applies: list[Apply] = field(default_factory=list)
    """At most one a group, of limited size; more comes once `Group.applied` was called."""
    configs: list[ConfigChange] = field(default_factory=list)
    led: list[LeaderReady] = field(default_factory=list)
    readable: list[Readable] = field(default_factory=list)
    reads: list[ReadEntries | ReadState] = field(default_factory=list)
    snapshots_wanted: list[GroupId] = field(default_factory=list)
    """A follower needs a snapshot that is not there: call `Group.compact` when it is made."""
    verdicts: list[LivenessVerdict] = field(default_factory=list)
    echoes: list[Echo] = field(default_factory=list)
    absent: list[AbsentMember] = field(default_factory=list)
    """Members that are not here, to which other nodes have sent something."""
    unknown: list[tuple[NodeId, GroupId]] = field(default_factory=list)
    """A node reports that it does not have a group: the owner of the groups must look into it."""

    def forget_image(self, group: GroupId) -> None:
        """Drop what an image was to be given: it is deleted, and its group may be made anew in the
        same turn, with an image that begins with nothing."""
        self.applies = [apply for apply in self.applies if apply.group != group]
