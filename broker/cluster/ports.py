"""Where the parts of a cluster node meet: links to the other nodes, and the images of groups.

`Links` is TCP in a daemon, queues of bytes in the embedded cluster, a model of bad networks in the
simulator.  `Machine` is a quorum queue, the metadata of the cluster, or a toy.  The host stands
between them and knows neither; nor does it know an event loop (`Schedule`), or why a group is here
(`GroupOwner`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from enum import IntEnum
from typing import Protocol, TypeAlias

from fluffle.raft.config import NodeId
from fluffle.raft.log import Entry, GroupId, SnapshotMeta
from fluffle.raft.output import ConfigChange, Echo, LivenessVerdict
from fluffle.raft.ranges import Ranges

Payload: TypeAlias = bytes | Sequence[bytes]
"""Payload of a frame: in one, or in parts."""

METADATA_GROUP: GroupId = 1
"""The same in every cluster; no queue has it."""

LONE: NodeId = "this node"
"""Member of each quorum queue of a node that is alone.  Such a node may be given another name at
any start; this one, with a space in it, is no node's of a cluster."""


class TrafficClass(IntEnum):
    """Frames keep their order within a class; those of a lower number go first."""

    URGENT = 0
    """Pings, votes and answers: small, and never behind bodies."""
    NORMAL = 1
    """Appends, streams, metadata."""
    BULK = 2
    """Snapshots, and what else is large and can wait."""


class FrameKind(IntEnum):
    """The kind of a payload, into which links do not look.  The numbers are on the wire."""

    CONSENSUS = 0
    METADATA = 1
    SESSION = 2
    QUESTION = 3
    """How many messages a queue has, and the answer."""
    MEMBERSHIP = 4
    """Incarnation as which a node may join the metadata group."""
    REVISION = 5
    """Question whether a node has applied a revision of the definitions, and the answer."""
    LOG_POSITION = 6
    """How far a member of a queue is, and the answer."""
    ROOM = 7
    """Report whether the disk of a node has room."""
    ALARM = 8
    """Resources that a node is low on."""
    PEER_VIEW = 9
    """Nodes that are seen to run: question and answer."""
    HISTORY = 10
    """Messages that an exchange keeps for bindings to come."""
    RPC = 11
    """Requests of another node, and the replies to them: see `rpc`."""
    REPLY = 12
    """Answers to a requester of direct reply-to there, and whether there is one."""
    USAGE = 13
    """How many connections and channels users and virtual hosts have on a node."""
    PROGRESS = 14
    """How far the disk of a node has come, and those of others, as far as it knows."""
    FORMATION = 15
    """Question whether there is a cluster, and which node is to found one: see `formation`."""
    READ_INDEX = 16
    """How far a node must be to know all that was defined before it asked, and the answer."""
    CLIENTS = 17
    """Clients that have connected to a node, and may be connected to one only."""


OnFrame = Callable[[NodeId, FrameKind, bytes], None]
"""(sending node, kind, payload), of whichever class it was."""

OnLink = Callable[[NodeId, bool], None]
"""(other end, is up)."""


class Links(Protocol):
    """Links to all other nodes.  Calls come and go on one thread; nothing here waits."""

    on_frame: OnFrame
    """Handler of received frames; the host of the node sets it, and the next, before anything is
    received.  Frames are of the current boot of both ends; they may be lost, with the link."""
    on_link: OnLink
    """Up: a new link is open, what was sent over an earlier one may be lost.  Down: the link is
    gone, and it could not be opened again at once; or the other end's own is gone, and there is
    none of this end."""

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        """Send a frame; dropped for a node whose link is down.  Consensus repeats, streams
        resend."""

    def is_up(self, node: NodeId) -> bool:
        """True if `on_link` has last said so; a node that is not known is not up."""

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        """Given to `send` and not yet to the network, for back-pressure; 0 if the link is down."""


