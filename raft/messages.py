"""Messages between nodes: a closed set of plain values.

A message of a group carries the sender's term and the incarnations of both members; sender and
receiver node are those of the link.  All fields are ints, bools and bytes, or a list of entries, so
that a codec needs no more than `MESSAGES`: the number of a class on the wire is its place there,
from 0, and its fields, like an entry's, are written in order.

Messages may be lost, repeated, reordered and held back for any time; they are not
altered.  A message, or a list in it, is never changed after it was sent or received.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fluffle.raft.log import Entry, GroupId


@dataclass(slots=True)
class Ping:
    """From node to node, a few a second: alive, and what of the other was heard."""

    boot: int
    """The sender's boot epoch: greater at each start of its process."""
    sequence: int
    """Rising within a boot, from 1."""
    echo_boot: int
    """The receiver's boot and sequence as last heard by the sender; 0 if never."""
    echo_sequence: int
    is_answer_wanted: bool
    """The sender does not know yet that the receiver hears it: a ping in return, at once."""
    sent_ms: int = 0
    """The sender's time: that of its turns, not of any day."""
    echo_age_ms: int = 0
    """Time in ms for which the sender has had the ping that it echoes."""
    wall_ms: int = 0
    """Time of day of the sender's host in ms; not used here, and neither is the next field."""
    common_ms: int = 0
    """The time of day that it takes to be agreed on; 0 if it knows of none."""


@dataclass(slots=True)
class GroupUnknown:
    """Answer to a message of a group, or for an incarnation, that is not on this node."""

    group: GroupId
    incarnation: int
    """Incarnation to which the message was addressed."""


@dataclass(slots=True)
class AppendRequest:
    """Leader to follower: entries behind `previous`, maybe none, and how far all is committed."""

    group: GroupId
    term: int
    sender: int
    """The sender's incarnation in the group; here and in all that follow."""
    receiver: int
    """The receiver's."""
    previous_index: int
    previous_term: int
    commit: int
    round: int
    """Rising within a leader's term, per follower: which request an answer follows."""
    entries: Sequence[Entry]
    """Consecutive, from `previous_index + 1`."""


@dataclass(slots=True)
class AppendAccepted:
    """Follower to leader: this much of your log is on my disk.

    The answer to entries comes when they are durable, and one may answer many; an empty request is
    answered at once.
    """

    group: GroupId
    term: int
    sender: int
    receiver: int
    durable: int
    """The greatest index that is durable here *and* equal to the leader's log of this term."""
    matched: int
    """The greatest index equal to the leader's log of this term, durable or not yet."""
    commit: int
    """The follower's."""
    round: int
    """The greatest of this leader's requests that it has seen."""


@dataclass(slots=True)
class AppendRejected:
    """Follower to leader: `previous` is not in my log; the hint is the last that may be equal."""

    group: GroupId
    term: int
    sender: int
    receiver: int
    previous_index: int
    """Previous index of the request."""
    hint_index: int
    hint_term: int
    """Term of the entry at `hint_index`."""
    round: int
    """Round of the request."""


@dataclass(slots=True)
class RepairRequest:
    """Follower to leader: from `first` on my log is damaged or gone; what I said of it is void."""

    group: GroupId
    term: int
    sender: int
    receiver: int
    first: int
    floor: int
    """If not 0: the damage is at or below this floor of my log; a snapshot not below mends it."""


@dataclass(slots=True)
class PreVoteRequest:
    """Would you vote for me?  Changes nothing at either side.  Thesis §9.6."""

    group: GroupId
    term: int
    """The term it would be an election for: the sender's own and one."""
    sender: int
    receiver: int
    last_index: int
    last_term: int


@dataclass(slots=True)
class PreVoteResponse:
    group: GroupId
    term: int
    """Term of the request if granted, else the voter's own."""
    sender: int
    receiver: int
    is_granted: bool


@dataclass(slots=True)
class VoteRequest:
    group: GroupId
    term: int
    sender: int
    receiver: int
    last_index: int
    last_term: int
    is_transfer: bool
    """The leader itself asked for this election: a voter need not hold on to it."""


@dataclass(slots=True)
class VoteResponse:
    group: GroupId
    term: int
    sender: int
    receiver: int
    is_granted: bool


@dataclass(slots=True)
class TimeoutNow:
    """Leader to a voter that has everything: hold an election at once.  Thesis §3.10."""

    group: GroupId
    term: int
    sender: int
    receiver: int


@dataclass(slots=True)
class LeaderQuery:
    """Follower to the leader it knows: do you still lead this term?"""

    group: GroupId
    term: int
    sender: int
    receiver: int


@dataclass(slots=True)
class NotLeading:
    """The answer of one that does not lead this term, or is in a later one."""

    group: GroupId
    term: int
    sender: int
    receiver: int


@dataclass(slots=True)
class SnapshotOffer:
    """Leader to follower: you are behind the floor of my log; this snapshot is there."""

    group: GroupId
    term: int
    sender: int
    receiver: int
    index: int
    index_term: int
    config: bytes
    """`Config.encode`."""
    live: bytes
    """`Ranges.to_bytes`."""
    state_bytes: int
    state_crc: int
    round: int


@dataclass(slots=True)
class SnapshotChunk:
    """The next piece: live entries in rising order, then, once there are no more, state."""

    group: GroupId
    term: int
    sender: int
    receiver: int
    index: int
    index_term: int
    state_crc: int
    """The three name the snapshot."""
    entries_from: int
    """Live entries from this index on up to the last of `entries` are all in them."""
    entries_through: int
    """Index through which all live entries are sent with this chunk: the snapshot's index for the
    last."""
    entries: Sequence[Entry]
    offset: int
    """Offset of `state` within the whole state."""
    state: bytes
    round: int


@dataclass(slots=True)
class SnapshotProgress:
    """Follower to leader: what of a snapshot is on my disk, and so where to go on."""

    group: GroupId
    term: int
    sender: int
    receiver: int
    index: int
    index_term: int
    state_crc: int
    entries_through: int
    """All live entries up to here are stored."""
    offset: int
    """Bytes of the state that are stored."""
    round: int


GroupMessage = (
    AppendRequest
    | AppendAccepted
    | AppendRejected
    | RepairRequest
    | PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | TimeoutNow
    | LeaderQuery
    | NotLeading
    | SnapshotOffer
    | SnapshotChunk
    | SnapshotProgress
)
"""Message with a term."""

Message = Ping | GroupUnknown | GroupMessage

MESSAGES: tuple[type[Message], ...] = (
    Ping,
    GroupUnknown,
    AppendRequest,
    AppendAccepted,
    AppendRejected,
    RepairRequest,
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
    TimeoutNow,
    SnapshotOffer,
    SnapshotChunk,
    SnapshotProgress,
    LeaderQuery,
    NotLeading,
)
"""The place of a class is its number on the wire: new ones go to the end."""