class FrameSender(Protocol):
    """Sender of frames of one kind, each to the part of another node that receives that kind."""

    @property
    def reached(self) -> Collection[NodeId]:
        """The nodes without a `hindrance`."""

    def hindrance(self, node: NodeId) -> str:
        """Why a node cannot be sent such frames, if it cannot."""

    def understands(self, node: NodeId) -> bool:
        """False if there is a link to it, and it is of a version without such frames."""

    def send(self, node: NodeId, payload: bytes) -> None:
        """Send a frame, which may be lost with the link; none to a version without them."""

    def send_all(self, payload: bytes) -> None:
        """Send it to each of the other nodes."""


class Machine(Protocol):
    """The replicated state of one group on this node: its *image*.

    Calls come from within a turn of the host, which must not be entered again: whatever they cause
    at the host (proposals, reads) is done in the next turn.  An AssertionError ends the node: the
    image is not what the log says.
    """

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        """Begin anew with this state, which is whole; index 0 and no bytes: with nothing.

        Raises `ValueError` for a state that cannot be read: the member is then in quarantine, and
        takes part in nothing until a leader has sent it another.  Its text tells operators why.
        """

    def apply(self, entries: Sequence[Entry]) -> None:
        """Committed, and durable here, in order, of all kinds, without a gap to those before.

        The first follow the snapshot of the last `restore`.  Raises `ValueError` for entries that
        do not fit what is here: the member is in quarantine, as after a failed `restore`, and the
        next call is another `restore`.
        """

    def led(self, term: int) -> None:
        """This node leads, and the entry of its own term is applied: it may serve."""

    def followed(self, term: int, leader: NodeId | None) -> None:
        """This node does not lead, or not yet; the node that does is None while it is not known.

        Called whenever one of the two changes.  What was led until now is over.
        """

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        """Indexes at and below the applied one that are still needed, and the state without them.

        An index that was once left out must never come back.  The state comes in pieces, of which
        each takes some milliseconds: it is the state at the call, whatever is applied meanwhile.
        """


class Schedule(Protocol):
    """When a host does what it has to do: each of these has one of its methods called, later."""

    def now_ms(self) -> int:
        """Never goes back."""

    def turn_soon(self) -> None:
        """`RaftHost.turn`, after everything else that is at hand was taken in."""

    def work_soon(self) -> None:
        """`RaftHost.work`, once what is more urgent had its turn."""

    def wake_at(self, at_ms: int) -> None:
        """`RaftHost.wake(at_ms)`, not before this time.  An earlier wish is not taken back."""


class ClockExchange(Protocol):
    """Exchange of the time of day between nodes, carried by pings."""

    def ping_times_ms(self, now_ms: int) -> tuple[int, int]:
        """Times of day at a moment of this machine, for pings: see `TimesOfDay`."""

    def heard(self, echo: Echo) -> None:
        """Handle the times in another node's echo; called within a turn."""


class GroupOwner(Protocol):
    """The owner of a set of groups, which knows those that belong on this node.  Called from within
    a turn.  What it then wants is asked of the host at once, and done in the next turn.

    What it then wants is asked of the host at once, and done in the next turn.
    """

    def make_machine(self, group: GroupId) -> Machine:
        """The image of a group that is here from now on; `restore` follows before anything else."""

    def configured(self, change: ConfigChange) -> None:
        """A configuration of a group that is here, or was until this turn, is committed."""

    def judged(self, verdict: LivenessVerdict) -> None:
        """Another node is believed to be alive, or not."""

    def when_known(self, group: GroupId, act: Callable[[], None]) -> None:
        """Call `act`, later or now, once this node knows the group if it was made before: until
        then it must not deny being a member."""

    def unknown(self, node: NodeId, group: GroupId) -> None:
        """A node says that it does not have a group: see `Output.unknown`."""

    def damaged(self, group: GroupId, index: int, wrong: str) -> None:
        """Report damage from `index` on; the group repairs itself."""

    def given_up(self, group: GroupId, wrong: str) -> None:
        """Its repair has not helped: there is no image until another process begins, or a snapshot
        comes that is further on."""

    def refused(self, node: NodeId, reason: str) -> None:
        """A frame from a node was not one of ours, and was dropped."""
